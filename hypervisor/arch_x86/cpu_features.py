"""What this CPU has, as CPUID says; what Krait cannot do without is refused by name.

AMD APM vol. 3 appendix E, Intel SDM vol. 2A "CPUID". The virtualization extensions are the backend's to check.
"""
from typing import Annotated, Final

from hypervisor.arch_x86.intrinsics import cpuid
from hypervisor.lang import address, struct, u8, u32, u64

BRAND_LEAF: Final[u32] = 0x8000_0002
BRAND_BYTES: Final = 48


@struct
class CpuidResult:
    """The four registers CPUID answers in."""

    eax: u32
    ebx: u32
    ecx: u32
    edx: u32


@struct
class Features:
    """Feature flags by the manuals' names, and sizes."""

    max_leaf: u32
    max_extended_leaf: u32
    physical_bits: u32
    xcr0_mask: u64  # states that XCR0 can enable
    amd: bool  # AMD's numbering: SVM is looked for
    hypervisor_present: bool  # Krait runs under another one
    nx: bool
    syscall: bool
    long_mode: bool
    page_1gb: bool
    pge: bool
    pat: bool
    mtrr: bool
    msr: bool
    apic: bool
    tsc: bool
    x2apic: bool
    tsc_deadline: bool
    invariant_tsc: bool
    xsave: bool
    xsaves: bool
    avx: bool
    fsgsbase: bool
    smep: bool
    smap: bool
    umip: bool
    pku: bool
    pcid: bool
    rdtscp: bool
    erms: bool
    vmx: bool
    svm: bool
    brand: Annotated[list[u8], BRAND_BYTES + 1]


features: Final = Features()


def init() -> None:
    """Fill `features`."""
    r = CpuidResult()
    _ask(0, r)
    features.max_leaf = r.eax
    features.amd = r.ebx in (0x6874_7541, 0x6F67_7948)  # "Auth"enticAMD, "Hygo"nGenuine
    _leaf_1(r)
    if features.max_leaf >= 7:
        _leaf_7(r)
    if features.xsave and features.max_leaf >= 0xD:
        _leaf_d(r)
    _extended_leaves(r)


def signature() -> u32:
    """Family, model and stepping: what RDX holds after INIT."""
    r = CpuidResult()
    _ask(1, r)
    return r.eax


def first_missing() -> str:
    """The name of a feature Krait needs and this CPU lacks; empty: nothing is missing."""
    if not features.tsc:
        return "TSC"
    if not features.msr:
        return "MSR"
    if not features.apic:
        return "local APIC"
    if not features.pat:
        return "PAT"
    if not features.nx:
        return "NX (no-execute pages)"
    if not features.xsave:
        return "XSAVE"
    return ""


def _ask(leaf: u32, r: CpuidResult) -> None:
    cpuid(leaf, 0, address(r))


def _bit(value: u32, number: u32) -> bool:
    return (value >> (number & 31)) & 1 != 0


def _leaf_1(r: CpuidResult) -> None:
    _ask(1, r)
    features.vmx = _bit(r.ecx, 5)
    features.pcid = _bit(r.ecx, 17)
    features.x2apic = _bit(r.ecx, 21)
    features.tsc_deadline = _bit(r.ecx, 24)
    features.xsave = _bit(r.ecx, 26)
    features.avx = _bit(r.ecx, 28)
    features.hypervisor_present = _bit(r.ecx, 31)
    features.tsc = _bit(r.edx, 4)
    features.msr = _bit(r.edx, 5)
    features.apic = _bit(r.edx, 9)
    features.mtrr = _bit(r.edx, 12)
    features.pge = _bit(r.edx, 13)
    features.pat = _bit(r.edx, 16)


def _leaf_7(r: CpuidResult) -> None:
    _ask(7, r)
    features.fsgsbase = _bit(r.ebx, 0)
    features.smep = _bit(r.ebx, 7)
    features.erms = _bit(r.ebx, 9)
    features.smap = _bit(r.ebx, 20)
    features.umip = _bit(r.ecx, 2)
    features.pku = _bit(r.ecx, 3)


def _leaf_d(r: CpuidResult) -> None:
    _ask(0xD, r)
    features.xcr0_mask = (r.edx << 32) | r.eax
    cpuid(0xD, 1, address(r))
    features.xsaves = _bit(r.eax, 3)


def _extended_leaves(r: CpuidResult) -> None:
    _ask(0x8000_0000, r)
    features.max_extended_leaf = r.eax
    features.physical_bits = 36
    if r.eax >= 0x8000_0001:
        _ask(0x8000_0001, r)
        features.svm = _bit(r.ecx, 2)
        features.syscall = _bit(r.edx, 11)
        features.nx = _bit(r.edx, 20)
        features.page_1gb = _bit(r.edx, 26)
        features.rdtscp = _bit(r.edx, 27)
        features.long_mode = _bit(r.edx, 29)
    if features.max_extended_leaf >= 0x8000_0004:
        for i in range(3):
            cpuid(u32(BRAND_LEAF + i), 0, address(features.brand) + 16 * i)
    if features.max_extended_leaf >= 0x8000_0007:
        _ask(0x8000_0007, r)
        features.invariant_tsc = _bit(r.edx, 8)
    if features.max_extended_leaf >= 0x8000_0008:
        _ask(0x8000_0008, r)
        features.physical_bits = r.eax & 0xFF
