/* One stub a vector, 16 bytes apart, and the frame that TRAP_HANDLER gets: an error code (0 where the CPU pushes none: Intel
   SDM vol. 3A 6.13), the vector, all general registers. For entry.S and the PV kernel's start.S, which say TRAP_VECTORS too. */

            .globl  trap_stubs
            .balign 16
trap_stubs: .set    vector, 0
            .rept   TRAP_VECTORS
            .balign 16
            /* exceptions that push an error code are the bits of 0x60227D00 */
            .if     vector >= 32 || !(0x60227D00 >> (vector & 31) & 1)
            push    $0
            .endif
            push    $vector
            jmp     trap_common
            .set    vector, vector + 1
            .endr
trap_common:
            .irp    register, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
            push    %\register
            .endr
            cld
            mov     %rsp, %rdi
            call    TRAP_HANDLER
            .irp    register, r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax
            pop     %\register
            .endr
            add     $16, %rsp
            iretq
