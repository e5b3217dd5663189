"""How far a competitor may be from the fluid share on one CPU, by what hypervisor/sched/eevdf.py proves; counted from joins and leaves.

All in quanta, for competitors that leave by themselves, running.
"""

from dataclasses import dataclass


@dataclass
class Competitor:
    """One that competes, and what has happened since it joined."""

    weight: int
    least: int  # weight of its level
    joins: int = 0
    leaves: int = 0
    forgone: float = 0.0  # what those that left may have been owed

    @property
    def part(self) -> float:
        """Its part of the level when that weighed least."""
        return self.weight / self.least


class Level:
    """Competitors by a key of the caller's."""

    def __init__(self) -> None:
        self.members: dict[int, Competitor] = {}
        self.weight = 0
        self.most = 0  # that competed at once, since nobody did

    def join(self, key: int, weight: int) -> None:
        """It begins to compete."""
        self.weight += weight
        for other in self.members.values():
            other.joins += 1
        self.members[key] = Competitor(weight, self.weight)
        self.most = max(self.most, len(self.members))

    def leave(self, key: int) -> None:
        """It does not compete any more."""
        lag = self.lag(key)
        self.weight -= self.members.pop(key).weight
        for other in self.members.values():
            other.leaves += 1
            other.forgone += lag
            other.least = min(other.least, self.weight)
        if not self.members:
            self.most = 0

    def lag(self, key: int) -> float:
        """The most by which it is behind the level's virtual time; it is ahead by 1 at most."""
        return 1 + self.most / 2 * self.members[key].part

    def behind(self, key: int) -> float:
        """The most by which it is behind the fluid share since it joined."""
        one = self.members[key]
        return 1 + self.lag(key) + (1 + one.leaves) * one.part

    def ahead(self, key: int) -> float:
        """The most by which it is ahead of that."""
        one = self.members[key]
        return 1 + (one.joins + one.forgone) * one.part


@dataclass
class _Part:
    """A vCPU's part of its VM: at first, now, and the sum of its changes."""

    first: float
    now: float
    changes: float = 0.0


class TwoLevels:
    """VMs, and the vCPUs of each, by number."""

    def __init__(self) -> None:
        self.vms = Level()
        self.inside: dict[int, Level] = {}
        self._parts: dict[int, _Part] = {}

    def join(self, vm: int, weight: int, vcpu: int, inner: int) -> None:
        """A vCPU of the weight `inner` begins to compete."""
        level = self.inside.setdefault(vm, Level())
        if not level.members:
            self.vms.join(vm, weight)
        level.join(vcpu, inner)
        self._change(level)

    def leave(self, vm: int, vcpu: int) -> None:
        """It does not any more."""
        level = self.inside[vm]
        level.leave(vcpu)
        del self._parts[vcpu]
        if not level.members:
            self.vms.leave(vm)
        self._change(level)

    def behind(self, vm: int, vcpu: int, single: bool) -> float:
        """The most by which a vCPU is behind since it began to compete; `single`: its VM has no other."""
        return self.vms.behind(vm) if single else self.inside[vm].behind(vcpu) + self._of_vm(vm, vcpu)

    def ahead(self, vm: int, vcpu: int, single: bool) -> float:
        """The most by which it is ahead."""
        return self.vms.ahead(vm) if single else self.inside[vm].ahead(vcpu) + self._of_vm(vm, vcpu)

    def _of_vm(self, vm: int, vcpu: int) -> float:
        part = self._parts[vcpu]
        return max(self.vms.behind(vm), self.vms.ahead(vm)) * (part.first + part.now + part.changes)

    def _change(self, level: Level) -> None:
        for key, one in level.members.items():
            now = one.weight / level.weight
            part = self._parts.setdefault(key, _Part(now, now))
            part.changes += abs(now - part.now)
            part.now = now
