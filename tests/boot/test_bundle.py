"""hypervisor/bundle.py against archives that host tools write, and against any bytes at all."""
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor import bundle
from hypervisor.addresses import Hpa
from hypervisor.bundle import Member
from hypervisor.lang import map_memory, text_address, unmap_memory
from hypervisor.status import Status
from krait import newc

BASE = 0x1000_0000


def load(archive: bytes) -> Status:
    """Take `archive` as the bundle; nothing is mapped behind its last byte."""
    map_memory(BASE, bytearray(archive or b"\0"))
    return bundle.init(Hpa(BASE), len(archive))


@pytest.fixture(autouse=True)
def _unmap() -> Iterator[None]:
    yield
    unmap()


def unmap() -> None:
    """Take the archive away."""
    try:
        unmap_memory(BASE)
    except KeyError:
        pass


names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40).filter(
    lambda name: name != newc.TRAILER)


@given(st.dictionaries(names, st.binary(max_size=50), max_size=6), names)
def test_every_member_is_found_and_no_other(files: dict[str, bytes], other: str) -> None:
    unmap()
    archive = newc.write(newc.Member(name, data) for name, data in files.items())
    assert load(archive) == Status.OK
    assert bundle.bundle.members == len(files)
    member = Member()
    for name, data in files.items():
        assert bundle.find(name, member) == Status.OK
        assert archive[member.hpa - BASE:][:member.size] == data
    if other not in files:
        assert bundle.find(other, member) == Status.NOT_FOUND


@settings(deadline=None)
@given(st.data())
def test_a_damaged_archive_is_refused_or_stays_within_its_bytes(data: st.DataObject) -> None:
    unmap()
    archive = bytearray(newc.write([newc.Member("a", b"x" * 30), newc.Member("b/c", b"yy")]))
    for _ in range(data.draw(st.integers(1, 4))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.sampled_from(b"0189afAFg\0\xff"))
    if load(bytes(archive[:data.draw(st.integers(0, len(archive)))])) == Status.OK:
        member = Member()
        if bundle.find("a", member) == Status.OK:
            assert BASE <= member.hpa and member.hpa + member.size <= BASE + bundle.bundle.size


def test_an_archive_cut_short_is_refused() -> None:
    archive = newc.write([newc.Member("a", b"x" * 30)])
    for length in range(len(archive) - 120):
        unmap()
        assert load(archive[:length]) == Status.BAD_ARGUMENT


def test_a_name_may_fill_its_field_without_a_nul() -> None:
    assert load(newc.write([newc.Member("kernel", b"1"), newc.Member("kernel2", b"2")])) == Status.OK
    member = Member()
    assert bundle.find_bytes(text_address("kernel2"), 6, member) == Status.OK
    assert member.size == 1 and bundle.bundle.members == 2
