"""What the hypervisor told this kernel when it started it (abi.StartInfo)."""
from typing import Final

from hypervisor.abi import ABI_VERSION, START_INFO_MAGIC, StartInfo
from hypervisor.lang import at, struct, u64


@struct
class Kernel:
    """Where the start information stands."""

    info: StartInfo | None


kernel: Final = Kernel()


def init(gpa: u64) -> bool:
    """Remember the StartInfo at gpa; False when it is none of ours (nothing can be printed then)."""
    info = at(StartInfo, gpa)
    if info.magic != START_INFO_MAGIC or info.version != ABI_VERSION:
        return False
    kernel.info = info
    return True


def get() -> StartInfo:
    """The start information; valid after init."""
    info = kernel.info
    assert info is not None
    return info
