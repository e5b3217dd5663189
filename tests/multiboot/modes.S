# A Multiboot guest that goes through every mode of the CPU and back, and checks at each step what only that mode does.
# Real, protected, 32-bit paging, PAE paging, compatibility and 64-bit mode, 1 GiB pages. Results go to the serial port; it ends by
# port F4 with code 0, or with 1 at the first step that is wrong, or by a halt if its command line begins with `halt`.
# Linked at 64 KiB, so that real mode reaches all of it from segment BASE >> 4.
        .set    BASE, 0x10000
        .set    UART, 0x3f8
        .set    EXIT_PORT, 0xf4
        .set    EFER, 0xc0000080
        .set    CODE32, 8
        .set    DATA32, 16
        .set    CODE16, 24
        .set    DATA16, 32
        .set    CODE64, 40
        .set    DIRECTORY, 0x200000     # tables, one page each
        .set    TABLE_LOW, 0x201000
        .set    TABLE_ALIAS, 0x202000
        .set    PAE_POINTERS, 0x203000
        .set    PAE_DIRECTORY, 0x204000
        .set    PAE_TABLE, 0x205000
        .set    PAE_DIRECTORY_1, 0x206000
        .set    PML4, 0x207000
        .set    POINTERS, 0x208000
        .set    LONG_DIRECTORY, 0x209000
        .set    PAGE, 0x300000          # the page that all aliases show
        .set    WORD, 0x5eed0000

        .macro  say text
        .pushsection .text, 1
77:     .asciz  "\text\n"
        .popsection
        mov     $77b, %esi
        call    print32
        .endm

        .macro  fail_unless condition, text
        j\condition 78f
        .pushsection .text, 1
77:     .asciz  "FAILED: \text\n"
        .popsection
        mov     $77b, %esi
        jmp     failed32
78:
        .endm

        .text                           # one section: what real mode names, it names by the distance from here
image:  .balign 4
#ifdef ADDRESSES
header: .long   0x1badb002, 0x10003, -(0x1badb002 + 0x10003)
        .long   header, BASE, _edata, _end, _start
#else
        .long   0x1badb002, 3, -(0x1badb002 + 3)
#endif

        .code32
        .globl  _start
_start: mov     %ebx, information
        mov     $stack_end, %esp
        cmp     $0x2badb002, %eax
        fail_unless e, "magic number in EAX"
        mov     %cr0, %ecx
        and     $0x80000001, %ecx
        cmp     $1, %ecx
        fail_unless e, "protected mode without paging at entry"
        pushf
        testl   $0x20200, (%esp)
        fail_unless z, "interrupts off and no virtual-8086 mode at entry"
        lgdt    gdt_register
        ljmp    $CODE32, $1f
1:      call    flat_segments
        call    make_idt
        call    multiboot_information
        call    real_mode
        call    paging_32
        call    paging_pae
        call    long_mode
        call    paging_32               # once more: nothing of long mode may be left
        call    real_mode
        mov     information, %ebx
        mov     16(%ebx), %ebx
        cmpl    $0x746c6168, (%ebx)     # halt
        je      2f
        say     "all modes ok"
        xor     %eax, %eax
        jmp     leave32
2:      say     "halting"
        cli
        hlt
        say     "FAILED: went on behind a halt"
        mov     $1, %eax
leave32:
        out     %al, $EXIT_PORT
        cli
        hlt

flat_segments:
        mov     $DATA32, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     %eax, %fs
        mov     %eax, %gs
        ret

# The text at ESI, to the serial port as it takes it.
print32:
        mov     $UART + 5, %edx
1:      in      %dx, %al
        test    $0x20, %al
        jz      1b
        lodsb
        test    %al, %al
        jz      2f
        mov     $UART, %edx
        out     %al, %dx
        jmp     print32
2:      ret

failed32:
        call    print32
        mov     $1, %eax
        jmp     leave32

# EAX in decimal.
print_number:
        mov     $number_end, %esi
        mov     $10, %ecx
1:      xor     %edx, %edx
        div     %ecx
        add     $'0', %dl
        dec     %esi
        mov     %dl, (%esi)
        test    %eax, %eax
        jnz     1b
        jmp     print32

# All 32 exceptions go to `unexpected`, #GP and #PF to where the fault is noted and `resume` is gone to.
make_idt:
        mov     $idt, %edi
        xor     %ecx, %ecx
