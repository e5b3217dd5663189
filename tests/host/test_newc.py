"""cpio archives: what is written reads back the same, and cpio(1) agrees."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krait import newc

NAMES = st.text("abcdefghij/.-", min_size=1, max_size=20).filter(lambda name: name != newc.TRAILER)
MEMBERS = st.lists(st.builds(newc.Member, NAMES, st.binary(max_size=50), st.integers(0, 0o177777)), max_size=6)


@given(MEMBERS)
def test_what_is_written_reads_back(members: list[newc.Member]) -> None:
    archive = newc.write(members)
    assert list(newc.read(archive)) == members
    assert len(archive) % 4 == 0
    assert archive == newc.write(members)


@given(MEMBERS.filter(bool), st.data())
def test_a_cut_archive_is_refused(members: list[newc.Member], data: st.DataObject) -> None:
    archive = newc.write(members)
    trailer = archive.rindex(b"TRAILER!!!") - newc.HEADER_BYTES
    with pytest.raises(ValueError):
        list(newc.read(archive[: data.draw(st.integers(0, trailer))]))


def test_cpio_reads_it(tmp_path: Path) -> None:
    cpio = shutil.which("cpio")
    if cpio is None:
        pytest.skip("cpio(1) is not here to compare with")
    members = [newc.Member("d", mode=newc.S_IFDIR | 0o755), newc.Member("d/f", b"text\n"), newc.Member("l", b"d/f", newc.S_IFLNK | 0o777)]
    subprocess.run([cpio, "-i", "--quiet"], input=newc.write(members), cwd=tmp_path, check=True)
    assert (tmp_path / "d/f").read_text() == (tmp_path / "l").read_text() == "text\n"
