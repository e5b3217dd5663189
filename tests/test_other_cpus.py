"""What one CPU does to a VM whose vCPU runs on another: its exits that were under way, and its broadcasts, in pieces."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypervisor import apic_bus, lock, vm, vm_control
from hypervisor.abi import Hypercall
from hypervisor.cpu import cpus, online
from hypervisor.devices import lapic
from hypervisor.devices.lapic import Message
from hypervisor.lang import clear
from hypervisor.memory import ledger_check, nested
from hypervisor.addresses import Gpa
from hypervisor.model import WORK_LOOK, VcpuState, Vm, VmState
from hypervisor.status import Status
from tests.memory.cluster import GUEST, Cluster, running

BOTH = pytest.mark.parametrize("cluster", [False, True], ids=["svm", "vtx"], indirect=True)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Two CPUs; a VM runs on the first."""
    clear(lock.lock)
    lock.acquire()
    online.count = 1
    with Cluster(monkeypatch, 2, request.param) as made:
        made.operate(made.hosts[0], lambda: made.make("a", 1))
        assert made.hosts[0].state == GUEST
        yield made
        assert ledger_check.check() == 0


def settle(cluster: Cluster) -> None:
    """Let the CPUs take their interrupts, one after the other, until there is nothing more to be done."""
    for _ in range(40):
        cluster.pass_time(2_000_000)
        for host in cluster.hosts:
            host.interrupt()


@BOTH
def test_a_reboot_is_not_undone_by_an_exit_under_way(cluster: Cluster) -> None:
    """The guest switches itself off while the operator starts it again."""
    first, second = cluster.hosts
    machine = running()[0]
    cluster.operate(second, lambda: None if vm_control.reboot(machine) == Status.OK else pytest.fail("refused"))
    first.hypercall(Hypercall.POWER_OFF, 7)
    settle(cluster)
    assert machine.state == VmState.RUNNING and machine.exit_code == 0


@BOTH
def test_an_exit_under_way_is_handled_when_the_vm_goes_on(cluster: Cluster) -> None:
    """Once, after the pause, wherever the vCPU runs then."""
    first, second = cluster.hosts
    machine = running()[0]
    first.touch(3, True)
    cluster.operate(second, lambda: None if vm_control.pause(machine) == Status.OK else pytest.fail("refused"))
    vcpu = first.vcpu
    before = list(vcpu.exits)
    first.hypercall(Hypercall.MEM_RELEASE, 3, 1)
    settle(cluster)
    assert nested.lookup(machine, Gpa(0x3000)) != 0 and not vcpu.on_cpu and list(vcpu.exits) == before
    cluster.operate(first, lambda: None if vm_control.resume(machine) == Status.OK else pytest.fail("refused"))
    settle(cluster)
    assert nested.lookup(machine, Gpa(0x3000)) == 0 and vcpu.on_cpu and machine.released_frames == 1


@BOTH
def test_the_hosts_interrupt_is_served_in_any_case(cluster: Cluster) -> None:
    """It ends a guest's run whose VM has been paused."""
    first, second = cluster.hosts
    machine = running()[0]
    cluster.operate(second, lambda: None if vm_control.pause(machine) == Status.OK else pytest.fail("refused"))
    assert first.interrupt() and not first.pending and not first.in_service
    assert not machine.vcpus[0].on_cpu  # type: ignore[union-attr]


def awake(machine: Vm) -> int:
    """How many vCPUs do not sleep."""
    return sum(member is not None and member.state == VcpuState.RUNNABLE for member in machine.vcpus)


def broadcast(machine: Vm) -> None:
    """An NMI for all, which wakes those who sleep."""
    message = Message()
    message.mode, message.destination = lapic.MODE_NMI, 0xFF
    assert apic_bus.send(machine, message)


@BOTH
def test_a_broadcast_wakes_a_few_at_a_time(cluster: Cluster) -> None:
    seen: list[int] = []
    first, second = cluster.hosts

    def operator() -> None:
        cluster.make("big", 64, awake=1)
        big = running()[1]
        broadcast(big)
        seen.append(awake(big))
        assert cpus[0].work & WORK_LOOK

    cluster.operate(first, operator)
    big = running()[1]
    assert seen == [1 + apic_bus.LOOKS - 1] and awake(big) == 64 and apic_bus.lookers.first is None and big.attention == 0


@BOTH
def test_a_vm_that_ends_has_nobody_to_wake(cluster: Cluster) -> None:
    first, second = cluster.hosts

    def operator() -> None:
        for name in ("one", "two", "three"):
            cluster.make(name, 64, awake=1)
        for big in running()[1:]:
            broadcast(big)
        vm_control.destroy(running()[2])

    cluster.operate(first, operator)
    settle(cluster)
    assert [awake(big) for big in running()[1:]] == [64, 64] and apic_bus.lookers.first is None


@BOTH
def test_a_vm_of_many_vcpus_starts_again_in_pieces(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """No piece makes or gives back more than some of them; one that is destroyed half way leaves nothing."""
    pieces: list[int] = []
    ends: list[Vm] = []
    begin = vm.create_vcpus_some

    def counted(machine: Vm) -> Status:
        before = sum(member is not None for member in machine.vcpus)
        status = begin(machine)
        pieces.append(sum(member is not None for member in machine.vcpus) - before)
        if ends:  # another CPU's operator comes in between
            vm_control.destroy(ends.pop())
        return status

    first, second = cluster.hosts
    cluster.operate(first, lambda: cluster.make("big", 64, awake=1))
    monkeypatch.setattr(vm, "create_vcpus_some", counted)
    big = running()[1]
    cluster.operate(first, lambda: None if vm_control.reboot(big) == Status.OK else pytest.fail("refused"))
    settle(cluster)
    assert big.state == VmState.RUNNING and sum(pieces) == 64 and max(pieces) == vm.VCPUS_A_PIECE
    pieces.clear()
    ends.append(big)
    cluster.operate(first, lambda: None if vm_control.reboot(big) == Status.OK else pytest.fail("refused"))
    settle(cluster)
    assert len(running()) == 1 and vm.table.vms[1] is None and vm.table.emptied is None
    assert sum(pieces) == vm.VCPUS_A_PIECE
