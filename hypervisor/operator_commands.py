"""What the operator can type at the prompt; one function a command, each given the address of its arguments' text."""
from typing import Annotated, Final

from hypervisor import (clock, clock_commands, crash_commands, disk_commands, entry_states, log, operator_scheduling, saved_vm_command, text,
                        vm)
from hypervisor import operator_vm_commands as vm_commands
from hypervisor.abi import EXIT_OK, EXIT_PANIC
from hypervisor.arch_x86 import host_interrupts, machine_exit, serial
from hypervisor.build_options import DEBUG
from hypervisor.console import capture, refuse, say
from hypervisor.cpu import cpus
from hypervisor.lang import address, text_at, u32, u64
from hypervisor.memory import frames, ledger, ledger_check
from hypervisor.memory.ledger import KIND_NAMES, KINDS
from hypervisor.sched.cpus import host

COMMANDS: Final = 28
LOG_LINES: Final = 24  # what `log` shows unless a number is given


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
    refuse(f"no such command: {text_at(word)}; `help` lists them")


def help_(arguments: u64) -> None:
    """help"""
    for i in range(COMMANDS):
        if DEBUG or not text.same(NAMES[i], "debug"):
            say(f"  {USAGE[i]:<20}{MEANINGS[i]}")


def mem(arguments: u64) -> None:
    """mem"""
    say(f"  {frames.total()} frames ({frames.total() >> 8} MiB), {frames.available()} available to guests")
    for kind in range(KINDS):
        count: u64 = ledger.book.counts[kind]
        if count != 0:
            say(f"  {KIND_NAMES[kind]:<12}{count:8}")


def stats(arguments: u64) -> None:
    """stats [NAME]"""
    text.cut_word(arguments)
    if not text.is_empty(text_at(arguments)):
        vm_commands.stats(arguments)
        return
    say(f"  up {clock.since_boot_us() // 1_000_000} s")
    for cpu in range(host.count):
        idle: u64 = clock.ns_of(cpus[cpu].idle_ticks) // 1_000_000
        say(f"  cpu {cpu}: idle {idle} ms, overhead {clock.ns_of(cpus[cpu].overhead_ticks) // 1_000_000} ms")
    say(f"  interrupts: timer {host_interrupts.counts.timer}, serial {host_interrupts.counts.serial}, "
        f"disk {host_interrupts.counts.disk}, "
        f"spurious {host_interrupts.counts.spurious}, unknown {host_interrupts.counts.unknown}")
    if serial.com1.output_dropped != 0:
        say(f"  console bytes dropped: {serial.com1.output_dropped}")
    for machine in vm.table.vms:
        if machine is not None:
            say(f"  {vm.name(machine)}:")
            vm_commands.show_exits(machine)


def log_(arguments: u64) -> None:
    """log [N]"""
    text.cut_word(arguments)
    most: u64 = LOG_LINES if text.is_empty(text_at(arguments)) else text.number_at(arguments)
    if most == text.NOT_A_NUMBER:
        refuse("log [N]: how many of the last messages")
        return
    first: u64 = max(log.first_kept(), log.ring.written - min(most, log.ring.written))
    for number in range(first, log.ring.written):
        message = log.get(number)
        ms: u64 = message.us // 1000
        level = log.LEVEL_NAMES[message.level]
        say(f"  {ms // 1000:5}.{ms // 100 % 10}{ms // 10 % 10}{ms % 10} {level:<8}{text_at(address(message.text))}")


def check(arguments: u64) -> None:
    """ledger"""
    ledger_check.check()


def debug(arguments: u64) -> None:
    """debug crash KIND, debug entry NAME [SEED], debug disk NAME, debug state NAME: debug images only."""
    if not DEBUG:
        say("not in a release image")
        return
    rest = text.cut_word(arguments)
    if text.same(text_at(arguments), "crash"):
        crash_commands.run(rest)
    elif text.same(text_at(arguments), "entry"):
        seed = text.number_at(text.cut_word(rest))
        machine = vm_commands.named(rest)
        if machine is not None and seed != text.NOT_A_NUMBER:
            entry_states.spoil(machine, seed)
        elif machine is not None:
            crash_commands.spoil_entry(machine)
    elif text.same(text_at(arguments), "disk"):
        disk_commands.debug(rest)
    elif text.same(text_at(arguments), "state"):
        paused = vm_commands.named(rest)
        if paused is not None:
            saved_vm_command.run(paused)
    else:
        say("debug crash KIND, debug entry NAME [SEED], debug disk NAME, debug state NAME")


