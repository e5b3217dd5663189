"""A vCPU that runs gives way: to whoever waits, or to a sibling. policy.requeue and policy.pick, which follow, see to it."""
from hypervisor.abi_trace import TraceKind
from hypervisor.lang import u64
from hypervisor.model import Vcpu
from hypervisor.sched import cpus
from hypervisor.sched.policy import UNLIMITED, current
from hypervisor.sched.trace import note, trace


def yield_to_others(vcpu: Vcpu) -> None:
    """It runs and gives way: whoever waits comes first."""
    if vcpu.competing and current.waiting != 0:
        if trace.on:
            note(TraceKind.YIELD, vcpu, vcpu.host_cpu, vcpu.entered_at, 0, 0)
        current.yielding[vcpu.host_cpu] = vcpu


def yield_to(vcpu: Vcpu, other: Vcpu) -> bool:
    """It runs, and lets a sibling that waits have its CPU, at their VM's expense. False: that one does not wait, or may not run there."""
    if not vcpu.competing or not other.waiting or not cpus.may_run_on(other, vcpu.host_cpu):
        return False
    if trace.on:
        note(TraceKind.YIELD_TO, vcpu, vcpu.host_cpu, vcpu.entered_at, other.index, 0)
    current.yielding[vcpu.host_cpu] = vcpu
    current.favoured[vcpu.host_cpu] = other
    return True


def yield_to_sibling(vcpu: Vcpu) -> bool:
    """It runs and spins: let one of its VM have its CPU, the one that has waited longest. False: none waits."""
    vm = vcpu.vm
    assert vm is not None
    longest: Vcpu | None = None
    since: u64 = UNLIMITED
    for index in range(vm.vcpu_count):
        member = vm.vcpus[index]
        if member is not None and member.waiting and member.waiting_since < since:
            longest = member
            since = member.waiting_since
    return longest is not None and yield_to(vcpu, longest)
