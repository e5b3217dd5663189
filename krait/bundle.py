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
from krait.disks import SECTOR, VmDisk


@dataclass(frozen=True)
class GuestFiles:
    """What a VM boots: a kernel, and an initial file system for Linux."""

    kernel: Path
    initrd: Path | None = None


KINDS = {"pv": abi.VM_KIND_PV, "linux": abi.VM_KIND_LINUX, "multiboot": abi.VM_KIND_MULTIBOOT}


def encode(settings: Settings, files: dict[str, GuestFiles], end_auto: bool, attach: bool = False) -> bytes:
    """The bundle of `settings`, `files` by VM name. `end_auto`: the machine powers off when the last VM has ended;
    `attach`: the first VM has the operator's keys from its start."""
    members: dict[Path, newc.Member] = {}
    table = _header(settings, (abi.BUNDLE_END_AUTO if end_auto else 0) | (abi.BUNDLE_ATTACH if attach else 0))
    for vm in settings.vms:
        guest = files[vm.name]
        kernel = _member(members, guest.kernel)
        initrd = _member(members, guest.initrd) if guest.initrd is not None else ""
        table += _vm_config(vm, kernel, initrd, [_member(members, module.file) for module in vm.modules])
    tables = [newc.Member(abi.BUNDLE_CONFIG_MEMBER, table)]
    if settings.disks:
        tables.append(newc.Member(abi.BUNDLE_DISKS_MEMBER, _disks(settings, members)))
    return newc.write([*tables, *members.values()])


def _member(members: dict[Path, newc.Member], path: Path) -> str:
    """The name of the member that holds `path`, added when it is new; each file travels once."""
    if path not in members:
        name = path.name.encode("ascii", "replace").decode()  # the number tells members apart
        members[path] = newc.Member(f"{len(members)}-{name}"[:63], path.read_bytes())
    return members[path].name


def _header(settings: Settings, flags: int) -> bytes:
    header = abi.BundleHeader()
    header.magic = abi.BUNDLE_MAGIC
    header.version = abi.ABI_VERSION
    header.flags = flags
    header.vm_count = len(settings.vms)
    header.vm_config_size = sizeof(abi.VmConfig)
    header.memory_limit = settings.memory_limit
    return bytes_of(header)


def _vm_config(vm: VmSettings, kernel: str, initrd: str, modules: list[str]) -> bytes:
    config = abi.VmConfig()
    config.kind = KINDS[vm.kind]
    config.weight = vm.weight
    config.memory_bytes = vm.memory
    config.vcpu_count = vm.vcpus
    config.cap_percent, config.cap_period_ms = vm.limits.cap, vm.limits.cap_period
    config.reserved_percent, config.cpus = vm.limits.reserve, vm.limits.cpus
    for index, cpu in enumerate(vm.limits.pins):
        config.pins[index] = cpu + 1
    config.flags = abi.VM_VIRTIO_CONSOLE if vm.console == "virtio" else 0
    config.reboots = abi.REBOOTS_UNLIMITED if vm.reboots is None else vm.reboots
    for target, text in ((config.name, vm.name), (config.kernel, kernel), (config.initrd, initrd), (config.cmdline, vm.cmdline)):
        put_text(target, text)
    config.module_count = len(modules)
    for index, (member, module) in enumerate(zip(modules, vm.modules, strict=True)):
        put_text(config.modules[index].file, member)
        put_text(config.modules[index].text, module.text)
    return bytes_of(config)


def _disks(settings: Settings, members: dict[Path, newc.Member]) -> bytes:
    """The member that tells of disks; images of disks in memory become members too."""
    memory = [disk for disk in settings.disks if disk.bus == "memory"]
    header = abi.DisksHeader()
    header.magic = abi.DISKS_MAGIC
    header.version = abi.ABI_VERSION
    header.ram_count = len(memory)
    header.ram_config_size = sizeof(abi.RamDiskConfig)
    header.disk_count = sum(len(vm.disks) for vm in settings.vms)
    header.disk_config_size = sizeof(abi.DiskConfig)
    data = bytes_of(header)
    for disk in memory:
        ram = abi.RamDiskConfig()
        put_text(ram.name, disk.name)
        if disk.image is not None and disk.image.is_file():
            put_text(ram.image, _member(members, disk.image))
        ram.sectors = disk.size // SECTOR
        data += bytes_of(ram)
    for index, vm in enumerate(settings.vms):
        data += b"".join(_disk_config(index, disk) for disk in vm.disks)
    return data


def _disk_config(vm: int, disk: VmDisk) -> bytes:
    config = abi.DiskConfig()
    config.vm = vm
    config.flags = abi.DISK_READ_ONLY if disk.read_only else 0
    if disk.overlay_start is not None or disk.overlay_partition:
        config.flags |= abi.DISK_OVERLAY_STORED | (abi.DISK_OVERLAY_KEPT if disk.keep else 0)
    put_text(config.name, disk.name)
    put_text(config.host, disk.disk)
    config.partition = disk.partition
    config.first = disk.start // SECTOR
    config.sectors = disk.size // SECTOR
    config.overlay_bytes = disk.overlay
    config.overlay_first = (disk.overlay_start or 0) // SECTOR
    config.overlay_partition = disk.overlay_partition
    config.requests_a_second = disk.requests_a_second
    config.bytes_a_second = disk.bytes_a_second
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
