"""Local APIC of one vCPU: xAPIC page and x2APIC registers, priorities, inter-processor interrupts. Its timer is in lapic_timer.py.

Source: Intel SDM vol. 3A, chapter 11 (order 325462-080), with its numbering of sections. Pure: what must reach the world outside
is left in `effects` for hypervisor/apic_bus.py to carry out.

| register | a guest writes | what happens |
|---|---|---|
| 020 ID, 030 version, 090 APR, 0A0 PPR | anything | nothing (x2APIC: #GP) |
| 080 TPR | priority | interrupts of its class and below wait; CR8 is bits 7-4 of it |
| 0B0 EOI | anything (x2APIC: 0) | the interrupt of the highest priority is in service no more; a level-triggered one is told to the I/O APIC |
| 0D0 LDR, 0E0 DFR | bits 31-24, 31-28 | logical address, flat or cluster model (x2APIC: #GP, LDR follows from the ID) |
| 0F0 SVR | vector, enable, focus | clearing bit 8 masks all local vectors and refuses fixed interrupts |
| 280 ESR | anything (x2APIC: 0) | errors since the last write can be read |
| 300 ICR | bits 19-18, 15-14, 11-0 | sends: fixed, lowest priority, NMI, INIT, start-up; SMI and INIT level de-assert do nothing |
| 310 ICR2 | bits 31-24 | destination of the next one (x2APIC: in ICR's upper half) |
| 320-370 LVT | vector, mode, trigger, mask as each has them | the local interrupt; masks stay set while SVR bit 8 is clear |
| 380, 3E0 | count, divisor | lapic_timer.py |
| 3F0 (x2APIC) | vector | an interrupt to itself |
| any other | anything | nothing, and ESR bit 7 (x2APIC: #GP) |
| MSR 1B APIC_BASE | enable (11), x2APIC (10) | by the transitions of 11.12.5, others #GP; disabling resets; base and BSP (8) are fixed, else #GP |

Not done: focus processor checking, EOI-broadcast suppression (version bit 24 is clear), thermal and performance interrupts
(nothing raises them), SMI.
"""
from typing import Annotated, Final

from hypervisor.arch_x86.intrinsics import bsr
from hypervisor.lang import clear, struct, u32, u64

VERSION: Final = 1
BASE: Final[u64] = 0xFEE0_0000
BASE_BSP: Final[u64] = 1 << 8
BASE_EXTENDED: Final[u64] = 1 << 10
BASE_ENABLE: Final[u64] = 1 << 11
VERSION_REGISTER: Final = 0x0005_0014  # integrated, six local vectors

# Registers, by offset in the page; x2APIC's MSR is 800 + offset / 16.
ID: Final = 0x020
VERSION_AT: Final = 0x030
TPR: Final = 0x080
APR: Final = 0x090
PPR: Final = 0x0A0
EOI: Final = 0x0B0
LDR: Final = 0x0D0
DFR: Final = 0x0E0
SVR: Final = 0x0F0
ISR: Final = 0x100
TMR: Final = 0x180
IRR: Final = 0x200
ESR: Final = 0x280
ICR: Final = 0x300
ICR2: Final = 0x310
LVT_TIMER: Final = 0x320
LVT_LINT0: Final = 0x350
LVT_LINT1: Final = 0x360
LVT_ERROR: Final = 0x370
TIMER_INITIAL: Final = 0x380
TIMER_CURRENT: Final = 0x390
TIMER_DIVIDE: Final = 0x3E0
SELF_IPI: Final = 0x3F0

SVR_ENABLE: Final = 1 << 8
SVR_WRITABLE: Final = 0x3FF
LVT_MASKED: Final = 1 << 16
LVTS: Final = 6
LVT_WRITABLE: Final[Annotated[list[u32], LVTS]] = [0x700FF, 0x107FF, 0x107FF, 0x1A7FF, 0x1A7FF, 0x100FF]
LVT_AT_TIMER: Final = 0  # places in Lapic.lvt
LVT_AT_LINT0: Final = 3
LVT_AT_LINT1: Final = 4
LVT_AT_ERROR: Final = 5

MODE_FIXED: Final = 0
MODE_LOWEST: Final = 1
MODE_NMI: Final = 4
MODE_INIT: Final = 5
MODE_STARTUP: Final = 6
MODE_EXTINT: Final = 7

