"""hypervisor/arch_x86/tsc.py against a fake PIT whose time is the TSC's, also when the CPU is taken away in between."""
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor.arch_x86 import lapic, tsc
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.lang import clear, map_memory, unmap_memory

APIC = 0xFEE0_0000


@pytest.fixture(autouse=True)
def _apic() -> Iterator[None]:
    prepare()
    yield
    machine.reset()
    clear(lapic.lapic)
    unmap_memory(APIC)


def prepare() -> None:
    """A machine with an idle local APIC."""
    machine.reset()
    clear(tsc.rates)
    clear(lapic.lapic)
    lapic.lapic.base = APIC
    try:
        unmap_memory(APIC)
    except KeyError:
        pass
    map_memory(APIC, bytearray(4096))


class Pit:
    """Channel 2, counting down from when it is loaded; each port access takes `port_ticks`."""

    def __init__(self, khz: int, port_ticks: int, steal: Callable[[], int]) -> None:
        self.khz, self.port_ticks, self.steal = khz, port_ticks, steal
        self.loaded_at, self.latched = 0, [0, 0]
        machine.tsc_step = 20
        machine.port_readers = {tsc.PIT_CHANNEL_2: self.read, tsc.PORT_61: lambda: 0}
        machine.port_writers = {tsc.PIT_COMMAND: self.command, tsc.PIT_CHANNEL_2: self.load}

    def load(self, _value: int) -> None:
        self.loaded_at = machine.tsc

    def command(self, value: int) -> None:
        machine.tsc += self.port_ticks + self.steal()
        if value == tsc.PIT_LATCH_CHANNEL_2:
            count = 0xFFFF - (machine.tsc - self.loaded_at) * tsc.PIT_HZ // (self.khz * 1000) & 0xFFFF
            self.latched = [count & 0xFF, count >> 8]

    def read(self) -> int:
        machine.tsc += self.port_ticks + self.steal()
        return self.latched.pop(0)


@settings(deadline=None, max_examples=20)
@given(st.integers(20_000, 5_000_000), st.integers(1, 3))
def test_the_rate_is_right_within_a_port_access(khz: int, port_us: int) -> None:
    prepare()
    Pit(khz, max(khz * port_us // 3000, 1), lambda: 0)
    tsc.measure()
    assert abs(tsc.rates.tsc_khz - khz) * 1000 < khz


@settings(deadline=None, max_examples=10)
@given(st.integers(17, 60))
def test_stolen_time_does_not_spoil_it(each: int) -> None:
    prepare()
    khz = 2_600_000
    calls = iter(range(10**9))
    Pit(khz, 300, lambda: khz // 2 if next(calls) % each == 11 else 0)  # 0.5 ms away now and then
    tsc.measure()
    assert abs(tsc.rates.tsc_khz - khz) * 1000 < khz


def test_a_machine_without_pit_is_told() -> None:
    tsc.measure()
    assert tsc.rates.tsc_khz == 0
