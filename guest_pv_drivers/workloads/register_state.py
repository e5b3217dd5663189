"""Every register of hypervisor/arch_x86/state.py that a guest can set, but for the general ones: patterns in, patterns found again.

Patterns differ by VM and round. Offsets of the XSAVE area: SDM vol. 1 13.4.1, 13.4.2 (rev. 084).
"""
from typing import Annotated, Final

from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import address, struct, u8, u16, u32, u64, wrap_u64

CPUID_1_ECX_XSAVE: Final = 1 << 26
CPUID_7_ECX_PKU: Final = 1 << 3
CPUID_80000001_EDX_RDTSCP: Final = 1 << 27
CR4_OSFXSR: Final = 1 << 9
CR4_OSXSAVE: Final = 1 << 18
CR4_PKE: Final = 1 << 22
DR6_FIXED: Final[u64] = 0xFFFF0FF0  # bits that read 1
DR7_FIXED: Final[u64] = 0x400
CR0_MP: Final = 1 << 1
CR0_EM: Final = 1 << 2
CR0_TS: Final = 1 << 3
XCR0_X87_SSE: Final = 3
XCR0_AVX: Final = 4

AREA_BYTES: Final = 1024
MXCSR: Final = 24
ST0: Final = 32
XMM0: Final = 160
XMM_END: Final = 416
XSTATE_BV: Final = 512
YMM_HIGH: Final = 576
YMM_END: Final = 832

MSR_COUNT: Final = 10
MSRS: Final[Annotated[list[u32], 10]] = [
    0xC0000100, 0xC0000101, 0xC0000102,  # FS_BASE, GS_BASE, KERNEL_GS_BASE
    0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084,  # STAR, LSTAR, CSTAR, SFMASK
    0x174, 0x175, 0x176]  # SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP
MSR_MASKS: Final[Annotated[list[u64], 10]] = [  # bits a pattern may have: canonical addresses, 32-bit registers
    0x7FFFFFFFFFFF, 0x7FFFFFFFFFFF, 0x7FFFFFFFFFFF,
    0xFFFFFFFF00000000, 0x7FFFFFFFFFFF, 0x7FFFFFFFFFFF, 0xFFFFFFFF,
    0xFFFF, 0x7FFFFFFFFFFF, 0x7FFFFFFFFFFF]
IA32_PAT: Final = 0x277
IA32_TSC_AUX: Final = 0xC0000103
PAT_TYPES: Final[Annotated[list[u64], 6]] = [0, 1, 4, 5, 6, 7]  # UC, WC, WT, WP, WB, UC-


@struct(align=64)
class SaveArea:
    """An XSAVE area (or, in its first half, an FXSAVE area)."""

    bytes: Annotated[list[u8], AREA_BYTES]


@struct
class Features:
    """What this CPU has."""

    xcr0: u64  # 0: no XSAVE
    rdtscp: bool
    pku: bool


@struct
class CpuidResult:
    """EAX, EBX, ECX, EDX."""

    eax: u32
    ebx: u32
    ecx: u32
    edx: u32


features: Final = Features()
wanted: Final = SaveArea()
found: Final = SaveArea()
result: Final = CpuidResult()


def pattern(seed: u64, index: u64) -> u64:
    """A 64-bit value that tells VM, round (both in seed) and register apart."""
    return wrap_u64((seed * 64 + index + 1) * 0x9E3779B97F4A7C15)


def init(vm_id: u64) -> None:
    """Find and enable what there is; VMs with an even number take AVX out of XCR0, so that neighbours differ."""
    intrinsics.write_cr0((intrinsics.read_cr0() | CR0_MP) & ~wrap_u64(CR0_EM | CR0_TS))
    intrinsics.write_cr4(intrinsics.read_cr4() | CR4_OSFXSR)
    intrinsics.cpuid(1, 0, address(result))
    if result.ecx & CPUID_1_ECX_XSAVE != 0:
        intrinsics.write_cr4(intrinsics.read_cr4() | CR4_OSXSAVE)
        intrinsics.cpuid(0xD, 0, address(result))
        has_avx = result.eax & XCR0_AVX != 0 and vm_id % 2 == 1
        features.xcr0 = XCR0_X87_SSE | XCR0_AVX if has_avx else XCR0_X87_SSE
        intrinsics.xsetbv(0, features.xcr0)
    intrinsics.cpuid(7, 0, address(result))
    features.pku = result.ecx & CPUID_7_ECX_PKU != 0
    if features.pku:
        intrinsics.write_cr4(intrinsics.read_cr4() | CR4_PKE)
    intrinsics.cpuid(0x80000001, 0, address(result))
    features.rdtscp = result.edx & CPUID_80000001_EDX_RDTSCP != 0


