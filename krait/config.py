"""VM configuration: a TOML file of `[[vm]]` tables, read and checked in full before anything is built or booted.

Each refusal names file, line and reason; all that is wrong in one file is reported at once.
"""

import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from hypervisor import abi, model
from hypervisor.sched import limits
from hypervisor.block.model import DISK_NAME_BYTES, DISKS_A_VM, MAX_HOST_DISKS
from krait.disks import BUSES, HostDisk, VmDisk
from krait.outcome import ExitCode, KraitError
from krait.tomllines import Lines, find_lines

VmKind = Literal["pv", "linux", "multiboot"]
Protocol = Literal["linux64", "pvh"]
ConsoleKind = Literal["uart", "virtio"]

SIZE = re.compile(r"^([1-9][0-9]*) ?(KiB|MiB|GiB)$")
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
NAME = re.compile(r"^[a-z0-9][a-z0-9_-]*$")
PAGE = 4096
CMDLINE_BYTES = 1024
WEIGHTS = (1, 10_000)
MOST_REBOOTS = 1_000_000
LEAST_MEMORY = {"pv": 256 << 10, "linux": 2 << 20, "multiboot": 2 << 20}
HOST_MEMORY = 256 << 20
"""What the machine of a single Linux guest has beyond the guest's memory: the hypervisor, and the bundle."""

DEFAULT_MEMORY = {"pv": "16MiB", "linux": "128MiB", "multiboot": "16MiB"}
FAST_BOOT = "cryptomgr.notests initcall_blacklist=load_system_certificate_list,trace_eval_init,init_kprobe_trace"
"""Linux leaves out self-tests, certificates and tracing events: half of a boot on Bochs (docs/linux-guests.md)."""

SHELL_CMDLINE = f"console=ttyS0 quiet panic=-1 {FAST_BOOT}"
VIRTIO_CONSOLE = "console=hvc0"
"""The word for a VM of `console = "virtio"`; behind the UART, which has what comes before the driver is there."""

DEFAULT_LINUX_CMDLINE = f"{SHELL_CMDLINE} krait.end=poweroff"

Value = str | int | float | bool | list[object] | dict[str, object]


