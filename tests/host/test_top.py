"""`krait top`: shares and rates between two looks, and the table that is made of them."""

import io
from typing import Any

from rich.console import Console

from krait import top
from krait.top import Look


def host(us: int, **more: int) -> dict[str, Any]:
    return {"us": us, "idle_ns": 0, "cpus": 1, "quantum_ns": 1_000_000, "policy": "eevdf", "frames_available": 100,
            "frames_limit": 1000, "frames_low": 62, "waiting": 0, **more}  # fmt: skip


def vm(handle: int, name: str, **more: object) -> dict[str, Any]:
    return {"handle": handle, "name": name, "state": "running", "vcpu_count": 1, "weight": 100, "cpu_ns": 0, "steal_ns": 0,
            "lag_ns": 0, "wakes": 0, "wake_ns": 0, "exits": {}, "private_frames": 3, "memory_bytes": 1 << 24,
            "overhead_frames": 9, "pressure_frames": 0, **more}  # fmt: skip


def test_rates_are_those_between_two_looks() -> None:
    before = Look(host(1_000_000), {1: vm(1, "ada", cpu_ns=10**9, exits={"cpuid": 5}), 2: vm(2, "bob", state="paused")})
    ada = vm(1, "ada", weight=300, cpu_ns=2 * 10**9, steal_ns=5 * 10**8, lag_ns=-500_000, wakes=4, wake_ns=80_000,
             exits={"cpuid": 105, "hypercall": 20})  # fmt: skip
    now = Look(host(3_000_000, idle_ns=10**9), {1: ada, 2: vm(2, "bob", state="paused"), 65537: vm(65537, "new", cpu_ns=10**8)})
    view = top.compare(before, now)
    assert (view.seconds, view.idle, view.pressed) == (2.0, 50.0, False)
    first, second, third = view.rows
    assert (first.asked, first.received, first.waited, first.lag, first.wake_us) == (75.0, 50.0, 25.0, -0.5, 20.0)
    assert (first.exits, first.main_cause, first.main_exits) == (60.0, "cpuid", 50.0)
    assert second.asked == 0.0 and third.asked == 25.0 and third.received == 5.0


def test_a_guests_rates_go_by_its_own_time() -> None:
    """Records do not come at the same moment: on a slow line the second look at this guest came a second later than at the machine."""
    before = Look(host(1_000_000), {1: vm(1, "ada", guest_ns=5 * 10**9)})
    now = Look(host(3_000_000), {1: vm(1, "ada", guest_ns=8 * 10**9, cpu_ns=3 * 10**9)})
    assert top.compare(before, now).rows[0].received == 100.0


def test_the_table_says_it() -> None:
    now = Look(host(2_000_000, frames_available=10), {1: vm(1, "ada", pressure_frames=8, exits={"port I/O": 1000})})
    out = io.StringIO()
    Console(file=out, width=160).print(top.show(top.compare(Look(host(1_000_000), {}), now)))
    line = next(line for line in out.getvalue().splitlines() if line.startswith("ada"))
    assert line.split() == ["ada", "running", "1", "100", "100.0", "%", "0.0", "%", "0.0", "%", "1,000", "port", "I/O", "1,000",
                            "12K", "16M", "36K", "32K"]  # fmt: skip
    assert "pressure" in out.getvalue()