def load_fpu(seed: u64) -> None:
    """Fill x87, SSE and, where it is on, AVX registers."""
    area = address(wanted)
    intrinsics.store_u16(area, u16(0x37F & ~wrap_u64(seed % 4 << 8)))  # FCW: precision control
    intrinsics.store_u8(area + 4, 0xFF)  # FTW: all in use
    intrinsics.store_u32(area + MXCSR, u32(0x1F80 | seed % 4 << 13))
    for i in range(8):
        intrinsics.store_u64(area + ST0 + u64(i) * 16, pattern(seed, u64(i)) | 1 << 63)
        intrinsics.store_u16(area + ST0 + u64(i) * 16 + 8, u16(0x3FFF + i))
    for place in range(XMM0, XMM_END, 8):
        intrinsics.store_u64(area + u64(place), pattern(seed, u64(place)))
    for place in range(YMM_HIGH, YMM_END, 8):
        intrinsics.store_u64(area + u64(place), pattern(seed, u64(place)))
    intrinsics.store_u64(area + XSTATE_BV, features.xcr0)
    if features.xcr0 != 0:
        intrinsics.xrstor(area, features.xcr0)
    else:
        intrinsics.fxrstor(area)


def differences(first: u64, end: u64) -> u64:
    """8-byte words that differ between the two areas."""
    wrong: u64 = 0
    for place in range(first, end, 8):
        if intrinsics.load_u64(address(wanted) + place) != intrinsics.load_u64(address(found) + place):
            wrong += 1
    return wrong


def fpu_errors() -> u64:
    """Words of FPU state that are not what load_fpu put there."""
    if features.xcr0 != 0:
        intrinsics.xsave(address(found), features.xcr0)
    else:
        intrinsics.fxsave(address(found))
    wrong = differences(XMM0, XMM_END)
    if features.xcr0 & XCR0_AVX != 0:
        wrong += differences(YMM_HIGH, YMM_END)
    for i in range(8):
        wrong += differences(ST0 + u64(i) * 16, ST0 + u64(i) * 16 + 8)
    if intrinsics.load_u16(address(wanted)) != intrinsics.load_u16(address(found)):
        wrong += 1
    if intrinsics.load_u32(address(wanted) + MXCSR) != intrinsics.load_u32(address(found) + MXCSR):
        wrong += 1
    return wrong


def pat(seed: u64) -> u64:
    """A legal PAT that differs by seed; entry 0, which this kernel's pages use, stays write-back."""
    value: u64 = 6
    for i in range(1, 8):
        value |= PAT_TYPES[(seed + u64(i)) % 6] << (8 * i & 63)
    return value


def load_system(seed: u64) -> None:
    """Fill the MSRs, CR2, PKRU, the debug registers (DR7 enables nothing)."""
    for i in range(MSR_COUNT):
        intrinsics.wrmsr(MSRS[i], pattern(seed, u64(i)) & MSR_MASKS[i])
    intrinsics.wrmsr(IA32_PAT, pat(seed))
    if features.rdtscp:
        intrinsics.wrmsr(IA32_TSC_AUX, pattern(seed, 20) & 0xFFFFFFFF)
    if features.pku:
        intrinsics.wrpkru(u32(pattern(seed, 21) & 0xFFFFFFFC))
    intrinsics.write_cr2(pattern(seed, 22))
    intrinsics.write_dr0(pattern(seed, 23) & 0x7FFFFFFFFFFF)
    intrinsics.write_dr1(pattern(seed, 24) & 0x7FFFFFFFFFFF)
    intrinsics.write_dr2(pattern(seed, 25) & 0x7FFFFFFFFFFF)
    intrinsics.write_dr3(pattern(seed, 26) & 0x7FFFFFFFFFFF)
    intrinsics.write_dr6(DR6_FIXED | seed % 16)
    intrinsics.write_dr7(DR7_FIXED | seed % 4 << 8)


def differs(got: u64, expected: u64) -> u64:
    """1 when the two differ."""
    return 0 if got == expected else 1


def system_errors(seed: u64) -> u64:
    """Registers that are not what load_system put there."""
    wrong: u64 = 0
    for i in range(MSR_COUNT):
        wrong += differs(intrinsics.rdmsr(MSRS[i]), pattern(seed, u64(i)) & MSR_MASKS[i])
    wrong += differs(intrinsics.rdmsr(IA32_PAT), pat(seed))
    if features.rdtscp:
        wrong += differs(intrinsics.rdmsr(IA32_TSC_AUX), pattern(seed, 20) & 0xFFFFFFFF)
    if features.pku:
        wrong += differs(intrinsics.rdpkru(), pattern(seed, 21) & 0xFFFFFFFC)
    if features.xcr0 != 0:
        wrong += differs(intrinsics.xgetbv(0), features.xcr0)
    wrong += differs(intrinsics.read_cr2(), pattern(seed, 22))
    wrong += differs(intrinsics.read_dr0(), pattern(seed, 23) & 0x7FFFFFFFFFFF)
    wrong += differs(intrinsics.read_dr1(), pattern(seed, 24) & 0x7FFFFFFFFFFF)
    wrong += differs(intrinsics.read_dr2(), pattern(seed, 25) & 0x7FFFFFFFFFFF)
    wrong += differs(intrinsics.read_dr3(), pattern(seed, 26) & 0x7FFFFFFFFFFF)
    wrong += differs(intrinsics.read_dr6(), DR6_FIXED | seed % 16)
    wrong += differs(intrinsics.read_dr7(), DR7_FIXED | seed % 4 << 8)
    return wrong
