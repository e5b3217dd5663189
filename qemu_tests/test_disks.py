"""The machine's disks: each is found, named and driven; what is written is read back, whatever the sizes and pieces."""

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from krait.machine import Machine
from qemu_tests import power_cuts
from qemu_tests.conftest import Boot
from qemu_tests.harness import Console, Table, VmTable
from qemu_tests.test_channel import board
from qemu_tests.test_linux import BOOT_SECONDS, expect_user_space, linux, run
from qemu_tests.test_pv_guests import pv
from tests.block.gpt_image import SECTOR, image

WAITING = {"name": "waits", "kind": "pv", "workload": "echo"}
SIZE = "16MiB"
BUSES = {"qemu": ["virtio", "nvme", "ata"], "bochs": ["ata"]}


def disk(name: str, bus: str, size: str = SIZE) -> Table:
    """One of the machine's disks."""
    return {"name": name, "bus": bus, "size": size}


def result_of(console: Console, name: str) -> re.Match[str]:
    """Run the debug image's test of a disk."""
    console.send_line(f"debug disk {name}")
    return console.expect(r"disk test (\w+): (\d+) requests, (\d+) sectors read back, (\d+) wrong, (\d+) errors")


def test_drivers(machine: Machine, boot: Boot) -> None:
    """Every driver that this emulator has a device for: requests of 1 to 64 sectors, many in flight, a flush between."""
    buses = [*BUSES[machine.emulator], "memory"]
    console = boot(machine, vms=[WAITING], end_auto=False, disks=[disk(f"scratch-{bus}", bus) for bus in buses])
    for bus in buses:
        console.expect(r"disk \w+ +16 MiB, serial \"[\w-]*\"")
    console.expect("krait> ")
    for bus in buses:
        assert result_of(console, f"scratch-{bus}").groups()[1:] == ("1024", "16640", "0", "0"), bus
    console.send_line("disks")
    for _ in buses:
        console.expect(r"ok +16 +0 +\d+ +0 +0")
    console.send_line("poweroff")
    console.wait_end()


svm_only = pytest.mark.parametrize("machine", ["svm"], indirect=True)


@svm_only
def test_two_drives_share_a_channel(machine: Machine, boot: Boot) -> None:
    """Master and slave of one IDE channel are told apart."""
    console = boot(machine, vms=[WAITING], end_auto=False, disks=[disk("one", "ata"), disk("two", "ata")])
    console.expect("krait> ")
    for name in ("one", "two"):
        assert result_of(console, name).groups()[3:] == ("0", "0")
    console.send_line("poweroff")
    console.wait_end()


@svm_only
def test_a_partition_is_a_guests_disk(machine: Machine, boot: Boot, tmp_path: Path) -> None:
    """Linux makes a file system on a partition of a real disk and finds its files again; the rest of the disk is as it was."""
    data = image(40 << 11, {1: (2048, 32 << 11), 2: (34 << 11, 4 << 11)})
    data[34 << 20 : 38 << 20] = b"\x5a" * (4 << 20)
    path = tmp_path / "disk.img"
    path.write_bytes(data)
    disks: list[Table] = [{"disk": "real", "partition": 1}]
    tux = linux(run(*"disk-check /dev/vda 40".split()), "krait.end=poweroff")
    console = boot(machine, vms=[{**tux, "disk": disks}], disks=[{"name": "real", "bus": "nvme", "image": str(path)}])
    console.expect(r"40 MiB, serial \"[\w-]*\", GPT")
    expect_user_space(console)
    console.expect_line("tux", "disk-check: written", BOOT_SECONDS)
    console.expect_line("tux", "disk-check: ok", BOOT_SECONDS)
    console.wait_end()
    after = path.read_bytes()
    assert after[: 1 << 20] == data[: 1 << 20] and after[33 << 20 :] == data[33 << 20 :]
    assert after[(1 << 20) + 1024 + 56 :][:2] == b"\x53\xef"  # ext4's magic number, in its superblock


