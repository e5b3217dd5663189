"""The bundle: the one file that carries guests and their configuration to the hypervisor.

A newc archive. Its member `krait.config` is a BundleHeader and one VmConfig for each VM, laid out as
`hypervisor/abi.py` says; kernels and initial file systems follow as members that those tables name.
"""

from dataclasses import dataclass
from pathlib import Path

from hypervisor import abi
from hypervisor.lang import address, read_memory, sizeof
from krait import newc
from krait.config import Settings, VmSettings


@dataclass(frozen=True)
class GuestFiles:
    """What a VM boots: a kernel, and an initial file system for Linux."""

    kernel: Path
    initrd: Path | None = None


KINDS = {"pv": abi.VM_KIND_PV, "linux": abi.VM_KIND_LINUX}


def encode(settings: Settings, files: dict[str, GuestFiles], end_auto: bool) -> bytes:
    """The bundle of `settings`, `files` by VM name. `end_auto`: the machine powers off when the last VM has ended."""
    members: dict[Path, newc.Member] = {}
    table = _header(settings, end_auto)
    for vm in settings.vms:
        guest = files[vm.name]
        kernel = _member(members, guest.kernel)
        initrd = _member(members, guest.initrd) if guest.initrd is not None else ""
        table += _vm_config(vm, kernel, initrd)
    return newc.write([newc.Member(abi.BUNDLE_CONFIG_MEMBER, table), *members.values()])


def _member(members: dict[Path, newc.Member], path: Path) -> str:
    """The name of the member that holds `path`, added when it is new; each file travels once."""
    if path not in members:
        members[path] = newc.Member(f"{len(members)}-{path.name}"[:63], path.read_bytes())
    return members[path].name


def _header(settings: Settings, end_auto: bool) -> bytes:
    header = abi.BundleHeader()
    header.magic = abi.BUNDLE_MAGIC
    header.version = abi.ABI_VERSION
    header.flags = abi.BUNDLE_END_AUTO if end_auto else 0
    header.vm_count = len(settings.vms)
    header.vm_config_size = sizeof(abi.VmConfig)
    header.memory_limit = settings.memory_limit
    return bytes_of(header)


def _vm_config(vm: VmSettings, kernel: str, initrd: str) -> bytes:
    config = abi.VmConfig()
    config.kind = KINDS[vm.kind]
    config.weight = vm.weight
    config.memory_bytes = vm.memory
    config.vcpu_count = vm.vcpus
    config.reboots = abi.REBOOTS_UNLIMITED if vm.reboots is None else vm.reboots
    for target, text in ((config.name, vm.name), (config.kernel, kernel), (config.initrd, initrd), (config.cmdline, vm.cmdline)):
        put_text(target, text)
    return bytes_of(config)


def bytes_of(struct: object) -> bytes:
    """The bytes of one struct of the subset."""
    size = sizeof(type(struct))
    return read_memory(address(struct), size).to_bytes(size, "little")


def put_text(target: list[int], text: str) -> None:
    """Store `text` NUL-terminated in a fixed array of bytes; ValueError when it does not fit."""
    data = text.encode("ascii")
    if len(data) >= len(target):
        raise ValueError(f"{text!r} has {len(data)} bytes; {len(target) - 1} fit")
    for index, byte in enumerate(data):
        target[index] = byte
