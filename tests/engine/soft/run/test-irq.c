/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interrupts, sleep and several vCPUs: LAPIC timer, wake-ups, INIT/SIPI, locked counters, code rewritten by another vCPU. */
#include "guest.h"

#include <sched.h>
#include <sys/resource.h>

GUEST(ticks, 64,
      "mov $0xfee00000, %edi\n movl $0x1ff, 0xf0(%rdi)\n movl $0xb, 0x3e0(%rdi)\n movl $0x20020, 0x320(%rdi)\n movl $200000, 0x380(%rdi)\n"
      "sti\n 1: hlt\n cmpq $50, 0x200000\n jb 1b\n movl $0x10000, 0x320(%rdi)\n out %al, $0xf4\n 2: hlt\n jmp 2b\n"
      ".globl ticks_irq\n ticks_irq: incq 0x200000\n movl $0, 0xb0(%rdi)\n iretq\n");
extern const uint8_t ticks_irq[];

static void test_the_timer_wakes_a_halted_cpu(void **unused)
{
    guest_create(1);
    guest_load(ticks);
    guest_long(0);
    guest_gate(0x20, (uint64_t)(ticks_irq - ticks), 0);
    guest_run();
    assert_int_equal(guest_get64(DATA_AT), 50);
    guest_destroy();
}

GUEST(busy_ticks, 64,
      "mov $0xfee00000, %edi\n movl $0x1ff, 0xf0(%rdi)\n movl $0xb, 0x3e0(%rdi)\n movl $0x20020, 0x320(%rdi)\n movl $200000, 0x380(%rdi)\n"
      "sti\n 1: inc %rax\n cmpq $50, 0x200000\n jb 1b\n movl $0x10000, 0x320(%rdi)\n out %al, $0xf4\n 2: hlt\n jmp 2b\n"
      ".globl busy_ticks_irq\n busy_ticks_irq: incq 0x200000\n movl $0, 0xb0(%rdi)\n iretq\n");
extern const uint8_t busy_ticks_irq[];

static void test_the_timer_interrupts_a_busy_cpu(void **unused)
{
    guest_create(1);
    guest_load(busy_ticks);
    guest_long(0);
    guest_gate(0x20, (uint64_t)(busy_ticks_irq - busy_ticks), 0);
    guest_run();
    assert_int_equal(guest_get64(DATA_AT), 50);
    guest_destroy();
}

GUEST(sleeper, 64,
      "mov $0xfee00000, %edi\n movl $0x1ff, 0xf0(%rdi)\n sti\n 1: hlt\n jmp 1b\n"
      ".globl sleeper_irq\n sleeper_irq: incq 0x200000\n movl $0, 0xb0(%rdi)\n iretq\n");
extern const uint8_t sleeper_irq[];

static void start(pthread_t *t, unsigned i)
{
    assert_int_equal(pthread_create(t, NULL, cpu_thread, g.vm->cpus[i]), 0);
}

static void stop(pthread_t t, unsigned i)
{
    soft_kick(g.vm->cpus[i]);
    pthread_join(t, NULL);
}

/* A trap gate leaves IF set and its IST stack begins anew, the 8259 never lets go: interrupts without an instruction between them. */
GUEST(storm, 64,
      "mov $0xfee00000, %edi\n movl $0x1ff, 0xf0(%rdi)\n movl $0x700, 0x350(%rdi)\n sti\n 1: incq 0x200000\n jmp 1b\n"
      ".globl storm_irq\n storm_irq: incq 0x200008\n jmp storm_irq\n");
extern const uint8_t storm_irq[];

static int storm_ack(void *pic)
{
    return 0x20;
}

static void test_interrupts_that_never_end_leave_room_for_a_kick(void **unused)
{
    pthread_t t;
    guest_create(1);
    guest_load(storm);
    guest_long(0);
    g.irq.pic_ack = storm_ack;
    guest_put64(0x112000 + 0x24, STACK_AT - 0x1000);    /* IST1 */
    uint64_t to = GUEST_AT + (uint64_t)(storm_irq - storm);
    guest_put64(IDT_AT + 16 * 0x20, (to & 0xffff) | 8 << 16 | 0x8f01ull << 32 | (to >> 16 & 0xffff) << 48);
    start(&t, 0);
    while (!guest_get64(DATA_AT)) {
        usleep(1000);
    }
    lapic_set_extint(g.vm->cpus[0], true);
    usleep(100000);
    stop(t, 0);                         /* or the watchdog ends the test */
    assert_true(g.vm->cpus[0]->stats.irqs > 10);
    guest_destroy();
}

static void test_no_message_to_a_halted_cpu_is_lost(void **unused)
{
    pthread_t t;
    guest_create(1);
    guest_load(sleeper);
    guest_long(0);
    guest_gate(0x40, (uint64_t)(sleeper_irq - sleeper), 0);
    start(&t, 0);
    usleep(20000);
    for (unsigned i = 1; i <= 4000; i++) {
        assert_true(lapic_msi(g.vm, 0xfee00000, 0x40));
        while (guest_get64(DATA_AT) < i) {
            sched_yield();
        }
        for (unsigned spin = 0; spin < i % 64 * 16; spin++) {
            __builtin_ia32_pause();
        }
    }
    stop(t, 0);
    guest_destroy();
}

