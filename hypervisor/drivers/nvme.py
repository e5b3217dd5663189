"""NVMe controllers: namespace 1 by one pair of queues, memory by PRP lists.

NVM Express Base Specification 1.4: 3.1 (registers), 4.1, 4.2, 4.6 (queues), 4.3 (PRP), 5 (admin commands), 6 (NVM commands),
7.6.1 (initialization).
"""
from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from hypervisor import clock
from hypervisor.addresses import PAGE_MASK, PAGE_SIZE, Hva, hpa_of, hva_of
from hypervisor.arch_x86 import paging
from hypervisor.arch_x86.intrinsics import compiler_barrier, fill_memory, load_u8, load_u32, load_u64, pause, store_u32
from hypervisor.block.host_disk import transfer_of
from hypervisor.block.model import (DISK_NAME_BYTES, MAX_HOST_DISKS, MAX_REQUEST_SECTORS, MAX_SEGMENTS, TRANSFERS_A_DISK, Direction,
                                    DriverKind, HostDisk, Outcome, Transfer)
from hypervisor.drivers import msix, pci
from hypervisor.drivers.pci import Bar, Device
from hypervisor.lang import address, array, at, clear, offsetof, sizeof, struct, u8, u32, u64
from hypervisor.memory import frames
from hypervisor.status import Status

CLASS_NVM_EXPRESS: Final = 0x01_0802

# Registers (3.1).
CAP: Final = 0x00
CC: Final = 0x14
CSTS: Final = 0x1C
AQA: Final = 0x24
ASQ: Final = 0x28
ACQ: Final = 0x30
DOORBELLS: Final = 0x1000
CAP_MQES: Final[u64] = 0xFFFF
CAP_DSTRD_SHIFT: Final = 32
CAP_MPSMIN_SHIFT: Final = 48
CC_EN: Final = 1
CC_ENTRY_SIZES: Final = 4 << 20 | 6 << 16  # completion entries of 16 bytes, commands of 64
CSTS_RDY: Final = 1
CSTS_CFS: Final = 2

ADMIN_CREATE_SQ: Final = 0x01
ADMIN_CREATE_CQ: Final = 0x05
ADMIN_IDENTIFY: Final = 0x06
CONTIGUOUS: Final = 1
INTERRUPTS: Final = 2
FLUSH: Final = 0x00
WRITE: Final = 0x01
READ: Final = 0x02
DATASET_MANAGEMENT: Final = 0x09
DEALLOCATE: Final = 4
OPCODES: Final[Annotated[list[u32], 4]] = [READ, WRITE, FLUSH, DATASET_MANAGEMENT]  # by Direction
NAMESPACE: Final = 1

# Identify Controller and Namespace (5.15.2).
CNS_NAMESPACE: Final = 0
CNS_CONTROLLER: Final = 1
ID_SERIAL: Final = 4
ID_MODEL: Final = 24
ID_MDTS: Final = 77
ID_ONCS: Final = 520
ONCS_DATASET_MANAGEMENT: Final = 4
ID_VWC: Final = 525
NS_SIZE: Final = 0
NS_FLBAS: Final = 26
NS_LBAF0: Final = 128
LBA_512: Final = 9 << 16  # LBADS, without metadata

ENTRIES: Final = 64  # of each queue
DEPTH: Final = ENTRIES - 1
PRP_ENTRIES: Final = 64  # 512 bytes a list: none crosses a page
BOOT_WAIT_NS: Final[u64] = 10_000_000_000
DEALLOCATE_MOST: Final[u64] = 1 << 20


class Phase(IntEnum):
    """How far a start is."""

    DISABLING = 0
    ENABLING = 1
    CREATING_CQ = 2
    CREATING_SQ = 3
    RUNNING = 4
    LOST = 5


@struct
class Command:
    """Submission queue entry (4.2)."""

    opcode: u32  # and the command's identifier in the upper half
    namespace: u32
    reserved: u64
    metadata: u64
    prp1: u64
    prp2: u64
    cdw10: u32
    cdw11: u32
    cdw12: u32
    cdw13: u32
    cdw14: u32
    cdw15: u32


@struct
class Ended:
    """Completion queue entry (4.6)."""

    result: u32
    reserved: u32
    sq_head: u32
    status: u32  # identifier; phase in bit 16; status in bits 17-31


