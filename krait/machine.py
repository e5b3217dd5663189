"""The emulated machines: what one is made of, and the command line that starts it.

QEMU (TCG) gives AMD SVM with nested paging, Bochs gives VT-x with EPT. Both are described by one `Machine`.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from krait import tools
from krait.disks import HostDisk
from krait.outcome import ExitCode, KraitError

EmulatorName = Literal["qemu", "bochs"]
AccelName = Literal["tcg", "kvm"]

QEMU_CPU = "EPYC,-rdseed,-sha-ni,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,-topoext,-nrip-save,-xsavec"
"""EPYC less what TCG lacks: 1 GiB pages, SMEP, SMAP and SVM with NPT, and no warnings at start."""

BOCHS_CPU = "corei7_haswell_4770"
"""VT-x with EPT, VPID, unrestricted guest, preemption timer; boots Linux guests, which later models do not."""

BOCHS_AMD_CPU = "ryzen"
"""SVM on Bochs: it checks a VMCB as strictly as a CPU does, and has what QEMU lacks (next RIP, flush by ASID)."""

BOCHS_IPS = 50_000_000
"""Instructions that make one emulated second on Bochs; also the rate of its TSC on one CPU. About what Bochs does in a
real second, so that limits in milliseconds mean the same there as elsewhere."""

BOCHS_MOST_CPUS = 8
"""What Debian's Bochs is built for."""

BOCHSRC = Path(__file__).resolve().parent / "bochsrc"
"""The settings of Bochs that are the same in every run."""

BOCHS_RC = Path(__file__).resolve().parent / "bochs-debugger.rc"
"""Debugger commands of Bochs: continue, and quit at the magic break that ends a run."""

DEBUG_EXIT_PORT = 0xF4
"""I/O port of QEMU's isa-debug-exit: a write of v ends QEMU with exit status 2 v + 1."""


@dataclass(frozen=True)
class Machine:
    """A machine to boot on; `memory_mib` and `cpus` are the host's, not a guest's."""

    emulator: EmulatorName = "qemu"
    accel: AccelName = "tcg"
    memory_mib: int = 512
    cpus: int = 1
    icount: bool = False
    skip_idle: bool = False
    """With icount: no real time passes while every CPU halts; the clock goes on to the next timer."""

    icount_shift: int = 0
    """With icount: an instruction takes 2^shift ns. 0 counts exactly; 4 lets ten seconds pass in 625 M instructions."""

    iso: bool = False
    gdb: bool = False
    amd: bool = False
    """Bochs with SVM in place of VT-x, to check the one emulator by the other."""
    channel: bool = False
    """Give it a second serial port, for the machine channel (docs/channel.md)."""
    disks: tuple[HostDisk, ...] = ()
    """What the emulator attaches; those in the hypervisor's memory are left out."""
    fault_rules: Path | None = None
    """QEMU's blkdebug configuration, for every disk: errors where it says."""

    def check(self) -> None:
        """Refuse (KraitError USAGE) what the emulator cannot do."""
        if self.emulator == "bochs" and self.cpus > BOCHS_MOST_CPUS:
            raise KraitError(f"--cpus {self.cpus}: Bochs has {BOCHS_MOST_CPUS} at most", ExitCode.USAGE)
        if self.emulator == "bochs":
            for disk in self.disks:
                if disk.bus not in ("memory", "ata"):
                    raise KraitError(f"disk '{disk.name}': Bochs has \"ata\" disks only", ExitCode.USAGE)
                if disk.requests_a_second:
                    raise KraitError(f"disk '{disk.name}': 'requests_per_second' works with --emulator qemu only", ExitCode.USAGE)
            for wanted, option in ((self.accel == "kvm", "--accel kvm"), (self.gdb, "--gdb"), (self.icount, "--icount")):
                if wanted:
                    raise KraitError(f"{option} works with --emulator qemu only", ExitCode.USAGE)
        if self.accel == "kvm" and self.icount:
            raise KraitError("--icount counts translated instructions: it needs --accel tcg", ExitCode.USAGE)
        places = len(BOCHS_IDE) if self.emulator == "bochs" or self.iso else len(QEMU_IDE)
        if sum(disk.bus == "ata" for disk in self.disks) > places:
            raise KraitError(f"this machine has places for {places} \"ata\" disks", ExitCode.USAGE)

    @property
    def vendor(self) -> str:
        """Whose virtualization the hypervisor finds there; under KVM it is the host CPU's."""
        if self.emulator == "bochs":
            return "amd" if self.amd else "intel"
        return "amd" if self.accel == "tcg" else host_vendor()


def host_vendor() -> str:
    """`amd` or `intel`, from this machine's own CPU."""
    return "amd" if "AuthenticAMD" in Path("/proc/cpuinfo").read_text() else "intel"


@dataclass(frozen=True)
class Media:
    """What is booted: the hypervisor's ELF file, the bundle of guests, and the ISO of both when one was made."""

    kernel: Path
    bundle: Path
    iso: Path | None = None


@dataclass(frozen=True)
class Links:
    """How the outside reaches the machine. `console` is a Unix socket path (QEMU) or host:port (Bochs) that *we*
    listen on, or None: then the first serial port goes to the emulator's standard output. `channel`: the same for the second
    port, which is not there for None."""

    console: str | None = None
    channel: str | None = None
    qmp: Path | None = None
    gdb: Path | None = None
    log: Path = Path("bochs.log")


