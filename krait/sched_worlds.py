"""The hypervisor's scheduling policies on the host, as they are: interpreted, or compiled into a host library.

A world has numbered vCPUs and the calls of `hypervisor/sched/policy.py` on them. The policies' state is global in both
lives, so there is one world of each kind at a time: a new one begins with everything zeroed.
"""

import ctypes
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hypervisor.lang import address, clear
from hypervisor.model import Vcpu, Vm
from hypervisor.sched import bvt, cap, cpus, credit, eevdf, fair_tree, lottery, policy, round_robin, run_queue, stride, trace
from krait import paths

QUANTUM = 1_000_000
"""Ticks of the simulated time; the simulator takes them for nanoseconds."""

STATES: dict[str, Any] = {
    "run_queue.queue": run_queue.queue, "fair_tree.priorities": fair_tree.priorities, "eevdf.state": eevdf.state,
    "round_robin.state": round_robin.state, "stride.state": stride.state, "lottery.state": lottery.state,
    "bvt.state": bvt.state, "credit.state": credit.state, "policy.current": policy.current, "cpus.host": cpus.host,
    "trace.trace": trace.trace,
}  # fmt: skip
"""What the policies keep between calls, by name below hypervisor.sched; a new policy adds its own."""


class World(Protocol):
    """What the simulator needs; vCPUs and VMs by number. Sets of CPUs are bit masks."""

    def pick(self, cpu: int, now: int) -> int | None: ...
    def enqueue(self, vcpu: int, now: int) -> int: ...
    def requeue(self, vcpu: int, now: int) -> None: ...
    def dequeue(self, vcpu: int, now: int) -> None: ...
    def charge(self, vcpu: int, ticks: int, now: int) -> None: ...
    def slice_of(self, vcpu: int, now: int) -> int: ...
    def stranded(self, now: int) -> int: ...
    def refill(self, vm: int, now: int) -> int: ...
    def is_refilling(self, vm: int) -> bool: ...
    def refill_at(self, vm: int) -> int | None: ...


WorldMaker = Callable[[int, "Sequence[VmShape]", int], World]
"""A policy, VMs, and the number of CPUs."""


@dataclass(frozen=True)
class VmShape:
    """A VM: its weight, and those of its vCPUs among themselves; its limits, 0: none."""

    weight: int
    vcpus: Sequence[int]
    cap: int = 0  # percent of a CPU
    period: int = 100 * QUANTUM
    reserved: int = 0  # percent of a CPU
    cpus: int = 0  # set of CPUs
    pins: Sequence[int] = ()  # the one CPU of each vCPU as a set, or 0; () for all 0

    @property
    def bound(self) -> bool:
        return self.cpus != 0 or any(self.pins)


class Interpreted:
    """The modules as CPython runs them."""

    def __init__(self, which: int, vms: Sequence[VmShape], cpu_count: int = 1) -> None:
        for state in STATES.values():
            clear(state)
        policy.start(QUANTUM, cpu_count)
        policy.select(which, 0)
        cpus.host.pinned = any(shape.bound for shape in vms)
        self.vms: list[Vm] = []
        self.vcpus: list[Vcpu] = []
        self.numbers: dict[int, int] = {}
        for shape in vms:
            vm = Vm()
            vm.weight, vm.reserved, vm.cpus = shape.weight, shape.reserved, shape.cpus
            cap.set_cap(vm, shape.cap, shape.period, 0)
            self.vms.append(vm)
            for index, member in enumerate(shape.vcpus):
                vcpu = Vcpu()
                vcpu.vm, vcpu.weight, vcpu.cpus = vm, member, shape.pins[index] if shape.pins else 0
                vm.vcpus[index] = vcpu
                self.numbers[address(vcpu)] = len(self.vcpus)
                self.vcpus.append(vcpu)

    def pick(self, cpu: int, now: int) -> int | None:
        vcpu = policy.pick(cpu, now)
        return None if vcpu is None else self.numbers[address(vcpu)]

    def enqueue(self, vcpu: int, now: int) -> int:
        return policy.enqueue(self.vcpus[vcpu], now)

    def requeue(self, vcpu: int, now: int) -> None:
        policy.requeue(self.vcpus[vcpu], now)

    def dequeue(self, vcpu: int, now: int) -> None:
        policy.dequeue(self.vcpus[vcpu], now)

    def charge(self, vcpu: int, ticks: int, now: int) -> None:
        policy.charge(self.vcpus[vcpu], ticks, now)

    def slice_of(self, vcpu: int, now: int) -> int:
        return policy.slice_of(self.vcpus[vcpu], now)

    def stranded(self, now: int) -> int:
        return policy.stranded(now)

    def refill(self, vm: int, now: int) -> int:
        return policy.refill(self.vms[vm], now)

    def is_refilling(self, vm: int) -> bool:
        return policy.is_refilling(self.vms[vm])

    def refill_at(self, vm: int) -> int | None:
        return self.vms[vm].cap.refill_at if cap.exhausted(self.vms[vm]) else None


