"""CPU time goes to whom it serves: the vCPU that runs, the one that a timer serves, or nobody (Cpu.overhead_ticks).

Time from one call here to the next belongs to the vCPU that is current, exits included: what a handler does, it does for the
guest that caused it.
"""
from hypervisor import clock
from hypervisor.cpu import cpus
from hypervisor.lang import u64
from hypervisor.model import Cpu, Vcpu
from hypervisor.sched import policy
from hypervisor.sched.cpus import host


def charge_running() -> u64:
    """Charge whoever runs, on all CPUs, up to now, so that who joins or is picked is put where the others really are. Answers now."""
    now: u64 = clock.now()
    for cpu in range(host.count):
        charge(cpus[cpu], now)
    return now


def charge(cpu: Cpu, now: u64) -> None:
    """Charge who runs on this CPU up to `now`."""
    running = cpu.vcpu
    if running is not None and running.entered_at < now:
        policy.charge(running, now - running.entered_at, now)
        running.entered_at = now


def begin(cpu: Cpu) -> u64:
    """What follows on this CPU does not serve its vCPU. Answers now, for the `end` that belongs to it."""
    now: u64 = clock.now()
    charge(cpu, now)
    return now


def end(cpu: Cpu, since: u64, served: Vcpu | None) -> u64:
    """It served that vCPU, or None: nobody. Answers now. If time has been charged meanwhile, the rest counts. What charging itself takes
    is put on the next bill."""
    now: u64 = clock.now()
    running = cpu.vcpu
    begun: u64 = since
    if running is not None:
        begun = max(begun, running.entered_at)
    ticks: u64 = now - min(begun, now)
    after: u64 = now
    if served is None:
        cpu.overhead_ticks += ticks
    else:
        policy.charge(served, ticks + served.unbilled, now)
        after = clock.now()
        served.unbilled = after - now
    if running is not None:
        running.entered_at = max(running.entered_at, after)
    return after
