"""What the operator can type at the prompt; one function a command, each given the address of its arguments' text."""
from typing import Annotated, Final

from hypervisor import clock, crash_commands, disk_commands, guest_console, text, vm
from hypervisor.abi import EXIT_OK, EXIT_PANIC
from hypervisor.arch_x86 import host_interrupts, machine_exit, serial
from hypervisor.arch_x86.vm_exit import CAUSE_NAMES, EXIT_CAUSES
from hypervisor.build_options import DEBUG
from hypervisor.console import say
from hypervisor.cpu import this_cpu
from hypervisor.lang import array, text_at, u32, u64
from hypervisor.memory import frames, ledger, ledger_check
from hypervisor.memory.ledger import KIND_NAMES, KINDS
from hypervisor.model import Vm, VmState
from hypervisor.sched import policy
from hypervisor.status import Status

COMMANDS: Final = 14
VM_STATES: Final = 6

STATE_NAMES: Final[Annotated[list[str], VM_STATES]] = ["free", "running", "paused", "ended", "crashed", "reboots"]
KIND_OF_VM: Final[Annotated[list[str], 4]] = ["?", "pv", "linux", "multiboot"]


def run(line: u64) -> None:
    """Run the command line at this address (NUL-terminated; it is cut into words). An empty one does nothing."""
    word = text.skip_spaces(line)
    arguments = text.cut_word(word)
    if text.is_empty(text_at(word)):
        return
    for i in range(COMMANDS):
        if text.same(text_at(word), NAMES[i]):
            ACTIONS[i](arguments)
            return
    say(f"no such command: {text_at(word)}; `help` lists them")


def help_(arguments: u64) -> None:
    """help"""
    for i in range(COMMANDS):
        if DEBUG or not text.same(NAMES[i], "debug"):
            say(f"  {USAGE[i]:<20}{MEANINGS[i]}")


def list_(arguments: u64) -> None:
    """list"""
    say("  id name             kind  state   weight vcpus   memory   backed       cpu")
    for machine in vm.table.vms:
        if machine is not None:
            mib: u64 = machine.memory_bytes >> 20
            kib: u64 = machine.private_frames << 2
            name = vm.name(machine)
            kind = KIND_OF_VM[machine.kind]
            state = STATE_NAMES[machine.state]
            say(f"  {machine.id:2} {name:<16} {kind:<5} {state:<8}{machine.weight:6} {machine.vcpu_count:5} {mib:4} MiB"
                f" {kib:6}K {cpu_ms(machine):6} ms")


def info(arguments: u64) -> None:
    """info NAME"""
    machine = named(arguments)
    if machine is None:
        return
    state = STATE_NAMES[machine.state]
    say(f"  {vm.name(machine)}: {state}, {machine.vcpu_count} vCPU, weight {machine.weight}, {cpu_ms(machine)} ms of CPU")
    say(f"  memory   {machine.memory_bytes >> 10} KiB, of which {machine.private_frames << 2} KiB are backed")
    say(f"  overhead {machine.overhead_frames + machine.nested_frames} frames, {machine.nested_frames} of them nested tables")
    say(f"  traded   {machine.released_frames} frames released, {machine.populated_frames} populated, "
        f"{machine.pressure_frames} asked for")
    say(f"  holes    {machine.holes_touched} accesses beyond its memory, {machine.refused_msrs} MSRs refused")
    p = machine.platform
    if p is not None:
        say(f"  ports    {p.unknown_reads} reads and {p.unknown_writes} writes where no device is, the last at {p.last_unknown:#x}")
    show_exits(machine)


def mem(arguments: u64) -> None:
    """mem"""
    say(f"  {frames.total()} frames ({frames.total() >> 8} MiB), {frames.available()} available to guests")
    for kind in range(KINDS):
        count: u64 = ledger.book.counts[kind]
        if count != 0:
            say(f"  {KIND_NAMES[kind]:<12}{count:8}")


def stats(arguments: u64) -> None:
    """stats"""
    say(f"  up {clock.since_boot_us() // 1_000_000} s, idle {clock.ns_of(this_cpu().idle_ticks) // 1_000_000} ms")
    say(f"  interrupts: timer {host_interrupts.counts.timer}, serial {host_interrupts.counts.serial}, "
        f"disk {host_interrupts.counts.disk}, "
        f"spurious {host_interrupts.counts.spurious}, unknown {host_interrupts.counts.unknown}")
    if serial.com1.output_dropped != 0:
        say(f"  console bytes dropped: {serial.com1.output_dropped}")
    for machine in vm.table.vms:
        if machine is not None:
            say(f"  {vm.name(machine)}:")
            show_exits(machine)


def attach(arguments: u64) -> None:
    """attach NAME"""
    machine = named(arguments)
    if machine is None:
        return
    if machine.state != VmState.RUNNING:
        say(f"{vm.name(machine)} does not run")
        return
    attach_to(machine)


