"""One fake CPU with VT-x, as Bochs' corei7_haswell_4770 reports it, and one vCPU on it."""
from __future__ import annotations

from typing import Iterator

import pytest

from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.vtx import controls, vcpu as vtx_vcpu
from hypervisor.arch_x86.vtx.current import here
from hypervisor.addresses import Hpa
from hypervisor.cpu import cpus
from hypervisor.lang import clear, map_memory, set_link_address, unmap_memory
from hypervisor.memory import frames
from hypervisor.model import Vcpu, Vm

FRAMES_AT = 0x10_0000
FRAME_COUNT = 16

# Capability MSRs: high half may be 1, low half must be 1.
CAPABILITIES = {
    0x480: (1 << 55) | (6 << 50) | (0x1000 << 32) | 0x2B,
    0x48D: 0x0000_007F_0000_0016,
    0x48E: 0xFFF9_FFFE_0400_6172,
    0x48B: 0x0000_7FFF_0000_0000,
    0x48F: 0x007F_FFFF_0003_6DFB,
    0x490: 0x0000_FFFF_0000_11FB,
    0x48C: 0x0000_0F01_0633_4141,
    0x486: 0x8000_0021, 0x487: 0xFFFF_FFFF, 0x488: 0x2000, 0x489: 0x0017_67FF,
    0x277: 0x0007_0406_0007_0406, 0xC000_0080: 0xD01,
    0xC000_0081: 0, 0xC000_0082: 0, 0xC000_0083: 0, 0xC000_0084: 0, 0xC000_0102: 0,
}


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The machine at power-on with VT-x; yields the console's lines."""
    machine.reset()
    machine.msrs.update(CAPABILITIES)
    clear(here)
    clear(cpus[0])
    clear(controls.chosen)
    lines: list[str] = []
    for module in ("controls", "failure", "init"):
        monkeypatch.setattr(f"hypervisor.arch_x86.vtx.{module}.say", lines.append)
    free = [FRAMES_AT + 4096 * index for index in range(FRAME_COUNT)]
    map_memory(FRAMES_AT, bytearray(4096 * FRAME_COUNT))
    monkeypatch.setattr(frames, "alloc_zeroed", lambda: Hpa(free.pop(0)) if free else Hpa(0))
    monkeypatch.setattr(frames, "free", lambda hpa: free.append(hpa))
    table = bytearray(64)  # a GDT whose TSS descriptor at 0x18 has the base 0x1234_89AB_CDEF
    table[0x18:0x28] = bytes([0x67, 0, 0xEF, 0xCD, 0xAB, 0x89, 0, 0x89, 0x34, 0x12, 0, 0, 0, 0, 0, 0])
    map_memory(0x9000, table)
    machine.vmx.tables["gdtr"] = 0x9000
    set_link_address("vtx_exited", 0x20_1234)
    yield lines
    unmap_memory(FRAMES_AT)
    unmap_memory(0x9000)
    clear(here)
    clear(cpus[0])


@pytest.fixture
def vm() -> Vm:
    made = Vm()
    made.id = 2
    made.nested_root = Hpa(0x70_0000)
    made.tsc_offset = 0xFFFF_FFFF_FFFF_0000
    return made


@pytest.fixture
def vcpu(vm: Vm) -> Vcpu:
    """A vCPU with a VMCS that is current."""
    from hypervisor.status import Status

    assert controls.choose_all() == Status.OK
    made = Vcpu()
    made.vm = vm
    assert vtx_vcpu.create(vm, made) == Status.OK
    return made


@pytest.fixture
def fields(vcpu: Vcpu) -> dict[int, int]:
    """The fields of that vCPU's VMCS."""
    return machine.vmx.regions[vcpu.backend_hpa]
