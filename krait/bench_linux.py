"""`krait bench linux`: what a stock kernel's boot costs as a guest, in instructions, beside the same boot on the bare machine.

Same kernel, initial file system, memory and command line; both under QEMU's `-icount shift=0`, where the TSC moves by one
an instruction. /init is one program that prints the TSC. A guest's TSC is 0 at startup_64, its first instruction; on the
bare machine firmware and real-mode code come before that, and a third run measures them: a copy of the kernel that
reports the TSC in place of its code there. The number is printed on the serial port, whatever the console is: Debian's kernel has the virtio
console's driver as a module, so that with it as the only console nothing is printed before /init.
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from krait import config, images, linux_image, newc, paths, progress, tools
from krait.config import ConsoleKind
from krait.emulator import Emulator, receive
from krait.machine import DEBUG_EXIT_PORT, QEMU_CPU, Machine, Media
from krait.outcome import ExitCode, KraitError

MEMORY_MIB = 256
CONSOLES = {"uart": "ttyS0", "virtio": "hvc0"}
SERIAL_PORT = (4, 64)
SOURCE = Path(__file__).resolve().parent / "bench_init.S"
SECONDS = 600.0
PROMISED_RATIO, PROMISED_EXITS = 1.0, 10000
"""Upper bounds of the quiet boot; docs/numbers.md says them too."""

ENTRY_64 = 0x200
"""startup_64, behind the real-mode code (Linux, Documentation/arch/x86/boot.rst)."""

REPORT_TSC = bytes.fromhex(
    "0f31 48c1e220 4809d0 b908000000"  # rdtsc; shl $32, %rdx; or %rdx, %rax; mov $8, %ecx
    "e6e9 48c1e808 e2f8 b010 e6f4 f4"  # 1: out %al, $0xe9; shr $8, %rax; loop 1b; mov $0x10, %al; out %al, $0xf4; hlt
)

TSC_LINE = re.compile(r"bench: tsc ([0-9a-f]{16})")
EXIT_LINE = re.compile(r"^    ([a-z]\S*(?: \S+)*) +([0-9]+) *$", re.MULTILINE)
ENDED, PROMPT_AGAIN = "vm 'tux' switched itself off", "ledger: ok"


@dataclass(frozen=True)
class Report:
    """Instructions from the kernel's first one to /init, and the guest's exits by cause; as JSON it has these very keys."""

    direct: int
    guest: int
    ratio: float
    exits_total: int
    exits: dict[str, int]


def measure(quiet: bool, console: ConsoleKind = "uart") -> Report:
    """Build the release image, boot three times and read the numbers; KraitError when one is missing."""
    cmdline = f"console={CONSOLES[console]} {'quiet ' if quiet else ''}reboot=t"
    with paths.claimed(paths.OUT / "run" / "bench-linux") as folder:
        initrd = _initramfs(folder)
        with progress.stage("bench linux: firmware"):
            before = _firmware(folder, initrd, cmdline)
        with progress.stage("bench linux: bare machine"):
            direct = tsc_of(_bare(linux_image.kernel(), initrd, cmdline, folder)) - before
        with progress.stage("bench linux: guest"):
            said = _guest(folder, initrd, cmdline, console)
    guest, exits = tsc_of(said), exits_of(said)
    return Report(direct, guest, round(guest / direct, 4), sum(exits.values()), exits)


def tsc_of(console: str) -> int:
    """The number that /init printed."""
    found = TSC_LINE.search(console)
    if found is None:
        raise KraitError(f"/init printed no number; the console said:\n{console}")
    return int(found[1], 16)


def exits_of(console: str) -> dict[str, int]:
    """Exits by cause from the operator's `info`, the most frequent first."""
    found = {name: int(count) for name, count in EXIT_LINE.findall(console.replace("\r\n", "\n"))}
    if not found:
        raise KraitError(f"no exits were printed; the console said:\n{console}")
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _initramfs(folder: Path) -> Path:
    """The initial file system: /init, and the console it prints on."""
    program = folder / "init"
    done = subprocess.run(
        [tools.require("gcc"), "-nostdlib", "-static", "-no-pie", "-o", str(program), str(SOURCE)], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise KraitError(f"assembling {SOURCE.name} failed:\n{done.stderr.strip()}", ExitCode.BUILD)
    members = [
        newc.Member("dev", mode=newc.S_IFDIR | 0o755),
        newc.Member("dev/console", mode=newc.S_IFCHR | 0o600, device=linux_image.CONSOLE_DEVICE),
        newc.Member("dev/ttyS0", mode=newc.S_IFCHR | 0o600, device=SERIAL_PORT),
        newc.Member("init", program.read_bytes(), newc.S_IFREG | 0o755),
    ]
    return paths.write_whole(folder / "initramfs.cpio", newc.write(members))


def with_reporter(kernel: bytes) -> bytes:
    """The kernel with REPORT_TSC at its 64-bit entry."""
    place = (kernel[0x1F1] + 1) * 512 + ENTRY_64
    return kernel[:place] + REPORT_TSC + kernel[place + len(REPORT_TSC) :]


def _firmware(folder: Path, initrd: Path, cmdline: str) -> int:
    """Instructions from reset to startup_64."""
    kernel = folder / "reporter"
    kernel.write_bytes(with_reporter(linux_image.kernel().read_bytes()))
    _bare(kernel, initrd, cmdline, folder)
    data = (folder / "debugcon").read_bytes()
    if len(data) != 8:
        raise KraitError(f"startup_64 reported {len(data)} bytes in place of 8")
    return int.from_bytes(data, "little")


def _bare(kernel: Path, initrd: Path, cmdline: str, folder: Path) -> str:
    """Boot without a hypervisor, until the machine is off; what the console said."""
    command = [tools.require("qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-machine", "pc", "-accel", "tcg"]
    command += ["-cpu", QEMU_CPU, "-m", f"{MEMORY_MIB}M", "-display", "none", "-no-reboot", "-icount", "shift=0"]
    command += ["-serial", "stdio", "-debugcon", f"file:{folder / 'debugcon'}"]
    command += ["-device", f"isa-debug-exit,iobase={DEBUG_EXIT_PORT:#x},iosize=4"]
    command += ["-kernel", str(kernel), "-initrd", str(initrd), "-append", cmdline]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise KraitError(f"the bare machine did not end within {SECONDS:g} s", ExitCode.TIMEOUT) from error
    return done.stdout


def _guest(folder: Path, initrd: Path, cmdline: str, console: ConsoleKind) -> str:
    """Boot as Krait's guest, ask the operator for its exits, and end the machine; what the console said."""
    text = f'[[vm]]\nname = "tux"\nkind = "linux"\nmemory = "{MEMORY_MIB}MiB"\ncmdline = "{cmdline}"\n'
    text += f'initrd = "{initrd.name}"\nconsole = "{console}"\n'
    settings = config.parse(text, "bench-linux.toml", initrd.parent)
    bundle = images.write_bundle(settings, folder / "bundle.cpio", release=True, end_auto=False)
    machine = Machine("qemu", icount=True)
    with tempfile.TemporaryDirectory(dir=folder) as logs, Emulator(machine, Media(images.hypervisor(release=True), bundle), Path(logs)) as emulator:
        emulator.console.settimeout(SECONDS)
        said = _read_until(emulator, "", ENDED)
        emulator.console.sendall(b"info tux\rledger\r")
        said = _read_until(emulator, said, PROMPT_AGAIN)
        emulator.console.sendall(b"poweroff\r")
        emulator.wait(SECONDS)
    (folder / "console.log").write_text(said)
    return said


def _read_until(emulator: Emulator, said: str, wanted: str) -> str:
    try:
        while wanted not in said:
            data = receive(emulator.console)
            if not data:
                raise KraitError(f"the machine ended before it said {wanted!r}:\n{said}")
            said += data.decode(errors="replace")
    except TimeoutError as error:
        raise KraitError(f"nothing was printed for {SECONDS:g} s:\n{said}", ExitCode.TIMEOUT) from error
    return said
