/*
 * The VT-x world switch: u64 vtx_enter(u64 registers, bool launched). Answers the exit reason; 0xFFFF: VMfailInvalid,
 * 0xFFFE: VMfailValid. SDM vol. 3C 31.2 (flags), 28.5 (host state at exit). Offsets: arch_x86/state.py, Registers.
 */
        .set    HOST_RSP, 0x6C14
        .set    GUEST_RIP, 0x681E
        .set    EXIT_REASON, 0x4402

        .text
        .global hypervisor_arch_x86_intrinsics__vtx_enter, vtx_exited
hypervisor_arch_x86_intrinsics__vtx_enter:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        push    %rdi
        mov     $HOST_RSP, %eax
        vmwrite %rsp, %rax
        mov     $GUEST_RIP, %eax
        vmwrite 128(%rdi), %rax
        test    %sil, %sil
        mov     (%rdi), %rax
        mov     8(%rdi), %rcx
        mov     16(%rdi), %rdx
        mov     24(%rdi), %rbx
        mov     40(%rdi), %rbp
        mov     48(%rdi), %rsi
        .irp n, 8, 9, 10, 11, 12, 13, 14, 15
        mov     8 * \n(%rdi), %r\n
        .endr
        mov     56(%rdi), %rdi
        jz      1f
        vmresume
        jmp     2f
1:      vmlaunch
2:      mov     $0xFFFE, %eax
        adc     $0, %eax
        pop     %rdi
        jmp     3f

vtx_exited:
        xchg    %rdi, (%rsp)
        mov     %rax, (%rdi)
        mov     %rcx, 8(%rdi)
        mov     %rdx, 16(%rdi)
        mov     %rbx, 24(%rdi)
        mov     %rbp, 40(%rdi)
        mov     %rsi, 48(%rdi)
        pop     56(%rdi)
        .irp n, 8, 9, 10, 11, 12, 13, 14, 15
        mov     %r\n, 8 * \n(%rdi)
        .endr
        mov     $GUEST_RIP, %eax
        vmread  %rax, 128(%rdi)
        mov     $EXIT_REASON, %eax
        vmread  %rax, %rax
3:      pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret

        .section .note.GNU-stack, "", @progbits
