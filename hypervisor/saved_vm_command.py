"""`debug state NAME`: all device state of a paused VM is saved, overwritten and restored, which the guest must not notice."""
from hypervisor import saved_vm, vm
from hypervisor.addresses import PAGE_SIZE, hva_of
from hypervisor.console import refuse, say
from hypervisor.lang import u64
from hypervisor.memory import frames
from hypervisor.model import Vm, VmState
from hypervisor.status import Status


def run(machine: Vm) -> None:
    """For one VM; refused while it runs."""
    if machine.state != VmState.PAUSED or machine.paused_at == 0 or vm.is_on_cpu(machine):
        refuse("debug state NAME: pause it before")
        return
    length: u64 = saved_vm.size_of(machine)
    pages: u64 = (length + PAGE_SIZE - 1) // PAGE_SIZE
    place = frames.alloc_contiguous(pages)
    if place == 0:
        refuse("no memory for its records")
        return
    status = saved_vm.save(machine, hva_of(place), length)
    if status == Status.OK:
        saved_vm.forget(machine)
        status = saved_vm.load(machine, hva_of(place), length)
    assert status == Status.OK, "what was just saved can be restored"
    frames.free_contiguous(place, pages)
    say(f"  {length} bytes of device state saved, overwritten and restored")
