"""A discrete-event simulator of host CPUs, driving the hypervisor's own scheduling policies as its run loop does.

Time is in nanoseconds. A vCPU follows a behaviour: how long it wants a CPU, and how long it then sleeps. Beside what was
done the simulator keeps the fluid share (fluid.py: VMs by weight and limits, then vCPUs by weight within each), in which
everyone that competes is served at once: lag is that less the service received, counted from when a vCPU began to compete.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from krait import fluid
from krait.sched_bounds import TwoLevels
from krait.sched_worlds import QUANTUM, VmShape, World

FOREVER = 1 << 62
Behaviour = Callable[[int], tuple[int, int]]
"""Asked whenever a vCPU has no plan: from the time to (the time it wants to run from now on, the time it sleeps then)."""


def spin() -> Behaviour:
    """Always wants the CPU."""
    return lambda now: (FOREVER, 0)


def sleeper(run: int, pause: int, seed: int) -> Behaviour:
    """Runs and sleeps in turn, each around the time given (uniform from half to one and a half)."""
    random = Random(seed)
    return lambda now: (random.randint(run // 2, run * 3 // 2), random.randint(pause // 2, pause * 3 // 2))


def gamer(tick: int = 10 * QUANTUM, margin: int = QUANTUM // 10) -> Behaviour:
    """Runs to just short of the tick and sleeps over it: what fools schedulers that charge who is seen at the tick."""

    def plan(now: int) -> tuple[int, int]:
        left = tick - now % tick
        return (left - margin, 2 * margin) if left > 2 * margin else (0, left + margin)

    return plan


@dataclass(frozen=True)
class Member:
    """A vCPU: its behaviour, its weight in its VM, when it comes, and where it is pinned."""

    behaviour: Behaviour
    weight: int = 100
    begins: int = 0
    cpus: int = 0  # the one CPU that it is pinned to as a set, or 0


@dataclass(frozen=True)
class Limits:
    """Of a VM; 0: none."""

    cap: int = 0  # percent of a CPU
    period: int = 100 * QUANTUM
    reserved: int = 0  # percent of a CPU
    cpus: int = 0  # set of CPUs, one bit each


@dataclass(frozen=True)
class Machine:
    """VMs: the weight and the vCPUs of each; limits by the VM's number; host CPUs."""

    vms: Sequence[tuple[int, Sequence[Member]]]
    cpus: int = 1
    limits: Mapping[int, Limits] = field(default_factory=dict)

    @property
    def shapes(self) -> list[VmShape]:
        shapes = []
        for number, (weight, members) in enumerate(self.vms):
            limits = self.limits.get(number, Limits())
            shapes.append(VmShape(weight, [member.weight for member in members], limits.cap, limits.period, limits.reserved,
                                  limits.cpus, [member.cpus for member in members]))  # fmt: skip
        return shapes


@dataclass
class Task:
    """What the simulator knows of a vCPU."""

    vm: int
    member: Member
    left: int = 0  # of the time it wants to run
    pause: int = 0
    competes: bool = False
    service: int = 0
    fluid: float = 0.0
    lag: float = 0.0
    behind: float = 0.0  # quanta by which eevdf's docstring lets it be behind on one CPU, and ahead
    ahead: float = 0.0
    woken: int | None = None


@dataclass
class Outcome:
    """What a run showed. Decisions are (time, CPU, vCPU, slice)."""

    decisions: list[tuple[int, int, int | None, int]] = field(default_factory=list)
    service: list[int] = field(default_factory=list)
    fluid: list[float] = field(default_factory=list)  # service of the fluid share
    lag_most: list[float] = field(default_factory=list)
    lag_greatest: float = 0.0  # most that anyone was behind, in quanta
    lag_least: float = 0.0  # most ahead, negative
    over_bound: float = 0.0  # most by which a lag was over its bound, in quanta
    latencies: list[int] = field(default_factory=list)
    switches: int = 0
    moves: int = 0  # to another CPU than the last
    idle: int = 0  # of all CPUs together, while somebody could have run
    waited_most: list[int] = field(default_factory=list)


