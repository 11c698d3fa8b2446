/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whole guests of a few instructions on one vCPU: modes, faults at block edges, code that changes, stepping. */
#include "guest.h"

#include <sys/resource.h>

/* --- modes --- */
GUEST(real_loop, 16,
      "xor %eax, %eax\n mov $1000, %cx\n 1: add %cx, %ax\n loop 1b\n mov %ax, 0x9000\n"
      "movl $0x1234, %ebx\n mov %ebx, 0x9004\n mov $7, %al\n out %al, $0xf4\n hlt\n");

static void test_real_mode_runs_a_loop(void **unused)
{
    guest_create(1);
    guest_load(real_loop);
    guest_real(0);
    assert_int_equal(guest_run(), SOFT_EXIT_KICKED);
    assert_int_equal(atomic_load(&g.exit_value), 7);
    assert_int_equal(guest_get64(0x9000) & 0xffff, 500500 & 0xffff);
    assert_int_equal(guest_get64(0x9004) & 0xffffffff, 0x1234);
    assert_in_range(g.vm->cpus[0]->insns, 2000, 2020);
    guest_destroy();
}

GUEST(real_to_long, 16,
      "cli\n lgdtl 0x8000 + (8f - real_to_long)\n mov %cr0, %eax\n or $1, %al\n mov %eax, %cr0\n"
      "ljmpl $0x28, $0x8000 + (1f - real_to_long)\n"
      ".code32\n 1: mov $0x10, %ax\n mov %ax, %ds\n mov %ax, %es\n mov %ax, %ss\n mov $0x180000, %esp\n push $0x77\n pop %ebx\n"
      "mov %cr4, %eax\n or $0x20, %eax\n mov %eax, %cr4\n mov $0x100000, %eax\n mov %eax, %cr3\n"
      "mov $0xc0000080, %ecx\n rdmsr\n or $0x900, %eax\n wrmsr\n mov %cr0, %eax\n or $0x80000000, %eax\n mov %eax, %cr0\n"
      "ljmp $8, $0x8000 + (2f - real_to_long)\n"
      ".code64\n 2: movabs $0x123456789abcdef0, %rax\n add %rbx, %rax\n mov %rax, 0x200000\n mov $42, %al\n out %al, $0xf4\n"
      "3: hlt\n jmp 3b\n"
      ".code16\n 8: .word 63\n .long 0x111000\n");

static void test_a_guest_climbs_from_real_to_long_mode(void **unused)
{
    guest_create(1);
    guest_load(real_to_long);
    guest_tables();
    guest_real(0);
    assert_int_equal(guest_run(), SOFT_EXIT_KICKED);
    assert_int_equal(atomic_load(&g.exit_value), 42);
    assert_true(guest_get64(DATA_AT) == 0x123456789abcdef0ull + 0x77);
    guest_destroy();
}

GUEST(sse, 64,
      "mov $100, %ecx\n pxor %xmm1, %xmm1\n 1: cvtsi2sd %ecx, %xmm0\n addsd %xmm0, %xmm1\n dec %ecx\n jnz 1b\n"
      "cvtsd2si %xmm1, %rax\n mov %rax, 0x200000\n movsd %xmm1, 0x200008\n movsd 0x200008, %xmm2\n addsd %xmm2, %xmm2\n"
      "cvtsd2si %xmm2, %rax\n mov %rax, 0x200010\n out %al, $0xf4\n 2: hlt\n jmp 2b\n");

static void test_vector_instructions_run_as_native_copies(void **unused)
{
    guest_create(1);
    guest_load(sse);
    guest_long(0);
    guest_run();
    assert_int_equal(guest_get64(DATA_AT), 5050);
    assert_int_equal(guest_get64(DATA_AT + 16), 10100);
    guest_destroy();
}

/* --- faults --- */
GUEST(triple, 64, "lidt 0x200000\n ud2\n");

static void test_a_triple_fault_shuts_down(void **unused)
{
    guest_create(1);
    guest_load(triple);
    guest_long(0);
    assert_int_equal(guest_run(), SOFT_EXIT_SHUTDOWN);
    guest_destroy();
}

GUEST(cross, 64,
      "mov $0x280ffd, %eax\n jmp *%rax\n"
      ".globl cross_pf\n cross_pf: incq 0x200000\n mov %cr2, %rax\n mov %rax, 0x200008\n pop 0x200010\n"
      "mov (%rsp), %rax\n mov %rax, 0x200018\n movq $0x281007, 0x130408\n iretq\n");
GUEST(cross_insn, 64, "mov $0x55, %ebx\n mov %rbx, 0x200020\n out %al, $0xf4\n 1: hlt\n jmp 1b\n");
extern const uint8_t cross_pf[];

/* 2..4 MiB by 4 KiB pages from a table at 0x130000. */
static void small_pages(void)
{
    for (unsigned i = 0; i < 512; i++) {
        guest_put64(0x130000 + 8 * i, (0x200000 + i * 4096ull) | 7);
    }
    guest_put64(TABLES + 0x2008, 0x130000 | 7);
}

