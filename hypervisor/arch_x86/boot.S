# From the loader to Python: 32-bit entry (QEMU -kernel by PVH, GRUB by Multiboot 2), long mode, stack, main(magic, info).
# Xen "x86/HVM direct boot ABI" (PVH); Multiboot 2 specification 2.0, 3.1; Intel SDM vol. 3A 10.8.5 (to IA-32e mode).

            .section .note.pvh, "a", @note
            .balign 4
            .long   4, 8, 18                    # name bytes, descriptor bytes, XEN_ELFNOTE_PHYS32_ENTRY
            .asciz  "Xen"
            .quad   _start

            .section .multiboot2, "a"
            .balign 8
header:     .long   0xE85250D6, 0, header_end - header, -(0xE85250D6 + header_end - header)
            .short  3, 0                        # entry address tag
            .long   12, _start, 0
            .short  0, 0                        # end tag
            .long   8
header_end:

            .section .boot, "ax"
            .code32
            .globl  _start
_start:     cli                                 # EAX: Multiboot's magic or anything; EBX: boot information
            cld
            mov     %eax, %esi
            mov     %ebx, %ebp
            mov     $__bss_start, %edi          # QEMU leaves .bss to us
            mov     $__bss_end, %ecx
            sub     %edi, %ecx
            xor     %eax, %eax
            rep stosb
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
1:          mov     %eax, (%edi)
            add     $8, %edi
            add     $0x200000, %eax
            jnc     1b
            movl    $early_directories + 0x0003, early_pointers
            movl    $early_directories + 0x1003, early_pointers + 8
            movl    $early_directories + 0x2003, early_pointers + 16
            movl    $early_directories + 0x3003, early_pointers + 24
            movl    $early_pointers + 3, early_root
            lgdt    boot_gdtr
            mov     $__stacks_start + 0x7000, %esp  # stacks.top(0, 0)
            mov     $hypervisor_main__main, %ebx
to_long_mode:                                   # of every CPU: EBX whom to call on the stack ESP
            mov     $early_root, %eax
            mov     %eax, %cr3
            mov     $0x620, %eax                # CR4: PAE, OSFXSR, OSXMMEXCPT
            mov     %eax, %cr4
            mov     $0xC0000080, %ecx           # EFER.LME
            rdmsr
            bts     $8, %eax
            wrmsr
            mov     $0x80010033, %eax           # CR0: PG, WP, NE, ET, MP, PE; caches on
            mov     %eax, %cr0
            ljmp    $8, $long_mode
no_long_mode:
            mov     $no_long_mode_text, %esi
            mov     $no_long_mode_end - no_long_mode_text, %ecx
            mov     $0x3F8, %edx                # COM1
            rep outsb
            mov     $0x13, %al                  # abi.EXIT_NO_VIRTUALIZATION
            out     %al, $0xF4
1:          hlt
            jmp     1b

            .code64
long_mode:  mov     $0x10, %eax
            .irp    segment, ds, es, fs, gs, ss
            mov     %eax, %\segment
            .endr
            mov     %esp, %esp                  # their upper halves are undefined
            mov     %ebx, %ebx
            mov     %esi, %edi
            mov     %ebp, %esi
            xor     %ebp, %ebp                  # where back-traces end
            call    *%rbx
            ud2                                 # it does not return

            .section .rodata.boot, "a"
            .balign 8                           # null, 64-bit code, data: the selectors of idt.py; 32-bit code
boot_gdt:   .quad   0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF9B000000FFFF
            .globl  trampoline, trampoline_end
            .code16                             # where the other CPUs start, in a copy below 1 MiB (smp.py)
trampoline: lgdtl   %cs:boot_gdtr - trampoline
            mov     %cs:trampoline_end - 4 - trampoline, %esp
            mov     $hypervisor_smp__arrive, %ebx
            mov     $0x11, %eax                 # CR0: ET, PE; caches on
            mov     %eax, %cr0
            ljmpl   $0x18, $to_long_mode
boot_gdtr:  .short  31
            .long   boot_gdt
            .long   0                           # the top of the CPU's stack
trampoline_end:
no_long_mode_text:
            .ascii  "krait: this CPU has no 64-bit mode\r\nkrait: exit 0x13\r\n"
no_long_mode_end:

            .bss
            .balign 4096
early_root:         .skip 4096
early_pointers:     .skip 4096
early_directories:  .skip 4 * 4096

            .section .note.GNU-stack, "", @progbits