class ConfigError(KraitError):
    """What is wrong in a configuration, one `file:line: reason` a line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems), ExitCode.USAGE)


@dataclass(frozen=True)
class Module:
    """A Multiboot module: its file, and the text that the kernel is given with it."""

    file: Path
    text: str


@dataclass(frozen=True)
class Limits:
    """Of CPU time: `cap` and `reserve` in percent of a CPU (0: none), the cap's period in ms, `cpus` one bit a host CPU (0: all);
    `pins`: the host CPU that each vCPU is pinned to, as far as there are any."""

    cap: int = 0
    cap_period: int = limits.PERIOD_MS
    reserve: int = 0
    cpus: int = 0
    pins: tuple[int, ...] = ()


@dataclass(frozen=True)
class VmSettings:
    """One VM. `memory` is in bytes. `reboots`: resets that start it again; None: all. `kernel` and `initrd` are None where Krait's own are meant. `memory_line` is where the
    file speaks of the memory (`file:line`), for what can be told only when the kernel is known."""

    name: str
    kind: VmKind
    memory: int
    weight: int = 100
    vcpus: int = 1
    reboots: int | None = None
    cmdline: str = ""
    kernel: Path | None = None
    boot: Protocol = "linux64"
    console: ConsoleKind = "uart"
    initrd: Path | None = None
    modules: tuple[Module, ...] = ()
    memory_line: str = ""
    disks: tuple[VmDisk, ...] = ()
    limits: Limits = Limits()


@dataclass(frozen=True)
class Settings:
    """A whole configuration. `memory_limit`: bytes that all guests together may hold, 0: all there is."""

    vms: tuple[VmSettings, ...]
    memory_limit: int = 0
    machine_memory: int | None = None
    machine_cpus: int | None = None
    disks: tuple[HostDisk, ...] = ()


@dataclass
class _Reader:
    """Takes one table apart, noting what is wrong with the line it stands on."""

    source: str
    lines: Lines
    problems: list[tuple[int, str]] = field(default_factory=list)

    def refuse(self, where: tuple[str | int, ...], reason: str) -> None:
        self.problems.append((self.lines.of(where), reason))

    def unknown(self, where: tuple[str | int, ...], table: dict[str, object], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                self.refuse((*where, key), f"unknown key '{key}'; known here: {', '.join(known)}")

    def text(self, where: tuple[str | int, ...], value: object, limit: int) -> str:
        """A string of ASCII without line ends, at most `limit` bytes with its terminating NUL."""
        if not isinstance(value, str):
            self.refuse(where, f"'{where[-1]}' must be a string, such as \"…\"")
            return ""
        if not value.isascii() or not value.isprintable():
            self.refuse(where, f"'{where[-1]}' must be printable ASCII")
        elif len(value) >= limit:
            self.refuse(where, f"'{where[-1]}' has {len(value)} bytes; at most {limit - 1} fit")
        return value

    def number(self, where: tuple[str | int, ...], value: object, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(where, f"'{where[-1]}' must be a whole number")
            return low
        if not low <= value <= high:
            self.refuse(where, f"'{where[-1]}' is {value}; it must be from {low} to {high}")
            return low
        return value

    def size(self, where: tuple[str | int, ...], value: object, minimum: int) -> int:
        found = SIZE.match(value) if isinstance(value, str) else None
        if found is None:
            self.refuse(where, f"'{where[-1]}' must be a size such as \"16MiB\" (KiB, MiB or GiB)")
            return minimum
        size = int(found[1]) * UNITS[found[2]]
        if size % PAGE:
            self.refuse(where, f"'{where[-1]}' must be a multiple of 4KiB")
        elif not minimum <= size < 1 << 40:
            self.refuse(where, f"'{where[-1]}' is {value}; it must be from {minimum >> 10}KiB to 1023GiB")
        return size

    def path(self, where: tuple[str | int, ...], value: str, folder: Path) -> Path | None:
        """A file name as the file gives it, whether or not there is such a file."""
        try:
            return folder / Path(value).expanduser()
        except RuntimeError:
            self.refuse(where, f"'{where[-1]}': there is no home folder for {value}")
            return None

    def file(self, where: tuple[str | int, ...], value: object, folder: Path) -> Path | None:
        if not isinstance(value, str):
            self.refuse(where, f"'{where[-1]}' must be a file name, such as \"vmlinuz\"")
            return None
        path = self.path(where, value, folder)
        if path is not None and not path.is_file():
            self.refuse(where, f"'{where[-1]}': there is no file {path}")
        return path


    def flag(self, where: tuple[str | int, ...], value: object) -> bool:
        if not isinstance(value, bool):
            self.refuse(where, f"'{where[-1]}' must be true or false")
        return value is True


TOP_KEYS = ("machine", "vm", "disk")
MACHINE_KEYS = ("memory", "memory_limit", "cpus")
MOST_CPUS = 255
"""Host CPUs that an emulator can be asked for; the hypervisor starts model.MAX_CPUS of them."""
VM_KEYS = ("name", "kind", "memory", "weight", "vcpus", "reboots", "cmdline", "workload", "kernel", "boot", "console", "initrd", "modules", "disk",
           "cap", "cap_period", "reserve", "cpus", "pins")
DISK_KEYS = ("name", "bus", "image", "size", "requests_per_second")
VM_DISK_KEYS = ("name", "disk", "partition", "start", "size", "read_only", "overlay", "overlay_start", "overlay_partition", "keep",
                "requests_per_second", "bytes_per_second")  # fmt: skip


def load(path: Path) -> Settings:
    """Read and check the file; ConfigError with every problem in it, KraitError USAGE when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise KraitError(f"{path}: {error.strerror}", ExitCode.USAGE) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([f"{path}:{line}: not UTF-8"]) from error
    return parse(text, str(path), path.parent)


