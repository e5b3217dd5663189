"""Two 8259A interrupt controllers, the second on input 2 of the first, with the PC's edge/level registers.

Source: Intel 8259A data sheet (order 231468-003); edge/level registers: Intel 82371SB (290550-002), 4.1.1 ELCR.

| port | a guest writes | what happens |
|---|---|---|
| 20, A0 | bit 4 set: ICW1 | requests of edge inputs, mask, in-service and modes are cleared; ICW2 is awaited, then ICW3 unless SNGL, then ICW4 if IC4 |
| 20, A0 | bits 4-3 = 01: OCW3 | RR/RIS choose what is read here (IRR or ISR); P: the next read polls; ESMM/SMM set special mask mode |
| 20, A0 | bits 4-3 = 00: OCW2 | EOI (specific or of the highest in service), rotation, fixed priority; others do nothing |
| 21, A1 | ICW2..4 while awaited | vector base (bits 7-3), cascade (ignored: wired), automatic EOI and special fully nested mode |
| 21, A1 | otherwise: OCW1 | the mask |
| 4D0, 4D1 | level (1) or edge (0) | inputs 0, 1, 2, 8 and 13 stay edge |

Not done: MCS-80 mode (ICW4.uPM = 0 counts as 8086 mode), buffered mode (no effect in a PC), level mode by ICW1.LTIM
(the edge/level registers rule). A request that has gone before it is acknowledged gives the spurious vector 7.
"""
from typing import Annotated, Final

from hypervisor.lang import struct, u32, u8

VERSION: Final = 1
CASCADE: Final = 2  # input of the first chip that the second one drives
ICW1_IC4: Final = 0x01
ICW1_SNGL: Final = 0x02
ICW1_INIT: Final = 0x10
ICW4_AEOI: Final = 0x02
ICW4_SFNM: Final = 0x10
OCW3_SELECT: Final = 0x08
NO_INPUT: Final = 8  # "no interrupt" as a priority or an input number


@struct
class Chip:
    """One 8259A."""

    irr: u8  # requests
    imr: u8  # mask
    isr: u8  # in service
    lines: u8  # the inputs as driven now
    level: u8  # ELCR: inputs that are level-triggered
    level_writable: u8
    vector_base: u8
    lowest: u8  # input of lowest priority; 7 after initialisation
    init_step: u8  # ICW awaited: 2, 3, 4; 0: none
    single: bool
    need_icw4: bool
    auto_eoi: bool
    rotate_on_auto_eoi: bool
    special_fully_nested: bool
    special_mask: bool
    read_isr: bool
    poll: bool


@struct
class Pic:
    """The pair."""

    version: u32
    chips: Annotated[list[Chip], 2]


def reset(pic: Pic) -> None:
    """State after power-on: everything masked by nobody, no request."""
    pic.version = VERSION
    for number in range(2):
        chip = pic.chips[number]
        initialise(chip)
        chip.level = 0
        chip.level_writable = 0xF8 if number == 0 else 0xDE
        chip.vector_base = 0
        chip.init_step = 0


def initialise(chip: Chip) -> None:
    """What ICW1 clears."""
    chip.irr = chip.lines & chip.level
    chip.imr = 0
    chip.isr = 0
    chip.lowest = 7
    chip.auto_eoi = False
    chip.rotate_on_auto_eoi = False
    chip.special_fully_nested = False
    chip.special_mask = False
    chip.read_isr = False
    chip.poll = False


def priority_of(chip: Chip, mask: u32) -> u32:
    """Priority (0 highest) of the most urgent input in `mask`; NO_INPUT if it is empty."""
    if mask == 0:
        return NO_INPUT
    priority: u32 = 0
    while mask >> ((priority + chip.lowest + 1) & 7) & 1 == 0:
        priority = u32(priority + 1)
    return priority


def chip_request(chip: Chip, second: bool) -> u32:
    """The input whose request this chip passes on now; NO_INPUT if none."""
    wanted = priority_of(chip, u32(chip.irr & ~chip.imr & 0xFF))
    if wanted == NO_INPUT:
        return NO_INPUT
    busy: u32 = chip.isr
    if chip.special_mask:
        busy = u32(busy & ~chip.imr & 0xFF)
    if chip.special_fully_nested and not second:
        busy = u32(busy & ~(1 << CASCADE) & 0xFF)
    if wanted >= priority_of(chip, busy):
        return NO_INPUT
    return u32((wanted + chip.lowest + 1) & 7)


def drive(chip: Chip, number: u32, level: bool) -> None:
    """Input `number` (0..7) of a chip takes a level."""
    bit: u8 = u8(1 << (number & 7))
    if level:
        if chip.level & bit or not chip.lines & bit:
            chip.irr = chip.irr | bit
        chip.lines = chip.lines | bit
    else:
        chip.lines = u8(chip.lines & ~bit)
        if chip.level & bit:
            chip.irr = u8(chip.irr & ~bit)


def cascade(pic: Pic) -> None:
    """Carry the second chip's output to the first. The output drops in each INTA cycle, so it acts like a level."""
    first = pic.chips[0]
    asked: u8 = 1 << CASCADE if chip_request(pic.chips[1], True) != NO_INPUT else 0
    first.irr = u8(first.irr & ~(1 << CASCADE)) | asked


def set_line(pic: Pic, irq: u32, level: bool) -> None:
    """Drive ISA interrupt line 0..15; an edge needs a call with False before the next one with True."""
    if irq < 8:
        drive(pic.chips[0], irq, level)
    else:
        drive(pic.chips[1], u32(irq & 7), level)
        cascade(pic)