static double thread_cpu_s(void)
{
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) + (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) * 1e-6;
}

static void test_a_halted_cpu_costs_nothing(void **unused)
{
    pthread_t t;
    guest_create(1);
    guest_load(sleeper);
    guest_long(0);
    start(&t, 0);
    usleep(20000);
    double before = thread_cpu_s();
    usleep(300000);
    assert_true(thread_cpu_s() - before < 0.006);
    stop(t, 0);
    guest_destroy();
}

/* The AP starts in real mode at 0x9000 by INIT and SIPI. */
GUEST(bsp, 64,
      "mov $0xfee00000, %edi\n movl $0x1ff, 0xf0(%rdi)\n movl $0x01000000, 0x310(%rdi)\n movl $0x4500, 0x300(%rdi)\n"
      "movl $0x01000000, 0x310(%rdi)\n movl $0x4609, 0x300(%rdi)\n"
      "mov $200000, %ecx\n 1: lock incl 0xa000\n lock xaddq %rax, 0xaff9\n dec %ecx\n jnz 1b\n"
      "2: pause\n cmpl $1, 0xa010\n jne 2b\n out %al, $0xf4\n 3: hlt\n jmp 3b\n");
GUEST(ap, 16, "xor %ax, %ax\n mov %ax, %ds\n mov $200000, %ecx\n 1: lock incl 0xa000\n dec %ecx\n jnz 1b\n lock incl 0xa010\n 2: hlt\n jmp 2b\n");

static void test_a_second_cpu_starts_by_sipi_and_counts_along(void **unused)
{
    pthread_t t;
    guest_create(2);
    guest_load(bsp);
    guest_put(0x9000, ap, (size_t)(ap_end - ap));
    guest_long(0);
    start(&t, 1);
    guest_run();
    assert_int_equal(guest_get64(0xa000) & 0xffffffff, 400000);
    stop(t, 1);
    guest_destroy();
}

/* Both add to a counter that straddles two pages. */
GUEST(straddle, 64,
      "mov $20000, %ecx\n 1: lock incq 0x200ffc\n dec %ecx\n jnz 1b\n lock incl 0x201100\n"
      "2: pause\n cmpl $2, 0x201100\n jb 2b\n test %rsi, %rsi\n jnz 3f\n out %al, $0xf4\n 3: hlt\n jmp 3b\n");

static void test_locked_accesses_over_a_page_border_are_atomic(void **unused)
{
    pthread_t t;
    guest_create(2);
    guest_load(straddle);
    guest_long(0);
    guest_long(1);
    g.vm->cpus[1]->r[R_SI] = 1;
    start(&t, 1);
    guest_run();
    assert_int_equal(guest_get64(0x200ffc), 40000);
    stop(t, 1);
    guest_destroy();
}

/* One vCPU rewrites a function, tells the other by a flag, and waits for its answer. */
GUEST(patcher, 64,
      "mov $0x9000, %edx\n mov $1, %ecx\n 1: mov %ecx, 1(%rdx)\n mov %ecx, 0x200000\n 2: cmp %ecx, 0x201000\n jne 2b\n"
      "inc %ecx\n cmp $3000, %ecx\n jne 1b\n out %al, $0xf4\n 3: hlt\n jmp 3b\n");
GUEST(caller, 64,
      "mov $0x9000, %edx\n xor %ecx, %ecx\n 1: cmp %ecx, 0x200000\n je 1b\n mov 0x200000, %ebx\n push %rbx\n push %rdx\n xor %eax, %eax\n cpuid\n"
      "pop %rdx\n pop %rcx\n call *%rdx\n mov %eax, 0x201000\n jmp 1b\n");
GUEST(get_imm2, 64, "mov $0, %eax\n ret\n");

static void test_another_cpu_rewrites_running_code(void **unused)
{
    pthread_t t;
    guest_create(2);
    guest_load(patcher);
    guest_put(0x300000, caller, (size_t)(caller_end - caller));
    guest_put(0x9000, get_imm2, (size_t)(get_imm2_end - get_imm2));
    guest_long(0);
    guest_long(1);
    g.vm->cpus[1]->rip = 0x300000;
    start(&t, 1);
    guest_run();
    assert_int_equal(guest_get64(0x201000) & 0xffff, 2999);
    stop(t, 1);
    guest_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_timer_wakes_a_halted_cpu),
        cmocka_unit_test(test_the_timer_interrupts_a_busy_cpu),
        cmocka_unit_test(test_interrupts_that_never_end_leave_room_for_a_kick),
        cmocka_unit_test(test_no_message_to_a_halted_cpu_is_lost),
        cmocka_unit_test(test_a_halted_cpu_costs_nothing),
        cmocka_unit_test(test_a_second_cpu_starts_by_sipi_and_counts_along),
        cmocka_unit_test(test_locked_accesses_over_a_page_border_are_atomic),
        cmocka_unit_test(test_another_cpu_rewrites_running_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