def power_off(arguments: u64) -> None:
    """poweroff, quit"""
    capture.active = False  # the operator's console ends with the ledger's line,
    serial.flush()  # for which its ring may have no room
    machine_exit.leave(EXIT_OK if ledger_check.check() == 0 else EXIT_PANIC)


NAMES: Final[Annotated[list[str], COMMANDS]] = [
    "help",
    "list",
    "info",
    "mem",
    "disks",
    "stats",
    "log",
    "attach",
    "pause",
    "resume",
    "stop",
    "reboot",
    "create",
    "destroy",
    "undo",
    "weight",
    "cap",
    "reserve",
    "pin",
    "policy",
    "shares",
    "trace",
    "clock",
    "stamps",
    "ledger",
    "debug",
    "poweroff",
    "quit",
]
USAGE: Final[Annotated[list[str], COMMANDS]] = [
    "help",
    "list [ID]",
    "info NAME",
    "mem",
    "disks",
    "stats [NAME]",
    "log [N]",
    "attach NAME",
    "pause NAME",
    "resume NAME",
    "stop NAME",
    "reboot NAME",
    "create NAME [AS]",
    "destroy NAME",
    "undo NAME",
    "weight NAME N",
    "cap NAME % [MS]",
    "reserve NAME %",
    "pin NAME CPUS [VCPU]",
    "policy [NAME]",
    "shares [reset]",
    "trace [on|off]",
    "clock",
    "stamps on|off",
    "ledger",
    "debug crash KIND",
    "poweroff",
    "quit",
]
MEANINGS: Final[Annotated[list[str], COMMANDS]] = [
    "this list",
    "all VMs, or from one on",
    "one VM: memory, exits by cause",
    "frames by use",
    "disks of the machine and of VMs",
    "time of CPUs, host interrupts, exits by cause; of one VM: by vCPU",
    "the last messages of the hypervisor",
    "keys go to that guest until Ctrl-]",
    "stop a VM's time until it is resumed",
    "let a paused VM go on",
    "end a VM",
    "start a VM again from its kernel",
    "make a VM of the bundle again, or one like it under another name",
    "end a VM and forget it",
    "forget what is in the overlays of a VM's disks when it starts again",
    "change a VM's share of the CPUs",
    "what a VM may use at most, in percent of a CPU; 0: no cap",
    "what a VM gets at least if it wants it, in percent of a CPU",
    "bind a VM to CPUs such as 0,2-3; all: let it go",
    "who runs next: the policies, or another one",
    "CPU time of each VM, since boot or since the last reset",
    "record what the scheduler does, for `krait trace`",
    "time since boot by TSC and HPET",
    "the time before each line of a guest",
    "check every frame of memory",
    "a fault of ours: pf, null, text, gp, ud, df, nmi, stack; entry NAME: a VM entry that fails; disk NAME: overwrite a disk; state NAME: save and restore",
    "check the ledger and end the machine",
    "the same",
]
ACTIONS: Final = (
    help_,
    vm_commands.list_,
    vm_commands.info,
    mem,
    disk_commands.disks_,
    stats,
    log_,
    vm_commands.attach,
    vm_commands.pause,
    vm_commands.resume,
    vm_commands.stop,
    vm_commands.reboot,
    vm_commands.create,
    vm_commands.destroy,
    disk_commands.undo,
    operator_scheduling.weight,
    operator_scheduling.cap,
    operator_scheduling.reserve,
    operator_scheduling.pin,
    operator_scheduling.policy_,
    operator_scheduling.shares,
    operator_scheduling.trace_,
    clock_commands.clock_,
    clock_commands.stamps,
    check,
    debug,
    power_off,
    power_off,
)
