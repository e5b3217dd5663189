"""`krait run` as a user has it, on both emulators, with a stand-in for the hypervisor (fake_hypervisor.S)."""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from krait import paths, relay, tools
from krait.outcome import ExitCode

KRAIT = [sys.executable, "-m", "krait"]
CONFIG = '[[vm]]\nname = "ada"\nkind = "pv"\nkernel = "{0}"\n[[vm]]\nname = "bob"\nkind = "pv"\nkernel = "{0}"\n'
EMULATORS = ("qemu", "bochs")


def run_name(request: pytest.FixtureRequest) -> str:
    """What names the run's folder below out/run."""
    return re.sub(r"\W+", "-", f"test-{request.node.name}").strip("-")


@pytest.fixture
def command(image: Path, tmp_path: Path, request: pytest.FixtureRequest) -> list[str]:
    """`krait run` of the stand-in, without the emulator's name; each test has a folder of its own."""
    config = tmp_path / f"{run_name(request)}.toml"
    config.write_text(CONFIG.format(image))
    return [*KRAIT, "run", str(config), "--image", str(image)]


@pytest.fixture(autouse=True)
def own_sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sockets of this test only."""
    with tempfile.TemporaryDirectory(prefix="krait-test-", dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield


def test_a_deep_folder_is_no_hindrance_to_sockets(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    hub = relay.Hub(deep / "1.sock")
    assert (deep / "1.sock").is_socket()
    hub.close()
    assert not (deep / "1.sock").exists()


def on_terminal(command: list[str], emulator: str) -> "pexpect.spawn[str]":
    """Run the command on a terminal of its own."""
    if tools.BY_NAME["bochs" if emulator == "bochs" else "qemu-system-x86_64"].path() is None:
        pytest.skip(f"{emulator} is missing; mend it with: scripts/setup")
    arguments = [*command[1:], "--emulator", emulator]
    return pexpect.spawn(command[0], arguments, cwd=str(paths.ROOT), encoding="utf-8", timeout=30, preexec_fn=heed_interrupts)


def heed_interrupts() -> None:
    """As in a terminal's own process: one that was started in the background ignores them, and its children too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def emulators_of(process: int) -> list[int]:
    """The processes that `process` started and that still run."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.parametrize("emulator", EMULATORS)
def test_guests_then_prompt_then_the_result_is_the_exit_code(command: list[str], emulator: str) -> None:
    terminal = on_terminal(command, emulator)
    terminal.expect_exact("\x1b[36m[ada] \x1b[0mone")
    terminal.expect_exact("\x1b[33m[bob] \x1b[0mtwo")
    terminal.expect_exact("krait> ")
    terminal.send("o")
    terminal.expect(pexpect.EOF)
    assert terminal.wait() == ExitCode.OK


@pytest.mark.parametrize("emulator", EMULATORS)
@pytest.mark.parametrize(("key", "reason"), [("g", "a guest failed"), ("t", "the machine reset or died without a word")])
def test_a_failure_is_said_and_returned(command: list[str], emulator: str, key: str, reason: str) -> None:
    terminal = on_terminal(command, emulator)
    terminal.expect_exact("krait> ")
    terminal.send(key)
    terminal.expect_exact(f"krait: {reason}")
    terminal.expect(pexpect.EOF)
    assert terminal.wait() == ExitCode.FAILED


@pytest.mark.parametrize("emulator", EMULATORS)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_no_emulator_outlives_us(command: list[str], emulator: str, how: signal.Signals) -> None:
    terminal = on_terminal(command, emulator)
    terminal.expect_exact("krait> ")
    assert terminal.pid is not None
    children = emulators_of(terminal.pid)
    assert children
    if how is signal.SIGINT:
        terminal.sendintr()
    else:
        terminal.kill(how)
    terminal.expect(pexpect.EOF)
    terminal.wait()
    if how is not signal.SIGKILL:
        assert terminal.exitstatus == ExitCode.INTERRUPTED
    deadline = time.monotonic() + 5
    while any(Path("/proc", str(child)).exists() for child in children):
        assert time.monotonic() < deadline, "an emulator runs on"
        time.sleep(0.02)


@pytest.mark.parametrize("emulator", EMULATORS)
def test_without_a_terminal_output_is_plain_and_time_is_limited(command: list[str], emulator: str) -> None:
    """A hang says where: the stand-in waits for a key in the loop behind `start`."""
    whole = [*command, "--emulator", emulator, "--timeout", "4"]
    done = subprocess.run(whole, cwd=paths.ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == ExitCode.TIMEOUT
    assert done.stdout == "krait: fake\n[ada] one\n[bob] two\nkrait> "
    message, *places = done.stderr.splitlines()
    assert message.startswith("krait: not ended after 4 s; console: ")
    assert re.match(r"CPU 0 at 0x1000[0-9a-f]{2} \((CPL 0|CS 0010)\) in start, ", places[0])


def test_attach_sees_the_past_types_and_detaches(command: list[str]) -> None:
    run = on_terminal(command, "qemu")
    run.expect_exact("krait> ")
    listing = subprocess.run([*KRAIT, "attach", "--list", "--json"], cwd=paths.ROOT, capture_output=True, text=True)
    assert listing.stdout == f"[{run.pid}]\n"
    other = pexpect.spawn(KRAIT[0], [*KRAIT[1:], "attach"], cwd=str(paths.ROOT), encoding="utf-8", timeout=30, preexec_fn=heed_interrupts)
    other.expect_exact("Ctrl-C detaches")
    other.expect_exact("[bob] two")
    other.sendintr()
    other.expect(pexpect.EOF)
    assert other.wait() == ExitCode.OK
    last = pexpect.spawn(KRAIT[0], [*KRAIT[1:], "attach"], cwd=str(paths.ROOT), encoding="utf-8", timeout=30)
    last.expect_exact("krait> ")
    last.send("o")
    last.expect_exact("krait: exit 0x10")
    last.expect(pexpect.EOF)
    run.expect(pexpect.EOF)
    assert (last.wait(), run.wait()) == (ExitCode.OK, ExitCode.OK)


def test_attach_to_a_guest_without_a_terminal_shows_its_lines_alone(command: list[str]) -> None:
    run = on_terminal(command, "qemu")
    run.expect_exact("krait> ")
    guest = subprocess.Popen([*KRAIT, "attach", "bob"], cwd=paths.ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert guest.stdout is not None and guest.stdout.readline() == b"two\n"
    run.send("o")
    assert guest.stdout.read() == b""
    run.expect(pexpect.EOF)
    assert (guest.wait(), run.wait()) == (ExitCode.OK, ExitCode.OK)


def test_attach_with_nothing_running_says_so() -> None:
    done = subprocess.run([*KRAIT, "attach"], cwd=paths.ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (ExitCode.FAILED, "krait: nothing is running; start it with: krait run\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.toml"], "krait: none.toml: No such file or directory"),
        (["run", "--emulator", "bochs", "--gdb"], "krait: --gdb works with --emulator qemu only"),
        (["run", "--accel", "kvm", "--icount"], "krait: --icount counts translated instructions: it needs --accel tcg"),
        (["run", "--image", "none.elf"], "krait: none.elf: no such image"),
        (["run", "--emulator", "xen"], "Invalid value"),
        (["run", "--linux", "none.toml"], "krait: --linux boots one guest of its own: without FILE and --image"),
        (["run", "--memory", "64MiB"], "krait: --kernel, --boot, --console, --initrd, --append, --memory and --vcpus describe the guest of --linux"),
        (["run", "--linux", "--kernel", "/none", "--memory", "64MiB"], "krait: --linux: 'kernel': there is no file /none"),
        (["run", "--linux", "--memory", "64MiB", "--no-prompt"], "krait: --linux: 'linux' has 64MiB; its kernel and file system need"),
    ],
)
def test_usage_errors_end_with_2(arguments: list[str], message: str) -> None:
    done = subprocess.run([*KRAIT, *arguments], cwd=paths.ROOT, capture_output=True, text=True)
    assert done.returncode == ExitCode.USAGE
    assert message in done.stderr


@pytest.mark.parametrize("emulator", EMULATORS)
def test_dry_run_prints_one_command_line_and_starts_nothing(command: list[str], emulator: str, request: pytest.FixtureRequest) -> None:
    shutil.rmtree(paths.OUT / "run" / f"{run_name(request)}-{emulator}", ignore_errors=True)
    done = subprocess.run([*command, "--emulator", emulator, "--dry-run"], cwd=paths.ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (ExitCode.OK, "", 1)
    assert ("qemu-system-x86_64" if emulator == "qemu" else "bochs") in done.stdout
    assert not (paths.OUT / "run" / f"{run_name(request)}-{emulator}").exists()
