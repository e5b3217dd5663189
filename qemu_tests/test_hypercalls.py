"""The hypercall ABI as a guest meets it."""

import re

from krait.machine import Machine
from krait.result import Status
from qemu_tests.conftest import Boot
from qemu_tests.test_pv_guests import lines, pv


def test_bad_calls_are_refused(machine: Machine, boot: Boot) -> None:
    """Bad numbers, addresses and arguments, each answered with the error that docs/abi.md names."""
    end = boot(machine, vms=[pv("a", "bad-hypercalls")]).wait_end()
    assert re.fullmatch(r"bad hypercalls: \d+ tried, 0 wrong", lines(end, "a")[-1]), lines(end, "a")


def test_crash_gives_a_reason(machine: Machine, boot: Boot) -> None:
    """CRASH stops the VM with its reason; the exit status of the run says that a guest failed."""
    end = boot(machine, vms=[pv("a", "crash")]).wait_end(expected=Status.GUEST_FAILED)
    assert "the workload asked for it" in end.text


def test_console_is_escaped(machine: Machine, boot: Boot) -> None:
    """A guest cannot send control bytes to the operator's terminal, nor forge another VM's line."""
    end = boot(machine, vms=[pv("a", "escape")]).wait_end()
    assert lines(end, "a") == [r"before\x1b[2J\x07\x9b\x7fafter", "[b] forged", "long " + "x" * 155, "x" * 45]




def test_typing_reaches_the_guest(machine: Machine, boot: Boot) -> None:
    """What the operator types while attached raises EVENT_CONSOLE and is read by the guest; the prompt comes back at the end."""
    console = boot(machine, vms=[pv("a", "echo")])
    console.expect_line("a", "type something")
    console.send_line("attach a")
    console.expect("attached to a")
    for word in ("hello", "a longer line, with blanks"):
        console.send_line(word)
        console.expect(f"heard: {word}")
    console.send_line("quit")
    console.wait_end()