def attach_to(machine: Vm) -> None:
    """Give a VM the keys."""
    say(f"attached to {vm.name(machine)}; Ctrl-] detaches")
    guest_console.attach(machine)


def stop(arguments: u64) -> None:
    """stop NAME"""
    machine = named(arguments)
    if machine is None:
        return
    if machine.state in (VmState.ENDED, VmState.CRASHED):
        say(f"{vm.name(machine)} does not run")
        return
    machine.state = VmState.ENDED
    vm.stopped(machine)


def weight(arguments: u64) -> None:
    """weight NAME N"""
    number = text.cut_word(arguments)
    machine = named(arguments)
    if machine is None:
        return
    text.cut_word(number)
    value = text.number_at(number)
    if value >> 32 != 0 or policy.set_weight(machine, u32(value)) != Status.OK:
        say(f"a weight is {policy.WEIGHT_MIN} to {policy.WEIGHT_MAX}")
    else:
        say(f"{vm.name(machine)}: weight {value}")


def policy_(arguments: u64) -> None:
    """policy [NAME]"""
    text.cut_word(arguments)
    if text.is_empty(text_at(arguments)):
        for i in range(policy.POLICIES):
            mark = "*" if i == policy.current.policy else " "
            say(f"  {mark} {policy.POLICY_NAMES[i]}")
        return
    for i in range(policy.POLICIES):
        if text.same(text_at(arguments), policy.POLICY_NAMES[i]):
            policy.select(u32(i))
            say(f"policy {policy.POLICY_NAMES[i]}")
            return
    say(f"no such policy: {text_at(arguments)}; `policy` lists them")


def check(arguments: u64) -> None:
    """ledger"""
    ledger_check.check()


def debug(arguments: u64) -> None:
    """debug crash KIND, debug entry NAME, debug disk NAME: debug images only."""
    if not DEBUG:
        say("not in a release image")
        return
    rest = text.cut_word(arguments)
    if text.same(text_at(arguments), "crash"):
        crash_commands.run(rest)
    elif text.same(text_at(arguments), "entry"):
        machine = named(rest)
        if machine is not None:
            crash_commands.spoil_entry(machine)
    elif text.same(text_at(arguments), "disk"):
        disk_commands.debug(rest)
    else:
        say("debug crash KIND, debug entry NAME, debug disk NAME")


def power_off(arguments: u64) -> None:
    """poweroff, quit"""
    machine_exit.leave(EXIT_OK if ledger_check.check() == 0 else EXIT_PANIC)


def named(name: u64) -> Vm | None:
    """The VM of the name that the text at this address begins with; None, and said so, if there is none."""
    text.cut_word(name)
    for machine in vm.table.vms:
        if machine is not None and text.same(vm.name(machine), text_at(name)):
            return machine
    say(f"no such VM: {text_at(name)}")
    return None


def cpu_ms(machine: Vm) -> u64:
    """Milliseconds of CPU charged to all its vCPUs, those that are no more included."""
    ticks: u64 = machine.past_cpu_time
    for vcpu in machine.vcpus:
        if vcpu is not None:
            ticks += vcpu.cpu_time
    return clock.ns_of(ticks) // 1_000_000


def show_exits(machine: Vm) -> None:
    """Exits by cause, over all vCPUs."""
    counts: Annotated[list[u64], EXIT_CAUSES] = array(u64, EXIT_CAUSES)
    for cause in range(EXIT_CAUSES):
        counts[cause] = machine.past_exits[cause]
    for vcpu in machine.vcpus:
        if vcpu is not None:
            for cause in range(EXIT_CAUSES):
                counts[cause] += vcpu.exits[cause]
    for cause in range(EXIT_CAUSES):
        if counts[cause] != 0:
            say(f"    {CAUSE_NAMES[cause]:<18}{counts[cause]:10}")


NAMES: Final[Annotated[list[str], COMMANDS]] = [
    "help", "list", "info", "mem", "disks", "stats", "attach", "stop", "weight", "policy", "ledger", "debug", "poweroff", "quit"]
USAGE: Final[Annotated[list[str], COMMANDS]] = [
    "help", "list", "info NAME", "mem", "disks", "stats", "attach NAME", "stop NAME", "weight NAME N", "policy [NAME]", "ledger",
    "debug crash KIND", "poweroff", "quit"]
MEANINGS: Final[Annotated[list[str], COMMANDS]] = [
    "this list", "all VMs", "one VM: memory, exits by cause", "frames by use", "disks of the machine and of VMs", "host interrupts, exits by cause",
    "keys go to that guest until Ctrl-]", "end a VM", "change a VM's share of the CPU", "who runs next: the policies, or another one", "check every frame of memory",
    "a fault of ours: pf, null, text, gp, ud, df, nmi, stack; or entry NAME: a VM entry that fails; or disk NAME: overwrite a disk that no VM has", "check the ledger and end the machine", "the same"]
ACTIONS: Final = (help_, list_, info, mem, disk_commands.disks_, stats, attach, stop, weight, policy_, check, debug, power_off, power_off)
