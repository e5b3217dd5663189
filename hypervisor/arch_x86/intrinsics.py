"""Instructions and raw memory: the only module with a C header behind it (intrinsics.h).

The compiler takes the signatures from here and the bodies from the header; under CPython each call goes to the
fake machine. Addresses are host-virtual (u64 or Hva). No function checks its arguments: a wrong one faults, and
the trap handler says where. Instruction names are those of the AMD64 APM vol. 3 and the Intel SDM vol. 2.
"""
from hypervisor.arch_x86.fake.machine import machine
from hypervisor.lang import u8, u16, u32, u64


# Ports

def inb(port: u16) -> u8:
    """Read 8 bits from an I/O port."""
    return machine.port_in(port, 1)


def outb(port: u16, value: u8) -> None:
    """Write 8 bits to an I/O port."""
    machine.port_out(port, 1, value)


def inw(port: u16) -> u16:
    """Read 16 bits from an I/O port."""
    return machine.port_in(port, 2)


def outw(port: u16, value: u16) -> None:
    """Write 16 bits to an I/O port."""
    machine.port_out(port, 2, value)


def inl(port: u16) -> u32:
    """Read 32 bits from an I/O port."""
    return machine.port_in(port, 4)


def outl(port: u16, value: u32) -> None:
    """Write 32 bits to an I/O port."""
    machine.port_out(port, 4, value)


# Model-specific, control and debug registers

def rdmsr(msr: u32) -> u64:
    """Read a model-specific register; #GP if the CPU has none of that number."""
    return machine.rdmsr(msr)


def wrmsr(msr: u32, value: u64) -> None:
    """Write a model-specific register; #GP if there is none, or a reserved bit is set."""
    machine.wrmsr(msr, value)


def read_cr0() -> u64:
    """CR0."""
    return machine.read_register("cr0")


def write_cr0(value: u64) -> None:
    """Set CR0."""
    machine.write_register("cr0", value)


def read_cr2() -> u64:
    """CR2."""
    return machine.read_register("cr2")


def write_cr2(value: u64) -> None:
    """Set CR2."""
    machine.write_register("cr2", value)


def read_cr3() -> u64:
    """CR3."""
    return machine.read_register("cr3")


def write_cr3(value: u64) -> None:
    """Set CR3."""
    machine.write_register("cr3", value)


def read_cr4() -> u64:
    """CR4."""
    return machine.read_register("cr4")


def write_cr4(value: u64) -> None:
    """Set CR4."""
    machine.write_register("cr4", value)


def read_dr0() -> u64:
    """DR0."""
    return machine.read_register("dr0")


def write_dr0(value: u64) -> None:
    """Set DR0."""
    machine.write_register("dr0", value)


def read_dr1() -> u64:
    """DR1."""
    return machine.read_register("dr1")


def write_dr1(value: u64) -> None:
    """Set DR1."""
    machine.write_register("dr1", value)


def read_dr2() -> u64:
    """DR2."""
    return machine.read_register("dr2")


def write_dr2(value: u64) -> None:
    """Set DR2."""
    machine.write_register("dr2", value)


def read_dr3() -> u64:
    """DR3."""
    return machine.read_register("dr3")


def write_dr3(value: u64) -> None:
    """Set DR3."""
    machine.write_register("dr3", value)


def read_dr6() -> u64:
    """DR6."""
    return machine.read_register("dr6")


def write_dr6(value: u64) -> None:
    """Set DR6."""
    machine.write_register("dr6", value)


def read_dr7() -> u64:
    """DR7."""
    return machine.read_register("dr7")


def write_dr7(value: u64) -> None:
    """Set DR7."""
    machine.write_register("dr7", value)


def xgetbv(index: u32) -> u64:
    """Read an extended control register (0: XCR0); needs CR4.OSXSAVE."""
    return machine.xgetbv(index)


def xsetbv(index: u32, value: u64) -> None:
    """Set an extended control register (0: XCR0); needs CR4.OSXSAVE."""
    machine.xsetbv(index, value)


def cpuid(leaf: u32, subleaf: u32, registers: u64) -> None:
    """CPUID; stores EAX, EBX, ECX, EDX as four u32 at the address `registers`."""
    machine.cpuid(leaf, subleaf, registers)


def lgdt(descriptor: u64) -> None:
    """Load GDTR from the 10-byte descriptor (limit u16, base u64) at this address."""
    machine.lgdt(descriptor)


def lidt(descriptor: u64) -> None:
    """Load IDTR from the 10-byte descriptor (limit u16, base u64) at this address."""
    machine.lidt(descriptor)


def ltr(selector: u16) -> None:
    """Load the task register; the descriptor becomes busy."""
    machine.ltr(selector)


# Execution

def cli() -> None:
    """Mask interrupts."""
    machine.cli()


def sti() -> None:
    """Take interrupts from the next instruction but one on."""
    machine.sti()


def interrupts_off() -> u64:
    """Mask interrupts; RFLAGS as it was, for interrupts_restore."""
    return machine.interrupts_off()


