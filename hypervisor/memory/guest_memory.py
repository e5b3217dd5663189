"""Reading and writing guest memory. Every address and length may be hostile; every access is a single fetch.

Handlers are restartable: first `pin` every range needed, answer Outcome.WAIT if it says WAIT, then act. What is copied in
is checked and used from the copy. Guest RAM is [0, vm.memory_bytes); outside it reads give all ones, writes are dropped,
both are counted in vm.holes_touched and answered BAD_ADDRESS.
"""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor import clock
from hypervisor.addresses import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, Gfn, Gpa, Hva, hva_of
from hypervisor.arch_x86.intrinsics import fill_memory
from hypervisor.build_options import DEBUG
from hypervisor.console import say
from hypervisor.lang import struct, u8, u16, u32, u64, wrap_u64
from hypervisor.memory import backing, guest_window, nested
from hypervisor.model import Vcpu, Vm
from hypervisor.paging import page_state
from hypervisor.status import Status

PIN_MOST: Final = 32 * 1024  # bytes that one pin may span
RANDOM_WAIT_MASK: Final[u64] = 7  # debug images: one pin in eight answers WAIT
LOAD_CHUNK: Final = 16 * PAGE_SIZE  # bytes copied at a time: about 25 k instructions, backing included
LOADS_MOST: Final = 64  # more, of one VM, are copied at once
ALL_ONES: Final[u64] = 0xFFFF_FFFF_FFFF_FFFF


@struct
class RandomWait:
    """Debug images: the generator that decides which pins answer WAIT though the memory is there (xorshift64)."""

    number: u64  # 0: off
    waits: u64


@struct
class Load:
    """A copy to be done."""

    gpa: Gpa
    source: Hva
    length: u64


@struct
class Loading:
    """The VM that is being loaded piece by piece; the loaders note what is long."""

    vm: Vm | None
    count: u32
    next: u32
    loads: Annotated[list[Load], LOADS_MOST]


random_wait: Final = RandomWait()
loading: Final = Loading()


def start_random_waits(seed: u64) -> None:
    """Debug images: let pins answer WAIT at random from now on. `seed` 0: take one from the clock. Prints it."""
    if DEBUG:
        random_wait.number = seed if seed != 0 else clock.now() | 1
        say(f"pin: answers WAIT at random, seed {random_wait.number:#x}")


def _waits_at_random() -> bool:
    """Draw: whether this pin answers WAIT."""
    if random_wait.number == 0:
        return False
    x: u64 = random_wait.number
    x = x ^ wrap_u64(x << 13)
    x = x ^ (x >> 7)
    x = x ^ wrap_u64(x << 17)
    random_wait.number = x
    if (x >> 32) & RANDOM_WAIT_MASK != 0:
        return False
    random_wait.waits += 1
    return True


def in_ram(vm: Vm, gpa: Gpa, length: u64) -> bool:
    """Whether a range, as a guest named it, is wholly RAM; no sum can overflow."""
    return gpa <= vm.memory_bytes and length <= vm.memory_bytes - gpa


def pin(vcpu: Vcpu, gpa: Gpa, length: u64, write: bool) -> Status:
    """Make a range of the vCPU's VM usable until this exit has been handled.

    OK; BAD_ADDRESS: not RAM, or above PIN_MOST bytes; WAIT: return Outcome.WAIT, the exit is dispatched again; NO_MEMORY: no frame
    came within the limit (pressure.py). The pages become STABLE: reclaim leaves them alone.
    `write` says what for; private RAM is always writable, so it makes no difference yet.
    """
    vm = vcpu.vm
    assert vm is not None
    if not in_ram(vm, gpa, length) or length > PIN_MOST:
        vm.holes_touched += 1
        return Status.BAD_ADDRESS
    if length == 0:
        return Status.OK
    if DEBUG and _waits_at_random():
        return Status.WAIT
    last: u64 = (gpa + length - 1) >> PAGE_SHIFT
    for gfn in range(gpa >> PAGE_SHIFT, last + 1):
        status = backing.back_for(vcpu, vm, Gfn(gfn))
        if status != Status.OK:
            return status
        if page_state.get(vm, Gfn(gfn)) != 0:
            page_state.put(vm, Gfn(gfn), 0)
    return Status.OK


