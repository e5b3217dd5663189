"""Commands of the prompt about CPU time: weight, cap, reserve, pin, policy, shares, trace; operator_commands.py lists them."""
from typing import Annotated, Final

from hypervisor import clock, text, timers, trace_rings, vm
from hypervisor.arch_x86.intrinsics import load_u8
from hypervisor.channel.state import link
from hypervisor.console import refuse, say
from hypervisor.cpu import owe
from hypervisor.lang import char_at, struct, text_at, u32, u64
from hypervisor.model import MAX_CPUS, MAX_VCPUS_PER_VM, MAX_VMS, WORK_CHANNEL, Vm
from hypervisor.operator_vm_commands import cpu_ticks, named
from hypervisor.sched import account, cpus, fresh_start, limits, policy, wake
from hypervisor.sched.cpus import host
from hypervisor.sched.trace import trace
from hypervisor.status import Status
from hypervisor.trace_rings import sending

COMMA: Final = 44
MINUS: Final = 45
ZERO: Final = 48
NS_PER_MS: Final[u64] = 1_000_000
NO_SET: Final[u32] = 0xFFFF_FFFF
PERCENT_MOST: Final = limits.PERCENT * MAX_CPUS


@struct
class Shares:
    """What `shares` counts from: host TSC, and each VM's CPU time by its id."""

    since: u64
    used: Annotated[list[u64], MAX_VMS]


counted: Final = Shares()


def shares(arguments: u64) -> None:
    """shares [reset]"""
    text.cut_word(arguments)
    now = account.charge_running()
    if text.same(text_at(arguments), "reset"):
        counted.since = now
        for machine in vm.table.vms:
            if machine is not None:
                counted.used[machine.id] = cpu_ticks(machine)
        say("  counted from now on")
        return
    total: u64 = 0
    for machine in vm.table.vms:
        if machine is not None:
            total += used_by(machine)
    since: u64 = counted.since if counted.since != 0 else clock.clock.booted_at
    say(f"  {clock.ns_of(now - since) // 1000} us of {host.count} CPU, used by guests: {clock.ns_of(total) // 1000} us")
    say("  name              weight        used us     share      waited us")
    for machine in vm.table.vms:
        if machine is not None:
            used = used_by(machine)
            parts: u64 = used // max(total // 100_000, 1)
            name = vm.name(machine)
            waited = clock.ns_of(waited_ticks(machine)) // 1000
            say(f"  {name:<16}{machine.weight:8}{clock.ns_of(used) // 1000:15}{parts // 1000:6}.{parts // 100 % 10}"
                f"{parts // 10 % 10}{parts % 10}%{waited:14}")


def used_by(machine: Vm) -> u64:
    """TSC ticks of CPU since `shares reset`; all of them for a VM that has taken the place of another since."""
    ticks = cpu_ticks(machine)
    before: u64 = counted.used[machine.id]
    return ticks - before if before <= ticks else ticks


def waited_ticks(machine: Vm) -> u64:
    """TSC ticks that its vCPUs could have run and had no CPU, since they were made."""
    ticks: u64 = 0
    for vcpu in machine.vcpus:
        if vcpu is not None:
            ticks += vcpu.steal_ticks
    return ticks


def weight(arguments: u64) -> None:
    """weight NAME N"""
    number = text.cut_word(arguments)
    machine = named(arguments)
    if machine is None:
        return
    text.cut_word(number)
    value = text.number_at(number)
    if value >> 32 != 0 or policy.set_weight(machine, u32(value), clock.now()) != Status.OK:
        refuse(f"a weight is {policy.WEIGHT_MIN} to {policy.WEIGHT_MAX}")
    else:
        wake.ask(cpus.present())
        say(f"{vm.name(machine)}: weight {value}")


def cap(arguments: u64) -> None:
    """cap NAME PERCENT [PERIOD in ms]"""
    number = text.cut_word(arguments)
    machine = named(arguments)
    if machine is None:
        return
    period = text.cut_word(number)
    text.cut_word(period)
    percent = text.number_at(number)
    ms: u64 = limits.PERIOD_MS if text.is_empty(text_at(period)) else text.number_at(period)
    if percent > PERCENT_MOST or ms < limits.PERIOD_LEAST_MS or ms > limits.PERIOD_MOST_MS:
        refuse(f"cap NAME PERCENT [MS]: percent of a CPU, 0 for no cap; a period of {limits.PERIOD_LEAST_MS} to {limits.PERIOD_MOST_MS} ms")
        return
    if refused(machine, u32(percent), machine.reserved, machine.cpus):
        return
    limits.set_cap(machine, u32(percent), clock.ticks_of(ms * NS_PER_MS), clock.now())
    timers.cancel(machine.cap.timer)  # of a period as it was before
    wake.await_refill(machine)
    wake.ask(cpus.present())
    say_limits(machine)


