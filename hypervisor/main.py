"""Krait starts here: bring-up in named phases, each one line on the console, then the run loop."""
from hypervisor import (boot_info, boot_options, bundle, clock, clock_commands, disk_config, entropy, operator, phase, run_loop, smp,
                        timers, vm, vm_config)
from hypervisor.abi import EXIT_NO_VIRTUALIZATION
from hypervisor.arch_x86 import (acpi, backend, cpu_features, guest_pages, host_interrupts, hpet, idt, ioapic, lapic, memory_types, paging, self_test,
                                 serial, tsc)
from hypervisor.block import gpt, host_disk
from hypervisor.block.model import disks
from hypervisor.boot_info import info
from hypervisor.build_options import DEBUG
from hypervisor.channel import link
from hypervisor.console import say
from hypervisor.cpu import cpus, online
from hypervisor.drivers import discover
from hypervisor.lang import address, char_at, text_at, u32, u64
from hypervisor.memory import frames, guest_memory
from hypervisor.sched import policy
from hypervisor.sched.quantum import QUANTUM_NS
from hypervisor.status import Status
from hypervisor.virtio import block_device


def main(magic: u32, loader_info: u64) -> None:
    """Called by boot.S on the boot CPU, in long mode, interrupts off. Does not return."""
    clock.start()
    online.count = 1
    start_console()  # so that everything after can say what is wrong
    start_exceptions()  # so that our own faults are decoded
    check_cpu()
    start_clock()  # so that what follows is timed
    read_boot_info(magic, loader_info)  # before anything can overwrite the loader's tables
    read_acpi()
    protect_memory()  # final rights of every page
    start_interrupts()
    open_bundle()
    find_frames()  # from here memory can be taken
    test_protections()
    find_virtualization()
    find_disks()  # needs frames for their queues
    start_cpus()
    start_guests()
    run_loop.run(cpus[0])


def start_console() -> None:
    """COM1, polled until interrupts run."""
    serial.init()
    say("")
    say("Krait, a paravirtualized micro-hypervisor in typed Python")
    phase.found("console", "COM1 at 0x3f8, 115200 8N1")


def start_exceptions() -> None:
    """GDT, TSS, IDT."""
    idt.init()
    phase.found("exceptions", "decoded; NMI, #DF and #MC on stacks of their own")


def read_boot_info(magic: u32, loader_info: u64) -> None:
    """Memory map, module, command line, RSDP."""
    status = boot_info.init(magic, loader_info)
    phase.require(status == Status.OK, "loader", f"neither PVH nor Multiboot 2, or damaged (magic {magic:#x})")
    loader = "PVH" if info.loader == boot_info.Loader.PVH else "Multiboot 2"
    phase.found("loader", f"{loader}, command line \"{text_at(address(info.cmdline))}\"")
    usable: u32 = 0
    for i in range(info.range_count):
        if info.ranges[i].usable:
            usable += 1
    phase.found("memory", f"{boot_info.usable_bytes() >> 20} MiB usable in {usable} of {info.range_count} ranges")


def check_cpu() -> None:
    """Features; what is missing is refused by name."""
    cpu_features.init()
    missing = cpu_features.first_missing()
    phase.require(char_at(missing, 0) == 0, "cpu", f"lacks {missing}, which Krait needs")
    phase.found("cpu", f"{text_at(address(cpu_features.features.brand))}")


def start_clock() -> None:
    """The TSC's rate, measured, with the local APIC timer's."""
    lapic.init()
    cpus[0].apic_id = lapic.apic_id()
    tsc.measure()
    khz = tsc.rates.tsc_khz
    phase.require(khz >= 1000, "clock", "the PIT does not count: the TSC's rate cannot be measured")
    clock.init(khz)
    policy.start(clock.ticks_of(QUANTUM_NS), 1)
    phase.found("clock", f"TSC {khz} kHz, local APIC timer {tsc.rates.apic_khz} kHz")


def read_acpi() -> None:
    """Interrupt routing; a machine without tables gets the PC's defaults."""
    acpi.init()
    hpet.init()
    clock_commands.begin()
    source = "ACPI tables" if acpi.acpi.madt != 0 else "no ACPI tables: a PC's defaults"
    clocks = "HPET" if hpet.is_there() else "no HPET"
    phase.found("platform", f"{source}, I/O APIC at {acpi.acpi.ioapic_base:#x}, {clocks}")


