"""What the hypervisor tells of a VM and of the machine, with names in place of numbers."""

from typing import Any

from hypervisor import abi_channel as abi
from hypervisor.arch_x86.vm_exit import CAUSE_NAMES
from hypervisor.operator_vm_commands import KIND_OF_VM, STATE_NAMES
from hypervisor.sched.policy import POLICY_NAMES
from krait import channel

Record = dict[str, Any]


def vm_record(payload: bytes) -> Record:
    """One VM, numbers named."""
    record = channel.decode(abi.VmRecord, payload)
    record["state"] = STATE_NAMES[record["state"]]
    record["kind"] = KIND_OF_VM[record["kind"]]
    record["exits"] = {name: count for name, count in zip(CAUSE_NAMES, record["exits"], strict=True) if count}
    return record


def host_record(payload: bytes) -> Record:
    """The machine, its policy named."""
    record = channel.decode(abi.HostRecord, payload)
    record["policy"] = POLICY_NAMES[record["policy"]]
    return record
