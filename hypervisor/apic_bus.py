"""What connects a VM's local APICs, I/O APIC and message-signalled devices with each other, with time and with its vCPUs.

The devices (devices/lapic.py, ioapic.py) are pure state; here their messages find their destinations. All of it runs under the
hypervisor's lock; a vCPU that is to see something is told by events.notify.
"""
from __future__ import annotations

from typing import Final

from hypervisor import clock, pv_eoi, timers
from hypervisor.arch_x86 import backend
from hypervisor.cpu import owe, this_cpu
from hypervisor.devices import ioapic, lapic, lapic_registers, lapic_timer
from hypervisor.devices.lapic import Lapic, Message
from hypervisor.devices.lapic_registers import RegisterValue
from hypervisor.devices.platform import Platform
from hypervisor.devices.rate import NEVER
from hypervisor.events import notify
from hypervisor.lang import address, struct, u32, u64, wrap_u64
from hypervisor.model import MAX_VCPUS_PER_VM, WORK_INJECT, WORK_LOOK, Vcpu, VcpuState, Vm
from hypervisor.sched.wake import wake

MSI_ADDRESS: Final[u64] = 0xFEE0_0000  # SDM vol. 3A, 11.11.1
MSI_ADDRESS_MASK: Final[u64] = 0xFFFF_FFFF_FFF0_0000
MSI_REDIRECTION: Final[u64] = 1 << 3
MSI_LOGICAL: Final[u64] = 1 << 2
X2APIC_EOI: Final = lapic_registers.X2APIC_FIRST + lapic.EOI // 16
SHORTHAND_SELF: Final = 1
SHORTHAND_OTHERS: Final = 3
DEADLINE_MOST: Final[u64] = 1 << 62  # TSC ticks ahead: never
LOOKS: Final = 8  # vCPUs told at a time; to wake one takes about a thousand instructions


@struct
class Lookers:
    """VMs some of whose vCPUs are still to be told that something has reached them."""

    first: Vm | None


lookers: Final = Lookers()


def guest_time(vm: Vm) -> u64:
    """Nanoseconds since the VM started."""
    return clock.ns_of(clock.now() - vm.started_at)


def msi(vm: Vm, place: u64, data: u32) -> bool:
    """Deliver the message-signalled interrupt that a device of `vm` writes: `data` to the address `place` (SDM vol. 3A, 11.11).

    Whether somebody took it; what is no such message is dropped. Both values may be the guest's: nothing is trusted.
    """
    if place & MSI_ADDRESS_MASK != MSI_ADDRESS:
        return False
    message = Message()
    message.destination = u32(place >> 12 & 0xFF)
    message.logical = place & MSI_LOGICAL != 0
    message.mode = data >> 8 & 7
    if place & MSI_REDIRECTION != 0 and message.logical and message.mode == lapic.MODE_FIXED:
        message.mode = lapic.MODE_LOWEST
    message.vector = data & 0xFF
    message.level = data >> 15 & 1 != 0
    return send(vm, message)


def send(vm: Vm, message: Message) -> bool:
    """To all whom it addresses, or to one of them (lowest priority). Whether somebody took it."""
    if message.mode == lapic.MODE_LOWEST:
        chosen = least_busy(vm, message)
        if chosen is None:
            return False
        arrive(chosen, message)
        return True
    taken = False
    for member in vm.vcpus:
        if member is not None and lapic.addressed(member.lapic, message):
            taken = reach(vm, member, message) or taken
    look(vm)
    return taken


def least_busy(vm: Vm, message: Message) -> Vcpu | None:
    """Of those addressed, one whose priority is lowest; those of one priority take turns."""
    best: Vcpu | None = None
    priority: u32 = 0x100
    for step in range(vm.vcpu_count):
        member = vm.vcpus[(vm.lowest_priority_next + step) % vm.vcpu_count]
        if member is None or not lapic.addressed(member.lapic, message) or not lapic.is_enabled(member.lapic):
            continue
        if member.lapic.ppr < priority:
            best = member
            priority = member.lapic.ppr
    if best is not None:
        vm.lowest_priority_next = (best.index + 1) % vm.vcpu_count
    return best


def arrive(vcpu: Vcpu, message: Message) -> None:
    """A message reaches one vCPU."""
    if lapic.deliver(vcpu.lapic, message):
        attention(vcpu)


def reach(vm: Vm, vcpu: Vcpu, message: Message) -> bool:
    """A message reaches one of several vCPUs; `look` follows when it has reached all. Whether its local APIC took it."""
    if lapic.deliver(vcpu.lapic, message):
        vm.attention |= u64(1) << (vcpu.index & 63)
    return message.mode > lapic.MODE_LOWEST or lapic.is_enabled(vcpu.lapic)