def host_address(vm: Vm, gpa: Gpa) -> Hva:
    """Where a pinned guest byte stands, for guest_window.py; good up to the end of its page. 0: not backed."""
    hpa = nested.lookup(vm, gpa)
    return hva_of(hpa) if hpa != 0 else Hva(0)


def piece(gpa: Gpa, length: u64) -> u64:
    """Bytes of a range that lie in its first page."""
    left: u64 = PAGE_SIZE - (gpa & PAGE_MASK)
    return length if length < left else left


def copy_in(vcpu: Vcpu, target: Hva, gpa: Gpa, length: u64) -> Status:
    """Guest -> hypervisor, each byte fetched once. BAD_ADDRESS: all ones are delivered. Pages never touched read zero."""
    vm = vcpu.vm
    assert vm is not None
    return read(vm, target, gpa, length)


def read(vm: Vm, target: Hva, gpa: Gpa, length: u64) -> Status:
    """As copy_in, for callers without a vCPU."""
    if not in_ram(vm, gpa, length):
        vm.holes_touched += 1
        fill_memory(target, 0xFF, length)
        return Status.BAD_ADDRESS
    done: u64 = 0
    while done < length:
        part = piece(Gpa(gpa + done), length - done)
        source = host_address(vm, Gpa(gpa + done))
        if source != 0:
            guest_window.copy(Hva(target + done), source, part)
        else:
            fill_memory(target + done, 0, part)
        done += part
    return Status.OK


def copy_out(vcpu: Vcpu, gpa: Gpa, source: Hva, length: u64) -> Status:
    """Hypervisor -> guest, after pin. BAD_ADDRESS: nothing is written. WAIT, NO_MEMORY: it was not pinned and no frame is there."""
    vm = vcpu.vm
    assert vm is not None
    if not in_ram(vm, gpa, length):
        vm.holes_touched += 1
        return Status.BAD_ADDRESS
    done: u64 = 0
    while done < length:
        part = piece(Gpa(gpa + done), length - done)
        target = host_address(vm, Gpa(gpa + done))
        if target == 0:
            status = backing.back_for(vcpu, vm, Gfn((gpa + done) >> PAGE_SHIFT))
            if status != Status.OK:
                return status
            continue
        guest_window.copy(target, Hva(source + done), part)
        done += part
    return Status.OK


def load_image(vm: Vm, gpa: Gpa, source: Hva, length: u64) -> Status:
    """Loaders: copy into the RAM of a VM that does not run yet, backing it. NO_MEMORY; BAD_ADDRESS: nothing is written. Not bounded;
    between start_loading and the last load_some of that VM long ones are only noted, for load_some to copy."""
    if not in_ram(vm, gpa, length):
        return Status.BAD_ADDRESS
    if length > LOAD_CHUNK and loading.vm is not None and loading.count < LOADS_MOST:
        noted = loading.loads[loading.count]
        noted.gpa = gpa
        noted.source = source
        noted.length = length
        loading.count += 1
        return Status.OK
    return _copy_image(vm, gpa, source, length)


def start_loading(vm: Vm) -> None:
    """What the loaders copy into this VM from now on is done by load_some."""
    loading.vm = vm
    loading.count = 0
    loading.next = 0


def stop_loading() -> None:
    """All is copied, or the VM has ended."""
    loading.vm = None


def load_some() -> Status:
    """Copy a bounded piece of what was noted. OK: that was all; BUSY: there is more; NO_MEMORY."""
    vm = loading.vm
    if vm is None or loading.next == loading.count:
        return Status.OK
    noted = loading.loads[loading.next]
    part: u64 = min(noted.length, LOAD_CHUNK)
    status = _copy_image(vm, noted.gpa, noted.source, part)
    if status != Status.OK:
        return status
    noted.gpa = Gpa(noted.gpa + part)
    noted.source = Hva(noted.source + part)
    noted.length -= part
    if noted.length == 0:
        loading.next += 1
    return Status.BUSY


