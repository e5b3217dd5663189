"""The disks of a configuration: `[[disk]]`, what the machine has, and `[[vm.disk]]`, what a VM sees of that."""

from pathlib import Path

from hypervisor.block.model import DISK_NAME_BYTES, DISKS_A_VM, MAX_HOST_DISKS
from krait.config_reader import NAME, PAGE, Reader
from krait.disks import BUSES, HostDisk, VmDisk

DISK_KEYS = ("name", "bus", "image", "size", "requests_per_second")
VM_DISK_KEYS = ("name", "disk", "partition", "start", "size", "read_only", "overlay", "overlay_start", "overlay_partition", "keep",
                "requests_per_second", "bytes_per_second")  # fmt: skip


def _disk_name(reader: Reader, where: tuple[str | int, ...], table: dict[str, object], key: str) -> str:
    if key not in table:
        reader.refuse(where, f"this disk has no '{key}'")
    name = reader.text((*where, key), table.get(key, "unnamed"), min(DISK_NAME_BYTES, 21))  # serial numbers have 20 characters
    if name and not NAME.match(name):
        reader.refuse((*where, key), f"'{key}' must be made of a-z, 0-9, '-' and '_', the first a letter or digit")
    return name


def host_disks(reader: Reader, value: object, folder: Path) -> tuple[HostDisk, ...]:
    """`[[disk]]`: what the machine has."""
    disks: list[HostDisk] = []
    for index, table in enumerate(reader.tables(("disk",), value, MAX_HOST_DISKS)):
        where = ("disk", index)
        reader.unknown(where, table, DISK_KEYS)
        name = _disk_name(reader, where, table, "name")
        bus = next((bus for bus in BUSES if bus == table.get("bus", "virtio")), None)
        if bus is None:
            reader.refuse((*where, "bus"), f"'bus' is {table['bus']!r}; it must be one of {', '.join(BUSES)}")
            continue
        size = reader.size((*where, "size"), table["size"], PAGE) if "size" in table else 0
        image = None
        if "image" in table and size and isinstance(table["image"], str):
            image = reader.path((*where, "image"), table["image"], folder)  # made when there is none
            if image is not None and not image.parent.is_dir():
                reader.refuse((*where, "image"), f"'image': there is no folder {image.parent}")
        elif "image" in table:
            image = reader.file((*where, "image"), table["image"], folder)
        elif not size:
            reader.refuse(where, "this disk has neither 'image' nor 'size'")
        if any(name == other.name for other in disks):
            reader.refuse((*where, "name"), f"the name '{name}' is taken by another disk")
        rate = reader.number((*where, "requests_per_second"), table.get("requests_per_second", 0), 0, 1 << 32)
        disks.append(HostDisk(name, bus, image, size, rate))
    return tuple(disks)


def vm_disks(reader: Reader, where: tuple[str | int, ...], value: object) -> tuple[VmDisk, ...]:
    """`[[vm.disk]]`: what a VM sees, in this order."""
    disks: list[VmDisk] = []
    for index, table in enumerate(reader.tables(where, value, DISKS_A_VM)):
        at = (*where, index)
        reader.unknown(at, table, VM_DISK_KEYS)
        if "partition" in table and ("start" in table or "size" in table):
            reader.refuse((*at, "partition"), "'partition' and 'start' or 'size' exclude each other")
        if "read_only" in table and ("overlay" in table or "overlay_partition" in table):
            reader.refuse((*at, "overlay"), "'overlay' keeps what is written: the disk cannot be 'read_only' too")
        if "overlay_partition" in table and ("overlay" in table or "overlay_start" in table):
            reader.refuse((*at, "overlay_partition"), "'overlay_partition' and 'overlay' or 'overlay_start' exclude each other")
        if "overlay_start" in table and "overlay" not in table:
            reader.refuse((*at, "overlay_start"), "'overlay_start' needs 'overlay', its size")
        if "keep" in table and not ("overlay_start" in table or "overlay_partition" in table):
            reader.refuse((*at, "keep"), "'keep' needs an overlay on the disk: 'overlay_start' or 'overlay_partition'")
        disk = _disk_name(reader, at, table, "disk")

        def size(key: str) -> int:
            return reader.size((*at, key), table[key], PAGE) if key in table else 0

        disks.append(VmDisk(
            name=_disk_name(reader, at, table, "name") if "name" in table else disk,
            disk=disk,
            partition=reader.number((*at, "partition"), table["partition"], 1, 128) if "partition" in table else 0,
            start=size("start"),
            size=size("size"),
            read_only=reader.flag((*at, "read_only"), table.get("read_only", False)),
            overlay=size("overlay"),
            overlay_start=size("overlay_start") if "overlay_start" in table else None,
            overlay_partition=reader.number((*at, "overlay_partition"), table.get("overlay_partition", 0), 0, 128),
            keep=reader.flag((*at, "keep"), table.get("keep", False)),
            requests_a_second=reader.number((*at, "requests_per_second"), table.get("requests_per_second", 0), 0, 1 << 32),
            bytes_a_second=size("bytes_per_second"),
        ))  # fmt: skip
    return tuple(disks)
