"""What happens when the last VM has ended: the bundle may ask that the machine ends with the result."""
from hypervisor import path_lengths, vm
from hypervisor.abi import EXIT_GUEST_FAILED, EXIT_OK, EXIT_PANIC
from hypervisor.arch_x86 import machine_exit, serial
from hypervisor.build_options import MEASURE_PATHS
from hypervisor.console import say
from hypervisor.lang import u32
from hypervisor.memory import ledger_check
from hypervisor.model import Cpu, Vm, VmState


def check(cpu: Cpu) -> None:
    """If no VM lives and the bundle says so: print the results, check the ledger, end the machine."""
    if vm.table.alive != 0 or not vm.table.end_auto:
        return
    serial.flush()  # its ring does not hold the results of a thousand VMs
    failed: u32 = 0
    for ended in vm.table.vms:
        if ended is not None:
            report(ended)
            if ended.state == VmState.CRASHED or ended.exit_code != 0:
                failed += 1
    if MEASURE_PATHS:
        path_lengths.report()
    if ledger_check.check() != 0:
        machine_exit.leave(EXIT_PANIC)
    machine_exit.leave(EXIT_OK if failed == 0 else EXIT_GUEST_FAILED)


def report(ended: Vm) -> None:
    """One line for one VM."""
    if ended.state == VmState.CRASHED:
        say(f"result: vm '{vm.name(ended)}' crashed")
    else:
        say(f"result: vm '{vm.name(ended)}' ended with code {ended.exit_code}")
