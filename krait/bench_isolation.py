"""`krait bench isolation`: what guests with a fixed job lose to a neighbour that does its worst, after Matthews et al. (2007).

On one CPU run, at equal weights, the victims, which do a fixed job (a PV guest and a Linux guest, or one of them), and the guest with the
stressor; all n of them want the CPU all the time, so each is due its nth part. The job alone takes A; beside the stressor it may take n A, and
what it takes beyond is lost: loss = time / (n A) - 1. Time is instructions: QEMU's `-icount shift=0`, where the TSC moves by one an instruction. A Linux
guest's own timer ticks, of which there are more in more time, count as lost.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from krait import config, disks, images, linux_image, newc, paths, progress
from krait.emulator import Emulator, receive
from krait.machine import Machine, Media
from krait.outcome import ExitCode, KraitError

PROMISED_PERCENT = 1.0
"""Upper bound of each loss; docs/numbers.md says it too."""

SCRIPT = Path(__file__).resolve().parent / "guest_isolation.sh"
STRESSORS = {"cpu": "spin", "memory": "memory", "fork bomb": "bomb", "disk": "disk", "exit storm": "exits",
             "hypercall flood": "calls", "IPI storm": "ipis", "timer flood": "timers"}  # fmt: skip
VICTIMS = ("pv", "linux")
LINUX_BOOT_MS = 2200
"""Guest time in which a Linux guest is at its shell, for each that boots: the jobs begin then."""

LOOPS = 60_000_000
SECONDS = 3600.0
JOB = re.compile(r"\[(pv|linux)\] job: ([0-9]+)\r")


@dataclass(frozen=True)
class Loss:
    """One victim beside one stressor; as JSON it has these very keys."""

    stressor: str
    victim: str
    loss_percent: float


def measure(stressors: Sequence[str] = tuple(STRESSORS), victims: Sequence[str] = VICTIMS) -> list[Loss]:
    """Build the release image, run the victims alone, and beside each stressor; KraitError when a number is missing."""
    with paths.claimed(paths.OUT / "run" / "bench-isolation") as folder:
        initrd = paths.write_whole(folder / "initramfs.cpio", newc.write(
            [*linux_image.members(), newc.Member("bin/isolation", SCRIPT.read_bytes(), newc.S_IFREG | 0o755)]))  # fmt: skip
        alone: dict[str, int] = {}
        for victim in victims:
            with progress.stage(f"{victim} alone"):
                alone |= _boot(folder, initrd, [victim], None)
        losses = []
        for stressor in stressors:
            with progress.stage(f"beside {stressor}"):
                beside = _boot(folder, initrd, victims, stressor)
            losses += [Loss(stressor, victim, round(100 * (beside[victim] / (alone[victim] * (len(victims) + 1)) - 1), 2))
                       for victim in victims]  # fmt: skip
    return losses


def _boot(folder: Path, initrd: Path, victims: Sequence[str], stressor: str | None) -> dict[str, int]:
    """The time that each victim's job took."""
    text = _config(initrd, victims, stressor)
    settings = config.parse(text, "bench-isolation.toml", folder)
    bundle = images.write_bundle(settings, folder / "bundle.cpio", release=True, end_auto=False)
    machine = Machine("qemu", icount=True, skip_idle=True, disks=disks.made(settings.disks, folder))
    said = ""
    with Emulator(machine, Media(images.hypervisor(release=True), bundle), folder) as emulator:
        emulator.console.settimeout(SECONDS)
        while set(victims) - {name for name, _ in JOB.findall(said)}:
            try:
                data = receive(emulator.console)
            except TimeoutError as error:
                raise KraitError(f"nothing was printed for {SECONDS:g} s:\n{said}", ExitCode.TIMEOUT) from error
            said += data.decode(errors="replace")
            if not data or "vm 'stressor' " in said:
                raise KraitError(f"the machine, or the guest with the stressor, ended:\n{said}")
        emulator.console.sendall(b"poweroff\r")
        emulator.wait(SECONDS)
    (folder / f"{stressor or victims[0] + ' alone'}.log").write_text(said)
    return {name: int(time) for name, time in JOB.findall(said)}


def _config(initrd: Path, victims: Sequence[str], stressor: str | None) -> str:
    """The guests as a user would write them."""
    begin = LINUX_BOOT_MS * (("linux" in victims) + (stressor == "fork bomb")) + 100
    linux = f'kind = "linux"\nmemory = "96MiB"\ninitrd = "{initrd.name}"\ncmdline = "console=ttyS0 quiet krait.run=isolation,'
    guests = {"pv": f'kind = "pv"\nmemory = "4MiB"\nworkload = "job"\ncmdline = "at={begin} loops={LOOPS}"\n', "linux": f'{linux}job,{begin}"\n'}
    text = "".join(f'[[vm]]\nname = "{victim}"\n{guests[victim]}' for victim in victims)
    if stressor is None:
        return text
    text += '[[vm]]\nname = "stressor"\n'
    if stressor == "fork bomb":
        return text + f'{linux}bomb,{begin}"\n'
    text += 'kind = "pv"\nmemory = "16MiB"\n'
    if stressor == "cpu":
        return text + f'workload = "spin"\ncmdline = "at={begin} ms=3600000"\n'
    text += f'workload = "stress"\ncmdline = "at={begin} do={STRESSORS[stressor]}"\n'
    if stressor == "disk":
        text += '[[vm.disk]]\ndisk = "scratch"\n[[disk]]\nname = "scratch"\nbus = "memory"\nsize = "4MiB"\n'
    return text
