"""Fixtures for tests on consoles of booted machines.

    def test_two_guests(machine, boot):
        console = boot(machine, vms=[
            {"name": "a", "kind": "pv", "memory": "16MiB", "weight": 300, "workload": "spin"},
            {"name": "b", "kind": "pv", "memory": "16MiB", "weight": 100, "workload": "spin"},
        ])
        console.expect_line("a", r"spin: (\\d+)")     # a regular expression; returns its match
        console.send_line("stop a")                   # types at the operator's prompt
        console.wait_end()                            # status OK and a clean ledger, or the test fails

`machine` runs the test once on each machine: `svm` (QEMU TCG, AMD SVM), `vtx` (Bochs, VT-x) and `kvm` (QEMU with KVM, if
this host lets guests virtualize). `-m svm` chooses one. A few also run on `strict` (Bochs as an AMD CPU). A test for one machine only says
`@pytest.mark.parametrize("machine", ["vtx"], indirect=True)`.

`boot(machine, vms, debug=True, end_auto=True, memory_limit=None, icount=False, iso=False, disks=(), cpus=None) -> Console` builds what changed, boots, and
ends the emulator when the test is over, however it is over. `vms` and `disks` are the tables of docs/running.md. With `end_auto` the
hypervisor ends the machine when the last guest has ended; without it the operator's prompt stays.

`Console` (harness.py): `expect`, `expect_line`, `send`, `send_line`, `wait_end`, `text`, `log_path`, `emulator.qmp`.
Logs stay below out/test-logs/TEST/; a failing test prints their path.
"""

import re
import shutil
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import pytest

from krait import paths
from krait.doctor import nested_kvm_missing
from krait.machine import Machine
from krait.tools import BY_NAME
from qemu_tests import harness
from qemu_tests.harness import Console, Table, VmTable

MACHINES = {"svm": Machine("qemu"), "vtx": Machine("bochs"), "kvm": Machine("qemu", "kvm"), "strict": Machine("bochs", amd=True),
            "svm2": Machine("qemu", cpus=2), "vtx2": Machine("bochs", cpus=2)}
EACH = ("svm", "vtx", "kvm")
LOGS = paths.OUT / "test-logs"


class Boot(Protocol):
    """The `boot` fixture."""

    def __call__(
        self,
        machine: Machine,
        vms: Sequence[VmTable],
        *,
        debug: bool = True,
        end_auto: bool = True,
        memory_limit: str | None = None,
        icount: bool = False,
        iso: bool = False,
        channel: bool = False,
        disks: Sequence[Table] = (),
        cpus: int | None = None,
    ) -> Console: ...


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers that choose a machine."""
    for name, machine in MACHINES.items():
        config.addinivalue_line("markers", f"{name}: runs on {machine.emulator} ({machine.accel})")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `machine` on every machine, unless it names its own."""
    named = any("machine" in str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize"))
    if "machine" in metafunc.fixturenames and not named:
        metafunc.parametrize("machine", EACH, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its machine, so that `-m svm` finds it however it was parametrised."""
    for item in items:
        name = getattr(item, "callspec").params.get("machine") if hasattr(item, "callspec") else None
        if name in MACHINES:
            item.add_marker(name)


def unavailable(machine: Machine) -> str | None:
    """Why `machine` cannot be had here, or None."""
    tool = BY_NAME["bochs" if machine.emulator == "bochs" else "qemu-system-x86_64"]
    if tool.path() is None:
        return f"{tool.name} is missing; mend it with: scripts/setup"
    if machine.accel == "kvm":
        return nested_kvm_missing()
    return None


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Machine:
    """The machine to boot on; the test is skipped, with the reason, where there is none."""
    wanted = MACHINES[request.param]
    reason = unavailable(wanted)
    if reason is not None:
        pytest.skip(reason)
    return wanted


@pytest.fixture
def boot(request: pytest.FixtureRequest) -> Iterator[Boot]:
    """Boots machines, and ends them all when the test is over."""
    consoles: list[Console] = []
    name = re.sub(r"[^\w.-]+", "_", request.node.name).strip("_")
    folder = LOGS / request.node.path.stem / name
    shutil.rmtree(folder, ignore_errors=True)

    def start(
        machine: Machine,
        vms: Sequence[VmTable],
        *,
        debug: bool = True,
        end_auto: bool = True,
        memory_limit: str | None = None,
        icount: bool = False,
        iso: bool = False,
        channel: bool = False,
        disks: Sequence[Table] = (),
        cpus: int | None = None,
    ) -> Console:
        chosen = replace(machine, icount=icount, iso=iso, channel=channel, cpus=cpus or machine.cpus)
        log_dir = folder / f"boot{len(consoles)}"
        console = harness.start(chosen, vms, log_dir, not debug, end_auto, memory_limit, disks)
        consoles.append(console)
        return console

    yield start
    for console in consoles:
        console.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say with a failure where the logs are."""
    report = yield
    folder = LOGS / item.path.stem / re.sub(r"[^\w.-]+", "_", item.name).strip("_")
    if report.failed and folder.exists():
        report.sections.append(("logs", paths.shown(folder)))
    return report