static void test_an_instruction_over_a_page_faults_on_its_second_page(void **unused)
{
    guest_create(1);
    guest_load(cross);
    guest_long(0);
    small_pages();
    guest_put(0x280ffd, cross_insn, (size_t)(cross_insn_end - cross_insn));
    guest_put64(0x130000 + 8 * 0x81, 0);
    guest_gate(EXC_PF, (uint64_t)(cross_pf - cross), 0);
    guest_run();
    assert_int_equal(guest_get64(DATA_AT), 1);
    assert_true(guest_get64(DATA_AT + 8) == 0x281000);
    assert_int_equal(guest_get64(DATA_AT + 16), PF_I);
    assert_true(guest_get64(DATA_AT + 24) == 0x280ffd);
    assert_int_equal(guest_get64(DATA_AT + 32), 0x55);
    guest_destroy();
}

GUEST(far_rip, 64,
      "lea 0x7fffffff(%rip), %rbx\n mov 0x7ffffffe(%rip), %eax\n"
      ".globl far_rip_pf\n far_rip_pf: mov %rbx, 0x200000\n mov %cr2, %rax\n mov %rax, 0x200008\n out %al, $0xf4\n 1: hlt\n jmp 1b\n");
extern const uint8_t far_rip_pf[];

static void test_a_displacement_at_the_edge_of_32_bits_is_exact(void **unused)
{
    guest_create(1);
    guest_load(far_rip);
    guest_long(0);
    guest_gate(EXC_PF, (uint64_t)(far_rip_pf - far_rip), 0);
    guest_run();
    assert_true(guest_get64(DATA_AT) == GUEST_AT + 7 + 0x7fffffffull);
    assert_true(guest_get64(DATA_AT + 8) == GUEST_AT + 13 + 0x7ffffffeull);
    guest_destroy();
}

GUEST(trap_flag, 64,
      "pushfq\n orl $0x100, (%rsp)\n popfq\n nop\n nop\n nop\n pushfq\n andl $~0x100, (%rsp)\n popfq\n nop\n"
      "out %al, $0xf4\n 1: hlt\n jmp 1b\n"
      ".globl trap_flag_db\n trap_flag_db: incq 0x200000\n iretq\n");
extern const uint8_t trap_flag_db[];

static void test_the_trap_flag_stops_after_each_instruction(void **unused)
{
    guest_create(1);
    guest_load(trap_flag);
    guest_long(0);
    guest_gate(EXC_DB, (uint64_t)(trap_flag_db - trap_flag), 0);
    guest_run();
    assert_int_equal(guest_get64(DATA_AT), 6);
    guest_destroy();
}

GUEST(cs_limit, 16, "jmp 1f\n .org 0x7ff0\n 1: nop\n .fill 14, 1, 0x90\n nop\n");

static void test_running_off_the_64k_segment_is_a_fault(void **unused)
{
    static const uint8_t handler[] = { 0x8f, 0x06, 0x00, 0x60, 0xe6, 0xf4, 0xf4 };     /* pop [0x6000]; out 0xf4, al; hlt */
    static const uint16_t vector[2] = { 0x5000, 0 };
    guest_create(1);
    guest_load(cs_limit);
    guest_put(0x5000, handler, sizeof(handler));
    guest_put(EXC_GP * 4, vector, 4);
    guest_real(0);
    guest_run();
    assert_int_equal(atomic_load(&g.n_exits), 1);
    guest_destroy();
}

/* --- code that changes --- */
GUEST(smc_ahead, 64,
      "xor %eax, %eax\n mov $5, %ecx\n 1: incb 2f + 2(%rip)\n 2: add $0, %eax\n dec %ecx\n jnz 1b\n mov %rax, 0x200000\n"
      "xor %eax, %eax\n mov $5, %ecx\n 3: mov %cl, 4f + 2(%rip)\n 4: add $0, %eax\n dec %ecx\n jnz 3b\n mov %rax, 0x200008\n"
      "lea 5f(%rip), %rdi\n mov $0x90, %al\n mov $2, %ecx\n rep stosb\n 5: ud2\n mov $1, %eax\n mov %rax, 0x200010\n"
      "out %al, $0xf4\n 6: hlt\n jmp 6b\n");

static void test_a_store_just_ahead_of_itself_is_seen(void **unused)
{
    guest_create(1);
    guest_load(smc_ahead);
    guest_long(0);
    assert_int_equal(guest_run(), SOFT_EXIT_KICKED);
    assert_int_equal(guest_get64(DATA_AT), 15);
    assert_int_equal(guest_get64(DATA_AT + 8), 15);
    assert_int_equal(guest_get64(DATA_AT + 16), 1);
    guest_destroy();
}

GUEST(smc_far, 64,
      "mov $0x9000, %edx\n mov $1000, %ecx\n xor %ebx, %ebx\n 1: mov %ecx, 1(%rdx)\n call *%rdx\n add %rax, %rbx\n dec %ecx\n jnz 1b\n"
      "mov %rbx, 0x200000\n out %al, $0xf4\n 2: hlt\n jmp 2b\n");
