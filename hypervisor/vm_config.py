"""From the bundle's configuration to VMs that run. Nothing in it is trusted: what is wrong is refused by name."""
from typing import Final

from hypervisor import bundle, disk_config, guest_console, log, phase, text, vm
from hypervisor.abi import (ABI_VERSION, BUNDLE_ATTACH, BUNDLE_CONFIG_MEMBER, BUNDLE_END_AUTO, BUNDLE_MAGIC, MODULE_TEXT_BYTES,
                            VM_KIND_LINUX, VM_KIND_MULTIBOOT, VM_KIND_PV, VM_VIRTIO_CONSOLE, BundleHeader, VmConfig)
from hypervisor.addresses import PAGE_MASK, Hva, hva_of
from hypervisor.arch_x86.intrinsics import load_u8
from hypervisor.bundle import Member
from hypervisor.cpu import owe
from hypervisor.lang import address, at, char_at, copy, offsetof, sizeof, text_at, u32, u64
from hypervisor.loaders import elf64, linux64, multiboot, pv_elf, pvh
from hypervisor.memory import frames, guest_memory
from hypervisor.model import MAX_CPUS, MAX_VCPUS_PER_VM, MAX_VMS, NAME_BYTES, WORK_REAP, Vm, VmState
from hypervisor.sched import cpus, limits, policy
from hypervisor.status import Status
from hypervisor.virtio import devices

FILE_NAME_BYTES: Final = 64
CMDLINE_BYTES: Final = 1024
MEMORY_LEAST: Final[u64] = 1 << 20
MEMORY_LEAST_PV: Final[u64] = 256 << 10
SHOWN_MOST: Final = 32  # VMs that have a line at boot: each takes some milliseconds
MEMORY_MOST: Final[u64] = 3 << 30

config: Final = VmConfig()  # the copy that is checked and used
header: Final = BundleHeader()


def load() -> Status:
    """Make, load and start all VMs. BAD_ARGUMENT, after a line that says why; a VM that cannot be made is said and left out."""
    member = Member()
    if bundle.find(BUNDLE_CONFIG_MEMBER, member) != Status.OK:
        return refuse("the bundle has no krait.config")
    if member.size < sizeof(BundleHeader):
        return refuse("krait.config is cut off")
    copy(header, at(BundleHeader, hva_of(member.hpa)))
    if header.magic != BUNDLE_MAGIC:
        return refuse("krait.config has no magic number")
    if header.version != ABI_VERSION or header.vm_config_size != sizeof(VmConfig):
        return refuse("krait.config is of another version")
    if header.flags & ~(BUNDLE_END_AUTO | BUNDLE_ATTACH) != 0:
        return refuse("krait.config has flags that are not known")
    if header.vm_count == 0 or header.vm_count > MAX_VMS:
        return refuse("krait.config has no VM, or too many")
    if member.size < sizeof(BundleHeader) + u64(header.vm_count) * sizeof(VmConfig):
        return refuse("krait.config is cut off")
    vm.table.end_auto = header.flags & BUNDLE_END_AUTO != 0
    vm.table.attach = header.flags & BUNDLE_ATTACH != 0
    frames.set_limit(header.memory_limit)
    for i in range(header.vm_count):
        read(member, u32(i))
        make(u32(i), False)
    return start_all()


def create_again(name: str, called: str) -> Status:
    """Make a VM from the bundle's configuration `name`, called `called`, and load it piece by piece (load_some); it starts when it
    is loaded. NOT_FOUND; BUSY: another one is being loaded; BAD_ARGUMENT: refused, and said why."""
    member = Member()
    if bundle.find(BUNDLE_CONFIG_MEMBER, member) != Status.OK:
        return Status.NOT_FOUND
    if guest_memory.loading.vm is not None:
        return Status.BUSY
    for i in range(header.vm_count):
        place: u64 = hva_of(member.hpa) + sizeof(BundleHeader) + i * sizeof(VmConfig) + offsetof(VmConfig, "name")
        if is_named(place, name):
            read(member, u32(i))
            for at_byte in range(NAME_BYTES):
                config.name[at_byte] = 0
            length: u32 = 0
            while char_at(called, length) != 0 and length < NAME_BYTES - 1:
                config.name[length] = char_at(called, length)
                length += 1
            return make_slowly(u32(i))
    return Status.NOT_FOUND


