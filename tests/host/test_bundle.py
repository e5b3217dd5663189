"""The bundle: its tables are the layouts of hypervisor/abi.py, its members what they name."""

from pathlib import Path

import pytest

from hypervisor import abi
from hypervisor.lang import at, map_memory, sizeof, unmap_memory
from krait import bundle, newc
from krait.bundle import GuestFiles
from krait.config import Settings, VmSettings

BASE = 0x7000_0000


def text(field: list[int]) -> str:
    """A NUL-terminated text of a table."""
    return bytes(field).split(b"\0")[0].decode()


def test_the_tables_say_what_the_settings_say(tmp_path: Path) -> None:
    kernel, initrd = tmp_path / "vmlinuz", tmp_path / "initrd.cpio"
    kernel.write_bytes(b"kernel")
    initrd.write_bytes(b"initrd")
    vms = (VmSettings("ada", "pv", 16 << 20, 300, cmdline="workload=spin"), VmSettings("tux", "linux", 128 << 20, console="virtio"))
    files = {"ada": GuestFiles(kernel), "tux": GuestFiles(kernel, initrd)}
    archive = bundle.encode(Settings(vms, memory_limit=64 << 20), files, end_auto=True, attach=True)

    table, *rest = newc.read(archive)
    assert table.name == abi.BUNDLE_CONFIG_MEMBER
    assert [member.data for member in rest] == [b"kernel", b"initrd"]
    map_memory(BASE, bytearray(table.data))
    try:
        header = at(abi.BundleHeader, BASE)
        assert (header.magic, header.version) == (abi.BUNDLE_MAGIC, abi.ABI_VERSION)
        assert header.flags == abi.BUNDLE_END_AUTO | abi.BUNDLE_ATTACH
        assert (header.vm_count, header.vm_config_size, header.memory_limit) == (2, sizeof(abi.VmConfig), 64 << 20)
        assert len(table.data) == sizeof(abi.BundleHeader) + 2 * sizeof(abi.VmConfig)
        ada, tux = (at(abi.VmConfig, BASE + sizeof(abi.BundleHeader) + index * sizeof(abi.VmConfig)) for index in range(2))
        assert (text(ada.name), ada.kind, ada.weight, ada.memory_bytes) == ("ada", abi.VM_KIND_PV, 300, 16 << 20)
        assert (text(ada.cmdline), text(ada.initrd), ada.vcpu_count) == ("workload=spin", "", 1)
        assert (text(tux.name), tux.kind) == ("tux", abi.VM_KIND_LINUX)
        assert (ada.flags, tux.flags) == (0, abi.VM_VIRTIO_CONSOLE)
        assert (text(tux.kernel), text(tux.initrd)) == (rest[0].name, rest[1].name)
        assert text(ada.kernel) == text(tux.kernel)
    finally:
        unmap_memory(BASE)


def test_text_that_does_not_fit_is_refused() -> None:
    config = abi.VmConfig()
    with pytest.raises(ValueError, match="31 fit"):
        bundle.put_text(config.name, "n" * 32)
