"""Platform of a VM that runs a stock operating system: its emulated devices, as plain state.

Pure: everything happens to a Platform at a guest time `now` (ns since the VM started). What must reach the world
outside (a byte for the console, power off, reset) is left in `effects` for hypervisor/board.py to carry out.

| ports | device | interrupt |
|---|---|---|
| 20-21, A0-A1, 4D0-4D1 | pic8259 | to the vCPU whose LINT0 takes it, or by pin 0 of the I/O APIC |
| 40-43, 61 | pit8254 | 0 |
| 60, 64 | i8042 | 1, 12 |
| 70-71 | rtc_mc146818 | 8 |
| 80, F4 | debug_ports | |
| 3F8-3FF | uart16550 | 4 |
| 600-605, 608-60B | acpi_pm, pm_timer | 9 (never raised) |
| CF9 (one byte) | reset control: bit 2 resets | |

The PCI bus stands beside the platform (virtio/ports.py), and pulls interrupts 10 and 11. Any other port reads all ones and drops
writes; both are counted. Wide accesses to byte-wide devices are split, as the ISA bus does it. An interrupt of this table goes to
the 8259 and to the pin of its number at the I/O APIC (0: pin 2).

| pages | device | interrupt |
|---|---|---|
| FEC00000 | ioapic | to the local APICs, which are the vCPUs' (hypervisor/apic_bus.py) |
| FED00000 | hpet | 0 and 8 in legacy replacement, else pins 20 to 23 |
"""
from enum import IntEnum
from typing import Final

from hypervisor.devices import (acpi_pm, debug_ports, hpet, i8042, ioapic, pic8259, pit8254, pm_timer, rtc_mc146818,
                                uart16550)
from hypervisor.devices.acpi_pm import AcpiPm
from hypervisor.devices.debug_ports import DebugPorts
from hypervisor.devices.hpet import Hpet
from hypervisor.devices.i8042 import I8042
from hypervisor.devices.ioapic import IoApic
from hypervisor.devices.pic8259 import Pic
from hypervisor.devices.pit8254 import Pit
from hypervisor.devices.rate import NEVER
from hypervisor.devices.rtc_mc146818 import Rtc
from hypervisor.devices.uart16550 import Uart
from hypervisor.lang import clear, struct, u32, u64, u8

VERSION: Final = 2
IRQ_TIMER: Final = 0
IRQ_KEYBOARD: Final = 1
IRQ_UART: Final = 4
IRQ_RTC: Final = 8
IRQ_ACPI: Final = 9
IRQ_AUX: Final = 12
PCI_LINES: Final = 1 << 10 | 1 << 11
PM_BASE: Final = 0x600
RESET_CONTROL_RESET: Final = 0x04
ALL_ONES: Final = 0xFFFF_FFFF
PAGE_BYTES: Final = 4096

# Platform.effects: what is to be done outside.
EFFECT_CONSOLE: Final = 1  # sent_byte goes to the guest's console
EFFECT_RESET: Final = 2
EFFECT_POWER_OFF: Final = 4  # with exit_code
EFFECT_DEADLINE: Final = 8  # next_deadline may have changed
EFFECT_INTERRUPT: Final = 16  # interrupt_pending may have become true, or ioapic.wanted not 0
EFFECT_RECEIVER_READ: Final = 32  # the UART has room for another byte


class Device(IntEnum):
    """Who answers at a port."""

    NONE = 0
    PIC = 1
    PIT = 2
    PORT61 = 3
    I8042 = 4
    RTC = 5
    DEBUG = 6
    UART = 7
    ELCR = 8
    PM = 9
    PM_TIMER = 10
    RESET_CONTROL = 11


@struct
class Platform:
    """Device state of one VM. No pointers: it can be saved as it stands."""

    version: u32
    effects: u32
    sent_byte: u8
    exit_code: u32
    boot_seconds: u64  # Unix time at guest time 0
    unknown_reads: u64
    unknown_writes: u64
    last_unknown: u32  # port
    pic: Pic
    pit: Pit
    uart: Uart
    rtc: Rtc
    keyboard: I8042
    pm: AcpiPm
    debug: DebugPorts
    ioapic: IoApic
    hpet: Hpet


def reset(p: Platform, unix_seconds: u64, now: u64) -> None:
    """Power-on of all devices, after what firmware does (ACPI's interrupt and those of PCI are level-triggered)."""
    clear(p)
    p.version = VERSION
    p.boot_seconds = unix_seconds
    pic8259.reset(p.pic)
    pic8259.write_level(p.pic, 1, 1 << (IRQ_ACPI - 8) | PCI_LINES >> 8)
    pit8254.reset(p.pit, now)
    uart16550.reset(p.uart)
    rtc_mc146818.reset(p.rtc, unix_seconds, now)
    i8042.reset(p.keyboard)
    acpi_pm.reset(p.pm)
    debug_ports.reset(p.debug)
    ioapic.reset(p.ioapic)
    hpet.reset(p.hpet)


