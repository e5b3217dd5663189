"""What decides, beside RIP and memory, which instruction a vCPU runs and where its operand is: for comparison only."""
from hypervisor.lang import struct, u32, u64


@struct
class CodeKey:
    """Registers as VMCB or VMCS hold them."""

    cr0: u64
    cr3: u64
    cr4: u64
    efer: u64
    code_base: u64
    data_base: u64
    code_attributes: u32
