"""VMs are made, run, stopped and destroyed by the channel, thousands of times, while others run; not one frame is lost."""

import re

import pytest

from krait.machine import Machine
from krait.switchboard import Switchboard
from qemu_tests.conftest import Boot
from qemu_tests.harness import EXPECT_SECONDS
from qemu_tests.test_channel import Talk, board
from qemu_tests.test_pv_guests import pv

LIVES = {"svm": 2000, "vtx": 60, "svm2": 300, "vtx2": 30}


def event(guests: Switchboard, name: str, kind: str) -> None:
    """Wait until that has happened to the VM of this name."""
    while True:
        record = guests.events.get(timeout=EXPECT_SECONDS)
        if (record["name"], record["event"]) == (name, kind):
            return


@pytest.mark.parametrize("machine", list(LIVES), indirect=True)
def test_no_frame_is_lost(machine: Machine, boot: Boot, request: pytest.FixtureRequest) -> None:
    """Each life: made from the bundle under a name of its own; ends by itself, or is destroyed while it is loaded or runs."""
    lives = LIVES[request.node.callspec.params["machine"]]
    console = boot(machine, [pv("talker", "echo"), pv("short", "hello"), pv("long", "spin", "ms=100000000")], debug=False, end_auto=False, channel=True)
    guests = board(console)
    talk = Talk(guests, "talker")
    talk.line("type something")
    event(guests, "short", "released")
    assert "there is a VM short" in guests.command("create short").text
    for name in ("short", "long"):
        assert not guests.command(f"destroy {name}").refused
        event(guests, name, "destroyed")
    before = guests.command("ledger").text
    assert before.startswith("ledger: ok")
    for life in range(lives):
        name = f"v{life}"
        of = "short" if life % 4 else "long"
        assert not guests.command(f"create {of} {name}").refused
        if of == "short":
            event(guests, name, "released")
        elif life % 8:
            event(guests, name, "started")
        guests.command(f"destroy {name}")
        event(guests, name, "destroyed")
        if of == "long" and life % 8:
            console.expect(f"vm '{name}' stopped by the operator")  # read as it comes: what nobody reads is lost in the end
        if life % 100 == 0:
            talk.send(f"life {life}\n")
            talk.line(f"heard: life {life}")
    assert guests.command("ledger").text == before
    assert [record["name"] for record in guests.vms()] == ["talker"]
    assert guests.command("destroy nobody").refused and guests.command("create nobody").refused
    assert guests.command("create short ../x").refused
    assert re.search(r"error", guests.command("log 128").text) is None
    talk.send("quit\n")
    event(guests, "talker", "released")
    console.send_line("poweroff")
    console.wait_end()
