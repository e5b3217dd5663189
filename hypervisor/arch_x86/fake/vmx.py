"""The CPython twin of VT-x: VMCSs as dictionaries, entries scripted by the test, translations that stay until flushed."""
from __future__ import annotations

from typing import Callable

from hypervisor.lang import read_memory, write_memory

VMFAIL_INVALID = 0xFFFF
VMFAIL_VALID = 0xFFFE
INSTRUCTION_ERROR = 0x4400
EXIT_REASON = 0x4402
GUEST_RIP = 0x681E
RIP_OFFSET = 128  # in Registers
WIDTH_BITS = (16, 64, 32, 64)  # by bits 14:13 of a field's number


class VmFail(Exception):
    """VMREAD or VMWRITE failed: on metal, a trap."""


class Vmx:
    """VMX of one CPU."""

    def __init__(self) -> None:
        self.on = False
        self.current = 0  # physical address of the current VMCS, 0: none
        self.regions: dict[int, dict[int, int]] = {}
        self.launched: set[int] = set()
        self.flushed: list[tuple[str, int, int]] = []  # (instruction, type, EPT pointer or VPID)
        self.exits: list[Callable[[dict[int, int], int], None]] = []  # each fills in the VMCS for one exit
        self.cs = 8
        self.tr = 0x18
        self.tables = {"gdtr": 0, "idtr": 0}

    def vmxon(self, region: int) -> bool:
        self.on = region != 0 and region % 4096 == 0
        return self.on

    def vmclear(self, vmcs: int) -> bool:
        self.regions.setdefault(vmcs, {})
        self.launched.discard(vmcs)
        if self.current == vmcs:
            self.current = 0
        return True

    def vmptrld(self, vmcs: int) -> bool:
        if vmcs == 0 or vmcs % 4096 != 0:
            return False
        self.regions.setdefault(vmcs, {})
        self.current = vmcs
        return True

    def fields(self) -> dict[int, int]:
        """The current VMCS."""
        if self.current == 0:
            raise VmFail("no current VMCS")
        return self.regions[self.current]

    def vmread(self, field: int) -> int:
        return self.fields().get(field, 0)

    def vmwrite(self, field: int, value: int) -> None:
        if (field >> 10) & 3 == 1:
            raise VmFail(f"VMWRITE to the read-only field {field:#x}")
        self.fields()[field] = value & ((1 << WIDTH_BITS[(field >> 13) & 3]) - 1)

    def invept(self, kind: int, pointer: int) -> None:
        self.flushed.append(("invept", kind, pointer))

    def invvpid(self, kind: int, vpid: int) -> None:
        self.flushed.append(("invvpid", kind, vpid))

    def store_table(self, descriptor: int, name: str) -> None:
        write_memory(descriptor, 2, 0xFFFF)
        write_memory(descriptor + 2, 8, self.tables[name])

    def enter(self, registers: int, launched: bool) -> int:
        """VMLAUNCH or VMRESUME with the launch state checked; then the next scripted exit."""
        if self.current == 0:
            return VMFAIL_INVALID
        if launched != (self.current in self.launched):
            self.fields()[INSTRUCTION_ERROR] = 5 if launched else 4
            return VMFAIL_VALID
        self.launched.add(self.current)
        self.fields()[GUEST_RIP] = read_memory(registers + RIP_OFFSET, 8)
        self.exits.pop(0)(self.fields(), registers)
        write_memory(registers + RIP_OFFSET, 8, self.fields()[GUEST_RIP])
        return self.fields()[EXIT_REASON]
