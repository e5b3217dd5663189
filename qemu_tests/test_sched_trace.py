"""A trace of a machine's scheduling: recorded, taken by the channel, replayed to the same decisions, and drawn."""

import re
import time

import pytest

from hypervisor.abi_trace import TraceKind
from krait import trace, trace_replay
from krait.machine import Machine
from qemu_tests.conftest import Boot

SPIN: dict[str, str | int] = {"kind": "pv", "memory": "2MiB", "workload": "spin", "cmdline": "ms=600000"}
TICKS: dict[str, str | int] = {"kind": "pv", "memory": "2MiB", "workload": "ticks", "cmdline": "ms=600000 step=5"}


@pytest.mark.parametrize("machine", ["svm", "vtx", "svm2"], indirect=True)
def test_the_simulator_decides_as_the_machine_did(machine: Machine, boot: Boot) -> None:
    vms: list[dict[str, str | int]] = [{**SPIN, "name": "ada"}, {**SPIN, "name": "bob", "weight": 300}, {**SPIN, "name": "cap", "cap": 20}, {**TICKS, "name": "tim"}]
    console = boot(machine, vms, debug=False, end_auto=False, channel=True)
    console.expect_line("tim", "tick")
    guests = console.guests
    assert guests is not None and guests.ready.wait(60)
    assert guests.command("trace off").refused
    begun = re.search(r"trace (\d+): on", guests.command("trace on").text)
    assert begun is not None and guests.command("trace on").refused
    guests.command("weight ada 250")
    guests.command("policy stride")
    time.sleep(0.05)  # for something to be recorded, however much
    guests.command("policy eevdf")
    assert not guests.command("trace off").refused
    found = trace.decode(guests.trace(int(begun[1])).result(300))
    kinds = {event.kind for event in found.events}
    assert {TraceKind.PICK, TraceKind.CHARGE, TraceKind.SLICE, TraceKind.REQUEUE, TraceKind.ENQUEUE, TraceKind.WEIGHT, TraceKind.SELECT} <= kinds
    assert found.header["cpus"] == machine.cpus and set(found.names.values()) == {"ada", "bob", "cap", "tim"}
    done = trace_replay.replay(found)
    assert done.mismatch is None, done
    drawn = trace.timeline(found)["traceEvents"]
    assert {event["args"]["name"] for event in drawn if event["ph"] == "M"} >= {"ada", "bob", "CPU 0"}
    assert guests.command("ledger").text.count("ledger: ok") == 1, "the rings' frames are back"
    again = re.search(r"trace (\d+): on", guests.command("trace on").text)
    assert again is not None and int(again[1]) == int(begun[1]) + 1
    console.send_line("poweroff")
    console.wait_end()
