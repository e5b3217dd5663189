"""vCPUs that fall asleep and wake up."""
from hypervisor import clock, kick, timers
from hypervisor.cpu import cpus, this_cpu
from hypervisor.lang import u32, u64
from hypervisor.model import WORK_RESCHED, TimerKind, Vcpu, VcpuState, Vm, VmState
from hypervisor.sched import account, cap, policy
from hypervisor.sched.cpus import has, host


def wake(vcpu: Vcpu) -> None:
    """Make a sleeping vCPU runnable; others are left as they are. A paused VM's stays out of the queue until it goes on."""
    if vcpu.state not in (VcpuState.BLOCKED, VcpuState.WAITING):
        return
    vcpu.state = VcpuState.RUNNABLE
    vm = vcpu.vm
    if vm is None:
        return
    vcpu.woken_at = clock.now()
    if vm.state == VmState.RUNNING and not vcpu.on_cpu:
        compete(vm, vcpu)
    else:
        kick.owe_to_its(vcpu, WORK_RESCHED)


def compete(vm: Vm, vcpu: Vcpu) -> None:
    """Put a runnable vCPU that is on no CPU, of a VM that runs, among those that compete for one."""
    ask(policy.enqueue(vcpu, account.charge_running()))
    await_refill(vm)


def sleep(vcpu: Vcpu, state: VcpuState) -> None:
    """Take a vCPU out of competition: BLOCKED until an event, WAITING until its frame comes, or STOPPED for good."""
    vcpu.state = state
    if vcpu.on_cpu:
        kick.owe_to_its(vcpu, WORK_RESCHED)  # it leaves when it has been charged
    else:
        policy.dequeue(vcpu, clock.now())


def ask(asked: u32) -> None:
    """Let these CPUs, one bit each, pick who runs."""
    for cpu in range(host.count):
        if has(asked, u32(cpu)):
            kick.owe_to(cpus[cpu], WORK_RESCHED)


def await_refill(vm: Vm) -> None:
    """If it has used up its cap, be called when the next period begins (`refill`)."""
    if vm.state == VmState.RUNNING and cap.exhausted(vm) and vm.cap.timer.heap_index == 0:
        vm.cap.timer.kind = TimerKind.CAP
        vm.cap.timer.vcpu = vm.vcpus[0]
        timers.arm(this_cpu(), vm.cap.timer, vm.cap.refill_at)


def refill(vm: Vm) -> None:
    """The next period of its cap begins; the rest of a VM of many vCPUs comes after a breath."""
    now: u64 = account.charge_running()
    ask(policy.refill(vm, now))
    if vm.state == VmState.RUNNING and policy.is_refilling(vm):
        timers.arm(this_cpu(), vm.cap.timer, now)
    else:
        await_refill(vm)