def protect_memory() -> None:
    """Final page tables."""
    status = paging.init()
    phase.require(status == Status.OK, "paging", "more memory than there are page tables for (no 1 GiB pages?)")
    phase.found("paging", f"{paging.paging.end >> 20} MiB mapped, W^X, by {paging.paging.used} tables")
    memory_types.init()
    slow = memory_types.first_slow_place()
    if slow != 0:
        phase.found("caches", f"the firmware's MTRRs forbid write-back at {slow:#x}: what uses that memory is slow")


def start_interrupts() -> None:
    """I/O APIC and timer; from here console output is drained by interrupts."""
    inputs = ioapic.init()
    routed = ioapic.route_isa(serial.COM1_IRQ, host_interrupts.SERIAL_VECTOR)
    phase.require(routed, "interrupts", "COM1's interrupt arrives nowhere")
    lapic.start_timer(tsc.rates.apic_khz)
    timers.init(cpus[0])
    kind = "x2APIC" if lapic.lapic.x2apic else "xAPIC"
    timer = "TSC deadline" if lapic.lapic.tsc_deadline else "one-shot"
    phase.found("interrupts", f"{kind} {cpus[0].apic_id}, {timer} timer, I/O APIC with {inputs} inputs")
    serial.start_interrupts()
    if link.start(ioapic.route_isa(serial.COM2_IRQ, host_interrupts.SERIAL_VECTOR)):
        phase.found("channel", "COM2 at 0x2f8, frames of version 1")


def open_bundle() -> None:
    """Guests and their configuration."""
    phase.require(info.bundle_size != 0, "bundle", "none: give one as -initrd (QEMU) or module2 (GRUB)")
    status = bundle.init(info.bundle_hpa, info.bundle_size)
    phase.require(status == Status.OK, "bundle", "damaged, or not a newc cpio archive")
    phase.found("bundle", f"{bundle.bundle.members} files, {info.bundle_size >> 10} KiB at {info.bundle_hpa:#x}")


def find_frames() -> None:
    """The ledger: one entry a frame."""
    phase.require(frames.init() == Status.OK, "frames", "no usable range has room for the ledger and the page tables")
    phase.found("frames", f"{frames.total()} of 4 KiB, {frames.free_count() >> 8} MiB free")
    tables = guest_pages.pages.tables
    if tables == 0:
        phase.found("windows", "the CPU has no SMAP: guests' memory is not kept apart")
    else:
        phase.found("windows", f"guests' memory is kept apart by {tables} tables, touched between STAC and CLAC only")


def test_protections() -> None:
    """Debug images: what is forbidden is tried."""
    if DEBUG:
        failure = self_test.first_failure()
        phase.require(char_at(failure, 0) == 0, "self-test", f"it does not hold that {failure}")
        smep = ", SMEP" if cpu_features.features.smep else ""
        smap = ", SMAP and windows" if cpu_features.features.smap else ""
        umip = ", UMIP" if cpu_features.features.umip else ""
        phase.found("self-test", f"W^X, NX, read-only tables, null and guard pages{smep}{smap}{umip} hold")


def find_virtualization() -> None:
    """VT-x or SVM, or one clear line and the end."""
    status = backend.detect()
    if status == Status.NOT_FOUND:
        phase.refuse("virtual", "this machine has no hardware virtualization (neither SVM nor VT-x)", EXIT_NO_VIRTUALIZATION)
    if status != Status.OK:
        phase.refuse("virtual", "this machine's hardware virtualization lacks what is named above", EXIT_NO_VIRTUALIZATION)
    phase.require(backend.init_cpu(cpus[0]) == Status.OK, "virtual", "it cannot be switched on")


def find_disks() -> None:
    """The machine's disks and their partitions; a line for each."""
    discover.find_all()
    disk_config.load_ram_disks()
    for i in range(disks.host_count):
        host = disks.host[i]
        gpt.read_table(host)
        table = gpt.STATE_NAMES[host.table]
        phase.found(f"disk {host_disk.name(host)}", f"{host.sectors >> 11} MiB, serial \"{text_at(address(host.serial))}\"{table}")


def start_cpus() -> None:
    """The other CPUs; they wait until guests run. From here the lock is held."""
    smp.start_all()


def start_guests() -> None:
    """The VMs of the bundle; then the operator's prompt, unless the machine is to end with them."""
    entropy.init()
    phase.require(block_device.init() == Status.OK, "guests", "no memory")
    if DEBUG:
        guest_memory.start_random_waits(boot_options.number("pin-seed", 0))  # every handler is run again now and then
    phase.require(vm_config.load() == Status.OK, "guests", "none can be started")
    phase.found("guests", f"{vm.table.count} started, policy {policy.POLICY_NAMES[policy.current.policy]}")
    if vm.table.attach or not vm.table.end_auto:
        operator.start()
