"""Virtual machines: made, started, ended, and given back a piece at a time."""
from typing import Annotated, Final

from hypervisor import apic_bus, board, clock, guest_console, log, timers, vcpu
from hypervisor.abi import VM_KIND_PV, VM_VIRTIO_CONSOLE, VmConfig
from hypervisor.addresses import PAGE_MASK, PAGE_SIZE, Hpa, hva_of
from hypervisor.block import virtual_disk
from hypervisor.abi_channel import WANT_CONSOLES, EventKind
from hypervisor.channel import consoles, events
from hypervisor.channel.state import link
from hypervisor.cpu import owe
from hypervisor.lang import address, at, sizeof, struct, text_at, u16, u32, u64, wrap_u64
from hypervisor.memory import frames, guest_memory, nested
from hypervisor.model import (CONSOLE_OUTPUT_BYTES, MAX_VCPUS_PER_VM, MAX_VMS, NAME_BYTES, WORK_REAP, WORK_RESCHED, Vm, VmState)
from hypervisor.paging import page_state, pressure
from hypervisor.sched import account, cap, cpus, limits
from hypervisor.sched.wake import ask, wake
from hypervisor.status import Status
from hypervisor.virtio import devices
from hypervisor.virtio.state import CONSOLE_QUEUES, DeviceKind

NS_PER_MS: Final[u64] = 1_000_000
VCPUS_A_PIECE: Final = 8  # made or given back at a time: three frames of each are cleared
VM_PAGES: Final = (sizeof(Vm) + PAGE_SIZE - 1) // PAGE_SIZE


@struct
class VmTable:
    """All VMs by id, ended ones included: what they held has been given back, their result is kept until they are destroyed."""

    vms: Annotated[list[Vm | None], MAX_VMS]
    count: u32  # places behind are free
    alive: u32  # VMs whose memory has not been given back yet
    end_auto: bool  # the bundle asks that the machine ends with the last VM
    attach: bool  # the bundle asks that the operator is attached to the first VM
    newest: Vm | None  # the latest made
    generations: Annotated[list[u16], MAX_VMS]  # how many VMs had each place and are destroyed
    emptied: Vm | None  # it reboots and holds no memory any more: to be made again


table: Final = VmTable()


def name(vm: Vm) -> str:
    """The VM's name as text."""
    return text_at(address(vm.name))


def by_id(id_: u32) -> Vm | None:
    """The VM of this id, or None."""
    return table.vms[id_] if id_ < table.count else None


def by_handle(handle: u32) -> Vm | None:
    """The VM that the channel calls `handle`; None: there is none, or no longer."""
    found = by_id(handle & 0xFFFF)  # channel/events.handle_of: the generation is above
    return found if found is not None and events.handle_of(found) == handle else None


def create(config: VmConfig) -> Status:
    """Make the VM that a checked configuration describes, as table.newest, without memory contents.

    NO_MEMORY, QUOTA: nothing is left behind. It does not run before start.
    """
    place: u32 = 0
    while place < MAX_VMS and table.vms[place] is not None:
        place = u32(place + 1)
    if place == MAX_VMS:
        return Status.QUOTA
    page = frames.alloc_contiguous_zeroed(VM_PAGES)
    if page == 0:
        return Status.NO_MEMORY
    vm = at(Vm, hva_of(page))
    vm.id = place
    vm.generation = table.generations[place]
    vm.kind = config.kind
    vm.weight = config.weight
    vm.reserved = config.reserved_percent
    vm.cpus = config.cpus
    cap.set_cap(vm, config.cap_percent, clock.ticks_of(config.cap_period_ms * NS_PER_MS), clock.now())
    for i in range(MAX_VCPUS_PER_VM):
        vm.pins[i] = config.pins[i]
    if vm.cpus != 0 or limits.has_pins(vm):
        limits.bind_new(account.charge_running())
        ask(cpus.present())
    vm.memory_bytes = config.memory_bytes & ~PAGE_MASK
    vm.vcpu_count = config.vcpu_count
    vm.reboots_most = config.reboots
    vm.virtio_console = config.flags & VM_VIRTIO_CONSOLE != 0
    vm.overhead_frames = VM_PAGES
    vm.state = VmState.PAUSED
    for i in range(NAME_BYTES - 1):
        vm.name[i] = config.name[i]
    status = nested.create(vm)
    if status == Status.OK:
        status = create_parts(vm)
        if status != Status.OK:
            nested.destroy(vm)
    if status != Status.OK:
        frames.free_contiguous(page, VM_PAGES)
        return status
    table.vms[vm.id] = vm
    table.newest = vm
    table.count = u32(max(table.count, place + 1))
    table.alive += 1
    events.happened(vm, EventKind.CREATED, 0, "")
    if link.connected and link.flags & WANT_CONSOLES != 0:
        consoles.allow(vm, CONSOLE_OUTPUT_BYTES)
    return Status.OK


def create_parts(vm: Vm) -> Status:
    """What a reboot makes anew, all or nothing: vCPUs, and the devices of a stock system's VM."""
    status = create_vcpus(vm)
    if status == Status.OK and vm.kind != VM_KIND_PV:
        status = board.create(vm)
        if status == Status.OK:
            status = create_bus(vm)
        if status != Status.OK:
            board.destroy(vm)
            destroy_vcpus(vm)
    return status


def create_bus(vm: Vm) -> Status:
    """The PCI bus and its devices, all or nothing."""
    status = devices.create(vm)
    if status == Status.OK and devices.add(vm, DeviceKind.ENTROPY, 0, 1) is None:
        status = Status.NO_MEMORY
    if status == Status.OK and vm.virtio_console and devices.add(vm, DeviceKind.CONSOLE, 0, CONSOLE_QUEUES) is None:
        status = Status.NO_MEMORY
    if status != Status.OK:
        devices.destroy(vm)
    return status


