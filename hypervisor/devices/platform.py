"""Platform of a VM that runs a stock operating system: its emulated devices, as plain state."""
from hypervisor.lang import struct, u32


@struct
class Platform:
    """Device state of one VM."""

    version: u32