def device_at(port: u32) -> Device:
    """The port table."""
    match port:
        case 0x20 | 0x21 | 0xA0 | 0xA1:
            return Device.PIC
        case 0x40 | 0x41 | 0x42 | 0x43:
            return Device.PIT
        case 0x61:
            return Device.PORT61
        case 0x60 | 0x64:
            return Device.I8042
        case 0x70 | 0x71:
            return Device.RTC
        case 0x80 | 0xF4:
            return Device.DEBUG
        case 0x3F8 | 0x3F9 | 0x3FA | 0x3FB | 0x3FC | 0x3FD | 0x3FE | 0x3FF:
            return Device.UART
        case 0x4D0 | 0x4D1:
            return Device.ELCR
        case 0x600 | 0x601 | 0x602 | 0x603 | 0x604 | 0x605:
            return Device.PM
        case 0x608 | 0x609 | 0x60A | 0x60B:
            return Device.PM_TIMER
        case 0xCF9:
            return Device.RESET_CONTROL
        case _:
            return Device.NONE


def drive(p: Platform, irq: u32, level: bool) -> None:
    """ISA interrupt line 0..15 takes a level, at both interrupt controllers."""
    pic8259.set_line(p.pic, irq, level)
    ioapic.set_line(p.ioapic, ioapic.PIN_TIMER if irq == IRQ_TIMER else irq, level)
    if level:
        p.effects = p.effects | EFFECT_INTERRUPT


def pulse(p: Platform, irq: u32) -> None:
    """One rising edge on it."""
    drive(p, irq, False)
    drive(p, irq, True)


def update_uart(p: Platform) -> None:
    """Carry the UART's interrupt on."""
    drive(p, IRQ_UART, uart16550.line(p.uart))


def update_keyboard(p: Platform) -> None:
    """Carry the controller's interrupts on."""
    drive(p, IRQ_KEYBOARD, i8042.keyboard_line(p.keyboard))
    drive(p, IRQ_AUX, i8042.aux_line(p.keyboard))


def update_rtc(p: Platform) -> None:
    """Carry the clock's interrupt on, unless the HPET has its place."""
    drive(p, IRQ_RTC, rtc_mc146818.line(p.rtc) and not hpet.is_legacy(p.hpet))
    p.effects = p.effects | EFFECT_DEADLINE


def unknown(p: Platform, port: u32, write: bool) -> None:
    """Count an access to a port without a device."""
    p.last_unknown = port
    if write:
        p.unknown_writes = p.unknown_writes + 1
    else:
        p.unknown_reads = p.unknown_reads + 1


def read(p: Platform, port: u32, size: u32, now: u64) -> u32:
    """IN of 1, 2 or 4 bytes."""
    device = device_at(port)
    if device == Device.PM:
        return acpi_pm.read(p.pm, u32(port - PM_BASE), size)
    if device == Device.PM_TIMER:
        return u32(pm_timer.read(now) >> (8 * (port & 3)) & (0xFFFF_FFFF >> (32 - 8 * size & 31)))
    if size == 1:
        return read_byte(p, device, port, now)
    if device == Device.NONE:
        unknown(p, port, False)
        return u32(0xFFFF_FFFF >> (32 - 8 * size & 31))
    value: u32 = 0
    for index in range(size):
        here: u32 = u32(port + index & 0xFFFF)
        value = u32(value | read_byte(p, device_at(here), here, now) << (8 * index & 31))
    return value


def read_byte(p: Platform, device: Device, port: u32, now: u64) -> u8:
    """IN of one byte from a byte-wide device."""
    value: u8 = 0xFF
    match device:
        case Device.UART:
            value = uart16550.read(p.uart, port & 7)
            if port & 7 == 0:
                p.effects = p.effects | EFFECT_RECEIVER_READ
            update_uart(p)
        case Device.PIC:
            latched = settle_timer(p, now)
            value = pic8259.read(p.pic, port >> 7 & 1, port & 1 != 0)
            p.effects = p.effects | EFFECT_INTERRUPT
            restart_timer(p, latched)
        case Device.PIT:
            value = pit8254.read_count(p.pit, port & 3, now) if port != 0x43 else 0xFF
        case Device.PORT61:
            value = pit8254.read_port61(p.pit, now)
        case Device.RTC:
            value = rtc_mc146818.read_data(p.rtc, now) if port == 0x71 else 0xFF
            update_rtc(p)
        case Device.I8042:
            value = i8042.read_data(p.keyboard) if port == 0x60 else i8042.read_status(p.keyboard)
            update_keyboard(p)
        case Device.DEBUG:
            value = p.debug.post_code if port == 0x80 else 0
        case Device.RESET_CONTROL:
            value = 0
        case Device.ELCR:
            value = pic8259.read_level(p.pic, port & 1)
        case _:
            unknown(p, port, False)
    return value


