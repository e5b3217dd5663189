"""What happens at a trap: exceptions end this VM with a dump, events wake and switch threads, or the vCPU that has none."""
from guest_pv_drivers import apic, events, idt, threads, traps, vcpus
from hypervisor.arch_x86.trap_frame import TrapFrame
from hypervisor.lang import address


def enter(frame: TrapFrame) -> None:
    """Called by the stubs of start.S with interrupts off."""
    vcpu = vcpus.of_stack(address(frame))
    if frame.vector == idt.APIC_VECTOR:
        apic.interrupt(vcpu)
        return
    if frame.vector != idt.EVENT_VECTOR:
        traps.crash(frame)
    pending = events.take(vcpu)
    if vcpu == 0:
        threads.deliver(pending)
        threads.switch()
