"""vCPUs that fall asleep and wake up."""
from hypervisor import clock
from hypervisor.cpu import owe, this_cpu
from hypervisor.lang import u64
from hypervisor.model import WORK_RESCHED, Vcpu, VcpuState, VmState
from hypervisor.sched import policy


def wake(vcpu: Vcpu) -> None:
    """Make a sleeping vCPU runnable; others are left as they are. A paused VM's stays out of the queue until it goes on."""
    if vcpu.state not in (VcpuState.BLOCKED, VcpuState.WAITING):
        return
    vcpu.state = VcpuState.RUNNABLE
    vm = vcpu.vm
    if vm is not None and vm.state == VmState.RUNNING and not vcpu.on_cpu:
        charge_running()
        vcpu.waits_since = clock.now()
        policy.enqueue(vcpu)
    owe(WORK_RESCHED)


def charge_running() -> None:
    """Charge who runs up to now, so that who joins is put where the others really are."""
    running = this_cpu().vcpu
    if running is not None:
        now: u64 = clock.now()
        policy.charge(running, now - running.entered_at, now)
        running.entered_at = now


def sleep(vcpu: Vcpu, state: VcpuState) -> None:
    """Take a vCPU out of competition: BLOCKED until an event, WAITING until its frame comes, or STOPPED for good."""
    vcpu.state = state
    if vcpu.on_cpu:
        owe(WORK_RESCHED)  # it leaves when it has been charged
    else:
        policy.dequeue(vcpu)
