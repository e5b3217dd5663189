# Entries of the hostile guest: as a PV kernel (_start), and as a Multiboot kernel (multiboot_start); trap stubs; the probe.
        .section .boot, "ax"
        .balign 4
        .long   0x1badb002, 3, -(0x1badb002 + 3)
        .globl  _start, multiboot_start
_start: lea     stack_end(%rip), %rsp
        lgdt    gdt_register(%rip)
        xor     %esi, %esi
        jmp     1f
        .code32
multiboot_start:                        # first GiB mapped to itself, then long mode
        mov     %ebx, %esi
        mov     $tables, %edi
        lea     0x1003(%edi), %eax
        mov     %eax, (%edi)
        lea     0x2003(%edi), %eax
        mov     %eax, 0x1000(%edi)
        mov     $0x83, %eax
        xor     %ecx, %ecx
2:      mov     %eax, 0x2000(%edi, %ecx, 8)
        add     $0x200000, %eax
        inc     %ecx
        cmp     $512, %ecx
        jne     2b
        mov     %edi, %cr3
        mov     %cr4, %eax
        or      $0x620, %eax            # PAE, OSFXSR, OSXMMEXCPT
        mov     %eax, %cr4
        mov     $0xc0000080, %ecx
        rdmsr
        or      $0x900, %eax            # LME, NXE
        wrmsr
        mov     %cr0, %eax
        or      $0x80010003, %eax       # PG, WP, MP, PE
        mov     %eax, %cr0
        lgdt    gdt_register_32
        ljmp    $8, $3f
        .code64
3:      mov     $stack_end, %esp
        xor     %edi, %edi
        mov     %esi, %esi
1:      push    $8
        lea     4f(%rip), %rax
        push    %rax
        lretq
4:      mov     $16, %eax
        mov     %eax, %ss
        mov     %eax, %ds
        mov     %eax, %es
        xor     %ebp, %ebp
        call    tests_hostile_main__main
        ud2

#define TRAP_VECTORS 64                 /* cpu.VECTORS */
#define TRAP_HANDLER tests_hostile_cpu__enter
        .text
#include "hypervisor/arch_x86/trap_stubs.h"

# void probe(struct cpu.Probe *): runs code with all registers, CS, SS and RFLAGS as the struct says, until a trap. The trap's handler
# returns to probe_landing with RSP as it is here.
        .globl  tests_hostile_intrinsics__probe, probe_landing
tests_hostile_intrinsics__probe:
        .irp    r, rbx, rbp, r12, r13, r14, r15
        push    %\r
        .endr
        mov     %rsp, 160(%rdi)
        pushq   152(%rdi)               # SS
        pushq   32(%rdi)                # RSP
        pushq   144(%rdi)               # RFLAGS
        pushq   136(%rdi)               # CS
        pushq   128(%rdi)               # RIP
        .set    slot, 8
        .irp    r, rcx, rdx, rbx
        mov     slot(%rdi), %\r
        .set    slot, slot + 8
        .endr
        .set    slot, 64
        .irp    r, r8, r9, r10, r11, r12, r13, r14, r15
        mov     slot(%rdi), %\r
        .set    slot, slot + 8
        .endr
        mov     (%rdi), %rax
        mov     40(%rdi), %rbp
        mov     48(%rdi), %rsi
        mov     56(%rdi), %rdi
        iretq
probe_landing:
        .irp    r, r15, r14, r13, r12, rbp, rbx
        pop     %\r
        .endr
        cld
        ret

# The instructions of privileged.py: each 16 bytes of code, ended by INT3, and 16 bytes of its name.
        .macro  attempt name, text:vararg
        .balign 32
99:     \text
        int3
        .fill   16 - (. - 99b), 1, 0xcc
        .ascii  "\name"
        .balign 32, 0
        .endm
        .globl  instructions, instructions_end
        .balign 32
instructions:
        attempt cpuid,     cpuid
        attempt hlt-user,  hlt
        attempt clts,      clts
        attempt invd,      invd
        attempt wbinvd,    wbinvd
        attempt invlpg,    invlpg (%rdi)
        attempt lgdt,      lgdt (%rdi)
        attempt lidt,      lidt (%r8)
        attempt sgdt,      sgdt (%rsi)
        attempt sidt,      sidt (%rsi)
        attempt lldt,      lldt %r10w
        attempt ltr,       ltr %r10w
        attempt lmsw,      lmsw %ax
        attempt smsw,      smsw %eax
        attempt rdpmc,     rdpmc
        attempt rdtsc,     rdtsc
        attempt rdtscp,    rdtscp
        attempt monitor,   monitor
        attempt mwait,     mwait
        attempt xsetbv,    xsetbv
        attempt xgetbv,    xgetbv
        attempt swapgs,    .byte 0x0f, 0x01, 0xf8, 0x0f, 0x01, 0xf8   /* twice */
        attempt rsm,       rsm
        attempt getsec,    getsec
        attempt vmcall,    vmcall
        attempt vmlaunch,  vmlaunch
        attempt vmresume,  vmresume
        attempt vmxoff,    vmxoff
        attempt vmxon,     vmxon (%rdi)
        attempt vmptrld,   vmptrld (%rdi)
        attempt vmptrst,   vmptrst (%rsi)
        attempt vmclear,   vmclear (%rdi)
        attempt vmread,    vmread %rax, %rcx
        attempt vmwrite,   vmwrite %rax, %rcx
        attempt vmfunc,    vmfunc
        attempt invept,    invept (%rdi), %rax
        attempt invvpid,   invvpid (%rdi), %rax
        attempt invpcid,   invpcid (%rdi), %rax
        attempt vmrun,     vmrun
        attempt vmmcall,   vmmcall
        attempt vmload,    vmload
        attempt vmsave,    vmsave
        attempt stgi,      stgi
        attempt clgi,      clgi
        attempt skinit,    skinit
        attempt invlpga,   invlpga
        attempt rdpru,     rdpru
        attempt encls,     encls
        attempt pconfig,   pconfig
        attempt rdrand,    rdrand %eax
        attempt xsaves,    xsaves (%rsi)
        attempt xrstors,   xrstors (%rsi)
        attempt wrpkru,    wrpkru
        attempt clac,      clac
        attempt int1,      .byte 0xf1
        attempt ud2,       ud2
        attempt ud1,       ud1 %eax, %eax
        attempt cr1-read,  .byte 0x0f, 0x20, 0xc8
        attempt cr5-write, .byte 0x0f, 0x22, 0xe8
        attempt cr8-read,  mov %cr8, %rax
        attempt cr8-write, mov %rbx, %cr8
        attempt dr4-read,  .byte 0x0f, 0x21, 0xe0
        attempt dr7-high,  mov %rcx, %dr7
        attempt cr4-high,  mov %rcx, %cr4
        attempt sysret,    sysretl
        attempt sysexit,   sysexit
        attempt iret-bad,  iretq
        attempt far-jump,  ljmp *(%r9)
        attempt lock-nop,  .byte 0xf0, 0x90
        attempt too-long,  .byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66
instructions_end:
        .balign 32, 0xcc

# Flat 64-bit code (8) and data (16), until cpu.py makes its own.
        .section .rodata
        .balign 8
gdt:    .quad   0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_register:
        .word   23
        .quad   gdt
gdt_register_32:
        .word   23
        .long   gdt

        .bss
        .balign 4096
tables: .skip   3 * 4096
        .skip   0x4000
stack_end:
