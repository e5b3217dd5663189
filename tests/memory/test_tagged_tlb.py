"""Guests of several CPUs run on TLBs that keep entries until flushed: none ever reaches a frame that is not its own.

Any order of touches, releases, kicks, migrations, reboots and ends is tried; then each flush, epoch and kick of the hypervisor is
taken out in turn, and the same must notice. `test_every_place_is_taken_out` finds those places in the source.
"""
from __future__ import annotations

import ast
import inspect
import random
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor import lock
from hypervisor.abi import Hypercall
from hypervisor.addresses import Hfn
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.fake.tagged_tlb import NestedPageFault
from hypervisor.arch_x86.svm import init as svm_init
from hypervisor.arch_x86.vtx import vmcs
from hypervisor.cpu import online
from hypervisor.lang import clear
from hypervisor.memory import ledger, ledger_check
from hypervisor.status import Status
from tests.memory.cluster import GUEST, PAGES, Cluster, HostCpu, Stale, destroy, places, wake_all

ROOT = Path(__file__).resolve().parents[2]
CPUS = 3
VMS = 3
WEIGHTS = {"touch": 40, "release": 10, "interrupt": 12, "yield": 8, "block": 2, "wake": 5, "end": 1, "reboot": 1, "make": 4,
           "destroy": 1, "time": 8, "quiet": 3}  # fmt: skip
NEEDS_GUEST = ("touch", "release", "yield", "block", "wake", "end", "reboot")


def act(cluster: Cluster, what: str, number: int) -> None:
    """One thing happens; `number` says where and with what."""
    place, number = number % CPUS, number // CPUS
    host = cluster.hosts[place]
    if what in NEEDS_GUEST and host.state != GUEST:
        what = "interrupt"
    match what:
        case "touch":
            for gfn in (number, number >> 4, number >> 8):
                if host.state == GUEST:
                    host.touch(gfn % PAGES, number & 1 << 12 != 0)
        case "release":
            host.hypercall(Hypercall.MEM_RELEASE, number % PAGES, 1)
        case "yield":
            host.hypercall(Hypercall.YIELD)
        case "block":
            host.hypercall(Hypercall.BLOCK)
        case "wake":
            host.hypercall(Hypercall.WAKE, number % 4)
        case "end":
            host.hypercall(Hypercall.POWER_OFF, 0)
        case "reboot":
            host.hypercall(Hypercall.REBOOT)
        case "interrupt":
            host.interrupt()
        case "make" if len(places()) < VMS:
            cluster.operate(host, lambda: cluster.make("x", 1 + number % 4))
        case "make":
            cluster.operate(host, wake_all)
        case "destroy" if places():
            cluster.operate(host, lambda: destroy(places()[number % len(places())]))
        case "time":
            cluster.pass_time(number % 3_000_000)
        case "quiet":
            cluster.quiet()


@contextmanager
def a_cluster(intel: bool, asids: int = 16) -> Iterator[Cluster]:
    """A machine on which two VMs run."""
    clear(lock.lock)
    lock.acquire()
    online.count = 1
    with pytest.MonkeyPatch.context() as patch, Cluster(patch, CPUS, intel, asids) as cluster:
        for name in ("a", "b"):
            cluster.operate(cluster.hosts[0], lambda: cluster.make(name, 3))
        yield cluster


def walk(seed: int, steps: int, intel: bool, asids: int = 4) -> Cluster:
    """A random history; Stale if a translation outlives its page, or a page its last translation."""
    rng = random.Random(seed)
    with a_cluster(intel, asids) as cluster:
        for what in rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=steps):
            act(cluster, what, rng.randrange(1 << 40))
        cluster.quiet()
        assert ledger_check.check() == 0
    return cluster


STEPS = st.lists(st.tuples(st.sampled_from([name for name, weight in WEIGHTS.items() for _ in range(weight)]), st.integers(0, (1 << 40) - 1)),
                 min_size=20, max_size=120)  # fmt: skip


