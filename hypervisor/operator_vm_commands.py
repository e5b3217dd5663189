"""Commands of the prompt about one VM, or about all of them; operator_commands.py lists them."""
from typing import Annotated, Final

from hypervisor import clock, guest_console, text, vm, vm_config, vm_control
from hypervisor.arch_x86.vm_exit import CAUSE_NAMES, EXIT_CAUSES
from hypervisor.console import capture, refuse, say
from hypervisor.lang import array, char_at, text_at, u32, u64
from hypervisor.model import NAME_BYTES, Vcpu, Vm, VmState
from hypervisor.sched import cpus
from hypervisor.status import Status

VM_STATES: Final = 6
LISTED_MOST: Final = 64  # as many lines as an answer on the channel holds, or the console takes at once

STATE_NAMES: Final[Annotated[list[str], VM_STATES]] = ["free", "running", "paused", "ended", "crashed", "reboots"]
KIND_OF_VM: Final[Annotated[list[str], 4]] = ["?", "pv", "linux", "multiboot"]


def list_(arguments: u64) -> None:
    """list [ID]"""
    text.cut_word(arguments)
    first: u64 = 0 if text.is_empty(text_at(arguments)) else text.number_at(arguments)
    if first == text.NOT_A_NUMBER:
        refuse("list [ID]: VMs from this one on")
        return
    say("  id name             kind      state   weight vcpus   memory   backed       cpu")
    shown: u32 = 0
    for id_ in range(min(first, vm.table.count), vm.table.count):
        machine = vm.table.vms[id_]
        if machine is not None and shown == LISTED_MOST:
            say(f"  and more: list {id_}")
            return
        if machine is not None:
            shown += 1
            size: u64 = text.size(machine.memory_bytes)
            unit = text.size_unit(machine.memory_bytes)
            kib: u64 = machine.private_frames << 2
            name = vm.name(machine)
            kind = KIND_OF_VM[machine.kind]
            state = STATE_NAMES[machine.state]
            say(f"  {machine.id:2} {name:<16} {kind:<9} {state:<8}{machine.weight:6} {machine.vcpu_count:5} {size:4} {unit}"
                f" {kib:6}K {cpu_ms(machine):6} ms")


def info(arguments: u64) -> None:
    """info NAME"""
    machine = named(arguments)
    if machine is None:
        return
    state = STATE_NAMES[machine.state]
    say(f"  {vm.name(machine)}: {state}, {machine.vcpu_count} vCPU, weight {machine.weight}, {cpu_ms(machine)} ms of CPU")
    say(f"  time     cap {machine.cap.percent} %, reserved {machine.reserved} %, CPUs {cpus.allowed(machine):#x}")
    say(f"  memory   {machine.memory_bytes >> 10} KiB, of which {machine.private_frames << 2} KiB are backed")
    say(f"  overhead {machine.overhead_frames + machine.nested_frames} frames, {machine.nested_frames} of them nested tables")
    say(f"  traded   {machine.released_frames} frames released, {machine.populated_frames} populated, "
        f"{machine.pressure_frames} asked for")
    say(f"  holes    {machine.holes_touched} accesses beyond its memory, {machine.refused_msrs} MSRs refused")
    show_interrupts(machine)
    p = machine.platform
    if p is not None:
        say(f"  ports    {p.unknown_reads} reads and {p.unknown_writes} writes where no device is, the last at {p.last_unknown:#x}")
    show_exits(machine)


def show_interrupts(machine: Vm) -> None:
    """What its local APICs have made pending."""
    timers: u64 = machine.past_timer_interrupts
    bus: u64 = machine.past_bus_interrupts
    for vcpu in machine.vcpus:
        if vcpu is not None:
            timers += vcpu.lapic.timer_interrupts
            bus += vcpu.lapic.bus_interrupts
    say(f"  APICs    {timers} interrupts of local timers, {bus} of other vCPUs and of devices")


def stats(arguments: u64) -> None:
    """stats NAME: exits by cause of each vCPU."""
    machine = named(arguments)
    if machine is None:
        return
    say(f"  {vm.name(machine)}: exits by cause, of all its vCPUs since it was made")
    show_exits(machine)
    for vcpu in machine.vcpus:
        if vcpu is not None and machine.vcpu_count > 1:
            say(f"  vcpu {vcpu.index}: {clock.ns_of(vcpu.cpu_time) // 1_000_000} ms of CPU")
            show_vcpu_exits(vcpu)


def attach(arguments: u64) -> None:
    """attach NAME"""
    machine = named(arguments)
    if machine is None:
        return
    if capture.active:
        refuse("attach is for the prompt: a host opens consoles of its own")
        return
    if capture.active:
        refuse("attach is for the prompt: a host opens consoles of its own")
        return
    if not vm_control.is_alive(machine):
        refuse(f"{vm.name(machine)} does not run")
        return
    attach_to(machine)