ERROR_SEND_VECTOR: Final = 1 << 5
ERROR_RECEIVE_VECTOR: Final = 1 << 6
ERROR_REGISTER: Final = 1 << 7
VECTOR_LEAST: Final = 16
ICR_LOW_WRITABLE: Final[u64] = 0xC_CFFF
ICR_LEVEL_ASSERT: Final = 1 << 14
ICR_LEVEL_TRIGGER: Final = 1 << 15

# Lapic.effects
EFFECT_TIMER: Final = 1  # the timer's deadline may have changed
EFFECT_IPI: Final = 2  # icr is to be sent
EFFECT_EOI: Final = 4  # eoi_vector was level-triggered and has ended
EFFECT_INTERRUPT: Final = 8  # an interrupt may have become deliverable
EFFECT_TPR: Final = 16  # CR8 has changed

NO_VECTOR: Final = 0  # vectors below 16 do not exist here


@struct
class Lapic:
    """One local APIC. No pointers: it can be saved as it stands."""

    version: u32
    effects: u32
    base: u64  # IA32_APIC_BASE
    id: u32  # the x2APIC ID; the xAPIC ID is its low byte
    tpr: u32
    ppr: u32
    requests: u32  # bit n: irr[n] is not 0
    irr: Annotated[list[u32], 8]
    isr: Annotated[list[u32], 8]
    tmr: Annotated[list[u32], 8]  # level-triggered
    in_service: u32  # the highest vector in isr, NO_VECTOR: none
    ldr: u32  # xAPIC
    dfr: u32
    svr: u32
    esr: u32  # as the guest reads it
    errors: u32  # since it was last written
    icr: u64
    eoi_vector: u32
    lvt: Annotated[list[u32], LVTS]
    nmi: bool  # one waits
    init: bool  # an INIT waits to be taken
    startup: bool  # a start-up IPI waits, with startup_vector
    startup_vector: u32
    waits_for_startup: bool  # has taken INIT, or has never run
    # lapic_timer.py
    initial_count: u32
    divide: u32
    running: bool
    started_at: u64  # ns of guest time at which the count was first_count
    first_count: u64
    tsc_deadline: u64  # guest TSC, 0: none
    # counted since the reset
    timer_interrupts: u64  # accepted, that is, made a vector pending that was not
    bus_interrupts: u64  # the same of IPIs and messages of devices


@struct
class Message:
    """An interrupt message on its way."""

    destination: u32
    logical: bool
    wide: bool  # destination has x2APIC's 32 bits, else 8
    mode: u32  # MODE_*
    vector: u32
    level: bool


def reset(lapic: Lapic, id_: u32, bootstrap: bool) -> None:
    """Power-on, then what firmware does: the bootstrap processor's is enabled, with LINT0 for the 8259 and LINT1 for NMI."""
    clear(lapic)
    lapic.version = VERSION
    lapic.id = id_
    lapic.base = BASE | BASE_ENABLE
    initialise(lapic)
    if bootstrap:
        lapic.base |= BASE_BSP
        lapic.svr = SVR_ENABLE | 0xFF
        lapic.lvt[LVT_AT_LINT0] = MODE_EXTINT << 8
        lapic.lvt[LVT_AT_LINT1] = MODE_NMI << 8
    lapic.waits_for_startup = not bootstrap


def initialise(lapic: Lapic) -> None:
    """Registers after INIT (11.4.7.3): ID, base and counts stay."""
    lapic.tpr = 0
    lapic.ppr = 0
    lapic.requests = 0
    for word in range(8):
        lapic.irr[word] = 0
        lapic.isr[word] = 0
        lapic.tmr[word] = 0
    lapic.in_service = NO_VECTOR
    lapic.ldr = 0
    lapic.dfr = 0xFFFF_FFFF
    lapic.svr = 0xFF
    lapic.esr = 0
    lapic.errors = 0
    lapic.icr = 0
    for index in range(LVTS):
        lapic.lvt[index] = LVT_MASKED
    lapic.nmi = False
    lapic.startup = False
    lapic.initial_count = 0
    lapic.divide = 0
    lapic.running = False
    lapic.tsc_deadline = 0
    lapic.effects = lapic.effects | EFFECT_TIMER | EFFECT_TPR


def is_extended(lapic: Lapic) -> bool:
    """x2APIC mode."""
    return lapic.base & BASE_EXTENDED != 0


