"""The calls this kernel makes to the hypervisor, one function each; numbers, units and errors are abi.Hypercall's."""
from typing import Final

from hypervisor.abi import HYPERCALL_BASE, Hypercall, PageState
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import i64, sext_i64, struct, u64

NO_ARGUMENT: Final = 0


@struct
class Vendor:
    """Which instruction reaches the hypervisor."""

    svm: bool  # VMMCALL, else VMCALL


vendor: Final = Vendor()


def init(svm: bool) -> None:
    """Choose the instruction."""
    vendor.svm = svm


def call(number: u64, a: u64, b: u64, c: u64) -> i64:
    """Hypercall by raw number (with HYPERCALL_BASE): a result >= 0, or minus an abi.Error."""
    return sext_i64(intrinsics.hypercall(vendor.svm, number, a, b, c, NO_ARGUMENT))


def call0(number: Hypercall) -> i64:
    """Hypercall without arguments."""
    return call(HYPERCALL_BASE + number, 0, 0, 0)


def call1(number: Hypercall, a: u64) -> i64:
    """Hypercall with one argument."""
    return call(HYPERCALL_BASE + number, a, 0, 0)


def call2(number: Hypercall, a: u64, b: u64) -> i64:
    """Hypercall with two arguments."""
    return call(HYPERCALL_BASE + number, a, b, 0)


def time_ns() -> u64:
    """Guest time since the VM started."""
    return u64(call0(Hypercall.TIME))


def yield_cpu() -> None:
    """Let another vCPU run first."""
    call0(Hypercall.YIELD)


def block() -> None:
    """Sleep until an event is pending; at once when one is."""
    call0(Hypercall.BLOCK)


def power_off(code: u64) -> None:
    """End this VM; returns only when the hypervisor refuses."""
    call1(Hypercall.POWER_OFF, code)


def reboot() -> None:
    """Start this VM again; does not return."""
    call0(Hypercall.REBOOT)


def crash(gpa: u64, length: u64) -> None:
    """Stop this VM with a dump and a reason."""
    call2(Hypercall.CRASH, gpa, length)


def release(first: u64, count: u64) -> i64:
    """Give frames back to the hypervisor; their contents are lost."""
    return call2(Hypercall.MEM_RELEASE, first, count)


def populate(first: u64, count: u64) -> i64:
    """Ask for frames, zeroed; fewer come when memory is short."""
    return call2(Hypercall.MEM_POPULATE, first, count)


def page_state(first: u64, count: u64, state: PageState) -> i64:
    """Say what pages are worth."""
    return call(HYPERCALL_BASE + Hypercall.PAGE_STATE, first, count, state)
