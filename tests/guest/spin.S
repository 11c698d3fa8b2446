/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Waits for ever with interrupts off, without using the CPU. */
    .code32
    .section .text
    .align 4
    .long 0x1badb002, 0, -0x1badb002
    .globl _start
_start:
    cli
1:  hlt
    jmp 1b
