"""Krait's ABI, version 1: what hypervisor, PV guests and host tools share. No logic but layouts and numbers.

Hypercall: VMCALL (VT-x) or VMMCALL (SVM) at CPL 0, number in RAX, arguments in RDI, RSI, RDX, R8, result in RAX as a
signed 64-bit number: >= 0 is the result, < 0 is minus an Error. Only RAX changes.
"""
from enum import IntEnum
from typing import Annotated, Final

from hypervisor.lang import struct, u32, u64, u8

ABI_VERSION: Final = 1

# CPUID leaves (0x40000000 is KVM's for stock guests; Krait's own leaves stand beside it).
CPUID_KRAIT_BASE: Final = 0x40004B00  # EAX: highest leaf; EBX, ECX, EDX: "KraitKraitKr"
CPUID_KRAIT_FEATURES: Final = 0x40004B01  # EAX: ABI_VERSION, EBX: FEATURE_* bits, ECX: guest TSC in kHz

FEATURE_CONSOLE: Final = 1
FEATURE_EVENTS: Final = 2
FEATURE_MEMORY: Final = 4  # mem_release, mem_populate, page_state, pressure event

HYPERCALL_BASE: Final = 0x4B000000


class Hypercall(IntEnum):
    """Hypercall numbers, less HYPERCALL_BASE."""

    VERSION = 0  # () -> ABI_VERSION | features << 32
    CONSOLE_WRITE = 1  # (gpa, bytes <= 4096) -> bytes written, perhaps fewer: call again for the rest
    CONSOLE_READ = 2  # (gpa, bytes <= 4096) -> bytes read, 0 when there is no input
    TIME = 3  # () -> nanoseconds of guest time since the VM started
    TIMER_SET = 4  # (deadline in ns of guest time, 0 cancels) -> 0; raises EVENT_TIMER
    EVENTS_SETUP = 5  # (gpa of a VcpuInfo, 64-byte aligned; vector 32..255) -> 0
    YIELD = 6  # () -> 0
    BLOCK = 7  # () -> 0 once VcpuInfo.pending is not 0 (without EVENTS_SETUP: once an event was raised)
    WAKE = 8  # (vcpu index) -> 0; raises EVENT_WAKE there
    POWER_OFF = 9  # (exit code 0..255): does not return
    CRASH = 10  # (gpa of text, bytes <= 256): stops this VM with a dump; does not return
    REBOOT = 11  # (): starts this VM again from the bundle; does not return
    # These answer how many pages, from the first on, are now as asked; perhaps fewer: call again for the rest.
    MEM_RELEASE = 12  # (first gfn, count) -> pages without a frame; contents are lost, a touch gives a zeroed frame
    MEM_POPULATE = 13  # (first gfn, count) -> pages with a frame (new ones are zeroed); waits for the first under pressure
    PAGE_STATE = 14  # (first gfn, count, PageState) -> pages in that state


class Error(IntEnum):
    """Hypercall errors; RAX holds the negated number."""

    NO_SUCH_CALL = 1
    BAD_ARGUMENT = 2
    BAD_ADDRESS = 3
    NO_MEMORY = 4
    NOT_PERMITTED = 5
    BUSY = 6


class PageState(IntEnum):
    """What a guest says of a page (CMM2's states)."""

    STABLE = 0  # contents matter
    UNUSED = 1  # contents do not matter; the frame may be taken at any time, reads give zero afterwards
    VOLATILE = 2  # contents can be re-created by the guest; may be dropped
    COLD = 3  # contents matter, not needed soon


# Bits of VcpuInfo.pending.
EVENT_TIMER: Final = 1
EVENT_CONSOLE: Final = 2
EVENT_WAKE: Final = 4
EVENT_MEMORY_PRESSURE: Final = 8
EVENT_DEVICE: Final = 16  # a virtio device has pulled its interrupt line

CONSOLE_CALL_BYTES: Final = 4096  # CONSOLE_WRITE, CONSOLE_READ
CRASH_TEXT_BYTES: Final = 256
HYPERCALL_COUNT: Final = 15


@struct
class VcpuInfo:
    """Page shared by guest and hypervisor, one per vCPU; the hypervisor ORs pending, the guest takes bits by xchg/and."""

    pending: u64
    pressure_frames: u64  # frames that the hypervisor asks this VM to release
    reserved: Annotated[list[u64], 6]


START_INFO_MAGIC: Final[u64] = 0x3154524154534B00  # "\0KSTART1"


@struct
class StartInfo:
    """What a PV kernel finds at the address in RDI when it starts, in long mode, first GiB identity-mapped; RSI: vCPU index.

    vCPUs above the first start at the same entry, when another one first wakes them (WAKE).
    """

    magic: u64
    version: u32
    vm_id: u32
    memory_bytes: u64
    vcpu_count: u32
    svm: u32  # 1: VMMCALL, 0: VMCALL
    tsc_khz: u64
    image_end: u64  # first gpa behind the loaded kernel and this structure's page tables
    cmdline: Annotated[list[u8], 1024]


