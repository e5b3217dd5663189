"""CPUID leaves and feature bits (Intel SDM vol. 2A rev. 083, CPUID; AMD APM vol. 3 rev. 3.36 appendix E)."""
from typing import Final

# 0000_0001 ECX
F1C_SSE3: Final = 1 << 0
F1C_MONITOR: Final = 1 << 3
F1C_VMX: Final = 1 << 5
F1C_SMX: Final = 1 << 6
F1C_EST: Final = 1 << 7
F1C_TM2: Final = 1 << 8
F1C_PDCM: Final = 1 << 15
F1C_PCID: Final = 1 << 17
F1C_X2APIC: Final = 1 << 21
F1C_TSC_DEADLINE: Final = 1 << 24
F1C_XSAVE: Final = 1 << 26
F1C_OSXSAVE: Final = 1 << 27
F1C_AVX: Final = 1 << 28
F1C_HYPERVISOR: Final = 1 << 31
# 0000_0001 EDX
F1D_VME: Final = 1 << 1
F1D_DE: Final = 1 << 2
F1D_PSE: Final = 1 << 3
F1D_MCE: Final = 1 << 7
F1D_APIC: Final = 1 << 9
F1D_MTRR: Final = 1 << 12
F1D_PGE: Final = 1 << 13
F1D_MCA: Final = 1 << 14
F1D_DS: Final = 1 << 21
F1D_ACPI: Final = 1 << 22
F1D_HTT: Final = 1 << 28
F1D_TM: Final = 1 << 29
# 0000_0007:0 EBX
F7B_FSGSBASE: Final = 1 << 0
F7B_TSC_ADJUST: Final = 1 << 1
F7B_SMEP: Final = 1 << 7
F7B_INVPCID: Final = 1 << 10
F7B_RTM: Final = 1 << 11
F7B_HLE: Final = 1 << 4
F7B_MPX: Final = 1 << 14
F7B_SMAP: Final = 1 << 20
F7B_INTEL_PT: Final = 1 << 25
# 0000_0007:0 ECX
F7C_UMIP: Final = 1 << 2
F7C_PKU: Final = 1 << 3
F7C_OSPKE: Final = 1 << 4
F7C_WAITPKG: Final = 1 << 5
F7C_LA57: Final = 1 << 16
F7C_RDPID: Final = 1 << 22
F7C_PKS: Final = 1 << 31
# 8000_0001 ECX
FE1C_SVM: Final = 1 << 2
FE1C_EXTAPIC: Final = 1 << 3
FE1C_OSVW: Final = 1 << 9
FE1C_IBS: Final = 1 << 10
FE1C_SKINIT: Final = 1 << 12
FE1C_WDT: Final = 1 << 13
FE1C_TOPOEXT: Final = 1 << 22
FE1C_PERFCTR: Final = 1 << 23
FE1C_MWAITX: Final = 1 << 29
# 8000_0001 EDX
FE1D_SYSCALL: Final = 1 << 11
FE1D_NX: Final = 1 << 20
FE1D_FFXSR: Final = 1 << 25
FE1D_RDTSCP: Final = 1 << 27
FE1D_LM: Final = 1 << 29

XSAVE_LEAF: Final = 0x0D
SVM_LEAF: Final = 0x8000000A