def interrupts_restore(flags: u64) -> None:
    """Mask or take interrupts as at the matching interrupts_off."""
    machine.interrupts_restore(flags)


def pause() -> None:
    """Say that this is a spin loop (every spin has one)."""
    machine.pause()


def halt_once() -> None:
    """STI, HLT, CLI: take pending interrupts, or sleep until one comes; masked again on return."""
    machine.halt_once()


def interrupt_window() -> None:
    """STI, NOP, CLI: take the interrupts that are pending now; masked again on return."""
    machine.interrupt_window()


def halt_forever() -> None:
    """CLI and HLT in a loop: does not return (an NMI is taken, then it halts again)."""
    machine.halt_forever()


def rdtsc() -> u64:
    """Time-stamp counter."""
    return machine.rdtsc()


def rdrand(place: u64) -> bool:
    """Store a random number of 64 bits at `place`; False: the CPU had none, try again."""
    store_u64(place, 0)
    return False


def invlpg(page: u64) -> None:
    """Drop this CPU's translation of the page at this address."""
    machine.invlpg(page)


def stac() -> None:
    """Set RFLAGS.AC: with SMAP, guests' memory may be touched (guest_pages.py); a CPU without SMAP does nothing."""
    machine.stac()


def clac() -> None:
    """Clear RFLAGS.AC: the end of what stac began. They do not nest."""
    machine.clac()


def wbinvd() -> None:
    """Write back and empty all caches."""
    machine.wbinvd()


def fninit() -> None:
    """x87 as after reset."""
    machine.fninit()


def xsave(area: u64, mask: u64) -> None:
    """XSAVE64 of the states in `mask` to a 64-byte aligned area; XCR0 must have been set."""
    machine.xsave(area, mask)


def xrstor(area: u64, mask: u64) -> None:
    """XRSTOR64 of the states in `mask`; #GP if the area is malformed. XCR0 must have been set."""
    machine.xrstor(area, mask)


def fxsave(area: u64) -> None:
    """FXSAVE64 to a 16-byte aligned area of 512 bytes, for CPUs without XSAVE."""
    machine.fxsave(area)


def fxrstor(area: u64) -> None:
    """FXRSTOR64 from a 16-byte aligned area of 512 bytes."""
    machine.fxrstor(area)


def rdpkru() -> u32:
    """Protection-key rights of user pages; needs CR4.PKE."""
    return machine.rdpkru()


def wrpkru(value: u32) -> None:
    """Set PKRU; needs CR4.PKE."""
    machine.wrpkru(value)


def frame_pointer() -> u64:
    """RBP of the caller: address of the saved RBP and, 8 bytes on, its return address."""
    return machine.frame_pointer()


def current_cpu() -> u64:
    """Address of the Cpu whose stack this is: cpu.this_cpu (arch_x86/stacks.py tells where it stands)."""
    return machine.current_cpu()


def magic_break() -> None:
    """XCHG BX, BX: Bochs stops here with magic_break on; elsewhere it does nothing."""
    machine.magic_break()


def raise_ud() -> None:
    """UD2: provoke #UD (debug images)."""
    machine.raise_ud()


def raise_nmi() -> None:
    """INT 2: provoke the NMI handler (debug images)."""
    machine.raise_nmi()


def overflow_stack() -> None:
    """Push until the guard page is hit: #PF that cannot be delivered, so #DF (debug images)."""
    machine.overflow_stack()


# Raw memory (volatile, any alignment; also MMIO)

def load_u8(place: u64) -> u8:
    """Read 8 bits."""
    return machine.load(place, 1)


def store_u8(place: u64, value: u8) -> None:
    """Write 8 bits."""
    machine.store(place, 1, value)


def load_u16(place: u64) -> u16:
    """Read 16 bits."""
    return machine.load(place, 2)


def store_u16(place: u64, value: u16) -> None:
    """Write 16 bits."""
    machine.store(place, 2, value)


def load_u32(place: u64) -> u32:
    """Read 32 bits."""
    return machine.load(place, 4)


def store_u32(place: u64, value: u32) -> None:
    """Write 32 bits."""
    machine.store(place, 4, value)


def load_u64(place: u64) -> u64:
    """Read 64 bits."""
    return machine.load(place, 8)


def store_u64(place: u64, value: u64) -> None:
    """Write 64 bits."""
    machine.store(place, 8, value)


def copy_memory(target: u64, source: u64, length: u64) -> None:
    """Copy bytes upward by MOVSQ, then MOVSB; may overlap only if target is below source."""
    machine.copy_memory(target, source, length)


def fill_memory(target: u64, value: u8, length: u64) -> None:
    """Fill bytes by STOSQ, then STOSB."""
    machine.fill_memory(target, value, length)


# Atomics (naturally aligned, sequentially consistent)

def atomic_load_u64(place: u64) -> u64:
    """Read."""
    return machine.load(place, 8)


def atomic_or_u64(place: u64, mask: u64) -> u64:
    """OR `mask` in; the old value."""
    return machine.update(place, 8, lambda old: old | mask)


def atomic_xchg_u64(place: u64, value: u64) -> u64:
    """Exchange; the old value."""
    return machine.update(place, 8, lambda old: value)