def has_page(lapic: Lapic) -> bool:
    """Whether the registers can be reached in the page at BASE."""
    return lapic.base & (BASE_ENABLE | BASE_EXTENDED) == BASE_ENABLE


def is_enabled(lapic: Lapic) -> bool:
    """By APIC_BASE and by SVR: fixed interrupts are taken."""
    return lapic.base & BASE_ENABLE != 0 and lapic.svr & SVR_ENABLE != 0


def write_base(lapic: Lapic, value: u64) -> bool:
    """IA32_APIC_BASE; False: #GP (11.12.5)."""
    fixed: u64 = lapic.base & ~(BASE_ENABLE | BASE_EXTENDED)
    wanted: u64 = value & (BASE_ENABLE | BASE_EXTENDED)
    have: u64 = lapic.base & (BASE_ENABLE | BASE_EXTENDED)
    if value != fixed | wanted or wanted == BASE_EXTENDED:
        return False
    if have == BASE_ENABLE | BASE_EXTENDED and wanted == BASE_ENABLE:
        return False
    if have == 0 and wanted & BASE_EXTENDED != 0:
        return False
    lapic.base = value
    if wanted == 0 and have != 0:
        initialise(lapic)
    return True


# Priorities (11.8.3)


def update_ppr(lapic: Lapic) -> None:
    """After a change of TPR or of what is in service."""
    if lapic.in_service >> 4 > lapic.tpr >> 4:
        lapic.ppr = lapic.in_service & 0xF0
    else:
        lapic.ppr = lapic.tpr


def request(lapic: Lapic) -> u32:
    """The highest vector requested; NO_VECTOR: none."""
    if lapic.requests == 0:
        return NO_VECTOR
    word = bsr(lapic.requests)
    return word * 32 + bsr(lapic.irr[word])


def pending(lapic: Lapic) -> u32:
    """The vector that the vCPU is to take now; NO_VECTOR: none."""
    vector = request(lapic)
    return vector if vector >> 4 > lapic.ppr >> 4 else NO_VECTOR


def acknowledge(lapic: Lapic, vector: u32) -> None:
    """The vCPU takes `vector`, which was pending."""
    word: u32 = vector >> 5 & 7
    bit: u32 = 1 << (vector & 31)
    lapic.irr[word] = u32(lapic.irr[word] & ~bit)
    if lapic.irr[word] == 0:
        lapic.requests = u32(lapic.requests & ~(1 << word))
    lapic.isr[word] = lapic.isr[word] | bit
    lapic.in_service = vector
    update_ppr(lapic)


def is_level(lapic: Lapic, vector: u32) -> bool:
    """Whether the interrupt came from a level: its EOI is for the I/O APIC too."""
    return lapic.tmr[vector >> 5 & 7] >> (vector & 31) & 1 != 0


def end_of_interrupt(lapic: Lapic) -> None:
    """EOI; without one in service nothing happens."""
    vector = lapic.in_service
    if vector == NO_VECTOR:
        return
    word: u32 = vector >> 5 & 7
    bit: u32 = 1 << (vector & 31)
    lapic.isr[word] = u32(lapic.isr[word] & ~bit)
    lapic.in_service = NO_VECTOR
    for below in range(word, -1, -1):
        if lapic.isr[below] != 0:
            lapic.in_service = u32(below) * 32 + bsr(lapic.isr[below])
            break
    update_ppr(lapic)
    if lapic.tmr[word] & bit != 0:
        lapic.eoi_vector = vector
        lapic.effects = lapic.effects | EFFECT_EOI
    if lapic.requests != 0:
        lapic.effects = lapic.effects | EFFECT_INTERRUPT


def accept(lapic: Lapic, vector: u32, level: bool) -> bool:
    """A fixed interrupt arrives. True: it made the vector pending; False: refused, or it was pending already."""
    if not is_enabled(lapic):
        return False
    if vector < VECTOR_LEAST:
        detect_error(lapic, ERROR_RECEIVE_VECTOR)
        return False
    return make_pending(lapic, vector, level)


def make_pending(lapic: Lapic, vector: u32, level: bool) -> bool:
    """Set a request of a vector that exists. Whether it was not set."""
    word: u32 = vector >> 5 & 7
    bit: u32 = 1 << (vector & 31)
    if level:
        lapic.tmr[word] = lapic.tmr[word] | bit
    else:
        lapic.tmr[word] = u32(lapic.tmr[word] & ~bit)
    fresh = lapic.irr[word] & bit == 0
    lapic.irr[word] = lapic.irr[word] | bit
    lapic.requests = lapic.requests | 1 << word
    lapic.effects = lapic.effects | EFFECT_INTERRUPT
    return fresh


