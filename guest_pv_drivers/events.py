"""Events of the hypervisor: bits in the shared VcpuInfo, and an interrupt when one is raised."""
from typing import Final

from guest_pv_drivers import hypercall, idt
from hypervisor.abi import Hypercall, VcpuInfo
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import address, struct, u64


@struct(align=64)
class SharedInfo:
    """The page piece the hypervisor writes to; pending is its first field."""

    vcpu: VcpuInfo


shared: Final = SharedInfo()


def init() -> None:
    """Tell the hypervisor where events go, and take interrupts from now on."""
    result = hypercall.call2(Hypercall.EVENTS_SETUP, address(shared), idt.EVENT_VECTOR)
    assert result == 0
    intrinsics.sti()


def take() -> u64:
    """The EVENT_* bits raised since the last call; each is given once."""
    return intrinsics.atomic_xchg_u64(address(shared), 0)
