"""What start.S has for the hostile guest. There is no twin under CPython: this kernel only runs as a guest."""
from hypervisor.lang import u64


def probe(place: u64) -> None:
    """Run the code that the cpu.Probe at `place` describes until a trap."""
    raise NotImplementedError
