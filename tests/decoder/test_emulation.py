"""MMIO emulation against this machine's CPU, which runs the same instruction on memory full of ones."""
from __future__ import annotations

import ctypes
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies

from hypervisor import crash, guest_code
from hypervisor.addresses import Hva
from hypervisor.arch_x86.decoder.instruction import sign_extended
from hypervisor.arch_x86.vm_exit import Cause
from hypervisor.handlers import nested_fault
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import write_memory
from tests import sanitized
from tests.decoder import emulated
from tests.decoder.forms import Form, form
from tests.decoder.native import NAMES, Native
from tests.linux.stock import Stock

HOLE, SOURCE = 0xFEB0_0800, 0x10_0800
EFER_LONG = 0x500
HALF = 0x800


class Guest:
    """64-bit code of a stock guest, without paging; what stands at RIP is `code`."""

    def __init__(self, stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stock = stock
        self.code = b""
        self.reasons: list[str] = []
        monkeypatch.setattr(guest_code, "fetch", self.fetch)
        monkeypatch.setattr(guest_code, "bits", lambda state: 64)
        monkeypatch.setattr(crash, "stop", lambda vcpu, exit, cause: self.reasons.append(cause))
        stock.vmcb.efer = EFER_LONG

    def fetch(self, vcpu: object, target: Hva) -> int:
        write_memory(target, len(self.code), int.from_bytes(self.code, "little"))
        return len(self.code)

    def run(self, code: bytes, registers: dict[str, int]) -> tuple[Outcome, dict[str, int], int]:
        """Dispatch the write fault until the instruction is done: the last outcome, registers, and how often."""
        regs, vmcb = self.stock.vcpu.regs, self.stock.vmcb
        self.code = code
        for name, value in registers.items():
            setattr(regs, name, value)
        vmcb.rflags, vmcb.rsp = registers["rflags"], registers.get("rsp", 0)
        exit = self.stock.exit(Cause.NESTED_FAULT)
        exit.gpa, exit.is_write = HOLE, True
        times = 1
        while (outcome := nested_fault.handle(self.stock.vcpu, exit)) in (Outcome.RESUME, Outcome.WAIT):
            times += 1
            assert times < 1000
        after = {name: getattr(regs, name) for name in registers}
        after["rflags"], after["rsp"] = vmcb.rflags, vmcb.rsp
        return outcome, after, times


@pytest.fixture
def guest(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> Guest:
    return Guest(stock, monkeypatch)


def model(native: Native, made: Form, source: bytes) -> tuple[dict[str, int], dict[str, int]]:
    """What the CPU does: registers before and after, RDI and RSI as offsets from the middle of their pages."""
    hole = (ctypes.c_uint8 * (2 * HALF)).from_buffer_copy(b"\xff" * 2 * HALF)
    other = (ctypes.c_uint8 * (2 * HALF)).from_buffer_copy(source)
    rdi, rsi = ctypes.addressof(hole) + HALF, ctypes.addressof(other) + HALF
    after = native.run(made.code, made.registers | {"rdi": rdi, "rsi": rsi})
    return ({"rdi": HOLE, "rsi": SOURCE},
            after | {"rdi": after["rdi"] - rdi + HOLE, "rsi": after["rsi"] - rsi + SOURCE})


def test_as_the_cpu_does(guest: Guest) -> None:
    """RSI names RAM with random bytes, RDI a hole."""
    native, rng = Native(), random.Random(1)
    source = rng.randbytes(2 * HALF)
    guest.stock.put(SOURCE - HALF, source)
    for _ in range(1500):
        made = form(rng)
        places, expected = model(native, made, source)
        outcome, after, times = guest.run(made.code, made.registers | places)
        text = f"{made.code.hex(' ')} {made.registers}"
        assert outcome == Outcome.SKIP and guest.stock.vcpu.exit.length == len(made.code), text
        assert times <= 1 + 40 // 16
        for name in NAMES[:-1]:
            assert after[name] == expected[name], f"{name} {text}"
        assert (after["rflags"] ^ expected["rflags"]) & made.flags == 0, text
    assert guest.stock.bytes_at(SOURCE - HALF, 2 * HALF) == source
    assert guest.stock.vm.holes_touched > 1000


BEFORE = {"rax": 5, "rcx": 0, "rdx": 0, "rbx": SOURCE, "r8": 0, "rsi": SOURCE, "rdi": HOLE, "rflags": 0x202, "rsp": SOURCE}


@pytest.mark.parametrize("code, moved", [("ff 37", -8), ("66 ff 37", -2), ("8f 07", 8), ("66 8f 07", 2)])
def test_push_and_pop(guest: Guest, code: str, moved: int) -> None:
    guest.stock.put(SOURCE - 16, b"\x11" * 32)
    outcome, after, _ = guest.run(bytes.fromhex(code), BEFORE)
    assert (outcome, after["rsp"]) == (Outcome.SKIP, SOURCE + moved)
    pushed = b"\xff" * -moved if moved < 0 else b""
    assert guest.stock.bytes_at(SOURCE - 16, 32) == b"\x11" * (16 - len(pushed)) + pushed + b"\x11" * 16


def test_pop_through_rsp_uses_it_as_it_is_afterwards(guest: Guest) -> None:
    guest.stock.put(SOURCE, bytes(range(1, 17)))
    guest.run(bytes.fromhex("8f 04 24"), BEFORE)
    assert guest.stock.bytes_at(SOURCE + 8, 8) == bytes(range(1, 9))


def test_string_from_the_hole_to_ram(guest: Guest) -> None:
    guest.stock.put(SOURCE, bytes(128))
    registers = BEFORE | {"rcx": 50, "rsi": HOLE, "rdi": SOURCE}
    outcome, after, times = guest.run(bytes.fromhex("f3 a4"), registers)
    assert (outcome, after["rcx"], after["rdi"], times) == (Outcome.SKIP, 0, SOURCE + 50, 4)
    assert guest.stock.bytes_at(SOURCE, 51) == b"\xff" * 50 + b"\0"


@pytest.mark.parametrize("address", ["67", ""])
def test_counters_are_as_wide_as_addresses(guest: Guest, address: str) -> None:
    top = 0x1_0000_0000
    _, after, _ = guest.run(bytes.fromhex(f"{address} f3 aa"), BEFORE | {"rcx": top + 3 if address else 3, "rdi": top + HOLE if address else HOLE})
    assert (after["rcx"], after["rdi"]) == (0, HOLE + 3)


def test_an_operand_half_in_ram(guest: Guest) -> None:
    """The last two bytes of RAM and the two behind it."""
    end = guest.stock.vm.memory_bytes
    guest.stock.put(end - 4, b"\x11\x22\x33\x44")
    touched = guest.stock.vm.holes_touched
    guest.run(bytes.fromhex("01 07"), BEFORE | {"rdi": end - 2, "rax": 0x0001_0001})
    assert guest.stock.bytes_at(end - 4, 4) == b"\x11\x22\x34\x44"
    assert guest.stock.vm.holes_touched == touched + 2  # once read, once written


@pytest.mark.parametrize("code", ["0f 11 07", "f3 6c", "f0 89 07", "d9 3f", "c5 fc 11 07", "8c 07", "fe 07", ""])
def test_others_stop_the_vm(guest: Guest, code: str) -> None:
    outcome, after, _ = guest.run(bytes.fromhex(code), BEFORE)
    assert outcome == Outcome.STOP and after["rdi"] == HOLE
    assert guest.reasons == ["touched 0xfeb00800, where nothing is, with an instruction not decoded"]


def test_an_event_delivered_into_a_hole_stops_the_vm(guest: Guest) -> None:
    guest.stock.vcpu.reinject = 0x8000_0020
    assert guest.run(bytes.fromhex("89 07"), BEFORE)[0] == Outcome.STOP
    guest.stock.vcpu.reinject = 0


@given(strategies.integers(0, (1 << 64) - 1), strategies.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_sign_extension(value: int, size: int) -> None:
    expected = int.from_bytes((value & (1 << 8 * size) - 1).to_bytes(size, "little"), "little", signed=True)
    assert sign_extended(value, size) == expected & (1 << 64) - 1


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is missing")
def test_interpreted_and_compiled_are_equal(tmp_path: Path) -> None:
    """Instructions on RAM, holes and their edges, in real, 32-bit and 64-bit mode, with paging and without, under sanitizers."""
    assert "equal" in sanitized.run(emulated.MODULE, emulated.ALL_MODULES, tmp_path, 1500, 1)
