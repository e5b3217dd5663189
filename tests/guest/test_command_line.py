"""The parameters of a guest's command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest_pv_drivers import command_line, start_info
from hypervisor.abi import ABI_VERSION, START_INFO_MAGIC, StartInfo
from hypervisor.lang import address


def give(text: str) -> None:
    """Start the kernel's view of a machine with this command line."""
    info = StartInfo()
    info.magic = START_INFO_MAGIC
    info.version = ABI_VERSION
    for i, char in enumerate(text.encode()):
        info.cmdline[i] = char
    kept.append(info)
    assert start_info.init(address(info))


kept: list[StartInfo] = []


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("workload=spin ms=300", "ms", 300),
        ("workload=spin ms=300", "step", 7),
        ("ms=", "ms", 0),
        ("items=5 ms=12x", "ms", 12),
        ("xms=5", "ms", 7),
        ("ms", "ms", 7),
        ("", "ms", 7),
    ],
)
def test_number(line: str, key: str, value: int) -> None:
    give(line)
    assert command_line.number(key, 7) == value


@pytest.mark.parametrize(
    ("line", "found"),
    [("role=give", True), ("a=b role=give c=d", True), ("role=giver", False), ("role=giv", False), ("xrole=give", False), ("", False)],
)
def test_has_value(line: str, found: bool) -> None:
    give(line)
    assert command_line.has_value("role", "give") is found


@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.integers(0, 10**12), max_size=8))
def test_all_parameters_are_found(parameters: dict[str, int]) -> None:
    give(" ".join(f"{key}={value}" for key, value in parameters.items()))
    for key, value in parameters.items():
        assert command_line.number(key, 1) == value


def test_a_line_that_fills_its_room() -> None:
    give("x" * 1018 + " a=12"[:5])
    assert command_line.number("a", 0) == 12


def test_start_info_of_another_version_is_refused() -> None:
    info = StartInfo()
    info.magic = START_INFO_MAGIC
    info.version = ABI_VERSION + 1
    assert not start_info.init(address(info))
