# Where exceptions and host interrupts arrive: one stub a vector, 16 bytes apart, and the frame that traps.py reads.

            .text
            .globl  trap_stubs, probe_start, probe_end, probe_failed
            .balign 16
trap_stubs: .set    vector, 0
            .rept   0x50                        # idt.VECTORS
            .balign 16                          # exceptions that push an error code: the bits of 0x60227D00
            .if     vector >= 32 || !(0x60227D00 >> (vector & 31) & 1)
            push    $0
            .endif
            push    $vector
            jmp     trap_common
            .set    vector, vector + 1
            .endr

trap_common:
            .irp    register, r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax
            push    %\register
            .endr
            cld
            mov     %rsp, %rdi
            call    hypervisor_arch_x86_traps__trap
            .irp    register, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
            pop     %\register
            .endr
            add     $16, %rsp                   # vector, error code
            iretq

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
