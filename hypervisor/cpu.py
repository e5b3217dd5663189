"""The host CPUs. One is enough for this version: the one that booted."""
from typing import Final

from hypervisor.model import Cpu

boot_cpu: Final = Cpu()
