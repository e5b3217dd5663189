"""8254 interval timer: channel 0 drives interrupt 0, channel 2 the speaker gate of port 61.

Source: Intel 8254 data sheet (order 231164-005); port 61: Intel 82371SB (290550-002), 4.1.5 NMISC.

| port | a guest writes | what happens |
|---|---|---|
| 43 | SC < 3, RW > 0: control word | mode and access of that channel; output goes to its idle level; counting stops until a count is written |
| 43 | SC < 3, RW = 0: latch | the count is held for the next read |
| 43 | SC = 3: read-back | counts and status of the channels named are latched |
| 40-42 | count, low and/or high byte | the counter is loaded when the last byte has come; 0 means 65536; modes 1 and 5 wait for a gate edge |
| 61 | bits 0, 1 | gate of channel 2, speaker (silent); bits 2, 3 (NMI enables) are stored and do nothing |

Everything is kept in ticks of 1193182 Hz since the VM started. Reads do not change the count. Not done: BCD (the bit is
stored and shown in the status; counting is binary), and the delay of one tick between load and first count.
"""
from typing import Annotated, Final

from hypervisor.devices.rate import NEVER, ticks_at, time_of
from hypervisor.lang import struct, u16, u32, u64, u8, wrap_u64

VERSION: Final = 1
HZ: Final[u64] = 1_193_182
ACCESS_HIGH: Final = 2
SPEAKER: Final = 2  # the channel behind port 61
PORT61_WRITABLE: Final = 0x0F


@struct
class Channel:
    """One counter."""

    start: u64  # tick at which the count was loaded or triggered
    held: u64  # ticks counted when the gate stopped it
    count: u32  # 1..65536
    mode: u8  # 0..5
    access: u8  # RW of the control word
    bcd: bool
    gate: bool
    loaded: bool  # a count has come since the control word
    running: bool  # counting (modes 1 and 5: triggered)
    low_written: bool  # access 3: the high byte is awaited
    low: u8
    high_next: bool  # access 3: the next read gives the high byte
    latched: u8  # bytes of `latch` still to be read: 0, 1, 2
    latch: u16
    status_latched: bool
    status: u8


@struct
class Pit:
    """The three counters."""

    version: u32
    channels: Annotated[list[Channel], 3]
    seen: u64  # tick up to which channel 0's edges were reported
    port61: u8


def reset(pit: Pit, now: u64) -> None:
    """Power-on: no count loaded, gates 0 and 1 high."""
    pit.version = VERSION
    pit.seen = ticks_at(now, HZ)
    pit.port61 = 0
    for number in range(3):
        channel = pit.channels[number]
        channel.count = 0x10000
        channel.access = 3
        channel.gate = number != SPEAKER


def elapsed(channel: Channel, tick: u64) -> u64:
    """Ticks counted since load or trigger."""
    if not channel.running:
        return channel.held
    return tick - channel.start if tick > channel.start else 0


def current_count(channel: Channel, tick: u64) -> u16:
    """What the counting element shows."""
    gone = elapsed(channel, tick)
    if not channel.loaded:
        return 0
    if channel.mode == 2:
        return u16(channel.count - gone % channel.count)
    if channel.mode == 3:
        return u16(channel.count - 2 * gone % channel.count)
    return u16(wrap_u64(channel.count - gone))


def output(channel: Channel, tick: u64) -> bool:
    """The level of OUT."""
    gone = elapsed(channel, tick)
    match channel.mode:
        case 0:
            return channel.loaded and gone >= channel.count
        case 1:
            return not channel.running or gone >= channel.count
        case 2:
            return not channel.running or gone % channel.count != channel.count - 1
        case 3:
            return not channel.running or 2 * (gone % channel.count) < channel.count
        case _:
            return not channel.running or gone != channel.count
    return True