@svm_only
def test_overlay_and_undo(machine: Machine, boot: Boot, tmp_path: Path) -> None:
    """What a guest writes over a base survives its reboots, until `undo`; the base itself is never written."""
    path = tmp_path / "base.img"
    path.write_bytes(b"original".ljust(8 << 20, b"\0"))
    tux = linux(run("head", "-c", "8", "/dev/vda", ";", "echo", ";", "echo", "changed!", ">", "/dev/vda", ";", "sync", ";", "echo", "synced"))
    disks: list[Table] = [{"disk": "base", "overlay": "1MiB"}]
    console = boot(machine, vms=[{**tux, "disk": disks}], disks=[{"name": "base", "bus": "virtio", "image": str(path)}], end_auto=False)
    for found, command in (("original", "reboot tux"), ("changed!", "undo tux"), ("original", "poweroff")):
        expect_user_space(console)
        console.expect_line("tux", found)
        console.expect_line("tux", "synced")
        console.send_line(command)
        if command == "undo tux":
            console.expect(r"base: \d+ KiB are forgotten when tux starts again")
            console.send_line("reboot tux")
    console.wait_end()
    assert path.read_bytes() == b"original".ljust(8 << 20, b"\0")


@svm_only
def test_errors_of_a_disk_reach_the_guest(machine: Machine, boot: Boot, tmp_path: Path) -> None:
    """A sector that cannot be read (QEMU's blkdebug) is an I/O error in the guest; the sectors beside it, and the other disk, work."""
    rules = tmp_path / "rules"
    rules.write_text('[inject-error]\nevent = "read_aio"\nerrno = "5"\nsector = "1024"\nonce = "off"\n')
    read = [("/dev/vda", 128), ("/dev/vda", 127), ("/dev/vda", 129), ("/dev/vdb", 128)]
    words = [f"dd if={device} of=/dev/null bs=4096 skip={block} count=1 iflag=direct 2>/dev/null; echo result {device} {block} $? ;" for device, block in read]
    tux = linux(run(*" ".join(words).split()), "krait.end=poweroff")
    disks: list[Table] = [{"disk": "faulty", "size": "8MiB"}, {"disk": "faulty", "start": "8MiB", "name": "other"}]
    console = boot(replace(machine, fault_rules=rules), vms=[{**tux, "disk": disks}], disks=[disk("faulty", "virtio")], end_auto=False)
    expect_user_space(console)
    for (device, block), status in zip(read, (1, 0, 0, 0)):
        console.expect_line("tux", f"result {device} {block} {status}")
    console.expect("vm 'tux'")
    console.send_line("disks")
    assert int(console.expect(r"virtio0 +faulty +ok +16 +0 +\d+ +(\d+) +0")[1]) >= 1
    console.send_line("poweroff")
    console.wait_end()


DISCARD_AND_LIMITS = ("for disk in vda vdb vdc; do blkdiscard /dev/$disk && echo discarded $disk; done; read a x </proc/uptime; "
                      "dd if=/dev/vda of=/dev/null bs=4k count=200 iflag=direct 2>/dev/null; read b x </proc/uptime; "
                      "dd if=/dev/vdb of=/dev/null bs=64k count=32 iflag=direct 2>/dev/null; read c x </proc/uptime; echo uptime $a $b $c")  # fmt: skip


