"""Reads and writes of a local APIC's registers, by page (xAPIC) and by MSR (x2APIC). lapic.py has the table."""
from typing import Final

from hypervisor.devices import lapic, lapic_timer
from hypervisor.devices.lapic import Lapic
from hypervisor.lang import struct, u32, u64

X2APIC_FIRST: Final = 0x800
X2APIC_LAST: Final = 0x8FF
TSC_DEADLINE: Final = 0x6E0
UNKNOWN: Final[u64] = 1 << 63  # no register is that wide but ICR, whose bit 63 xAPIC does not have either


@struct
class RegisterValue:
    """What a read of an MSR found."""

    value: u64


def read(apic: Lapic, offset: u32, now: u64) -> u64:
    """A register by its offset, a multiple of 16, at guest time `now` (ns); ICR with 32 bits; UNKNOWN: there is none."""
    match offset:
        case lapic.TPR:
            return apic.tpr
        case lapic.ID:
            return apic.id if lapic.is_extended(apic) else apic.id << 24
        case lapic.VERSION_AT:
            return lapic.VERSION_REGISTER
        case lapic.PPR | lapic.APR:
            return apic.ppr
        case lapic.LDR:
            return lapic.logical_id(apic) if lapic.is_extended(apic) else apic.ldr
        case lapic.SVR:
            return apic.svr
        case lapic.ESR:
            return apic.esr
        case lapic.ICR:
            return apic.icr & 0xFFFF_FFFF
        case lapic.TIMER_INITIAL:
            return apic.initial_count
        case lapic.TIMER_CURRENT:
            return lapic_timer.current_count(apic, now)
        case lapic.TIMER_DIVIDE:
            return apic.divide
        case _:
            return read_more(apic, offset)


def read_more(apic: Lapic, offset: u32) -> u64:
    """Registers that come in rows, and those of xAPIC alone."""
    word: u32 = offset >> 4 & 7
    if offset >= lapic.ISR and offset < lapic.TMR:
        return apic.isr[word]
    if offset >= lapic.TMR and offset < lapic.IRR:
        return apic.tmr[word]
    if offset >= lapic.IRR and offset < lapic.ESR:
        return apic.irr[word]
    if offset >= lapic.LVT_TIMER and offset <= lapic.LVT_ERROR:
        return apic.lvt[(offset - lapic.LVT_TIMER) >> 4]
    if not lapic.is_extended(apic):
        if offset == lapic.DFR:
            return apic.dfr
        if offset == lapic.ICR2:
            return apic.icr >> 32
        if offset == lapic.EOI:
            return 0
    return UNKNOWN


def write(apic: Lapic, offset: u32, value: u32, now: u64) -> bool:
    """A register of both modes by its offset, a multiple of 16; False: there is none that can be written."""
    match offset:
        case lapic.EOI:
            lapic.end_of_interrupt(apic)
        case lapic.TPR:
            apic.tpr = value & 0xFF
            lapic.update_ppr(apic)
            apic.effects = apic.effects | lapic.EFFECT_TPR | lapic.EFFECT_INTERRUPT
        case lapic.TIMER_INITIAL:
            lapic_timer.start(apic, value, now)
        case lapic.TIMER_DIVIDE:
            lapic_timer.set_divide(apic, value, now)
        case lapic.SVR:
            write_svr(apic, value)
        case lapic.ESR:
            apic.esr = apic.errors
            apic.errors = 0
        case _:
            if offset < lapic.LVT_TIMER or offset > lapic.LVT_ERROR:
                return False
            write_lvt(apic, (offset - lapic.LVT_TIMER) >> 4, value, now)
    return True


def write_svr(apic: Lapic, value: u32) -> None:
    """Clearing the enable bit masks all local vectors (11.4.7.2)."""
    apic.svr = value & lapic.SVR_WRITABLE
    if apic.svr & lapic.SVR_ENABLE == 0:
        for place in range(lapic.LVTS):
            apic.lvt[place] = apic.lvt[place] | lapic.LVT_MASKED
    apic.effects = apic.effects | lapic.EFFECT_INTERRUPT


