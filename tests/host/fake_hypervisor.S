# A stand-in for the hypervisor, for tests of the host side: prints two guests' lines and a prompt, then obeys one key.
# 'o': ends well. 'g': a guest failed. 't': triple fault. Bochs shuts down by its port 0x8900.
        .code32
        .section .note.pvh, "a", @note
        .long 4, 4, 18                  # PVH entry point, 32-bit
        .asciz "Xen"
        .long start
        .section .multiboot2, "a"
        .align 8
        .long 0xe85250d6, 0, 24, -(0xe85250d6 + 24)
        .short 0, 0
        .long 8

        .text
        .globl start
start:  mov $stack, %esp
        mov $0x3fb, %dx                 # line control: 8 bits, no parity, 1 stop bit
        mov $3, %al
        out %al, %dx
        mov $greeting, %esi
        call print
1:      mov $0x3fd, %dx
        in %dx, %al
        test $1, %al                    # data ready
        jz 1b
        mov $0x3f8, %dx
        in %dx, %al
        cmp $'o', %al
        je well
        cmp $'g', %al
        je failed
        cmp $'t', %al
        jne 1b
        lidt nothing
        int3

well:   mov $well_text, %esi
        call print
        mov $0x10, %eax
        mov $0xf4, %dx
        out %al, %dx
        xchg %bx, %bx
failed: mov $failed_text, %esi
        call print
        mov $0x11, %eax
        mov $0xf4, %dx
        out %al, %dx
        mov $shutdown, %esi
        mov $0x8900, %dx
        mov $8, %ecx
        rep outsb
2:      hlt
        jmp 2b

print:  lodsb
        test %al, %al
        jz 2f
        mov %al, %bl
        mov $0x3fd, %dx
1:      in %dx, %al
        test $0x20, %al                 # transmitter empty
        jz 1b
        mov $0x3f8, %dx
        mov %bl, %al
        out %al, %dx
        jmp print
2:      mov $0x3fd, %dx                 # all sent
        in %dx, %al
        test $0x40, %al
        jz 2b
        ret

        .data
greeting:       .asciz "krait: fake\r\n[ada] one\r\n[bob] two\r\nkrait> "
well_text:      .asciz "\r\033[Kledger: ok\r\nkrait: exit 0x10\r\n"
failed_text:    .asciz "\r\033[Kledger: ok\r\nkrait: exit 0x11\r\n"
shutdown:       .ascii "Shutdown"
nothing:        .long 0, 0
        .bss
        .skip 4096
stack:
