# /init of `krait bench linux`: says what the TSC is when user space begins, and powers off. x86-64 Linux, no libraries.
        .set SYS_WRITE, 1
        .set SYS_OPEN, 2
        .set SYS_IOCTL, 16
        .set OPEN_WRITE, 1
        .set SYS_REBOOT, 169
        .set TCSBRK, 0x5409             # argument 1: wait until all output is sent
        .set REBOOT_MAGIC1, 0xfee1dead
        .set REBOOT_MAGIC2, 0x28121969
        .set REBOOT_POWER_OFF, 0x4321fedc

        .globl _start
_start: rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        lea     digits_end(%rip), %rdi
        mov     $16, %ecx
1:      mov     %eax, %edx
        and     $15, %edx
        lea     hex(%rip), %rsi
        mov     (%rsi, %rdx), %dl
        dec     %rdi
        mov     %dl, (%rdi)
        shr     $4, %rax
        dec     %ecx
        jnz     1b
        mov     $SYS_OPEN, %eax         # not the console: the kernel may have none yet
        lea     port(%rip), %rdi
        mov     $OPEN_WRITE, %esi
        syscall
        mov     %eax, %ebx
        mov     $SYS_WRITE, %eax
        mov     %ebx, %edi
        lea     line(%rip), %rsi
        mov     $line_end - line, %edx
        syscall
        mov     $SYS_IOCTL, %eax
        mov     %ebx, %edi
        mov     $TCSBRK, %esi
        mov     $1, %edx
        syscall
        mov     $SYS_REBOOT, %eax
        mov     $REBOOT_MAGIC1, %edi
        mov     $REBOOT_MAGIC2, %esi
        mov     $REBOOT_POWER_OFF, %edx
        syscall
        hlt

hex:    .ascii  "0123456789abcdef"
port:   .asciz  "/dev/ttyS0"
        .data
line:   .ascii  "bench: tsc "
        .skip   16, '0'
digits_end:
        .ascii  "\n"
line_end:
        .section .note.GNU-stack, "", @progbits