def parse(text: str, source: str, folder: Path) -> Settings:
    """Check the TOML in `text`; `source` names it in messages, relative file names are below `folder`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{source}:{_decode_error(str(error), text)}"]) from error
    reader = _Reader(source, find_lines(text))
    reader.unknown((), document, TOP_KEYS)
    machine_memory, memory_limit, cpus = _machine(reader, document.get("machine", {}))
    disks = _disks(reader, document.get("disk", []), folder)
    settings = Settings(_vms(reader, document.get("vm"), folder), memory_limit, machine_memory, cpus, disks)
    _check_vm_disks(reader, settings)
    if reader.problems:
        raise ConfigError([f"{source}:{line}: {reason}" for line, reason in sorted(reader.problems)])
    return settings


def one_linux(source: str, table: dict[str, object]) -> Settings:
    """One Linux guest from the keys of a `[[vm]]` table; `source` names them in messages, file names are relative to the
    working directory. The machine gets room for it."""
    reader = _Reader(source, Lines({}))
    vm = _vm(reader, ("vm", 0), {"name": "linux", "kind": "linux", **table}, Path())
    if reader.problems:
        raise ConfigError([f"{source}: {reason}" for _, reason in reader.problems])
    vm = replace(vm, memory_line=source)
    return Settings((vm,), machine_memory=-(-vm.memory >> 20 << 20) + HOST_MEMORY)


def _decode_error(message: str, text: str) -> str:
    """`line: reason` from tomllib's `reason (at line n, column m)`."""
    found = re.match(r"(.*) \(at line (\d+), column \d+\)$", message)
    return f"{found[2]}: {found[1]}" if found else f"{text.count(chr(10)) + 1}: {message}"


def _machine(reader: _Reader, table: object) -> tuple[int | None, int, int | None]:
    if not isinstance(table, dict):
        reader.refuse(("machine",), "'machine' must be a table: [machine]")
        return None, 0, None
    reader.unknown(("machine",), table, MACHINE_KEYS)
    memory, limit = None, 0
    if "memory" in table:
        memory = reader.size(("machine", "memory"), table["memory"], 64 << 20)
        if memory % (1 << 20):
            reader.refuse(("machine", "memory"), "'memory' of the machine must be a multiple of 1MiB")
    if "memory_limit" in table:
        limit = reader.size(("machine", "memory_limit"), table["memory_limit"], 1 << 20)
    cpus = reader.number(("machine", "cpus"), table["cpus"], 1, MOST_CPUS) if "cpus" in table else None
    return memory, limit, cpus


def _vms(reader: _Reader, tables: object, folder: Path) -> tuple[VmSettings, ...]:
    if not isinstance(tables, list) or not tables:
        reader.refuse(("vm",), "no VM is described; each is a table: [[vm]]")
        return ()
    if len(tables) > model.MAX_VMS:
        reader.refuse(("vm", model.MAX_VMS), f"at most {model.MAX_VMS} VMs are possible")
    vms: list[VmSettings] = []
    for index, table in enumerate(tables):
        if not isinstance(table, dict):
            reader.refuse(("vm",), "each VM is a table: [[vm]]")
            continue
        vm = _vm(reader, ("vm", index), table, folder)
        if any(vm.name == other.name for other in vms):
            reader.refuse(("vm", index, "name"), f"the name '{vm.name}' is taken by another VM")
        vms.append(vm)
    return tuple(vms)


def _vm(reader: _Reader, where: tuple[str | int, ...], table: dict[str, object], folder: Path) -> VmSettings:
    reader.unknown(where, table, VM_KEYS)
    for key in ("name", "kind"):
        if key not in table:
            reader.refuse(where, f"this VM has no '{key}'")
    name = reader.text((*where, "name"), table.get("name", "unnamed"), model.NAME_BYTES)
    if name and not NAME.match(name):
        reader.refuse((*where, "name"), "'name' must be made of a-z, 0-9, '-' and '_', the first a letter or digit")
    kind = _kind(reader, (*where, "kind"), table.get("kind", "pv"))
    if kind == "multiboot" and "kernel" not in table:
        reader.refuse(where, "a VM of kind = \"multiboot\" needs a 'kernel'")
    return VmSettings(
        name=name,
        kind=kind,
        memory=reader.size((*where, "memory"), table.get("memory", DEFAULT_MEMORY[kind]), LEAST_MEMORY[kind]),
        weight=reader.number((*where, "weight"), table.get("weight", 100), *WEIGHTS),
        vcpus=reader.number((*where, "vcpus"), table.get("vcpus", 1), 1, model.MAX_VCPUS_PER_VM),
        reboots=reader.number((*where, "reboots"), table["reboots"], 0, MOST_REBOOTS) if "reboots" in table else None,
        cmdline=_cmdline(reader, where, table, kind),
        kernel=reader.file((*where, "kernel"), table["kernel"], folder) if "kernel" in table else None,
        boot=_protocol(reader, where, table, kind),
        console=_console(reader, where, table, kind),
        initrd=_initrd(reader, where, table, kind, folder),
        modules=_modules(reader, (*where, "modules"), table["modules"], kind, folder) if "modules" in table else (),
        memory_line=f"{reader.source}:{reader.lines.of((*where, 'memory'))}",
        limits=_limits(reader, where, table),
        disks=_vm_disks(reader, (*where, "disk"), table.get("disk", [])),
    )


