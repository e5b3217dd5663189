"""How this kernel prints and ends: by hypercalls as a PV guest, by the serial port and port F4 as a Multiboot guest."""
from typing import Annotated, Final

from guest_pv_drivers import hypercall, start_info
from hypervisor.abi import START_INFO_MAGIC, Hypercall, VcpuInfo
from hypervisor.arch_x86 import intrinsics
from hypervisor.arch_x86.intrinsics import atomic_xchg_u64, inb, outb
from hypervisor.lang import address, array, at, char_at, offsetof, struct, u8, u32, u64

UART: Final = 0x3F8
LINE_STATUS: Final = 5
TRANSMITTER_EMPTY: Final = 0x20
EXIT_PORT: Final = 0xF4
NEWLINE: Final = 10
LINE_BYTES: Final = 192
AMD_EBX: Final[u32] = 0x68747541  # Auth
INFO_MEM_UPPER: Final = 8
INFO_CMDLINE: Final = 16
PIC_COMMAND: Final = 0x20
PIC_DATA: Final = 0x21
PIC_READ_IRR: Final = 0x0A
PIT_CHANNEL_0: Final = 0x40
PIT_CONTROL: Final = 0x43
ONCE: Final = 0x30  # channel 0, mode 0
PERIODIC: Final = 0x34  # channel 0, mode 2
EVENT_VECTOR: Final = 32
APIC: Final[u64] = 0xFEE00000
APIC_EOI: Final = 0xB0
CPUID_APIC: Final = 1 << 9


@struct
class Machine:
    """What this guest is and has."""

    pv: bool
    amd: bool
    memory_bytes: u64
    cmdline: u64  # NUL-terminated


@struct(align=64)
class Buffers:
    """Shared with the hypervisor."""

    line: Annotated[list[u8], LINE_BYTES]
    info: VcpuInfo


machine: Final = Machine()
buffers: Final = Buffers()


def init(start: u64, information: u64) -> None:
    """From a PV kernel's StartInfo, or 0 and the Multiboot information."""
    registers: Annotated[list[u32], 4] = array(u32, 4)
    intrinsics.cpuid(0, 0, address(registers))
    machine.amd = registers[1] == AMD_EBX
    hypercall.init(machine.amd)
    if start != 0 and start_info.init(start):
        info = start_info.get()
        machine.pv = info.magic == START_INFO_MAGIC
        machine.memory_bytes = info.memory_bytes
        machine.cmdline = address(info.cmdline)
    else:
        machine.memory_bytes = (u64(intrinsics.load_u32(information + INFO_MEM_UPPER)) + 1024) << 10
        machine.cmdline = intrinsics.load_u32(information + INFO_CMDLINE)


def put(byte: u8) -> None:
    """One byte to the serial port."""
    while inb(UART + LINE_STATUS) & TRANSMITTER_EMPTY == 0:
        intrinsics.pause()
    outb(UART, byte)


def say(text: str) -> None:
    """One line."""
    n: u32 = 0
    while n < LINE_BYTES - 1 and char_at(text, n) != 0:
        buffers.line[n] = char_at(text, n)
        n += 1
    buffers.line[n] = NEWLINE
    done: u64 = 0
    while done <= n:
        if machine.pv:
            done += u64(hypercall.call2(Hypercall.CONSOLE_WRITE, address(buffers.line) + done, n + 1 - done))
        else:
            put(buffers.line[done])
            done += 1


def end(code: u8) -> None:
    """End this VM."""
    if machine.pv:
        hypercall.power_off(code)
    outb(EXIT_PORT, code)
    while True:
        intrinsics.pause()


def time_ns() -> u64:
    """Guest time; both kinds may ask."""
    return hypercall.time_ns()


def start_timer(ns: u64, mode: u8) -> None:
    """An interrupt at EVENT_VECTOR in about `ns`; the PIC's first vector is EVENT_VECTOR too. `mode` of the interval timer: ONCE, or PERIODIC
    (Multiboot only)."""
    if machine.pv:
        hypercall.call2(Hypercall.EVENTS_SETUP, address(buffers.info), EVENT_VECTOR)
        hypercall.call1(Hypercall.TIMER_SET, time_ns() + ns)
        return
    outb(PIC_COMMAND, 0x11)
    outb(PIC_DATA, EVENT_VECTOR)
    outb(PIC_DATA, 4)
    outb(PIC_DATA, 1)
    outb(PIC_DATA, 0xFE)
    count: u64 = ns * 1193182 // 1_000_000_000 + 1
    count = count if count < 0xFFFF else 0xFFFF
    outb(PIT_CONTROL, mode)
    outb(PIT_CHANNEL_0, u8(count & 0xFF))
    outb(PIT_CHANNEL_0, u8(count >> 8))


def interrupt_waits() -> bool:
    """Whether the timer's interrupt has been raised; interrupts are off."""
    if machine.pv:
        return intrinsics.atomic_load_u64(address(buffers.info) + offsetof(VcpuInfo, "pending")) != 0
    outb(PIC_COMMAND, PIC_READ_IRR)
    return inb(PIC_COMMAND) & 1 != 0


def acknowledge(vector: u32) -> None:
    """The interrupt has been taken: EVENT_VECTOR is the event's or the PIC's, above the PIC's it is the local APIC's."""
    if machine.pv:
        atomic_xchg_u64(address(buffers.info) + offsetof(VcpuInfo, "pending"), 0)
    elif vector < EVENT_VECTOR + 16:
        outb(PIC_COMMAND, 0x20)
    else:
        intrinsics.store_u32(APIC + APIC_EOI, 0)


def has_apic() -> bool:
    """Whether CPUID shows a local APIC."""
    registers: Annotated[list[u32], 4] = array(u32, 4)
    intrinsics.cpuid(1, 0, address(registers))
    return not machine.pv and registers[3] & CPUID_APIC != 0


def word(key: str) -> u64:
    """Where the value of `key=` begins on the command line, 0: it is not there. `key` comes with its equals sign."""
    place = machine.cmdline
    while intrinsics.load_u8(place) != 0:
        n: u64 = 0
        while char_at(key, n) != 0 and intrinsics.load_u8(place + n) == char_at(key, n):
            n += 1
        if char_at(key, n) == 0:
            return place + n
        place += 1
    return 0


def number(key: str, default: u64) -> u64:
    """The decimal number behind `key`."""
    place = word(key)
    if place == 0:
        return default
    value: u64 = 0
    while 48 <= intrinsics.load_u8(place) <= 57:
        value = value * 10 + intrinsics.load_u8(place) - 48
        place += 1
    return value


def asked(name: str) -> bool:
    """Whether the command line says `do=name`."""
    place = word("do=")
    if place == 0:
        return False
    n: u64 = 0
    while char_at(name, n) != 0:
        if intrinsics.load_u8(place + n) != char_at(name, n):
            return False
        n += 1
    return intrinsics.load_u8(place + n) in (0, 32)
