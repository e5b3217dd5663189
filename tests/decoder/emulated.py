"""MMIO emulation and the operands it finds, interpreted and compiled with sanitizers: each outcome, register, and byte of memory is equal.

    PYTHONPATH=.:build python -m tests.decoder.emulated 20000
"""
from __future__ import annotations

import ctypes
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from host_library import HostLibrary
from hypervisor.addresses import PAGE_SIZE, Gpa, Hva
from hypervisor.arch_x86 import backend
from hypervisor.arch_x86.defs.cr import CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.state import CS, GuestState
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.guest_code import CS_DEFAULT_32, CS_LONG
from hypervisor.handlers.outcome import Outcome
from hypervisor.lang import address, map_memory, unmap_memory
from hypervisor.memory import backing, guest_memory
from tests import sanitized
from tests.decoder import emulate
from tests.decoder.forms import form
from tests.memory.compiled import FIRST, LEDGER, MEMORY, MODULES, CompiledWorld
from tests.memory.world import World, vcpu_of

MODULE = "tests.decoder.emulated"
CALLS = "tests.decoder.emulate"
ALL_MODULES = [*MODULES, CALLS]
FRAMES, PAGES, LIMIT = 500, 64, 300
STAGE = 0x6000_0000
CODE, DATA, TABLES = 0x2000, 0x8000, 0x4000
HOLE = 0xFEB0_0000
RAM_END = PAGES * PAGE_SIZE
VM_FIELDS = ("holes_touched", "private_frames", "nested_frames")
VCPU_FIELDS = ("exception_pending", "exception_vector", "exception_error", "exception_has_error")
REGISTERS = ("rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
VMCB_BYTES = 4096
PRESENT_WRITABLE = 3
ODD_BYTES = [b"\xff\x37", b"\x8f\x07", b"\x66\xff\x37", b"\x66\x8f\x07", b"\x8f\x04\x24", b"\x64\x89\x07", b"\x65\x01\x47\x10", b"\x67\xf3\xa4",
             b"\x67\x89\x07", b"\xf3\x48\xa5", b"\x89\x05\x00\x60\x00\x00", b"\x8a\x64\xbb\xf0", b"\xf0\x0f\xc1\x07", b"\x0f\x11\x07"]  # fmt: skip


class Pair:
    """One VM, twice."""

    def __init__(self, one: World, two: CompiledWorld) -> None:
        self.one, self.two = one, two
        self.vm, self.vcpu = one.vms[0], vcpu_of(one.vms[0])
        self.twin_vm, self.twin = two.vms[0], two.vcpus[0]
        self.vmcb, self.twin_vmcb = Vmcb(), ctypes.create_string_buffer(VMCB_BYTES)
        self.vcpu.backend_hva = Hva(address(self.vmcb))
        self.twin.backend_hva = ctypes.addressof(self.twin_vmcb)
        self.state, self.twin_state = GuestState(), two.library.struct("hypervisor.arch_x86.state.GuestState")()

    def put(self, gpa: int, data: bytes) -> None:
        """Into the guest's RAM."""
        map_memory(STAGE, bytearray(data))
        assert guest_memory.load_image(self.vm, Gpa(gpa), Hva(STAGE), len(data)) == 0
        unmap_memory(STAGE)
        held = ctypes.create_string_buffer(data, len(data))
        assert self.two.call(f"{MEMORY}.guest_memory.load_image", self.twin_vm, gpa, ctypes.addressof(held), len(data)) == 0

    def begin(self, registers: dict[str, int], code: bytes, rng: random.Random) -> None:
        """Everything that an instruction starts from."""
        self.put(CODE, code + b"\x90" * (16 - len(code)))
        mode = rng.choice(["long", "long paged", "flat", "real"])
        values = {"cr0": CR0_PE if mode != "real" else 0, "cr3": TABLES, "cr4": 0, "efer": 0}
        if mode.startswith("long"):
            values["efer"] = EFER_LME | EFER_LMA
        if mode == "long paged":
            values["cr0"] |= CR0_PG
            values["cr4"] |= CR4_PAE
        bases = [0 if mode != "real" else rng.choice([0, 0x1000, 0x80]) for _ in range(8)]
        for state in (self.state, self.twin_state):
            for name, value in values.items():
                setattr(state, name, value)
            for index in range(8):
                segment: Any = state.segments[index]
                segment.base, segment.limit = 0 if index == CS else bases[index], 0xFFFF_FFFF
                segment.attributes = 0x93 | (0x8 | (CS_LONG if mode.startswith("long") else CS_DEFAULT_32 if mode == "flat" else 0) if index == CS else CS_DEFAULT_32)
        for vcpu in (self.vcpu, self.twin):
            for name in REGISTERS:
                setattr(vcpu.regs, name, registers.get(name, 0))
            vcpu.regs.rip, vcpu.regs.rflags, vcpu.regs.rsp = CODE, registers["rflags"], registers["rsp"]
            vcpu.exception_pending = False
        emulate.prepare(self.vcpu, self.state)
        self.two.call(f"{CALLS}.prepare", self.twin, self.twin_state)

    def run(self) -> set[int]:
        """Until it is done; the outcomes. AssertionError where the two differ."""
        seen = set()
        for _ in range(8):
            outcome = emulate.once(self.vcpu)
            assert self.two.call(f"{CALLS}.once", self.twin) == outcome
            seen.add(int(outcome))
            for name in (*REGISTERS, "rip", "rsp", "rflags"):
                assert getattr(self.vcpu.regs, name) == getattr(self.twin.regs, name), name
            for name in VCPU_FIELDS:
                assert getattr(self.vcpu, name) == getattr(self.twin, name), name
            for name in VM_FIELDS:
                assert getattr(self.vm, name) == getattr(self.twin_vm, name), name
            if outcome != Outcome.RESUME or self.vcpu.exception_pending:
                break
        return seen


@contextmanager
def pair(library: HostLibrary) -> Iterator[Pair]:
    """A VM whose first 2 MiB of linear addresses are mapped to themselves but for a page, the next to the hole."""
    two = CompiledWorld(library, FRAMES, LIMIT, False)
    library.hook("hypervisor.arch_x86.intrinsics.rdtsc", lambda: 1000)
    with closing(World(FRAMES, LIMIT, False, FIRST, LEDGER)) as one:
        machine.tsc, machine.tsc_step = 1000, 0
        backend.chosen.svm = True
        two.stored("hypervisor.arch_x86.backend.chosen", "hypervisor.arch_x86.backend.Chosen").svm = True
        one.vm(PAGES)
        assert two.vm(PAGES, 1) == 0
        made = Pair(one, two)
        for gfn in range(PAGES):
            assert backing.back(made.vm, gfn) == two.call(f"{MEMORY}.backing.back", made.twin_vm, gfn) == 0  # type: ignore[arg-type]
        made.put(TABLES, (TABLES + 0x1000 | PRESENT_WRITABLE).to_bytes(8, "little"))
        made.put(TABLES + 0x1000, (TABLES + 0x2000 | PRESENT_WRITABLE).to_bytes(8, "little"))
        made.put(TABLES + 0x2000, (TABLES + 0x3000 | PRESENT_WRITABLE).to_bytes(8, "little"))
        leaves = [gfn * PAGE_SIZE | (1 if gfn % 5 == 1 else PRESENT_WRITABLE) for gfn in range(PAGES)] + [HOLE | PRESENT_WRITABLE] * 8
        leaves[20] = 0
        made.put(TABLES + 0x3000, b"".join(leaf.to_bytes(8, "little") for leaf in leaves))
        yield made


def compare(library: HostLibrary, count: int, seed: int) -> str:
    """Random instructions, operands in RAM, in holes, across their edges and where nothing is mapped."""
    rng = random.Random(seed)
    tally: dict[int, int] = {}
    with pair(library) as both:
        for number in range(count):
            made = form(rng)
            registers = dict(made.registers)
            for name in ("rdi", "rsi", "rsp"):
                base = rng.choice([DATA, HOLE, RAM_END, 20 * PAGE_SIZE, RAM_END + PAGE_SIZE, DATA + PAGE_SIZE, rng.getrandbits(64)])
                registers[name] = base + rng.randrange(-20, 20) & (1 << 64) - 1
            code = made.code if rng.random() < 0.8 else rng.choice(ODD_BYTES)
            if number % 50 == 0:
                both.put(DATA, rng.randbytes(2 * PAGE_SIZE))
            both.begin(registers, code, rng)
            try:
                for outcome in both.run():
                    tally[outcome] = tally.get(outcome, 0) + 1
            except AssertionError as error:
                raise AssertionError(f"instruction {number} from seed {seed}, {code.hex(' ')}, {registers}: {error}") from error
            if number % 100 == 0:
                assert both.two.memory()[0] == bytes(both.one.ram), f"memory after {number} from seed {seed}, {code.hex(' ')}"
        assert both.two.memory()[0] == bytes(both.one.ram)
    assert tally.get(Outcome.SKIP, 0) > count // 3 and tally.get(Outcome.RESUME, 0) > count // 20 and tally.get(emulate.NOT_KNOWN, 0) > 0, tally
    return f"{count} instructions from seed {seed}, equal: " + ", ".join(f"{tally[key]} outcome {key}" for key in sorted(tally))


def main(arguments: list[str]) -> None:
    if arguments[0] == "--in":
        print(f"sanitized: {compare(HostLibrary(Path(arguments[1])), int(arguments[2]), int(arguments[3]))}")
        return
    with tempfile.TemporaryDirectory() as folder:
        print(sanitized.run(MODULE, ALL_MODULES, Path(folder), int(arguments[0]), 1), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
