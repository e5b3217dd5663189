"""Guest time in nanoseconds since this VM started, and the one-shot timer event."""
from typing import Final

from guest_pv_drivers import hypercall
from hypervisor.abi import Hypercall
from hypervisor.lang import u64

NS_PER_MS: Final = 1000000


def now_ns() -> u64:
    """Guest time now."""
    return hypercall.time_ns()


def set_timer(deadline_ns: u64) -> None:
    """Raise EVENT_TIMER at this guest time; 0 cancels."""
    hypercall.call1(Hypercall.TIMER_SET, deadline_ns)