1:      mov     $unexpected, %eax
        cmp     $13, %ecx
        je      2f
        cmp     $14, %ecx
        jne     3f
2:      mov     $noted, %eax
3:      mov     %eax, %ebx
        and     $0xffff, %ebx
        or      $CODE32 << 16, %ebx
        mov     %ebx, (%edi, %ecx, 8)
        and     $0xffff0000, %eax
        or      $0x8e00, %eax
        mov     %eax, 4(%edi, %ecx, 8)
        inc     %ecx
        cmp     $32, %ecx
        jne     1b
        lidt    idt_register
        mov     $noted_64, %eax                 # #PF in 64-bit mode
        mov     %ax, idt_64 + 14 * 16
        movl    $0x8e000000 | CODE64, idt_64 + 14 * 16 + 2
        shr     $16, %eax
        mov     %ax, idt_64 + 14 * 16 + 6
        ret

noted:  pop     fault_error
        push    %eax
        mov     %cr2, %eax
        mov     %eax, fault_address
        incl    faults
        mov     resume, %eax
        mov     %eax, 4(%esp)
        pop     %eax
        iret

unexpected:
        mov     $77f, %esi
        jmp     failed32
        .pushsection .text, 1
77:     .asciz  "FAILED: an exception that nobody expected\n"
        .popsection

# Boot information: flags, memory, command line, the module and its text, the memory map, the loader's name.
multiboot_information:
        mov     information, %ebx
        mov     (%ebx), %eax
        and     $0x24d, %eax
        cmp     $0x24d, %eax
        fail_unless e, "flags of the boot information"
        cmpl    $639, 4(%ebx)
        fail_unless e, "mem_lower"
        mov     $upper, %esi
        call    print32
        mov     8(%ebx), %eax
        call    print_number
        mov     $command, %esi
        call    print32
        mov     16(%ebx), %esi
        call    print32
        mov     $modules, %esi
        call    print32
        mov     20(%ebx), %eax
        call    print_number
        mov     20(%ebx), %ecx
        mov     24(%ebx), %edi
1:      test    %ecx, %ecx
        jz      2f
        push    %ecx
        testl   $0xfff, (%edi)
        fail_unless z, "a module on a page boundary"
        mov     $module, %esi
        call    print32
        mov     8(%edi), %esi           # its text
        call    print32
        mov     $size, %esi
        call    print32
        mov     4(%edi), %eax           # its size
        sub     (%edi), %eax
        call    print_number
        mov     (%edi), %esi
        cmpb    $'m', (%esi)
        fail_unless e, "contents of a module"
        add     $16, %edi
        pop     %ecx
        dec     %ecx
        jmp     1b
2:      mov     $line_end, %esi
        call    print32
        mov     48(%ebx), %esi          # the map: free memory adds up to mem_lower + mem_upper
        mov     44(%ebx), %ecx
        add     %esi, %ecx
        xor     %eax, %eax
3:      cmpl    $1, 20(%esi)
        jne     4f
        add     12(%esi), %eax
4:      add     (%esi), %esi
        add     $4, %esi
        cmp     %ecx, %esi
        jb      3b
        shr     $10, %eax
        sub     4(%ebx), %eax
        cmp     8(%ebx), %eax
        fail_unless e, "the memory map"
        mov     64(%ebx), %esi
        cmpl    $0x6961724b, (%esi)     # Krai
        fail_unless e, "the loader's name"
        ret

# To real mode and back: segments are addresses / 16, interrupts go by the table at 0, A20 is on.
real_mode:
        lidt    real_idt_register
        movl    $(BASE << 12) + (real_interrupt - image), 0x40 * 4   # segment : offset
        movl    $0, real_interrupts
        mov     %esp, saved_stack
        ljmp    $CODE16, $protected_16 - image
        .code16
protected_16:
        mov     $DATA16, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     %cr0, %eax
        and     $~1, %al
        mov     %eax, %cr0
        ljmp    $BASE >> 4, $1f - image
