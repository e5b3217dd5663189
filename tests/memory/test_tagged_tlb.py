"""Guests run on a TLB that keeps entries until flushed: none ever reaches a frame that is not its own."""
from __future__ import annotations

import random
from contextlib import closing

import pytest

from hypervisor import lock, run_loop
from hypervisor.addresses import Gfn, Hfn
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.fake.tagged_tlb import NestedPageFault, TaggedTlb
from hypervisor.arch_x86.svm import init as svm_init
from hypervisor.arch_x86.svm import vcpu as svm_vcpu
from hypervisor.cpu import cpus
from hypervisor.lang import address, clear
from hypervisor.memory import backing, ledger, nested
from hypervisor.memory.ledger import Kind
from hypervisor.model import WORK_TLB, Vcpu, Vm
from hypervisor.paging import release
from hypervisor.status import Status
from tests.memory.world import World, vcpu_of

PAGES = 12


class Stale(Exception):
    """A guest reached a frame that is not its own."""


def switch(vcpu: Vcpu, vm: Vm) -> None:
    """What run_loop.reschedule does when it picks `vcpu`, with the same code for the flush."""
    if cpus[0].vcpu is None or address(cpus[0].vcpu) != address(vcpu):
        cpus[0].vcpu = vcpu
        backend.switch_to(cpus[0], vm, vcpu)
    if vcpu.seen_epoch != vm.epoch:
        cpus[0].work |= WORK_TLB


def run(seed: int, steps: int, by_asid: bool, vms: int = 3, vcpus: int = 7) -> TaggedTlb:
    """Random switches, touches, releases and ends of VMs; Stale if a translation outlives its page."""
    rng, tlb = random.Random(seed), TaggedTlb()
    with closing(World(900)) as world:
        machine.guest_runs = tlb.entered
        backend.chosen.svm = True
        svm_init.host.asid_count, svm_init.host.flush_by_asid = 16, by_asid
        cpus[0].next_asid, cpus[0].asid_generation = 1, 1
        guests = [world.vm(PAGES, vcpus=vcpus) for _ in range(vms)]
        for vm in guests:
            for index in range(vcpus):
                assert svm_vcpu.create(vm, vcpu_of(vm, index)) == Status.OK
        for _ in range(steps):
            vm = rng.choice(guests)
            vcpu = vcpu_of(vm, rng.randrange(vcpus))
            switch(vcpu, vm)
            if rng.random() < 0.2:  # woken by something else before it ran: the next pick replaces it
                continue
            while cpus[0].work & WORK_TLB:
                run_loop.do_work(cpus[0])
            tlb.guest = lambda: touch(tlb, vm, rng)
            try:
                backend.enter(cpus[0], vcpu)
            except NestedPageFault as fault:
                lock.acquire()
                assert backing.back(vm, Gfn(fault.args[0])) == Status.OK
            if rng.random() < 0.3:
                other = rng.choice(guests)
                release.mem_release(other, rng.randrange(PAGES), 1)
        world.check()
    return tlb


def touch(tlb: TaggedTlb, vm: Vm, rng: random.Random) -> None:
    """One run of a guest: a few accesses, each to a frame that must be its own."""
    for _ in range(3):
        gfn = rng.randrange(PAGES)
        entry = ledger.entry_of(Hfn(tlb.touch(gfn, rng.random() < 0.5)))
        if entry.kind != Kind.PRIVATE or entry.vm != vm.id or entry.value != gfn:
            raise Stale(f"vm {vm.id} gfn {gfn} reaches a frame of vm {entry.vm}, gfn {entry.value}, kind {entry.kind}")


@pytest.fixture(autouse=True)
def clean() -> None:
    for part in (cpus[0], svm_init.host):
        clear(part)


@pytest.mark.parametrize("by_asid", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_no_guest_reaches_a_frame_that_is_not_its_own(seed: int, by_asid: bool) -> None:
    tlb = run(seed, 500, by_asid)
    assert tlb.flushes > 0 and tlb.hits > 0


@pytest.mark.parametrize("missing", ["flush", "epoch"])
def test_a_missing_flush_is_noticed(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """The test can fail: without the flush, or without the epoch that asks for it, a stale translation is used."""
    if missing == "flush":
        monkeypatch.setattr(svm_vcpu, "flush", lambda vcpu: None)
    else:
        monkeypatch.setattr(nested, "_raise_epoch", lambda vm: None)
    with pytest.raises(Stale):
        run(1, 4000, True, vcpus=1)


def test_reused_asids_are_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """More vCPUs than ASIDs: one that gets the ASID of another must not find its translations."""
    run(5, 800, True, vms=5, vcpus=6)
    monkeypatch.setattr(svm_vcpu, "flush", lambda vcpu: None)
    monkeypatch.setattr(release, "mem_release", lambda vm, first, count: 0)
    with pytest.raises(Stale):
        run(5, 800, True, vms=5, vcpus=6)
