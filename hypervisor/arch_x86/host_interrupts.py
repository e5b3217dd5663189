"""Host interrupts: who serves which vector, and the two ways they are let in.

The hypervisor runs with interrupts off. They are taken in `poll` and `idle` through the IDT, or handed to `handle`
by VT-x, which acknowledges them at the exit.
"""
from typing import Final

from hypervisor import lock
from hypervisor.arch_x86 import lapic, serial
from hypervisor.arch_x86.intrinsics import halt_once, interrupt_window, rdtsc
from hypervisor.block.model import disks
from hypervisor.drivers import driver
from hypervisor.lang import struct, u32, u64
from hypervisor.model import WORK_CHANNEL, WORK_CONSOLE, WORK_DISK, WORK_INTERRUPT, Cpu

SERIAL_VECTOR: Final = 0x41
DISK_VECTOR: Final = 0x48  # of all disks
KICK_VECTOR: Final = 0x42  # from another CPU, which has left work for this one (kick.py)
FIRST_VECTOR: Final = 0x20  # below are exceptions


@struct
class InterruptCounts:
    """How many of each kind were served."""

    timer: u64
    serial: u64
    disk: u64
    kicks: u64
    spurious: u64
    unknown: u64


counts: Final = InterruptCounts()


def handle(cpu: Cpu, vector: u32) -> None:
    """Serve one interrupt that the local APIC has delivered, and end it there. Sets bits of cpu.work."""
    if vector == lapic.TIMER_VECTOR:
        counts.timer += 1
        cpu.work |= WORK_INTERRUPT
    elif vector == SERIAL_VECTOR:
        counts.serial += 1
        serial.on_interrupt()
        if serial.has_input():
            cpu.work |= WORK_CONSOLE
        if serial.com2.input_head != serial.com2.input_tail or (serial.com2.wants_room and serial.queued(serial.com2) < serial.LOW_BYTES):
            cpu.work |= WORK_CHANNEL
    elif vector == DISK_VECTOR:
        counts.disk += 1
        for i in range(disks.host_count):
            driver.acknowledge(disks.host[i])
        cpu.work |= WORK_DISK
    elif vector == KICK_VECTOR:
        counts.kicks += 1
    elif vector == lapic.SPURIOUS_VECTOR:
        counts.spurious += 1
        return  # a spurious interrupt is not in service: no EOI
    else:
        counts.unknown += 1
    lapic.eoi()


def poll(cpu: Cpu) -> None:
    """Take the interrupts that are pending now (SVM: after an INTR exit, with GIF set)."""
    interrupt_window()


def idle(cpu: Cpu) -> None:
    """Sleep until an interrupt has been served. Interrupts are off again on return, the lock is held as before.

    One that comes between the release and the halt is pending, and ends the halt at once.
    """
    started = rdtsc()
    cpu.halted = True
    lock.release()
    halt_once()
    lock.acquire()
    cpu.halted = False
    cpu.idle_ticks += rdtsc() - started
