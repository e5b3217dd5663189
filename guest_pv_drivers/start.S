# Entry of the PV kernel, trap stubs, thread switch. In long mode, interrupts off, RDI = gpa of StartInfo, RSI = index of the vCPU.
        .text
        .globl  _start, thread_first, vcpu_stacks
_start: lea     boot_stack_end(%rip), %rsp
        test    %esi, %esi
        cmovnz  vcpu_stacks(, %rsi, 8), %rsp
        lgdt    gdt_register(%rip)
        lea     1f(%rip), %rax
        push    $8
        push    %rax
        lretq
1:      mov     $16, %eax
        mov     %eax, %ss
        mov     %eax, %ds
        mov     %eax, %es
        xor     %ebp, %ebp
        call    guest_pv_drivers_main__main
        ud2

#define TRAP_VECTORS 34                 /* idt.VECTORS */
#define TRAP_HANDLER guest_pv_drivers_interrupts__enter
#include "hypervisor/arch_x86/trap_stubs.h"

# void thread_switch(u64 *save_rsp, u64 rsp): keeps what a call must keep, leaves it on the old stack, goes on with the new one.
        .globl  hypervisor_arch_x86_intrinsics__thread_switch
hypervisor_arch_x86_intrinsics__thread_switch:
        .irp    r, rbx, rbp, r12, r13, r14, r15
        push    %\r
        .endr
        mov     %rsp, (%rdi)
        mov     %rsi, %rsp
        .irp    r, r15, r14, r13, r12, rbp, rbx
        pop     %\r
        .endr
        ret

# Where a new thread starts, interrupts off as at every switch: threads.create left the entry in RBX and the argument in RBP.
thread_first:
        sti
        mov     %ebx, %edi
        mov     %rbp, %rsi
        call    guest_pv_drivers_main__thread
        ud2

# void registers_exchange(u64 frame[15], u64 spins, bool svm): loads RAX, RCX, RDX, RBX, RBP, RSI, RDI, R8-R15 from the frame, makes the
# hypercall whose number is RAX, or where spins is not 0 counts it down without touching a register, and stores them back.
        .globl  hypervisor_arch_x86_intrinsics__registers_exchange
hypervisor_arch_x86_intrinsics__registers_exchange:
        .irp    r, rbx, rbp, r12, r13, r14, r15, rdx, rsi, rdi
        push    %\r
        .endr
        mov     %rdi, %rax
        .set    slot, 8
        .irp    r, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
        mov     slot(%rax), %\r
        .set    slot, slot + 8
        .endr
        mov     (%rax), %rax
        cmpq    $0, 8(%rsp)
        je      2f
1:      decq    8(%rsp)
        jnz     1b
        jmp     4f
2:      cmpb    $0, 16(%rsp)
        je      3f
        vmmcall
        jmp     4f
3:      vmcall
4:      push    %rax
        mov     8(%rsp), %rax
        .set    slot, 8
        .irp    r, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
        mov     %\r, slot(%rax)
        .set    slot, slot + 8
        .endr
        pop     (%rax)
        .irp    r, rdi, rsi, rdx, r15, r14, r13, r12, rbp, rbx
        pop     %\r
        .endr
        ret

# Flat 64-bit code (8) and data (16). SDM vol. 3A 3.4.5.
        .section .rodata
        .balign 8
gdt:    .quad   0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_register:
        .word   23
        .quad   gdt

        .bss
vcpu_stacks:
        .skip   64 * 8                  /* ends of the stacks of all but vCPU 0: vcpus.start */
        .balign 4096
        .skip   4096                    /* vcpus.STACK_BYTES */
boot_stack_end:
