/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Real-mode part of the guest `real`, copied to 20000 and run with CS = DS = SS = 2000; every address is relative to T.
 * A test ends by RET with its result in EAX; what an interrupt or exception found is in r_*, NONE when there was none.
 */
#define V(x) (x - T)
#define TRY movw $V(9f), %cs:V(r_resume)
#define SEG 0x2000
    .text
    .globl real_T, real_end, real_call
real_T:
T:
    .code16
    .org T + 0x12                       /* where a jump from FFF2 + 20 wraps to */
    movw $0x77, %ax
    ret
    .org T + 0x20
rm_enter16:                             /* 16-bit protected mode: first give every segment a limit of 64 KiB */
    movw $0x50, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %fs
    movw %ax, %gs
    movw %ax, %ss
    movl %cr0, %eax
    andb $0xfe, %al
    movl %eax, %cr0
    ljmp $SEG, $V(1f)
1:  movw $SEG, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %fs
    movw %ax, %gs
    movw %ax, %ss
    movl $0xfff0, %esp
    lidtl V(ivt_ptr)
    movw $0xffff, V(r_vec)
    movw $0, V(r_count)
    movl $0, %eax
    callw *V(fn)
    cli
    movl %eax, %cs:V(r_result)
    movw $SEG, %ax
    movw %ax, %ds
    lgdtl V(gdt_copy)
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $8, $real_back
    .align 8
    .globl ivt_ptr
ivt_ptr: .word 0x3ff
    .long 0
gdt_copy: .word 0x1ff
    .long gdt
short_ivt: .word 0x7f
    .long 0
    .globl real_fn, real_vec, real_ip, real_cs, real_flags, real_count, real_result, real_resume
real_fn:
fn: .word 0
real_vec:
r_vec: .word 0
real_ip:
r_ip: .word 0
real_cs:
r_cs: .word 0
real_flags:
r_flags: .word 0
real_count:
r_count: .word 0
real_resume:
r_resume: .word 0
    .align 4
real_result:
r_result: .long 0

    .globl real_stubs
real_stubs:
    .set n, 0
    .rept 128
    .org real_stubs + 8 * n - 0
    pushw $n
    jmp common
    .set n, n + 1
    .endr
    .org real_stubs + 8 * 128
common:
    pushw %bp
    movw %sp, %bp
    pushw %ax
    movw 2(%bp), %ax
    movw %ax, %cs:V(r_vec)
    movw 4(%bp), %ax
    movw %ax, %cs:V(r_ip)
    movw 6(%bp), %ax
    movw %ax, %cs:V(r_cs)
    movw 8(%bp), %ax
    movw %ax, %cs:V(r_flags)
    incw %cs:V(r_count)
    movw %cs:V(r_resume), %ax
    testw %ax, %ax
    jz 1f
    movw %ax, 4(%bp)
    movw $0, %cs:V(r_resume)
1:  popw %ax
    popw %bp
    addw $2, %sp
    iretw

