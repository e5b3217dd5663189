"""The CPython twin of the machine: ports, registers, clock and memory behind intrinsics.py. Host code only.

A test scripts it: `machine.reset()`, then `machine.port_readers[0x3FD] = lambda: 0x60` and the like. A port nobody
answers reads all ones and drops writes, as on a PC bus; an MSR nobody set raises GeneralProtection, as #GP would.
"""
from __future__ import annotations

from typing import Callable

from hypervisor.arch_x86.fake.vmx import Vmx
from hypervisor.lang import Fault, address, read_memory, region_of, write_memory

Cpuid = tuple[int, int, int, int]


class GeneralProtection(Exception):
    """The instruction would raise #GP."""


class Halted(Exception):
    """The CPU halted for ever: what `halt_forever` does to a test."""


class Machine:
    """One fake CPU and what it is wired to."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Back to power-on: nothing attached, registers zero."""
        self.port_readers: dict[int, Callable[[], int]] = {}
        self.port_writers: dict[int, Callable[[int], None]] = {}
        self.ports_written: list[tuple[int, int, int]] = []  # (port, bytes, value)
        self.msrs: dict[int, int] = {}
        self.vmx = Vmx()
        self.cpu = 0  # number of the CPU that runs
        self.registers: dict[str, int] = {}
        self.xcr: dict[int, int] = {}
        self.cpuid_leaves: dict[tuple[int, int], Cpuid] = {}
        self.tsc = 0
        self.tsc_step = 1  # each RDTSC adds this
        self.guest_runs: Callable[[int, int], None] | None = None  # (Registers, VMCB): plays the guest until its next exit
        self.tables: dict[str, int] = {}  # GDTR, IDTR descriptors' addresses, TR
        self.invalidated: list[int] = []
        self.on_halt: Callable[[], None] | None = None  # an interrupt that ends HLT
        self.on_window: Callable[[], None] | None = None
        self.pkru = 0
        self.window_open = False  # RFLAGS.AC
        self.interrupts_on = False
        self.on_hypercall: Callable[[int, int, int, int, int], int] | None = None  # number, arguments -> RAX

    # Ports
    def port_in(self, port: int, size: int) -> int:
        reader = self.port_readers.get(port)
        return ((1 << 8 * size) - 1) if reader is None else reader() & ((1 << 8 * size) - 1)

    def port_out(self, port: int, size: int, value: int) -> None:
        self.ports_written.append((port, size, value))
        writer = self.port_writers.get(port)
        if writer is not None:
            writer(value)

    # Registers
    def rdmsr(self, msr: int) -> int:
        if msr not in self.msrs:
            raise GeneralProtection(f"RDMSR {msr:#x}")
        return self.msrs[msr]

    def wrmsr(self, msr: int, value: int) -> None:
        if msr not in self.msrs:
            raise GeneralProtection(f"WRMSR {msr:#x}, {value:#x}")
        self.msrs[msr] = value

    def read_register(self, name: str) -> int:
        return self.registers.get(name, 0)

    def write_register(self, name: str, value: int) -> None:
        self.registers[name] = value

    def xgetbv(self, index: int) -> int:
        return self.xcr.get(index, 0)

    def xsetbv(self, index: int, value: int) -> None:
        self.xcr[index] = value

    def cpuid(self, leaf: int, subleaf: int, registers: int) -> None:
        values = self.cpuid_leaves.get((leaf, subleaf), (0, 0, 0, 0))
        for index, value in enumerate(values):
            write_memory(registers + 4 * index, 4, value)

    def lgdt(self, descriptor: int) -> None:
        self.tables["gdtr"] = descriptor

    def lidt(self, descriptor: int) -> None:
        self.tables["idtr"] = descriptor

    def ltr(self, selector: int) -> None:
        self.tables["tr"] = selector

    # Execution
    def cli(self) -> None:
        """Interrupts are only ever taken in halt_once and interrupt_window here."""
        self.interrupts_on = False

    def sti(self) -> None:
        self.interrupts_on = True

    def interrupts_off(self) -> int:
        flags = 0x202 if self.interrupts_on else 2
        self.interrupts_on = False
        return flags

    def interrupts_restore(self, flags: int) -> None:
        self.interrupts_on = flags & 0x200 != 0

    def pause(self) -> None:
        self.tsc += self.tsc_step

    def halt_once(self) -> None:
        if self.on_halt is None:
            raise Halted("HLT, and no interrupt will come")
        self.on_halt()

    def interrupt_window(self) -> None:
        if self.on_window is not None:
            self.on_window()

    def halt_forever(self) -> None:
        raise Halted("CLI; HLT")

    def rdtsc(self) -> int:
        self.tsc += self.tsc_step
        return self.tsc

    def invlpg(self, page: int) -> None:
        self.invalidated.append(page)

    def stac(self) -> None:
        assert not self.window_open, "windows do not nest"
        self.window_open = True

    def clac(self) -> None:
        assert self.window_open
        self.window_open = False

    def wbinvd(self) -> None:
        """No caches here."""

    def fninit(self) -> None:
        """No FPU here."""

    def xsave(self, area: int, mask: int) -> None:
        """Only XSTATE_BV (offset 512) is written: no FPU here."""
        write_memory(area + 512, 8, mask)

    def xrstor(self, area: int, mask: int) -> None:
        if read_memory(area + 512, 8) & ~self.xcr.get(0, 0):
            raise GeneralProtection("XRSTOR of states outside XCR0")

    def fxsave(self, area: int) -> None:
        write_memory(area, 2, 0x37F)

    def fxrstor(self, area: int) -> None:
        region_of(area, 512)

    def rdpkru(self) -> int:
        return self.pkru

    def wrpkru(self, value: int) -> None:
        self.pkru = value

    def frame_pointer(self) -> int:
        return 0

    def current_cpu(self) -> int:
        """Address of the Cpu that runs; the first one unless a test sets `cpu` to another."""
        from hypervisor.cpu import cpus

        return address(cpus[self.cpu])

    def magic_break(self) -> None:
        """Only an emulator's debugger sees it."""

    def raise_ud(self) -> None:
        raise GeneralProtection("UD2")

    def raise_nmi(self) -> None:
        raise GeneralProtection("INT 2")

    def overflow_stack(self) -> None:
        raise RecursionError("stack overflow")

    # Memory
    def load(self, place: int, size: int) -> int:
        return read_memory(place, size)

    def store(self, place: int, size: int, value: int) -> None:
        write_memory(place, size, value)

    def copy_memory(self, target: int, source: int, length: int) -> None:
        if length == 0:
            return
        source_region, source_offset = region_of(source, length)
        target_region, target_offset = region_of(target, length)
        target_region.data[target_offset:target_offset + length] = \
            source_region.data[source_offset:source_offset + length]

    def fill_memory(self, target: int, value: int, length: int) -> None:
        if length == 0:
            return
        region, offset = region_of(target, length)
        region.data[offset:offset + length] = bytes([value]) * length

    def update(self, place: int, size: int, change: Callable[[int], int]) -> int:
        """One atomic read-modify-write; the old value."""
        old = read_memory(place, size)
        write_memory(place, size, change(old) & ((1 << 8 * size) - 1))
        return old

    def compiler_barrier(self) -> None:
        """CPython keeps the order as written."""

    def probe_read(self, place: int) -> bool:
        try:
            region_of(place, 1)
        except Fault:
            return False
        return True

    def probe_write(self, place: int) -> bool:
        return self.probe_read(place)

    def probe_execute(self, place: int) -> bool:
        return False

    # Arithmetic
    def bsr(self, bits: int) -> int:
        assert bits != 0
        return bits.bit_length() - 1

    def bsf(self, bits: int) -> int:
        assert bits != 0
        return (bits & -bits).bit_length() - 1

    def mul_shift(self, a: int, b: int, shift: int) -> int:
        return (a * b >> shift) & 0xFFFF_FFFF_FFFF_FFFF

    # SVM
    def svm_enter(self, registers: int, guest: int, host: int) -> None:
        if self.guest_runs is None:
            raise Halted("a guest was entered, and no guest is scripted")
        assert not self.window_open
        self.guest_runs(registers, guest)

    def vmsave(self, vmcb: int) -> None:
        """The fake has no hidden state to store."""

    # PV guests
    def hypercall(self, number: int, a: int, b: int, c: int, d: int) -> int:
        if self.on_hypercall is None:
            raise GeneralProtection("hypercall, and no hypervisor")
        return self.on_hypercall(number, a, b, c, d)

    def thread_switch(self, save_rsp: int, rsp: int) -> None:
        raise Halted(f"switch to another stack, at {rsp:#x}")

    def registers_exchange(self, frame: int, spins: int) -> None:
        if spins == 0:
            write_memory(frame, 8, self.hypercall(*(read_memory(frame + 8 * i, 8) for i in (0, 6, 5, 2, 7))))


machine = Machine()
