"""Devices that a guest reaches by loads and stores: which guest-physical addresses are theirs, and what happens there.

| page | device | who has it |
|---|---|---|
| FEC00000 | I/O APIC | VMs with a platform |
| FED00000 | HPET | VMs with a platform |
| FEE00000 | the vCPU's own local APIC (xAPIC mode; else reads ones) | all |
| E0001000 on | MSI-X table of a virtio device; the guest may move it | those that have the device |

None of these pages is ever mapped: each access is a nested fault (handlers/nested_fault.py).
"""
from typing import Final

from hypervisor import apic_bus, board
from hypervisor.devices import hpet, ioapic, lapic, platform
from hypervisor.devices.pci_host import NO_SLOT
from hypervisor.lang import u32, u64
from hypervisor.model import Vcpu, Vm
from hypervisor.virtio import msix_page

PAGE_OFFSET: Final[u64] = 0xFFF
FIRST: Final[u64] = ioapic.BASE  # of all devices that a guest cannot move


def is_device(vm: Vm, gpa: u64) -> bool:
    """Whether the page of this address belongs to a device."""
    page: u64 = gpa & ~PAGE_OFFSET
    return page == lapic.BASE or (page in (ioapic.BASE, hpet.BASE) and vm.platform is not None) or msix_page.slot_at(vm, gpa) != NO_SLOT


def read(vcpu: Vcpu, gpa: u64, size: u32) -> u64:
    """1, 2, 4 or 8 bytes at a device's address by the current vCPU; those that cross an aligned 8 read ones."""
    ones: u64 = 0xFFFF_FFFF_FFFF_FFFF >> (64 - 8 * size & 63)
    if (gpa & 7) + size > 8:
        return ones
    vm = vcpu.vm
    assert vm is not None
    if gpa & ~PAGE_OFFSET == lapic.BASE:
        if not lapic.has_page(vcpu.lapic):
            return ones
        return u64(apic_bus.read_page(vcpu, u32(gpa & 0xFFC))) >> (8 * (gpa & 3)) & ones
    slot = msix_page.slot_at(vm, gpa)
    if slot != NO_SLOT:
        return msix_page.read(vm, slot, gpa) >> (8 * (gpa & 7)) & ones
    p = vm.platform
    assert p is not None
    return platform.read_page(p, gpa, size, board.guest_time(vm))


def write(vcpu: Vcpu, gpa: u64, size: u32, value: u64) -> None:
    """Likewise; what a device does not take is dropped."""
    if (gpa & 7) + size > 8:
        return
    vm = vcpu.vm
    assert vm is not None
    if gpa & ~PAGE_OFFSET == lapic.BASE:
        if lapic.has_page(vcpu.lapic) and size >= 4 and gpa & 3 == 0:
            apic_bus.write_page(vcpu, u32(gpa & PAGE_OFFSET), u32(value & 0xFFFF_FFFF))
        return
    slot = msix_page.slot_at(vm, gpa)
    if slot != NO_SLOT:
        msix_page.write(vm, slot, gpa, size, value)
        return
    p = vm.platform
    assert p is not None
    platform.write_page(p, gpa, size, value, board.guest_time(vm))
    board.settle(vm, p)
