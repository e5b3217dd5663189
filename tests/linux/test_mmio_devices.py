"""Devices in guest-physical space: reached by any instruction, and by those that are known without a new look at them."""
from __future__ import annotations

import pytest

from hypervisor import mmio_known
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.state import CS, GuestState
from hypervisor.arch_x86.vm_exit import Cause, VmExit
from hypervisor.devices import hpet, ioapic, lapic, pci_function
from hypervisor.handlers import nested_fault
from hypervisor.handlers.outcome import Outcome
from hypervisor.model import Vcpu
from hypervisor.status import Status
from hypervisor.virtio import devices
from hypervisor.virtio.state import DeviceKind
from tests.linux.stock import Stock

CODE = 0x5000
TABLES = 0x10000
APIC_TPR = lapic.BASE + lapic.TPR
STORE_TPR = bytes([0xA3]) + APIC_TPR.to_bytes(4, "little")  # mov [FEE00080], eax
LOAD_TPR = bytes([0xA1]) + APIC_TPR.to_bytes(4, "little")


def flat(stock: Stock, code: bytes, place: int = CODE) -> None:
    """32-bit code without paging."""
    state = GuestState()
    backend.read_state(stock.vcpu, state)
    state.cr0 = 1
    state.segments[CS].attributes = 0xC09B
    backend.write_state(stock.vcpu, state)
    stock.vcpu.regs.rip = place
    stock.put(place, code)