def raise_local(lapic: Lapic, place: u32) -> bool:
    """A local interrupt (LVT_AT_*) of fixed mode happens. Whether it made a vector pending."""
    entry = lapic.lvt[place]
    return entry & LVT_MASKED == 0 and accept(lapic, entry & 0xFF, False)


def detect_error(lapic: Lapic, error: u32) -> None:
    """An error for ESR; its interrupt comes if it is not masked and has a vector that exists."""
    lapic.errors = lapic.errors | error
    entry = lapic.lvt[LVT_AT_ERROR]
    if entry & LVT_MASKED == 0 and entry & 0xFF >= VECTOR_LEAST and is_enabled(lapic):
        make_pending(lapic, entry & 0xFF, False)


def takes_pic(lapic: Lapic) -> bool:
    """Whether the 8259's interrupt reaches the vCPU by LINT0, or past a disabled local APIC."""
    if lapic.base & BASE_ENABLE == 0:
        return lapic.base & BASE_BSP != 0
    return lapic.lvt[LVT_AT_LINT0] & (LVT_MASKED | 7 << 8) == MODE_EXTINT << 8


# Messages (11.6)


def logical_id(lapic: Lapic) -> u32:
    """x2APIC: cluster in the upper half, a bit in the lower one (11.12.10.2)."""
    return lapic.id >> 4 << 16 | 1 << (lapic.id & 15)


def addressed(lapic: Lapic, message: Message) -> bool:
    """Is this local APIC among the destinations? Shorthands are apic_bus.py's."""
    if lapic.base & BASE_ENABLE == 0:
        return message.mode in (MODE_INIT, MODE_STARTUP) and not message.logical and message.destination == lapic.id
    to = message.destination
    if to == (0xFFFF_FFFF if message.wide else 0xFF):
        return True
    if not message.logical:
        return to == lapic.id
    if is_extended(lapic):
        own = logical_id(lapic)
        return to >> 16 == own >> 16 and to & own & 0xFFFF != 0
    mine: u32 = lapic.ldr >> 24
    if lapic.dfr >> 28 == 0xF:
        return to & mine & 0xFF != 0
    return to >> 4 == mine >> 4 and to & mine & 0xF != 0


def deliver(lapic: Lapic, message: Message) -> bool:
    """A message arrives at one of its destinations. Whether something waits for the vCPU that did not before."""
    match message.mode:
        case 0 | 1:
            fresh = accept(lapic, message.vector, message.level)
            if fresh:
                lapic.bus_interrupts += 1
            return fresh
        case 4:
            lapic.nmi = True
            return True
        case 5:
            lapic.init = True
            lapic.startup = False
            return True
        case 6:
            if lapic.init or lapic.waits_for_startup:
                lapic.startup = True
                lapic.startup_vector = message.vector
                return True
            return False
        case _:
            return False


def send(lapic: Lapic, value: u64) -> None:
    """ICR is written: check, and leave it for the bus."""
    lapic.icr = value & 0xFFFF_FFFF_000C_CFFF
    mode: u64 = value >> 8 & 7
    if mode <= MODE_LOWEST and value & 0xFF < VECTOR_LEAST:
        detect_error(lapic, ERROR_SEND_VECTOR)
        return
    if mode == MODE_INIT and value & (ICR_LEVEL_TRIGGER | ICR_LEVEL_ASSERT) == ICR_LEVEL_TRIGGER:
        return
    lapic.effects = lapic.effects | EFFECT_IPI


def icr_message(lapic: Lapic, to: Message) -> u32:
    """What ICR says, but for the shorthand, which is returned: 0 none, 1 self, 2 all, 3 all but self."""
    low = u32(lapic.icr & 0xFFFF_FFFF)
    to.vector = low & 0xFF
    to.mode = low >> 8 & 7
    to.logical = low >> 11 & 1 != 0
    to.wide = is_extended(lapic)
    to.destination = u32(lapic.icr >> 32) if to.wide else u32(lapic.icr >> 56)
    to.level = False  # IPIs are edges, whatever ICR says, on all CPUs since the Pentium 4
    return low >> 18 & 3
