"""8042 keyboard controller with nothing plugged in: its self-tests pass, no byte ever comes from a device.

Source: IBM PS/2 Hardware Interface Technical Reference (S84F-9809), Keyboard and Auxiliary Device Controller.

| port | a guest writes | what happens |
|---|---|---|
| 64 | 20-3F | byte of the controller's RAM is read to the output buffer (20: the command byte) |
| 64 | 60-7F | the next byte to port 60 goes to that RAM byte |
| 64 | AA, A9, AB | self-test 55, auxiliary test 00, keyboard test 00 in the output buffer |
| 64 | A7, A8, AD, AE | auxiliary or keyboard port is disabled or enabled in the command byte |
| 64 | C0, D0 | input port (80), output port in the output buffer |
| 64 | D1 | the next byte to port 60 sets the output port; bit 0 clear resets the machine |
| 64 | D2, D3 | the next byte to port 60 comes back in the output buffer, as if from keyboard or auxiliary device |
| 64 | D4 | the next byte to port 60 goes to the auxiliary device, where nobody is |
| 64 | F0-FF with bit 0 clear | the reset line is pulsed: the machine is reset |
| 64 | anything else | nothing |
| 60 | a byte nobody awaits | goes to the keyboard, where nobody is |
"""
from typing import Annotated, Final

from hypervisor.lang import struct, u32, u8

VERSION: Final = 1
STATUS_OUTPUT_FULL: Final = 0x01
STATUS_SYSTEM: Final = 0x04
STATUS_COMMAND: Final = 0x08
STATUS_UNLOCKED: Final = 0x10
STATUS_AUX: Final = 0x20
COMMAND_KEYBOARD_INTERRUPT: Final = 0x01
COMMAND_AUX_INTERRUPT: Final = 0x02
COMMAND_KEYBOARD_OFF: Final = 0x10
COMMAND_AUX_OFF: Final = 0x20
OUTPUT_NO_RESET: Final = 0x01
OUTPUT_DEFAULT: Final = 0x03  # not in reset, A20 open


@struct
class I8042:
    """State of the controller."""

    version: u32
    ram: Annotated[list[u8], 32]  # byte 0: the command byte
    output_port: u8
    output: u8
    output_full: bool
    output_is_aux: bool
    last_was_command: bool
    awaiting: u8  # command that waits for its byte at port 60; 0: none


def reset(controller: I8042) -> None:
    """Power-on, after what a BIOS does: both ports enabled, interrupts off, system flag set."""
    controller.version = VERSION
    controller.ram[0] = 0x04
    controller.output_port = OUTPUT_DEFAULT


def answer(controller: I8042, value: u8, is_aux: bool) -> None:
    """Put a byte into the output buffer."""
    controller.output = value
    controller.output_full = True
    controller.output_is_aux = is_aux


def keyboard_line(controller: I8042) -> bool:
    """Level of interrupt 1."""
    return controller.output_full and not controller.output_is_aux and controller.ram[0] & COMMAND_KEYBOARD_INTERRUPT != 0


def aux_line(controller: I8042) -> bool:
    """Level of interrupt 12."""
    return controller.output_full and controller.output_is_aux and controller.ram[0] & COMMAND_AUX_INTERRUPT != 0


def write_command(controller: I8042, value: u8) -> bool:
    """Port 64; True: the machine is to be reset."""
    controller.last_was_command = True
    controller.awaiting = 0
    if 0x20 <= value < 0x40:
        answer(controller, controller.ram[value & 31], False)
    elif 0x60 <= value < 0x80 or 0xD1 <= value <= 0xD4:
        controller.awaiting = value
    elif value >= 0xF0:
        return value & 1 == 0
    else:
        simple_command(controller, value)
    return False


def simple_command(controller: I8042, value: u8) -> None:
    """Commands without an argument."""
    match value:
        case 0xAA:
            answer(controller, 0x55, False)
        case 0xA9 | 0xAB:
            answer(controller, 0, False)
        case 0xA7:
            controller.ram[0] = controller.ram[0] | COMMAND_AUX_OFF
        case 0xA8:
            controller.ram[0] = u8(controller.ram[0] & ~COMMAND_AUX_OFF)
        case 0xAD:
            controller.ram[0] = controller.ram[0] | COMMAND_KEYBOARD_OFF
        case 0xAE:
            controller.ram[0] = u8(controller.ram[0] & ~COMMAND_KEYBOARD_OFF)
        case 0xC0:
            answer(controller, 0x80, False)
        case 0xD0:
            answer(controller, controller.output_port, False)
        case _:
            pass


def write_data(controller: I8042, value: u8) -> bool:
    """Port 60; True: the machine is to be reset."""
    command = controller.awaiting
    controller.awaiting = 0
    controller.last_was_command = False
    if 0x60 <= command < 0x80:
        controller.ram[command & 31] = value
    elif command == 0xD1:
        controller.output_port = value | OUTPUT_NO_RESET
        return value & OUTPUT_NO_RESET == 0
    elif command == 0xD2:
        answer(controller, value, False)
    elif command == 0xD3:
        answer(controller, value, True)
    return False


def read_status(controller: I8042) -> u8:
    """Port 64. The input buffer is never full."""
    value: u32 = STATUS_UNLOCKED
    if controller.output_full:
        value = value | STATUS_OUTPUT_FULL
        if controller.output_is_aux:
            value = value | STATUS_AUX
    if controller.ram[0] & STATUS_SYSTEM:
        value = value | STATUS_SYSTEM
    if controller.last_was_command:
        value = value | STATUS_COMMAND
    return u8(value)


def read_data(controller: I8042) -> u8:
    """Port 60: the output buffer, which keeps its byte."""
    controller.output_full = False
    return controller.output