def long_mode(stock: Stock, code_page: int) -> None:
    """64-bit code; the page at linear CODE lies at `code_page`, everything else of the last GiB of 4 at itself."""
    state = GuestState()
    backend.read_state(stock.vcpu, state)
    state.cr0, state.cr3, state.cr4, state.efer = 0x80000001, TABLES, 0x20, 0x500
    state.segments[CS].attributes = 0xA09B
    backend.write_state(stock.vcpu, state)
    stock.vcpu.regs.rip = CODE
    entries = {TABLES: TABLES + 0x1003, TABLES + 0x1000: TABLES + 0x2003, TABLES + 0x1018: 0xC0000083, TABLES + 0x2000: TABLES + 0x3003,
               TABLES + 0x3000 + CODE // 4096 * 8: code_page | 3}
    for place, entry in entries.items():
        stock.put(place, entry.to_bytes(8, "little"))


def touch(stock: Stock, gpa: int, write: bool) -> None:
    """The instruction at CODE touches a device's address and is carried out."""
    outcome = Outcome.WAIT
    while outcome == Outcome.WAIT:
        exit = stock.exit(Cause.NESTED_FAULT)
        exit.gpa, exit.is_write = gpa, write
        outcome = nested_fault.handle(stock.vcpu, exit)
    assert outcome == Outcome.SKIP and exit.length


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever an instruction was not known."""
    counted: list[int] = []
    emulate = nested_fault.emulate

    def counting(vcpu: Vcpu, exit: VmExit) -> Outcome:
        counted.append(0)
        return emulate(vcpu, exit)
    monkeypatch.setattr(nested_fault, "emulate", counting)
    return counted


def test_a_known_instruction_is_not_decoded_again(stock: Stock, decodes: list[int]) -> None:
    flat(stock, STORE_TPR)
    for value in (0x20, 0x31, 0x42):
        stock.vcpu.regs.rax = value
        touch(stock, APIC_TPR, True)
        assert stock.vcpu.lapic.tpr == value
    assert len(decodes) == 1


@pytest.mark.parametrize(("room", "decoded"), [(16, 1), (15, 1), (8, 1), (7, 3), (len(STORE_TPR), 3)])
def test_an_instruction_near_the_end_of_its_page(stock: Stock, decodes: list[int], room: int, decoded: int) -> None:
    """Known as long as the word that it begins with lies in the page: its bytes are compared in place, and none of the next page's."""
    flat(stock, STORE_TPR, CODE + 0x1000 - room)
    for value in (0x20, 0x31, 0x42):
        stock.vcpu.regs.rax = value
        touch(stock, APIC_TPR, True)
        assert stock.vcpu.lapic.tpr == value
    assert len(decodes) == decoded


def test_changed_code_is_seen(stock: Stock, decodes: list[int]) -> None:
    """The guest writes another instruction over the one that is known: the new one is carried out."""
    flat(stock, STORE_TPR)
    stock.vcpu.regs.rax = 0x55
    touch(stock, APIC_TPR, True)
    stock.put(CODE, LOAD_TPR)
    stock.vcpu.regs.rax = 0
    touch(stock, APIC_TPR, False)
    assert stock.vcpu.regs.rax == 0x55 and len(decodes) == 2


def test_a_page_mapped_elsewhere_is_seen(stock: Stock, decodes: list[int]) -> None:
    """The same RIP and CR3, the old bytes still where they were: but the guest's table leads to another page now."""
    stock.put(0x6000, b"\x89\x03")  # mov [rbx], eax
    stock.put(0x7000, b"\x8b\x03")  # mov eax, [rbx]
    long_mode(stock, 0x6000)
    stock.vcpu.regs.rax, stock.vcpu.regs.rbx = 0x60, APIC_TPR
    touch(stock, APIC_TPR, True)
    touch(stock, APIC_TPR, True)
    assert len(decodes) == 1
    long_mode(stock, 0x7000)
    stock.vcpu.regs.rax = 0
    touch(stock, APIC_TPR, False)
    assert stock.vcpu.regs.rax == 0x60 and len(decodes) == 2


def test_another_mode_is_another_instruction(stock: Stock, decodes: list[int]) -> None:
    """What the bytes at RIP mean, and where they are, depends on the mode: nothing is taken over."""
    flat(stock, b"\x89\x03")
    stock.vcpu.regs.rax, stock.vcpu.regs.rbx = 0x10, APIC_TPR
    touch(stock, APIC_TPR, True)
    long_mode(stock, CODE)
    stock.put(CODE, b"\x89\x03")
    touch(stock, APIC_TPR, True)
    assert len(decodes) == 2


def test_an_unmapped_frame_makes_it_unknown(stock: Stock, decodes: list[int]) -> None:
    flat(stock, STORE_TPR)
    touch(stock, APIC_TPR, True)
    stock.vm.epoch += 1
    touch(stock, APIC_TPR, True)
    assert len(decodes) == 2


def test_an_operand_that_began_in_the_page_before_is_not_taken_for_a_register(stock: Stock) -> None:
    """The CPU names the first byte that faulted; the known move began two bytes earlier."""
    flat(stock, b"\x89\x03")
    stock.vcpu.regs.rax, stock.vcpu.regs.rbx = 0x30, lapic.BASE + lapic.ID
    touch(stock, lapic.BASE + lapic.ID, True)
    exit = stock.exit(Cause.NESTED_FAULT)
    exit.gpa = lapic.BASE
    stock.vcpu.regs.rbx = lapic.BASE - 2
    assert not mmio_known.carry_out(stock.vcpu, stock.vm, exit)


@pytest.mark.parametrize("code, before, after", [
    (b"\x83\x0b\x41", 0x20, 0x61),  # or dword [ebx], 41
    (b"\x87\x03", 0x20, 0x77),  # xchg [ebx], eax
    (b"\xc7\x03\x35\x00\x00\x00", 0x20, 0x35),  # mov dword [ebx], 35
])
def test_other_instructions_reach_the_registers(stock: Stock, code: bytes, before: int, after: int) -> None:
    flat(stock, code)
    stock.vcpu.lapic.tpr = before
    backend.set_cr8(stock.vcpu, before >> 4)
    stock.vcpu.regs.rax, stock.vcpu.regs.rbx = 0x77, APIC_TPR
    touch(stock, APIC_TPR, True)
    assert stock.vcpu.lapic.tpr == after
    if code[0] == 0x87:
        assert stock.vcpu.regs.rax == before


def test_the_other_devices_answer_too(stock: Stock) -> None:
    """The I/O APIC's version by its index and window, the HPET's period."""
    flat(stock, b"\x89\x03")
    stock.vcpu.regs.rax, stock.vcpu.regs.rbx = ioapic.INDEX_VERSION, ioapic.BASE
    touch(stock, ioapic.BASE, True)
    flat(stock, b"\x8b\x03")
    stock.vcpu.regs.rbx = ioapic.BASE + ioapic.WINDOW
    touch(stock, ioapic.BASE + ioapic.WINDOW, False)
    assert stock.vcpu.regs.rax == ioapic.VERSION_REGISTER
    stock.vcpu.regs.rbx = hpet.BASE + 4
    touch(stock, hpet.BASE + 4, False)
    assert stock.vcpu.regs.rax == 10_000_000


def test_a_disabled_local_apic_reads_ones(stock: Stock) -> None:
    flat(stock, LOAD_TPR)
    stock.vcpu.lapic.base = lapic.BASE | lapic.BASE_BSP
    touch(stock, APIC_TPR, False)
    assert stock.vcpu.regs.rax == 0xFFFFFFFF


def test_the_msix_page_of_a_virtio_device_is_read(stock: Stock) -> None:
    """It lies below the devices that cannot be moved, where nothing else is: its words, not the ones of a hole."""
    assert devices.create(stock.vm) == Status.OK
    made = devices.add(stock.vm, DeviceKind.ENTROPY, 0, 1)
    assert made is not None
    table = devices.MEMORY_PLACE + made.slot * pci_function.MEMORY_BYTES
    for address, word in ((table, 0xFEE01000), (table + 12, 0)):
        made.registers.msix.words[(address - table) // 4] = word
        flat(stock, b"\xa1" + address.to_bytes(4, "little"))  # mov eax, [address]
        stock.vcpu.regs.rax = 1
        touch(stock, address, False)
        assert stock.vcpu.regs.rax == word
    devices.destroy(stock.vm)
