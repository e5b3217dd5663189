"""The hypercall handlers, interpreted, over the real memory side: results, refusals, waiting and running again."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor import board, guest_console, reboot, timers
from hypervisor.abi import (
    ABI_VERSION, EVENT_CONSOLE, EVENT_TIMER, EVENT_WAKE, HYPERCALL_BASE, Error, Hypercall, PageState)  # fmt: skip
from hypervisor.addresses import PAGE_SIZE, Gfn, Gpa, Hva
from hypervisor.arch_x86 import backend, serial
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.cpu import cpus
from hypervisor.handlers import hypercall
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import address, sext_i64
from hypervisor.memory import backing, guest_memory
from hypervisor.model import CONSOLE_INPUT_BYTES, WORK_INJECT, WORK_RESCHED, Vcpu, VmState
from hypervisor.status import Status
from hypervisor.sched import policy
from tests.memory.world import World, vcpu_of

PAGES = 64
END = PAGES * PAGE_SIZE
INFO = 0x3000


class Guest:
    """One VM of a world, making calls."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.vm = world.vm(PAGES)
        self.vcpu: Vcpu = vcpu_of(self.vm)
        self.vcpu.info_valid = False
        self.vmcb = Vmcb()
        self.vcpu.backend_hva = Hva(address(self.vmcb))
        for i, char in enumerate(b"ada"):
            self.vm.name[i] = char
        self.shown = bytearray()
        monkeypatch.setattr(serial, "put", self.shown.append)
        self.waits = 0

    def call(self, number: int, a: int = 0, b: int = 0, c: int = 0) -> Outcome:
        """One run of the handler; the result is in RAX."""
        regs = self.vcpu.regs
        regs.rax, regs.rdi, regs.rsi, regs.rdx = (HYPERCALL_BASE + number) % (1 << 64), a, b, c
        return hypercall.handle(self.vcpu, self.vcpu.exit)

    def result(self, number: int, a: int = 0, b: int = 0, c: int = 0) -> int:
        """The result of a call that goes on behind its instruction, run again while it waits."""
        outcome = self.call(number, a, b, c)
        while outcome == Outcome.WAIT:
            self.waits += 1
            outcome = self.call(number, a, b, c)
        assert outcome == Outcome.SKIP
        return sext_i64(self.vcpu.regs.rax)

    def write(self, gpa: int, data: bytes) -> None:
        for i, byte in enumerate(data):
            assert backing.back(self.vm, Gfn(gpa + i >> 12)) == Status.OK
            assert guest_memory.write_u8(self.vm, Gpa(gpa + i), byte) == Status.OK

    def read(self, gpa: int, count: int) -> bytes:
        return bytes(guest_memory.read_u8(self.vm, Gpa(gpa + i)) for i in range(count))


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guest]:
    world = World(400)
    backend.chosen.svm = True
    yield Guest(world, monkeypatch)
    world.check()
    world.close()


def test_version(guest: Guest) -> None:
    assert guest.result(Hypercall.VERSION) & 0xFFFFFFFF == ABI_VERSION


@pytest.mark.parametrize("number", [15, 16, 1 << 32, (1 << 64) - 1, -HYPERCALL_BASE, -1])
def test_unknown_numbers(guest: Guest, number: int) -> None:
    assert guest.result(number) == -Error.NO_SUCH_CALL


@pytest.mark.parametrize("cpl", [1, 2, 3])
def test_only_the_guest_kernel_may_call(guest: Guest, cpl: int) -> None:
    guest.vmcb.cpl = cpl
    for call in Hypercall:
        assert guest.result(call) == -Error.NOT_PERMITTED
    assert guest.vm.state == VmState.RUNNING


def test_console_write_is_escaped_and_in_lines(guest: Guest) -> None:
    guest.write(0xFFE, b"a\x1b[Kb\r\nc")
    assert guest.result(Hypercall.CONSOLE_WRITE, 0xFFE, 8) == 7  # one call shows one line
    assert guest.shown == b"[ada] a\\x1b[Kb\r\n"
    assert guest.result(Hypercall.CONSOLE_WRITE, 0xFFE + 7, 1) == 1
    guest_console.finish(guest.vm)
    assert guest.shown.endswith(b"[ada] c\r\n")


