/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small programs run by run/'s loop, where sys/ and the loop must agree: single steps, breakpoints, changes of level. */
#include "fixture.h"

#include <unistd.h>

#define GUEST(name, text)                                                                                              \
    extern const uint8_t name[], name##_end[];                                                                         \
    __asm__(".pushsection .rodata\n.globl " #name "\n" #name ":\n" text "\n.globl " #name "_end\n" #name "_end:\n.popsection")

static uint32_t exit_value;

static void port_write(struct io_region *r, uint64_t off, uint64_t val, unsigned width)
{
    exit_value = (uint32_t)val;
    soft_kick(f.c);
}

/* Runs `code` at CODE in 64-bit mode, CPL `cpl`, until it writes to port f4h; the value written. */
static uint32_t run_guest(const uint8_t *code, const uint8_t *end)
{
    struct err err = ERR_INIT;
    static const struct io_handler h = { .write = port_write, .min_width = 1, .max_width = 4 };
    struct io_region r = { .name = "exit", .space = MEM_PIO, .base = 0xf4, .size = 4, .h = &h };
    assert_true(mem_io_map(f.mem, &r, &err));
    assert_true(mem_write(f.mem, CODE, code, (size_t)(end - code)));
    f.c->st.rflags |= X86_IOPL;
    exit_value = 0xdead;
    alarm(20);
    assert_int_equal(soft_run(f.c), SOFT_EXIT_KICKED);
    alarm(0);
    mem_io_unmap(f.mem, &r);
    return exit_value;
}

/* An instruction breakpoint in the middle of straight code, hit three times; the handler sets RF to pass it. */
GUEST(breakpoint_code,
      "    lea 4f(%rip), %rax\n"
      "    mov %rax, %dr0\n"
      "    mov $1, %eax\n"
      "    mov %rax, %dr7\n"
      "    xor %ebx, %ebx\n"
      "    mov $3, %ecx\n"
      "1:  nop\n"
      "    inc %edx\n"
      "4:  nop\n"
      "    dec %ecx\n"
      "    jnz 1b\n"
      "    mov %ebx, %eax\n"
      "    out %eax, $0xf4\n"
      "    hlt\n"
      "    .org breakpoint_code + 0x100\n"          /* #DB */
      "    add $0x101, %ebx\n"
      "    mov %dr6, %rax\n"
      "    test $1, %al\n"
      "    jz 5f\n"
      "    orl $0x10000, 16(%rsp)\n"
      "    iretq\n"
      "5:  mov $0xbad, %eax\n"
      "    out %eax, $0xf4\n");

static void test_an_instruction_breakpoint_hits_inside_a_block(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    idt64(EXC_DB, CS64, CODE + 0x100, 0x8e, 0);
    assert_int_equal(run_guest(breakpoint_code, breakpoint_code_end), 0x303);
    teardown();
}

/* TF over a syscall-like gate, a shadow and a REP: counts traps. */
GUEST(step_code,
      "    xor %ebx, %ebx\n"
      "    pushfq\n"
      "    orl $0x100, (%rsp)\n"
      "    popfq\n"                                 /* sets TF: the next instruction is the first to trap */
      "    nop\n"                                   /* 1 */
      "    int $0x40\n"                             /* no trap of its own; its handler's IRET brings TF back */
      "    nop\n"                                   /* 2 */
      "    mov %ss, %eax\n"                         /* 3 */
      "    mov %eax, %ss\n"                         /* none: shadow */
      "    nop\n"                                   /* 4 */
      "    pushfq\n"                                /* 5 */
      "    andl $~0x100, (%rsp)\n"                  /* 6 */
      "    popfq\n"                                 /* 7: TF was set when it began */
      "    nop\n"
      "    mov %ebx, %eax\n"
      "    out %eax, $0xf4\n"
      "    hlt\n"
      "    .org step_code + 0x100\n"
      "    inc %ebx\n"
      "    iretq\n"
      "    .org step_code + 0x180\n"
      "    nop\n"
      "    iretq\n");

static void test_single_steps_are_counted_exactly(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    idt64(EXC_DB, CS64, CODE + 0x100, 0x8e, 0);
    idt64(0x40, CS64, CODE + 0x180, 0x8e, 0);
    assert_int_equal(run_guest(step_code, step_code_end), 7);
    teardown();
}

/* CPL 0 -> 3 by IRET, back by SYSCALL, out again by SYSRET, back by INT, a #GP at CPL 3 on the way. */
GUEST(level_code,
      "    mov $0xc0000081, %ecx\n"                 /* STAR: kernel 28h, user base 70h: data 7bh, 64-bit code 83h */
      "    xor %eax, %eax\n"
      "    mov $0x00700028, %edx\n"
      "    wrmsr\n"
      "    mov $0xc0000082, %ecx\n"
      "    lea 3f(%rip), %rax\n"
      "    xor %edx, %edx\n"
      "    wrmsr\n"
      "    xor %ebx, %ebx\n"
      "    mov $0x9000, %ebp\n"
      "    push $0x7b\n"
      "    push %rbp\n"
      "    push $0x3002\n"
      "    push $0x83\n"
      "    lea 1f(%rip), %rax\n"
      "    push %rax\n"
      "    iretq\n"
      "1:  mov %cs, %eax\n"
      "    and $3, %eax\n"
      "    add %eax, %ebx\n"                        /* +3 */
      "    syscall\n"
      "    add $0x10, %ebx\n"
      "    hlt\n"                                   /* #GP at CPL 3: the handler skips it */
      "    int $0x40\n"
      "3:  add $0x100, %ebx\n"
      "    sysretq\n"
      "    .org level_code + 0x100\n"               /* #GP */
      "    add $0x1000, %ebx\n"
      "    add $8, %rsp\n"
      "    incq (%rsp)\n"
      "    iretq\n"
      "    .org level_code + 0x180\n"
      "    mov %ebx, %eax\n"
      "    out %eax, $0xf4\n"
      "    hlt\n");

static void test_levels_change_by_every_door(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    poke(GDT + 0x78, 8, descriptor(0, 0xfffff, 0xf2, 0xc0));
    poke(GDT + 0x80, 8, descriptor(0, 0xfffff, 0xfa, 0xa0));
    idt64(EXC_GP, CS64, CODE + 0x100, 0x8e, 0);
    idt64(0x40, CS64, CODE + 0x180, 0xee, 0);
    f.c->st.rflags &= ~(uint64_t)X86_IOPL;
    assert_int_equal(run_guest(level_code, level_code_end), 0x1113);
    teardown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_instruction_breakpoint_hits_inside_a_block),
        cmocka_unit_test(test_single_steps_are_counted_exactly),
        cmocka_unit_test(test_levels_change_by_every_door),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