@struct
class Queues:
    """All memory of a controller; each array begins at a page."""

    admin: Annotated[list[Command], ENTRIES]
    commands: Annotated[list[Command], ENTRIES]
    admin_ended: Annotated[list[Ended], 256]
    ended: Annotated[list[Ended], 256]  # ENTRIES of them are used
    identified: Annotated[list[u8], PAGE_SIZE]
    prp: Annotated[list[Annotated[list[u64], PRP_ENTRIES]], TRANSFERS_A_DISK]
    ranges: Annotated[list[Annotated[list[u64], 2]], TRANSFERS_A_DISK]


@struct
class Queue:
    """Places in a pair of queues."""

    tail: u32
    head: u32
    phase: u32  # what the phase bit of a new entry is


@struct
class Nvme:
    """One controller."""

    device: u32  # in pci.devices
    registers: u64
    stride: u32  # bytes from doorbell to doorbell
    queues: Hva
    phase: Phase
    admin: Queue
    io: Queue
    vector: u64  # its MSI-X entry


units: Final[Annotated[list[Nvme], MAX_HOST_DISKS]] = array(Nvme, MAX_HOST_DISKS)

QUEUE_PAGES: Final = (sizeof(Queues) + PAGE_SIZE - 1) // PAGE_SIZE


def matches(device: Device) -> bool:
    """Is it such a controller?"""
    return device.class_code == CLASS_NVM_EXPRESS


def init(host: HostDisk, device_index: u32, vector: u64) -> str:
    """Make `host`, just added, namespace 1 of this controller; `vector`: its MSI-X entry, 0 if none. What is wrong, empty: nothing.

    Boot only: waits until the controller runs, 10 seconds at most.
    """
    unit = units[host.id]
    bar = Bar()
    pci.find_bar(pci.devices[device_index], 0, bar)
    if bar.is_io or bar.size < DOORBELLS + PAGE_SIZE or not paging.is_device(bar.base, bar.size):
        return "its registers are out of reach"
    page = frames.alloc_contiguous(QUEUE_PAGES)
    if page == 0:
        return "no memory for its queues"
    unit.device = device_index
    unit.registers = bar.base
    unit.queues = hva_of(page)
    unit.vector = vector
    capabilities = load_u64(unit.registers + CAP)
    unit.stride = u32(4 << (capabilities >> CAP_DSTRD_SHIFT & 0xF))
    if capabilities & CAP_MQES < DEPTH or capabilities >> CAP_MPSMIN_SHIFT & 0xF != 0:
        return "its queues are too short, or its pages longer than 4 KiB"
    host.kind = DriverKind.NVME
    host.unit = host.id
    begin(unit)
    until: u64 = clock.now() + clock.ticks_of(BOOT_WAIT_NS)
    while step(unit) == Status.WAIT and clock.now() < until:
        pause()
    if unit.phase != Phase.RUNNING:
        return "it does not start"
    return _describe(host, unit, until)


def begin(unit: Nvme) -> None:
    """Switch it off: from now on it touches no memory, once step has seen that it is off."""
    store_u32(unit.registers + CC, 0)
    unit.phase = Phase.DISABLING


def step(unit: Nvme) -> Status:
    """The next step of a start, if it can be taken: WAIT: call again; OK: it runs; UNSUPPORTED: it does not."""
    registers = unit.registers
    state = load_u32(registers + CSTS)
    if unit.phase == Phase.DISABLING and state & CSTS_RDY == 0:
        _set_up(unit)
        store_u32(registers + CC, CC_EN | CC_ENTRY_SIZES)
        unit.phase = Phase.ENABLING
    elif unit.phase == Phase.ENABLING and state & CSTS_RDY != 0:
        queues = at(Queues, unit.queues)
        _ask(unit, ADMIN_CREATE_CQ, 0, address(queues.ended), 1 | DEPTH << 16, CONTIGUOUS | INTERRUPTS)
        unit.phase = Phase.CREATING_CQ
    elif unit.phase == Phase.CREATING_CQ:
        if _has_answered(unit, Phase.CREATING_SQ):
            queues = at(Queues, unit.queues)
            _ask(unit, ADMIN_CREATE_SQ, 0, address(queues.commands), 1 | DEPTH << 16, CONTIGUOUS | 1 << 16)
    elif unit.phase == Phase.CREATING_SQ:
        _has_answered(unit, Phase.RUNNING)
    if unit.phase == Phase.RUNNING:
        return Status.OK
    lost = unit.phase == Phase.LOST or unit.phase != Phase.DISABLING and state & CSTS_CFS != 0
    return Status.UNSUPPORTED if lost else Status.WAIT


