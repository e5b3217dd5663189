# From the loader to Python: 32-bit entry (QEMU -kernel by PVH, GRUB by Multiboot 2), long mode, stack, main(magic, info).
# Xen "x86/HVM direct boot ABI" (PVH); Multiboot 2 specification 2.0, 3.1; Intel SDM vol. 3A 10.8.5 (to IA-32e mode).

.section .note.pvh, "a", @note
.balign 4
    .long 4, 8, 18                      # name bytes, descriptor bytes, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad _start

.section .multiboot2, "a"
.balign 8
multiboot:
    .long 0xE85250D6, 0, multiboot_end - multiboot, -(0xE85250D6 + multiboot_end - multiboot)
    .short 3, 0                         # entry address tag
    .long 12, _start, 0
    .short 0, 0                         # end tag
    .long 8
multiboot_end:

.section .boot, "ax"
.code32
.globl _start
_start:                             # EAX: Multiboot's magic or anything; EBX: boot information
    cli
    cld
    mov     %eax, %esi
    mov     $__bss_start, %edi          # QEMU leaves .bss to us
    mov     $__bss_end, %ecx
    sub     %edi, %ecx
    shr     $2, %ecx
    xor     %eax, %eax
    rep stosl
    mov     %esi, boot_magic
    mov     %ebx, boot_info
    mov     $0x80000000, %eax           # is there a long mode?
    cpuid
    cmp     $0x80000001, %eax
    jb      no_long_mode
    mov     $0x80000001, %eax
    cpuid
    bt      $29, %edx
    jnc     no_long_mode
    mov     $early_directories, %edi    # identity map of 4 GiB in 2 MiB pages
    mov     $0x83, %eax
    mov     $2048, %ecx
1:  mov     %eax, (%edi)
    add     $8, %edi
    add     $0x200000, %eax
    loop    1b
    .set n, 0
    .rept 4
    movl    $early_directories + n * 4096 + 3, early_pdpt + n * 8
    .set n, n + 1
    .endr
    movl    $early_pdpt + 3, early_pml4
    mov     $early_pml4, %eax
    mov     %eax, %cr3
    mov     $0x620, %eax                # CR4: PAE, OSFXSR, OSXMMEXCPT
    mov     %eax, %cr4
    mov     $0xC0000080, %ecx           # EFER.LME
    rdmsr
    bts     $8, %eax
    wrmsr
    mov     $0x80010033, %eax           # CR0: PG, WP, NE, ET, MP, PE; caches on
    mov     %eax, %cr0
    lgdt    boot_gdtr
    ljmp    $8, $boot_long_mode
no_long_mode:
    mov     $no_long_mode_text, %esi
    mov     $0x3F8, %edx
1:  lodsb
    test    %al, %al
    jz      2f
    out     %al, %dx
    jmp     1b
2:  mov     $0x13, %al                  # abi.EXIT_NO_VIRTUALIZATION
    out     %al, $0xF4
3:  hlt
    jmp     3b

.code64
boot_long_mode:
    mov     $0x10, %eax
    mov     %eax, %ss
    mov     %eax, %ds
    mov     %eax, %es
    xor     %eax, %eax
    mov     %eax, %fs
    mov     %eax, %gs
    mov     $boot_stack_top, %esp
    xor     %ebp, %ebp                  # where back-traces end
    mov     boot_magic, %edi
    mov     boot_info, %esi
    call    hypervisor_main__main
    ud2                                 # main does not return

.section .rodata.boot, "a"
.balign 8
boot_gdt:                               # null, 64-bit code, data: the selectors of idt.py
    .quad 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
boot_gdtr:
    .short 23
    .long boot_gdt
no_long_mode_text:
    .asciz "krait: this CPU has no 64-bit mode\r\nkrait: exit 0x13\r\n"

.bss
.balign 4096
.globl __stacks_start, __stacks_end
__stacks_start:                         # a guard page below each stack; sizes as in stacks.py
    .skip   4096 + 32768
boot_stack_top:
    .skip   3 * (4096 + 8192)           # NMI, #DF, #MC
__stacks_end:
early_pml4:
    .skip   4096
early_pdpt:
    .skip   4096
early_directories:
    .skip   4 * 4096
boot_magic:
    .skip   4
boot_info:
    .skip   4

.section .note.GNU-stack, "", @progbits
