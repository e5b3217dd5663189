"""What a guest must not be able to hurt others with: each of these gets this VM stopped, alone."""
from guest_pv_drivers import console, idt, start_info
from guest_pv_drivers.console import say
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import u32


def beyond() -> u32:
    """Write behind the end of this VM's memory."""
    place = start_info.get().memory_bytes + 0x5000
    say(f"touching {place:#x}, beyond my memory")
    intrinsics.store_u64(place, 1)
    say("still here: FAILED")
    return 1


def triple_fault() -> u32:
    """Take an exception without an IDT."""
    say("loading no IDT, then an exception")
    idt.idt.register.limit = 0
    idt.use()
    intrinsics.raise_ud()
    return 1


def exception() -> u32:
    """Take an exception that this kernel does not handle."""
    intrinsics.raise_ud()
    return 1


def crash() -> u32:
    """Give up, with a reason."""
    console.crash("the workload asked for it")
    return 1