def write(p: Platform, port: u32, size: u32, value: u32, now: u64) -> None:
    """OUT of 1, 2 or 4 bytes."""
    device = device_at(port)
    if device == Device.PM:
        if acpi_pm.write(p.pm, u32(port - PM_BASE), size, value):
            p.effects = p.effects | EFFECT_POWER_OFF
    elif device == Device.PM_TIMER:
        pass
    elif size == 1:
        write_byte(p, device, port, u8(value), now)
    elif device == Device.NONE:
        unknown(p, port, True)
    else:
        for index in range(size):
            here: u32 = u32(port + index & 0xFFFF)
            write_byte(p, device_at(here), here, u8(value >> (8 * index & 31)), now)


def write_byte(p: Platform, device: Device, port: u32, value: u8, now: u64) -> None:
    """OUT of one byte to a byte-wide device."""
    match device:
        case Device.UART:
            sent = uart16550.write(p.uart, port & 7, value)
            if sent != uart16550.NOTHING_SENT:
                p.sent_byte = u8(sent)
                p.effects = p.effects | EFFECT_CONSOLE
            update_uart(p)
        case Device.PIC:
            held = settle_timer(p, now)
            pic8259.write(p.pic, port >> 7 & 1, port & 1 != 0, value)
            p.effects = p.effects | EFFECT_INTERRUPT
            restart_timer(p, held)
        case Device.PIT:
            write_pit(p, port, value, now)
        case Device.PORT61:
            pit8254.write_port61(p.pit, value, now)
        case Device.RTC:
            if port == 0x70:
                rtc_mc146818.write_index(p.rtc, value)
            else:
                rtc_mc146818.write_data(p.rtc, value, now)
                update_rtc(p)
        case Device.I8042:
            if i8042.write_data(p.keyboard, value) if port == 0x60 else i8042.write_command(p.keyboard, value):
                p.effects = p.effects | EFFECT_RESET
            update_keyboard(p)
        case Device.DEBUG:
            write_debug(p, port, value)
        case Device.ELCR:
            pic8259.write_level(p.pic, port & 1, value)
        case Device.RESET_CONTROL:
            if value & RESET_CONTROL_RESET:
                p.effects = p.effects | EFFECT_RESET
        case _:
            unknown(p, port, True)


def write_pit(p: Platform, port: u32, value: u8, now: u64) -> None:
    """Ports 40-43; an edge that is due comes before the change."""
    advance_timer(p, now)
    if port == 0x43:
        pit8254.write_control(p.pit, value, now)
    else:
        pit8254.write_count(p.pit, port & 3, value, now)
    p.effects = p.effects | EFFECT_DEADLINE


def write_debug(p: Platform, port: u32, value: u8) -> None:
    """Ports 80 and F4."""
    if port == 0x80:
        p.debug.post_code = value
    else:
        p.exit_code = value
        p.effects = p.effects | EFFECT_POWER_OFF


def receive(p: Platform, value: u8) -> None:
    """A byte typed by the operator arrives at the UART; see uart16550.room."""
    uart16550.receive(p.uart, value)
    update_uart(p)


def set_line(p: Platform, irq: u32, level: bool) -> None:
    """The interrupt line of devices beside the platform changes."""
    drive(p, irq, level)


def advance_timer(p: Platform, now: u64) -> None:
    """Take the edges of the interval timer up to `now`."""
    if pit8254.take_edge(p.pit, now):
        if not hpet.is_legacy(p.hpet):
            pulse(p, IRQ_TIMER)
        p.effects = p.effects | EFFECT_DEADLINE


def timer_waits(p: Platform) -> bool:
    """Whether another edge of the interval timer would change nothing: the 8259 has one already, and the I/O APIC takes none."""
    return pic8259.is_latched(p.pic, IRQ_TIMER) and ioapic.is_masked(p.ioapic, ioapic.PIN_TIMER)


def settle_timer(p: Platform, now: u64) -> bool:
    """Before an interrupt controller changes: an interval timer that stands still because its interrupt waits (next_deadline) is
    brought up to `now`, or edges that came while it waited would be shown after it was taken. Whether it waits."""
    latched = timer_waits(p)
    if latched:
        advance_timer(p, now)
    return latched


