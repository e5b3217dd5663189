"""The screen: lines of guests are told apart however the bytes are cut."""

import io

import pytest

from krait.screen import Screen

CONSOLE = b"krait: up\r\n[ada] one\r\n[bob] two\r\nkrait> li\r\x1b[K[ada] three\r\nkrait> li"


def shown(chunks: list[bytes], guests: tuple[str, ...] = (), only: str | None = None) -> str:
    """What a screen prints for `chunks`."""
    stream = io.BytesIO()
    screen = Screen(stream, guests, only)
    for chunk in chunks:
        screen.feed(chunk)
    screen.finish()
    return stream.getvalue().decode()


def cuts(size: int) -> list[bytes]:
    """The console in pieces of `size` bytes."""
    return [CONSOLE[start : start + size] for start in range(0, len(CONSOLE), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_plain_changes_line_ends_only(size: int) -> None:
    assert shown(cuts(size)) == CONSOLE.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_each_guest_has_its_colour(size: int) -> None:
    text = shown(cuts(size), ("ada", "bob"))
    assert text == (
        "krait: up\n\x1b[36m[ada] \x1b[0mone\n\x1b[33m[bob] \x1b[0mtwo\nkrait> li\r\x1b[K\x1b[36m[ada] \x1b[0mthree\nkrait> li"
    )


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_one_guest_alone_has_no_prefix(size: int) -> None:
    assert shown(cuts(size), only="ada") == "one\nthree\n"


def test_a_prompt_shows_at_once() -> None:
    stream = io.BytesIO()
    Screen(stream).feed(b"up\r\nkrait> ")
    assert stream.getvalue() == b"up\nkrait> "
