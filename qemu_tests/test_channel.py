"""The machine channel: many guests' consoles at once, each by its own socket, commands and records, events in order."""

import re
import socket

import pytest
from pexpect import fdpexpect

from krait import paths
from krait.machine import Machine
from krait.switchboard import Switchboard
from qemu_tests.conftest import Boot
from qemu_tests.harness import EXPECT_SECONDS, Console
from qemu_tests.test_pv_guests import pv


class Talk:
    """pexpect on one guest's console."""

    def __init__(self, guests: Switchboard, name: str) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with paths.short(guests.folder / name) as path:
            connection.connect(path)
        self.connection = connection
        self.spawn = fdpexpect.fdspawn(connection, timeout=EXPECT_SECONDS, encoding="ascii")

    def send(self, text: str) -> None:
        """Type."""
        self.connection.sendall(text.encode())

    def line(self, pattern: str) -> "re.Match[str]":
        """The next line like that."""
        self.spawn.expect(pattern + "\n")
        assert isinstance(self.spawn.match, re.Match)
        return self.spawn.match


def board(console: Console) -> Switchboard:
    """The machine's switchboard, all guests known. (The boot's lines are read first: until interrupts run they wait for that.)"""
    console.expect("krait> ")
    assert console.guests is not None
    assert console.guests.ready.wait(EXPECT_SECONDS)
    return console.guests


@pytest.mark.parametrize("machine", ["svm", "vtx"], indirect=True)
def test_many_consoles_at_once(machine: Machine, boot: Boot) -> None:
    """Six guests talked to in turn by pexpect, and one more than its input holds; each answers itself; nothing is lost."""
    names = [f"g{number}" for number in range(6)]
    console = boot(machine, [pv(name, "echo") for name in names], end_auto=False, channel=True)
    guests = board(console)
    talks = {name: Talk(guests, name) for name in names}
    for name, talk in talks.items():
        talk.line("type something")
    for turn in range(20):
        for name, talk in talks.items():
            talk.send(f"{name} turn {turn} {'x' * 60}\n")
        for name, talk in talks.items():
            assert talk.line(r"heard: (\w+) turn (\d+) x{60}").groups() == (name, str(turn))
    talks["g0"].send("".join(f"line {number}\n" for number in range(200)))  # far more than a guest's input holds
    for number in range(200):
        assert int(talks["g0"].line(r"heard: line (\d+)")[1]) == number
    records = {record["name"]: record for record in guests.vms()}
    assert list(records) == names and all(record["console_lost"] == 0 for record in records.values())
    assert max(record["overhead_frames"] for record in records.values()) * 4 <= 128, "docs/numbers.md: KiB beyond its RAM"
    for name, talk in talks.items():
        talk.send("quit\n")
    ended: set[str] = set()
    while len(ended) < len(names):
        event = guests.events.get(timeout=EXPECT_SECONDS)
        if event["event"] == "released":
            ended.add(event["name"])
    assert not guests.refusals
    assert guests.command("poweroffx").refused
    console.send_line("poweroff")
    console.wait_end()
