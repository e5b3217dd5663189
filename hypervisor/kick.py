"""Making another CPU look: work is owed to it, and an interrupt ends its guest's run or its sleep.

Called with the lock held. The CPU sees the work before it enters a guest again; nobody waits for it to do so. How soon that
is: at once, but for a guest with interrupts off on Bochs, which the VMX-preemption timer ends within a millisecond.
"""
from hypervisor.arch_x86 import host_interrupts, lapic
from hypervisor.cpu import cpus, online, this_cpu
from hypervisor.lang import address, u32
from hypervisor.model import WORK_INJECT, WORK_TLB, Cpu, Vcpu, Vm


def owe_to(cpu: Cpu, work: u32) -> None:
    """Let a CPU, this one or another, do WORK_* before its next VM entry."""
    if cpu.work & work == work:
        return  # whoever owed it that has sent the interrupt
    cpu.work |= work
    if address(cpu) != address(this_cpu()):
        lapic.send(cpu.apic_id, host_interrupts.KICK_VECTOR)


def owe_to_its(vcpu: Vcpu, work: u32) -> None:
    """The same for the CPU on which a vCPU runs; nothing if it runs nowhere."""
    cpu = vcpu.cpu
    if vcpu.on_cpu and cpu is not None:
        owe_to(cpu, work)


def kick(vcpu: Vcpu) -> None:
    """An event or interrupt of this vCPU may have become deliverable: if it runs, let inject.deliver look."""
    owe_to_its(vcpu, WORK_INJECT)


def flush(vm: Vm) -> None:
    """What this VM's vCPUs have in their TLBs may be used no more: those that run are flushed before they enter again."""
    for i in range(online.count):
        running = cpus[i].vcpu
        if running is not None:
            owner = running.vm
            if owner is not None and address(owner) == address(vm):
                owe_to(cpus[i], WORK_TLB)
