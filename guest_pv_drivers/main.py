"""A small PV kernel: it starts, runs the workload that its command line names, and ends this VM with the workload's result.

To add a workload: one file with one function (-> exit code) in workloads/, one line in NAMES and in WORKLOADS here.
"""
from typing import Annotated, Final

from guest_pv_drivers import (command_line, console, events, hypercall, idt, interrupts, memory, memory_pressure, start_info, threads,
                              vcpus)
from guest_pv_drivers.workloads.all_vcpus import count_job, enable_job, ipi_storm, ring_job, spin_all, take_job
from guest_pv_drivers.workloads.apic_storm import apic_storm
from guest_pv_drivers.workloads.bad_hypercalls import bad_hypercalls
from guest_pv_drivers.workloads.bench_exits import bench_exits
from guest_pv_drivers.workloads.disk import disk, disk_bench
from guest_pv_drivers.workloads.disk_fuzz import disk_fuzz
from guest_pv_drivers.workloads.echo import echo
from guest_pv_drivers.workloads.escape import escape
from guest_pv_drivers.workloads.hello import hello
from guest_pv_drivers.workloads.idle import idle
from guest_pv_drivers.workloads.isolation import memory_peek, memory_write
from guest_pv_drivers.workloads.misbehave import beyond, crash, exception, triple_fault
from guest_pv_drivers.workloads.populate import populate
from guest_pv_drivers.workloads.preemption import counter, preemption
from guest_pv_drivers.workloads.reboot import reboot
from guest_pv_drivers.workloads.registers import registers
from guest_pv_drivers.workloads.spin import spin
from guest_pv_drivers.workloads.stress import job, stress
from guest_pv_drivers.workloads.ticks import ticks
from guest_pv_drivers.workloads.trade import trade
from hypervisor.lang import u32, u64

WORKLOAD_COUNT: Final = 27
NAMES: Final[Annotated[list[str], WORKLOAD_COUNT]] = [
    "hello", "echo", "spin", "idle", "preemption", "registers", "memory-write", "memory-peek", "trade", "populate",
    "beyond", "triple-fault", "exception", "crash", "bad-hypercalls", "escape", "bench-exits", "reboot", "ticks",
    "disk", "disk-bench", "disk-fuzz", "apic-storm", "job", "stress", "spin-all", "ipi-storm"]
WORKLOADS: Final = (
    hello, echo, spin, idle, preemption, registers, memory_write, memory_peek, trade, populate,
    beyond, triple_fault, exception, crash, bad_hypercalls, escape, bench_exits, reboot, ticks,
    disk, disk_bench, disk_fuzz, apic_storm, job, stress, spin_all, ipi_storm)

THREAD_MEMORY_PRESSURE: Final = 0
THREADS: Final = (memory_pressure.serve, counter)
JOBS: Final = (count_job, enable_job, ring_job, take_job)

EXIT_BAD_COMMAND_LINE: Final = 2


def main(start_info_gpa: u64, vcpu: u32) -> None:
    """Called by start.S on each vCPU; does not return."""
    if vcpu != 0:
        work(vcpu)
    if not start_info.init(start_info_gpa):
        return
    hypercall.init(start_info.get().svm != 0)
    idt.init()
    memory.init()
    threads.init()
    events.init(0)
    threads.create(THREAD_MEMORY_PRESSURE, 0)
    threads.sleep_ms(command_line.number("delay", 0))
    hypercall.power_off(run_workload())


def run_workload() -> u32:
    """Run what the command line names; its exit code."""
    for i in range(WORKLOAD_COUNT):
        if command_line.has_value("workload", NAMES[i]):
            return WORKLOADS[i]()
    console.say(f"no such workload on the command line: {command_line.text()}")
    return EXIT_BAD_COMMAND_LINE


def work(vcpu: u32) -> None:
    """What the other vCPUs do."""
    vcpus.init(vcpu)
    while True:
        number = vcpus.next_job(vcpu)
        vcpus.finish(vcpu, JOBS[number](vcpu))


def thread(entry: u64, argument: u64) -> None:
    """Called by start.S on a new thread's stack."""
    THREADS[entry](argument)
    threads.end()
