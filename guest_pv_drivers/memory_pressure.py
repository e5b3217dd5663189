"""The PV memory driver: gives free frames back when the hypervisor is short of memory.

On EVENT_MEMORY_PRESSURE the hypervisor has written to VcpuInfo how many frames it asks for. memory.alloc populates released
frames again when this kernel needs them.
"""
from typing import Final

from guest_pv_drivers import events, memory, threads
from guest_pv_drivers.console import say
from hypervisor.abi import EVENT_MEMORY_PRESSURE
from hypervisor.lang import struct, u64


@struct
class Statistics:
    """What this driver did."""

    events: u64
    released: u64  # frames, ever


statistics: Final = Statistics()


def serve(_argument: u64) -> None:
    """Body of the driver's thread."""
    while True:
        threads.wait(EVENT_MEMORY_PRESSURE, 0)
        wanted = events.shared.vcpu[0].pressure_frames
        given = release(wanted)
        statistics.events += 1
        say(f"memory pressure: asked for {wanted} frames, released {given}")


def release(wanted: u64) -> u64:
    """Release up to so many free frames, in runs; how many it were."""
    given: u64 = 0
    while given < wanted:
        got = memory.release_run(wanted - given)
        if got == 0:
            break
        given += got
    statistics.released += given
    return given
