"""IN and OUT: to the PCI bus of the VM (virtio/ports.py), or its other devices (devices/platform.py has the port table).

A VM without devices (PV) has port 80 only: it keeps the POST code. Its other ports read all ones, drop writes and are counted.
"""
from typing import Final

from hypervisor import board
from hypervisor.arch_x86.state import Registers
from hypervisor.arch_x86.vm_exit import VmExit
from hypervisor.devices import platform
from hypervisor.handlers import string_io
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import u32, u64
from hypervisor.model import Vcpu, Vm
from hypervisor.status import Status
from hypervisor.virtio import ports
from hypervisor.virtio.state import Devices

POST_PORT: Final = 0x80
ALL_ONES: Final = 0xFFFF_FFFF


def handle(vcpu: Vcpu, exit: VmExit) -> Outcome:
    """One access of 1, 2 or 4 bytes; INS and OUTS are in string_io."""
    if exit.is_string:
        return string_io.handle(vcpu, exit)
    vm = vcpu.vm
    assert vm is not None
    bus = vm.devices
    if bus is not None and exit.port >= ports.CONFIG_ADDRESS and ports.is_mine(bus, exit.port, exit.size):
        return of_bus(vcpu, vm, bus, exit)
    p = vm.platform
    if p is None:
        without_devices(vcpu, vm, exit)
        return Outcome.SKIP
    now = board.guest_time(vm)
    if exit.is_in:
        put_result(vcpu.regs, exit.size, platform.read(p, exit.port, exit.size, now))
    else:
        platform.write(p, exit.port, exit.size, u32(vcpu.regs.rax & mask_of(exit.size)), now)
    if p.effects != 0:
        return board.carry_out(vcpu, vm, p)
    return Outcome.SKIP


def of_bus(vcpu: Vcpu, vm: Vm, bus: Devices, exit: VmExit) -> Outcome:
    """PCI configuration, and what is behind a virtio function's I/O ports."""
    if exit.is_in:
        put_result(vcpu.regs, exit.size, ports.read(vm, bus, exit.port, exit.size))
        return Outcome.SKIP
    status = ports.write(vm, vcpu, bus, exit.port, exit.size, u32(vcpu.regs.rax & mask_of(exit.size)))
    return Outcome.WAIT if status == Status.WAIT else Outcome.SKIP


def mask_of(size: u32) -> u32:
    """All bits of an operand of 1, 2 or 4 bytes."""
    return 0xFF if size == 1 else (0xFFFF if size == 2 else ALL_ONES)


def put_result(regs: Registers, size: u32, value: u32) -> None:
    """IN writes AL, AX or EAX; EAX clears the upper half of RAX."""
    if size == 4:
        regs.rax = value
    else:
        kept: u64 = regs.rax & ~u64(mask_of(size))
        regs.rax = kept | value


def without_devices(vcpu: Vcpu, vm: Vm, exit: VmExit) -> None:
    """A PV guest's access."""
    if exit.port == POST_PORT and exit.size == 1:
        if exit.is_in:
            put_result(vcpu.regs, 1, vm.post_code)
        else:
            vm.post_code = u32(vcpu.regs.rax & 0xFF)
        return
    vm.holes_touched += 1
    if exit.is_in:
        put_result(vcpu.regs, exit.size, mask_of(exit.size))
