"""Ports without a device behind them that software still writes: POST codes, and QEMU's isa-debug-exit.

Sources: IBM PC/AT Technical Reference (1502494), manufacturing test port 80; QEMU 7.2, hw/misc/debugexit.c.

| port | a guest writes | what happens |
|---|---|---|
| 80 | any | the byte is kept and read back (Linux writes it for a delay) |
| F4 | code | the VM ends with this exit code |
"""
from typing import Final

from hypervisor.lang import struct, u32, u8

VERSION: Final = 1


@struct
class DebugPorts:
    """What was written last."""

    version: u32
    post_code: u8


def reset(ports: DebugPorts) -> None:
    """Power-on."""
    ports.version = VERSION