class Simulation:
    """One run of a machine under the policy of a world, which has as many CPUs."""

    def __init__(self, world: World, machine: Machine) -> None:
        self.world, self.machine, self.now = world, machine, 0
        self.tasks = [Task(vm, member) for vm, (_, members) in enumerate(machine.vms) for member in members]
        self.wakes = [(task.member.begins, number) for number, task in enumerate(self.tasks)]
        heapq.heapify(self.wakes)
        self.running: list[int | None] = [None] * machine.cpus
        self.ends = [FOREVER] * machine.cpus
        self.out = Outcome(lag_most=[0.0] * len(self.tasks), waited_most=[0] * len(self.tasks))
        self.since = [0] * len(self.tasks)  # when each was last seen running or began to wait
        self.rates: list[tuple[Task, int, float]] = []
        self.on_cpu: dict[int, int] = {}  # where each ran last
        self.bounds = TwoLevels()

    def run(self, until: int) -> Outcome:
        """Simulate to the time `until`."""
        ask = 0
        while self.now < until:
            while ask:
                for cpu in range(self.machine.cpus):
                    if ask >> cpu & 1:
                        self._switch(cpu)
                ask = self.world.stranded(self.now)
            refills = [(at, vm) for vm in self.machine.limits if (at := self.world.refill_at(vm)) is not None]
            wake = self.wakes[0][0] if self.wakes else until
            self._pass(max(self.now, min(until, wake, *self.ends, *(at for at, _ in refills))))
            while self.wakes and self.wakes[0][0] <= self.now:
                ask |= self._wake(heapq.heappop(self.wakes)[1])
            for at, vm in refills:
                if at <= self.now:
                    ask |= self.world.refill(vm, self.now)
                    while self.world.is_refilling(vm):
                        ask |= self.world.refill(vm, self.now)
            ask |= sum(1 << cpu for cpu, end in enumerate(self.ends) if end <= self.now)
        self.out.service = [task.service for task in self.tasks]
        self.out.fluid = [task.fluid for task in self.tasks]
        return self.out

    def _switch(self, cpu: int) -> None:
        """What the run loop does when it is asked to."""
        previous = self.running[cpu]
        if previous is not None:
            self._put_back(previous)
        picked = self.running[cpu] = self.world.pick(cpu, self.now)
        if picked is None:
            self.ends[cpu] = FOREVER
            self.out.decisions.append((self.now, cpu, None, 0))
            return
        task = self.tasks[picked]
        self.out.switches += picked != previous
        self.out.moves += self.on_cpu.get(picked, cpu) != cpu
        self.on_cpu[picked] = cpu
        if task.woken is not None:
            self.out.latencies.append(self.now - task.woken)
            task.woken = None
        self.out.waited_most[picked] = max(self.out.waited_most[picked], self.now - self.since[picked])
        slice_ = min(self.world.slice_of(picked, self.now), FOREVER)
        self.out.decisions.append((self.now, cpu, picked, slice_))
        self.ends[cpu] = self.now + min(slice_, task.left)

    def _pass(self, end: int) -> None:
        """Time goes on: charge who runs, as the run loop does before anything else happens."""
        gone, self.now = end - self.now, end
        if not gone:
            return
        for number in self.running:
            if number is not None:
                task = self.tasks[number]
                task.left -= gone
                task.service += gone
                task.lag -= gone
                self.since[number] = end
                self.world.charge(number, gone, end)
        wanted = sum(task.competes for task in self.tasks) - sum(number is not None for number in self.running)
        self.out.idle += gone * min(max(wanted, 0), self.running.count(None))
        for task, number, rate in self.rates:
            task.lag += gone * rate
            task.fluid += gone * rate
            lag = task.lag / QUANTUM
            self.out.lag_most[number] = max(self.out.lag_most[number], abs(lag))
            self.out.lag_greatest, self.out.lag_least = max(self.out.lag_greatest, lag), min(self.out.lag_least, lag)
            self.out.over_bound = max(self.out.over_bound, -lag - task.ahead, lag - task.behind)

    def _put_back(self, number: int) -> None:
        task = self.tasks[number]
        if task.left > 0:
            self.world.requeue(number, self.now)
            return
        self.world.dequeue(number, self.now)
        self.compete(number, False)
        heapq.heappush(self.wakes, (self.now + task.pause, number))

    def _wake(self, number: int) -> int:
        task = self.tasks[number]
        task.left, task.pause = task.member.behaviour(self.now)
        if task.left <= 0:
            heapq.heappush(self.wakes, (self.now + task.pause, number))
            return 0
        self.since[number] = self.now
        task.woken = self.now
        ask = self.world.enqueue(number, self.now)
        self.compete(number, True)
        return ask

    def compete(self, number: int, competes: bool) -> None:
        """Someone joins or leaves: shares of the fluid change, and each bound (sched_bounds.py)."""
        task = self.tasks[number]
        task.competes, task.lag = competes, 0.0
        if competes:
            self.bounds.join(task.vm, self.machine.vms[task.vm][0], number, task.member.weight)
        else:
            self.bounds.leave(task.vm, number)
        inside: dict[tuple[int, int | None], list[tuple[Task, int]]] = {}  # a VM's, or a pinned one by itself
        whole = Counter[int]()
        for index, other in enumerate(self.tasks):
            if other.competes:
                inside.setdefault((other.vm, index if other.member.cpus else None), []).append((other, index))
                whole[other.vm] += 1
        rates = fluid.rates([self._demand(vm, len(members), whole[vm], members[0][0].member.cpus) for (vm, _), members in inside.items()],
                            self.machine.cpus)  # fmt: skip
        self.rates = []
        for rate, members in zip(rates, inside.values()):
            weights = sum(other.member.weight for other, _ in members)
            self.rates += [(other, index, rate * other.member.weight / weights) for other, index in members]
        for other, index, _ in self.rates:
            single = len(self.machine.vms[other.vm][1]) == 1
            other.behind, other.ahead = self.bounds.behind(other.vm, index, single), self.bounds.ahead(other.vm, index, single)

    def _demand(self, vm: int, members: int, of: int, pinned: int) -> fluid.Demand:
        """Of `members` of the `of` vCPUs of a VM that compete."""
        limits = self.machine.limits.get(vm, Limits())
        cpus = pinned or limits.cpus or (1 << self.machine.cpus) - 1
        ceiling = min(float(members), float(cpus.bit_count()), limits.cap / 100 * members / of if limits.cap else FOREVER)
        return fluid.Demand(self.machine.vms[vm][0] * members / of, min(limits.reserved / 100, ceiling), ceiling, cpus)


