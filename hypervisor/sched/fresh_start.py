"""A trace begins: everybody who competes leaves, all past is forgotten, and all come back, so that the calls from here on decide everything.

Who was behind or ahead is even again: a trace costs a lag of a quantum or two, once. A new policy's state is to be forgotten here.
"""
from typing import Annotated

from hypervisor.lang import clear, u64
from hypervisor.model import MAX_VMS, Vm
from hypervisor.sched import bvt, credit, eevdf, fair_tree, lottery, policy, round_robin, run_queue, stride, trace
from hypervisor.sched.cpus import host
from hypervisor.sched.policy import current
from hypervisor.sched.quantum import quantum


def begin(vms: Annotated[list[Vm | None], MAX_VMS], now: u64, khz: u64) -> None:
    """Record from now on; the rings have their places."""
    for vm in vms:
        if vm is not None:
            policy.leave_all(vm)
    forget()
    for vm in vms:
        if vm is not None:
            forget_vm(vm)
    for cpu in range(host.count):
        current.yielding[cpu] = None
        current.favoured[cpu] = None
    header = trace.trace.header
    header.asked = current.asked
    header.unlimited = current.unlimited
    trace.begin(now, khz, quantum.ticks, current.policy)
    vcpu = current.moving
    while vcpu is not None:
        current.moving = vcpu.moving
        policy.enqueue(vcpu, now)
        vcpu = current.moving


def forget() -> None:
    """No policy knows anything of the past any more; nobody competes. What each vCPU and VM keeps: `forget_vm`."""
    clear(run_queue.queue)
    clear(fair_tree.priorities)
    clear(eevdf.state)
    clear(round_robin.state)
    clear(stride.state)
    clear(lottery.state)
    clear(bvt.state)
    clear(credit.state)


def forget_vm(vm: Vm) -> None:
    """The same for what the fields of a VM and of its vCPUs keep for the policies."""
    clear(vm.share)
    clear(vm.members)
    for vcpu in vm.vcpus:
        if vcpu is not None:
            clear(vcpu.share)
            vcpu.stride_pass = 0
            vcpu.virtual_time = 0
            vcpu.ticket = 0
            vcpu.slice_used = 0
            vcpu.credits = 0
            vcpu.boosted = False
