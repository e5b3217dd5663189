"""AMD SVM: intercepts, control fields, event injection (AMD APM vol. 2 rev. 3.42, chapter 15 and appendix B)."""
from typing import Final

from hypervisor.lang import u64

# intercept_misc1 (VMCB offset 0x00C)
INTERCEPT_INTR: Final = 1 << 0
INTERCEPT_NMI: Final = 1 << 1
INTERCEPT_SMI: Final = 1 << 2
INTERCEPT_INIT: Final = 1 << 3
INTERCEPT_VINTR: Final = 1 << 4
INTERCEPT_CR0_SEL_WRITE: Final = 1 << 5  # CR0 bits other than TS and MP change
INTERCEPT_RDPMC: Final = 1 << 15
INTERCEPT_CPUID: Final = 1 << 18
INTERCEPT_IRET: Final = 1 << 20
INTERCEPT_INVD: Final = 1 << 22
INTERCEPT_HLT: Final = 1 << 24
INTERCEPT_INVLPGA: Final = 1 << 26
INTERCEPT_IOIO_PROT: Final = 1 << 27
INTERCEPT_MSR_PROT: Final = 1 << 28
INTERCEPT_TASK_SWITCH: Final = 1 << 29
INTERCEPT_FERR_FREEZE: Final = 1 << 30
INTERCEPT_SHUTDOWN: Final = 1 << 31

# intercept_misc2 (VMCB offset 0x010)
INTERCEPT_VMRUN: Final = 1 << 0
INTERCEPT_VMMCALL: Final = 1 << 1
INTERCEPT_VMLOAD: Final = 1 << 2
INTERCEPT_VMSAVE: Final = 1 << 3
INTERCEPT_STGI: Final = 1 << 4
INTERCEPT_CLGI: Final = 1 << 5
INTERCEPT_SKINIT: Final = 1 << 6
INTERCEPT_ICEBP: Final = 1 << 8
INTERCEPT_WBINVD: Final = 1 << 9
INTERCEPT_MONITOR: Final = 1 << 10
INTERCEPT_MWAIT: Final = 1 << 11
INTERCEPT_XSETBV: Final = 1 << 13
INTERCEPT_RDPRU: Final = 1 << 14

INTERCEPT_CR4_WRITE: Final = 1 << 20  # intercept_cr
INTERCEPT_CR8_WRITE: Final = 1 << 24

# tlb_control
TLB_CONTROL_FLUSH_ALL: Final = 1
TLB_CONTROL_FLUSH_ASID: Final = 3

# v_intr
V_TPR_MASK: Final = 0xFF
V_IRQ: Final[u64] = 1 << 8
V_INTR_PRIO_MAX: Final[u64] = 0xF << 16
V_IGN_TPR: Final[u64] = 1 << 20
V_INTR_MASKING: Final[u64] = 1 << 24
V_INTR_VECTOR_SHIFT: Final = 32

INTERRUPT_SHADOW: Final = 1
NP_ENABLE: Final = 1

# EVENTINJ, EXITINTINFO (15.20)
EVENT_TYPE_INTR: Final = 0
EVENT_TYPE_NMI: Final = 2
EVENT_TYPE_EXCEPTION: Final = 3
EVENT_TYPE_SOFTWARE: Final = 4
EVENT_TYPE_SHIFT: Final = 8
EVENT_ERROR_VALID: Final[u64] = 1 << 11
EVENT_VALID: Final[u64] = 1 << 31

# EXITINFO1 of IOIO (15.10.2)
IOIO_IN: Final = 1 << 0
IOIO_STR: Final = 1 << 2
IOIO_REP: Final = 1 << 3
IOIO_SIZE_SHIFT: Final = 4  # SZ8, SZ16, SZ32: one bit each, so the field is the size in bytes
IOIO_SIZE_MASK: Final = 7
IOIO_PORT_SHIFT: Final = 16

# EXITINFO1 of NPF (15.25.6)
NPF_WRITE: Final[u64] = 1 << 1
NPF_FETCH: Final[u64] = 1 << 4
NPF_PAGE_WALK: Final[u64] = 1 << 33

# EXITINFO1 of MOV CR and MOV DR with decode assists (15.10.1)
MOV_CR_DECODED: Final[u64] = 1 << 63

# CPUID 8000_000A EDX (APM vol. 3 appendix E)
FEATURE_NESTED_PAGING: Final = 1 << 0
FEATURE_NRIP_SAVE: Final = 1 << 3
FEATURE_FLUSH_BY_ASID: Final = 1 << 6
FEATURE_DECODE_ASSISTS: Final = 1 << 7

VM_CR_SVMDIS: Final = 1 << 4
IOPM_PAGES: Final = 3
MSRPM_PAGES: Final = 2