1:      mov     $BASE >> 4, %ax
        mov     %ax, %ds
        xor     %ax, %ax
        mov     %ax, %ss
        mov     $0x7000, %sp
        mov     $0x2000, %ax
        mov     %ax, %es
        movb    $0xa5, %es:0x1234
        mov     $0x2100, %ax
        mov     %ax, %es
        cmpb    $0xa5, %es:0x0234
        jne     failed16
        int     $0x40
        cmpb    $1, real_interrupts - image
        jne     failed16
        mov     $0xffff, %ax            # FFFF:0510 is 1 MiB and a half KiB, not 500
        mov     %ax, %es
        xor     %ax, %ax
        mov     %ax, %fs
        movb    $1, %fs:0x500
        movb    $2, %es:0x510
        cmpb    $1, %fs:0x500
        jne     failed16
        smsw    %ax
        test    $1, %al
        jnz     failed16
        mov     $real_ok - image, %si
        call    print16
        cli
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $CODE32, $back_from_real
failed16:
        mov     $real_failed - image, %si
        call    print16
        mov     $1, %al
        out     %al, $EXIT_PORT
        hlt
print16:
        lodsb
        test    %al, %al
        jz      1f
        mov     $UART, %dx
        out     %al, %dx
        jmp     print16
1:      ret
real_interrupt:
        incb    %cs:real_interrupts - image
        iret
        .code32
back_from_real:
        mov     $DATA32, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     %eax, %fs
        mov     %eax, %gs
        mov     saved_stack, %esp
        lidt    idt_register
        ret

# EDI: a table of 1024 words, emptied.
clear_page:
        push    %edi
        xor     %eax, %eax
        mov     $1024, %ecx
        rep stosl
        pop     %edi
        ret

# 32-bit paging: 4 KiB and 4 MiB pages, accessed and dirty bits, #PF with its error code and address, CR0.WP.
paging_32:
        mov     $DIRECTORY, %edi
        call    clear_page
        mov     $TABLE_ALIAS, %edi
        call    clear_page
        mov     $TABLE_LOW, %edi
        mov     $3, %eax
1:      stosl
        add     $4096, %eax
        cmp     $0x400003, %eax
        jne     1b
        movl    $TABLE_LOW + 3, DIRECTORY
        movl    $0x83, DIRECTORY + 4            # 4 MiB to 8 MiB show the first 4 MiB
        movl    $TABLE_ALIAS + 3, DIRECTORY + 8
        movl    $PAGE + 3, TABLE_ALIAS + 5 * 4  # 805000
        movl    $PAGE + 1, TABLE_ALIAS + 7 * 4  # 807000, read-only
        mov     %cr4, %eax
        or      $0x10, %eax
        mov     %eax, %cr4
        mov     $DIRECTORY, %eax
        mov     %eax, %cr3
        mov     %cr0, %eax
        or      $0x80010000, %eax               # PG, WP
        mov     %eax, %cr0
        movl    $WORD + 32, 0x805000
        cmpl    $WORD + 32, PAGE
        fail_unless e, "32-bit paging: a 4 KiB page"
        cmpl    $WORD + 32, 0x400000 + PAGE
        fail_unless e, "32-bit paging: a 4 MiB page"
        mov     TABLE_ALIAS + 5 * 4, %eax
        and     $0x60, %eax
        cmp     $0x60, %eax
        fail_unless e, "32-bit paging: accessed and dirty bits"
        movl    $0, faults
        movl    $2f, resume
        mov     0x806004, %eax
2:      cmpl    $1, faults
        fail_unless e, "32-bit paging: a fault"
        cmpl    $0, fault_error
        fail_unless e, "32-bit paging: error code of a read"
        cmpl    $0x806004, fault_address
        fail_unless e, "32-bit paging: CR2"
        movl    $3f, resume
        movl    $1, 0x807000
3:      cmpl    $3, fault_error
        fail_unless e, "32-bit paging: error code of a write to what is read-only"
        mov     %cr0, %eax
        and     $~0x80010000, %eax
        mov     %eax, %cr0
        mov     %cr4, %eax
        and     $~0x10, %eax
        mov     %eax, %cr4
        say     "32-bit paging ok"
        ret

