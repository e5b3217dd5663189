"""Events of the hypervisor: bits in the vCPU's VcpuInfo, and an interrupt when one is raised."""
from typing import Annotated, Final

from guest_pv_drivers import hypercall, idt
from hypervisor.abi import Hypercall, VcpuInfo
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import address, struct, u32, u64

MAX_VCPUS: Final = 64


@struct(align=64)
class SharedInfo:
    """What the hypervisor writes to, one for each vCPU; pending is its first field."""

    vcpu: Annotated[list[VcpuInfo], MAX_VCPUS]


shared: Final = SharedInfo()


def init(vcpu: u32) -> None:
    """Tell the hypervisor where events of this vCPU go, and take interrupts from now on."""
    result = hypercall.call2(Hypercall.EVENTS_SETUP, address(shared.vcpu[vcpu]), idt.EVENT_VECTOR)
    assert result == 0
    intrinsics.sti()


def take(vcpu: u32) -> u64:
    """The EVENT_* bits raised at this vCPU since the last call; each is given once."""
    return intrinsics.atomic_xchg_u64(address(shared.vcpu[vcpu]), 0)
