"""What holds for all off-target tests. Each begins with one CPU, which runs and holds the hypervisor's lock."""
import pytest
from hypothesis import settings

from hypervisor import lock
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.cpu import online
from hypervisor.lang import clear

# Interpreted hypervisor code is slow and emulators share the machine: how long an example takes says nothing.
settings.register_profile("krait", deadline=None)
settings.load_profile("krait")


@pytest.fixture(autouse=True)
def _one_cpu() -> None:
    machine.cpu = 0
    online.count = 1
    clear(lock.lock)
    lock.acquire()
