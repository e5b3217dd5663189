"""Control registers, RFLAGS and EFER (AMD APM vol. 2 rev. 3.42, 3.1; Intel SDM vol. 3A rev. 083, 2.5)."""
from typing import Final

from hypervisor.lang import u64

CR0_PE: Final = 1 << 0
CR0_MP: Final = 1 << 1
CR0_EM: Final = 1 << 2
CR0_TS: Final = 1 << 3
CR0_ET: Final = 1 << 4
CR0_NE: Final = 1 << 5
CR0_WP: Final = 1 << 16
CR0_AM: Final = 1 << 18
CR0_NW: Final = 1 << 29
CR0_CD: Final = 1 << 30
CR0_PG: Final[u64] = 1 << 31

CR4_VME: Final = 1 << 0
CR4_PVI: Final = 1 << 1
CR4_TSD: Final = 1 << 2
CR4_DE: Final = 1 << 3
CR4_PSE: Final = 1 << 4
CR4_PAE: Final = 1 << 5
CR4_MCE: Final = 1 << 6
CR4_PGE: Final = 1 << 7
CR4_PCE: Final = 1 << 8
CR4_OSFXSR: Final = 1 << 9
CR4_OSXMMEXCPT: Final = 1 << 10
CR4_UMIP: Final = 1 << 11
CR4_LA57: Final = 1 << 12
CR4_VMXE: Final = 1 << 13
CR4_FSGSBASE: Final = 1 << 16
CR4_PCIDE: Final = 1 << 17
CR4_OSXSAVE: Final = 1 << 18
CR4_SMEP: Final = 1 << 20
CR4_SMAP: Final = 1 << 21
CR4_PKE: Final = 1 << 22

EFER_SCE: Final = 1 << 0
EFER_LME: Final = 1 << 8
EFER_LMA: Final = 1 << 10
EFER_NXE: Final = 1 << 11
EFER_SVME: Final = 1 << 12
EFER_LMSLE: Final = 1 << 13
EFER_FFXSR: Final = 1 << 14

RFLAGS_RESERVED_ONE: Final = 1 << 1
RFLAGS_TF: Final = 1 << 8
RFLAGS_IF: Final = 1 << 9
RFLAGS_RF: Final = 1 << 16
RFLAGS_VM: Final = 1 << 17

XCR0_X87: Final = 1 << 0
XCR0_SSE: Final = 1 << 1
XCR0_AVX: Final = 1 << 2
XCR0_BNDREGS: Final = 1 << 3
XCR0_BNDCSR: Final = 1 << 4
XCR0_AVX512: Final = 7 << 5
XCR0_PKRU: Final = 1 << 9

DR6_INIT: Final[u64] = 0xFFFF0FF0
DR6_BS: Final = 1 << 14
DR7_INIT: Final[u64] = 0x400
PAT_INIT: Final[u64] = 0x0007040600070406

# Exception vectors
DE: Final = 0
DB: Final = 1
NMI_VECTOR: Final = 2
BP: Final = 3
OF: Final = 4
UD: Final = 6
NM: Final = 7
DF: Final = 8
TS: Final = 10
NP: Final = 11
SS_FAULT: Final = 12
GP: Final = 13
PF: Final = 14
AC: Final = 17
MC: Final = 18
