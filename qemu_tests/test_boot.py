"""Bring-up: named phases on both emulators and by both loaders, refusals in one line, and the operator's prompt."""
import re
import subprocess
from pathlib import Path

import pytest

from hypervisor import abi
from krait import config, images, newc
from krait.machine import QEMU_CPU, Links, Machine, Media, command_line
from krait.result import Status
from qemu_tests.conftest import Boot

HELLO = {"name": "ada", "kind": "pv", "memory": "8MiB", "workload": "hello"}
IDLE = {"name": "ida", "kind": "pv", "memory": "8MiB", "workload": "idle", "cmdline": "ms=1000000000 step=100"}
PHASES = ["console", "exceptions", "cpu", "clock", "loader", "memory", "platform", "paging", "interrupts",
          "bundle", "frames", "windows", "self-test", "virtual", "cpus", "vm", "guests"]
END_SECONDS = 60


def phases(text: str) -> list[str]:
    """The names of the phases that a console shows, in order."""
    return re.findall(r"^\[ *\d+\.\d{4}\] (\S+) ", text, re.MULTILINE)


def test_every_phase_says_what_it_found(machine: Machine, boot: Boot) -> None:
    end = boot(machine, [HELLO]).wait_end()
    assert phases(end.text) == PHASES
    assert "Multiboot 2" in end.text if machine.emulator == "bochs" else "PVH" in end.text
    smap = ", SMAP and windows" if machine.emulator == "qemu" else ""  # a Haswell has none, and neither emulator's CPU has UMIP
    assert f"W^X, NX, read-only tables, null and guard pages, SMEP{smap} hold" in end.text


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_grub_loads_it_under_qemu_too(machine: Machine, boot: Boot) -> None:
    end = boot(machine, [HELLO], iso=True).wait_end()
    assert "Multiboot 2" in end.text and phases(end.text) == PHASES


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_a_release_image_boots_without_self_test_and_debug_commands(machine: Machine, boot: Boot) -> None:
    console = boot(machine, [HELLO], debug=False, end_auto=False)
    console.expect("krait> ")
    console.send_line("debug crash ud")
    console.expect("not in a release image")
    console.send_line("poweroff")
    assert phases(console.wait_end().text) == [name for name in PHASES if name != "self-test"]


STAMP = re.compile(r"\[ *([0-9]+\.[0-9]{4})\]")


@pytest.mark.parametrize("machine", ["svm"], indirect=True)
def test_counted_instructions_repeat(machine: Machine, boot: Boot) -> None:
    first, second = (boot(machine, [HELLO], icount=True).wait_end().text for _ in range(2))
    clock = re.compile(r"TSC (\d+) kHz, local APIC timer (\d+) kHz")
    found = clock.search(first)
    assert found is not None
    assert all(abs(int(khz) - 1_000_000) < 50 for khz in found.groups())
    one, two = (text.split("bundle")[0] for text in (first, second))
    assert STAMP.sub("", one) == STAMP.sub("", two)
    stamps = zip(STAMP.findall(one), STAMP.findall(two), strict=True)  # in 100 us, cut off: either side of a tenth is as good
    assert all(abs(int(a.replace(".", "")) - int(b.replace(".", ""))) <= 1 for a, b in stamps)


def qemu(media: Media, cpu: str, *more: str, without: tuple[str, ...] = ()) -> tuple[int, str]:
    """Boot under QEMU with another CPU and options; the exit status and what the console showed."""
    command = [cpu if word == QEMU_CPU else word for word in command_line(Machine("qemu"), media, Links())]
    for option in without:
        place = command.index(option)
        del command[place:place + 2]
    done = subprocess.run([*command, *more], stdin=subprocess.DEVNULL, capture_output=True, timeout=END_SECONDS)
    return done.returncode, done.stdout.decode()


@pytest.fixture(scope="module")
def kernel() -> Path:
    """The debug image."""
    return images.hypervisor(False)


def status_of(value: int) -> int:
    """QEMU's exit status for a value written to its exit device."""
    return value << 1 | 1


@pytest.fixture
def media(kernel: Path, tmp_path: Path) -> Media:
    """The debug image with a bundle that has no configuration."""
    bundle = tmp_path / "bundle.cpio"
    bundle.write_bytes(newc.write([newc.Member("nothing", b"")]))
    return Media(kernel, bundle)


def test_without_hardware_virtualization_it_says_so_and_ends(media: Media) -> None:
    status, text = qemu(media, "EPYC-v1,-svm")
    assert status == status_of(abi.EXIT_NO_VIRTUALIZATION)
    assert text.count("this machine has no hardware virtualization") == 1
    assert phases(text)[-1] == "virtual" and text.endswith("krait: exit 0x13\r\n")


def test_without_long_mode_it_says_so_and_ends(media: Media) -> None:
    status, text = qemu(media, "qemu32")
    assert status == status_of(abi.EXIT_NO_VIRTUALIZATION)
    assert text == "krait: this CPU has no 64-bit mode\r\nkrait: exit 0x13\r\n"