@svm_only
def test_discard_and_limits(machine: Machine, boot: Boot, tmp_path: Path) -> None:
    """What a guest discards is gone from the machine's disk, by every driver, and nothing beside it; a limit of 100 requests or 1 MiB a second
    holds, but for what may be used at once (50 ms of it, and the request that begins last)."""
    disks: list[Table] = []
    for bus in BUSES["qemu"]:
        (tmp_path / bus).write_bytes(b"\xff" * (12 << 20))
        disks.append({"name": bus, "bus": bus, "image": str(tmp_path / bus)})
    limits: list[Table] = [{"requests_per_second": 100}, {"bytes_per_second": "1MiB"}, {}]
    ranges: list[Table] = [{"disk": bus, "start": "2MiB", "size": "8MiB", **limit} for bus, limit in zip(BUSES["qemu"], limits)]
    tux = linux(run(*DISCARD_AND_LIMITS.split()), "krait.end=poweroff")
    console = boot(machine, vms=[{**tux, "disk": ranges}], disks=disks)
    expect_user_space(console)
    for name in ("vda", "vdb", "vdc"):
        console.expect_line("tux", f"discarded {name}")
    began, first, second = map(float, console.expect_line("tux", r"uptime (\S+) (\S+) (\S+)").groups())
    assert first - began > 0.99 * (200 - 5 - 1) / 100
    assert second - first > 0.99 * (2048 - 51 - 64) / 1024
    console.wait_end()
    for bus in BUSES["qemu"]:
        data = (tmp_path / bus).read_bytes()
        assert data[: 2 << 20] == data[10 << 20 :] == b"\xff" * (2 << 20) and not any(data[2 << 20 : 10 << 20]), bus


@svm_only
def test_overlay_on_disk_outlives_the_machine(machine: Machine, boot: Boot, tmp_path: Path) -> None:
    """Base and overlay lie on one disk: what the guest flushed is there after the power was cut, until `undo`; the base is never written."""
    path = tmp_path / "both.img"
    base = b"original".ljust(8 << 20, b"\0")
    path.write_bytes(base.ljust(16 << 20, b"\0"))
    tux = linux(run(*"head -c 8 /dev/vda ; echo ; echo changed! | dd of=/dev/vda conv=fsync 2>/dev/null && echo synced".split()))
    disks: list[Table] = [{"disk": "both", "size": "8MiB", "overlay_start": "8MiB", "overlay": "8MiB", "keep": True}]
    for life, found in enumerate(("original", "changed!")):
        console = boot(machine, vms=[{**tux, "disk": disks}], disks=[{"name": "both", "bus": "ata", "image": str(path)}], end_auto=False)
        expect_user_space(console)
        console.expect_line("tux", found, BOOT_SECONDS)
        console.expect_line("tux", "synced", BOOT_SECONDS)
        if life == 1:
            console.send_line("undo tux")
            console.expect(r"both: 4 KiB are forgotten when tux starts again")
            console.send_line("reboot tux")
            console.expect_line("tux", "original", BOOT_SECONDS)
        console.emulator.child.process.kill()
    assert path.read_bytes()[: 8 << 20] == base


def hold_back(console: Console, rate: int) -> None:
    """Let QEMU's first disk move so many bytes a second: with 1, what is asked of it is held back for an hour. 0: no limit."""
    console.emulator.qmp("block_set_io_throttle", device="disk0", bps=rate, bps_rd=0, bps_wr=0, iops=0, iops_rd=0, iops_wr=0)


@svm_only
def test_a_stalled_disk_fails_alone(machine: Machine, boot: Boot) -> None:
    """A disk that does not answer is reset, asked once more, and then its guest sees an I/O error; the guest beside it reads all the
    time from its own disk; when the disk answers again it is as good as before."""
    read = "dd if=/dev/vda of=/dev/null bs=4096 count=2 iflag=direct 2>/dev/null"
    stuck = linux(run(*f"while true; do {read}; echo status $?; sleep 1; done".split()), name="stuck")
    free = linux(run(*f"while true; do {read}; done & echo reading".split()), name="free")
    vms = [{**stuck, "disk": [{"disk": "slow"}]}, {**free, "disk": [{"disk": "quick"}]}]
    console = boot(machine, vms=vms, disks=[disk("slow", "virtio"), disk("quick", "virtio")], end_auto=False)
    console.expect_line("free", "reading", BOOT_SECONDS)
    console.expect_line("stuck", "status 0", BOOT_SECONDS)
    hold_back(console, 1)
    counts = []
    for line in (r"disk virtio0: a transfer did not end in 8 s; it is reset", r"\[stuck\] status 1"):
        console.expect(line, 60)
        console.send_line("disks")
        counts.append(int(console.expect(r"free +quick +virtio1 +0 +16 +write +(\d+) ")[1]))
    assert counts[1] > counts[0] > 0
    hold_back(console, 0)
    console.expect_line("stuck", "status 0", 60)
    console.send_line("disks")
    timeouts, state = console.expect(r"virtio0 +slow +(\w+) +16 +\d+ +\d+ +\d+ +(\d+)").groups()[::-1]
    assert state == "ok" and int(timeouts) >= 2
    console.send_line("poweroff")
    console.wait_end()