def reserve(arguments: u64) -> None:
    """reserve NAME PERCENT"""
    number = text.cut_word(arguments)
    machine = named(arguments)
    if machine is None:
        return
    text.cut_word(number)
    percent = text.number_at(number)
    if percent > PERCENT_MOST:
        refuse("reserve NAME PERCENT: percent of a CPU, 0 for none")
        return
    if refused(machine, machine.cap.percent, u32(percent), machine.cpus):
        return
    limits.set_reservation(machine, u32(percent), clock.now())
    wake.ask(cpus.present())
    say_limits(machine)


def pin(arguments: u64) -> None:
    """pin NAME CPUS [VCPU]"""
    list_ = text.cut_word(arguments)
    machine = named(arguments)
    if machine is None:
        return
    number = text.cut_word(list_)
    text.cut_word(number)
    set_: u32 = 0 if text.same(text_at(list_), "all") else set_at(list_)
    if set_ == NO_SET:
        refuse("pin NAME CPUS [VCPU]: numbers and ranges such as 0,2-3; or all")
        return
    if not text.is_empty(text_at(number)):
        pin_one(machine, text.number_at(number), set_)
        return
    if refused(machine, machine.cap.percent, machine.reserved, set_):
        return
    limits.set_cpus(vm.table.vms, machine, set_, clock.now())
    wake.ask(cpus.present())
    say_limits(machine)


def pin_one(machine: Vm, index: u64, set_: u32) -> None:
    """Pin one vCPU."""
    if says(machine, limits.pin_problem(machine, index, set_)):
        return
    vcpu = machine.vcpus[index & MAX_VCPUS_PER_VM - 1]
    if vcpu is None:
        refuse("it has no vCPUs just now")
        return
    limits.pin(vcpu, set_, clock.now())
    wake.ask(cpus.present())
    say(f"  {vm.name(machine)}: vCPU {index}, CPUs {set_:#x}")


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
            policy.select(u32(i), clock.now())
            wake.ask(cpus.present())
            say(f"policy {policy.POLICY_NAMES[i]}")
            return
    refuse(f"no such policy: {text_at(arguments)}; `policy` lists them")


def trace_(arguments: u64) -> None:
    """trace [on|off]"""
    text.cut_word(arguments)
    if text.same(text_at(arguments), "on"):
        begin_trace()
    elif text.same(text_at(arguments), "off"):
        if trace.rings[0].place == 0 or sending.due:
            refuse("no trace was begun")
            return
        trace.on = False
        sending.due = True
        sending.begun = False
        owe(WORK_CHANNEL)
        say_trace()
    elif text.is_empty(text_at(arguments)):
        say_trace()
    else:
        refuse("trace [on|off]")


def begin_trace() -> None:
    """Unless one is on its way already, or nobody could take it."""
    if trace.on or sending.due:
        refuse("the last trace is not done with")
    elif not link.connected:
        refuse("there is no host on the channel to take a trace")
    elif not trace_rings.take():
        refuse("not enough memory for a trace")
    else:
        fresh_start.begin(vm.table.vms, account.charge_running(), clock.tsc_khz())
        wake.ask(cpus.present())
        say_trace()


def say_trace() -> None:
    """One line."""
    state: str = "on" if trace.on else "full" if trace.header.full != 0 else "off"
    say(f"  trace {trace.header.session}: {state}, {trace.header.records} records")


def refused(machine: Vm, percent: u32, reserved: u32, set_: u32) -> bool:
    """Say why a VM cannot have these limits, if it cannot."""
    return says(machine, limits.problem(vm.table.vms, machine, percent, reserved, set_))


def says(machine: Vm, why: str) -> bool:
    """Say it of this VM, if there is anything."""
    if char_at(why, 0) == 0:
        return False
    refuse(f"{vm.name(machine)}: {why}")
    return True


def say_limits(machine: Vm) -> None:
    """One line."""
    say(f"  {vm.name(machine)}: weight {machine.weight}, cap {machine.cap.percent} %, "
        f"reserved {machine.reserved} %, CPUs {cpus.allowed(machine):#x}")


def set_at(place: u64) -> u32:
    """The set of CPUs written at this address, such as 0,2-3; NO_SET if it is none."""
    chosen: u32 = 0
    at: u64 = place
    while True:
        first: u64 = load_u8(at)
        last: u64 = first
        if load_u8(at + 1) == MINUS:
            last = load_u8(at + 2)
            at += 2
        if first < ZERO or last < first or last >= ZERO + MAX_CPUS:
            return NO_SET
        for digit in range(first, last + 1):
            chosen |= cpus.bit(u32(digit - ZERO))
        if load_u8(at + 1) == 0:
            return chosen
        if load_u8(at + 1) != COMMA:
            return NO_SET
        at += 2