def look(vm: Vm) -> None:
    """See that those whom something has reached look: a few now, the others by WORK_LOOK, for there may be 64 to be woken."""
    if not look_piece(vm) and not vm.looking:
        vm.looking = True
        vm.looks_next = lookers.first
        lookers.first = vm
        owe(WORK_LOOK)


def look_piece(vm: Vm) -> bool:
    """LOOKS of them; True: that was all."""
    index: u32 = 0
    looks: u32 = 0
    while vm.attention >> (index & 63) != 0 and looks < LOOKS:
        if vm.attention >> (index & 63) & 1 != 0:
            vm.attention = vm.attention & ~(u64(1) << (index & 63))
            member = vm.vcpus[index]
            if member is not None:
                attention(member)
            looks += 1
        if index == MAX_VCPUS_PER_VM - 1:
            break
        index = u32(index + 1)
    return vm.attention == 0


def look_some() -> None:
    """For WORK_LOOK: the next piece."""
    vm = lookers.first
    if vm is None:
        return
    if look_piece(vm):
        forget(vm)
    if lookers.first is not None:
        owe(WORK_LOOK)


def forget(vm: Vm) -> None:
    """Nobody of this VM is to look any more: all do, or it has ended."""
    vm.attention = 0
    if not vm.looking:
        return
    vm.looking = False
    before = lookers.first
    if before is not None and before == vm:
        lookers.first = vm.looks_next
        return
    while before is not None:
        following = before.looks_next
        if following is not None and following == vm:
            before.looks_next = vm.looks_next
        before = following


def attention(vcpu: Vcpu) -> None:
    """Its local APIC may have something for it: see that it looks, wherever it is."""
    apic = vcpu.lapic
    if vcpu.state == VcpuState.PARKED:
        if apic.startup:
            vcpu.state = VcpuState.BLOCKED
            wake(vcpu)
    elif vcpu.state == VcpuState.BLOCKED and (apic.nmi or apic.init):
        wake(vcpu)
    elif vcpu.state != VcpuState.BLOCKED or lapic.pending(apic) != lapic.NO_VECTOR:
        notify(vcpu)


def drain(vm: Vm, p: Platform) -> None:
    """Send what the I/O APIC has to send."""
    message = Message()
    while p.ioapic.wanted != 0:
        pin = ioapic.take_message(p.ioapic, message)
        if not send(vm, message):
            ioapic.refused(p.ioapic, pin)


def carry_out(vcpu: Vcpu) -> None:
    """Do what a change of the current vCPU's local APIC has left in its effects."""
    apic = vcpu.lapic
    effects = apic.effects
    apic.effects = 0
    if effects & lapic.EFFECT_IPI:
        send_ipi(vcpu)
    if effects & lapic.EFFECT_EOI:
        vm = vcpu.vm
        assert vm is not None
        p = vm.platform
        if p is not None:
            ioapic.end_of_interrupt(p.ioapic, apic.eoi_vector)
            drain(vm, p)
    if effects & lapic.EFFECT_TIMER:
        arm(vcpu)
    if effects & lapic.EFFECT_TPR:
        backend.set_cr8(vcpu, apic.tpr >> 4)
    if effects & lapic.EFFECT_INTERRUPT and apic.requests != 0:
        owe(WORK_INJECT)


def send_ipi(vcpu: Vcpu) -> None:
    """What ICR says."""
    vm = vcpu.vm
    assert vm is not None
    message = Message()
    shorthand = lapic.icr_message(vcpu.lapic, message)
    if shorthand == 0:
        send(vm, message)
    elif shorthand == SHORTHAND_SELF:
        arrive(vcpu, message)
    else:
        for member in vm.vcpus:
            if member is not None and (shorthand != SHORTHAND_OTHERS or address(member) != address(vcpu)):
                reach(vm, member, message)
        look(vm)


# Time


def arm(vcpu: Vcpu) -> None:
    """Let the host's timer expire with the local APIC's."""
    vm = vcpu.vm
    assert vm is not None
    due = host_deadline(vcpu.lapic, vm)
    if due == NEVER:
        timers.cancel(vcpu.apic_timer)
    else:
        timers.arm_for_guest(this_cpu(), vcpu.apic_timer, due)