def create_vcpus(vm: Vm) -> Status:
    """All of them or none; some may be there (create_vcpus_some)."""
    status = Status.BUSY
    while status == Status.BUSY:
        status = create_vcpus_some(vm)
    if status != Status.OK:
        destroy_vcpus(vm)
    return status


def create_vcpus_some(vm: Vm) -> Status:
    """A bounded part of them. OK: all are there, none was made now; BUSY: go on; NO_MEMORY, QUOTA."""
    made: u32 = 0
    for index in range(vm.vcpu_count):
        if vm.vcpus[index] is None:
            if made == VCPUS_A_PIECE:
                return Status.BUSY
            status = vcpu.create(vm, u32(index))
            if status != Status.OK:
                return status
            made += 1
    return Status.OK if made == 0 else Status.BUSY


def destroy_vcpus(vm: Vm) -> None:
    """Give back what the VM's vCPUs hold."""
    while not destroy_vcpus_some(vm):
        pass


def destroy_vcpus_some(vm: Vm) -> bool:
    """A bounded part of that; True: nothing was left."""
    gone: u32 = 0
    for index in range(MAX_VCPUS_PER_VM):
        if vm.vcpus[index] is not None:
            if gone == VCPUS_A_PIECE:
                return False
            vcpu.destroy(vm, u32(index))
            gone += 1
    return gone == 0


def start(vm: Vm) -> None:
    """Let a created VM run: its TSC begins at 0, its first vCPU at what the loader wrote; the others wait to be woken."""
    vm.state = VmState.RUNNING
    vm.started_at = clock.now()
    vm.tsc_offset = wrap_u64(0 - vm.started_at)
    first = vm.vcpus[0]
    if first is not None:
        wake(first)
    events.happened(vm, EventKind.STARTED, vm.reboots, "")


def destroy(vm: Vm) -> None:
    """Free the place of a VM whose memory has been given back: nothing of it is left, and its handle is refused from now on."""
    assert vm.nested_root == 0
    events.happened(vm, EventKind.DESTROYED, 0, "")
    loaded = guest_memory.loading.vm
    if loaded is not None and loaded == vm:
        guest_memory.stop_loading()
    table.newest = None
    table.vms[vm.id] = None
    table.generations[vm.id] = u16((vm.generation + 1) & 0xFFFF)
    frames.free_contiguous(Hpa(address(vm)), VM_PAGES)


def stopped(vm: Vm) -> None:
    """The VM runs no more; the run loop gives back what it holds. Its state, ENDED, CRASHED or REBOOTING, was set by who stopped it."""
    if vm.state not in (VmState.ENDED, VmState.CRASHED, VmState.REBOOTING):
        vm.state = VmState.CRASHED
        log.error(f"vm '{name(vm)}' stopped")
        events.happened(vm, EventKind.CRASHED, vm.exit_code, "")
    if vm.state != VmState.REBOOTING:
        guest_console.finish(vm)
    timers.cancel(vm.cap.timer)
    apic_bus.forget(vm)
    if table.emptied is not None and table.emptied == vm:
        table.emptied = None
    if vm.state == VmState.ENDED:
        events.happened(vm, EventKind.ENDED, vm.exit_code, "")
    for member in vm.vcpus:
        if member is not None:
            vcpu.stop(member)
    virtual_disk.cancel(vm)
    owe(WORK_RESCHED | WORK_REAP)


def first_ended() -> Vm | None:
    """A VM that has ended, or reboots, and still holds memory; all CPUs have left it (run_loop.leave). One that a disk still keeps comes
    after the others: it may be for as long as a disk has to answer."""
    kept: Vm | None = None
    for place in range(table.count):
        vm = table.vms[place]
        if vm is not None and vm.nested_root != 0 and vm.state in (VmState.ENDED, VmState.CRASHED, VmState.REBOOTING) and not is_on_cpu(vm):
            if virtual_disk.quiet(vm):
                return vm
            kept = vm
    return kept


def is_on_cpu(vm: Vm) -> bool:
    """Whether some CPU still has a vCPU of it."""
    for member in vm.vcpus:
        if member is not None and member.on_cpu:
            return True
    return False


def reap_some() -> bool:
    """Give back a bounded piece of what ended VMs hold; True: nothing is left. Their vCPUs are on no CPU any more.

    A VM that reboots keeps its place, and is in table.emptied once the rest is given back: vm_config.boot_again.
    """
    vm = first_ended()
    if vm is None:
        return True
    if vm.state == VmState.REBOOTING:
        if (guest_memory.loading.vm is None and nested.empty_some(vm) and virtual_disk.quiet(vm) and virtual_disk.forget_some(vm, False)
                and destroy_vcpus_some(vm) and page_state.forget_some(vm)):
            devices.destroy(vm)
            board.destroy(vm)
            vm.state = VmState.PAUSED
            vm.paused_at = 0
            table.emptied = vm
            pressure.frames_returned()
        return False
    if (not virtual_disk.quiet(vm) or not virtual_disk.forget_some(vm, True) or not destroy_vcpus_some(vm)
            or not nested.destroy_some(vm)):
        return False
    devices.destroy(vm)  # before the disks that they refer to
    virtual_disk.destroy(vm)
    board.destroy(vm)
    pressure.frames_returned()
    table.alive -= 1
    events.happened(vm, EventKind.RELEASED, 0, "")
    if vm.destroy:
        destroy(vm)
    return first_ended() is None
