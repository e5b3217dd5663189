"""The console that tests of booted machines hold: what it waits for, and what it says when that does not come."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from krait import tools
from krait.emulator import Emulator
from krait.machine import Machine, Media
from krait.result import Status
from qemu_tests.harness import Console, toml


@pytest.fixture(params=["qemu", "bochs"])
def console(request: pytest.FixtureRequest, image: Path, tmp_path: Path) -> Iterator[Console]:
    """The stand-in, booted."""
    if tools.BY_NAME["bochs" if request.param == "bochs" else "qemu-system-x86_64"].path() is None:
        pytest.skip(f"{request.param} is missing; mend it with: scripts/setup")
    made = Console(Emulator(Machine(request.param), Media(image, image), tmp_path), image, tmp_path)
    yield made
    made.close()


def test_lines_come_in_order_and_the_end_is_judged(console: Console) -> None:
    assert console.expect_line("ada", r"(\w+)\r\n")[1] == "one"
    console.expect_line("bob", "two")
    console.expect("krait> ")
    console.send("o")
    end = console.wait_end()
    assert (end.status, end.text) == (Status.OK, console.text)
    assert end.text.endswith("krait: exit 0x10\r\n")


def test_another_end_than_expected_fails(console: Console) -> None:
    console.send("g")
    with pytest.raises(AssertionError, match="ended as GUEST_FAILED; log .*console.log ends with:"):
        console.wait_end()


def test_an_end_without_a_word_is_a_reset(console: Console) -> None:
    console.expect("krait> ")
    console.send("t")
    assert console.wait_end(expected=Status.RESET).status is Status.RESET


def test_what_does_not_come_fails_with_the_last_lines_and_the_place(console: Console) -> None:
    console.expect("krait> ")
    with pytest.raises(AssertionError, match=r"'never' did not come within 0.5 s; log .*") as caught:
        console.expect("never", timeout=0.5)
    assert "[bob] two" in str(caught.value)
    assert ") in start, " in str(caught.value)


def test_what_had_not_come_at_the_end_fails(console: Console) -> None:
    console.send("o")
    with pytest.raises(AssertionError, match="had not come at the end"):
        console.expect("never")


def test_tables_become_a_configuration() -> None:
    text = toml([{"name": "a", "weight": 3}], "8MiB")
    assert text == '[machine]\nmemory_limit = "8MiB"\n[[vm]]\nname = "a"\nweight = 3\n'