def atomic_add_u64(place: u64, value: u64) -> u64:
    """Add, mod 2^64; the old value."""
    return machine.update(place, 8, lambda old: old + value)


def compiler_barrier() -> None:
    """Keep the compiler from moving memory accesses across (x86 itself keeps stores in order)."""
    machine.compiler_barrier()


# Arithmetic

def bsr(bits: u32) -> u32:
    """Number of the highest bit set; there must be one."""
    return machine.bsr(bits)


def bsf(bits: u64) -> u64:
    """Number of the lowest bit set; there must be one."""
    return machine.bsf(bits)


def mul_shift(a: u64, b: u64, shift: u32) -> u64:
    """(a * b) >> shift by way of 128 bits, low 64 bits of the result; shift < 128."""
    return machine.mul_shift(a, b, shift)


# PV guests (guest_pv_drivers only)

def hypercall(svm: bool, number: u64, a: u64, b: u64, c: u64, d: u64) -> u64:
    """VMMCALL (svm) or VMCALL with RAX, RDI, RSI, RDX, R8 (hypervisor/abi.py); RAX afterwards."""
    return machine.hypercall(number, a, b, c, d)


def thread_switch(save_rsp: u64, rsp: u64) -> None:
    """Leave this stack, storing RSP at save_rsp, and go on where thread_switch was called on the other (start.S)."""
    machine.thread_switch(save_rsp, rsp)


def registers_exchange(frame: u64, spins: u64, svm: bool) -> None:
    """Load RAX, RCX, RDX, RBX, RBP, RSI, RDI, R8-R15 from the 15 words at frame, make that hypercall or, if spins is not 0,
    count it down, and store the registers there again (start.S)."""
    machine.registers_exchange(frame, spins)


# SVM (svm/enter.S)

def svm_enter(registers: u64, guest: u64, host: u64) -> None:
    """Run the guest of the VMCB at the physical address `guest` until #VMEXIT; general registers but RAX and RSP from and
    to the Registers at `registers`; `host` is the VMCB that VMSAVE filled with the host's state. Interrupts are masked."""
    machine.svm_enter(registers, guest, host)


def vmsave(vmcb: u64) -> None:
    """Store FS, GS, TR, LDTR and the SYSCALL and SYSENTER registers to the VMCB at this physical address."""
    machine.vmsave(vmcb)


# Probes (entry.S): a fault in them is not the end, only the answer


def probe_read(place: u64) -> bool:
    """Whether reading the byte at this address is allowed."""
    return machine.probe_read(place)


def probe_write(place: u64) -> bool:
    """Whether writing the byte at this address is allowed (it keeps its value)."""
    return machine.probe_write(place)


def probe_execute(place: u64) -> bool:
    """Whether executing at this address is allowed; a RET must stand there."""
    return machine.probe_execute(place)


# VT-x (vtx/enter.S)

def vmxon(region: u64) -> bool:
    """Enter VMX operation with the region at this physical address; False if the CPU refuses."""
    return machine.vmx.vmxon(region)


def vmclear(vmcs: u64) -> bool:
    """Write the VMCS at this physical address back to memory and make it clear; False if the CPU refuses."""
    return machine.vmx.vmclear(vmcs)


def vmptrld(vmcs: u64) -> bool:
    """Make the VMCS at this physical address the current one; False if the CPU refuses."""
    return machine.vmx.vmptrld(vmcs)


def vmread(field: u32) -> u64:
    """A field of the current VMCS; traps if there is no such field or no current VMCS."""
    return machine.vmx.vmread(field)


def vmwrite(field: u32, value: u64) -> None:
    """Set a field of the current VMCS; traps if there is no such field or no current VMCS."""
    machine.vmx.vmwrite(field, value)


def invept(kind: u64, pointer: u64, zero: u64) -> None:
    """Drop translations made through EPT: 1 those of this EPT pointer, 2 all (`zero` is the descriptor's high half)."""
    machine.vmx.invept(kind, pointer)


def invvpid(kind: u64, vpid: u64, linear: u64) -> None:
    """Drop a VPID's linear translations: 0 of one address, 1 all of this VPID, 2 of all VPIDs."""
    machine.vmx.invvpid(kind, vpid)


def read_cs() -> u16:
    """CS selector."""
    return machine.vmx.cs


def read_tr() -> u16:
    """TR selector."""
    return machine.vmx.tr


def sgdt(descriptor: u64) -> None:
    """Store GDTR as 10 bytes (limit u16, base u64) at this address."""
    machine.vmx.store_table(descriptor, "gdtr")


def sidt(descriptor: u64) -> None:
    """Store IDTR as 10 bytes (limit u16, base u64) at this address."""
    machine.vmx.store_table(descriptor, "idtr")


def vtx_enter(registers: u64, launched: bool) -> u64:
    """Run the guest of the current VMCS until it exits; general registers but RSP, and RIP, from and to the Registers at
    `registers`. Answers the exit reason; 0xFFFF: VMfailInvalid, 0xFFFE: VMfailValid."""
    return machine.vmx.enter(registers, launched)
