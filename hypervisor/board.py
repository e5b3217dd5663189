"""What connects the devices of a VM (devices/platform.py, pure) to time, timers, console and the VM's life."""
from typing import Final

from hypervisor import apic_bus, clock, guest_console, log, pv_eoi, reboot, timers
from hypervisor.abi import EVENT_CONSOLE
from hypervisor.addresses import PAGE_SIZE, Hva, hpa_of, hva_of
from hypervisor.arch_x86 import wall_clock
from hypervisor.cpu import this_cpu
from hypervisor.devices import ioapic, lapic, platform, uart16550
from hypervisor.devices.lapic import Message
from hypervisor.devices.platform import Platform
from hypervisor.devices.rate import NEVER
from hypervisor.events import notify, raise_event
from hypervisor.handlers.outcome import Outcome
from hypervisor.kick import kick
from hypervisor.lang import address, at, sizeof, text_at, u32, u64
from hypervisor.memory import frames
from hypervisor.memory.ledger import Use
from hypervisor.model import TimerKind, Vcpu, Vm, VmState
from hypervisor.status import Status
from hypervisor.virtio import liveness

NO_INTERRUPT: Final = 0x100  # no vector


def create(vm: Vm) -> Status:
    """Give a VM that does not run yet a platform, its devices as after power-on. NO_MEMORY is possible."""
    assert sizeof(Platform) <= PAGE_SIZE
    page = frames.alloc_for(vm.id, Use.OTHER)
    if page == 0:
        return Status.NO_MEMORY
    vm.overhead_frames += 1
    made = at(Platform, hva_of(page))
    platform.reset(made, wall_clock.unix_seconds(), 0)
    vm.platform = made
    first = vm.vcpus[0]
    if first is not None:
        first.timer.kind = TimerKind.PLATFORM
    return Status.OK


def destroy(vm: Vm) -> None:
    """Give the platform of an ended VM back."""
    p = vm.platform
    if p is None:
        return
    vm.platform = None
    frames.free(hpa_of(Hva(address(p))))
    vm.overhead_frames -= 1


def guest_time(vm: Vm) -> u64:
    """Nanoseconds since the VM started."""
    return clock.ns_of(clock.now() - vm.started_at)


def carry_out(vcpu: Vcpu, vm: Vm, p: Platform) -> Outcome:
    """Do what the last access left in p.effects; what becomes of the instruction."""
    effects: u32 = p.effects
    p.effects = 0
    if effects & platform.EFFECT_CONSOLE:
        guest_console.put(vm, p.sent_byte)
    if effects & platform.EFFECT_RECEIVER_READ:
        feed(vm, p)
        effects = effects | p.effects
        p.effects = 0
    if effects & platform.EFFECT_DEADLINE:
        arm(vm, p)
    if effects & platform.EFFECT_INTERRUPT:
        interrupt(vm, p)
    if effects & platform.EFFECT_POWER_OFF:
        return end(vm, p.exit_code, "switched itself off")
    if effects & platform.EFFECT_RESET:
        return reboot.ask(vm, "a reset")
    return Outcome.SKIP


def end(vm: Vm, exit_code: u32, how: str) -> Outcome:
    """The guest ends itself; `how` is told to the operator."""
    guest_console.finish(vm)
    log.info(f"vm '{text_at(address(vm.name))}' {how}")
    vm.exit_code = exit_code
    vm.state = VmState.ENDED
    return Outcome.STOP


def interrupt(vm: Vm, p: Platform) -> None:
    """The devices may have interrupted: send what the I/O APIC has, and tell the vCPUs that listen to the 8259."""
    apic_bus.drain(vm, p)
    if platform.interrupt_pending(p):
        for member in vm.vcpus:
            if member is not None and hears_pic(member, p):
                notify(member)


