/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 64-bit guests: from the multiboot entry to guest_main() in long mode; trap stubs; ring 3 and back. */
#define STUB_SIZE 16
#define CR4_PAE 0x20
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define CR0_PG_WP_NE_PE 0x80010021

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
    movl %ebx, boot_info
    /* PML4[0] -> PDPT, PDPT[0..3] -> four PDs, 2048 2 MiB pages; all present, writable, user */
    movl $pdpt + 7, pml4
    movl $pds + 7, %eax
    xorl %ecx, %ecx
1:  movl %eax, pdpt(,%ecx,8)
    addl $4096, %eax
    incl %ecx
    cmpl $4, %ecx
    jb 1b
    movl $0x87, %eax
    xorl %ecx, %ecx
2:  movl %eax, pds(,%ecx,8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jb 2b
    .globl enter_long
enter_long:                             /* also from the trampoline of further CPUs */
    movl $CR4_PAE, %eax
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $MSR_EFER, %ecx
    rdmsr
    orl $EFER_LME, %eax
    wrmsr
    movl $CR0_PG_WP_NE_PE, %eax
    movl %eax, %cr0
    lgdt boot_gdt_ptr
    ljmp $8, $long_entry

    .code64
long_entry:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    lock btsl $0, bsp_up
    jc 1f
    movl $boot_stack_top, %esp
    movl boot_info, %edi
    call rt_start
    call tables_load
    xorl %eax, %eax
    movw $0x100, %ax
    ltr %ax
    call guest_main
    call finish
1:  movl $1, %eax
    lock xaddl %eax, cpus_up            /* number of this CPU: 1.. */
    movl %eax, %edi
    imull $AP_STACK_SIZE, %eax
    leaq ap_stacks(%rax), %rsp
    push %rdi
    call tables_load
    movl (%rsp), %eax
    shll $4, %eax
    addl $0x100, %eax
    ltr %ax
    pop %rdi
    push $0
    call ap_main
1:  cli
    hlt
    jmp 1b

    .globl tables_load
tables_load:
    lgdt gdt_ptr
    lidt idt_ptr
    xorl %eax, %eax
    lldt %ax
    pushq $8
    pushq $1f
    lretq
1:  movl $0x10, %eax
    movl %eax, %ss
    ret

/* --- traps --- */
    .align STUB_SIZE
    .globl trap_stubs
trap_stubs:
    .set vec, 0
    .rept 256
    .align STUB_SIZE
    .if (vec != 8) && (vec != 17) && (vec != 21) && ((vec < 10) || (vec > 14))
    pushq $0
    .endif
    pushq $vec
    jmp trap_common
    .set vec, vec + 1
    .endr

    .align 16
trap_common:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    movq %rsp, %rdi
    movq %rsp, %rbp
    andq $-16, %rsp
    call on_trap
    movq %rbp, %rsp
    .globl trap_return
trap_return:                            /* RSP = struct regs */
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    addq $16, %rsp
    iretq

/* ulong user_enter(ulong ip, ulong arg, ulong sp); on the CPU whose TSS is the first */
    .globl user_enter, user_leave, user_return_stub
user_enter:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    pushfq
    movq %rsp, user_return_sp
    movq %rsp, tss + 4
    push user_ss
    push %rdx
    push user_flags
    push user_cs
    push %rdi
    movq %rsi, %rdi
    iretq
user_leave:
    movq user_return_sp, %rsp
    movl $0x10, %eax
    movl %eax, %ss
    movl %eax, %ds
    movl %eax, %es
    popfq
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    movq caught + 16, %rax
    ret
user_return_stub:
    int $0x80

    .data
    .align 8
boot_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
boot_gdt_ptr:
    .word boot_gdt_ptr - boot_gdt - 1
    .quad boot_gdt
    .globl gdt_ptr, idt_ptr
gdt_ptr:
    .word 0x1ff
    .quad gdt
idt_ptr:
    .word 0xfff
    .quad idt
    .globl cpus_up
cpus_up:
    .long 1
bsp_up:
    .long 0
boot_info:
    .quad 0

    .bss
    .align 4096
    .globl pml4, pdpt, pds, boot_stack_top
pml4:   .skip 4096
pdpt:   .skip 4096
pds:    .skip 4 * 4096
    .skip 32768
boot_stack_top:
    .equ AP_STACK_SIZE, 16384
    .align 16
ap_stacks:
    .skip 9 * AP_STACK_SIZE
user_return_sp: .skip 8
    .section .note.GNU-stack, "", @progbits