@settings(max_examples=20)
@given(steps=STEPS, intel=st.booleans(), asids=st.sampled_from([4, 16]))
def test_no_guest_reaches_a_frame_that_is_not_its_own(steps: list[tuple[str, int]], intel: bool, asids: int) -> None:
    with a_cluster(intel, asids) as cluster:
        for what, number in steps:
            act(cluster, what, number)
        cluster.quiet()
        assert ledger_check.check() == 0


@pytest.mark.parametrize("intel", [False, True], ids=["svm", "vtx"])
def test_a_long_history(intel: bool) -> None:
    """Sixteen ASIDs, as QEMU has, are used up many times."""
    cluster = walk(1, 2500, intel, 16)
    assert min(host.tlb.hits for host in cluster.hosts) > 30 and min(host.tlb.drops for host in cluster.hosts) > 30
    if not intel:
        assert cluster.generations > 1


@dataclass(frozen=True)
class Place:
    """A statement that keeps TLBs true: in which function it stands, and what stands there when it is taken out."""

    module: str
    function: str
    statement: str
    instead: str = "pass"
    vendors: tuple[bool, ...] = (False, True)
    """Whether it is Intel's: on which machines it matters."""


SVM, VTX = (False,), (True,)
PLACES = [
    Place("hypervisor.memory.nested", "unmap", "_raise_epoch(vm)"),
    Place("hypervisor.memory.nested", "_raise_epoch", "spaces.epoch += 1"),
    Place("hypervisor.memory.nested", "_raise_epoch", "vm.epoch = spaces.epoch"),
    Place("hypervisor.memory.nested", "_raise_epoch", "kick.flush(vm)"),
    Place("hypervisor.kick", "flush", "owe_to(cpus[i], WORK_TLB)"),
    Place("hypervisor.kick", "owe_to", "cpu.work |= work"),
    Place("hypervisor.kick", "owe_to", "lapic.send(cpu.apic_id, host_interrupts.KICK_VECTOR)"),
    Place("hypervisor.run_loop", "work_for", "vcpu.seen_epoch = owner.epoch"),
    Place("hypervisor.run_loop", "work_for", "backend.flush(cpu, vcpu)"),
    Place("hypervisor.run_loop", "reschedule", "cpu.work |= WORK_TLB"),
    Place("hypervisor.run_loop", "reschedule", "backend.migrate(cpu, vcpu)"),
    Place("hypervisor.arch_x86.backend", "migrate", "svm_vcpu.migrate(vcpu)", vendors=SVM),
    Place("hypervisor.arch_x86.backend", "flush", "svm_vcpu.flush(vcpu)", vendors=SVM),
    Place("hypervisor.arch_x86.svm.vcpu", "migrate", "vcpu.asid = 0", vendors=SVM),
    Place("hypervisor.arch_x86.svm.vcpu", "switch_to", "cpu.asid_generation += 1", vendors=SVM),
    Place("hypervisor.arch_x86.svm.vcpu", "switch_to", "flush(vcpu)", vendors=SVM),
    Place("hypervisor.arch_x86.backend", "migrate", "vtx_vcpu.migrate(vcpu)", vendors=VTX),
    Place("hypervisor.arch_x86.backend", "flush", "vtx_vcpu.flush(vcpu)", vendors=VTX),
    Place("hypervisor.arch_x86.vtx.vcpu", "migrate", "flush(vcpu)", vendors=VTX),
    Place("hypervisor.arch_x86.vtx.vcpu", "flush", "invept(INVEPT_TYPE_SINGLE, ept_pointer(vm), 0)", vendors=VTX),
    Place("hypervisor.arch_x86.svm.vcpu", "flush",
          "vmcb.tlb_control = TLB_CONTROL_FLUSH_ASID if host.flush_by_asid else TLB_CONTROL_FLUSH_ALL", vendors=SVM),
    Place("hypervisor.arch_x86.svm.vcpu", "switch_to", "vcpu.asid = cpu.next_asid", vendors=SVM),
    Place("hypervisor.arch_x86.svm.vcpu", "switch_to", "cpu.next_asid = 1", vendors=SVM),
    Place("hypervisor.arch_x86.svm.vcpu", "switch_to", "cpu.next_asid += 1", vendors=SVM),
    Place("hypervisor.arch_x86.vtx.vcpu", "create", "vcpu.asid = vm.id * MAX_VCPUS_PER_VM + vcpu.index + 1", vendors=VTX),
    Place("hypervisor.memory.ledger", "settle", "if entry.pins != 0 or _is_reachable(entry):", "if entry.pins != 0:"),
]


