"""Uses intrinsics: what the host library hands to hooks, runs for real, or refuses."""
from hypervisor.arch_x86.intrinsics import inb, load_u32, outb, store_u32
from hypervisor.lang import u8, u32, u64


def echo(port: u8) -> u8:
    """Read a port and write the value plus one to the next."""
    value = inb(port)
    outb(port + 1, u8(value + 1))
    return value


def bump(place: u64) -> u32:
    """Add one to a number in memory."""
    store_u32(place, load_u32(place) + 1)
    return load_u32(place)