class Compiled:
    """The same modules from a host library that `build` made."""

    def __init__(self, library: Any, which: int, vms: Sequence[VmShape], cpu_count: int = 1) -> None:
        self.library = library
        for name in STATES:
            kind = type(STATES[name])
            stored = library.storage(f"hypervisor.sched.{name}", library.struct(f"{kind.__module__}.{kind.__name__}"))
            ctypes.memset(ctypes.addressof(stored), 0, ctypes.sizeof(stored))
            if name == "cpus.host":
                stored.pinned = any(shape.bound for shape in vms)
        calls = ("start", "select", "pick", "enqueue", "requeue", "dequeue", "charge", "slice_of", "stranded", "refill", "is_refilling")
        self._calls = {name: library.function(f"hypervisor.sched.policy.{name}") for name in calls}
        self._calls["set_cap"] = library.function("hypervisor.sched.cap.set_cap")
        self._calls["start"](QUANTUM, cpu_count)
        self._calls["select"](which, 0)
        vm_kind, vcpu_kind = library.struct("hypervisor.model.Vm"), library.struct("hypervisor.model.Vcpu")
        self.vms: list[Any] = []
        self.vcpus: list[Any] = []
        for shape in vms:
            vm = vm_kind(weight=shape.weight, reserved=shape.reserved, cpus=shape.cpus)
            self._calls["set_cap"](vm, shape.cap, shape.period, 0)
            self.vms.append(vm)
            for index, member in enumerate(shape.vcpus):
                vcpu = vcpu_kind(vm=ctypes.addressof(vm), weight=member, cpus=shape.pins[index] if shape.pins else 0)
                vm.vcpus[index] = ctypes.addressof(vcpu)
                self.vcpus.append(vcpu)
        self.numbers = {ctypes.addressof(vcpu): number for number, vcpu in enumerate(self.vcpus)}

    def pick(self, cpu: int, now: int) -> int | None:
        place = self._calls["pick"](cpu, now)
        return None if place is None else self.numbers[place]

    def enqueue(self, vcpu: int, now: int) -> int:
        return int(self._calls["enqueue"](self.vcpus[vcpu], now))

    def requeue(self, vcpu: int, now: int) -> None:
        self._calls["requeue"](self.vcpus[vcpu], now)

    def dequeue(self, vcpu: int, now: int) -> None:
        self._calls["dequeue"](self.vcpus[vcpu], now)

    def charge(self, vcpu: int, ticks: int, now: int) -> None:
        self._calls["charge"](self.vcpus[vcpu], ticks, now)

    def slice_of(self, vcpu: int, now: int) -> int:
        return int(self._calls["slice_of"](self.vcpus[vcpu], now))

    def stranded(self, now: int) -> int:
        return int(self._calls["stranded"](now))

    def refill(self, vm: int, now: int) -> int:
        return int(self._calls["refill"](self.vms[vm], now))

    def is_refilling(self, vm: int) -> bool:
        return bool(self._calls["is_refilling"](self.vms[vm]))

    def refill_at(self, vm: int) -> int | None:
        cap_ = self.vms[vm].cap
        return int(cap_.refill_at) if cap_.percent and cap_.left <= 0 else None


def build(out: Path) -> Any:
    """Compile the policies into a host library below `out` and load it."""
    if str(paths.ROOT / "build") not in sys.path:
        sys.path.insert(0, str(paths.ROOT / "build"))
    import hostlib
    from host_library import HostLibrary

    hostlib.build(paths.ROOT, ["hypervisor.sched.policy"], out, sanitize=False)
    return HostLibrary(out)
