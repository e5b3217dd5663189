"""VM configuration: a TOML file of `[[vm]]` tables, read and checked in full before anything is built or booted.

Each refusal names file, line and reason; all that is wrong in one file is reported at once.
"""

import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hypervisor import abi, model
from hypervisor.sched import limits
from krait.config_disks import host_disks, vm_disks
from krait.config_reader import NAME, ConfigError, Reader
from krait.disks import HostDisk, VmDisk
from krait.outcome import ExitCode, KraitError
from krait.tomllines import Lines, find_lines

VmKind = Literal["pv", "linux", "multiboot"]
Protocol = Literal["linux64", "pvh"]
ConsoleKind = Literal["uart", "virtio"]

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


TOP_KEYS = ("machine", "vm", "disk")
MACHINE_KEYS = ("memory", "memory_limit", "cpus")
MOST_CPUS = 255
"""Host CPUs that an emulator can be asked for; the hypervisor starts model.MAX_CPUS of them."""
VM_KEYS = ("name", "kind", "memory", "weight", "vcpus", "reboots", "cmdline", "workload", "kernel", "boot", "console", "initrd", "modules", "disk",
           "cap", "cap_period", "reserve", "cpus", "pins")


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
    reader = Reader(source, find_lines(text))
    reader.unknown((), document, TOP_KEYS)
    machine_memory, memory_limit, cpus = _machine(reader, document.get("machine", {}))
    disks = host_disks(reader, document.get("disk", []), folder)
    settings = Settings(_vms(reader, document.get("vm"), folder), memory_limit, machine_memory, cpus, disks)
    _check_vm_disks(reader, settings)
    if reader.problems:
        raise ConfigError([f"{source}:{line}: {reason}" for line, reason in sorted(reader.problems)])
    return settings


def one_linux(source: str, table: dict[str, object]) -> Settings:
    """One Linux guest from the keys of a `[[vm]]` table; `source` names them in messages, file names are relative to the
    working directory. The machine gets room for it."""
    reader = Reader(source, Lines({}))
    vm = _vm(reader, ("vm", 0), {"name": "linux", "kind": "linux", **table}, Path())
    if reader.problems:
        raise ConfigError([f"{source}: {reason}" for _, reason in reader.problems])
    vm = replace(vm, memory_line=source)
    return Settings((vm,), machine_memory=-(-vm.memory >> 20 << 20) + HOST_MEMORY)


def _decode_error(message: str, text: str) -> str:
    """`line: reason` from tomllib's `reason (at line n, column m)`."""
    found = re.match(r"(.*) \(at line (\d+), column \d+\)$", message)
    return f"{found[2]}: {found[1]}" if found else f"{text.count(chr(10)) + 1}: {message}"


def _machine(reader: Reader, table: object) -> tuple[int | None, int, int | None]:
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


def _vms(reader: Reader, tables: object, folder: Path) -> tuple[VmSettings, ...]:
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


def _vm(reader: Reader, where: tuple[str | int, ...], table: dict[str, object], folder: Path) -> VmSettings:
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
        disks=vm_disks(reader, (*where, "disk"), table.get("disk", [])),
    )


def _limits(reader: Reader, where: tuple[str | int, ...], table: dict[str, object]) -> Limits:
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


def _host_cpus(reader: Reader, where: tuple[str | int, ...], table: dict[str, object], key: str) -> list[int]:
    chosen = table.get(key, [])
    if not isinstance(chosen, list) or (key in table and not chosen):
        reader.refuse((*where, key), f"'{key}' must be a list of host CPUs such as [0, 1]")
        return []
    if len(chosen) > model.MAX_VCPUS_PER_VM:
        reader.refuse((*where, key), f"'{key}' names {len(chosen)} host CPUs; {model.MAX_VCPUS_PER_VM} at most")
        return []
    return [reader.number((*where, key), cpu, 0, model.MAX_CPUS - 1) for cpu in chosen]


def _kind(reader: Reader, where: tuple[str | int, ...], value: object) -> VmKind:
    match value:
        case "pv" | "linux" | "multiboot":
            return value
    reader.refuse(where, f"'kind' is {value!r}; it must be \"pv\", \"linux\" or \"multiboot\"")
    return "pv"


def _cmdline(reader: Reader, where: tuple[str | int, ...], table: dict[str, object], kind: VmKind) -> str:
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


def _protocol(reader: Reader, where: tuple[str | int, ...], table: dict[str, object], kind: VmKind) -> Protocol:
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


def _console(reader: Reader, where: tuple[str | int, ...], table: dict[str, object], kind: VmKind) -> ConsoleKind:
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
    reader: Reader, where: tuple[str | int, ...], table: dict[str, object], kind: VmKind, folder: Path
) -> Path | None:
    if "initrd" not in table:
        return None
    if kind != "linux":
        reader.refuse((*where, "initrd"), "'initrd' is for kind = \"linux\"")
    return reader.file((*where, "initrd"), table["initrd"], folder)


def _modules(
    reader: Reader, where: tuple[str | int, ...], value: object, kind: VmKind, folder: Path
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


def _check_vm_disks(reader: Reader, settings: Settings) -> None:
    """Each names a disk that is there. (An own image of the machine may have others: a disk that is not described here is a mistake.)"""
    names = {disk.name for disk in settings.disks}
    for place, vm in enumerate(settings.vms):
        for index, disk in enumerate(vm.disks):
            if disk.disk not in names:
                reader.refuse(("vm", place, "disk", index, "disk"), f"there is no [[disk]] of the name '{disk.disk}'")