# PAE paging: 2 MiB and 4 KiB pages, NX, and the pointers that the CPU takes when CR3 is written.
paging_pae:
        mov     $PAE_POINTERS, %edi
        call    clear_page
        mov     $PAE_DIRECTORY, %edi
        call    clear_page
        mov     $PAE_TABLE, %edi
        call    clear_page
        mov     $PAE_DIRECTORY_1, %edi
        call    clear_page
        movl    $PAE_DIRECTORY + 1, PAE_POINTERS
        movl    $PAE_DIRECTORY_1 + 1, PAE_POINTERS + 8
        movl    $0x83, PAE_DIRECTORY
        movl    $0x200083, PAE_DIRECTORY + 8
        movl    $PAE_TABLE + 3, PAE_DIRECTORY + 16
        movl    $PAGE + 3, PAE_TABLE + 7 * 8    # 407000, not to be executed
        movl    $0x80000000, PAE_TABLE + 7 * 8 + 4
        movl    $0x200083, PAE_DIRECTORY_1      # 1 GiB shows 2 MiB
        mov     $EFER, %ecx
        rdmsr
        or      $0x800, %eax                    # NXE
        wrmsr
        mov     %cr4, %eax
        or      $0x20, %eax
        mov     %eax, %cr4
        mov     $PAE_POINTERS, %eax
        mov     %eax, %cr3
        mov     %cr0, %eax
        or      $0x80000000, %eax
        mov     %eax, %cr0
        movl    $0xc3 | WORD, 0x407000          # RET, if it could be executed
        mov     PAGE, %eax
        cmp     $0xc3 | WORD, %eax
        fail_unless e, "PAE paging: a 4 KiB page"
        cmp     %eax, 0x40000000 + PAGE - 0x200000
        fail_unless e, "PAE paging: a 2 MiB page behind the second pointer"
        movl    $0, faults
        movl    $1f, resume
        mov     $0x407000, %eax
        push    $2f
        jmp     *%eax
1:      add     $4, %esp
        cmpl    $0x11, fault_error
        fail_unless e, "PAE paging: error code of NX"
        cmpl    $0x407000, fault_address
        fail_unless e, "PAE paging: CR2 of NX"
2:      cmpl    $1, faults
        fail_unless e, "PAE paging: NX"
        call    pae_pointers
        mov     %cr0, %eax
        and     $~0x80000000, %eax
        mov     %eax, %cr0
        mov     %cr4, %eax
        and     $~0x20, %eax
        mov     %eax, %cr4
        say     "PAE paging ok"
        ret

# The pointers change in memory. Those that the CPU holds (Intel's do) stay until CR3, or CR0.CD, is written; an EFER write, which
# ends in a hypervisor, is none of these. A reserved bit: #GP at the load (Intel), or #PF at the use (AMD).
pae_pointers:
        xor     %eax, %eax
        cpuid
        cmp     $0x756e6547, %ebx               # Genu
        jne     3f
        movl    $0x1e1, PAE_POINTERS + 16       # reserved bits, not loaded yet
        mov     $EFER, %ecx
        rdmsr
        and     $~0x800, %eax
        wrmsr
        or      $0x800, %eax
        wrmsr
        mov     PAGE, %eax
        cmp     %eax, 0x40000000 + PAGE - 0x200000
        fail_unless e, "PAE paging: pointers survive an EFER write"
        movl    $0, faults
        movl    $1f, resume
        mov     %cr0, %eax
        or      $0x40000000, %eax               # CD: loads the pointers, and finds the reserved bits
        mov     %eax, %cr0
1:      cmpl    $1, faults
        fail_unless e, "PAE paging: #GP for reserved bits when CR0 is written"
        movl    $2f, resume
        mov     %cr3, %eax
        mov     %eax, %cr3
2:      cmpl    $2, faults
        fail_unless e, "PAE paging: #GP for reserved bits when CR3 is written"
        movl    $0, PAE_POINTERS + 16
3:      movl    $0, PAE_POINTERS + 8
        mov     %cr3, %eax
        mov     %eax, %cr3
        movl    $0, faults
        movl    $4f, resume
        mov     0x40000000, %eax
4:      cmpl    $1, faults
        fail_unless e, "PAE paging: a pointer taken away"
        ret

# Compatibility mode, 64-bit mode with 2 MiB and 1 GiB pages, compatibility mode, and out.
long_mode:
        mov     $PML4, %edi
        call    clear_page
        mov     $POINTERS, %edi
        call    clear_page
        movl    $POINTERS + 3, PML4
        movl    $LONG_DIRECTORY + 3, POINTERS
        mov     $0x80000001, %eax
        cpuid
        test    $1 << 26, %edx
        fail_unless nz, "CPUID shows no 1 GiB pages"
        movl    $0x83, POINTERS + 8             # the second GiB shows the first
        mov     $LONG_DIRECTORY, %edi
        mov     $0x83, %eax
