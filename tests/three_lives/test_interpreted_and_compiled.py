"""Random inputs give the same answers and the same bytes interpreted and compiled."""
from __future__ import annotations

import ctypes

from hypothesis import given, settings
from hypothesis import strategies as st

from host_library import HostLibrary
from hypervisor import lang
from hypervisor.addresses import Gpa, Hpa
from tests.three_lives.mirror import raw, same, shared_memory, twin
from tests.three_lives.sample import frames, ring, run_queue

MODULE = "tests.three_lives.sample"
WINDOW = (frames.FRAMES + 1) * 4096
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
INDEX = st.integers(0, run_queue.TASKS - 1)
TASK = st.tuples(st.integers(0, 2**50), U32, st.sampled_from(run_queue.State), st.booleans(), st.integers(0, 255))


@settings(deadline=None, max_examples=150)
@given(st.lists(TASK, min_size=8, max_size=8), INDEX, U32, INDEX)
def test_run_queue(library: HostLibrary, tasks: list[tuple[int, int, run_queue.State, bool, int]], index: int, ticks: int,
                   other: int) -> None:
    queue = run_queue.Queue()
    for task, values in zip(queue.tasks, tasks):
        task.vruntime, task.weight, task.state, task.boosted, task.level = values
    compiled = twin(library, queue)

    assert run_queue.pick(queue) == library.function(f"{MODULE}.run_queue.pick")(compiled)
    assert run_queue.charge(queue, index, ticks) == library.function(f"{MODULE}.run_queue.charge")(compiled, index, ticks)
    run_queue.clone(queue, index, other)
    library.function(f"{MODULE}.run_queue.clone")(compiled, index, other)
    for task in queue.tasks:
        assert run_queue.class_of(task.state, task.weight) == \
            library.function(f"{MODULE}.run_queue.class_of")(task.state, task.weight)
    assert same(queue, compiled)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(INDEX, INDEX), max_size=12))
def test_pointers_between_tasks(library: HostLibrary, pairs: list[tuple[int, int]]) -> None:
    queue = run_queue.Queue()
    compiled = twin(library, queue)
    for index, other in pairs:
        run_queue.block_on(queue, index, other)
        library.function(f"{MODULE}.run_queue.block_on")(compiled, index, other)
    for index in range(run_queue.TASKS):
        assert run_queue.wake_all(queue, index) == library.function(f"{MODULE}.run_queue.wake_all")(compiled, index)
    assert same(queue, compiled)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2**48 - 1), st.integers(0, 2**40)), max_size=30), U64)
def test_nested_tables(library: HostLibrary, pages: list[tuple[int, int]], odd: int) -> None:
    base, buffer = shared_memory(WINDOW)
    lang.map_memory(base, memory := bytearray(WINDOW))
    try:
        pool = frames.Pool()
        pool.base = Hpa(base)
        compiled = twin(library, pool)
        for gpa, frame in pages:
            frame = frame << 12
            assert frames.map_page(pool, Gpa(gpa), Hpa(frame)) == library.function(f"{MODULE}.frames.map_page")(compiled, gpa, frame)
        for gpa, _ in pages:
            assert frames.walk(pool, Gpa(gpa)) == library.function(f"{MODULE}.frames.walk")(compiled, gpa)
        for place in (odd, base, base + 5 * 4096, base + 4096 * 4096):
            assert frames.release(pool, Hpa(place)) == library.function(f"{MODULE}.frames.release")(compiled, place)
        assert same(pool, compiled)
        assert ctypes.string_at(base, WINDOW) == memory
    finally:
        lang.unmap_memory(base)
        del buffer


@settings(deadline=None, max_examples=100)
@given(st.lists(st.one_of(st.tuples(st.just("word"), U32), st.tuples(st.just("report"), U64), st.tuples(st.just("take"), U32)),
                max_size=25), U32, U32)
def test_ring_and_formatting(library: HostLibrary, operations: list[tuple[str, int]], start: int, kind: int) -> None:
    bytes_ring = ring.Ring()
    bytes_ring.head = bytes_ring.tail = start
    compiled = twin(library, bytes_ring)
    for name, value in operations:
        if name == "word":
            assert ring.put_word(bytes_ring, value) == library.function(f"{MODULE}.ring.put_word")(compiled, value)
        elif name == "report":
            ring.report(bytes_ring, kind, value, value % 2 == 1)
            library.function(f"{MODULE}.ring.report")(compiled, kind, value, value % 2 == 1)
        else:
            assert ring.take(bytes_ring) == library.function(f"{MODULE}.ring.take")(compiled)
    assert ring.checksum(bytes_ring, kind) == library.function(f"{MODULE}.ring.checksum")(compiled, kind)
    assert same(bytes_ring, compiled), (raw(bytes_ring), bytes(compiled))


def test_layouts_agree(library: HostLibrary) -> None:
    for kind in (run_queue.Task, run_queue.Queue, frames.Pool, ring.Ring, ring.Word):
        layout = library.layouts["structs"][f"{kind.__module__}.{kind.__name__}"]
        assert layout["size"] == lang.sizeof(kind)
        assert {name: field["offset"] for name, field in layout["fields"].items()} == \
            {name: lang.offsetof(kind, name) for name in layout["fields"]}