def pulse(pic: Pic, irq: u32) -> None:
    """One rising edge on line 0..15, as a timer output makes it."""
    set_line(pic, irq, False)
    set_line(pic, irq, True)


def is_latched(pic: Pic, irq: u32) -> bool:
    """Whether an edge on line 0..15 would change nothing: its request waits already."""
    return pic.chips[irq >> 3].irr >> (irq & 7) & 1 != 0


def pending(pic: Pic) -> bool:
    """Whether the pair asserts INTR."""
    return chip_request(pic.chips[0], False) != NO_INPUT


def acknowledge_chip(chip: Chip, number: u32) -> None:
    """Take the request of input `number` into service."""
    bit: u8 = u8(1 << (number & 7))
    if chip.auto_eoi:
        if chip.rotate_on_auto_eoi:
            chip.lowest = u8(number)
    else:
        chip.isr = chip.isr | bit
    if not chip.level & bit:
        chip.irr = u8(chip.irr & ~bit)


def acknowledge(pic: Pic) -> u32:
    """The INTA cycle: the vector of the most urgent request goes into service and is returned (spurious: input 7)."""
    first = pic.chips[0]
    number = chip_request(first, False)
    if number == NO_INPUT:
        return u32(first.vector_base + 7)
    if number != CASCADE:
        acknowledge_chip(first, number)
        return u32(first.vector_base + number)
    second = pic.chips[1]
    slave = chip_request(second, True)
    acknowledge_chip(first, CASCADE)
    if slave == NO_INPUT:
        return u32(second.vector_base + 7)
    acknowledge_chip(second, slave)
    cascade(pic)
    return u32(second.vector_base + slave)


def end_of_interrupt(chip: Chip, command: u32, number: u32) -> None:
    """OCW2: `command` is R, SL, EOI (bits 7-5), `number` the input for SL."""
    busiest = priority_of(chip, chip.isr)
    match command:
        case 0b001 | 0b101:  # non-specific EOI, with rotation
            if busiest != NO_INPUT:
                done: u32 = u32((busiest + chip.lowest + 1) & 7)
                chip.isr = u8(chip.isr & ~(1 << (done & 7)))
                if command == 0b101:
                    chip.lowest = u8(done)
        case 0b011 | 0b111:  # specific EOI, with rotation
            chip.isr = u8(chip.isr & ~(1 << (number & 7)))
            if command == 0b111:
                chip.lowest = u8(number)
        case 0b110:  # set priority
            chip.lowest = u8(number)
        case 0b100:
            chip.rotate_on_auto_eoi = True
        case 0b000:
            chip.rotate_on_auto_eoi = False
        case _:
            pass


def write_command(chip: Chip, value: u8) -> None:
    """Port 20 or A0."""
    if value & ICW1_INIT:
        initialise(chip)
        chip.single = value & ICW1_SNGL != 0
        chip.need_icw4 = value & ICW1_IC4 != 0
        chip.init_step = 2
    elif value & OCW3_SELECT:
        if value & 0x02:
            chip.read_isr = value & 0x01 != 0
        if value & 0x40:
            chip.special_mask = value & 0x20 != 0
        chip.poll = value & 0x04 != 0
    else:
        end_of_interrupt(chip, u32(value >> 5), u32(value & 7))


def write_data(chip: Chip, value: u8) -> None:
    """Port 21 or A1."""
    match chip.init_step:
        case 2:
            chip.vector_base = value & 0xF8
            if chip.single:
                chip.init_step = 4 if chip.need_icw4 else 0
            else:
                chip.init_step = 3
        case 3:
            chip.init_step = 4 if chip.need_icw4 else 0
        case 4:
            chip.auto_eoi = value & ICW4_AEOI != 0
            chip.special_fully_nested = value & ICW4_SFNM != 0
            chip.init_step = 0
        case _:
            chip.imr = value


def write(pic: Pic, chip_number: u32, data_port: bool, value: u8) -> None:
    """A byte to the command (20, A0) or data port (21, A1) of chip 0 or 1."""
    chip = pic.chips[chip_number]
    if data_port:
        write_data(chip, value)
    else:
        write_command(chip, value)
    cascade(pic)


def poll(pic: Pic, chip_number: u32) -> u8:
    """The poll read: bit 7 and the input's number if there is a request, which goes into service; else 0."""
    chip = pic.chips[chip_number]
    chip.poll = False
    number = chip_request(chip, chip_number == 1)
    if number == NO_INPUT:
        return 0
    acknowledge_chip(chip, number)
    cascade(pic)
    return u8(0x80 | number)


def read(pic: Pic, chip_number: u32, data_port: bool) -> u8:
    """A byte from the command or data port of chip 0 or 1."""
    chip = pic.chips[chip_number]
    if chip.poll:
        return poll(pic, chip_number)
    if data_port:
        return chip.imr
    return chip.isr if chip.read_isr else chip.irr


def write_level(pic: Pic, chip_number: u32, value: u8) -> None:
    """Port 4D0 or 4D1."""
    chip = pic.chips[chip_number]
    chip.level = value & chip.level_writable
    chip.irr = u8(chip.irr & ~chip.level) | (chip.lines & chip.level)
    cascade(pic)


def read_level(pic: Pic, chip_number: u32) -> u8:
    """Port 4D0 or 4D1."""
    return pic.chips[chip_number].level
