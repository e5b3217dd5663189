"""MEM_RELEASE, MEM_POPULATE, PAGE_STATE: the registers to the paging side, which checks every argument."""
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import i64, wrap_u64
from hypervisor.model import Vcpu
from hypervisor.paging import page_state, release


def answered(vcpu: Vcpu, value: i64) -> Outcome:
    """A result, or minus an abi.Error."""
    vcpu.regs.rax = wrap_u64(value)
    return Outcome.SKIP


def mem_release(vcpu: Vcpu) -> Outcome:
    """(RDI: first gfn, RSI: count): answers how many of them, from the first on, have no frame any more."""
    vm = vcpu.vm
    assert vm is not None
    return answered(vcpu, release.mem_release(vm, vcpu.regs.rdi, vcpu.regs.rsi))


def mem_populate(vcpu: Vcpu) -> Outcome:
    """(RDI: first gfn, RSI: count): answers how many of them, from the first on, have a frame; may wait for the first."""
    value = release.mem_populate(vcpu, vcpu.regs.rdi, vcpu.regs.rsi)
    if value == release.MUST_WAIT:
        return Outcome.WAIT
    return answered(vcpu, value)


def set_page_state(vcpu: Vcpu) -> Outcome:
    """(RDI: first gfn, RSI: count, RDX: PageState): answers how many of them, from the first on, are in that state now."""
    vm = vcpu.vm
    assert vm is not None
    return answered(vcpu, page_state.set_state(vm, vcpu.regs.rdi, vcpu.regs.rsi, vcpu.regs.rdx))
