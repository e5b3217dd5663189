"""docs/cpu-policy.md says what guests see of the CPU: every line of its tables is what the code does, and the code answers nothing else."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor.arch_x86 import extended_state
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.vm_exit import Cause
from hypervisor.arch_x86.svm import controls as svm_controls
from hypervisor.arch_x86.vtx import init as vtx_init
from hypervisor import msrs
from hypervisor.handlers import cpuid, cr_access, rdmsr, wrmsr
from hypervisor.handlers.outcome import Outcome
from tests import cpu_policy
from tests.linux.stock import Stock, stock

__all__ = ["stock"]

RANGES = ((0, 0x7FF), (0x840, 0x1FFF), (0x40000000, 0x400000FF), (0x4B564D00, 0x4B564DFF), (0xC0000000, 0xC0001FFF),
          (0xC0010000, 0xC00113FF))  # fmt: skip
ONES = 0xFFFFFFFF
REGISTERS = ("EAX", "EBX", "ECX", "EDX")


def answers(stock: Stock, msr: int) -> str:
    """`r`, `w`, `rw` or nothing: what a guest may do with an MSR. Written is its own value, 0 and 1."""
    regs, value, can = stock.vcpu.regs, 0, ""
    regs.rcx = msr
    if rdmsr.handle(stock.vcpu, stock.exit(Cause.RDMSR)) == Outcome.SKIP:
        can, value = "r", regs.rdx << 32 | regs.rax
    for attempt in (value, 0, 1):
        regs.rcx, regs.rax, regs.rdx = msr, attempt & ONES, attempt >> 32
        if wrmsr.handle(stock.vcpu, stock.exit(Cause.WRMSR)) == Outcome.SKIP:
            return can + "w"
    return can


@pytest.mark.parametrize("vendor", ["AMD", "Intel"])
def test_every_msr(stock: Stock, vendor: str) -> None:
    """All numbers of the architectural ranges, by the handlers, and those that never exit."""
    features.amd = vendor == "AMD"
    found = {msr: can for first, last in RANGES for msr in range(first, last + 1) if (can := answers(stock, msr))}
    passed = svm_controls.PASSED_MSRS if features.amd else vtx_init.OPEN_MSR
    found |= {msr: "rw" for msr in passed}
    wanted = {msr: row.can for msr, row in cpu_policy.msrs().items() if row.vendor in ("both", vendor)}
    assert found == wanted
    documented = {msr for msr, row in cpu_policy.msrs().items() if row.how == "passed"}
    assert documented - {0x277} == {*passed} - {0x277}


def test_x2apic_registers_answer_in_x2apic_mode_only(stock: Stock) -> None:
    assert not any(answers(stock, msr) for msr in range(0x800, 0x840))
    regs = stock.vcpu.regs
    regs.rcx, regs.rax, regs.rdx = 0x1B, 0xFEE00D00, 0
    assert wrmsr.handle(stock.vcpu, stock.exit(Cause.WRMSR)) == Outcome.SKIP
    assert answers(stock, 0x802) == "r" and answers(stock, 0x80B) == "w" and answers(stock, 0x83F) == "w" and answers(stock, 0x801) == ""


@pytest.fixture
def rich_host(stock: Stock) -> Iterator[Stock]:
    """A host that has everything."""
    for name in ("fsgsbase", "xsave", "smep", "smap", "umip"):
        setattr(features, name, True)
    features.xcr0_mask = (1 << 64) - 1
    yield stock


def asked(stock: Stock, leaf: int, host: int) -> dict[str, int]:
    """CPUID as a guest sees it on a host that answers `host` in every register."""
    machine.cpuid_leaves[leaf, 0] = (host, host, host, host)
    stock.vcpu.regs.rax, stock.vcpu.regs.rcx = leaf, 0
    cpuid.handle(stock.vcpu, stock.exit(Cause.CPUID))
    del machine.cpuid_leaves[leaf, 0]
    return dict(zip(REGISTERS, (stock.vcpu.regs.rax, stock.vcpu.regs.rbx, stock.vcpu.regs.rcx, stock.vcpu.regs.rdx), strict=True))


def test_every_feature_leaf(rich_host: Stock) -> None:
    for row in cpu_policy.leaves():
        most, least = asked(rich_host, row.leaf, ONES)[row.register], asked(rich_host, row.leaf, 0)[row.register]
        assert (most, least) == (row.shown | row.always, row.always), f"leaf {row.leaf:x} {row.register}"


def test_leaves_that_are_empty(rich_host: Stock) -> None:
    for leaf in (3, 5, 8, 9, 0xA, 0xC, *range(0xE, 0x30), 0x40000002, 0x40000010, 0x40004B02, *range(0x80000009, 0x80000030)):
        assert not any(asked(rich_host, leaf, ONES).values()), hex(leaf)


def test_control_registers(rich_host: Stock) -> None:
    wanted = cpu_policy.control_registers()
    assert cr_access.cr4_allowed() == wanted["CR4"]
    assert msrs.EFER_WRITABLE | 0x400 == wanted["EFER"]  # and LMA, which follows
    assert extended_state.mask() == wanted["XCR0"]
