"""How long a vCPU runs when others wait: known to all policies."""
from typing import Final

from hypervisor.lang import struct, u64

QUANTUM_NS: Final = 1_000_000


@struct
class Quantum:
    """Set once at boot, or by the simulator."""

    ticks: u64  # TSC ticks, below 2^24


quantum: Final = Quantum()
