"""KVM's paravirtual clock: a page that lets a guest turn its TSC into nanoseconds without an exit.

Source: Linux Documentation/virt/kvm/x86/msr.rst (6.1), MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_SYSTEM_TIME_NEW;
arch/x86/include/asm/pvclock-abi.h.

| MSR | a guest writes | what happens |
|---|---|---|
| 4B564D00 (and 11) | address, 4-byte aligned | the wall-clock structure is written there once, with the time of day at guest time 0 |
| 4B564D01 (and 12) | address, 4-byte aligned; bit 0 enable | the time structure is written there; with bit 0 clear nothing more happens |

The host has one TSC frequency, and the guest's TSC stands still while it is paused, so the structure is written once: version 2,
stable. Guest time 0 is TSC 0 of the guest. After a pause the flag GUEST_STOPPED_BIT is set in it (vm_control.resume).
"""
from typing import Final

from hypervisor.lang import struct, u32, u64, u8

SYSTEM_TIME_ENABLE: Final[u64] = 1
TSC_STABLE_BIT: Final = 1
GUEST_STOPPED_BIT: Final = 2  # the hypervisor sets it, the guest clears it


@struct
class TimeInfo:
    """struct pvclock_vcpu_time_info: 32 bytes."""

    version: u32  # odd while it is being changed
    pad0: u32
    tsc_timestamp: u64
    system_time: u64  # ns at tsc_timestamp
    tsc_to_system_mul: u32  # ns = ((tsc - tsc_timestamp) << shift) * mul >> 32
    tsc_shift: u8  # signed
    flags: u8
    pad1: u8
    pad2: u8


@struct
class WallClock:
    """struct pvclock_wall_clock: 12 bytes."""

    version: u32
    sec: u32
    nsec: u32


def fill_time(info: TimeInfo, tsc_khz: u64) -> None:
    """The structure for a guest whose TSC started at 0 with its time; 1 kHz <= frequency < 2^44 kHz."""
    khz = tsc_khz
    shift: u32 = 0  # taken as signed: 0, 1, 2 ... or 255, 254 ...
    # Find the shift that makes mul = 10^6 * 2^32 / (khz << shift) as large as fits 32 bits.
    while khz <= 1_000_000:
        khz = khz * 2
        shift = u32(shift + 1)
    while khz > 2_000_000:
        khz = khz // 2
        shift = u32(shift + 255 & 255)
    info.version = 2
    info.tsc_timestamp = 0
    info.system_time = 0
    info.tsc_to_system_mul = u32((1_000_000 << 32) // khz)
    info.tsc_shift = u8(shift)
    info.flags = TSC_STABLE_BIT


def fill_wall(clock: WallClock, unix_seconds: u64) -> None:
    """The wall clock at guest time 0."""
    clock.version = 2
    clock.sec = u32(unix_seconds & 0xFFFF_FFFF)
    clock.nsec = 0