@pytest.mark.parametrize("missing", ["xsave", "nx"])
def test_a_cpu_that_lacks_a_feature_is_refused_by_its_name(media: Media, missing: str) -> None:
    status, text = qemu(media, f"{QEMU_CPU},-{missing}")
    assert status == status_of(abi.EXIT_PANIC)
    assert re.search(rf"cpu +lacks {missing}\b.*, which Krait needs", text, re.IGNORECASE)


def test_without_gigabyte_pages_smep_and_smap_it_boots(media: Media) -> None:
    _, text = qemu(media, f"{QEMU_CPU},-pdpe1gb,-smep,-smap")
    assert "W^X, NX, read-only tables, null and guard pages hold" in text and "virtual" in phases(text)


def test_memory_above_4_gib_is_found_and_mapped(media: Media) -> None:
    _, text = qemu(media, QEMU_CPU, "-m", "6G")
    found = re.search(r"memory +(\d+) MiB usable", text)
    assert found is not None and 6100 < int(found[1]) <= 6144
    frames = re.search(r"frames +(\d+) of 4 KiB", text)
    assert frames is not None and int(frames[1]) > 6000 * 256


def test_without_a_bundle_it_says_what_to_give(media: Media) -> None:
    status, text = qemu(media, QEMU_CPU, without=("-initrd",))
    assert status == status_of(abi.EXIT_PANIC) and "bundle      none: give one" in text


def test_without_the_exit_device_the_machine_is_powered_off(kernel: Path, tmp_path: Path) -> None:
    table = config.parse('[[vm]]\nname = "ada"\nkind = "pv"\nmemory = "8MiB"\nworkload = "hello"\n', "vms.toml", tmp_path)
    bundle = images.write_bundle(table, tmp_path / "bundle.cpio", False, True)
    status, text = qemu(Media(kernel, bundle), QEMU_CPU, without=("-device",))
    assert status == 0 and text.endswith("krait: exit 0x10\r\n")


def test_a_damaged_bundle_is_refused(media: Media) -> None:
    media.bundle.write_bytes(media.bundle.read_bytes()[:-100])
    status, text = qemu(media, QEMU_CPU)
    assert status == status_of(abi.EXIT_PANIC) and "bundle      damaged" in text


def test_a_bundle_without_configuration_is_refused(media: Media) -> None:
    status, text = qemu(media, QEMU_CPU)
    assert status == status_of(abi.EXIT_PANIC) and "no krait.config" in text


def test_the_operator_asks_and_stops(machine: Machine, boot: Boot) -> None:
    console = boot(machine, [IDLE, {**IDLE, "name": "ike"}], end_auto=False)
    console.expect("krait> ")
    console.send_line("help")
    console.expect(r"attach NAME +keys go to that guest until Ctrl-\]")
    console.send_line("list")
    console.expect(r"0 ida +pv +running .*\r\n +1 ike +pv +running ")
    console.send_line("info  ike ")
    console.expect(r"ike: running, 1 vCPU")
    console.send_line("stop ike")
    console.send_line("mem")
    console.expect(r"hypervisor +\d+")
    console.send_line("list")
    console.expect(r"0 ida +pv +running .*\r\n +1 ike +pv +ended ")
    console.send_line("info ike")  # what it used is known after its vCPU has gone
    console.expect(r"ike: ended.*\r\n(?s:.*?) frames released(?s:.*?)\n    [a-z ]+ [1-9]")
    console.send_line("stop ike")
    console.expect("ike does not run")
    console.send_line("stop nobody")
    console.expect("no such VM: nobody")
    console.send_line("fly")
    console.expect("no such command: fly")
    console.send_line("poweroff")
    console.wait_end(expected=Status.OK)


def test_the_line_is_edited_and_a_burst_of_keys_is_not_lost(machine: Machine, boot: Boot) -> None:
    console = boot(machine, [IDLE], end_auto=False)
    console.expect("krait> ")
    console.send("x" * 500 + "\x15" + "nemm\x7f\x7f\x7f\x7fmem\r")
    console.expect(r"mem\r\n +\d+ frames")
    console.send("".join(f"stop vm{i}\r" for i in range(60)))
    for i in range(60):
        console.expect(f"no such VM: vm{i}\r\n")
    console.send_line("quit")
    console.wait_end()


def test_keys_go_to_the_guest_that_is_attached_until_the_escape_key(machine: Machine, boot: Boot) -> None:
    console = boot(machine, [IDLE], end_auto=False)
    console.expect("krait> ")
    console.send_line("attach ida")
    console.expect(r"attached to ida; Ctrl-\] detaches")
    console.send_line("poweroff")
    console.send("\x1d")
    console.expect("detached\r\nkrait> ")
    console.send_line("attach ida")
    console.expect("attached")
    console.send("\x1d")
    console.expect("detached")
    console.send_line("stop ida")
    console.send_line("attach ida")
    console.expect("ida does not run")
    console.send_line("poweroff")
    console.wait_end()
