"""A VM with a platform for tests: real memory side, fake VMCB, one vCPU, its console's bytes in `shown`."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor import board, mtrr
from hypervisor.abi import VM_KIND_LINUX
from hypervisor.addresses import PAGE_SIZE, Gpa, Hva
from hypervisor.arch_x86 import backend, serial
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.defs.svm import V_INTR_VECTOR_SHIFT, V_IRQ
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.svm import inject
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.arch_x86.vm_exit import Cause, VmExit
from hypervisor.devices import lapic
from hypervisor.devices.platform import Platform
from hypervisor.lang import address, clear
from hypervisor.memory import guest_memory
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status
from tests.memory.world import World, vcpu_of

PAGES = 8192  # 32 MiB
BCD_CLOCK = {0x00: 0x30, 0x02: 0x59, 0x04: 0x23, 0x07: 0x31, 0x08: 0x12, 0x09: 0x99, 0x32: 0x19, 0x0A: 0x26, 0x0B: 0x02}


def waiting_vector(vmcb: Vmcb) -> int | None:
    """The external interrupt that the guest is to take at its next entry."""
    return vmcb.v_intr >> V_INTR_VECTOR_SHIFT & 0xFF if inject.on_its_way(vmcb) else None


def take_interrupt(vmcb: Vmcb) -> None:
    """The guest takes it: the CPU clears V_IRQ (AMD APM vol. 2 rev. 3.42, 15.21.4)."""
    vmcb.v_intr &= ~V_IRQ


class Stock:
    """One VM as vm.create makes it for a stock operating system."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(700)
        self.vm: Vm = self.world.vm(PAGES)
        self.vm.kind = VM_KIND_LINUX
        self.vm.vcpu_count = 1
        self.vcpu: Vcpu = vcpu_of(self.vm)
        self.vmcb = Vmcb()
        self.vcpu.backend_hva = Hva(address(self.vmcb))
        self.vcpu.timer.vcpu = self.vcpu
        self.vcpu.apic_timer.vcpu = self.vcpu
        lapic.reset(self.vcpu.lapic, 0, True)
        backend.chosen.svm = True
        self.shown = bytearray()
        monkeypatch.setattr(serial, "put", self.shown.append)
        index = [0]
        machine.port_writers[0x70] = lambda value: index.__setitem__(0, value & 0x7F)
        machine.port_readers[0x71] = lambda: BCD_CLOCK.get(index[0], 0)
        machine.msrs[0xC0000103] = 0
        clear(features)
        features.amd = True
        features.rdtscp = True
        mtrr.start(self.vcpu)
        assert board.create(self.vm) == Status.OK

    @property
    def platform(self) -> Platform:
        p = self.vm.platform
        assert p is not None
        return p

    def exit(self, cause: Cause) -> VmExit:
        """A fresh exit of the vCPU."""
        clear(self.vcpu.exit)
        self.vcpu.exit.cause = cause
        return self.vcpu.exit

    def bytes_at(self, gpa: int, count: int) -> bytes:
        """Guest memory; pages without a frame are zero."""
        return bytes(guest_memory.read_u8(self.vm, Gpa(gpa + i)) for i in range(count))

    def number_at(self, gpa: int, count: int) -> int:
        return int.from_bytes(self.bytes_at(gpa, count), "little")

    def put(self, gpa: int, data: bytes) -> None:
        """Write guest memory, backing it."""
        for page in range(gpa // PAGE_SIZE, (gpa + len(data) - 1) // PAGE_SIZE + 1):
            while guest_memory.pin(self.vcpu, Gpa(page * PAGE_SIZE), PAGE_SIZE, True) == Status.WAIT:
                pass
        for i, byte in enumerate(data):
            assert guest_memory.write_u8(self.vm, Gpa(gpa + i), byte) == Status.OK

    def took_general_protection(self) -> bool:
        """Whether #GP(0) waits for the guest; it is taken away."""
        raised = self.vcpu.exception_pending and self.vcpu.exception_vector == 13 and self.vcpu.exception_error == 0
        self.vcpu.exception_pending = False
        return raised

    def close(self) -> None:
        board.destroy(self.vm)
        clear(features)
        self.world.check()
        self.world.close()


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stock]:
    made = Stock(monkeypatch)
    yield made
    made.close()


