"""Guest memory against a byte array: pieces, pages never touched, holes, hostile addresses, random waits."""
from __future__ import annotations

from contextlib import closing
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor.addresses import PAGE_SIZE, Gpa, Hva
from hypervisor.lang import address, array, region_of, u8
from hypervisor.memory import guest_memory
from hypervisor.model import VcpuState
from hypervisor.status import Status
from tests.memory.world import World, vcpu_of

PAGES = 6
BYTES = PAGES * PAGE_SIZE
NEAR = st.builds(lambda page, offset: page * PAGE_SIZE + offset, st.integers(0, PAGES), st.integers(-20, 20)).filter(lambda gpa: gpa >= 0)
GPA = st.one_of(NEAR, st.integers(0, BYTES), st.integers(0, (1 << 64) - 1))
LENGTH = st.one_of(st.integers(0, 40), st.integers(0, 3 * PAGE_SIZE))
STEP = st.one_of(st.tuples(st.just("in"), GPA, LENGTH), st.tuples(st.just("out"), GPA, LENGTH),
                 st.tuples(st.just("load"), GPA, LENGTH),
                 st.tuples(st.sampled_from(["read", "write"]), GPA, st.sampled_from([1, 2, 4, 8])))
READ = {1: guest_memory.read_u8, 2: guest_memory.read_u16, 4: guest_memory.read_u32, 8: guest_memory.read_u64}
WRITE = {1: guest_memory.write_u8, 2: guest_memory.write_u16, 4: guest_memory.write_u32, 8: guest_memory.write_u64}


class Model:
    """What the guest's RAM holds."""

    def __init__(self) -> None:
        self.ram = bytearray(BYTES)
        self.number = 0

    def bytes_of(self, length: int) -> bytes:
        """Bytes not seen before."""
        self.number += 1
        return bytes((self.number * 7 + index) & 0xFF for index in range(length))

    def inside(self, gpa: int, length: int) -> bool:
        return gpa + length <= BYTES


@settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(st.lists(STEP, max_size=25))
def test_like_a_byte_array(steps: list[tuple[str, int, int]]) -> None:
    with closing(World(240)) as world:
        vm, model = world.vm(PAGES), Model()
        vcpu = vcpu_of(vm)
        buffer = array(u8, 4 * PAGE_SIZE)
        place = Hva(address(buffer))
        region, start = region_of(place, 4 * PAGE_SIZE)
        for what, gpa, length in steps:
            holes, inside = vm.holes_touched, model.inside(gpa, length)
            data = model.bytes_of(length)
            region.data[start:start + length] = data
            if what == "in":
                status = guest_memory.copy_in(vcpu, place, Gpa(gpa), length)
                assert status == (Status.OK if inside else Status.BAD_ADDRESS)
                assert region.data[start:start + length] == (model.ram[gpa:gpa + length] if inside else b"\xff" * length)
            elif what in ("out", "load"):
                status = guest_memory.copy_out(vcpu, Gpa(gpa), place, length) if what == "out" else \
                    guest_memory.load_image(vm, Gpa(gpa), place, length)
                assert status == (Status.OK if inside else Status.BAD_ADDRESS)
                if inside:
                    model.ram[gpa:gpa + length] = data
            else:
                numbers(world, model, what, gpa, length)
            if what in ("in", "out"):
                assert vm.holes_touched == holes + (not inside)
        assert guest_memory.copy_in(vcpu, place, Gpa(0), 4 * PAGE_SIZE) == Status.OK
        assert region.data[start:start + 4 * PAGE_SIZE] == model.ram[:4 * PAGE_SIZE]
        world.check()


def numbers(world: World, model: Model, what: str, gpa: int, size: int) -> None:
    """One number read or written."""
    vm: Any = world.vms[0]
    if what == "read":
        wanted = int.from_bytes(model.ram[gpa:gpa + size], "little") if model.inside(gpa, size) else (1 << 8 * size) - 1
        assert READ[size](vm, Gpa(gpa)) == wanted
        return
    value = int.from_bytes(model.bytes_of(size), "little")
    status = WRITE[size](vm, Gpa(gpa), value)
    crosses = gpa % PAGE_SIZE + size > PAGE_SIZE
    if not model.inside(gpa, size) or crosses:
        assert status == Status.BAD_ADDRESS
    elif status == Status.OK:
        model.ram[gpa:gpa + size] = value.to_bytes(size, "little")
    else:
        assert status == Status.WAIT and guest_memory.host_address(vm, Gpa(gpa)) == 0


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(GPA, st.one_of(LENGTH, st.integers(0, (1 << 64) - 1))), max_size=10))
def test_pinned_memory_is_there(ranges: list[tuple[int, int]]) -> None:
    with closing(World(240)) as world:
        vm = world.vm(PAGES)
        for gpa, length in ranges:
            status = guest_memory.pin(vcpu_of(vm), Gpa(gpa), length, True)
            assert status == (Status.OK if gpa + length <= BYTES else Status.BAD_ADDRESS)
            if status == Status.OK and length != 0:
                for page in range(gpa // PAGE_SIZE, (gpa + length - 1) // PAGE_SIZE + 1):
                    assert guest_memory.host_address(vm, Gpa(page * PAGE_SIZE)) != 0
        world.check()


def test_pins_wait_at_random_and_the_same_for_the_same_seed() -> None:
    """About one pin in eight answers WAIT, the vCPU stays runnable, and the next try has the same chances."""
    runs = []
    for _ in range(2):
        with closing(World(240)) as world:
            vm = world.vm(PAGES)
            guest_memory.start_random_waits(0x1234_5678_9ABC_DEF1)
            runs.append([guest_memory.pin(vcpu_of(vm), Gpa(0), 8, False) for _ in range(400)])
            assert VcpuState(vcpu_of(vm).state) is VcpuState.RUNNABLE
            assert guest_memory.random_wait.waits == runs[-1].count(Status.WAIT)
    assert runs[0] == runs[1]
    assert set(runs[0]) == {Status.OK, Status.WAIT} and 20 < runs[0].count(Status.WAIT) < 90


def test_nothing_waits_at_random_unless_started() -> None:
    with closing(World(240)) as world:
        vm = world.vm(PAGES)
        assert {guest_memory.pin(vcpu_of(vm), Gpa(0), 8, False) for _ in range(100)} == {Status.OK}


def test_a_pin_has_an_end() -> None:
    with closing(World(400)) as world:
        vm = world.vm(100)
        vcpu = vcpu_of(vm)
        assert guest_memory.pin(vcpu, Gpa(0), guest_memory.PIN_MOST, True) == Status.OK
        assert guest_memory.pin(vcpu, Gpa(0), guest_memory.PIN_MOST + 1, True) == Status.BAD_ADDRESS