def spinners(weights: Sequence[int], cpus: int = 1) -> Machine:
    """A VM of one spinning vCPU for each weight."""
    return Machine([(weight, [Member(spin(), weight)]) for weight in weights], cpus)


def attack() -> Machine:
    """A gamer beside an honest spinner of the same weight."""
    return Machine([(100, [Member(gamer())]), (100, [Member(spin())])])


def server(sleepers: int = 6, spinning: int = 2) -> Machine:
    """Short jobs that sleep most of the time beside spinners, all of one weight."""
    light = [(100, [Member(sleeper(300_000, 8_000_000, seed))]) for seed in range(sleepers)]
    return Machine([*light, *((100, [Member(spin())]) for _ in range(spinning))])


def two_levels() -> Machine:
    """A VM of eight spinning vCPUs, one of four at double weight, one of a single vCPU."""
    return Machine([(100, [Member(spin()) for _ in range(8)]), (200, [Member(spin()) for _ in range(4)]),
                    (100, [Member(spin())])])  # fmt: skip


def mixed() -> Machine:
    """On two CPUs: one that weighs more than a CPU, spinners, short jobs; one VM capped, one with a reservation."""
    light = [(100, [Member(sleeper(300_000, 8_000_000, seed))]) for seed in range(4)]
    return Machine([(5000, [Member(spin())]), (100, [Member(spin()), Member(spin())]), (400, [Member(spin())]), (50, [Member(spin())]),
                    *light], 2, {2: Limits(cap=30), 3: Limits(reserved=20)})  # fmt: skip


def workloads() -> Iterator[tuple[str, Machine]]:
    """Those of `krait bench sched`; made anew each time, for behaviours have a memory."""
    yield "16 spin, 1:2:4:8", spinners([100, 200, 400, 800] * 4)
    yield "16 spin, 2 CPUs", spinners([100, 200, 400, 800] * 4, 2)
    yield "two levels", two_levels()
    yield "6 sleep, 2 spin", server()
    yield "limits, 2 CPUs", mixed()
    yield "gamer, spinner", attack()
