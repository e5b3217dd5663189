"""The `registers` workload finds what it put into the registers, and notices any one that changed."""

from collections.abc import Iterator

import pytest

from guest_pv_drivers.workloads import register_state, registers
from hypervisor.abi import HYPERCALL_BASE, Hypercall
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.lang import clear

SEED = 3 << 32
MSRS = [*register_state.MSRS, register_state.IA32_PAT, register_state.IA32_TSC_AUX]


@pytest.fixture(autouse=True)
def cpu() -> Iterator[None]:
    """A CPU with XSAVE, AVX, RDTSCP and protection keys."""
    machine.reset()
    machine.msrs = dict.fromkeys(MSRS, 0)
    machine.cpuid_leaves = {
        (1, 0): (0, 0, register_state.CPUID_1_ECX_XSAVE, 0),
        (7, 0): (0, 0, register_state.CPUID_7_ECX_PKU, 0),
        (0xD, 0): (7, 0, 0, 0),
        (0x80000001, 0): (0, 0, 0, register_state.CPUID_80000001_EDX_RDTSCP),
    }
    machine.on_hypercall = lambda number, a, b, c, d: 0 if number == HYPERCALL_BASE + Hypercall.YIELD else 1 << 63
    for part in (register_state.features, register_state.wanted, register_state.found):
        clear(part)
    register_state.init(SEED >> 32)
    yield
    machine.reset()


def test_neighbours_differ_in_xcr0() -> None:
    assert register_state.features.xcr0 == 7
    register_state.init(2)
    assert register_state.features.xcr0 == 3


@pytest.mark.parametrize("register", [*MSRS, "cr2", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "xcr0", "pkru"])
def test_one_changed_register_is_noticed(register: int | str) -> None:
    register_state.load_system(SEED)
    assert register_state.system_errors(SEED) == 0
    if isinstance(register, int):
        machine.msrs[register] ^= 4
    elif register == "xcr0":
        machine.xcr[0] ^= 4
    elif register == "pkru":
        machine.pkru ^= 4
    else:
        machine.registers[register] ^= 1
    assert register_state.system_errors(SEED) == 1


def test_every_pat_is_legal_and_keeps_entry_0_write_back() -> None:
    for seed in range(100):
        entries = register_state.pat(seed).to_bytes(8, "little")
        assert set(entries) <= {0, 1, 4, 5, 6, 7}
        assert entries[0] == 6
    assert len({register_state.pat(seed) for seed in range(6)}) == 6


@pytest.mark.parametrize("offset", [0, 24, 32, 32 + 7 * 16, 160, 415, 576, 831])
def test_one_changed_byte_of_the_fpu_is_noticed(offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(area: int, mask: int) -> None:
        for i in range(register_state.AREA_BYTES):
            register_state.found.bytes[i] = register_state.wanted.bytes[i]
        register_state.found.bytes[offset] ^= change

    monkeypatch.setattr(machine, "xsave", save)
    register_state.load_fpu(SEED)
    change = 0
    assert register_state.fpu_errors() == 0
    change = 1
    assert register_state.fpu_errors() == 1


def test_general_registers() -> None:
    assert registers.exchange_errors(SEED, 0) == 0
    assert registers.exchange_errors(SEED, 100) == 0
    machine.on_hypercall = lambda number, a, b, c, d: 1  # a result that YIELD does not have
    assert registers.exchange_errors(SEED, 0) == 1
