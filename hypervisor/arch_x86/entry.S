# Where exceptions and host interrupts arrive, and the probes that may fault.

            .text
            .globl  probe_start, probe_end, probe_failed
#define TRAP_VECTORS 0x50                       /* idt.VECTORS */
#define TRAP_HANDLER hypervisor_arch_x86_traps__trap
#include "hypervisor/arch_x86/trap_stubs.h"

# bool probe_KIND(address): whether the access is allowed. A fault between the labels resumes at probe_failed (traps.py).
            .irp    kind, read, write, execute
            .globl  hypervisor_arch_x86_intrinsics__probe_\kind
            .endr
probe_start:
hypervisor_arch_x86_intrinsics__probe_read:
            mov     (%rdi), %al
            jmp     1f
hypervisor_arch_x86_intrinsics__probe_write:
            lock orb $0, (%rdi)
            jmp     1f
hypervisor_arch_x86_intrinsics__probe_execute:
            call    *%rdi                       # must point at a RET if it is executable
1:          mov     $1, %eax
            ret
probe_end:
probe_failed:
            xor     %eax, %eax
            ret

            .section .note.GNU-stack, "", @progbits