def write_lvt(apic: Lapic, place: u32, value: u32, now: u64) -> None:
    """One local vector."""
    before = lapic_timer.mode(apic)
    entry: u32 = value & lapic.LVT_WRITABLE[place]
    if apic.svr & lapic.SVR_ENABLE == 0:
        entry = entry | lapic.LVT_MASKED
    apic.lvt[place] = entry
    if place == lapic.LVT_AT_TIMER:
        lapic_timer.mode_changed(apic, before, now)
    else:
        apic.effects = apic.effects | lapic.EFFECT_INTERRUPT


def read_page(apic: Lapic, offset: u32, now: u64) -> u32:
    """xAPIC: the 32-bit register at an offset in the page; one that is not there reads 0 and is an error."""
    value = read(apic, offset, now) if offset & 15 == 0 else UNKNOWN
    if value == UNKNOWN:
        lapic.detect_error(apic, lapic.ERROR_REGISTER)
        return 0
    return u32(value)


def write_page(apic: Lapic, offset: u32, value: u32, now: u64) -> None:
    """xAPIC: 32 bits to an offset in the page."""
    if offset == lapic.ICR:
        lapic.send(apic, apic.icr & 0xFFFF_FFFF_0000_0000 | value)
    elif offset == lapic.ICR2:
        apic.icr = apic.icr & 0xFFFF_FFFF | u64(value & 0xFF00_0000) << 32
    elif offset == lapic.LDR:
        apic.ldr = value & 0xFF00_0000
    elif offset == lapic.DFR:
        apic.dfr = value | 0x0FFF_FFFF
    elif offset & 15 != 0 or not write(apic, offset, value, now):
        if offset & 15 != 0 or read(apic, offset, now) == UNKNOWN:
            lapic.detect_error(apic, lapic.ERROR_REGISTER)


def read_msr(apic: Lapic, msr: u32, now: u64, found: RegisterValue) -> bool:
    """x2APIC: RDMSR of X2APIC_FIRST..X2APIC_LAST; False: #GP."""
    if not lapic.is_extended(apic):
        return False
    offset: u32 = (msr & 0xFF) << 4
    if offset == lapic.ICR:
        found.value = apic.icr
        return True
    found.value = read(apic, offset, now)
    return found.value != UNKNOWN and offset != lapic.APR


def write_msr(apic: Lapic, msr: u32, value: u64, now: u64) -> bool:
    """x2APIC: WRMSR to X2APIC_FIRST..X2APIC_LAST; False: #GP."""
    offset: u32 = (msr & 0xFF) << 4
    if not lapic.is_extended(apic):
        return False
    if offset == lapic.EOI:
        if value != 0:
            return False
        lapic.end_of_interrupt(apic)
        return True
    if offset == lapic.ICR:
        if value & 0xFFFF_FFFF & ~lapic.ICR_LOW_WRITABLE != 0:
            return False
        lapic.send(apic, value)
        return True
    if offset == lapic.SELF_IPI:
        if value > 0xFF:
            return False
        lapic.send(apic, value | 1 << 18)
        return True
    if value >> 32 != 0 or not allowed(offset, u32(value & 0xFFFF_FFFF)):
        return False
    return write(apic, offset, u32(value & 0xFFFF_FFFF), now)


def allowed(offset: u32, value: u32) -> bool:
    """x2APIC: no reserved bit is set."""
    match offset:
        case lapic.TPR:
            return value <= 0xFF
        case lapic.ESR:
            return value == 0
        case lapic.SVR:
            return value & ~lapic.SVR_WRITABLE == 0
        case lapic.TIMER_DIVIDE:
            return value & ~0xB == 0
        case _:
            if offset >= lapic.LVT_TIMER and offset <= lapic.LVT_ERROR:
                reserved: u32 = value & ~lapic.LVT_WRITABLE[(offset - lapic.LVT_TIMER) >> 4] & 0xFFFF_FFFF
                return reserved & ~0x5000 == 0
            return True