def is_named(place: u64, name: str) -> bool:
    """Whether the NAME_BYTES at this address are that name."""
    for i in range(NAME_BYTES):
        if load_u8(place + i) != char_at(name, i):
            return False
        if char_at(name, i) == 0:
            return True
    return False


def make_slowly(index: u32) -> Status:
    """One VM from `config`, its kernel to be copied by load_some."""
    vm.table.newest = None
    guest_memory.loading.vm = None
    made = make(index, True)
    if made is None:
        guest_memory.stop_loading()
        return Status.BAD_ARGUMENT
    owe(WORK_REAP)
    return Status.OK


def load_some() -> bool:
    """Copy a piece of the kernel of the VM that is being made or made again, and let it run once it is loaded; True: none is."""
    made = guest_memory.loading.vm
    if made is None:
        return True
    if made.state != VmState.PAUSED:  # it was stopped meanwhile
        guest_memory.stop_loading()
        return True
    status = guest_memory.load_some()
    if status == Status.BUSY or status == Status.OK and made.kind == VM_KIND_PV and not pv_elf.set_some(made):
        return False
    guest_memory.stop_loading()
    if status != Status.OK:
        refuse("there is no memory for its kernel")
        made.state = VmState.CRASHED
        vm.stopped(made)
    else:
        vm.start(made)
    return True


def read(member: Member, index: u32) -> None:
    """The bundle's configuration `index` into `config`, its texts ended."""
    copy(config, at(VmConfig, Hva(hva_of(member.hpa) + sizeof(BundleHeader) + index * sizeof(VmConfig))))
    config.name[NAME_BYTES - 1] = 0
    config.kernel[FILE_NAME_BYTES - 1] = 0
    config.initrd[FILE_NAME_BYTES - 1] = 0
    config.cmdline[CMDLINE_BYTES - 1] = 0
    for module in config.modules:
        module.file[FILE_NAME_BYTES - 1] = 0
        module.text[MODULE_TEXT_BYTES - 1] = 0


def make(index: u32, slowly: bool) -> Vm | None:
    """One VM from `config`, which is the bundle's `index`; None: it is refused, and that is said. `slowly`: its kernel is copied by
    load_some."""
    if not name_is_printable():
        config.name[0] = 0  # it is not to be said either
        refuse("the name of a VM is empty or has bytes that cannot be printed")
        return None
    problem = first_problem()
    if char_at(problem, 0) != 0:
        refuse(problem)
        return None
    status = vm.create(config)
    if status != Status.OK:
        refuse("not enough memory, or too many VMs or vCPUs")
        return None
    made = vm.table.newest
    assert made is not None
    made.config_index = index
    if slowly:
        guest_memory.start_loading(made)
    if not finish(made):
        made.destroy = slowly
        vm.stopped(made)
        return None
    return made


def finish(made: Vm) -> bool:
    """Disks and kernel of a VM just made; False, and said why: it cannot have them."""
    problem = disk_config.attach(made)
    if char_at(problem, 0) != 0:
        refuse(problem)
        return False
    if devices.add_disks(made) != Status.OK:
        refuse("not enough memory for its disks' devices")
        return False
    status = load_kernel(made)
    if status != Status.OK:
        refuse("its kernel cannot be loaded: missing, damaged, or too large for the VM's memory")
        return False
    return True


def boot_again(made: Vm) -> None:
    """A VM that has reset itself and was emptied (vm.table.emptied): its vCPUs, devices and memory as at its first start.

    Its kernel is copied by load_some. One that cannot have memory for that now is stopped.
    """
    member = Member()
    status = bundle.find(BUNDLE_CONFIG_MEMBER, member)
    if status == Status.OK:
        read(member, made.config_index)
        status = vm.create_parts(made)
        guest_memory.start_loading(made)
    if status == Status.OK:
        status = devices.add_disks(made)
    if status == Status.OK:
        status = load_kernel(made)
    if status != Status.OK:
        refuse("it cannot be started again: no memory for its kernel")
        guest_memory.stop_loading()
        made.state = VmState.CRASHED
        vm.stopped(made)