def _limits(reader: _Reader, where: tuple[str | int, ...], table: dict[str, object]) -> Limits:
    most = 100 * model.MAX_CPUS
    cap = reader.number((*where, "cap"), table["cap"], 1, most) if "cap" in table else 0
    if "cap_period" in table and "cap" not in table:
        reader.refuse((*where, "cap_period"), "'cap_period' is of a 'cap', and there is none")
    period = reader.number((*where, "cap_period"), table.get("cap_period", limits.PERIOD_MS), limits.PERIOD_LEAST_MS, limits.PERIOD_MOST_MS)
    reserve = reader.number((*where, "reserve"), table.get("reserve", 0), 0, most)
    if cap and reserve > cap:
        reader.refuse((*where, "reserve"), f"'reserve' is {reserve}, above the 'cap' of {cap}")
    cpus = 0
    for cpu in _host_cpus(reader, where, table, "cpus"):
        cpus |= 1 << cpu
    pins = _host_cpus(reader, where, table, "pins")
    vcpus = table.get("vcpus", 1)
    if isinstance(vcpus, int) and len(pins) > vcpus:
        reader.refuse((*where, "pins"), f"'pins' names {len(pins)} host CPUs, and there are {vcpus} vCPUs")
    if reserve and pins:
        reader.refuse((*where, "pins"), "a VM that has a reservation has no pinned vCPUs")
    return Limits(cap, period, reserve, cpus, tuple(pins))


def _host_cpus(reader: _Reader, where: tuple[str | int, ...], table: dict[str, object], key: str) -> list[int]:
    chosen = table.get(key, [])
    if not isinstance(chosen, list) or (key in table and not chosen):
        reader.refuse((*where, key), f"'{key}' must be a list of host CPUs such as [0, 1]")
        return []
    if len(chosen) > model.MAX_VCPUS_PER_VM:
        reader.refuse((*where, key), f"'{key}' names {len(chosen)} host CPUs; {model.MAX_VCPUS_PER_VM} at most")
        return []
    return [reader.number((*where, key), cpu, 0, model.MAX_CPUS - 1) for cpu in chosen]


def _kind(reader: _Reader, where: tuple[str | int, ...], value: object) -> VmKind:
    match value:
        case "pv" | "linux" | "multiboot":
            return value
    reader.refuse(where, f"'kind' is {value!r}; it must be \"pv\", \"linux\" or \"multiboot\"")
    return "pv"


def _cmdline(reader: _Reader, where: tuple[str | int, ...], table: dict[str, object], kind: VmKind) -> str:
    """The kernel's command line; a PV guest's workload goes in front of it, as its first word."""
    default = DEFAULT_LINUX_CMDLINE if kind == "linux" else ""
    if default and table.get("console") == "virtio":
        default = f"{default} {VIRTIO_CONSOLE}"
    cmdline = reader.text((*where, "cmdline"), table.get("cmdline", default), CMDLINE_BYTES)
    if "workload" not in table:
        return cmdline
    if kind != "pv":
        reader.refuse((*where, "workload"), "'workload' is for kind = \"pv\"; other guests take 'cmdline'")
    workload = reader.text((*where, "workload"), table["workload"], CMDLINE_BYTES)
    joined = f"workload={workload} {cmdline}".rstrip()
    if len(joined) >= CMDLINE_BYTES:
        reader.refuse((*where, "workload"), f"'workload' and 'cmdline' have {len(joined)} bytes; {CMDLINE_BYTES - 1} fit")
    return joined