def command_line(machine: Machine, media: Media, links: Links) -> list[str]:
    """The emulator's arguments, program first."""
    machine.check()
    return _bochs(machine, media, links) if machine.emulator == "bochs" else _qemu(machine, media, links)


def environment(machine: Machine) -> dict[str, str]:
    """What the emulator needs in its environment: Bochs draws its screen on a terminal of a known kind."""
    return {"TERM": "xterm"} if machine.emulator == "bochs" else {}


def typed(machine: Machine, command: list[str]) -> str:
    """The command line as one would type it."""
    settings = [f"{name}={value}" for name, value in environment(machine).items()]
    return " ".join([*settings, shlex.join(command)])


def _qemu(machine: Machine, media: Media, links: Links) -> list[str]:
    command = [tools.require("qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-machine", "pc"]
    command += ["-accel", machine.accel, "-cpu", QEMU_CPU if machine.accel == "tcg" else "host"]
    command += ["-m", f"{machine.memory_mib}M", "-smp", str(machine.cpus)]
    command += ["-display", "none", "-no-reboot"]
    command += ["-device", f"isa-debug-exit,iobase={DEBUG_EXIT_PORT:#x},iosize=4"]
    if links.console is None:
        command += ["-serial", "stdio"]
    else:
        command += ["-chardev", f"socket,id=com1,path={_qemu_quoted(links.console)}", "-serial", "chardev:com1"]
    if links.channel is not None:
        command += ["-chardev", f"socket,id=com2,path={_qemu_quoted(links.channel)}", "-serial", "chardev:com2"]
    if links.qmp is not None:
        command += ["-qmp", f"unix:{_qemu_quoted(str(links.qmp))},server=on,wait=off"]
    if links.gdb is not None:
        command += ["-gdb", f"unix:{_qemu_quoted(str(links.gdb))},server=on,wait=off", "-S"]
    if machine.icount:
        command += ["-icount", f"shift={machine.icount_shift}" + (",sleep=off" if machine.skip_idle else "")]
    if machine.iso:
        command += ["-drive", f"file={_qemu_quoted(str(media.iso))},media=cdrom,format=raw", "-boot", "d"]
    else:
        command += ["-kernel", str(media.kernel), "-initrd", _qemu_quoted(str(media.bundle))]
    places = iter(QEMU_IDE)
    for number, disk in enumerate(attached(machine)):
        command += _qemu_disk(machine, disk, number, next(places) if disk.bus == "ata" else "")
    return command


def attached(machine: Machine) -> list[HostDisk]:
    """The disks that the emulator has."""
    return [disk for disk in machine.disks if disk.bus != "memory"]


QEMU_DISKS = {
    "virtio": "virtio-blk-pci,disable-legacy=on,drive={id},serial={name}",
    "nvme": "nvme,drive={id},serial={name}",
    "ata": "ide-hd,bus={ide},drive={id},serial={name}",
}
"""Devices of QEMU by bus."""

QEMU_IDE = ("ide.0,unit=0", "ide.0,unit=1", "ide.1,unit=1", "ide.1,unit=0")
BOCHS_IDE = ("ata1-master", "ata1-slave", "ata0-slave")
"""Places of ATA disks, in the order in which they are given away; the CD of an ISO takes another."""


def _qemu_disk(machine: Machine, disk: HostDisk, place: int, ide: str) -> list[str]:
    """One disk: the file, and the device in front of it."""
    file = _qemu_quoted(str(disk.image))
    drive = f"if=none,id=disk{place},format=raw,discard=unmap,cache=writeback,"
    if disk.requests_a_second:
        drive += f"throttling.iops-total={disk.requests_a_second},"
    if machine.fault_rules is not None:
        drive += f"file.driver=blkdebug,file.config={_qemu_quoted(str(machine.fault_rules))},file.image.filename={file}"
    else:
        drive += f"file={file}"
    return ["-drive", drive, "-device", QEMU_DISKS[disk.bus].format(id=f"disk{place}", name=disk.name, ide=ide)]


def _qemu_quoted(value: str) -> str:
    """QEMU separates options by commas; a comma inside a value is doubled."""
    return value.replace(",", ",,")


def _bochs(machine: Machine, media: Media, links: Links) -> list[str]:
    serial = "mode=file, dev=/dev/stdout" if links.console is None else f"mode=socket-client, dev={links.console}"
    lines = [
        f"megs: {machine.memory_mib}",
        f"cpu: model={BOCHS_AMD_CPU if machine.amd else BOCHS_CPU}, count={machine.cpus}, quantum=16, ips={BOCHS_IPS}, "
        "reset_on_triple_fault=0, ignore_bad_msrs=1",
        f'ata0-master: type=cdrom, path="{media.iso}", status=inserted',
        f"com1: enabled=1, {serial}",
        *([f"com2: enabled=1, mode=socket-client, dev={links.channel}"] if links.channel is not None else []),
        f"log: {links.log}",
    ]
    for disk, place in zip(attached(machine), BOCHS_IDE):
        lines.append(f'{place}: type=disk, mode=flat, path="{disk.image}", model="{disk.name}"')
    return [tools.require("bochs"), "-q", "-unlock", "-f", str(BOCHSRC), "-rc", str(BOCHS_RC), *lines]