BUNDLE_MAGIC: Final[u64] = 0x314C444E554B4B00  # "\0KKUNDL1"
BUNDLE_CONFIG_MEMBER: Final = "krait.config"
BUNDLE_END_AUTO: Final = 1  # flag: power the machine off when the last VM has ended
BUNDLE_ATTACH: Final = 2  # flag: the operator is attached to the first VM from its start

VM_KIND_PV: Final = 1
VM_KIND_LINUX: Final = 2
VM_KIND_MULTIBOOT: Final = 3  # Multiboot 1, with modules
VM_VIRTIO_CONSOLE: Final = 1  # VmConfig.flags: a virtio console beside the UART; not for PV
MODULES_MOST: Final = 8
MODULE_TEXT_BYTES: Final = 128
REBOOTS_UNLIMITED: Final[u64] = 0xFFFF_FFFF  # VmConfig.reboots


@struct
class BundleHeader:
    """First bytes of the bundle's member `krait.config`; vm_count VmConfig follow."""

    magic: u64
    version: u32
    flags: u32
    vm_count: u32
    vm_config_size: u32  # sizeof(VmConfig): refused when it differs
    memory_limit: u64  # bytes the hypervisor may hand to guests (0: all), so that pressure can be shown on any machine


@struct
class ModuleConfig:
    """A Multiboot module of a VM. Texts are NUL-terminated."""

    file: Annotated[list[u8], 64]  # member of the bundle
    text: Annotated[list[u8], 128]  # what the kernel is told of it: its name and arguments


@struct
class VmConfig:
    """One VM of the bundle. Names are NUL-terminated."""

    name: Annotated[list[u8], 32]
    kind: u32
    weight: u32
    memory_bytes: u64
    vcpu_count: u32
    reboots: u32  # how many resets start the VM again; the next one ends it. REBOOTS_UNLIMITED
    kernel: Annotated[list[u8], 64]  # member of the bundle
    initrd: Annotated[list[u8], 64]  # member, or empty
    cmdline: Annotated[list[u8], 1024]
    module_count: u32
    modules: Annotated[list[ModuleConfig], 8]
    cap_percent: u32  # of a CPU, that it may use in each period; 0: no cap
    cap_period_ms: u32
    reserved_percent: u32  # of a CPU, that it gets if it wants it
    cpus: u32  # one bit for each host CPU that it may run on; 0: all
    flags: u32  # VM_*
    pins: Annotated[list[u8], 64]  # for each vCPU, host CPU + 1 that it is pinned to; 0: none


BUNDLE_DISKS_MEMBER: Final = "krait.disks"  # optional
DISKS_MAGIC: Final[u64] = 0x3153_4B53_4944_4B00  # "\0KDISKS1"
DISK_READ_ONLY: Final = 1  # DiskConfig.flags
DISK_OVERLAY_STORED: Final = 2  # the overlay lies on the host disk,
DISK_OVERLAY_KEPT: Final = 4  # and what an earlier run left there is used


@struct
class DisksHeader:
    """First bytes of the bundle's member `krait.disks`; ram_count RamDiskConfig and disk_count DiskConfig follow."""

    magic: u64
    version: u32
    ram_count: u32
    ram_config_size: u32  # refused when it differs
    disk_count: u32
    disk_config_size: u32
    reserved: u32


@struct
class RamDiskConfig:
    """A host disk in the hypervisor's memory."""

    name: Annotated[list[u8], 24]
    image: Annotated[list[u8], 64]  # member of the bundle that it is; empty: `sectors` sectors of zeros
    sectors: u64


@struct
class DiskConfig:
    """A disk of one VM: a range of a host disk that overlaps no other, unless all of them are read-only or have overlays."""

    vm: u32  # index of its VmConfig
    flags: u32
    name: Annotated[list[u8], 24]
    host: Annotated[list[u8], 24]  # the host disk: its place (virtio0, ata1, nvme0), its serial number, or a RamDiskConfig's name
    partition: u32  # number of a GPT entry, from 1; 0: by range
    overlay_partition: u32  # where it is stored: likewise
    first: u64  # sectors of 512 bytes
    sectors: u64  # 0: to the end
    overlay_bytes: u64  # most memory for what is written, or size of the range where it is stored; the rest is only read. 0: no overlay
    overlay_first: u64  # of that range
    requests_a_second: u64  # 0: no limit
    bytes_a_second: u64


# Ports of the machine Krait itself runs on (QEMU's isa-debug-exit; Bochs' is the magic break).
EXIT_OK: Final = 0x10  # QEMU's exit status is value << 1 | 1: 33
EXIT_GUEST_FAILED: Final = 0x11  # 35
EXIT_PANIC: Final = 0x12  # 37
EXIT_NO_VIRTUALIZATION: Final = 0x13  # 39