def _protocol(reader: _Reader, where: tuple[str | int, ...], table: dict[str, object], kind: VmKind) -> Protocol:
    """How a Linux kernel is entered."""
    if "boot" in table and kind != "linux":
        reader.refuse((*where, "boot"), "'boot' is for kind = \"linux\"")
    match table.get("boot", "linux64"):
        case "linux64":
            return "linux64"
        case "pvh":
            return "pvh"
    reader.refuse((*where, "boot"), f"'boot' is {table['boot']!r}; it must be \"linux64\" or \"pvh\"")
    return "linux64"


def _console(reader: _Reader, where: tuple[str | int, ...], table: dict[str, object], kind: VmKind) -> ConsoleKind:
    """What a stock system prints on and reads from."""
    if "console" in table and kind == "pv":
        reader.refuse((*where, "console"), "'console' is not for kind = \"pv\", which has one of its own")
    match table.get("console", "uart"):
        case "uart":
            return "uart"
        case "virtio":
            return "virtio"
    reader.refuse((*where, "console"), f"'console' is {table['console']!r}; it must be \"uart\" or \"virtio\"")
    return "uart"


def _initrd(
    reader: _Reader, where: tuple[str | int, ...], table: dict[str, object], kind: VmKind, folder: Path
) -> Path | None:
    if "initrd" not in table:
        return None
    if kind != "linux":
        reader.refuse((*where, "initrd"), "'initrd' is for kind = \"linux\"")
    return reader.file((*where, "initrd"), table["initrd"], folder)


def _modules(
    reader: _Reader, where: tuple[str | int, ...], value: object, kind: VmKind, folder: Path
) -> tuple[Module, ...]:
    """Strings of a file name and, behind a space, arguments for the kernel to read, as in a GRUB menu."""
    if kind != "multiboot":
        reader.refuse(where, "'modules' is for kind = \"multiboot\"")
    if not isinstance(value, list) or len(value) > abi.MODULES_MOST:
        reader.refuse(where, f"'modules' must be a list of at most {abi.MODULES_MOST} strings, such as [\"initrd.img root=ram\"]")
        return ()
    modules = []
    for item in value:
        text = reader.text(where, item, abi.MODULE_TEXT_BYTES)
        file = reader.file(where, text.partition(" ")[0], folder)
        if file is not None:
            modules.append(Module(file, text))
    return tuple(modules)




def _tables(reader: _Reader, where: tuple[str | int, ...], value: object, most: int) -> list[dict[str, object]]:
    """An array of tables, at most `most`."""
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        reader.refuse(where, f"'{where[-1]}' must be tables: [[{'.'.join(str(part) for part in where if isinstance(part, str))}]]")
        return []
    if len(value) > most:
        reader.refuse((*where, most), f"at most {most} of '{where[-1]}' are possible")
    return [table for table in value if isinstance(table, dict)]


def _disk_name(reader: _Reader, where: tuple[str | int, ...], table: dict[str, object], key: str) -> str:
    if key not in table:
        reader.refuse(where, f"this disk has no '{key}'")
    name = reader.text((*where, key), table.get(key, "unnamed"), min(DISK_NAME_BYTES, 21))  # serial numbers have 20 characters
    if name and not NAME.match(name):
        reader.refuse((*where, key), f"'{key}' must be made of a-z, 0-9, '-' and '_', the first a letter or digit")
    return name


def _disks(reader: _Reader, value: object, folder: Path) -> tuple[HostDisk, ...]:
    """`[[disk]]`: what the machine has."""
    disks: list[HostDisk] = []
    for index, table in enumerate(_tables(reader, ("disk",), value, MAX_HOST_DISKS)):
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


def _vm_disks(reader: _Reader, where: tuple[str | int, ...], value: object) -> tuple[VmDisk, ...]:
    """`[[vm.disk]]`: what a VM sees, in this order."""
    disks: list[VmDisk] = []
    for index, table in enumerate(_tables(reader, where, value, DISKS_A_VM)):
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


def _check_vm_disks(reader: _Reader, settings: Settings) -> None:
    """Each names a disk that is there. (An own image of the machine may have others: a disk that is not described here is a mistake.)"""
    names = {disk.name for disk in settings.disks}
    for place, vm in enumerate(settings.vms):
        for index, disk in enumerate(vm.disks):
            if disk.disk not in names:
                reader.refuse(("vm", place, "disk", index, "disk"), f"there is no [[disk]] of the name '{disk.disk}'")