def next_rise(channel: Channel, after: u64) -> u64:
    """The first tick behind `after` at which OUT rises; NEVER if it does not."""
    if not channel.running:
        return NEVER
    if channel.mode in (2, 3):
        if after < channel.start:
            return channel.start + channel.count
        return channel.start + ((after - channel.start) // channel.count + 1) * channel.count
    rise = channel.start + channel.count
    if channel.mode >= 4:
        rise = rise + 1  # the strobe is low for one tick
    return rise if rise > after else NEVER


def take_edge(pit: Pit, now: u64) -> bool:
    """Whether channel 0's output has risen since the last call; several edges count as one, as in the 8259."""
    tick = ticks_at(now, HZ)
    rose = next_rise(pit.channels[0], pit.seen) <= tick
    pit.seen = tick
    return rose


def next_deadline(pit: Pit) -> u64:
    """Guest time (ns) of channel 0's next edge."""
    tick = next_rise(pit.channels[0], pit.seen)
    return NEVER if tick == NEVER else time_of(tick, HZ)


def status_of(channel: Channel, tick: u64) -> u8:
    """The status byte of the read-back command."""
    return u8((0x80 if output(channel, tick) else 0) | (0 if channel.loaded else 0x40) | channel.access << 4
              | channel.mode << 1 | (1 if channel.bcd else 0))


def latch_count(channel: Channel, tick: u64) -> None:
    """Hold the count until it has been read; a second latch before that does nothing."""
    if channel.latched == 0:
        channel.latch = current_count(channel, tick)
        channel.latched = 2 if channel.access == 3 else 1


def load(channel: Channel, value: u32, tick: u64) -> None:
    """A whole count has been written."""
    was_counting = channel.running and channel.loaded
    channel.count = value if value != 0 else 0x10000
    channel.loaded = True
    channel.held = 0
    if channel.mode in (1, 5):
        return  # the new count is used from the next trigger
    if channel.mode in (2, 3) and was_counting:
        channel.start = tick
        return
    channel.start = tick
    channel.running = channel.gate


def write_count(pit: Pit, number: u32, value: u8, now: u64) -> None:
    """Ports 40-42."""
    channel = pit.channels[number]
    tick = ticks_at(now, HZ)
    match channel.access:
        case 1:
            load(channel, value, tick)
        case 2:
            load(channel, u32(value << 8), tick)
        case _:
            if channel.low_written:
                load(channel, u32(value << 8 | channel.low), tick)
            else:
                channel.low = value
            channel.low_written = not channel.low_written


def read_back(pit: Pit, value: u8, tick: u64) -> None:
    """Control word with SC = 3: bit 5 clear latches counts, bit 4 clear status, bits 3-1 name channels."""
    for number in range(3):
        channel = pit.channels[number]
        if value >> (number + 1 & 7) & 1:
            if not value & 0x20:
                latch_count(channel, tick)
            if not value & 0x10 and not channel.status_latched:
                channel.status = status_of(channel, tick)
                channel.status_latched = True


def write_control(pit: Pit, value: u8, now: u64) -> None:
    """Port 43."""
    tick = ticks_at(now, HZ)
    selected: u32 = u32(value >> 6)
    if selected == 3:
        read_back(pit, value, tick)
        return
    channel = pit.channels[selected]
    access: u8 = value >> 4 & 3
    if access == 0:
        latch_count(channel, tick)
        return
    mode: u8 = value >> 1 & 7
    channel.access = access
    channel.mode = mode if mode < 6 else mode & 3
    channel.bcd = value & 1 != 0
    channel.loaded = False
    channel.running = False
    channel.held = 0
    channel.low_written = False
    channel.high_next = False
    channel.latched = 0
    channel.status_latched = False


def read_count(pit: Pit, number: u32, now: u64) -> u8:
    """Ports 40-42: latched status, else latched count, else the count as it runs."""
    channel = pit.channels[number]
    if channel.status_latched:
        channel.status_latched = False
        return channel.status
    value: u16 = channel.latch
    if channel.latched == 0:
        value = current_count(channel, ticks_at(now, HZ))
    high = channel.access == ACCESS_HIGH or (channel.access == 3 and channel.high_next)
    if channel.access == 3:
        channel.high_next = not channel.high_next
    if channel.latched > 0:
        channel.latched = u8(channel.latched - 1)
    return u8(value >> 8) if high else u8(value & 0xFF)


def set_gate(channel: Channel, gate: bool, now: u64) -> None:
    """GATE changes: an edge up triggers or reloads (modes 1, 2, 3, 5); low stops modes 0, 2, 3, 4."""
    tick = ticks_at(now, HZ)
    if gate == channel.gate:
        return
    if gate and channel.loaded:
        if channel.mode in (0, 4):
            channel.start = tick - channel.held if tick > channel.held else 0
        else:
            channel.start = tick
        channel.running = True
    elif not gate and channel.mode not in (1, 5):
        channel.held = elapsed(channel, tick)
        channel.running = False
    channel.gate = gate


def write_port61(pit: Pit, value: u8, now: u64) -> None:
    """Port 61."""
    pit.port61 = value & PORT61_WRITABLE
    set_gate(pit.channels[SPEAKER], value & 1 != 0, now)


def read_port61(pit: Pit, now: u64) -> u8:
    """Port 61: what was written, bit 4 toggling at the memory refresh rate (15 us), bit 5 channel 2's output."""
    level = output(pit.channels[SPEAKER], ticks_at(now, HZ))
    refresh = now // 15_085 & 1
    return u8(pit.port61 | refresh << 4 | (0x20 if level else 0))
