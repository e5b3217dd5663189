"""A machine's memory for tests: fake physical frames under the real ledger, VMs and vCPUs. No guest code runs."""
from __future__ import annotations

from hypervisor import clock, timers
from hypervisor.addresses import PAGE_SIZE, Gpa, Hfn, Hva
from hypervisor.arch_x86 import lapic
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.arch_x86.svm import nested_format as npt
from hypervisor.arch_x86.vtx import nested_format as ept
from hypervisor.cpu import cpus
from hypervisor.lang import clear, map_memory, unmap_memory
from hypervisor.memory import frames, guest_memory, holes, ledger, ledger_check, nested, nested_walk
from hypervisor.memory.ledger import ENTRY_BYTES, Kind
from hypervisor.model import Vcpu, VcpuState, Vm, VmState
from hypervisor.paging import pressure
from hypervisor.sched import eevdf, policy, run_queue
from hypervisor.sched.cpus import host
from hypervisor.sched.quantum import QUANTUM_NS
from hypervisor.status import Status

FIRST_FRAME = 0x100  # the fake machine's RAM begins at 1 MiB
LEDGER_BASE = 0x70_0000_0000
TSC_KHZ = 1_000_000  # one tick is one nanosecond


class World:
    """Frames [FIRST_FRAME, FIRST_FRAME + count), all free; VMs made by `vm`. `close` when done."""

    def __init__(self, count: int, limit_frames: int = 0, intel: bool = False, first: int = FIRST_FRAME,
                 ledger_base: int = LEDGER_BASE) -> None:
        self.count, self.first, self.ledger_base = count, first, ledger_base
        self.vcpus: list[Vcpu] = []  # the addresses of the structs stand in others: something must hold them
        machine.reset()
        lapic.lapic.tsc_deadline = True
        machine.msrs[lapic.IA32_TSC_DEADLINE] = 0
        clock.init(TSC_KHZ)
        timers.init(cpus[0])
        clear(host)
        policy.start(QUANTUM_NS, 1)
        for part in (nested_walk.spaces, pressure.state, ledger.book, frames.pool, guest_memory.random_wait, run_queue.queue, policy.current, eevdf.state,
                     cpus[0], nested_walk.entry_format, holes.ones):
            clear(part)
        self.ram = bytearray(b"\xa5" * (count * PAGE_SIZE))
        self.entries = bytearray((first + count) * ENTRY_BYTES)
        map_memory(first * PAGE_SIZE, self.ram)
        map_memory(ledger_base, self.entries)
        (ept if intel else npt).fill()
        ledger.start(Hva(ledger_base), first + count)
        for hfn in reversed(range(first, first + count)):
            ledger.add(Hfn(hfn), Kind.FREE)
        frames.set_limit(limit_frames * PAGE_SIZE)
        self.vms: list[Vm] = []

    def close(self) -> None:
        unmap_memory(self.first * PAGE_SIZE)
        unmap_memory(self.ledger_base)

    def vm(self, pages: int, weight: int = 1, vcpus: int = 1) -> Vm:
        """A running VM with nested tables."""
        made = Vm()
        made.id = len(self.vms) + 1
        made.memory_bytes = pages * PAGE_SIZE
        made.weight = weight
        made.state = VmState.RUNNING
        assert nested.create(made) == Status.OK
        for index in range(vcpus):
            vcpu = Vcpu()
            vcpu.vm = made
            vcpu.index = index
            vcpu.weight = weight
            vcpu.state = VcpuState.RUNNABLE
            vcpu.info_valid = True
            made.vcpus[index] = vcpu
            self.vcpus.append(vcpu)
        made.vcpu_count = vcpus
        self.vms.append(made)
        return made

    def bytes_of(self, vm: Vm, gfn: int) -> bytes | None:
        """What the guest sees in a page; None: not backed."""
        place = guest_memory.host_address(vm, Gpa(gfn * PAGE_SIZE))
        if place == 0:
            return None
        offset = place - self.first * PAGE_SIZE
        return bytes(self.ram[offset:offset + PAGE_SIZE])

    def check(self) -> None:
        """The ledger holds, whole and in steps; frames are conserved."""
        assert ledger_check.check() == 0
        assert sum(ledger.book.counts) == self.first + self.count


def vcpu_of(vm: Vm, index: int = 0) -> Vcpu:
    vcpu = vm.vcpus[index]
    assert vcpu is not None
    return vcpu