#define TEST(name) .globl name; name
TEST(t_int): stc; int $0x60; 9: movw $V(9b), %ax; subw %cs:V(r_ip), %ax; movzwl %ax, %eax; ret
TEST(t_int_if): sti; int $0x60; pushfw; popw %ax; cli; movzwl %ax, %eax; ret
TEST(t_div): TRY; xorw %cx, %cx; 8: divw %cx; 9: movw $V(8b), %ax; subw %cs:V(r_ip), %ax; movzwl %ax, %eax; ret
TEST(t_int3): int3; 9: movw $V(9b), %ax; subw %cs:V(r_ip), %ax; movzwl %ax, %eax; ret
TEST(t_into): movb $0x7f, %al; incb %al; into; xorl %eax, %eax; ret
TEST(t_bound): TRY; movw $9, %ax; boundw %ax, V(bounds); 9: xorl %eax, %eax; ret
bounds: .word 1, 5
TEST(t_ud): TRY; ud2; 9: xorl %eax, %eax; ret
TEST(t_limit_byte): TRY; movb 0xffff, %al; 9: xorl %eax, %eax; ret
TEST(t_limit_word): TRY; movw 0xffff, %ax; 9: xorl %eax, %eax; ret
TEST(t_limit_dword): TRY; movl 0xfffd, %eax; 9: xorl %eax, %eax; ret
TEST(t_limit_stack): TRY; movw $0xffff, %bp; movw (%bp), %ax; 9: xorl %eax, %eax; ret
TEST(t_limit_32): TRY; movl $0x10000, %ebx; movb (%ebx), %al; 9: xorl %eax, %eax; ret
TEST(t_push_wrap): movw %sp, %bx; xorw %sp, %sp; pushw $0x1234; movw %sp, %ax; shll $16, %eax; popw %ax; movw %bx, %sp; ret
TEST(t_push_sp): movw %sp, %bx; pushw %sp; popw %ax; subw %bx, %ax; movzwl %ax, %eax; ret
TEST(t_high): movw $0xffff, %ax; movw %ax, %es; movl %es:0x10, %eax; ret
TEST(t_popf): pushl $0x00247000 + 2; popfl; pushfl; popl %eax; pushl $2; popfl; ret
TEST(t_lods_wrap): movw $0xffff, %si; lodsb; movw %si, %ax; movzwl %ax, %eax; ret
TEST(t_stos_wrap): movw $0x3000, %ax; movw %ax, %es; movw $0xfffe, %di; movw $4, %cx; movb $0x5a, %al; rep stosb; movw %di, %ax; movzwl %ax, %eax; ret
TEST(t_far): movw %sp, %bx; pushw $1; lcall $SEG, $V(far_target); subw %bx, %sp; movw %sp, %cx; addw %bx, %sp; shll $16, %eax; movw %cx, %ax; ret
far_target: movw $0x66, %ax; lret $2
TEST(t_iret32): pushfl; pushl $SEG; pushl $V(1f); iretl; ud2; 1: movl $0x99, %eax; ret
TEST(t_ip_wrap): pushw $V(1f); movw $0xfff0, %bx; jmp *%bx; 1: movzwl %ax, %eax; ret
TEST(t_arpl): TRY; .byte 0x63, 0xc0; 9: xorl %eax, %eax; ret
TEST(t_lar): TRY; lar %ax, %ax; 9: xorl %eax, %eax; ret
TEST(t_sldt): TRY; sldt %ax; 9: xorl %eax, %eax; ret
TEST(t_ltr): TRY; ltr %ax; 9: xorl %eax, %eax; ret
TEST(t_verr): TRY; verr %ax; 9: xorl %eax, %eax; ret
TEST(t_mov_cs): TRY; .byte 0x8e, 0xc8; 9: xorl %eax, %eax; ret
TEST(t_idt_limit): lidtl V(short_ivt); TRY; 8: int $0x60; 9: lidtl V(ivt_ptr); movw $V(8b), %ax; subw V(r_ip), %ax; movzwl %ax, %eax; ret
TEST(t_step): pushfw; popw %ax; movw %ax, %cx; orw $0x100, %ax; pushw %ax; popfw
    nop; nop; movw %ss, %dx; movw %dx, %ss; nop; pushw %cx; popfw; movzwl V(r_count), %eax; ret
TEST(t_smsw): smsww %ax; andl $1, %eax; ret
TEST(t_cr0): movl %cr0, %eax; andl $1, %eax; ret
TEST(t_loop): movl $0x10003, %ecx; xorl %eax, %eax; 1: incl %eax; loop 1b; ret
TEST(t_lss): movw %ss, %bx; movw %sp, %cx; lssw V(stack_far), %sp; movw %sp, %ax; shll $16, %eax; movw %ss, %ax; movw %bx, %ss; movw %cx, %sp; ret
stack_far: .word 0x1000, 0x3000
TEST(t_unreal): cli; movl %cr0, %eax; orb $1, %al; movl %eax, %cr0; movw $0x10, %bx; movw %bx, %ds; movw %bx, %fs; andb $0xfe, %al; movl %eax, %cr0
    movl $0x600000, %ebx; movl %fs:(%ebx), %eax; movw $SEG, %cx; movw %cx, %ds; movl $0x600000 - 0x20000, %ebx; addl (%ebx), %eax; ret
TEST(t_hlt): sti; hlt; cli; movb $0x20, %al; outb %al, $0x20; movzwl V(r_vec), %eax; ret
    .balign 16
real_end:

/* void real_call(void): runs *fn in real mode; 32-bit caller */
    .code32
real_call:
    pushal
    movl %esp, saved_esp
    ljmp $0x48, $V(rm_enter16)
real_back:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl saved_esp, %esp
    lidt idt_ptr
    popal
    ret
    .bss
    .align 4
saved_esp: .long 0
    .section .note.GNU-stack, "", @progbits
