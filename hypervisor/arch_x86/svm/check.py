"""Why VMRUN refused a VMCB: its consistency checks, by name (AMD APM vol. 2 rev. 3.42, 15.5.1).

An implementation may overwrite the save area when it refuses (QEMU does), so debug images check before each entry.
"""
from typing import Annotated, Final

from hypervisor.arch_x86.defs.cr import CR0_CD, CR0_NW, CR0_PE, CR0_PG, CR4_PAE, EFER_LME, EFER_SVME
from hypervisor.arch_x86.defs.svm import EVENT_VALID, INTERCEPT_VMRUN
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.build_options import DEBUG
from hypervisor.cpu import this_cpu
from hypervisor.lang import array, at, struct, u64
from hypervisor.model import MAX_CPUS, Cpu, Vcpu

ATTRIBUTE_LONG: Final = 1 << 9
ATTRIBUTE_DEFAULT_32: Final = 1 << 10
HIGH_HALF: Final[u64] = 0xFFFFFFFF00000000
EFER_RESERVED: Final[u64] = 0xFFFFFFFFFFC80200
CR4_RESERVED: Final[u64] = 0xFFFFFFFF0F088000
CR3_RESERVED: Final[u64] = 0xFFF0000000000000


@struct
class Verdict:
    """What a CPU's latest check found; empty: nothing wrong."""

    field: str


latest: Final[Annotated[list[Verdict], MAX_CPUS]] = array(Verdict, MAX_CPUS)


def remember(cpu: Cpu, vmcb: Vmcb) -> None:
    """Check before entry, for the dump should the entry fail."""
    latest[cpu.id].field = refused_field(vmcb)


def why_refused(vcpu: Vcpu) -> str:
    """After a refused entry: the field; empty if none of the rules known here is broken."""
    if DEBUG:
        return latest[this_cpu().id].field
    return refused_field(at(Vmcb, vcpu.backend_hva))


def refused_field(vmcb: Vmcb) -> str:
    """The first field that VMRUN would refuse, and why; empty if there is none."""
    if vmcb.guest_asid == 0:
        return "guest_asid is 0"
    if vmcb.intercept_misc2 & INTERCEPT_VMRUN == 0:
        return "intercept_misc2 lacks VMRUN"
    if vmcb.event_injection & EVENT_VALID != 0 and not injectable(vmcb.event_injection):
        return "event_injection has an impossible type or vector"
    if vmcb.efer & EFER_SVME == 0:
        return "efer lacks SVME"
    if vmcb.efer & EFER_RESERVED != 0:
        return "efer has reserved bits set"
    if vmcb.cr0 & CR0_CD == 0 and vmcb.cr0 & CR0_NW != 0:
        return "cr0 has NW without CD"
    if vmcb.cr0 & HIGH_HALF != 0:
        return "cr0 has high bits set"
    if vmcb.cr3 & CR3_RESERVED != 0:
        return "cr3 has reserved bits set"
    if vmcb.cr4 & CR4_RESERVED != 0:
        return "cr4 has reserved bits set"
    if vmcb.dr6 & HIGH_HALF != 0:
        return "dr6 has high bits set"
    if vmcb.dr7 & HIGH_HALF != 0:
        return "dr7 has high bits set"
    return refused_mode(vmcb)


def refused_mode(vmcb: Vmcb) -> str:
    """Combinations of mode bits that do not exist."""
    if vmcb.efer & EFER_LME != 0 and vmcb.cr0 & CR0_PG != 0:
        if vmcb.cr4 & CR4_PAE == 0:
            return "cr4 lacks PAE in long mode"
        if vmcb.cr0 & CR0_PE == 0:
            return "cr0 lacks PE in long mode"
        if vmcb.cs.attributes & ATTRIBUTE_LONG != 0 and vmcb.cs.attributes & ATTRIBUTE_DEFAULT_32 != 0:
            return "cs has both L and D"
    return ""


def injectable(event: u64) -> bool:
    """Types 0, 2, 3 and 4 exist; of exceptions, vectors 0 to 31 but not 2."""
    event_type: u64 = (event >> 8) & 7
    vector: u64 = event & 0xFF
    if event_type == 3:
        return vector < 32 and vector != 2
    return event_type in (0, 2, 4)
