"""A shadow that the next VMRUN of QEMU 7.2 would lose: the guest is put back before its STI, and before nothing else."""
import pytest

from hypervisor import guest_code, interrupt_shadow
from hypervisor.addresses import Hva
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.defs.cr import RFLAGS_IF, RFLAGS_TF
from hypervisor.arch_x86.intrinsics import store_u8
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.lang import u32
from hypervisor.model import Vcpu

STI, POP_SS = 0xFB, 0x17
RIP = 0x1000


@pytest.fixture(autouse=True)
def svm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.chosen, "svm", True)


@pytest.mark.parametrize(("byte", "again"), [(STI, True), (POP_SS, False), (None, False)])
def test_only_an_sti_is_executed_again(vcpu: Vcpu, vmcb: Vmcb, monkeypatch: pytest.MonkeyPatch, byte: int | None, again: bool) -> None:
    """None: the page before RIP cannot be read."""
    def fetch(asked: Vcpu, target: Hva) -> u32:
        assert asked.regs.rip == RIP - 1
        if byte is None:
            return 0
        store_u8(target, byte)
        return 1

    monkeypatch.setattr(guest_code, "fetch", fetch)
    vcpu.regs.rip, vmcb.rflags, vmcb.interrupt_shadow = RIP, RFLAGS_IF | 2, 1
    interrupt_shadow.renew(vcpu)
    expected = (RIP - 1, 2, 0) if again else (RIP, RFLAGS_IF | 2, 1)
    assert (vcpu.regs.rip, vmcb.rflags, vmcb.interrupt_shadow) == expected


@pytest.mark.parametrize(("rflags", "shadow", "behind"),
                         [(RFLAGS_IF, 1, True), (RFLAGS_IF, 0, False), (0, 1, False), (RFLAGS_IF | RFLAGS_TF, 1, False)])
def test_behind_sti(vcpu: Vcpu, vmcb: Vmcb, rflags: int, shadow: int, behind: bool) -> None:
    """A shadow with interrupts off is that of MOV SS; a guest that steps would see its step twice."""
    vmcb.rflags, vmcb.interrupt_shadow = rflags, shadow
    assert backend.behind_sti(vcpu) == behind


def test_an_exception_keeps_its_place(vcpu: Vcpu, vmcb: Vmcb) -> None:
    """What faulted in the shadow is not behind STI any more: the frame of its exception would name the STI."""
    vmcb.rflags, vmcb.interrupt_shadow, vmcb.event_injection = RFLAGS_IF, 1, 0x8000_0306
    assert not backend.behind_sti(vcpu)
