"""The host CPUs as the policies see them: how many there are, and who runs where."""
from typing import Annotated, Final

from hypervisor.lang import struct, u32
from hypervisor.model import MAX_CPUS, Vcpu, Vm

ALL: Final = (1 << MAX_CPUS) - 1


@struct
class Cpus:
    """Set once at boot, or by the simulator; kept by policy.py."""

    count: u32
    pinned: bool  # some VM or vCPU may not run on all
    running: Annotated[list[Vcpu | None], MAX_CPUS]
    overtaken: u32  # CPUs, one bit each, that a policy wants to be asked about at once


host: Final = Cpus()


def present() -> u32:
    """One bit for each CPU."""
    return u32(ALL >> (MAX_CPUS - host.count & 31))


def allowed(vm: Vm) -> u32:
    """The CPUs that a VM may run on, one bit each; never none."""
    return vm.cpus & present() if vm.cpus != 0 else present()


def of(vcpu: Vcpu) -> u32:
    """The CPUs that a vCPU may run on: the one that it is pinned to, or its VM's."""
    if vcpu.cpus != 0:
        return vcpu.cpus
    vm = vcpu.vm
    assert vm is not None
    return allowed(vm)


def bit(cpu: u32) -> u32:
    """The set of this CPU alone."""
    return 1 << (cpu & 31)


def has(cpus: u32, cpu: u32) -> bool:
    """Is it in the set?"""
    return cpus >> (cpu & 31) & 1 != 0


def may_run_on(vcpu: Vcpu, cpu: u32) -> bool:
    """May it run on this CPU?"""
    return not host.pinned or has(of(vcpu), cpu)


def number_of(mask: u32) -> u32:
    """How many CPUs are in a set."""
    count: u32 = 0
    for cpu in range(MAX_CPUS):
        if mask >> cpu & 1 != 0:
            count += 1
    return count
