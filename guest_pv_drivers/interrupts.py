"""What happens at a trap: exceptions end this VM with a dump, events wake and switch threads."""
from guest_pv_drivers import apic, events, idt, threads, traps
from hypervisor.arch_x86.trap_frame import TrapFrame


def enter(frame: TrapFrame) -> None:
    """Called by the stubs of start.S with interrupts off."""
    if frame.vector == idt.APIC_VECTOR:
        apic.interrupt()
        return
    if frame.vector != idt.EVENT_VECTOR:
        traps.crash(frame)
    threads.deliver(events.take())
    threads.switch()
