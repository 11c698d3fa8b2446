/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copied to 8000 and entered there in real mode by SIPI: to flat protected mode, then with the boot code to long mode. */
    .text
    .code16
    .globl smp_trampoline, smp_trampoline_end
smp_trampoline:
    cli
    movw %cs, %ax
    movw %ax, %ds
    lgdtl tr_gdt_ptr - smp_trampoline
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $8, $0x8000 + (1f - smp_trampoline)
    .code32
1:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $enter_long, %eax
    jmp *%eax
    .align 8
tr_gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
tr_gdt_ptr:
    .word tr_gdt_ptr - tr_gdt - 1
    .long 0x8000 + (tr_gdt - smp_trampoline)
smp_trampoline_end:
    .section .note.GNU-stack, "", @progbits
