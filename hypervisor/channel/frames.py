"""Frames on their way in and out: a parser that any bytes may be given to, and the two checks. Pure.

The parser looks for a header at each byte; what is none is skipped and counted, so it finds the next frame behind garbage. A
frame whose payload does not fit its CRC is dropped whole: its header fitted its own check, so it ends where it says.
"""
from typing import Annotated, Final

from hypervisor.abi_channel import (CHANNEL_VERSION, CRC_BYTES, FRAME_MAGIC, HEADER_BYTES, HEADER_CHECKED, PAYLOAD_MOST,
                                    FrameHeader)
from hypervisor.arch_x86.intrinsics import load_u8
from hypervisor.lang import address, at, struct, u8, u32, u64

FRAME_MOST: Final = HEADER_BYTES + PAYLOAD_MOST + CRC_BYTES
CRC_START: Final[u32] = 0xFFFF_FFFF

# CRC-32 of IEEE 802.3, reflected (polynomial 0xEDB88320), four bits at a time.
CRC_TABLE: Final[Annotated[list[u32], 16]] = [
    0x0000_0000, 0x1DB7_1064, 0x3B6E_20C8, 0x26D9_30AC, 0x76DC_4190, 0x6B6B_51F4, 0x4DB2_6158, 0x5005_713C,
    0xEDB8_8320, 0xF00F_9344, 0xD6D6_A3E8, 0xCB61_B38C, 0x9B64_C2B0, 0x86D3_D2D4, 0xA00A_E278, 0xBDBD_F21C]


@struct
class Parser:
    """A frame being received."""

    have: u32  # bytes of it
    skipped: u64  # bytes that belonged to no frame
    bad: u64  # frames with a wrong CRC
    frame: Annotated[list[u8], FRAME_MOST]


def crc_step(crc: u32, byte: u8) -> u32:
    """The CRC's register after one more byte."""
    after: u32 = (crc >> 4) ^ CRC_TABLE[(crc ^ byte) & 15]
    return (after >> 4) ^ CRC_TABLE[(after ^ (byte >> 4)) & 15]


def crc_of(place: u64, length: u64) -> u32:
    """CRC-32 of `length` bytes."""
    crc: u32 = CRC_START
    for i in range(length):
        crc = crc_step(crc, load_u8(place + i))
    return crc ^ 0xFFFF_FFFF


def header_of(parser: Parser) -> FrameHeader:
    """The header, once there are HEADER_BYTES; that of the whole frame after feed has answered True."""
    return at(FrameHeader, address(parser.frame))


def payload_at(parser: Parser) -> u64:
    """Where the payload begins."""
    return address(parser.frame) + HEADER_BYTES


def feed(parser: Parser, byte: u8) -> bool:
    """Take one byte; True: a frame is whole, and stays until the next call."""
    parser.frame[parser.have] = byte
    parser.have += 1
    if parser.have < HEADER_BYTES:
        return False
    if parser.have == HEADER_BYTES and not _header_holds(parser):
        _skip_one(parser)
        return False
    length: u64 = header_of(parser).length
    if parser.have < HEADER_BYTES + length + CRC_BYTES:
        return False
    parser.have = 0
    if crc_of(payload_at(parser), length) != _crc_received(parser, length):
        parser.bad += 1
        return False
    return True


def fill_header(header: FrameHeader, kind: u32, stream: u32, length: u32) -> None:
    """A header for a frame to be sent."""
    header.magic = FRAME_MAGIC
    header.version = CHANNEL_VERSION
    header.kind = u8(kind)
    header.stream = stream
    header.length = length
    header.header_check = crc_of(address(header), HEADER_CHECKED) & 0xFFFF


def _header_holds(parser: Parser) -> bool:
    header = header_of(parser)
    return (header.magic == FRAME_MAGIC and header.version == CHANNEL_VERSION and header.length <= PAYLOAD_MOST
            and header.header_check == crc_of(address(parser.frame), HEADER_CHECKED) & 0xFFFF)


def _skip_one(parser: Parser) -> None:
    """The first byte begins no frame."""
    for i in range(HEADER_BYTES - 1):
        parser.frame[i] = parser.frame[i + 1]
    parser.have = HEADER_BYTES - 1
    parser.skipped += 1


def _crc_received(parser: Parser, length: u64) -> u32:
    crc: u32 = 0
    for i in range(CRC_BYTES):
        crc |= u32(parser.frame[HEADER_BYTES + length + i]) << (8 * i)
    return crc