def restart_timer(p: Platform, latched: bool) -> None:
    """After one has changed: the next edge counts again if the interrupt waits no more."""
    if latched and not timer_waits(p):
        p.effects = p.effects | EFFECT_DEADLINE


def advance(p: Platform, now: u64) -> None:
    """Let everything happen that is due by `now`."""
    advance_timer(p, now)
    if now >= hpet.next_deadline(p.hpet):
        hpet.advance(p.hpet, now)
        pass_hpet_on(p)
    if now >= rtc_mc146818.next_deadline(p.rtc):
        rtc_mc146818.advance(p.rtc, now)
        update_rtc(p)


def next_deadline(p: Platform) -> u64:
    """Guest time (ns) at which `advance` has something to do; NEVER if nothing is due.

    An edge of the interval timer is nothing to do while its interrupt waits: the PIC keeps one, so a guest that does not
    take it, or does not run, needs no further.
    """
    timer = NEVER if timer_waits(p) else pit8254.next_deadline(p.pit)
    clock = rtc_mc146818.next_deadline(p.rtc)
    match_ = hpet.next_deadline(p.hpet)
    best = timer if timer < clock else clock
    return best if best < match_ else match_


def interrupt_pending(p: Platform) -> bool:
    """Whether the 8259 asserts its output."""
    return pic8259.pending(p.pic)


def acknowledge(p: Platform) -> u32:
    """The vector of the 8259 that a vCPU takes now; `advance` has been called."""
    latched = timer_waits(p)
    vector = pic8259.acknowledge(p.pic)
    restart_timer(p, latched)
    return vector


# Memory-mapped devices


def pass_hpet_on(p: Platform) -> None:
    """Carry the HPET's matches on: edges by legacy replacement or by route, levels by status."""
    p.effects = p.effects | EFFECT_DEADLINE
    raised = p.hpet.raised
    p.hpet.raised = 0
    for number in range(hpet.TIMERS):
        timer = p.hpet.timers[number]
        pin = hpet.pin_of(p.hpet, u32(number))
        if hpet.is_legacy(p.hpet) and number < 2:
            if raised >> (number & 31) & 1:
                pulse(p, IRQ_TIMER if number == 0 else IRQ_RTC)
        elif pin != hpet.NO_PIN and timer.config & hpet.TIMER_LEVEL != 0:
            ioapic.set_line(p.ioapic, pin, p.hpet.status >> (number & 63) & 1 != 0)
            p.effects = p.effects | EFFECT_INTERRUPT
        elif pin != hpet.NO_PIN and raised >> (number & 31) & 1:
            ioapic.set_line(p.ioapic, pin, False)
            ioapic.set_line(p.ioapic, pin, True)
            p.effects = p.effects | EFFECT_INTERRUPT


def read_page(p: Platform, gpa: u64, size: u32, now: u64) -> u64:
    """A read of 1, 2, 4 or 8 bytes, not across an aligned 8, in the page of a device of this platform; others read ones."""
    offset: u64 = gpa & (PAGE_BYTES - 1)
    mask: u64 = 0xFFFF_FFFF_FFFF_FFFF >> (64 - 8 * size & 63)
    if gpa - offset == ioapic.BASE:
        return u64(ioapic.read(p.ioapic, u32(offset & ~3))) >> (8 * (offset & 3)) & mask
    if gpa - offset == hpet.BASE and offset < hpet.BYTES:
        return hpet.read(p.hpet, u32(offset & ~7), now) >> (8 * (offset & 7)) & mask
    return mask


def write_page(p: Platform, gpa: u64, size: u32, value: u64, now: u64) -> None:
    """A write likewise; the I/O APIC takes aligned 32 bits, the HPET these and aligned 64, all else is dropped."""
    offset: u64 = gpa & (PAGE_BYTES - 1)
    if gpa - offset == ioapic.BASE and size == 4 and offset & 3 == 0:
        held = settle_timer(p, now)
        ioapic.write(p.ioapic, u32(offset), u32(value & ALL_ONES))
        p.effects = p.effects | EFFECT_INTERRUPT
        restart_timer(p, held)
    elif gpa - offset == hpet.BASE and offset < hpet.BYTES and size >= 4 and offset & (size - 1) == 0:
        written: u64 = 0xFFFF_FFFF_FFFF_FFFF >> (64 - 8 * size & 63)
        shift: u64 = 8 * (offset & 7)
        advance_timer(p, now)
        hpet.write(p.hpet, u32(offset & ~7), value << (shift & 63), written << (shift & 63), now)
        pass_hpet_on(p)
        update_rtc(p)
