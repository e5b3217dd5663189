"""ACPI power-management timer: 24 bits at 3.579545 MHz.

Source: ACPI 6.4, 4.8.2.1 and 4.8.3.3.

| offset | a guest writes | what happens |
|---|---|---|
| 0-3 | anything | nothing |

TMR_STS and its interrupt are not done: Linux reads the counter only.
"""
from typing import Final

from hypervisor.devices.rate import ticks_at
from hypervisor.lang import u32, u64

HZ: Final[u64] = 3_579_545
COUNTER_MASK: Final = 0xFF_FFFF


def read(now: u64) -> u32:
    """The counter at guest time `now` (ns)."""
    return u32(ticks_at(now, HZ) & COUNTER_MASK)
