"""CPUID leaves and feature bits (Intel SDM vol. 2A rev. 083, CPUID; AMD APM vol. 3 rev. 3.36 appendix E)."""
from typing import Final

from hypervisor.lang import u32

# 0000_0001 ECX
F1C_SSE3: Final = 1 << 0
F1C_DTES64: Final = 1 << 2
F1C_MONITOR: Final = 1 << 3
F1C_DSCPL: Final = 1 << 4
F1C_VMX: Final = 1 << 5
F1C_SMX: Final = 1 << 6
F1C_EST: Final = 1 << 7
F1C_TM2: Final = 1 << 8
F1C_CNXT_ID: Final = 1 << 10
F1C_SDBG: Final = 1 << 11
F1C_XTPR: Final = 1 << 14
F1C_PDCM: Final = 1 << 15
F1C_PCID: Final = 1 << 17
F1C_X2APIC: Final = 1 << 21
F1C_TSC_DEADLINE: Final = 1 << 24
F1C_XSAVE: Final = 1 << 26
F1C_OSXSAVE: Final = 1 << 27
F1C_AVX: Final = 1 << 28
F1C_HYPERVISOR: Final[u32] = 1 << 31
# 0000_0001 EDX
F1D_VME: Final = 1 << 1
F1D_DE: Final = 1 << 2
F1D_PSE: Final = 1 << 3
F1D_MCE: Final = 1 << 7
F1D_APIC: Final = 1 << 9
F1D_MTRR: Final = 1 << 12
F1D_PGE: Final = 1 << 13
F1D_MCA: Final = 1 << 14
F1D_PSN: Final = 1 << 18
F1D_DS: Final = 1 << 21
F1D_ACPI: Final = 1 << 22
F1D_HTT: Final = 1 << 28
F1D_TM: Final = 1 << 29
F1D_PBE: Final[u32] = 1 << 31
# 0000_0007:0 EBX
F7B_FSGSBASE: Final = 1 << 0
F7B_BMI1: Final = 1 << 3
F7B_AVX2: Final = 1 << 5
F7B_SMEP: Final = 1 << 7
F7B_BMI2: Final = 1 << 8
F7B_ERMS: Final = 1 << 9
F7B_AVX512F: Final = 1 << 16
F7B_AVX512DQ: Final = 1 << 17
F7B_RDSEED: Final = 1 << 18
F7B_ADX: Final = 1 << 19
F7B_SMAP: Final = 1 << 20
F7B_AVX512IFMA: Final = 1 << 21
F7B_CLFLUSHOPT: Final = 1 << 23
F7B_CLWB: Final = 1 << 24
F7B_AVX512CD: Final = 1 << 28
F7B_SHA: Final = 1 << 29
F7B_AVX512BW: Final = 1 << 30
F7B_AVX512VL: Final[u32] = 1 << 31
F7B_SHOWN: Final[u32] = (F7B_FSGSBASE | F7B_BMI1 | F7B_AVX2 | F7B_SMEP | F7B_BMI2 | F7B_ERMS | F7B_AVX512F | F7B_AVX512DQ
                         | F7B_RDSEED | F7B_ADX | F7B_SMAP | F7B_AVX512IFMA | F7B_CLFLUSHOPT | F7B_CLWB | F7B_AVX512CD
                         | F7B_SHA | F7B_AVX512BW | F7B_AVX512VL)
# 0000_0007:0 ECX
F7C_UMIP: Final = 1 << 2
F7C_GFNI: Final = 1 << 8
F7C_VAES: Final = 1 << 9
F7C_VPCLMULQDQ: Final = 1 << 10
F7C_RDPID: Final = 1 << 22
F7C_SHOWN: Final[u32] = F7C_UMIP | F7C_GFNI | F7C_VAES | F7C_VPCLMULQDQ | F7C_RDPID
# 8000_0001 ECX
FE1C_LAHF: Final = 1 << 0
FE1C_CMP_LEGACY: Final = 1 << 1
FE1C_SVM: Final = 1 << 2
FE1C_CR8: Final = 1 << 4
FE1C_ABM: Final = 1 << 5
FE1C_SSE4A: Final = 1 << 6
FE1C_MISALIGNSSE: Final = 1 << 7
FE1C_PREFETCHW: Final = 1 << 8
FE1C_SHOWN: Final = FE1C_LAHF | FE1C_CR8 | FE1C_ABM | FE1C_SSE4A | FE1C_MISALIGNSSE | FE1C_PREFETCHW
# 8000_0001 EDX
FE1D_SYSCALL: Final = 1 << 11
FE1D_NX: Final = 1 << 20
FE1D_FFXSR: Final = 1 << 25
FE1D_RDTSCP: Final = 1 << 27
FE1D_LM: Final = 1 << 29

XSAVE_LEAF: Final = 0x0D
SVM_LEAF: Final = 0x8000000A