GUEST(get_imm, 64, "mov $0, %eax\n ret\n");

static void test_code_on_another_page_changes_between_calls(void **unused)
{
    guest_create(1);
    guest_load(smc_far);
    guest_put(0x9000, get_imm, (size_t)(get_imm_end - get_imm));
    guest_long(0);
    guest_run();
    assert_int_equal(guest_get64(DATA_AT), 500500);
    guest_destroy();
}

GUEST(dma_loop, 64,
      "mov $0x9000, %edx\n 1: call *%rdx\n mov %rax, 0x200000\n cmp $2000, %eax\n jb 1b\n out %al, $0xf4\n 2: hlt\n jmp 2b\n");

static void test_a_device_rewrites_running_code(void **unused)
{
    guest_create(1);
    guest_load(dma_loop);
    guest_put(0x9000, get_imm, (size_t)(get_imm_end - get_imm));
    guest_long(0);
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, cpu_thread, g.vm->cpus[0]), 0);
    for (uint32_t i = 1; i <= 2000; i++) {
        guest_put(0x9001, &i, 4);
        code_written(g.vm, 0x9001, 4);
        while (guest_get64(DATA_AT) < i) {
            sched_yield();
        }
    }
    pthread_join(t, NULL);
    assert_int_equal(atomic_load(&g.n_exits), 1);
    guest_destroy();
}

/* --- kick, step, speed --- */
GUEST(forever, 64, "1: inc %rax\n jmp 1b\n");

static void test_an_endless_loop_obeys_a_kick(void **unused)
{
    guest_create(1);
    guest_load(forever);
    guest_long(0);
    pthread_t t;
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(pthread_create(&t, NULL, cpu_thread, g.vm->cpus[0]), 0);
        usleep(200);
        soft_kick(g.vm->cpus[0]);
        pthread_join(t, NULL);
    }
    assert_true(g.vm->cpus[0]->r[R_AX] > 1000);
    guest_destroy();
}

static void test_stepping_executes_what_it_was_asked_for(void **unused)
{
    guest_create(1);
    guest_load(forever);
    guest_long(0);
    struct soft_cpu *c = g.vm->cpus[0];
    assert_int_equal(soft_step(c, 1, false), 1);
    assert_int_equal(c->r[R_AX], 1);
    assert_int_equal(c->rip, GUEST_AT + 3);
    assert_int_equal(soft_step(c, 9, false), 9);
    assert_int_equal(c->r[R_AX], 5);
    assert_int_equal(c->rip, GUEST_AT);
    guest_destroy();
}

GUEST(speed, 64,
      "mov $3000000, %ecx\n mov $0x200000, %edi\n xor %eax, %eax\n"
      "1: mov %rcx, %rdx\n and $0xff8, %edx\n add (%rdi,%rdx), %rax\n lea 1(%rax,%rcx,2), %rbx\n mov %rbx, (%rdi,%rdx)\n"
      "test $1, %bl\n jz 2f\n xor %rcx, %rax\n 2: push %rax\n call 3f\n pop %rbx\n dec %ecx\n jnz 1b\n out %al, $0xf4\n 4: hlt\n jmp 4b\n"
      "3: shr $1, %rbx\n ret\n");

static void test_blocks_are_reused(void **unused)
{
    struct timespec a, b;
    guest_create(1);
    guest_load(speed);
    guest_long(0);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
    guest_run();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
    double s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9;
    print_message("%.1f M instructions/s, %llu blocks built, %llu run\n", (double)g.vm->cpus[0]->insns / s / 1e6,
                  (unsigned long long)g.vm->cpus[0]->stats.blocks_built, (unsigned long long)g.vm->cpus[0]->stats.blocks_run);
    assert_in_range(g.vm->cpus[0]->stats.blocks_built, 5, 20);
    guest_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_mode_runs_a_loop),
        cmocka_unit_test(test_a_guest_climbs_from_real_to_long_mode),
        cmocka_unit_test(test_vector_instructions_run_as_native_copies),
        cmocka_unit_test(test_a_triple_fault_shuts_down),
        cmocka_unit_test(test_an_instruction_over_a_page_faults_on_its_second_page),
        cmocka_unit_test(test_a_displacement_at_the_edge_of_32_bits_is_exact),
        cmocka_unit_test(test_the_trap_flag_stops_after_each_instruction),
        cmocka_unit_test(test_running_off_the_64k_segment_is_a_fault),
        cmocka_unit_test(test_a_store_just_ahead_of_itself_is_seen),
        cmocka_unit_test(test_code_on_another_page_changes_between_calls),
        cmocka_unit_test(test_a_device_rewrites_running_code),
        cmocka_unit_test(test_an_endless_loop_obeys_a_kick),
        cmocka_unit_test(test_stepping_executes_what_it_was_asked_for),
        cmocka_unit_test(test_blocks_are_reused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
