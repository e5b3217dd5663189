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
        mov     64(%rdi), %r8
        mov     72(%rdi), %r9
        mov     80(%rdi), %r10
        mov     88(%rdi), %r11
        mov     96(%rdi), %r12
        mov     104(%rdi), %r13
        mov     112(%rdi), %r14
        mov     120(%rdi), %r15
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
        mov     %r8, 64(%rdi)
        mov     %r9, 72(%rdi)
        mov     %r10, 80(%rdi)
        mov     %r11, 88(%rdi)
        mov     %r12, 96(%rdi)
        mov     %r13, 104(%rdi)
        mov     %r14, 112(%rdi)
        mov     %r15, 120(%rdi)
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
