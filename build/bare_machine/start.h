/* PVH entry to long mode with 1 GiB identity-mapped, for images of modules that are tested or measured alone: calls MAIN. */
.section .note, "a"
    .long 4, 4, 18
    .asciz "Xen"
    .long _start
.section .boot, "ax"
.code32
.globl _start
_start:
    mov $page_tables, %edi
    lea 0x1003(%edi), %eax
    mov %eax, (%edi)
    lea 0x2003(%edi), %eax
    mov %eax, 0x1000(%edi)
    mov $0x83, %eax
    xor %ecx, %ecx
1:  mov %eax, 0x2000(%edi, %ecx, 8)
    add $0x200000, %eax
    inc %ecx
    cmp $512, %ecx
    jne 1b
    mov %edi, %cr3
    mov %cr4, %eax
    or $0x20, %eax
    mov %eax, %cr4
    mov $0xC0000080, %ecx
    rdmsr
    or $0x100, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80000001, %eax
    mov %eax, %cr0
    lgdt gdtr
    ljmp $8, $long_mode
.code64
long_mode:
    xor %eax, %eax
    mov %eax, %ss
    mov %eax, %ds
    mov %eax, %es
    mov $stack_top, %rsp
    call MAIN
1:  hlt
    jmp 1b
.balign 8
gdt:
    .quad 0, 0x00209A0000000000
gdtr:
    .word 15
    .long gdt
.bss
.balign 4096
page_tables: .skip 3 * 4096
    .skip 16384
stack_top:
