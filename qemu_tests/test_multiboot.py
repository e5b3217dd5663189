"""Multiboot guests: what the specification promises them, every mode of the CPU, and how they end."""

from pathlib import Path

from krait.machine import Machine
from krait.result import Status
from qemu_tests.conftest import Boot
from qemu_tests.harness import VmTable
from qemu_tests.test_pv_guests import lines, pv
from tests.multiboot import guests

MODES = ["real mode ok", "32-bit paging ok", "PAE paging ok", "compatibility mode ok", "64-bit mode ok", "out of long mode ok",
         "32-bit paging ok", "real mode ok"]  # fmt: skip


def multiboot(name: str, kernel: Path, cmdline: str = "", modules: tuple[str, ...] = ()) -> VmTable:
    """One Multiboot guest of 16 MiB."""
    return {"name": name, "kind": "multiboot", "memory": "16MiB", "kernel": str(kernel), "cmdline": cmdline, "modules": list(modules)}


def test_every_mode_and_every_end(machine: Machine, boot: Boot, tmp_path: Path) -> None:
    """An ELF32 kernel with modules and one with addresses in its header go through all modes beside a PV guest; one ends by the exit port,
    the other halts with interrupts off, and one that no loader may start is refused by name."""
    (tmp_path / "one").write_bytes(b"m" * 5000)
    (tmp_path / "two").write_bytes(b"m")
    demanding = bytearray(guests.flat("modes").read_bytes())
    demanding[4:8] = (0x10007).to_bytes(4, "little")  # flag 2: graphics mode
    demanding[8:12] = (-(0x1BADB002 + 0x10007) & 0xFFFFFFFF).to_bytes(4, "little")
    (tmp_path / "demanding.bin").write_bytes(demanding)
    modules = (f"{tmp_path}/one root=ram", f"{tmp_path}/two")
    end = boot(
        machine,
        vms=[
            multiboot("elf", guests.elf("modes"), "first second", modules),
            multiboot("flat", guests.flat("modes"), "halt"),
            multiboot("demanding", tmp_path / "demanding.bin"),
            pv("neighbour", "hello"),
        ],
    ).wait_end(expected=Status.GUEST_FAILED)
    modules_seen = [f"module {tmp_path}/one root=ram: bytes 5000", f"module {tmp_path}/two: bytes 1"]
    assert lines(end, "elf") == ["multiboot: upper 15360 command line [first second] modules 2", *modules_seen, *MODES, "all modes ok"]
    assert lines(end, "flat") == ["multiboot: upper 15360 command line [halt] modules 0", *MODES, "halting"]
    assert "vm 'flat' halted" in end.text and "vm 'elf' switched itself off" in end.text
    for vm in ("elf", "flat", "neighbour"):
        assert f"result: vm '{vm}' ended with code 0" in end.text
    assert "vm 'demanding' refused" in end.text and "result: vm 'demanding' crashed" in end.text
    assert lines(end, "neighbour")[0].startswith("hello from vm")
