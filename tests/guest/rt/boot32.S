/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 32-bit guests: the multiboot entry is already flat protected mode without paging. */
#define STUB_SIZE 16

    .section .multiboot, "ax"
    .align 4
    .long 0x1badb002, 0, -0x1badb002

    .text
    .code32
    .globl _start
_start:
    cli
    cld
    movl $boot_stack_top, %esp
    movl %cr0, %eax
    orl $0x20, %eax
    movl %eax, %cr0
    pushl %ebx
    call rt_start
    call tables_load
    movl $0x100, %eax
    ltr %ax
    call guest_main
    call finish

    .globl tables_load
tables_load:
    lgdt gdt_ptr
    lidt idt_ptr
    xorl %eax, %eax
    lldt %ax
    ljmp $8, $1f
1:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    ret

    .align STUB_SIZE
    .globl trap_stubs
trap_stubs:
    .set vec, 0
    .rept 256
    .align STUB_SIZE
    .if (vec != 8) && (vec != 17) && (vec != 21) && ((vec < 10) || (vec > 14))
    pushl $0
    .endif
    pushl $vec
    jmp trap_common
    .set vec, vec + 1
    .endr

    .align 16
trap_common:
    pushl %ds
    pushl %es
    pushal
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    cld
    movl %esp, %ebp
    pushl %esp
    call on_trap
    movl %ebp, %esp
    .globl trap_return
trap_return:
    popal
    popl %es
    popl %ds
    addl $8, %esp
    iretl

/* ulong user_enter(ulong ip, ulong arg, ulong sp) */
    .globl user_enter, user_leave, user_return_stub
user_enter:
    movl 4(%esp), %eax
    movl 12(%esp), %edx
    pushl %ebx
    pushl %ebp
    pushl %esi
    pushl %edi
    pushfl
    movl %esp, user_return_sp
    movl %esp, tss + 4
    pushl user_ss
    pushl %edx
    pushl user_flags
    pushl user_cs
    pushl %eax
    movl user_ss, %eax
    movl %eax, %ds
    movl %eax, %es
    iretl
user_leave:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl user_return_sp, %esp
    popfl
    popl %edi
    popl %esi
    popl %ebp
    popl %ebx
    movl caught + 8, %eax
    ret
user_return_stub:
    int $0x80

    .data
    .align 8
    .globl gdt_ptr, idt_ptr
gdt_ptr:
    .word 0x1ff
    .long gdt
idt_ptr:
    .word 0x7ff
    .long idt

    .bss
    .align 16
    .skip 32768
    .globl boot_stack_top
boot_stack_top:
    .globl user_return_sp
user_return_sp: .skip 4
    .section .note.GNU-stack, "", @progbits
