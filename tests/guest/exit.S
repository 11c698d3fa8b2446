/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The shortest guest: multiboot 1, writes 7 to the debug-exit port. For start-up figures and exit statuses. */
    .code32
    .section .text
    .align 4
    .long 0x1badb002, 0, -0x1badb002
    .globl _start
_start:
    movl $7, %eax
    outl %eax, $0xf4
1:  hlt
    jmp 1b