def arm(vm: Vm, p: Platform) -> None:
    """Let the first vCPU's timer expire when the devices have something to do next."""
    first = vm.vcpus[0]
    assert first is not None
    due = platform.next_deadline(p)
    if due == NEVER:
        timers.cancel(first.timer)
    else:
        timers.arm_for_guest(this_cpu(), first.timer, vm.started_at + clock.ticks_of(due) + 1)


def feed(vm: Vm, p: Platform) -> None:
    """Bytes typed for the VM go to its UART as far as there is room, unless its virtio console has them."""
    if not guest_console.has_input(vm) or liveness.console(vm) is not None:
        return
    while guest_console.has_input(vm) and uart16550.room(p.uart) != 0:
        platform.receive(p, guest_console.take_input(vm))


def advance(vcpu: Vcpu) -> None:
    """Bring the devices up to now: due timers, typed bytes. Before interrupt_pending is asked for this vCPU."""
    vm = vcpu.vm
    assert vm is not None
    p = vm.platform
    if p is None:
        return
    platform.advance(p, guest_time(vm))
    feed(vm, p)
    settle(vm, p)


def settle(vm: Vm, p: Platform) -> None:
    """Carry out effects that do not end the VM."""
    effects: u32 = p.effects
    p.effects = 0
    first = vm.vcpus[0]
    if vm.state == VmState.RUNNING and (effects & platform.EFFECT_DEADLINE or (first is not None and first.timer.heap_index == 0)):
        arm(vm, p)
    if effects & platform.EFFECT_INTERRUPT:
        interrupt(vm, p)


def timer_expired(vcpu: Vcpu) -> None:
    """The timer of the VM's devices has run out: vCPUs that a device interrupts now are told."""
    advance(vcpu)


def typed(vm: Vm) -> None:
    """Something was typed for the VM: a PV guest gets its event; a stock one wakes once its UART interrupts, not before."""
    first = vm.vcpus[0]
    if first is None:
        return
    if vm.platform is None:
        raise_event(first, EVENT_CONSOLE)
    elif vm.state == VmState.RUNNING:  # a paused one's devices stand still: it is told when it goes on
        advance(first)


def hears_pic(vcpu: Vcpu, p: Platform) -> bool:
    """Whether the 8259's interrupts are this vCPU's to take."""
    message = Message()
    return lapic.takes_pic(vcpu.lapic) or ioapic.is_extint(p.ioapic, message) and lapic.addressed(vcpu.lapic, message)


def pic_pending(vcpu: Vcpu) -> bool:
    """Does the 8259 ask for this vCPU's attention? False for VMs without devices."""
    vm = vcpu.vm
    assert vm is not None
    p = vm.platform
    return p is not None and platform.interrupt_pending(p) and hears_pic(vcpu, p)


def interrupt_pending(vcpu: Vcpu) -> bool:
    """Does a device, or another vCPU, ask for the vCPU's attention?"""
    return lapic.pending(vcpu.lapic) != lapic.NO_VECTOR or pic_pending(vcpu)


def set_line(vm: Vm, irq: u32, level: bool) -> None:
    """A device beside the platform pulls an interrupt line, or lets go of it; the vCPU that is interrupted by it now is told."""
    p = vm.platform
    if p is not None:
        platform.set_line(p, irq, level)
        settle(vm, p)


def take_interrupt(vcpu: Vcpu) -> u32:
    """The vector of the interrupt that the vCPU takes now, the 8259's first; NO_INTERRUPT: there is none."""
    if not pic_pending(vcpu):
        taken = lapic.pending(vcpu.lapic)
        if taken == lapic.NO_VECTOR:
            return NO_INTERRUPT
        lapic.acknowledge(vcpu.lapic, taken)
        pv_eoi.offer(vcpu)
        return taken
    vm = vcpu.vm
    assert vm is not None
    p = vm.platform
    assert p is not None
    vector = platform.acknowledge(p)
    if p.effects & platform.EFFECT_DEADLINE:
        p.effects = u32(p.effects & ~platform.EFFECT_DEADLINE)
        arm(vm, p)
    return vector
