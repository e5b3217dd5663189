"""ATA disks behind a PCI IDE controller with bus-master DMA, 48-bit addresses: one command at a time on each channel.

ATA/ATAPI-6 (T13 1410D): 6 (registers), 8 (commands); Programming Interface for Bus Master IDE Controller 1.0; PCI IDE
Controller Specification 1.0 (compatibility and native mode). A channel in compatibility mode interrupts as IRQ 14 or 15.
"""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor import boot_info, clock
from hypervisor.addresses import PAGE_SIZE, Hva, hpa_of, hva_of
from hypervisor.arch_x86.intrinsics import compiler_barrier, inb, inw, outb, outl, pause
from hypervisor.block.host_disk import transfer_of
from hypervisor.block.model import (DISK_NAME_BYTES, MAX_HOST_DISKS, MAX_REQUEST_SECTORS, MAX_SEGMENTS, Direction, DriverKind, HostDisk,
                                    Outcome, Transfer)
from hypervisor.drivers import pci
from hypervisor.drivers.pci import Bar, Device
from hypervisor.lang import address, array, at, struct, u8, u16, u32, u64
from hypervisor.memory import frames
from hypervisor.status import Status

CLASS_IDE: Final = 0x0101  # class_code >> 8
BUS_MASTER_BAR: Final = 4
MAX_CHANNELS: Final = 4
CHANNELS: Final = 2  # of a controller
DRIVES: Final = 2  # of a channel

# Command block, from its base port.
DATA: Final = 0
FEATURES: Final = 1
COUNT: Final = 2
LBA_LOW: Final = 3
LBA_MID: Final = 4
LBA_HIGH: Final = 5
DEVICE: Final = 6
COMMAND: Final = 7  # written; read: status

DEVICE_LBA: Final = 0x40
STATUS_ERR: Final = 0x01
STATUS_DRQ: Final = 0x08
STATUS_DF: Final = 0x20
STATUS_BSY: Final = 0x80
CONTROL_SRST: Final = 0x04

IDENTIFY_DEVICE: Final = 0xEC
READ_DMA_EXT: Final = 0x25
WRITE_DMA_EXT: Final = 0x35
FLUSH_CACHE_EXT: Final = 0xEA
DATA_SET_MANAGEMENT: Final = 0x06
TRIM: Final = 0x01
TRIM_MOST: Final = 0xFFFF
COMMANDS: Final[Annotated[list[u8], 4]] = [READ_DMA_EXT, WRITE_DMA_EXT, FLUSH_CACHE_EXT, DATA_SET_MANAGEMENT]  # by Direction

# IDENTIFY DEVICE, words.
WORDS: Final = 256
SERIAL_WORD: Final = 10
MODEL_WORD: Final = 27
CAPABILITIES_WORD: Final = 49
HAS_DMA: Final = 0x100
COMMAND_SET_WORD: Final = 83
HAS_LBA48: Final = 0x400
HAS_FLUSH_EXT: Final = 0x2000
SECTORS_WORD: Final = 100
SECTOR_SIZE_WORD: Final = 106
LONG_SECTORS: Final = 0x5000  # valid, and longer than 256 words
TRIM_WORD: Final = 169

# Bus master registers of a channel.
BM_COMMAND: Final = 0
BM_STATUS: Final = 2
BM_TABLE: Final = 4
BM_START: Final = 0x01
BM_TO_MEMORY: Final = 0x08
BM_ERROR: Final = 0x02
BM_INTERRUPT: Final = 0x04
REGION_END: Final = 0x8000_0000  # in the second word of a descriptor
REGION_BYTES: Final[u64] = 0x1_0000  # which none crosses
REGIONS: Final = 256

PROBE_NS: Final[u64] = 500_000_000
NOBODY: Final = 0xFFFF_FFFF


@struct
class Channel:
    """Two drives share it."""

    command: u16
    control: u16
    bus_master: u16
    device: u32  # in pci.devices
    tables: Hva  # a page: physical region descriptors, then one sector for TRIM
    host: u32  # whose transfer is in flight; NOBODY
    slot: u32


@struct
class Regions:
    """The page of a channel."""

    table: Annotated[list[u64], REGIONS]
    trim: Annotated[list[u64], 64]


@struct
class Drive:
    """One disk."""

    channel: u32
    number: u32


channels: Final[Annotated[list[Channel], MAX_CHANNELS]] = array(Channel, MAX_CHANNELS)
drives: Final[Annotated[list[Drive], MAX_HOST_DISKS]] = array(Drive, MAX_HOST_DISKS)
identity: Final[Annotated[list[u16], WORDS]] = array(u16, WORDS)


def matches(device: Device) -> bool:
    """Is it an IDE controller?"""
    return device.class_code >> 8 == CLASS_IDE


def is_native(device: Device, index: u32) -> bool:
    """Does channel 0 or 1 of the controller use its BARs and the PCI interrupt, not the fixed ports and IRQs?"""
    return device.class_code >> (2 * (index & 1)) & 1 != 0


