"""Device state saved and restored by the generated tables: every byte that is not padding comes back, and nothing else is taken for it."""
from __future__ import annotations

import ctypes
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hostlib
import saved_layouts as generator
from host_library import HostLibrary
from hypervisor import saved_state, saved_vm
from hypervisor.abi import VM_KIND_LINUX
from hypervisor.addresses import Hva
from hypervisor.devices import platform
from hypervisor.lang import address, array, region_of, sizeof, u8
from hypervisor.model import Vcpu
from hypervisor.saved_layouts import BYTES, FIRST, LENGTHS, OFFSETS, Piece
from hypervisor.status import Status
from hypervisor.virtio import devices
from hypervisor.virtio.state import CONSOLE_QUEUES, DeviceKind
from tests.devices.scripts import STEPS, Step
from tests.linux.stock import Stock

ROOT = Path(__file__).resolve().parents[2]
MODULE = "hypervisor.saved_state"


def hva(of: object) -> Hva:
    return Hva(address(of))


def bytes_at(place: int, size: int) -> bytearray:
    region, offset = region_of(place, size)
    return region.data[offset:offset + size]


def fill(place: int, data: bytes) -> None:
    region, offset = region_of(place, len(data))
    region.data[offset:offset + len(data)] = data


def test_the_tables_are_those_of_the_structs() -> None:
    """Else: .venv/bin/python build/saved_layouts.py > hypervisor/saved_layouts.py."""
    assert (ROOT / "hypervisor" / "saved_layouts.py").read_text() == generator.text()


def test_an_address_cannot_be_saved() -> None:
    with pytest.raises(TypeError, match="Vcpu.vm is an address"):
        generator.runs_of(Vcpu, ("vm",))


@pytest.mark.parametrize("piece", list(Piece), ids=lambda piece: piece.name)
def test_every_piece_comes_back(piece: Piece) -> None:
    """Random bytes in, the same out, into a struct of other bytes; padding and neighbours are left alone."""
    cls = generator.struct_of(piece.name)
    one, other = cls(), cls()
    size = sizeof(cls)
    chance = random.Random(piece)
    fill(address(one), chance.randbytes(size))
    before = chance.randbytes(size)
    fill(address(other), before)
    record = array(u8, saved_state.bytes_of(piece))
    saved_state.save(piece, hva(one), hva(record))
    assert saved_state.check(piece, hva(record), len(record)) == Status.OK
    saved_state.load(piece, hva(record), hva(other))
    meant = {offset + byte for offset, length in zip(OFFSETS, LENGTHS, strict=True) for byte in range(length)
             if (offset, length) in list(zip(OFFSETS, LENGTHS, strict=True))[FIRST[piece]:FIRST[piece + 1]]}
    first, second = bytes_at(address(one), size), bytes_at(address(other), size)
    assert len(meant) == BYTES[piece]
    assert all(second[place] == (first if place in meant else before)[place] for place in range(size))


@pytest.mark.parametrize("piece", [Piece.UART, Piece.VIRTIO], ids=lambda piece: piece.name)
def test_a_damaged_record_is_refused(piece: Piece) -> None:
    """Any byte changed, too little left, or of another piece."""
    record = array(u8, saved_state.bytes_of(piece))
    state = generator.struct_of(piece.name)()
    saved_state.save(piece, hva(state), hva(record))
    assert saved_state.check(piece, hva(record), len(record) - 1) == Status.BAD_ARGUMENT
    assert saved_state.check(Piece.HPET, hva(record), 1 << 20) == Status.BAD_ARGUMENT
    for place in range(len(record)):
        record[place] ^= 0x10
        assert saved_state.check(piece, hva(record), len(record)) == Status.BAD_ARGUMENT, place
        record[place] ^= 0x10
    assert saved_state.check(piece, hva(record), len(record)) == Status.OK


def drive(stock: Stock, steps: list[Step]) -> None:
    """A guest at its ports."""
    p, now = stock.platform, 0
    for kind, port, size, value, pause in steps:
        now += pause
        if kind == "r":
            platform.read(p, port, size, now)
        elif kind == "w":
            platform.write(p, port, size, value & (1 << 8 * size) - 1, now)
        elif kind == "t":
            platform.receive(p, value & 0xFF)
        else:
            platform.advance(p, now)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_all_of_a_vm_comes_back(steps: list[Step]) -> None:
    """Whatever its guest did to it; a record of another VM, or cut off, changes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        stock = Stock(patch)
        vm = stock.vm
        assert vm.kind == VM_KIND_LINUX and devices.create(vm) == Status.OK
        for kind, queues in ((DeviceKind.ENTROPY, 1), (DeviceKind.CONSOLE, CONSOLE_QUEUES)):
            assert devices.add(vm, kind, 0, queues) is not None
        drive(stock, steps)
        stock.platform.effects = 0
        stock.vcpu.kept.steal_msr, stock.vcpu.kept.pv_eoi_msr, stock.vcpu.kept.misc_msr[0] = 0x5FC1, 0x6001, 0x7001
        length = saved_vm.size_of(vm)
        records = array(u8, length)
        assert saved_vm.save(vm, hva(records), length - 1) == Status.NO_MEMORY
        assert saved_vm.save(vm, hva(records), length) == Status.OK
        assert vm.devices is not None
        places = [(address(stock.platform), sizeof(platform.Platform)), (address(vm.devices.host), sizeof(type(vm.devices.host))),
                  (address(stock.vcpu.lapic), sizeof(type(stock.vcpu.lapic))), (address(stock.vcpu.kept), sizeof(type(stock.vcpu.kept)))]
        before = [bytes_at(*place) for place in places]
        saved_vm.forget(vm)
        forgotten = [bytes_at(*place) for place in places]
        assert all(one != other for one, other in zip(before, forgotten, strict=True))
        assert saved_vm.load(vm, hva(records), length - 1) == Status.BAD_ARGUMENT
        records[length - 1] ^= 1
        assert saved_vm.load(vm, hva(records), length) == Status.BAD_ARGUMENT
        assert [bytes_at(*place) for place in places] == forgotten
        records[length - 1] ^= 1
        assert saved_vm.load(vm, hva(records), length) == Status.OK
        assert [bytes_at(*place) for place in places] == before
        devices.destroy(vm)
        stock.close()


def test_compiled_records_are_the_same(tmp_path: Path) -> None:
    """The host library writes the same bytes, and takes what was written interpreted."""
    hostlib.build(ROOT, [MODULE], tmp_path, sanitize=False)
    library = HostLibrary(tmp_path)
    for piece in Piece:
        state = generator.struct_of(piece.name)()
        fill(address(state), random.Random(piece).randbytes(sizeof(type(state))))
        record = array(u8, saved_state.bytes_of(piece))
        saved_state.save(piece, hva(state), hva(record))
        buffer = (ctypes.c_uint8 * len(record))()
        raw = (ctypes.c_uint8 * sizeof(type(state))).from_buffer_copy(bytes_at(address(state), sizeof(type(state))))
        library.function(f"{MODULE}.save")(piece, raw, buffer)
        assert bytes(buffer) == bytes(record)
        assert library.function(f"{MODULE}.check")(piece, buffer, len(record)) == Status.OK
