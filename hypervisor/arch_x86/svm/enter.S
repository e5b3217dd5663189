/* World switch of SVM (AMD APM vol. 2 rev. 3.42, 15.5). Offsets are those of arch_x86/state.py, Registers.
 *
 * svm_enter: RDI Registers, RSI guest VMCB, RDX host VMCB, both physical. Of all registers only RSP, RBX and R12 are
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
        mov rax, rsi
        mov rcx, [rdi + 8]
        mov rdx, [rdi + 16]
        mov rbx, [rdi + 24]
        mov rbp, [rdi + 40]
        mov rsi, [rdi + 48]
        mov r8, [rdi + 64]
        mov r9, [rdi + 72]
        mov r10, [rdi + 80]
        mov r11, [rdi + 88]
        mov r12, [rdi + 96]
        mov r13, [rdi + 104]
        mov r14, [rdi + 112]
        mov r15, [rdi + 120]
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
        mov [rax + 64], r8
        mov [rax + 72], r9
        mov [rax + 80], r10
        mov [rax + 88], r11
        mov [rax + 96], r12
        mov [rax + 104], r13
        mov [rax + 112], r14
        mov [rax + 120], r15
        cli
        stgi
        pop r12
        pop rbx
        ret
        .size svm_enter, . - svm_enter
        .section .note.GNU-stack, "", @progbits