def _set_up(unit: Nvme) -> None:
    """Empty queues."""
    queues = at(Queues, unit.queues)
    fill_memory(unit.queues, 0, offsetof(Queues, "prp"))
    clear(unit.admin)
    clear(unit.io)
    unit.admin.phase = 1
    unit.io.phase = 1
    store_u32(unit.registers + AQA, DEPTH << 16 | DEPTH)
    _store_wide(unit.registers + ASQ, hpa_of(Hva(address(queues.admin))))
    _store_wide(unit.registers + ACQ, hpa_of(Hva(address(queues.admin_ended))))


def _store_wide(place: u64, value: u64) -> None:
    store_u32(place, u32(value & 0xFFFF_FFFF))
    store_u32(place + 4, u32(value >> 32))


def _doorbell(unit: Nvme, number: u64, value: u32) -> None:
    """Number: 2 * queue, + 1 for its completion queue."""
    compiler_barrier()  # x86 keeps stores in order
    store_u32(unit.registers + DOORBELLS + number * unit.stride, value)


def _ask(unit: Nvme, opcode: u32, namespace: u32, place: u64, cdw10: u32, cdw11: u32) -> None:
    """An admin command; one at a time."""
    command = at(Queues, unit.queues).admin[unit.admin.tail]
    clear(command)
    command.opcode = opcode
    command.namespace = namespace
    command.prp1 = hpa_of(Hva(place))
    command.cdw10 = cdw10
    command.cdw11 = cdw11
    unit.admin.tail = (unit.admin.tail + 1) % ENTRIES
    _doorbell(unit, 0, unit.admin.tail)


def _answer(unit: Nvme) -> Status:
    """Of the admin command: WAIT, OK, or UNSUPPORTED for any error."""
    status = load_u32(address(at(Queues, unit.queues).admin_ended[unit.admin.head]) + offsetof(Ended, "status"))
    if status >> 16 & 1 != unit.admin.phase:
        return Status.WAIT
    unit.admin.head = (unit.admin.head + 1) % ENTRIES
    if unit.admin.head == 0:
        unit.admin.phase ^= 1
    _doorbell(unit, 1, unit.admin.head)
    return Status.OK if status >> 17 == 0 else Status.UNSUPPORTED


def _has_answered(unit: Nvme, following: Phase) -> bool:
    """The admin command has succeeded: on to the next phase. One that fails ends the start."""
    status = _answer(unit)
    if status != Status.WAIT:
        unit.phase = following if status == Status.OK else Phase.LOST
    return status == Status.OK


def _identify(unit: Nvme, namespace: u32, what: u32, until: u64) -> bool:
    """IDENTIFY, waited for: boot only."""
    _ask(unit, ADMIN_IDENTIFY, namespace, address(at(Queues, unit.queues).identified), what, 0)
    status = Status.WAIT
    while status == Status.WAIT and clock.now() < until:
        pause()
        status = _answer(unit)
    return status == Status.OK


def _describe(host: HostDisk, unit: Nvme, until: u64) -> str:
    """Fill in what the block layer wants to know; what speaks against the disk, empty: nothing."""
    place = address(at(Queues, unit.queues).identified)
    if not _identify(unit, 0, CNS_CONTROLLER, until):
        return "it does not identify itself"
    _copy_text(host.serial, place + ID_SERIAL, 20)
    _copy_text(host.model, place + ID_MODEL, 40)
    host.can_flush = load_u8(place + ID_VWC) & 1 != 0
    host.can_discard = load_u8(place + ID_ONCS) & ONCS_DATASET_MANAGEMENT != 0
    host.discard_most = DEALLOCATE_MOST
    most: u64 = load_u8(place + ID_MDTS)
    host.most_sectors = MAX_REQUEST_SECTORS if most == 0 or most > 5 else u32(8 << (most & 7))
    if not _identify(unit, NAMESPACE, CNS_NAMESPACE, until):
        return "it has no namespace 1"
    if load_u32(place + NS_LBAF0 + 4 * (load_u8(place + NS_FLBAS) & 0xF)) & 0xFF_FFFF != LBA_512:
        return "its sectors are not of 512 bytes"
    host.sectors = load_u64(place + NS_SIZE)
    host.depth = DEPTH
    host.most_segments = MAX_SEGMENTS
    host.whole_pages = True
    return ""