def _copy_image(vm: Vm, gpa: Gpa, source: Hva, length: u64) -> Status:
    done: u64 = 0
    while done < length:
        status = backing.back(vm, Gfn((gpa + done) >> PAGE_SHIFT))
        if status != Status.OK:
            return status
        part = piece(Gpa(gpa + done), length - done)
        guest_window.copy(host_address(vm, Gpa(gpa + done)), Hva(source + done), part)
        done += part
    return Status.OK


def _place(vm: Vm, gpa: Gpa, size: u64) -> Hva:
    """Host address of a number that does not cross a page and is backed; 0 if the slow way must be taken."""
    if not in_ram(vm, gpa, size) or (gpa & PAGE_MASK) + size > PAGE_SIZE:
        return Hva(0)
    return host_address(vm, gpa)


def read_u64(vm: Vm, gpa: Gpa) -> u64:
    """One number; all ones outside RAM. A naturally aligned one is fetched by one instruction."""
    place = _place(vm, gpa, 8)
    return guest_window.load_u64(place) if place != 0 else _read_slowly(vm, gpa, 8)


def read_u32(vm: Vm, gpa: Gpa) -> u32:
    """See read_u64."""
    place = _place(vm, gpa, 4)
    return guest_window.load_u32(place) if place != 0 else u32(_read_slowly(vm, gpa, 4))


def read_u16(vm: Vm, gpa: Gpa) -> u16:
    """See read_u64."""
    place = _place(vm, gpa, 2)
    return guest_window.load_u16(place) if place != 0 else u16(_read_slowly(vm, gpa, 2))


def read_u8(vm: Vm, gpa: Gpa) -> u8:
    """See read_u64."""
    place = _place(vm, gpa, 1)
    return guest_window.load_u8(place) if place != 0 else u8(_read_slowly(vm, gpa, 1))


def _read_slowly(vm: Vm, gpa: Gpa, size: u64) -> u64:
    """A number across pages, in pages without frame (zero) or outside RAM (all ones), low bytes first."""
    if not in_ram(vm, gpa, size):
        vm.holes_touched += 1
        return ALL_ONES
    value: u64 = 0
    for index in range(size):
        place = host_address(vm, Gpa(gpa + index))
        if place != 0:
            value |= u64(guest_window.load_u8(place)) << ((index * 8) & 63)
    return value


def write_u64(vm: Vm, gpa: Gpa, value: u64) -> Status:
    """One number into pinned memory. BAD_ADDRESS: outside RAM, or across pages; WAIT: not backed (pin first)."""
    place = _place(vm, gpa, 8)
    if place == 0:
        return _refused(vm, gpa, 8)
    guest_window.store_u64(place, value)
    return Status.OK


def write_u32(vm: Vm, gpa: Gpa, value: u32) -> Status:
    """See write_u64."""
    place = _place(vm, gpa, 4)
    if place == 0:
        return _refused(vm, gpa, 4)
    guest_window.store_u32(place, value)
    return Status.OK


def write_u16(vm: Vm, gpa: Gpa, value: u16) -> Status:
    """See write_u64."""
    place = _place(vm, gpa, 2)
    if place == 0:
        return _refused(vm, gpa, 2)
    guest_window.store_u16(place, value)
    return Status.OK


def write_u8(vm: Vm, gpa: Gpa, value: u8) -> Status:
    """See write_u64."""
    place = _place(vm, gpa, 1)
    if place == 0:
        return _refused(vm, gpa, 1)
    guest_window.store_u8(place, value)
    return Status.OK


def _refused(vm: Vm, gpa: Gpa, size: u64) -> Status:
    """Why a write found no place."""
    if in_ram(vm, gpa, size) and (gpa & PAGE_MASK) + size <= PAGE_SIZE:
        return Status.WAIT
    vm.holes_touched += 1
    return Status.BAD_ADDRESS