1:      mov     %eax, (%edi)
        movl    $0, 4(%edi)
        add     $8, %edi
        add     $0x200000, %eax
        cmp     $0x40000083, %eax
        jne     1b
        mov     $EFER, %ecx
        rdmsr
        or      $0x100, %eax                    # LME
        wrmsr
        mov     %cr4, %eax
        or      $0x20, %eax
        mov     %eax, %cr4
        mov     $PML4, %eax
        mov     %eax, %cr3
        mov     %cr0, %eax
        or      $0x80000000, %eax
        mov     %eax, %cr0
        mov     $EFER, %ecx
        rdmsr
        and     $0x500, %eax
        cmp     $0x500, %eax
        fail_unless e, "compatibility mode: EFER.LMA"
        mov     $5, %eax
        .byte   0x40                            # INC EAX here, a REX prefix in 64-bit mode
        nop
        cmp     $6, %eax
        fail_unless e, "compatibility mode: code is 32-bit"
        say     "compatibility mode ok"
        ljmp    $CODE64, $in_64
        .code64
in_64:  mov     $0x123456789abcdef0, %r15
        mov     %r15, PAGE
        mov     0x40000000 + PAGE, %rax         # through the 1 GiB page
        cmp     %rax, %r15
        jne     failed64
        mov     $idt_64_register, %edi
        lidt    (%rdi)
        mov     $0xffff800000123000, %rbx
        mov     (%rbx), %eax                    # not mapped: noted_64 goes on behind it
        mov     %cr2, %rax
        cmp     %rax, %rbx
        jne     failed64
        mov     $0xc0000101, %ecx               # GS base above 4 GiB
        mov     $0x12, %edx
        xor     %eax, %eax
        wrmsr
        rdmsr
        cmp     $0x12, %edx
        jne     failed64
        xor     %edx, %edx
        wrmsr
        mov     $long_ok, %esi
        call    print64
        mov     $out_of_64, %edi
        ljmp    *(%rdi)
failed64:
        mov     $long_failed, %esi
        call    print64
        mov     $1, %al
        out     %al, $EXIT_PORT
        hlt
print64:
        lodsb
        test    %al, %al
        jz      1f
        mov     $UART, %edx
        out     %al, %dx
        jmp     print64
1:      ret
noted_64:
        add     $8, %rsp
        addq    $2, (%rsp)
        iretq
        .code32
left_64:
        call    flat_segments
        lidt    idt_register                    # its gates are for what follows
        mov     $5, %eax
        .byte   0x40
        nop
        cmp     $6, %eax
        fail_unless e, "compatibility mode again"
        mov     %cr0, %eax
        and     $~0x80000000, %eax
        mov     %eax, %cr0
        mov     $EFER, %ecx
        rdmsr
        test    $0x400, %eax
        fail_unless z, "EFER.LMA without paging"
        and     $~0x900, %eax
        wrmsr
        mov     %cr4, %eax
        and     $~0x20, %eax
        mov     %eax, %cr4
        cmpl    $0x9abcdef0, PAGE
        fail_unless e, "what 64-bit mode wrote"
        say     "out of long mode ok"
        ret

        .text 1
real_ok:        .asciz "real mode ok\n"
real_failed:    .asciz "FAILED: real mode\n"
long_ok:        .asciz "64-bit mode ok\n"
long_failed:    .asciz "FAILED: 64-bit mode\n"
upper:          .asciz "multiboot: upper "
command:        .asciz " command line ["
modules:        .asciz "] modules "
module:         .asciz "\nmodule "
size:           .asciz ": bytes "
line_end:       .asciz "\n"
        .balign 8
gdt:    .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00009b010000ffff, 0x000093000000ffff, 0x00af9b000000ffff
gdt_register:   .word . - gdt - 1
        .long   gdt
idt_register:   .word 32 * 8 - 1
        .long   idt
real_idt_register:
        .word   0x3ff
        .long   0
idt_64_register:
        .word   15 * 16 - 1
        .long   idt_64, 0
out_of_64:
        .long   left_64
        .word   CODE32

        .balign 16
information:    .skip 4
resume:         .skip 4
faults:         .skip 4
fault_error:    .skip 4
fault_address:  .skip 4
saved_stack:    .skip 4
real_interrupts: .skip 4
number: .skip   15
number_end:     .skip 1
        .balign 8
idt:    .skip   32 * 8
idt_64: .skip   15 * 16
        .bss
        .balign 16
        .skip   4096
stack_end:
