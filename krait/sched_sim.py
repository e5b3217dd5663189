"""A discrete-event simulator of one CPU, driving the hypervisor's own scheduling policies as its run loop does.

Time is in nanoseconds. A vCPU follows a behaviour: how long it wants the CPU, and how long it then sleeps. Beside what was
done the simulator keeps the fluid share over both levels (VM by weight, then vCPU by weight within it), in which everyone
that competes is served at once: lag is that less the service received, counted from when a vCPU began to compete.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from krait.sched_worlds import QUANTUM, World

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
    """A vCPU: its behaviour, its weight in its VM, and when it comes."""

    behaviour: Behaviour
    weight: int = 100
    begins: int = 0


@dataclass(frozen=True)
class Machine:
    """VMs: the weight and the vCPUs of each."""

    vms: Sequence[tuple[int, Sequence[Member]]]

    @property
    def shapes(self) -> list[tuple[int, list[int]]]:
        return [(weight, [member.weight for member in members]) for weight, members in self.vms]


@dataclass
class Task:
    """What the simulator knows of a vCPU."""

    vm: int
    member: Member
    left: int = 0  # of the time it wants to run
    pause: int = 0
    competes: bool = False
    service: int = 0
    lag: float = 0.0
    bound: float = 1.0  # quanta by which eevdf's docstring lets it be ahead; one more behind
    woken: int | None = None


@dataclass
class Outcome:
    """What a run showed. Decisions are (time, vCPU, slice)."""

    decisions: list[tuple[int, int | None, int]] = field(default_factory=list)
    service: list[int] = field(default_factory=list)
    lag_most: list[float] = field(default_factory=list)
    over_bound: float = 0.0  # most by which a lag was over its bound, in quanta
    latencies: list[int] = field(default_factory=list)
    switches: int = 0
    waited_most: list[int] = field(default_factory=list)


class Simulation:
    """One run of a machine under the policy of a world."""

    def __init__(self, world: World, machine: Machine) -> None:
        self.world, self.now = world, 0
        self.tasks = [Task(vm, member) for vm, (_, members) in enumerate(machine.vms) for member in members]
        self.weights = [weight for weight, _ in machine.vms]
        self.wakes = [(task.member.begins, number) for number, task in enumerate(self.tasks)]
        heapq.heapify(self.wakes)
        self.out = Outcome(lag_most=[0.0] * len(self.tasks), waited_most=[0] * len(self.tasks))
        self.since = [0] * len(self.tasks)  # when each was last seen running or began to wait
        self.rates: list[tuple[Task, int, float]] = []

    def run(self, until: int) -> Outcome:
        """Simulate to the time `until`."""
        running: int | None = None
        while self.now < until:
            if running is not None:
                self._put_back(running)
            previous, running = running, self.world.pick()
            slice_ = self._picked(running, previous)
            end = min(self.now + slice_, self.wakes[0][0] if self.wakes else until, until)
            if running is not None:
                end = min(end, self.now + self.tasks[running].left)
            self._pass(running, end)
            while self.wakes and self.wakes[0][0] <= self.now:
                self._wake(heapq.heappop(self.wakes)[1])
        self.out.service = [task.service for task in self.tasks]
        return self.out

    def _picked(self, running: int | None, previous: int | None) -> int:
        if running is None:
            self.out.decisions.append((self.now, None, 0))
            return FOREVER
        task = self.tasks[running]
        if running != previous:
            self.out.switches += 1
        if task.woken is not None:
            self.out.latencies.append(self.now - task.woken)
            task.woken = None
        self.out.waited_most[running] = max(self.out.waited_most[running], self.now - self.since[running])
        slice_ = self.world.slice_of(running, self.now) if self.world.contended() else FOREVER
        self.out.decisions.append((self.now, running, slice_))
        return slice_

    def _pass(self, running: int | None, end: int) -> None:
        """Time goes on, with one vCPU running: charge it, as the run loop does before anything else happens."""
        gone, self.now = end - self.now, end
        if running is None or not gone:
            return
        task = self.tasks[running]
        task.left -= gone
        task.service += gone
        task.lag -= gone
        self.since[running] = end
        self.world.charge(running, gone, end)
        for task, number, rate in self.rates:
            task.lag += gone * rate
            lag = task.lag / QUANTUM
            self.out.lag_most[number] = max(self.out.lag_most[number], abs(lag))
            self.out.over_bound = max(self.out.over_bound, -lag - task.bound, lag - task.bound - 1)

    def _put_back(self, number: int) -> None:
        task = self.tasks[number]
        if task.left > 0:
            self.world.requeue(number)
            return
        self.world.dequeue(number)
        self._compete(number, False)
        heapq.heappush(self.wakes, (self.now + task.pause, number))

    def _wake(self, number: int) -> None:
        task = self.tasks[number]
        task.left, task.pause = task.member.behaviour(self.now)
        if task.left <= 0:
            heapq.heappush(self.wakes, (self.now + task.pause, number))
            return
        self.since[number] = self.now
        task.woken = self.now
        self.world.enqueue(number)
        self._compete(number, True)

    def _compete(self, number: int, competes: bool) -> None:
        """Someone joins or leaves: shares of the fluid change, and each bound grows by weight / W (eevdf's docstring)."""
        task = self.tasks[number]
        task.competes, task.lag, task.bound = competes, 0.0, 1.0
        members = [0] * len(self.weights)
        for other in self.tasks:
            if other.competes:
                members[other.vm] += other.member.weight
        whole = sum(weight for weight, inside in zip(self.weights, members) if inside)
        self.rates = [(other, index, self.weights[other.vm] / whole * other.member.weight / members[other.vm])
                      for index, other in enumerate(self.tasks) if other.competes]  # fmt: skip
        for other, _, rate in self.rates:
            if other is not task:
                without = self.weights[task.vm] if competes else 0
                other.bound += self.weights[other.vm] / max(whole - without, 1)


def spinners(weights: Sequence[int]) -> Machine:
    """A VM of one spinning vCPU for each weight."""
    return Machine([(weight, [Member(spin(), weight)]) for weight in weights])


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


def workloads() -> Iterator[tuple[str, Machine]]:
    """Those of `krait bench sched`; made anew each time, for behaviours have a memory."""
    yield "16 spin, 1:2:4:8", spinners([100, 200, 400, 800] * 4)
    yield "two levels", two_levels()
    yield "6 sleep, 2 spin", server()
    yield "gamer, spinner", attack()