def name_is_printable() -> bool:
    """Whether the name can be shown on a terminal: it stands before each line of the guest."""
    length: u32 = 0
    while config.name[length] != 0:
        if not guest_console.is_printable(config.name[length]):
            return False
        length += 1
    return length != 0


def first_problem() -> str:
    """What is wrong with `config`; empty: nothing."""
    if config.kind not in (VM_KIND_PV, VM_KIND_LINUX, VM_KIND_MULTIBOOT):
        return "it is of a kind that is not known"
    if config.flags & ~VM_VIRTIO_CONSOLE != 0 or config.flags != 0 and config.kind == VM_KIND_PV:
        return "it has flags that are not known"
    if config.weight < policy.WEIGHT_MIN or config.weight > policy.WEIGHT_MAX:
        return "its weight is out of range"
    if config.vcpu_count == 0 or config.vcpu_count > MAX_VCPUS_PER_VM:
        return "its number of vCPUs is out of range"
    least: u64 = MEMORY_LEAST_PV if config.kind == VM_KIND_PV else MEMORY_LEAST
    if config.memory_bytes < least or config.memory_bytes > MEMORY_MOST or config.memory_bytes & PAGE_MASK != 0:
        return "its memory size is out of range"
    if config.cap_percent != 0 and (config.cap_period_ms < limits.PERIOD_LEAST_MS or config.cap_period_ms > limits.PERIOD_MOST_MS):
        return "the period of its cap is out of range"
    if config.cap_percent >> 16 != 0 or config.reserved_percent >> 16 != 0:
        return "its cap or its reservation is out of range"
    wanted = Vm()
    wanted.vcpu_count = config.vcpu_count
    wanted.cpus = config.cpus
    wanted.reserved = config.reserved_percent
    for i in range(MAX_VCPUS_PER_VM):
        pinned: u32 = config.pins[i]
        if pinned != 0:
            why = limits.pin_problem(wanted, i, cpus.bit(pinned - 1) if pinned <= MAX_CPUS else 0)
            if char_at(why, 0) != 0:
                return why
    return limits.problem(vm.table.vms, wanted, config.cap_percent, config.reserved_percent, config.cpus)


def load_kernel(made: Vm) -> Status:
    """By the loader of its kind."""
    kernel = Member()
    status = bundle.find_bytes(address(config.kernel), FILE_NAME_BYTES, kernel)
    if status != Status.OK:
        return status
    if made.kind == VM_KIND_PV:
        return pv_elf.load(made, config, hva_of(kernel.hpa), kernel.size)
    if made.kind == VM_KIND_MULTIBOOT:
        return multiboot.load(made, config, kernel)
    initrd = Member()
    if config.initrd[0] != 0:
        status = bundle.find_bytes(address(config.initrd), FILE_NAME_BYTES, initrd)
        if status != Status.OK:
            return status
    if elf64.is_elf(hva_of(kernel.hpa), kernel.size):
        return pvh.load(made, config, kernel, initrd)
    return linux64.load(made, config, kernel, initrd)


def start_all() -> Status:
    """Let them run, all from the same moment on: lines take milliseconds, so they come before."""
    for made in vm.table.vms:
        if made is not None and made.state == VmState.PAUSED and made.id < SHOWN_MOST:
            unit = text.size_unit(made.memory_bytes)
            phase.found(f"vm {made.id}", f"{vm.name(made)}: {text.size(made.memory_bytes)} {unit}, {made.vcpu_count} vCPU, weight {made.weight}")
    if vm.table.count > SHOWN_MOST:
        phase.found("vms", f"{vm.table.count - SHOWN_MOST} more, which `list` shows")
    for made in vm.table.vms:
        if made is not None and made.state == VmState.PAUSED:
            vm.start(made)
    return Status.OK


def refuse(why: str) -> Status:
    """Say it."""
    if config.name[0] != 0:
        log.warning(f"vm '{text_at(address(config.name))}' refused: {why}")
    else:
        log.warning(f"configuration refused: {why}")
    return Status.BAD_ARGUMENT
