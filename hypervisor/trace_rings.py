"""Memory for the rings of a trace of scheduling (sched/trace.py): taken when one begins, given back when the host has it all."""
from typing import Final

from hypervisor.abi_trace import TraceRecord
from hypervisor.addresses import PAGE_SHIFT, Hva, hpa_of, hva_of
from hypervisor.lang import sizeof, struct, u64
from hypervisor.memory import frames
from hypervisor.sched.cpus import host
from hypervisor.sched.trace import RING_RECORDS, trace

RING_FRAMES: Final[u64] = RING_RECORDS * sizeof(TraceRecord) >> PAGE_SHIFT


@struct
class Sending:
    """To the host."""

    due: bool  # the trace has ended, and goes to the host
    begun: bool  # the header has gone


sending: Final = Sending()


def take() -> bool:
    """A ring for each CPU; False: not enough memory."""
    for cpu in range(host.count):
        if trace.rings[cpu].place == 0:
            place = frames.alloc_contiguous(RING_FRAMES)
            if place == 0:
                give_back()
                return False
            trace.rings[cpu].place = hva_of(place)
    return True


def give_back() -> None:
    """No ring has a place any more; no trace is on."""
    for ring in trace.rings:
        if ring.place != 0:
            frames.free_contiguous(hpa_of(Hva(ring.place)), RING_FRAMES)
            ring.place = 0
