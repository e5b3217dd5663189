"""docs/abi.md lists the ABI of hypervisor/abi.py: each call, error, event and page state, by its number."""

import re
from pathlib import Path

from hypervisor import abi
from hypervisor.handlers import hypercall

DOCUMENT = (Path(__file__).parents[2] / "docs" / "abi.md").read_text()


def table(pattern: str) -> dict[str, int]:
    """Name and number of the table rows that match `pattern` (groups `name`, `number`)."""
    return {row["name"]: int(row["number"]) for row in re.finditer(pattern, DOCUMENT, re.MULTILINE)}


def test_every_call() -> None:
    assert table(r"^\| (?P<number>\d+) \| `(?P<name>\w+)` \|") == {call.name: call.value for call in abi.Hypercall}


def test_every_error() -> None:
    errors = table(r"^\| `(?P<name>(?!EVENT)[A-Z_]+)` \| (?P<number>\d+) \|")
    assert errors == {error.name: error.value for error in abi.Error}


def test_every_event() -> None:
    events = table(r"^\| `(?P<name>EVENT_\w+)` \| (?P<number>\d+) \|")
    assert events == {name: value for name, value in vars(abi).items() if name.startswith("EVENT_")}


def test_every_page_state() -> None:
    states = table(r"`(?P<name>[A-Z]+)` \((?P<number>\d)\):")
    assert states == {state.name: state.value for state in abi.PageState}


def test_errors_of_calls_exist() -> None:
    for row in re.finditer(r"^\| \d+ \| .* \| ([^|]*) \|$", DOCUMENT, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", row[1]):
            assert name in abi.Error.__members__, row[0]


def test_the_table_of_handlers_is_complete() -> None:
    assert abi.HYPERCALL_COUNT == len(abi.Hypercall) == len(hypercall.CALLS)
    names = {abi.Hypercall.YIELD: "yield_cpu", abi.Hypercall.PAGE_STATE: "set_page_state",
             abi.Hypercall.CONSOLE_READ: "read", abi.Hypercall.CONSOLE_WRITE: "write"}  # fmt: skip
    for call in abi.Hypercall:
        assert hypercall.CALLS[call].__name__ == names.get(call, call.name.lower())
