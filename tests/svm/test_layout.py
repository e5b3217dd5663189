"""Offsets of the VMCB against the tables of AMD APM vol. 2, appendix B."""
import pytest

from hypervisor.arch_x86.state import Registers
from hypervisor.arch_x86.svm.vmcb import VMCB_BYTES, Vmcb
from hypervisor.lang import offsetof, sizeof

OFFSETS = {
    "intercept_cr": 0x000, "intercept_dr": 0x004, "intercept_exceptions": 0x008, "intercept_misc1": 0x00C,
    "intercept_misc2": 0x010, "pause_filter_threshold": 0x03C, "pause_filter_count": 0x03E, "iopm_base_pa": 0x040,
    "msrpm_base_pa": 0x048, "tsc_offset": 0x050, "guest_asid": 0x058, "tlb_control": 0x05C, "v_intr": 0x060,
    "interrupt_shadow": 0x068, "exit_code": 0x070, "exit_info1": 0x078, "exit_info2": 0x080, "exit_int_info": 0x088,
    "np_enable": 0x090, "event_injection": 0x0A8, "n_cr3": 0x0B0, "clean_bits": 0x0C0, "next_rip": 0x0C8,
    "fetched_bytes": 0x0D0,
    "es": 0x400, "cs": 0x410, "ss": 0x420, "ds": 0x430, "fs": 0x440, "gs": 0x450, "gdtr": 0x460, "ldtr": 0x470,
    "idtr": 0x480, "tr": 0x490, "cpl": 0x4CB, "efer": 0x4D0, "cr4": 0x548, "cr3": 0x550, "cr0": 0x558, "dr7": 0x560,
    "dr6": 0x568, "rflags": 0x570, "rip": 0x578, "rsp": 0x5D8, "rax": 0x5F8, "star": 0x600, "lstar": 0x608, "cstar": 0x610,
    "sfmask": 0x618, "kernel_gs_base": 0x620, "sysenter_cs": 0x628, "sysenter_esp": 0x630, "sysenter_eip": 0x638,
    "cr2": 0x640, "g_pat": 0x668, "debug_ctl": 0x670}


@pytest.mark.parametrize("field", OFFSETS)
def test_offset(field: str) -> None:
    assert offsetof(Vmcb, field) == OFFSETS[field]


def test_size() -> None:
    assert sizeof(Vmcb) == VMCB_BYTES


def test_enter_knows_the_registers() -> None:
    """enter.S has these offsets as numbers."""
    names = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{i}" for i in range(8, 16))]
    assert [offsetof(Registers, name) for name in names] == [8 * i for i in range(16)]
