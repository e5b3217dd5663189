"""Events for PV guests: raised here, shown to the guest by inject.py before it runs on."""
from hypervisor.kick import kick
from hypervisor.lang import u64
from hypervisor.model import Vcpu, VcpuState
from hypervisor.sched.wake import wake


def raise_event(vcpu: Vcpu, bits: u64) -> None:
    """Make EVENT_* bits pending; wakes a vCPU that sleeps in BLOCK or HLT. One that waits for a frame goes on waiting."""
    vcpu.pending_events |= bits
    notify(vcpu)


def notify(vcpu: Vcpu) -> None:
    """Something may wait for the vCPU: it looks before it runs on. Wakes one that sleeps in BLOCK or HLT, unless it hears nothing."""
    if vcpu.state == VcpuState.BLOCKED and not vcpu.deaf:
        wake(vcpu)
    kick(vcpu)
