"""Which VMCS each CPU works on, and what all CPUs share.

VMREAD and VMWRITE mean the current VMCS, so everything that touches one calls `use` first. A CPU has at most one VMCS active,
its current one: another CPU may load a VMCS only once VMCLEAR has written it back (SDM vol. 3C 25.11.1), so that is done as
soon as another takes its place.
"""
from typing import Final

from hypervisor.addresses import Hpa
from hypervisor.arch_x86.intrinsics import vmclear, vmptrld
from hypervisor.cpu import this_cpu
from hypervisor.lang import struct, u64
from hypervisor.model import Cpu, Vcpu
from hypervisor.panic import panic


@struct
class Here:
    """What all CPUs share; written once."""

    preemption_ticks: u64  # what the VMX-preemption timer is reloaded with
    msr_bitmap: Hpa  # shared by all vCPUs
    revision: u64  # IA32_VMX_BASIC[30:0]


here: Final = Here()


def use(vcpu: Vcpu) -> None:
    """Make this vCPU's VMCS the current one. It runs on no other CPU."""
    cpu = this_cpu()
    if cpu.loaded != vcpu:
        load(cpu, vcpu)


def load(cpu: Cpu, vcpu: Vcpu) -> None:
    """VMPTRLD, in place of the VMCS that was current."""
    unload(cpu)
    if not vmptrld(vcpu.backend_hpa):
        panic(f"vtx: VMPTRLD of {vcpu.backend_hpa:#x} failed")
    cpu.loaded = vcpu


def unload(cpu: Cpu) -> None:
    """VMCLEAR of the current VMCS, if there is one: it may be loaded anywhere, and is launched anew."""
    vcpu = cpu.loaded
    if vcpu is not None:
        vmclear(vcpu.backend_hpa)
        vcpu.launched = False
        cpu.loaded = None
