"""Every call with bad numbers and arguments; each must be refused with the error the ABI names."""
from typing import Annotated, Final

from guest_pv_drivers import events, hypercall, start_info
from guest_pv_drivers.console import say
from hypervisor.abi import ABI_VERSION, HYPERCALL_BASE, Error, Hypercall
from hypervisor.lang import address, i64, struct, u32, u64

BAD_ADDRESS: Final[u64] = 0xFFFFFFFFFFFFF000
LAST_CALL: Final = 14
BUFFER_CALLS: Final[Annotated[list[u64], 3]] = [Hypercall.CONSOLE_WRITE, Hypercall.CONSOLE_READ, Hypercall.CRASH]
RANGE_CALLS: Final[Annotated[list[u64], 3]] = [Hypercall.MEM_RELEASE, Hypercall.MEM_POPULATE, Hypercall.PAGE_STATE]


@struct
class Tally:
    """How it went."""

    tried: u64
    wrong: u64


tally: Final = Tally()


def expect(number: u64, a: u64, b: u64, c: u64, wanted: i64) -> None:
    """One call, and what it must answer."""
    got = hypercall.call(number, a, b, c)
    tally.tried += 1
    if got != wanted:
        tally.wrong += 1
        say(f"call {number:#x} ({a:#x}, {b:#x}, {c:#x}): {got}, wanted {wanted}")


def refused(number: u64, a: u64, b: u64, c: u64, error: Error) -> None:
    """One of Krait's calls that must fail."""
    expect(HYPERCALL_BASE + number, a, b, c, -i64(error))


def bad_numbers() -> None:
    """Numbers that are no call."""
    for i in range(LAST_CALL + 1, LAST_CALL + 100):
        expect(HYPERCALL_BASE + u64(i), 0, 0, 0, -i64(Error.NO_SUCH_CALL))
    for i in range(64):
        expect(u64(i), 0, 0, 0, -i64(Error.NO_SUCH_CALL))
    expect(HYPERCALL_BASE - 1, 0, 0, 0, -i64(Error.NO_SUCH_CALL))
    expect(HYPERCALL_BASE + (1 << 32), 0, 0, 0, -i64(Error.NO_SUCH_CALL))
    expect(HYPERCALL_BASE + (1 << 63), 0, 0, 0, -i64(Error.NO_SUCH_CALL))
    expect(BAD_ADDRESS, 0, 0, 0, -i64(Error.NO_SUCH_CALL))


def bad_addresses(end: u64) -> None:
    """Addresses outside this VM's memory; end is the first of them."""
    for call in BUFFER_CALLS:
        refused(call, end, 1, 0, Error.BAD_ADDRESS)
        refused(call, end - 1, 2, 0, Error.BAD_ADDRESS)
        refused(call, BAD_ADDRESS, 64, 0, Error.BAD_ADDRESS)
        refused(call, BAD_ADDRESS + 4095, 64, 0, Error.BAD_ADDRESS)
        refused(call, 1 << 63, 16, 0, Error.BAD_ADDRESS)
        refused(call, 0x1000, 4097, 0, Error.BAD_ARGUMENT)
        refused(call, 0x1000, BAD_ADDRESS, 0, Error.BAD_ARGUMENT)
    refused(Hypercall.EVENTS_SETUP, end, 32, 0, Error.BAD_ADDRESS)
    refused(Hypercall.EVENTS_SETUP, BAD_ADDRESS, 32, 0, Error.BAD_ADDRESS)


def bad_arguments(end: u64) -> None:
    """Values out of range; end is the first frame number behind this VM's memory."""
    refused(Hypercall.EVENTS_SETUP, address(events.shared), 31, 0, Error.BAD_ARGUMENT)
    refused(Hypercall.EVENTS_SETUP, address(events.shared), 256, 0, Error.BAD_ARGUMENT)
    refused(Hypercall.EVENTS_SETUP, address(events.shared) + 8, 32, 0, Error.BAD_ARGUMENT)
    refused(Hypercall.WAKE, start_info.get().vcpu_count, 0, 0, Error.BAD_ARGUMENT)
    refused(Hypercall.WAKE, BAD_ADDRESS, 0, 0, Error.BAD_ARGUMENT)
    refused(Hypercall.POWER_OFF, 256, 0, 0, Error.BAD_ARGUMENT)
    refused(Hypercall.PAGE_STATE, 1, 1, 4, Error.BAD_ARGUMENT)
    refused(Hypercall.PAGE_STATE, 1, 1, BAD_ADDRESS, Error.BAD_ARGUMENT)
    for call in RANGE_CALLS:
        refused(call, end, 1, 0, Error.BAD_ADDRESS)
        refused(call, end - 1, 2, 0, Error.BAD_ADDRESS)
        refused(call, 0, BAD_ADDRESS, 0, Error.BAD_ADDRESS)
        refused(call, BAD_ADDRESS, BAD_ADDRESS, 0, Error.BAD_ADDRESS)
        refused(call, BAD_ADDRESS, 4097, 0, Error.BAD_ADDRESS)


def bad_hypercalls() -> u32:
    """All of it; then a good call still works."""
    bad_numbers()
    bad_addresses(start_info.get().memory_bytes)
    bad_arguments(start_info.get().memory_bytes >> 12)
    for call in RANGE_CALLS:
        expect(HYPERCALL_BASE + call, 0, 0, 0, 0)
    version = hypercall.call0(Hypercall.VERSION)
    if u64(version) & 0xFFFFFFFF != ABI_VERSION:
        tally.wrong += 1
    say(f"bad hypercalls: {tally.tried} tried, {tally.wrong} wrong")
    return 0 if tally.wrong == 0 else 1
