"""`krait run` and `krait attach`: boot a configuration and stay with it; join one that is running."""

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from krait import config, disks, images, machine, paths, progress, relay, result, where
from krait.config import Settings
from krait.emulator import Emulator
from krait.machine import Links, Machine, Media
from krait.outcome import ExitCode, KraitError
from krait.screen import Screen
from krait.switchboard import CONSOLES, Switchboard

DEMO = paths.CONFIGS / "demo.toml"
LINUX_MEMORY = "256MiB"
CLEAR_LINE, DETACH = "\x15", b"\x1d"
"""Keys of the operator's prompt: forget what is typed; back from a guest to the prompt."""

END_SECONDS = 10.0
"""How long an emulator may take to end once its console is closed."""


@dataclass(frozen=True)
class Plan:
    """What to boot. `prompt`: stay at the operator's prompt instead of ending with the last guest. `image`: a hypervisor
    that was built earlier, instead of one from these sources. `attach`: the first guest has the keys from its start."""

    config: Path
    settings: Settings
    machine: Machine
    release: bool
    prompt: bool
    image: Path | None = None
    attach: bool = False
    consoles: Path | None = None
    """Where each guest's console gets its socket."""

    @property
    def folder(self) -> Path:
        """Where a run keeps its bundle and logs (the first of several at a time; the others get a number)."""
        return paths.OUT / "run" / f"{self.config.stem}-{self.machine.emulator}"

    def media(self, folder: Path) -> Media:
        """The files that are booted; the ISO is named even before it is made."""
        kernel = self.image or paths.image_dir(self.release) / images.HYPERVISOR_ELF
        return Media(kernel, folder / "bundle.cpio", folder / "krait.iso")


def plan(path: Path, wanted: Machine, release: bool, prompt: bool, image: Path | None = None, cpus: int | None = None) -> Plan:
    """Read and check everything that can be refused before anything is built. `cpus` goes before what the file says."""
    settings = config.load(path)
    wanted = replace(wanted, cpus=cpus or settings.machine_cpus or wanted.cpus)
    return checked(Plan(path, settings, wanted, release, prompt, image))


def plan_linux(table: dict[str, object], words: str, wanted: Machine, release: bool, typing: bool,
               cpus: int | None = None) -> Plan:
    """One Linux guest, described by keys of a `[[vm]]` table, with `words` behind its command line. `typing`: it gets the
    keys and its shell; else it powers off once it has booted."""
    usual = config.SHELL_CMDLINE if typing else config.DEFAULT_LINUX_CMDLINE
    if table.get("console") == "virtio":
        usual = f"{usual} {config.VIRTIO_CONSOLE}"
    settings = config.one_linux("--linux", {"cmdline": f"{usual} {words}".rstrip(), **table})
    wanted = replace(wanted, cpus=cpus or wanted.cpus)
    return checked(Plan(Path("linux"), settings, wanted, release, prompt=False, attach=typing))


def checked(what: Plan) -> Plan:
    """Refuse what cannot be booted; the machine gets the memory that the configuration names."""
    if what.image is not None and not what.image.is_file():
        raise KraitError(f"{what.image}: no such image", ExitCode.USAGE)
    what = replace(what, machine=replace(what.machine, disks=what.settings.disks))
    what.machine.check()
    memory = what.settings.machine_memory
    return what if memory is None else replace(what, machine=replace(what.machine, memory_mib=memory >> 20))


def dry_run(what: Plan) -> str:
    """The emulator's command line, with the console on its standard output."""
    links = Links(log=what.folder / "bochs.log")
    planned = replace(what.machine, disks=disks.named(what.machine.disks, what.folder))
    return machine.typed(planned, machine.command_line(planned, what.media(what.folder), links))


def prepare(what: Plan, folder: Path) -> Media:
    """Build the image, the guests and the bundle."""
    media = what.media(folder)
    images.write_bundle(what.settings, media.bundle, what.release, not what.prompt, what.attach)
    if what.image is None:
        images.hypervisor(what.release)
    return media


