"""`krait bench disk`: what a read of 4 KiB costs a Linux guest, in instructions and exits, beside the same kernel and disk without Krait.

Guest, ring, block layer, the hypervisor's driver and back: all of it, on QEMU's virtio disk. Under `-icount shift=0`, where
the TSC moves by one an instruction; time spent idle is taken off by a process that counts it (bench_disk_init.c).
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from krait import bench_linux, config, disks, images, linux_image, newc, paths, progress, tools
from krait.emulator import Emulator, receive
from krait.machine import QEMU_CPU, Machine, Media
from krait.outcome import ExitCode, KraitError

SOURCE = Path(__file__).resolve().parent / "bench_disk_init.c"
DISK_BYTES = 16 << 20
DEPTHS = (1, 32)
PROMISED_EXITS = 0.25
"""Upper bound of exits for each request, 32 in flight; docs/numbers.md says it too."""
SECONDS = 600.0

RESULT = re.compile(r"bench: depth (\d+) requests (\d+) instructions (\d+)")
CMDLINE = "console=ttyS0 quiet reboot=t"


@dataclass(frozen=True)
class Row:
    """One number of requests in flight. Instructions and exits are for each request."""

    depth: int
    requests: int
    direct: int
    guest: int
    ratio: float
    exits: float
    exits_by_cause: dict[str, float]


def measure() -> list[Row]:
    """Build the release image, boot with and without it, and read the numbers; KraitError when one is missing."""
    with paths.claimed(paths.OUT / "run" / "bench-disk") as folder:
        initrd = _initramfs(folder)
        image = folder / "bench.img"
        with image.open("wb") as file:
            file.truncate(DISK_BYTES)
        with progress.stage("bench disk: bare machine"):
            direct = results_of(_bare(folder, initrd, image))
        with progress.stage("bench disk: guest"):
            said, exits = _guest(folder, initrd, image)
        guest = results_of(said)
    rows = []
    for depth in DEPTHS:
        requests, instructions = guest[depth]
        causes = {name: round(count / requests, 4) for name, count in exits[depth].items() if count}
        total = round(sum(exits[depth].values()) / requests, 4)
        rows.append(Row(depth, requests, direct[depth][1] // requests, instructions // requests,
                        round(instructions / direct[depth][1], 3), total, causes))  # fmt: skip
    return rows


def results_of(console: str) -> dict[int, tuple[int, int]]:
    """Requests and instructions by depth, as /init printed them."""
    found = {int(depth): (int(requests), int(instructions)) for depth, requests, instructions in RESULT.findall(console)}
    if set(found) != set(DEPTHS):
        raise KraitError(f"/init printed no number for some depth; the console said:\n{console}")
    return found


def _initramfs(folder: Path) -> Path:
    """The initial file system: /init, the console it prints on, and the kernel's drivers."""
    program = folder / "init"
    done = subprocess.run([tools.require("gcc"), "-O2", "-static", "-o", str(program), str(SOURCE)], capture_output=True, text=True)
    if done.returncode != 0:
        raise KraitError(f"compiling {SOURCE.name} failed:\n{done.stderr.strip()}", ExitCode.BUILD)
    members = [newc.Member(name, mode=newc.S_IFDIR | 0o755) for name in ("dev", "lib", "lib/modules")]
    members.append(newc.Member("dev/console", mode=newc.S_IFCHR | 0o600, device=linux_image.CONSOLE_DEVICE))
    members.append(newc.Member("init", program.read_bytes(), newc.S_IFREG | 0o755))
    return paths.write_whole(folder / "initramfs.cpio", newc.write([*members, *linux_image.module_members()]))


def _bare(folder: Path, initrd: Path, image: Path) -> str:
    """Boot without a hypervisor, until the machine is off; what the console said."""
    command = [tools.require("qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-machine", "pc", "-accel", "tcg"]
    command += ["-cpu", QEMU_CPU, "-m", f"{bench_linux.MEMORY_MIB}M", "-display", "none", "-no-reboot", "-icount", "shift=0"]
    command += ["-serial", "stdio", "-drive", f"file={image},format=raw,if=none,id=disk", "-device", "virtio-blk-pci,drive=disk"]
    command += ["-kernel", str(linux_image.kernel()), "-initrd", str(initrd), "-append", CMDLINE]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise KraitError(f"the bare machine did not end within {SECONDS:g} s", ExitCode.TIMEOUT) from error
    return done.stdout


def _guest(folder: Path, initrd: Path, image: Path) -> tuple[str, dict[int, dict[str, int]]]:
    """Boot as Krait's guest; what the console said, and exits by depth and cause."""
    text = f'[[disk]]\nname = "bench"\nbus = "virtio"\nimage = "{image.name}"\n[[vm]]\nname = "tux"\nkind = "linux"\n'
    text += f'memory = "{bench_linux.MEMORY_MIB}MiB"\ncmdline = "{CMDLINE}"\ninitrd = "{initrd.name}"\n[[vm.disk]]\ndisk = "bench"\n'
    settings = config.parse(text, "bench-disk.toml", folder)
    bundle = images.write_bundle(settings, folder / "bundle.cpio", release=True, end_auto=False)
    machine = Machine("qemu", icount=True, disks=disks.made(settings.disks, folder))
    counts: dict[int, dict[str, int]] = {}
    with tempfile.TemporaryDirectory(dir=folder) as logs, Emulator(machine, Media(images.hypervisor(release=True), bundle), Path(logs)) as emulator:
        emulator.console.settimeout(SECONDS)
        said = ""
        for depth in DEPTHS:
            said, before = _exits_at(emulator, said, f"bench: begin {depth}")
            said, after = _exits_at(emulator, said, f"bench: end {depth}")
            counts[depth] = {cause: after[cause] - before.get(cause, 0) for cause in after}
        said = _read_until(emulator, said, 0, "vm 'tux' switched itself off")
        emulator.console.sendall(b"poweroff\r")
        emulator.wait(SECONDS)
    (folder / "console.log").write_text(said)
    return said, counts


def _exits_at(emulator: Emulator, said: str, marker: str) -> tuple[str, dict[str, int]]:
    """Exits by cause since the VM's start, asked for when the guest has printed a line and rests."""
    said = _read_until(emulator, said, 0, marker)
    emulator.console.sendall(b"info tux\rledger\r")
    place = len(said)
    said = _read_until(emulator, said, place, bench_linux.PROMPT_AGAIN)
    return said, bench_linux.exits_of(said[place:])


def _read_until(emulator: Emulator, said: str, place: int, wanted: str) -> str:
    """Read the console until `wanted` stands behind `place`."""
    try:
        while wanted not in said[place:]:
            data = receive(emulator.console)
            if not data:
                raise KraitError(f"the machine ended before it said {wanted!r}:\n{said}")
            said += data.decode(errors="replace")
    except TimeoutError as error:
        raise KraitError(f"nothing was printed for {SECONDS:g} s:\n{said}", ExitCode.TIMEOUT) from error
    return said
