"""Which VMCS this CPU works on, and whose switched MSRs it holds.

VMREAD and VMWRITE mean the current VMCS, so everything that touches one calls `use` first.
"""
from typing import Final

from hypervisor.addresses import Hpa
from hypervisor.arch_x86.intrinsics import vmptrld
from hypervisor.lang import struct, u64
from hypervisor.model import Vcpu
from hypervisor.panic import panic


@struct
class Here:
    """State of the one CPU that runs guests."""

    vmcs: Hpa  # current VMCS, 0: none
    msr_owner: Vcpu | None  # whose STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE, DR6 and CR2 are in the CPU
    preemption_ticks: u64  # what the VMX-preemption timer is reloaded with
    msr_bitmap: Hpa  # shared by all vCPUs
    revision: u64  # IA32_VMX_BASIC[30:0]


here: Final = Here()


def use(vcpu: Vcpu) -> None:
    """Make this vCPU's VMCS the current one."""
    if here.vmcs != vcpu.backend_hpa:
        load(vcpu.backend_hpa)


def load(vmcs: Hpa) -> None:
    """VMPTRLD."""
    if not vmptrld(vmcs):
        panic(f"vtx: VMPTRLD of {vmcs:#x} failed")
    here.vmcs = vmcs