def test_console_write_in_pieces(guest: Guest) -> None:
    guest.write(0, b"x" * 600)
    done = 0
    while done < 600:
        done += guest.result(Hypercall.CONSOLE_WRITE, done, 600 - done)
    guest_console.finish(guest.vm)
    assert guest.shown.count(b"x") == 600


def test_console_read(guest: Guest) -> None:
    for byte in b"list":
        assert guest_console.type_byte(guest.vm, byte)
    board.typed(guest.vm)
    assert guest.vcpu.pending_events == EVENT_CONSOLE
    assert guest.result(Hypercall.CONSOLE_READ, 0x1FFE, 3) == 3
    assert guest.read(0x1FFE, 4) == b"lis\0"
    assert guest.result(Hypercall.CONSOLE_READ, 0x1FFE, 100) == 1
    assert guest.result(Hypercall.CONSOLE_READ, 0x1FFE, 100) == 0


def test_input_that_nobody_reads_is_bounded(guest: Guest) -> None:
    kept = sum(guest_console.type_byte(guest.vm, 0x41) for _ in range(1000))
    assert kept == CONSOLE_INPUT_BYTES - 1


def test_time_and_timer(guest: Guest) -> None:
    guest.vm.started_at = machine.tsc
    assert guest.result(Hypercall.TIMER_SET, 5000) == 0
    assert guest.vcpu.timer.heap_index != 0
    assert guest.vcpu.timer.deadline == guest.vm.started_at + 5000
    now = guest.result(Hypercall.TIME)
    assert now < guest.result(Hypercall.TIME)
    assert guest.result(Hypercall.TIMER_SET, 0) == 0
    assert guest.vcpu.timer.heap_index == 0
    assert guest.result(Hypercall.TIMER_SET, 1 << 56) == -Error.BAD_ARGUMENT


def test_timer_events_keep_their_distance(guest: Guest) -> None:
    """However near the next deadline, the host is interrupted once in 200 us; one further away is kept."""
    guest.vm.started_at = machine.tsc
    guest.result(Hypercall.TIMER_SET, 5000)
    machine.tsc = guest.vcpu.timer.deadline
    assert timers.expire(cpus[0]) is not None
    expired = machine.tsc
    guest.result(Hypercall.TIMER_SET, 6000)
    assert 0 <= guest.vcpu.timer.deadline - expired - timers.GUEST_PERIOD_LEAST_NS <= 1
    guest.result(Hypercall.TIMER_SET, 1_000_000)
    assert guest.vcpu.timer.deadline == guest.vm.started_at + 1_000_000


def test_block_without_setup(guest: Guest) -> None:
    assert guest.call(Hypercall.BLOCK) == Outcome.BLOCK
    guest.vcpu.pending_events = EVENT_TIMER
    assert guest.result(Hypercall.BLOCK) == 0
    assert guest.call(Hypercall.BLOCK) == Outcome.BLOCK


def test_block_counts_what_the_guest_has_not_taken(guest: Guest) -> None:
    cpus[0].work = 0
    assert guest.result(Hypercall.EVENTS_SETUP, INFO, 40) == 0
    assert cpus[0].work & WORK_INJECT
    assert guest.vcpu.event_vector == 40
    guest.write(INFO, b"\x08")
    assert guest.result(Hypercall.BLOCK) == 0
    guest.write(INFO, b"\0")
    guest.vcpu.event_interrupt = True
    assert guest.call(Hypercall.BLOCK) == Outcome.BLOCK
    assert not guest.vcpu.event_interrupt


def test_wake(guest: Guest) -> None:
    assert guest.result(Hypercall.WAKE, 0) == 0
    assert guest.vcpu.pending_events == EVENT_WAKE
    assert guest.result(Hypercall.WAKE, 1) == -Error.BAD_ARGUMENT


def test_yield_asks_the_policy(guest: Guest) -> None:
    cpus[0].work = 0
    assert guest.result(Hypercall.YIELD) == 0
    assert cpus[0].work & WORK_RESCHED