def taken_out(place: Place, patch: pytest.MonkeyPatch) -> None:
    """Let the function run without the statement, whoever has imported it."""
    function = getattr(import_module(place.module), place.function)
    assert isinstance(function, FunctionType)
    source = textwrap.dedent(inspect.getsource(function))
    lines = [line for line in source.splitlines() if line.split("  #")[0].strip() == place.statement]
    assert len(lines) == 1, place
    without = source.replace(lines[0], lines[0][:len(lines[0]) - len(lines[0].lstrip())] + place.instead)
    made: dict[str, FunctionType] = {}
    exec(compile(without, place.module, "exec", dont_inherit=True), function.__globals__, made)
    patch.setattr(function, "__code__", made[place.function].__code__)


# Those of linear addresses, whose tables the guest changes itself.
LINEAR = [
    Place("hypervisor.arch_x86.backend", "write_state", "svm_vcpu.flush(vcpu)", vendors=SVM),
    Place("hypervisor.arch_x86.backend", "write_state", "vtx_vcpu.flush_linear(vcpu)", vendors=VTX),
    Place("hypervisor.arch_x86.vtx.vcpu", "flush_linear", "invvpid(INVVPID_TYPE_SINGLE, vcpu.asid, 0)", vendors=VTX),
]
FIRST = [
    Place("hypervisor.arch_x86.vtx.init", "enter_vmx_operation", "invept(INVEPT_TYPE_ALL, 0, 0)", vendors=VTX),
    Place("hypervisor.arch_x86.vtx.init", "enter_vmx_operation", "invvpid(INVVPID_TYPE_ALL, 0, 0)", vendors=VTX),
]
"""Those that drop what was in a TLB before Krait."""

OTHERS = {
    ("hypervisor.memory.nested", "create", "vm.epoch = spaces.epoch"),  # how soon a frame of an earlier VM of its number is settled
    ("hypervisor.arch_x86.svm.vcpu", "switch_to", "vcpu.asid_generation = cpu.asid_generation"),  # without it every switch would flush
    ("hypervisor.arch_x86.svm.vcpu", "enter", "after.tlb_control = 0"),  # every entry
    ("hypervisor.arch_x86.svm.init", "init_cpu", "cpu.asid_generation = 1"),  # zero would do as well
    ("hypervisor.arch_x86.svm.init", "init_cpu", "cpu.next_asid = 1"),  # ASID 0 is refused at the first entry
    ("hypervisor.block.overlay_opening", "choose_header", "store.epoch = good.epoch"),  # of a map of a disk
    ("hypervisor.block.overlay_map", "put_header", "header.epoch = store.epoch"),
    ("hypervisor.block.overlay_store", "_put_map", "image.epoch = store.epoch"),
    ("hypervisor.steal_time", "entered", "owe(WORK_TLB)"),  # the guest asks for it: tests/linux/test_kvm.py
}
"""Statements that are no matter of who reaches which frame."""

CALLS = {"flush", "flush_linear", "_raise_epoch", "invept", "invvpid", "migrate"}
FIELDS = {"epoch", "seen_epoch", "asid", "asid_generation", "next_asid", "tlb_control"}


def concerns_translations(statement: ast.stmt) -> bool:
    """Whether it drops translations, raises or notes an epoch, or gives a tag away."""
    if any(isinstance(node, ast.Name) and node.id == "WORK_TLB" for node in ast.walk(statement)):
        return True
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        function = statement.value.func
        if isinstance(function, ast.Name):
            return function.id in CALLS
        return isinstance(function, ast.Attribute) and function.attr in CALLS and ast.unparse(function.value) != "serial"
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target] if isinstance(statement, ast.AugAssign) else []
    return any(isinstance(target, ast.Attribute) and target.attr in FIELDS and ast.unparse(target.value) != "known" for target in targets)


