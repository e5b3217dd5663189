"""Guests trade memory: release, populate, page states and the memory pressure event, on more memory than there is."""

import re

from krait.machine import Machine
from qemu_tests.conftest import Boot
from qemu_tests.test_pv_guests import lines, pv


def test_driver_gives_what_another_needs(machine: Machine, boot: Boot) -> None:
    """48 MiB for two guests that want 24 and 30: the first, idle and above its share, is asked and gives; both find their data."""
    end = boot(
        machine,
        vms=[
            pv("giver", "trade", "role=give fill=24 mib=5", memory="32MiB"),
            pv("grower", "trade", "role=grow mib=30 delay=2000", memory="40MiB", weight=300),
        ],
        memory_limit="48MiB",
    ).wait_end()
    giver = lines(end, "giver")
    assert giver[0] == "trade filled 6144 frames, keeps 1536, idles"
    result = next(index for index, line in enumerate(giver) if line.startswith("trade ok"))  # asked after that, it gives on
    asked = [re.fullmatch(r"memory pressure: asked for (\d+) frames, released (\d+)", line) for line in giver[1:result]]
    assert asked and all(asked)
    released = re.fullmatch(r"trade ok released (\d+)", giver[result])
    assert released is not None
    assert int(released[1]) >= 1280
    assert int(released[1]) <= sum(int(event[2]) for event in asked if event is not None)
    assert lines(end, "grower")[-1] == "trade ok grew 7680"


def test_unused_pages_go_without_asking(machine: Machine, boot: Boot) -> None:
    """Pages that a guest said are UNUSED are taken first: the other guest gets them, nobody is asked for more."""
    end = boot(
        machine,
        vms=[
            pv("giver", "trade", "role=unused fill=16", memory="32MiB"),
            pv("grower", "trade", "role=grow mib=30 delay=2000", memory="40MiB"),
        ],
        memory_limit="48MiB",
    ).wait_end()
    giver = lines(end, "giver")
    said = re.fullmatch(r"trade filled 4096 frames, keeps 1024, says (\d+) are unused", giver[0])
    taken = re.fullmatch(r"trade ok (\d+) of (\d+) were taken", giver[-1])
    assert said is not None and taken is not None
    assert said[1] == taken[2]
    assert int(said[1]) >= 3072
    assert int(taken[1]) > 0
    assert lines(end, "grower") == ["trade ok grew 7680"]


def test_more_than_there_is(machine: Machine, boot: Boot) -> None:
    """A guest that wants more than the machine has is told so by MEM_POPULATE; it lives, and so does its neighbour."""
    end = boot(
        machine,
        vms=[
            pv("greedy", "populate", "mib=40", memory="48MiB"),
            pv("neighbour", "memory-write", "ms=200"),
        ],
        memory_limit="32MiB",
    ).wait_end()
    populated = re.fullmatch(r"populate ok (\d+) of 10240 frames, then error 4", lines(end, "greedy")[-1])
    assert populated is not None
    assert 0 < int(populated[1]) < 8192
    assert any(line.startswith("memory ok") for line in lines(end, "neighbour")), "it may be asked for memory after that"
