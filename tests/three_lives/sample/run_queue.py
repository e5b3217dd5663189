"""A run queue: who is next by least virtual runtime."""
from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hypervisor.lang import copy, i32, struct, u8, u32, u64

TASKS: Final = 8
SCALE: Final[Annotated[list[u32], 4]] = [1024, 512, 256, 128]


class State(IntEnum):
    """Who may run."""

    FREE = 0
    READY = 1
    BLOCKED = 2


@struct
class Task:
    """One task."""

    vruntime: u64
    weight: u32
    state: State
    boosted: bool
    level: u8
    waits_for: Task | None


@struct
class Queue:
    """All tasks."""

    picks: u32
    tasks: Annotated[list[Task], TASKS]


def pick(queue: Queue) -> i32:
    """Index of the ready task with the least virtual runtime, -1 if there is none. A boosted one goes first."""
    best: i32 = -1
    for i in range(TASKS):
        task = queue.tasks[i]
        if task.state != State.READY:
            continue
        if best < 0 or task.boosted or task.vruntime < queue.tasks[best].vruntime:
            best = i
            if task.boosted:
                break
    if best >= 0:
        queue.picks += 1
    return best


def charge(queue: Queue, index: u32, ticks: u32) -> u64:
    """Charge ticks by weight and level; the new virtual runtime."""
    task = queue.tasks[index]
    scale: u64 = SCALE[task.level & 3]
    task.vruntime += ticks * scale // max(task.weight, 1)
    task.boosted = False
    return task.vruntime


def block_on(queue: Queue, index: u32, other: u32) -> None:
    """Let a task wait for another."""
    task = queue.tasks[index]
    task.waits_for = None if index == other else queue.tasks[other]
    task.state = State.BLOCKED if task.waits_for is not None else State.READY


def wake_all(queue: Queue, index: u32) -> u32:
    """Make the waiters of a task ready; how many."""
    woken: u32 = 0
    for task in queue.tasks:
        owner = task.waits_for
        if task.state == State.BLOCKED and owner is not None and owner == queue.tasks[index]:
            task.waits_for = None
            task.state = State.READY
            woken += 1
    return woken


def clone(queue: Queue, target: u32, source: u32) -> None:
    """Copy a task over another."""
    copy(queue.tasks[target], queue.tasks[source])


def class_of(state: State, weight: u32) -> u32:
    """A number for each class of task."""
    match state:
        case State.FREE:
            return 0
        case State.READY | State.BLOCKED if weight > 1000:
            return 1
        case State.READY:
            return 2
        case _:
            return 3