def run(what: Plan, timeout: float | None) -> ExitCode:
    """Boot, show, and answer with the exit code of the run."""
    signal.signal(signal.SIGTERM, _terminated)
    start = time.monotonic()
    keys = relay.terminal_keys() if what.prompt or what.attach else None
    with paths.claimed(what.folder) as folder:
        media = prepare(what, folder)
        with Emulator(replace(what.machine, disks=disks.made(what.machine.disks, folder)), media, folder) as emulator:
            progress.note(f"  {machine.typed(what.machine, emulator.command)}")
            _introduce(media, emulator, keys is not None, what.attach)
            code = _stay(what, emulator, media, keys, timeout)
        progress.note(f"  {time.monotonic() - start:.1f} s in all; logs are in {paths.shown(folder)}")
    return code


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _introduce(media: Media, emulator: Emulator, typing: bool, attached: bool) -> None:
    if emulator.gdb_path is not None:
        elf = paths.shown(media.kernel)
        print(f"The machine waits. In another terminal: gdb {elf} -ex 'target remote {emulator.gdb_path}'", file=sys.stderr)
    if typing and attached:
        progress.note("  the keys are the guest's, Ctrl-C too; Ctrl-] gives them to the operator's prompt, Ctrl-] Ctrl-C ends the machine")
    elif typing:
        progress.note("  Ctrl-C ends the machine at once, `poweroff` in order; `krait attach`, `list` and `console NAME` work from another")


def _stay(what: Plan, emulator: Emulator, media: Media, keys: int | None, timeout: float | None) -> ExitCode:
    names = [vm.name for vm in what.settings.vms] if sys.stdout.isatty() else []
    hub = relay.Hub(paths.runtime_dir() / f"{os.getpid()}.sock")
    guests = None if emulator.channel is None else Switchboard(emulator.channel, board_folder(os.getpid()), what.consoles)
    try:
        loop = relay.Relay(emulator.console, Screen(sys.stdout.buffer, names), keys, hub, what.attach)
        ended = loop.run(timeout)
    finally:
        hub.close()
        if guests is not None:
            guests.close()
            shutil.rmtree(guests.folder)
    log = emulator.log_dir / "console.log"
    log.write_bytes(loop.transcript)
    console = f"console: {paths.shown(log)}"
    if not ended:
        place = where.where(emulator, media.kernel)
        raise KraitError(f"not ended after {timeout:g} s; {console}\n{place}", ExitCode.TIMEOUT)
    exit_status = emulator.wait(END_SECONDS)
    if exit_status is None:
        raise KraitError(f"{what.machine.emulator} closed the console but runs on", ExitCode.FAILED)
    status = result.judge(what.machine, exit_status, loop.transcript.decode(errors="replace"))
    if status is not result.Status.OK:
        raise KraitError("\n".join([f"{status.value}; {console}", *where.notable(emulator)]), status.exit_code)
    return ExitCode.OK


def running() -> list[int]:
    """The process ids of the `krait run` that can be attached to, the latest first."""
    sockets = sorted(paths.runtime_dir().glob("*.sock"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [int(path.stem) for path in sockets if path.stem.isdigit() and Path("/proc", path.stem).exists()]


def chosen(process: int | None) -> int:
    """The `krait run` that is meant: this one, or the latest."""
    found = [process] if process is not None else running()
    if not found:
        raise KraitError("nothing is running; start it with: krait run", ExitCode.FAILED)
    return found[0]


def board_folder(process: int) -> Path:
    """Where the sockets of a `krait run` stand: `control`, and one for each guest unless --consoles said where."""
    return paths.runtime_dir() / f"{process}.guests"


def consoles_of(process: int) -> Path:
    """Where its guests' sockets stand."""
    link = board_folder(process) / CONSOLES
    return link.resolve() if link.is_symlink() else board_folder(process)


def attach(name: str | None, process: int | None) -> ExitCode:
    """Join a running machine: its operator console, or the guest `name`: on a terminal the keys go to it (the operator's
    `attach`), without one its lines are shown. Ctrl-C leaves; the machine runs on."""
    choice = chosen(process)
    keys = relay.terminal_keys()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as console:
        try:
            with paths.short(paths.runtime_dir() / f"{choice}.sock") as path:
                console.connect(path)
        except OSError as error:
            raise KraitError(f"cannot attach to {choice}: {error.strerror}", ExitCode.FAILED) from error
        progress.note(f"  attached to {name or 'the operator console'} of {choice}; Ctrl-C detaches")
        to_guest = name is not None and keys is not None
        if to_guest:
            console.sendall(f"{CLEAR_LINE}attach {name}\r".encode())
        try:
            relay.Relay(console, Screen(sys.stdout.buffer, only=None if to_guest else name), keys).run(None)
        except KeyboardInterrupt:
            if to_guest:
                console.sendall(DETACH)
    return ExitCode.OK