def init_channel(number: u32, device_index: u32, index: u32) -> str:
    """Make channels[number] the channel 0 or 1 of a controller; what speaks against it, empty: nothing. Boot only."""
    device = pci.devices[device_index]
    channel = channels[number]
    bar = Bar()
    pci.find_bar(device, BUS_MASTER_BAR, bar)
    if not bar.is_io or bar.base == 0:
        return "the controller has no bus-master DMA"
    channel.device = device_index
    channel.bus_master = u16(bar.base + 8 * index)
    channel.command = 0x170 if index != 0 else 0x1F0
    channel.control = 0x376 if index != 0 else 0x3F6
    channel.host = NOBODY
    if is_native(device, index):
        pci.find_bar(device, 2 * index, bar)
        channel.command = u16(bar.base)
        pci.find_bar(device, 2 * index + 1, bar)
        channel.control = u16(bar.base + 2)
    page = frames.alloc_zeroed()
    if page == 0:
        return "no memory"
    if page + PAGE_SIZE > 1 << 32 or boot_info.usable_end() > 1 << 32:
        return "its DMA does not reach the memory above 4 GiB"
    channel.tables = hva_of(page)
    return ""


def identify(number: u32, drive: u32) -> bool:
    """Read IDENTIFY DEVICE of a drive into `identity`; False: there is no ATA disk. Boot only."""
    channel = channels[number]
    select(channel, drive)
    status = inb(channel.control)
    if status in (0, 0xFF):
        return False
    outb(u16(channel.command + COUNT), 0)
    outb(u16(channel.command + LBA_LOW), 0)
    outb(u16(channel.command + LBA_MID), 0)
    outb(u16(channel.command + LBA_HIGH), 0)
    outb(u16(channel.command + COMMAND), IDENTIFY_DEVICE)
    settle(channel)
    if inb(channel.control) == 0:
        return False
    until: u64 = clock.now() + clock.ticks_of(PROBE_NS)
    while inb(channel.control) & STATUS_BSY != 0 and clock.now() < until:
        pause()
    status = inb(u16(channel.command + COMMAND))
    if status & (STATUS_BSY | STATUS_ERR | STATUS_DRQ) != STATUS_DRQ or inb(u16(channel.command + LBA_MID)) != 0:
        return False  # nobody, or a packet device
    for i in range(WORDS):
        identity[i] = inw(channel.command)
    return True


def init(host: HostDisk, number: u32, drive: u32) -> str:
    """Make `host`, just added, the drive that `identity` tells of; what speaks against it, empty: nothing. Boot only."""
    if identity[CAPABILITIES_WORD] & HAS_DMA == 0 or identity[COMMAND_SET_WORD] & HAS_LBA48 == 0:
        return "it lacks DMA or 48-bit addresses"
    if identity[SECTOR_SIZE_WORD] & 0xD000 == LONG_SECTORS:
        return "its sectors are not of 512 bytes"
    host.kind = DriverKind.ATA
    host.unit = host.id
    drives[host.id].channel = number
    drives[host.id].number = drive
    for i in range(4):
        host.sectors |= u64(identity[SECTORS_WORD + i]) << (16 * i & 63)
    copy_text(host.serial, SERIAL_WORD, 10)
    copy_text(host.model, MODEL_WORD, 20)
    host.depth = 1
    host.most_segments = MAX_SEGMENTS
    host.most_sectors = MAX_REQUEST_SECTORS
    host.can_flush = identity[COMMAND_SET_WORD] & HAS_FLUSH_EXT != 0
    host.can_discard = identity[TRIM_WORD] & TRIM != 0
    host.discard_most = TRIM_MOST
    return ""


def copy_text(target: Annotated[list[u8], DISK_NAME_BYTES], first: u32, words: u32) -> None:
    """A text of `identity`, two characters a word, blanks at its ends cut."""
    length: u32 = 0
    for i in range(2 * words):
        character = identity[first + (i >> 1)] >> (8 if i & 1 == 0 else 0) & 0xFF
        if (character > 32 or length != 0) and character < 127 and length < DISK_NAME_BYTES - 1:
            target[length] = character
            length += 1
    while length != 0 and target[length - 1] <= 32:
        length -= 1
        target[length] = 0


def select(channel: Channel, drive: u32) -> None:
    outb(u16(channel.command + DEVICE), u8(DEVICE_LBA | (drive & 1) << 4))
    settle(channel)


def settle(channel: Channel) -> None:
    """400 ns: the time a read of a port takes, four times."""
    for _ in range(4):
        inb(channel.control)


def is_free(host: HostDisk) -> bool:
    """Can its channel take a command?"""
    return channels[drives[host.unit].channel].host == NOBODY