def host_deadline(apic: Lapic, vm: Vm) -> u64:
    """Host TSC of the next expiry; NEVER."""
    if lapic_timer.mode(apic) != lapic_timer.MODE_TSC_DEADLINE:
        due = lapic_timer.next_deadline(apic)
        return NEVER if due == NEVER else vm.started_at + clock.ticks_of(due) + 1
    if apic.tsc_deadline == 0:
        return NEVER
    now: u64 = clock.now()
    guest_now = wrap_u64(now + vm.tsc_offset)
    if apic.tsc_deadline <= guest_now:
        return now
    ahead: u64 = apic.tsc_deadline - guest_now
    return now + ahead if ahead < DEADLINE_MOST else NEVER


def timer_expired(vcpu: Vcpu) -> None:
    """The host's timer has: interrupt the vCPU if its local APIC's has, and wait for the next one."""
    vm = vcpu.vm
    assert vm is not None
    apic = vcpu.lapic
    fired: bool
    if lapic_timer.mode(apic) == lapic_timer.MODE_TSC_DEADLINE:
        fired = lapic_timer.expire_tsc(apic, wrap_u64(clock.now() + vm.tsc_offset))
    else:
        fired = lapic_timer.expire(apic, guest_time(vm))
    arm(vcpu)
    if fired:
        attention(vcpu)


# Registers


def read_msr(vcpu: Vcpu, msr: u32, found: RegisterValue) -> bool:
    """RDMSR of an x2APIC register by the current vCPU; False: #GP."""
    vm = vcpu.vm
    assert vm is not None
    pv_eoi.sync(vcpu)
    sync_tpr(vcpu)
    return lapic_registers.read_msr(vcpu.lapic, msr, guest_time(vm), found)


def write_msr(vcpu: Vcpu, msr: u32, value: u64) -> bool:
    """WRMSR to an x2APIC register by the current vCPU; False: #GP."""
    vm = vcpu.vm
    assert vm is not None
    if msr == X2APIC_EOI:
        pv_eoi.sync(vcpu)
    done = lapic_registers.write_msr(vcpu.lapic, msr, value, guest_time(vm))
    if vcpu.lapic.effects != 0:
        carry_out(vcpu)
    return done


def read_page(vcpu: Vcpu, offset: u32) -> u32:
    """A 32-bit read of the register page by the current vCPU."""
    vm = vcpu.vm
    assert vm is not None
    pv_eoi.sync(vcpu)
    if offset <= lapic.PPR:
        sync_tpr(vcpu)
    return lapic_registers.read_page(vcpu.lapic, offset, guest_time(vm) if offset == lapic.TIMER_CURRENT else 0)


def write_page(vcpu: Vcpu, offset: u32, value: u32) -> None:
    """A 32-bit write to the register page by the current vCPU."""
    vm = vcpu.vm
    assert vm is not None
    if offset == lapic.EOI:
        pv_eoi.sync(vcpu)
    lapic_registers.write_page(vcpu.lapic, offset, value, guest_time(vm) if offset >= lapic.LVT_TIMER else 0)
    if vcpu.lapic.effects != 0:
        carry_out(vcpu)


def write_base(vcpu: Vcpu, value: u64) -> bool:
    """WRMSR to APIC_BASE; False: #GP."""
    done = lapic.write_base(vcpu.lapic, value)
    if vcpu.lapic.effects != 0:
        carry_out(vcpu)
    return done


def set_tsc_deadline(vcpu: Vcpu, value: u64) -> None:
    """WRMSR to TSC_DEADLINE."""
    lapic_timer.set_tsc_deadline(vcpu.lapic, value)
    if vcpu.lapic.effects != 0:
        carry_out(vcpu)


# CR8, which the guest changes without an exit


def sync_tpr(vcpu: Vcpu) -> None:
    """Take over what the current vCPU has put into CR8 since the last exit."""
    apic = vcpu.lapic
    cr8 = backend.cr8(vcpu)
    if cr8 != apic.tpr >> 4:
        apic.tpr = cr8 << 4
        lapic.update_ppr(apic)


def set_cr8(vcpu: Vcpu, value: u32) -> None:
    """The current vCPU writes 0..15 to CR8, which was intercepted."""
    backend.set_cr8(vcpu, value)
    sync_tpr(vcpu)
    owe(WORK_INJECT)


def watch_tpr(vcpu: Vcpu) -> None:
    """Have the current vCPU exit when it lowers CR8 so far that what waits now can be delivered; or no longer."""
    apic = vcpu.lapic
    wanted: u32 = lapic.request(apic) >> 4
    if wanted > apic.tpr >> 4 or wanted <= apic.in_service >> 4:
        wanted = 0  # nothing waits, or not for CR8
    if wanted != vcpu.tpr_watched:
        vcpu.tpr_watched = wanted
        backend.watch_cr8(vcpu, wanted)
