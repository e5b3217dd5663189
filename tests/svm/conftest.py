"""A vCPU with a VMCB, as enter leaves it after #VMEXIT."""
from collections.abc import Iterator

import pytest

from hypervisor.addresses import Hva
from hypervisor.arch_x86.svm import exit_table, init
from hypervisor.arch_x86.svm.vmcb import Vmcb
from hypervisor.cpu import cpus
from hypervisor.lang import address, clear
from hypervisor.model import Vcpu


@pytest.fixture
def vmcb() -> Vmcb:
    return Vmcb()


@pytest.fixture
def vcpu(vmcb: Vmcb) -> Iterator[Vcpu]:
    """QEMU's SVM: no next RIP, no decode assists."""
    clear(cpus[0])
    clear(init.host)
    init.host.asid_count = 4
    exit_table.fill(False)
    made = Vcpu()
    made.backend_hva = Hva(address(vmcb))
    yield made
    clear(init.host)
    clear(cpus[0])