def start(host: HostDisk, transfer: Transfer) -> None:
    """Give the drive its command."""
    drive = drives[host.unit]
    channel = channels[drive.channel]
    channel.host = host.id
    channel.slot = transfer.slot
    count: u64 = transfer.sectors if transfer.segment_count != 0 else 0
    lba: u64 = transfer.sector if transfer.segment_count != 0 else 0
    regions = at(Regions, channel.tables)
    if transfer.direction == Direction.DISCARD:
        regions.trim[0] = transfer.sector | transfer.sectors << 48
        count = 1
    select(channel, drive.number)
    if transfer.direction != Direction.FLUSH:
        fill_table(regions, transfer)
        compiler_barrier()
        outl(u16(channel.bus_master + BM_TABLE), u32(hpa_of(channel.tables)))
        outb(u16(channel.bus_master + BM_COMMAND), BM_TO_MEMORY if transfer.direction == Direction.READ else 0)
    outb(u16(channel.bus_master + BM_STATUS), BM_ERROR | BM_INTERRUPT)  # ones clear
    for shift in range(8, -1, -8):  # registers of two bytes, the high ones first
        outb(u16(channel.command + FEATURES), TRIM if shift == 0 and transfer.direction == Direction.DISCARD else 0)
        outb(u16(channel.command + COUNT), count >> (shift & 63) & 0xFF)
        outb(u16(channel.command + LBA_LOW), lba >> (shift * 3 & 63) & 0xFF)
        outb(u16(channel.command + LBA_MID), lba >> (shift * 3 + 8 & 63) & 0xFF)
        outb(u16(channel.command + LBA_HIGH), lba >> (shift * 3 + 16 & 63) & 0xFF)
    outb(u16(channel.command + COMMAND), COMMANDS[transfer.direction])
    if transfer.direction != Direction.FLUSH:
        outb(u16(channel.bus_master + BM_COMMAND), BM_START | (BM_TO_MEMORY if transfer.direction == Direction.READ else 0))


def fill_table(regions: Regions, transfer: Transfer) -> None:
    """Physical region descriptors of a transfer's memory; none crosses 64 KiB."""
    used: u32 = 0
    if transfer.direction == Direction.DISCARD:
        used = add_region(regions, used, hpa_of(Hva(address(regions.trim))), 512)
    for i in range(transfer.segment_count):
        used = add_region(regions, used, transfer.segments[i].hpa, transfer.segments[i].bytes)
    regions.table[used - 1] |= u64(REGION_END) << 32


def add_region(regions: Regions, used: u32, place: u64, length: u64) -> u32:
    """Append memory; how many descriptors there are now."""
    count: u32 = used
    start_at: u64 = place
    left: u64 = length
    while left != 0:
        part: u64 = min(left, REGION_BYTES - (start_at & (REGION_BYTES - 1)))
        regions.table[count] = start_at | (part & 0xFFFF) << 32  # 0 stands for 64 KiB
        count += 1
        start_at += part
        left -= part
    return count


def reap(host: HostDisk) -> Transfer | None:
    """The drive's transfer, once the channel has interrupted."""
    channel = channels[drives[host.unit].channel]
    if channel.host != host.id:
        return None
    bus_master = inb(u16(channel.bus_master + BM_STATUS))
    if bus_master & BM_INTERRUPT == 0 or inb(channel.control) & STATUS_BSY != 0:
        return None
    outb(u16(channel.bus_master + BM_COMMAND), 0)
    status = inb(u16(channel.command + COMMAND))  # the drive takes its interrupt back
    bus_master |= inb(u16(channel.bus_master + BM_STATUS))
    outb(u16(channel.bus_master + BM_STATUS), BM_ERROR | BM_INTERRUPT)
    transfer = transfer_of(host, channel.slot)
    channel.host = NOBODY
    failed = status & (STATUS_ERR | STATUS_DF) != 0 or bus_master & BM_ERROR != 0
    transfer.outcome = Outcome.IO_ERROR if failed else Outcome.OK
    return transfer


def acknowledge(host: HostDisk) -> None:
    """It may have interrupted: reading status takes that back; the bus master's bit stays for reap."""
    channel = channels[drives[host.unit].channel]
    if channel.host == host.id:
        inb(u16(channel.command + COMMAND))


def reset(host: HostDisk, begin: bool) -> Status:
    """Software reset of the channel. As driver.reset."""
    channel = channels[drives[host.unit].channel]
    if begin:
        outb(u16(channel.bus_master + BM_COMMAND), 0)
        outb(channel.control, CONTROL_SRST)
        for _ in range(16):  # 5 us at least
            inb(channel.control)
        outb(channel.control, 0)
        outb(u16(channel.bus_master + BM_STATUS), BM_ERROR | BM_INTERRUPT)  # or reap takes what was cut off for done, its error forgotten
        return Status.WAIT
    if inb(channel.control) & STATUS_BSY != 0:
        return Status.WAIT
    inb(u16(channel.command + COMMAND))
    outb(u16(channel.bus_master + BM_STATUS), BM_ERROR | BM_INTERRUPT)
    channel.host = NOBODY
    return Status.OK


def cut_off(host: HostDisk) -> None:
    """The channel's DMA is stopped; its other drive may go on."""
    channel = channels[drives[host.unit].channel]
    outb(u16(channel.bus_master + BM_COMMAND), 0)
    channel.host = NOBODY
