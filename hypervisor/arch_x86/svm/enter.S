/* World switch of SVM (AMD APM vol. 2 rev. 3.42, 15.5). Offsets are those of arch_x86/state.py, Registers.
 *
 * svm_enter: RDI Registers, RAX guest VMCB, RDX host VMCB, both physical. Of all registers only RSP, RBX and R12 are
 * preserved: intrinsics.h, the only caller, says so to the compiler, which then saves just what it needs.
 *
 * RAX, RSP, RIP and RFLAGS go through the VMCB; VMLOAD and VMSAVE carry FS, GS, TR, LDTR and the SYSCALL and SYSENTER
 * registers. GIF is clear from CLGI until the host's TR is back, so no NMI can find the guest's. STI lets a physical
 * interrupt end the guest (V_INTR_MASKING: the host's RFLAGS.IF decides); VMRUN sets GIF.
 */
        .intel_syntax noprefix
        .section .text.svm_enter, "ax"
        .globl svm_enter
        .type svm_enter, @function
svm_enter:
        push rbx
        push r12
        push rdi
        push rdx
        clgi
        sti
        mov rcx, [rdi + 8]
        mov rdx, [rdi + 16]
        mov rbx, [rdi + 24]
        mov rbp, [rdi + 40]
        mov rsi, [rdi + 48]
        .irp n, 8, 9, 10, 11, 12, 13, 14, 15
        mov r\n, [rdi + 8 * \n]
        .endr
        mov rdi, [rdi + 56]
        vmload rax
        vmrun rax
        vmsave rax
        pop rax
        vmload rax
        pop rax
        mov [rax + 8], rcx
        mov [rax + 16], rdx
        mov [rax + 24], rbx
        mov [rax + 40], rbp
        mov [rax + 48], rsi
        mov [rax + 56], rdi
        .irp n, 8, 9, 10, 11, 12, 13, 14, 15
        mov [rax + 8 * \n], r\n
        .endr
        cli
        stgi
        pop r12
        pop rbx
        ret
        .size svm_enter, . - svm_enter
        .section .note.GNU-stack, "", @progbits
