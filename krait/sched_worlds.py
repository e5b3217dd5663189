"""The hypervisor's scheduling policies on the host, as they are: interpreted, or compiled into a host library.

A world has numbered vCPUs and the calls of `hypervisor/sched/policy.py` on them. The policies' state is global in both
lives, so there is one world of each kind at a time: a new one begins with everything zeroed.
"""

import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from hypervisor.cpu import cpus
from hypervisor.lang import address, clear
from hypervisor.model import Vcpu, Vm
from hypervisor.sched import bvt, credit, eevdf, fair_tree, lottery, policy, round_robin, run_queue, stride
from krait import paths

QUANTUM = 1_000_000
"""Ticks of the simulated time; the simulator takes them for nanoseconds."""

STATES: dict[str, Any] = {
    "run_queue.queue": run_queue.queue, "fair_tree.priorities": fair_tree.priorities, "eevdf.state": eevdf.state,
    "round_robin.state": round_robin.state, "stride.state": stride.state, "lottery.state": lottery.state,
    "bvt.state": bvt.state, "credit.state": credit.state, "policy.current": policy.current,
}  # fmt: skip
"""What the policies keep between calls, by name below hypervisor.sched; a new policy adds its own."""


class World(Protocol):
    """What the simulator needs; vCPUs and VMs by number."""

    def pick(self) -> int | None: ...
    def enqueue(self, vcpu: int) -> None: ...
    def requeue(self, vcpu: int) -> None: ...
    def dequeue(self, vcpu: int) -> None: ...
    def charge(self, vcpu: int, ticks: int, now: int) -> None: ...
    def slice_of(self, vcpu: int, now: int) -> int: ...
    def contended(self) -> bool: ...


VmShape = tuple[int, Sequence[int]]
"""Weight of a VM, and of its vCPUs among themselves."""


class Interpreted:
    """The modules as CPython runs them."""

    def __init__(self, which: int, vms: Sequence[VmShape]) -> None:
        for state in STATES.values():
            clear(state)
        clear(cpus[0])
        policy.start(QUANTUM)
        policy.select(which)
        self.vms: list[Vm] = []
        self.vcpus: list[Vcpu] = []
        self.numbers: dict[int, int] = {}
        for weight, members in vms:
            vm = Vm()
            vm.weight = weight
            self.vms.append(vm)
            for member in members:
                vcpu = Vcpu()
                vcpu.vm, vcpu.weight = vm, member
                self.numbers[address(vcpu)] = len(self.vcpus)
                self.vcpus.append(vcpu)

    def pick(self) -> int | None:
        vcpu = policy.pick(cpus[0])
        return None if vcpu is None else self.numbers[address(vcpu)]

    def enqueue(self, vcpu: int) -> None:
        policy.enqueue(self.vcpus[vcpu])

    def requeue(self, vcpu: int) -> None:
        policy.requeue(cpus[0], self.vcpus[vcpu])

    def dequeue(self, vcpu: int) -> None:
        policy.dequeue(self.vcpus[vcpu])

    def charge(self, vcpu: int, ticks: int, now: int) -> None:
        policy.charge(self.vcpus[vcpu], ticks, now)

    def slice_of(self, vcpu: int, now: int) -> int:
        return policy.slice_of(self.vcpus[vcpu], now)

    def contended(self) -> bool:
        return policy.contended()


class Compiled:
    """The same modules from a host library that `build` made."""

    def __init__(self, library: Any, which: int, vms: Sequence[VmShape]) -> None:
        self.library = library
        for name in STATES:
            kind = type(STATES[name])
            stored = library.storage(f"hypervisor.sched.{name}", library.struct(f"{kind.__module__}.{kind.__name__}"))
            ctypes.memset(ctypes.addressof(stored), 0, ctypes.sizeof(stored))
        self.cpu = library.storage("hypervisor.cpu.cpus", library.struct("hypervisor.model.Cpu"))
        ctypes.memset(ctypes.addressof(self.cpu), 0, ctypes.sizeof(self.cpu))
        calls = ("start", "select", "pick", "enqueue", "requeue", "dequeue", "charge", "slice_of", "contended")
        self._calls = {name: library.function(f"hypervisor.sched.policy.{name}") for name in calls}
        self._calls["start"](QUANTUM)
        self._calls["select"](which)
        vm_kind, vcpu_kind = library.struct("hypervisor.model.Vm"), library.struct("hypervisor.model.Vcpu")
        self.vms: list[Any] = []
        self.vcpus: list[Any] = []
        for weight, members in vms:
            vm = vm_kind(weight=weight)
            self.vms.append(vm)
            self.vcpus += [vcpu_kind(vm=ctypes.addressof(vm), weight=member) for member in members]
        self.numbers = {ctypes.addressof(vcpu): number for number, vcpu in enumerate(self.vcpus)}

    def pick(self) -> int | None:
        place = self._calls["pick"](self.cpu)
        return None if place is None else self.numbers[place]

    def enqueue(self, vcpu: int) -> None:
        self._calls["enqueue"](self.vcpus[vcpu])

    def requeue(self, vcpu: int) -> None:
        self._calls["requeue"](self.cpu, self.vcpus[vcpu])

    def dequeue(self, vcpu: int) -> None:
        self._calls["dequeue"](self.vcpus[vcpu])

    def charge(self, vcpu: int, ticks: int, now: int) -> None:
        self._calls["charge"](self.vcpus[vcpu], ticks, now)

    def slice_of(self, vcpu: int, now: int) -> int:
        return int(self._calls["slice_of"](self.vcpus[vcpu], now))

    def contended(self) -> bool:
        return bool(self._calls["contended"]())


def build(out: Path) -> Any:
    """Compile the policies into a host library below `out` and load it."""
    if str(paths.ROOT / "build") not in sys.path:
        sys.path.insert(0, str(paths.ROOT / "build"))
    import hostlib
    from host_library import HostLibrary

    hostlib.build(paths.ROOT, ["hypervisor.sched.policy"], out, sanitize=False)
    return HostLibrary(out)
