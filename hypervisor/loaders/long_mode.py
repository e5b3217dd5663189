"""Segments of a guest that starts in long mode, or in 32-bit protected mode; attributes in the VT-x layout (Intel SDM vol. 3C 25.4.1)."""
from typing import Final

from hypervisor.arch_x86.state import CS, DS, ES, FS, GS, LDTR, SS, TR, GuestState
from hypervisor.lang import u16, u32

CODE_64: Final = 0xA09B  # present, code, accessed, readable, L, G
CODE_32: Final = 0xC09B  # D in place of L
DATA: Final = 0xC093
TSS_BUSY: Final = 0x8B
UNUSABLE: Final = 0x10000


def set_segments(state: GuestState, code: u16, data: u16) -> None:
    """Flat segments by these selectors, a busy TSS, all else unusable. Loaders call it."""
    set_segment(state, CS, code, CODE_64)
    set_segment(state, SS, data, DATA)
    set_segment(state, DS, data, DATA)
    set_segment(state, ES, data, DATA)
    set_segment(state, FS, 0, UNUSABLE)
    set_segment(state, GS, 0, UNUSABLE)
    set_segment(state, LDTR, 0, UNUSABLE)
    set_segment(state, TR, 0, TSS_BUSY)


def set_segments_32(state: GuestState, code: u16, data: u16) -> None:
    """The same for 32-bit protected mode."""
    set_segments(state, code, data)
    state.segments[CS].attributes = CODE_32


def set_segment(state: GuestState, index: u32, selector: u16, attributes: u32) -> None:
    """A flat segment; TR gets the smallest limit that a 64-bit TSS can have."""
    segment = state.segments[index]
    segment.selector = selector
    segment.attributes = attributes
    segment.limit = 0x67 if index == TR else 0xFFFFFFFF
