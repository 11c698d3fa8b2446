/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Says "x" on the serial line with its first instructions, then ends: for the time from a program's start to the guest's. */
    .code32
    .section .text
    .align 4
    .long 0x1badb002, 0, -0x1badb002
    .globl _start
_start:
    movw $0x3f8, %dx
    movb $'x', %al
    outb %al, %dx
    movl $7, %eax
    outl %eax, $0xf4
1:  hlt
    jmp 1b
