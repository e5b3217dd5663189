"""Consoles of guests: bytes out are gathered into lines shown as `[name] line`, bytes typed wait until the guest reads them.

What a guest writes reaches the operator's terminal raw only while the operator is attached to it; else control bytes and bytes
above 0x7E are shown as \\xNN, but for tab.
"""
from typing import Final

from hypervisor import clock, console
from hypervisor.arch_x86 import serial
from hypervisor.channel import consoles
from hypervisor.console import say
from hypervisor.lang import address, char_at, struct, text_at, u8, u32, u64
from hypervisor.model import CONSOLE_INPUT_BYTES, CONSOLE_LINE_BYTES, Vm

TAB: Final = 9
NEWLINE: Final = 10
RETURN: Final = 13
FIRST_PRINTABLE: Final = 0x20
LAST_PRINTABLE: Final = 0x7E
HEX: Final = "0123456789abcdef"


@struct
class Attached:
    """What the operator has chosen. vm: the one that the keys go to, and whose output is shown raw; None: the prompt has the keys."""

    vm: Vm | None
    stamps: bool  # each line of a guest begins with the time since boot


attached: Final = Attached()


def attach(vm: Vm) -> None:
    """Give this VM the operator's keys and terminal; what it has begun to print is shown."""
    gathered = vm.console
    attached.vm = vm
    for i in range(gathered.line_length):
        console.write_raw(gathered.line[i])
    gathered.line_length = 0


def detach() -> None:
    """Back to the prompt."""
    attached.vm = None
    say("detached")
    console.show_prompt()


def is_attached(vm: Vm) -> bool:
    """Whether the operator's keys go to this VM."""
    other = attached.vm
    return other is not None and address(other) == address(vm)


def put(vm: Vm, byte: u8) -> None:
    """One byte of output, to the channel as it is; on the operator's console a newline, or a full line, shows the line, and
    returns are dropped. Raw while attached."""
    consoles.put(vm, byte)
    if is_attached(vm):
        if serial.is_crowded():
            serial.com1.output_dropped += 1
        else:
            console.write_raw(byte)
        return
    if byte == RETURN:
        return
    if byte == NEWLINE:
        show(vm)
        return
    gathered = vm.console
    gathered.line[gathered.line_length] = byte
    gathered.line_length += 1
    if gathered.line_length == CONSOLE_LINE_BYTES:
        show(vm)


def finish(vm: Vm) -> None:
    """Show what was begun, and give the keys back: the VM ends."""
    finish_line(vm)
    if is_attached(vm):
        detach()


def finish_line(vm: Vm) -> None:
    """Show what was begun: the VM ends, or starts again."""
    if vm.console.line_length != 0:
        show(vm)


def show(vm: Vm) -> None:
    """Print the gathered line on the operator's console and begin an empty one.

    A guest that prints faster than the UART sends loses whole lines, and the number of them is shown: the last bytes
    of the ring are the hypervisor's.
    """
    gathered = vm.console
    if serial.is_crowded():
        gathered.lines_lost += 1
        gathered.line_length = 0
        return
    if gathered.lines_lost != 0:
        say(f"[{text_at(address(vm.name))}] ... {gathered.lines_lost} lines lost: printed faster than the console takes them")
        gathered.lines_lost = 0
    console.begin_line()
    console.write("[")
    console.write(text_at(address(vm.name)))
    console.write("] ")
    if attached.stamps:
        put_time(clock.since_boot_us())
    for i in range(gathered.line_length):
        put_escaped(gathered.line[i])
    console.end_line()
    gathered.line_length = 0


def put_time(microseconds: u64) -> None:
    """`seconds.milliseconds `."""
    ms = microseconds // 1000
    console.write(f"{ms // 1000}.{ms // 100 % 10}{ms // 10 % 10}{ms % 10} ")


def is_printable(byte: u8) -> bool:
    """Whether a terminal shows byte as one character and does nothing else."""
    return FIRST_PRINTABLE <= byte <= LAST_PRINTABLE


def put_escaped(byte: u8) -> None:
    """Print one byte so that it can do nothing to a terminal."""
    if is_printable(byte) or byte == TAB:
        serial.put(byte)
        return
    console.write("\\x")
    serial.put(char_at(HEX, byte >> 4))
    serial.put(char_at(HEX, byte & 15))


def type_byte(vm: Vm, byte: u8) -> bool:
    """One byte typed for this VM waits for it; virtio/service.typed tells it. False: its buffer is full, the byte is lost."""
    keyboard = vm.console
    after = u32((keyboard.input_head + 1) % CONSOLE_INPUT_BYTES)
    if after == keyboard.input_tail:
        return False
    keyboard.input[keyboard.input_head] = byte
    keyboard.input_head = after
    return True


def has_input(vm: Vm) -> bool:
    """Whether something was typed that the VM has not read."""
    return vm.console.input_head != vm.console.input_tail


def take_input(vm: Vm) -> u8:
    """The oldest byte typed; has_input must be true."""
    keyboard = vm.console
    byte = keyboard.input[keyboard.input_tail]
    keyboard.input_tail = u32((keyboard.input_tail + 1) % CONSOLE_INPUT_BYTES)
    consoles.input_read(vm)
    return byte