@svm_only
def test_a_vm_that_a_stalled_disk_keeps_holds_up_nobody(machine: Machine, boot: Boot) -> None:
    """Stopped with a transfer under way it is given back when the disk has answered or is given up: one that is stopped after it comes first."""
    stuck: VmTable = {**pv("stuck", "disk-bench", "count=100000000 single=8"), "disk": [{"disk": "slow"}]}
    console = boot(machine, [stuck, pv("free", "spin", "ms=100000000")], disks=[disk("slow", "virtio")], end_auto=False, channel=True)
    guests = board(console)
    hold_back(console, 1)
    console.expect(r"disk virtio0: a transfer did not end in 8 s; it is reset", 60)
    for name in ("stuck", "free"):
        assert not guests.command(f"stop {name}").refused
    released: list[object] = []
    while len(released) < 2:
        record = guests.events.get(timeout=60)
        if record["event"] == "released":
            released.append(record["name"])
    assert released == ["free", "stuck"]
    console.send_line("poweroff")
    console.wait_end()


@svm_only
def test_what_was_synced_survives_a_power_cut(machine: Machine, tmp_path: Path) -> None:
    """QEMU is killed while a guest writes; `make long` does that fifty times."""
    promised, looked_at = power_cuts.cut(tmp_path, "virtio", 7)
    assert promised >= 1 and looked_at >= 1


READERS = ("for k in 1 2 3 4 5 6 7 8 9 10 11 12; do while true; do dd if=/dev/vda of=/dev/null bs=4k count=300 skip=$((k*300)) iflag=direct "
           "2>/dev/null; done & done; echo reading")  # fmt: skip
MEASURED_SECONDS = 16


def reads_of(console: Console, vms: list[str]) -> list[tuple[int, int]]:
    """Requests ended and KiB read so far, by VM."""
    console.send_line("disks")
    found = [console.expect(rf"{vm} +slow +virtio0 +0 +16 +read-only +(\d+) +0 +(\d+) ") for vm in vms]
    return [(int(match[1]), int(match[2])) for match in found]


@svm_only
def test_shares_of_a_slow_disk(machine: Machine, boot: Boot) -> None:
    """Three Linux guests at weights 1:2:4 saturate one disk that does 50 requests a second: their shares of requests and of bytes are
    within 5 %."""
    shares = {"one": 1, "two": 2, "four": 4}
    slow: list[Table] = [{"disk": "slow", "read_only": True}]
    vms = [{**linux(run(*READERS.split()), name=name, memory="80MiB", weight=100 * weight), "disk": slow} for name, weight in shares.items()]
    console = boot(machine, vms=vms, debug=False, end_auto=False, disks=[{**disk("slow", "virtio"), "requests_per_second": 50}])
    for _ in shares:
        console.expect(r"\] reading", BOOT_SECONDS)
    time.sleep(1)  # until all have their readers started
    before = reads_of(console, list(shares))
    time.sleep(MEASURED_SECONDS)
    after = reads_of(console, list(shares))
    for kind, least in ((0, 40), (1, 160)):
        counts = [now[kind] - then[kind] for now, then in zip(after, before)]
        assert sum(counts) > least * MEASURED_SECONDS
        for count, weight in zip(counts, shares.values()):
            assert count / sum(counts) == pytest.approx(weight / 7, rel=0.05), counts
    console.send_line("disks")
    assert console.expect(r"virtio0 +slow +(\w+) +16 +\d+ +\d+ +(\d+) +(\d+)").groups() == ("ok", "0", "0"), "errors or time-outs"
    console.send_line("poweroff")
    console.wait_end()