def _copy_text(target: Annotated[list[u8], DISK_NAME_BYTES], place: u64, length: u64) -> None:
    """ASCII padded by blanks, as far as it fits."""
    end: u64 = 0
    for i in range(min(length, DISK_NAME_BYTES - 1)):
        character = load_u8(place + i)
        target[i] = character if 32 < character < 127 else 32
        if target[i] != 32:
            end = i + 1
    target[end] = 0


def start(host: HostDisk, transfer: Transfer) -> None:
    """Put the command into the queue; the controller looks at it after notify."""
    unit = units[host.unit]
    queues = at(Queues, unit.queues)
    command = queues.commands[unit.io.tail]
    clear(command)
    command.opcode = OPCODES[transfer.direction] | transfer.slot << 16
    command.namespace = NAMESPACE
    if transfer.direction == Direction.DISCARD:
        ranges = queues.ranges[transfer.slot]
        ranges[0] = transfer.sectors << 32
        ranges[1] = transfer.sector
        command.prp1 = hpa_of(Hva(address(ranges)))
        command.cdw11 = DEALLOCATE
    elif transfer.segment_count != 0:
        _fill_prp(queues, command, transfer)
        command.cdw10 = u32(transfer.sector & 0xFFFF_FFFF)
        command.cdw11 = u32(transfer.sector >> 32)
        command.cdw12 = u32(transfer.sectors - 1)
    unit.io.tail = (unit.io.tail + 1) % ENTRIES


def _fill_prp(queues: Queues, command: Command, transfer: Transfer) -> None:
    """Page by page: the first in PRP1, the second in PRP2, or the list of all but the first there."""
    entries = queues.prp[transfer.slot]
    count: u32 = 0
    for i in range(transfer.segment_count):
        place: u64 = transfer.segments[i].hpa
        end: u64 = place + transfer.segments[i].bytes
        while place < end:
            if count == 0:
                command.prp1 = place
            else:
                entries[count - 1] = place
            count += 1
            place = (place | PAGE_MASK) + 1
    if count == 2:
        command.prp2 = entries[0]
    elif count > 2:
        command.prp2 = hpa_of(Hva(address(entries)))


def notify(host: HostDisk) -> None:
    """Let the controller look at the queue."""
    unit = units[host.unit]
    _doorbell(unit, 2, unit.io.tail)


def reap(host: HostDisk) -> Transfer | None:
    """The next completion. One that names no transfer in flight is passed over: the timeout finds the rest."""
    unit = units[host.unit]
    while True:
        status = load_u32(address(at(Queues, unit.queues).ended[unit.io.head]) + offsetof(Ended, "status"))
        if status >> 16 & 1 != unit.io.phase:
            return None
        unit.io.head = (unit.io.head + 1) % ENTRIES
        if unit.io.head == 0:
            unit.io.phase ^= 1
        _doorbell(unit, 3, unit.io.head)
        slot = status & 0xFFFF
        if slot < TRANSFERS_A_DISK and host.busy >> (slot & 63) & 1 != 0:
            transfer = transfer_of(host, slot)
            transfer.outcome = Outcome.OK if status >> 17 == 0 else Outcome.IO_ERROR
            return transfer


def let_interrupt(host: HostDisk, on: bool) -> None:
    """Mask its MSI-X entry, or not; what was held back comes then."""
    msix.let_interrupt(units[host.unit].vector, on)


def reset(host: HostDisk, start_over: bool) -> Status:
    """Off and on. As driver.reset."""
    unit = units[host.unit]
    if start_over:
        begin(unit)
    return step(unit)


def cut_off(host: HostDisk) -> None:
    """It reaches memory no more."""
    pci.cut_off(pci.devices[units[host.unit].device])