@pytest.mark.parametrize("which", list(policy.Policy))
def test_yield_lets_the_other_run_first(guest: Guest, which: policy.Policy) -> None:
    """Also where the one that yields has had far less CPU than the other."""
    other = vcpu_of(guest.world.vm(PAGES))
    assert policy.select(which, 0) == Status.OK
    policy.enqueue(other, 0)
    assert policy.pick(0, 0) == other
    policy.charge(other, 5_000_000, 5_000_000)
    policy.requeue(other, 0)
    policy.dequeue(other, 0)
    policy.enqueue(guest.vcpu, 0)
    assert policy.pick(0, 0) == guest.vcpu
    policy.enqueue(other, 0)
    policy.charge(guest.vcpu, 5, 5_000_005)
    assert guest.result(Hypercall.YIELD) == 0
    policy.requeue(guest.vcpu, 0)
    assert policy.pick(0, 0) == other
    policy.dequeue(other, 0)
    assert policy.pick(0, 0) == guest.vcpu
    assert policy.select(policy.Policy.EEVDF, 0) == Status.OK


def test_release_and_populate(guest: Guest) -> None:
    guest.write(0x5000, b"secret")
    assert guest.result(Hypercall.MEM_RELEASE, 5, 3) == 3
    assert guest.world.bytes_of(guest.vm, 5) is None
    assert guest.result(Hypercall.MEM_POPULATE, 5, 3) == 3
    assert guest.world.bytes_of(guest.vm, 5) == bytes(PAGE_SIZE)
    assert guest.result(Hypercall.PAGE_STATE, 5, 3, PageState.UNUSED) == 3


@pytest.mark.parametrize("call", [Hypercall.CONSOLE_WRITE, Hypercall.CONSOLE_READ, Hypercall.CRASH])
@pytest.mark.parametrize(("gpa", "count"), [(END, 1), (END - 1, 2), ((1 << 64) - 1, 64), (1 << 63, 1)])
def test_buffers_outside_memory(guest: Guest, call: Hypercall, gpa: int, count: int) -> None:
    assert guest.result(call, gpa, count) == -Error.BAD_ADDRESS


def test_random_waits_change_no_result(guest: Guest) -> None:
    guest_memory.random_wait.number = 12345
    guest.write(0, b"y" * 100 + b"\n")
    for _ in range(50):
        assert guest.result(Hypercall.CONSOLE_WRITE, 0, 101) == 101
    assert guest.waits > 0
    assert guest.shown.count(b"y") == 50 * 100


U64 = st.one_of(st.integers(0, (1 << 64) - 1), st.integers(0, 80), st.integers(END - 5000, END + 5000))
HARMLESS = [call for call in Hypercall if call not in (Hypercall.POWER_OFF, Hypercall.CRASH, Hypercall.REBOOT)]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(call=st.sampled_from(HARMLESS), a=U64, b=U64, c=U64)
def test_no_argument_harms(guest: Guest, call: Hypercall, a: int, b: int, c: int) -> None:
    """Whatever a guest passes: a result, a wait, or an error of the ABI; the ledger holds and the VM goes on."""
    outcome = guest.call(call, a, b, c)
    assert outcome in (Outcome.SKIP, Outcome.BLOCK, Outcome.WAIT)
    if outcome == Outcome.SKIP:
        result = sext_i64(guest.vcpu.regs.rax)
        assert result >= 0 or -result in [error.value for error in Error]
    assert guest.vm.state == VmState.RUNNING


def test_reboot_as_often_as_configured(guest: Guest) -> None:
    guest.vm.reboots_most = 1
    assert guest.call(Hypercall.REBOOT) == Outcome.STOP
    assert (guest.vm.state, guest.vm.reboots) == (VmState.REBOOTING, 1)
    assert guest.call(Hypercall.REBOOT) == Outcome.STOP
    assert (guest.vm.state, guest.vm.exit_code, guest.vm.reboots) == (VmState.ENDED, reboot.EXIT_CODE_RESET, 1)