def attach_to(machine: Vm) -> None:
    """Give a VM the keys."""
    say(f"attached to {vm.name(machine)}; Ctrl-] detaches")
    guest_console.attach(machine)


def pause(arguments: u64) -> None:
    """pause NAME"""
    machine = named(arguments)
    if machine is not None and vm_control.pause(machine) != Status.OK:
        refuse(f"{vm.name(machine)} does not run")


def resume(arguments: u64) -> None:
    """resume NAME"""
    machine = named(arguments)
    if machine is not None and vm_control.resume(machine) != Status.OK:
        refuse(f"{vm.name(machine)} is not paused")


def stop(arguments: u64) -> None:
    """stop NAME"""
    machine = named(arguments)
    if machine is not None and vm_control.stop(machine) != Status.OK:
        refuse(f"{vm.name(machine)} does not run")


def reboot(arguments: u64) -> None:
    """reboot NAME"""
    machine = named(arguments)
    if machine is not None and vm_control.reboot(machine) != Status.OK:
        refuse(f"{vm.name(machine)} does not run")


def destroy(arguments: u64) -> None:
    """destroy NAME"""
    machine = named(arguments)
    if machine is not None:
        vm_control.destroy(machine)


def create(arguments: u64) -> None:
    """create NAME [AS]"""
    called = text.cut_word(arguments)
    text.cut_word(called)
    if text.is_empty(text_at(called)):
        called = arguments
    if not is_name(text_at(called)):
        refuse("a name has a-z, 0-9, '-' and '_', at most 31 of them")
        return
    for machine in vm.table.vms:
        if machine is not None and text.same(vm.name(machine), text_at(called)):
            refuse(f"there is a VM {text_at(called)}; `destroy` it first")
            return
    status = vm_config.create_again(text_at(arguments), text_at(called))
    if status == Status.NOT_FOUND:
        refuse(f"the bundle has no VM {text_at(arguments)}")
    elif status == Status.BUSY:
        refuse("another VM is being loaded: try again")
    elif status != Status.OK:
        capture.refused = True  # it was said why
    else:
        say(f"{text_at(called)} is being made")


def is_name(name: str) -> bool:
    """As the host's tools allow them: a file may have this name."""
    length: u32 = 0
    while char_at(name, length) != 0:
        byte = char_at(name, length)
        if not (ord("a") <= byte <= ord("z") or ord("0") <= byte <= ord("9") or (length != 0 and byte in (ord("-"), ord("_")))):
            return False
        length += 1
    return 0 < length < NAME_BYTES


def named(name: u64) -> Vm | None:
    """The VM of the name that the text at this address begins with; None, and said so, if there is none."""
    text.cut_word(name)
    for machine in vm.table.vms:
        if machine is not None and text.same(vm.name(machine), text_at(name)):
            return machine
    refuse(f"no such VM: {text_at(name)}")
    return None


def cpu_ms(machine: Vm) -> u64:
    """Milliseconds of CPU charged to all its vCPUs, those that are no more included."""
    return clock.ns_of(cpu_ticks(machine)) // 1_000_000


def cpu_ticks(machine: Vm) -> u64:
    """The same in TSC ticks."""
    ticks: u64 = machine.past_cpu_time
    for vcpu in machine.vcpus:
        if vcpu is not None:
            ticks += vcpu.cpu_time
    return ticks


def count_exits(machine: Vm, counts: Annotated[list[u64], EXIT_CAUSES]) -> None:
    """Exits by cause, over all vCPUs, those that are no more included."""
    for cause in range(EXIT_CAUSES):
        counts[cause] = machine.past_exits[cause]
    for vcpu in machine.vcpus:
        if vcpu is not None:
            for cause in range(EXIT_CAUSES):
                counts[cause] += vcpu.exits[cause]


def show_exits(machine: Vm) -> None:
    """Exits by cause, over all vCPUs."""
    counts: Annotated[list[u64], EXIT_CAUSES] = array(u64, EXIT_CAUSES)
    count_exits(machine, counts)
    for cause in range(EXIT_CAUSES):
        if counts[cause] != 0:
            say(f"    {CAUSE_NAMES[cause]:<18}{counts[cause]:10}")


def show_vcpu_exits(vcpu: Vcpu) -> None:
    """Exits of one vCPU by cause."""
    for cause in range(EXIT_CAUSES):
        if vcpu.exits[cause] != 0:
            say(f"    {CAUSE_NAMES[cause]:<18}{vcpu.exits[cause]:10}")
