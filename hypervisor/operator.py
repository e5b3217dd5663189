"""The operator's prompt on COM1: line editing, and keys for a guest while one is attached.

poll is called by the run loop when something was typed (WORK_CONSOLE); it never waits. Commands stand in
operator_commands.py.
"""
from typing import Final

from hypervisor import console, guest_console, operator_commands, operator_vm_commands, vm
from hypervisor.arch_x86 import serial
from hypervisor.console import LINE_BYTES, prompt
from hypervisor.guest_console import attached
from hypervisor.lang import address, u8, u32
from hypervisor.model import WORK_CONSOLE, Cpu, VmState
from hypervisor.virtio import service

ENTER: Final = 13
NEWLINE: Final = 10
BACKSPACE: Final = 8
DELETE: Final = 127
CTRL_C: Final = 3
CTRL_U: Final = 21
ESCAPE_KEY: Final = 29  # Ctrl-]
FIRST_PRINTABLE: Final = 32
LAST_PRINTABLE: Final = 126
KEYS_A_POLL: Final = 256


def start() -> None:
    """Guests run from now on. Show the prompt, or give the keys to the first VM if the bundle asks for it."""
    first = vm.by_id(0)
    if vm.table.attach and first is not None and first.state == VmState.RUNNING:
        operator_vm_commands.attach_to(first)
    else:
        console.show_prompt()


def poll(cpu: Cpu) -> None:
    """Take what was typed; at most KEYS_A_POLL keys, the rest is owed."""
    keys: u32 = 0
    while keys < KEYS_A_POLL:
        key = serial.take()
        if key == serial.NO_INPUT:
            return
        _key(u8(key))
        keys += 1
    cpu.work |= WORK_CONSOLE


def _key(key: u8) -> None:
    machine = attached.vm
    if machine is None:
        _edit(key)
    elif key == ESCAPE_KEY or machine.state in (VmState.ENDED, VmState.CRASHED):
        guest_console.detach()
        if key != ESCAPE_KEY:
            _edit(key)
    elif guest_console.type_byte(machine, key):
        service.typed(machine)


def _edit(key: u8) -> None:
    """One key at the prompt."""
    if not prompt.shown:
        console.show_prompt()
    if key in (ENTER, NEWLINE):
        _enter()
    elif key in (BACKSPACE, DELETE):
        if prompt.length != 0:
            prompt.length -= 1
            console.write("\b \b")
    elif key in (CTRL_C, CTRL_U):
        console.hide_prompt()
        console.show_prompt()
    elif FIRST_PRINTABLE <= key and key <= LAST_PRINTABLE and prompt.length < LINE_BYTES - 1:
        prompt.text[prompt.length] = key
        prompt.length += 1
        serial.put(key)


def _enter() -> None:
    """Run the line; the prompt comes back below what the command prints."""
    prompt.text[prompt.length] = 0
    prompt.shown = False
    console.write("\r\n")
    operator_commands.run(address(prompt.text))
    if attached.vm is None:
        console.show_prompt()