def test_every_place_is_taken_out() -> None:
    """What the source does about translations is in these lists, statement by statement."""
    found = set()
    for path in sorted((ROOT / "hypervisor").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if ".fake." in module or ".intrinsics" in module:
            continue
        source = path.read_text()
        for function in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)):
            for statement in ast.walk(function):
                if isinstance(statement, ast.Expr | ast.Assign | ast.AugAssign) and concerns_translations(statement):
                    text = ast.get_source_segment(source, statement)
                    assert text is not None
                    found.add((module, function.name, text))
    listed = {(place.module, place.function, place.statement) for place in PLACES + LINEAR + FIRST}
    assert found - listed == OTHERS


@pytest.mark.parametrize("place, intel", [(place, intel) for place in PLACES for intel in place.vendors],
                         ids=lambda value: f"{value.function}-{value.statement}" if isinstance(value, Place) else "vtx" if value else "svm")
def test_each_is_needed(monkeypatch: pytest.MonkeyPatch, place: Place, intel: bool) -> None:
    taken_out(place, monkeypatch)
    with pytest.raises((Stale, ValueError)):
        for seed in range(60):
            walk(seed, 400, intel)


def linear(host: HostCpu, page: int, gfn: int) -> int:
    """The guest frame whose host frame a page of linear addresses reaches, which the guest's own tables map to `gfn` now."""
    for _ in range(2):
        try:
            return ledger.entry_of(Hfn(host.tlb.reach_linear(host.space, page, gfn, True))).value
        except NestedPageFault:
            host.fault(gfn, True)
    raise AssertionError("a page that was backed faults")


def guest_maps_anew(intel: bool) -> int:
    """What a page reaches after the guest has mapped it to frame 3 in place of 2, and has said so by a control register."""
    with a_cluster(intel) as cluster:
        svm_init.host.decode_assists = svm_init.host.nrip_save = True
        host = next(host for host in cluster.hosts if host.state == GUEST)
        assert linear(host, 7, 2) == 2

        def moves(place: Any) -> None:
            if intel:  # CR0.CD, which exits, and CR0.PG with it
                host.vcpu.regs.rbx = 0x4000_0011
                place.update({vmcs.EXIT_QUALIFICATION: 3 << 8, vmcs.GUEST_CR0: 0x8000_0031, vmcs.CR0_SHADOW: 0x8000_0011})
            else:  # CR4.PGE
                host.vcpu.regs.rbx = 0x80
                place.exit_info1, place.next_rip = 1 << 63 | 3, place.rip + 3

        host.leave("control register", moves)
        return linear(host, 7, 3)


@pytest.mark.parametrize("intel", [False, True], ids=["svm", "vtx"])
def test_a_guest_that_changes_its_own_tables(intel: bool) -> None:
    assert guest_maps_anew(intel) == 3


@pytest.mark.parametrize("place", LINEAR, ids=lambda place: place.statement)
def test_each_of_linear_addresses_is_needed(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    taken_out(place, monkeypatch)
    assert guest_maps_anew(place.vendors == VTX) == 2


@pytest.mark.parametrize("place", [None, *FIRST])
def test_what_was_there_before_is_dropped(monkeypatch: pytest.MonkeyPatch, place: Place | None) -> None:
    """Both are needed: INVEPT leaves linear addresses of guests without EPT."""
    if place is not None:
        taken_out(place, monkeypatch)
    with a_cluster(True) as cluster:
        host = cluster.hosts[0]
        host.tlb.frames, host.tlb.pages, host.tlb.unnested = {(0x5000, 1): (0x123, True)}, {}, {(9, 1): (0x123, True)}
        machine.cpu, machine.vmx = 0, host.vmx
        assert backend.init_cpu(host.cpu) == Status.OK
        assert bool(host.tlb.frames or host.tlb.unnested) == (place is not None)
