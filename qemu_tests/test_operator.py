"""The operator pauses, resumes and reboots VMs and reads the log, while other guests run."""

import re

import pytest

from krait.machine import Machine
from qemu_tests.conftest import Boot
from qemu_tests.harness import Console
from qemu_tests.test_pv_guests import pv


def uptime(console: Console) -> int:
    """Seconds that the machine has been up."""
    console.send_line("stats")
    return int(console.expect(r"  up (\d+) s")[1])


@pytest.mark.parametrize("machine", ["svm", "vtx"], indirect=True)
def test_pause_resume_reboot_and_log(machine: Machine, boot: Boot) -> None:
    """A paused guest's time stands still, timers included; a rebooted one begins again; `log` has it all."""
    console = boot(machine, [pv("ada", "ticks", "ms=10000000 step=20"), pv("bob", "spin", "ms=10000000")], end_auto=False)
    console.expect_line("ada", r"tick \d{4}")
    console.send_line("resume ada")
    console.expect("ada is not paused")
    console.send_line("pause ada")
    console.expect("vm 'ada' paused")
    console.send_line("pause ada")
    console.expect("ada does not run")
    console.send_line("list")
    console.expect(r"ada +pv +paused")
    last = int(re.findall(r"\[ada\] tick (\d+)", console.text)[-1])
    begin = uptime(console)
    while uptime(console) < begin + 2:
        pass
    assert int(re.findall(r"\[ada\] tick (\d+)", console.text)[-1]) == last
    console.send_line("resume ada")
    paused = int(console.expect(r"vm 'ada' resumed after (\d+) ms")[1])
    after = int(console.expect_line("ada", r"tick (\d+)\r")[1])
    assert paused >= 1000 and last < after < last + 500, "guest time went on while it was paused"

    console.send_line("pause ada")
    console.expect("vm 'ada' paused")
    console.send_line("reboot ada")  # a paused VM too
    console.expect("vm 'ada' rebooted by the operator")
    assert int(console.expect_line("ada", r"tick (\d+)\r")[1]) < last
    console.send_line("stats ada")
    console.expect(r"exits by cause(?s:.*?)hypercall +\d+")
    console.send_line("pause bob")
    console.send_line("stop bob")
    console.expect("vm 'bob' stopped by the operator")
    console.send_line("reboot bob")
    console.expect("bob does not run")
    console.send_line("pause ada")  # and be quiet
    console.expect("vm 'ada' paused")
    console.send_line("log 4")
    messages = console.expect(r"krait> log 4\r\n((?:.*\r\n){4})")[1]
    assert [re.sub(r" *[\d.]+ info +", "", line) for line in messages.splitlines()] == [
        "vm 'ada' rebooted by the operator", "vm 'bob' paused", "vm 'bob' stopped by the operator", "vm 'ada' paused"]  # fmt: skip
    console.send_line("poweroff")
    console.wait_end()
