/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Loads an empty interrupt table and takes an exception: triple fault. */
    .code32
    .section .text
    .align 4
    .long 0x1badb002, 0, -0x1badb002
    .globl _start
_start:
    lidt empty
    ud2
empty:
    .word 0
    .long 0
