/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the host cannot show in 64-bit code: 16- and 32-bit modes, limits, slow paths, faults that must leave no trace. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "fixture.h"

#define RUN(...)                                                                                             \
    ({                                                                                                       \
        static const uint8_t bytes_[16] = { __VA_ARGS__ };                                                   \
        fixture_run(bytes_, 15);                                                                             \
    })
enum { FLAT64 = INSN_MODE_64 | MODE_FLAT | MODE_PROT, FLAT32 = INSN_MODE_32 | MODE_FLAT | MODE_SS32 | MODE_PROT };

static uint64_t peek(uint64_t lin, unsigned size)
{
    uint64_t v = 0;
    memcpy(&v, (void *)(uintptr_t)lin, size);
    return v;
}

static void poke(uint64_t lin, unsigned size, uint64_t v)
{
    memcpy((void *)(uintptr_t)lin, &v, size);
}

/* 16-bit code: every segment starts at RAM and is 64 KiB - RAM has 32 KiB of it. */
static void reset16(void)
{
    fixture_reset(INSN_MODE_16);
    for (unsigned n = 0; n < N_SEGS; n++) {
        cpu->st.seg[n] = (struct x86_seg){ .base = RAM_AT, .limit = 0xffff };
        cpu->segbase[n] = RAM_AT;
    }
    cpu->r[R_BLOCK_RIP] = 0x1000;
}

static void assert_raised(unsigned vector, uint32_t error)
{
    assert_int_equal(cpu->exc_vector, vector);
    assert_int_equal(cpu->exc_error, error);
}

static void test_16_bit_push_wraps_sp_and_keeps_the_rest_of_esp(void **unused)
{
    reset16();
    cpu->r[R_SP] = 0xabcd0002;
    cpu->r[R_AX] = 0x1234;
    assert_true(RUN(0x50));
    assert_int_equal(cpu->r[R_SP], 0xabcd0000);
    assert_int_equal(peek(RAM_AT, 2), 0x1234);
    cpu->r[R_SP] = 0xabcd0000;          /* the next one is at FFFE: outside RAM, so the fixture raises #PF */
    assert_false(RUN(0x50));
    assert_raised(EXC_PF, MMU_WRITE);
    assert_int_equal(cpu->st.cr2, RAM_AT + 0xfffe);
    assert_int_equal(cpu->r[R_SP], 0xabcd0000);
}

static void test_16_bit_address_forms_wrap_at_64_k(void **unused)
{
    reset16();
    cpu->r[R_BX] = 0xfff0;
    cpu->r[R_SI] = 0x0120;
    poke(RAM_AT + 0x112, 2, 0xbeef);
    assert_true(RUN(0x8b, 0x40, 0x02));                 /* mov ax, [bx+si+2] */
    assert_int_equal(cpu->r[R_AX], 0xbeef);
}

static void test_a_word_across_the_limit_is_gp_and_in_the_stack_segment_ss(void **unused)
{
    reset16();
    cpu->r[R_BX] = 0xffff;
    assert_false(RUN(0x8b, 0x07));                      /* mov ax, [bx] */
    assert_raised(EXC_GP, 0);
    cpu->r[R_BP] = 0xffff;
    assert_false(RUN(0x8b, 0x46, 0x00));                /* mov ax, [bp+0] */
    assert_raised(EXC_SS, 0);
}

static void test_non_canonical_is_ss_by_rsp_or_rbp_and_gp_otherwise(void **unused)
{
    fixture_reset(FLAT64);
    cpu->r[R_AX] = cpu->r[R_BP] = cpu->r[R_SP] = 0x800000000000;
    assert_false(RUN(0x48, 0x8b, 0x00));                /* mov rax, [rax] */
    assert_raised(EXC_GP, 0);
    assert_false(RUN(0x48, 0x8b, 0x45, 0x00));          /* mov rax, [rbp] */
    assert_raised(EXC_SS, 0);
    assert_false(RUN(0x50));                            /* push rax: writes at 7FFFFFFFFFF8 */
    assert_raised(EXC_PF, MMU_WRITE);
    cpu->r[R_SP] = 0x800000000004;
    assert_false(RUN(0x50));                            /* and across the edge */
    assert_raised(EXC_SS, 0);
    assert_int_equal(cpu->r[R_SP], 0x800000000004);
    assert_false(RUN(0xf0, 0x48, 0x01, 0x00));          /* lock add [rax], rax */
    assert_raised(EXC_GP, 0);
}

static void test_branch_to_a_non_canonical_target_leaves_rsp(void **unused)
{
    fixture_reset(FLAT64);
    cpu->r[R_SP] = RAM_AT + 0x1000;
    cpu->r[R_AX] = 0x800000000000;
    poke(RAM_AT + 0x1000, 8, 0x800000000000);
    assert_false(RUN(0xff, 0xd0));                      /* call rax */
    assert_raised(EXC_GP, 0);
    assert_false(RUN(0xc3));                            /* ret */
    assert_raised(EXC_GP, 0);
    assert_int_equal(cpu->r[R_SP], RAM_AT + 0x1000);
    cpu->r[R_BLOCK_RIP] = 0x7ffffffffff0;
    assert_false(RUN(0xeb, 0x7f));                      /* jmp over the edge */
    assert_raised(EXC_GP, 0);
}

static void test_32_bit_branches_and_calls_wrap_at_4_g(void **unused)
{
    fixture_reset(FLAT32);
    cpu->r[R_BLOCK_RIP] = 0xfffffff0;
    assert_true(RUN(0xeb, 0x7e));
    assert_int_equal(cpu->rip, 0x70);
    cpu->r[R_BLOCK_RIP] = 0x12345678;
    assert_true(RUN(0x66, 0xeb, 0x02));                 /* 16-bit operand: IP */
    assert_int_equal(cpu->rip, 0x567d);
    cpu->r[R_SP] = RAM_AT + 0x100;
    assert_true(RUN(0xe8, 0x00, 0x01, 0x00, 0x00));
    assert_int_equal(cpu->rip, 0x1234577d);
    assert_int_equal(peek(RAM_AT + 0xfc, 4), 0x1234567d);
    assert_int_equal(cpu->r[R_SP], RAM_AT + 0xfc);
    assert_true(RUN(0xc2, 0x08, 0x00));                 /* ret 8 */
    assert_int_equal(cpu->rip, 0x1234567d);
    assert_int_equal(cpu->r[R_SP], RAM_AT + 0x108);
}

static void test_a_jump_beyond_the_cs_limit_is_gp(void **unused)
{
    reset16();
    cpu->st.seg[SEG_CS].limit = 0x1010;
    assert_false(RUN(0xeb, 0x20));
    assert_raised(EXC_GP, 0);
    assert_true(RUN(0xeb, 0x0e));
    assert_int_equal(cpu->rip, 0x1010);
}

static void test_pusha_pushes_the_old_sp_and_popa_ignores_it(void **unused)
{
    fixture_reset(FLAT32);
    for (unsigned r = 0; r < 8; r++) {
        cpu->r[r] = 0x100 + r;
    }
    cpu->r[R_SP] = RAM_AT + 0x100;
    assert_true(RUN(0x60));
    assert_int_equal(cpu->r[R_SP], RAM_AT + 0xe0);
    assert_int_equal(peek(RAM_AT + 0xfc, 4), 0x100);
    assert_int_equal(peek(RAM_AT + 0xec, 4), RAM_AT + 0x100);
    assert_int_equal(peek(RAM_AT + 0xe0, 4), 0x107);
    poke(RAM_AT + 0xec, 4, 0xdead);
    memset(cpu->r, 0, 4 * sizeof(cpu->r[0]));
    cpu->r[R_SI] = 0;
    assert_true(RUN(0x61));
    assert_int_equal(cpu->r[R_SP], RAM_AT + 0x100);
    for (unsigned r = 0; r < 8; r++) {
        assert_int_equal(cpu->r[r], r == R_SP ? RAM_AT + 0x100 : 0x100 + r);
    }
}

static void test_pop_to_memory_by_esp_sees_it_incremented_and_a_fault_leaves_it(void **unused)
{
    fixture_reset(FLAT32);
    cpu->r[R_SP] = RAM_AT + 0x100;
    poke(RAM_AT + 0x100, 4, 0x55aa);
    assert_true(RUN(0x8f, 0x44, 0x24, 0x08));           /* pop [esp+8] */
    assert_int_equal(peek(RAM_AT + 0x10c, 4), 0x55aa);
    assert_int_equal(cpu->r[R_SP], RAM_AT + 0x104);
    assert_false(RUN(0x8f, 0x05, 0x00, 0x00, 0x00, 0x10));      /* pop [10000000] */
    assert_raised(EXC_PF, MMU_WRITE);
    assert_int_equal(cpu->r[R_SP], RAM_AT + 0x104);
}

/* Vectors of SDM vol. 2A and of an 8086's BCD practice. */
static void test_decimal_adjustments(void **unused)
{
    static const struct {
        uint8_t opcode;
        uint16_t ax;
        uint32_t flags;
        uint16_t result;
        uint32_t out;           /* CF and AF */
    } cases[] = {
        { 0x27, 0xae, 0, 0x14, X86_CF | X86_AF },       /* daa: 79 + 35 */
        { 0x27, 0x2e, 0, 0x34, X86_AF },
        { 0x27, 0x99, 0, 0x99, 0 },
        { 0x27, 0x9a, 0, 0x00, X86_CF | X86_AF },
        { 0x27, 0x12, X86_CF, 0x72, X86_CF },
        { 0x27, 0x12, X86_AF, 0x18, X86_AF },
        { 0x2f, 0xee, X86_CF | X86_AF, 0x88, X86_CF | X86_AF }, /* das: 35 - 47 */
        { 0x2f, 0x0b, X86_AF, 0x05, X86_AF },
        { 0x2f, 0x05, X86_AF, 0xff, X86_CF | X86_AF },
        { 0x2f, 0x77, 0, 0x77, 0 },
        { 0x37, 0x000b, 0, 0x0101, X86_CF | X86_AF },   /* aaa */
        { 0x37, 0x0005, 0, 0x0005, 0 },
        { 0x37, 0x00ff, 0, 0x0205, X86_CF | X86_AF },
        { 0x3f, 0x020c, 0, 0x0106, X86_CF | X86_AF },   /* aas */
        { 0x3f, 0x0100, X86_AF, 0xff0a, X86_CF | X86_AF },
        { 0x3f, 0x0125, 0, 0x0105, 0 },
    };
    for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
        fixture_reset(FLAT32);
        cpu->r[R_AX] = cases[n].ax;
        cpu->af = flags_pack(cases[n].flags);
        assert_true(fixture_run((const uint8_t[16]){ cases[n].opcode }, 15));
        assert_int_equal(cpu->r[R_AX], cases[n].result);
        assert_int_equal(flags_arith(cpu->af) & (X86_CF | X86_AF), cases[n].out);
    }
}

static void test_aam_and_aad_take_any_base_and_aam_0_is_de(void **unused)
{
    fixture_reset(FLAT32);
    cpu->r[R_AX] = 0x5b;
    assert_true(RUN(0xd4, 0x0a));
    assert_int_equal(cpu->r[R_AX], 0x0901);
    assert_true(RUN(0xd5, 0x10));
    assert_int_equal(cpu->r[R_AX], 0x91);
    assert_true(flags_arith(cpu->af) & X86_SF);
    assert_false(RUN(0xd4, 0x00));
    assert_int_equal(cpu->exc_vector, EXC_DE);
}

static void test_salc_inc_dec_and_xchg_short_forms(void **unused)
{
    fixture_reset(FLAT32);
    cpu->af = flags_pack(X86_CF);
    cpu->r[R_AX] = 0x1200;
    assert_true(RUN(0xd6));
    assert_int_equal(cpu->r[R_AX], 0x12ff);
    assert_true(RUN(0x40));                             /* inc eax keeps CF */
    assert_int_equal(cpu->r[R_AX], 0x1300);
    assert_true(flags_arith(cpu->af) & X86_CF);
    cpu->r[R_BX] = 0xffffffff00000001;
    assert_true(RUN(0x4b));                             /* dec ebx */
    assert_int_equal(cpu->r[R_BX], 0);
    assert_true(RUN(0x66, 0x93));                       /* xchg ax, bx */
    assert_int_equal(cpu->r[R_BX], 0x1300);
    assert_int_equal(cpu->r[R_AX], 0);
}

static void test_enter_copies_frames_and_faults_before_anything_moved(void **unused)
{
    fixture_reset(FLAT32);
    cpu->r[R_SP] = RAM_AT + 0x200;
    cpu->r[R_BP] = RAM_AT + 0x300;
    poke(RAM_AT + 0x2fc, 4, 0x11);
    poke(RAM_AT + 0x2f8, 4, 0x22);
    assert_true(RUN(0xc8, 0x10, 0x00, 0x03));           /* enter 16, 3 */
    assert_int_equal(peek(RAM_AT + 0x1fc, 4), RAM_AT + 0x300);
    assert_int_equal(peek(RAM_AT + 0x1f8, 4), 0x11);
    assert_int_equal(peek(RAM_AT + 0x1f4, 4), 0x22);
    assert_int_equal(peek(RAM_AT + 0x1f0, 4), RAM_AT + 0x1fc);
    assert_int_equal(cpu->r[R_BP], RAM_AT + 0x1fc);
    assert_int_equal(cpu->r[R_SP], RAM_AT + 0x1e0);
    assert_false(RUN(0xc8, 0x00, 0x10, 0x00));          /* enter 4096, 0: below RAM */
    assert_int_equal(cpu->exc_vector, EXC_PF);
    assert_int_equal(cpu->r[R_SP], RAM_AT + 0x1e0);
    assert_int_equal(cpu->r[R_BP], RAM_AT + 0x1fc);
    assert_true(RUN(0xc9));
    assert_int_equal(cpu->r[R_SP], RAM_AT + 0x200);
    assert_int_equal(cpu->r[R_BP], RAM_AT + 0x300);
}

static void test_locked_operation_across_pages_runs_alone(void **unused)
{
    fixture_reset(FLAT64);
    cpu->r[R_AX] = RAM_AT + 0x1ffd;
    cpu->r[R_BX] = 0x0102030405060708;
    poke(RAM_AT + 0x1ffd, 8, 0x1000000000000000);
    assert_true(RUN(0xf0, 0x48, 0x0f, 0xc1, 0x18));     /* lock xadd [rax], rbx */
    assert_int_equal(cpu->r[R_BX], 0x1000000000000000);
    assert_int_equal(peek(RAM_AT + 0x1ffd, 8), 0x1102030405060708);
    assert_int_equal(exclusive_calls, 0x101);
    assert_true(RUN(0xf0, 0x48, 0xff, 0x00));           /* lock inc [rax] */
    assert_int_equal(peek(RAM_AT + 0x1ffd, 8), 0x1102030405060709);
    cpu->r[R_DX] = 0x11020304;
    cpu->r[R_AX] = 0x05060709;
    cpu->r[R_SI] = RAM_AT + 0x1ffd;
    cpu->r[R_CX] = cpu->r[R_BX] = 7;
    assert_true(RUN(0xf0, 0x0f, 0xc7, 0x0e));           /* lock cmpxchg8b [rsi] */
    assert_int_equal(peek(RAM_AT + 0x1ffd, 8), 0x700000007);
    assert_true(flags_arith(cpu->af) & X86_ZF);
    cpu->r[R_AX] = RAM_AT + RAM_SIZE - 4;               /* the second page is not there: nobody was stopped for it */
    exclusive_calls = 0;
    assert_false(RUN(0xf0, 0x48, 0xff, 0x00));
    assert_raised(EXC_PF, MMU_WRITE);
    assert_int_equal(exclusive_calls, 0);
}

static void test_cmpxchg16b_wants_alignment(void **unused)
{
    fixture_reset(FLAT64);
    cpu->r[R_SI] = RAM_AT + 8;
    assert_false(RUN(0xf0, 0x48, 0x0f, 0xc7, 0x0e));
    assert_raised(EXC_GP, 0);
}

static void test_rep_stops_for_what_is_pending_and_goes_on_where_it_was(void **unused)
{
    fixture_reset(FLAT64);
    cpu->r[R_DI] = RAM_AT + 0x800;
    cpu->r[R_CX] = 0x1800;
    cpu->r[R_AX] = 0x77;
    atomic_store(&cpu->pending, PEND_IRQ);
    assert_true(RUN(0xf3, 0xaa));                       /* rep stosb */
    assert_int_equal(cpu->rip, CODE_AT);                /* one page's part is done */
    assert_int_equal(cpu->r[R_CX], 0x1000);
    assert_int_equal(cpu->r[R_DI], RAM_AT + 0x1000);
    atomic_store(&cpu->pending, 0);
    assert_true(RUN(0xf3, 0xaa));
    assert_int_equal(cpu->rip, CODE_AT + 2);
    assert_int_equal(cpu->r[R_CX], 0);
    assert_int_equal(peek(RAM_AT + 0x1fff, 2), 0x77);
}

static void test_rep_traps_after_each_iteration_under_tf(void **unused)
{
    fixture_reset(FLAT64);
    cpu->st.rflags |= X86_TF;
    cpu->r[R_DI] = RAM_AT;
    cpu->r[R_CX] = 2;
    assert_true(RUN(0xf3, 0xab));
    assert_int_equal(cpu->r[R_CX], 1);
    assert_int_equal(cpu->rip, CODE_AT);
    assert_true(RUN(0xf3, 0xab));
    assert_int_equal(cpu->rip, CODE_AT + 2);
}

static void test_rep_movs_that_faults_keeps_what_was_moved(void **unused)
{
    fixture_reset(FLAT64);
    memset(ram, 0x5a, 0x800);
    cpu->r[R_SI] = RAM_AT;
    cpu->r[R_DI] = RAM_AT + RAM_SIZE - 0x100;
    cpu->r[R_CX] = 0x40;                                /* quads; the last 32 are beyond RAM */
    assert_false(RUN(0xf3, 0x48, 0xa5));
    assert_raised(EXC_PF, MMU_WRITE);
    assert_int_equal(cpu->st.cr2, RAM_AT + RAM_SIZE);
    assert_int_equal(cpu->r[R_CX], 0x20);
    assert_int_equal(cpu->r[R_SI], RAM_AT + 0x100);
    assert_int_equal(cpu->r[R_DI], RAM_AT + RAM_SIZE);
}

static void test_16_bit_rep_movs_wraps_the_index_registers(void **unused)
{
    reset16();
    poke(RAM_AT, 2, 0x2211);
    cpu->r[R_SI] = 0x12340000;
    cpu->r[R_DI] = 0x10;
    cpu->r[R_CX] = 0x56780002;
    assert_true(RUN(0xf3, 0xa4));
    assert_int_equal(cpu->r[R_CX], 0x56780000);
    assert_int_equal(cpu->r[R_SI], 0x12340002);
    assert_int_equal(peek(RAM_AT + 0x10, 2), 0x2211);
}

static void test_loop_and_jcxz_count_by_address_size(void **unused)
{
    reset16();
    cpu->r[R_CX] = 0x10000;                             /* CX = 0 */
    assert_true(RUN(0xe3, 0x10));
    assert_int_equal(cpu->rip, 0x1012);
    assert_true(RUN(0xe2, 0x10));                       /* CX = FFFF */
    assert_int_equal(cpu->r[R_CX], 0x1ffff);
    assert_int_equal(cpu->rip, 0x1012);
    assert_true(RUN(0x67, 0xe3, 0x10));                 /* ECX is not 0 */
    assert_int_equal(cpu->rip, 0x1003);
}

static void test_ins_moves_registers_and_leaves_the_port_to_sys(void **unused)
{
    fixture_reset(FLAT64);
    cpu->r[R_DI] = RAM_AT + 0x10;
    cpu->r[R_CX] = 3;
    assert_true(RUN(0xf3, 0x6d));                       /* rep insd */
    assert_int_equal(sys_calls, 3);
    assert_int_equal(sys_lin, RAM_AT + 0x18);
    assert_int_equal(cpu->r[R_DI], RAM_AT + 0x1c);
    assert_int_equal(cpu->r[R_CX], 0);
    sys_answer = true;
    assert_true(RUN(0xf4));                             /* hlt: leaves the block after it */
    assert_int_equal(cpu->rip, CODE_AT + 1);
}

static void test_ud_and_far_and_int_leave_by_the_right_door(void **unused)
{
    fixture_reset(FLAT32);
    assert_false(RUN(0x0f, 0x0b));
    assert_int_equal(cpu->exc_vector, EXC_UD);
    assert_true(RUN(0xea, 0x78, 0x56, 0x34, 0x12, 0x10, 0x00));
    assert_int_equal(cpu->rip, 0x1012345678);
    poke(RAM_AT + 0x40, 4, 0x9abcdef0);
    poke(RAM_AT + 0x44, 2, 0x18);
    cpu->r[R_BX] = RAM_AT + 0x40;
    assert_true(RUN(0xff, 0x1b));                       /* call far [ebx] */
    assert_int_equal(cpu->rip, 0x189abcdef0);
    assert_true(RUN(0xcd, 0x80));
    assert_int_equal(cpu->rip, 0x1080);
    assert_true(RUN(0xce));                             /* into without OF */
    assert_int_equal(cpu->rip, CODE_AT + 1);
}

static int init(void **state)
{
    fixture_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_16_bit_push_wraps_sp_and_keeps_the_rest_of_esp),
        cmocka_unit_test(test_16_bit_address_forms_wrap_at_64_k),
        cmocka_unit_test(test_a_word_across_the_limit_is_gp_and_in_the_stack_segment_ss),
        cmocka_unit_test(test_non_canonical_is_ss_by_rsp_or_rbp_and_gp_otherwise),
        cmocka_unit_test(test_branch_to_a_non_canonical_target_leaves_rsp),
        cmocka_unit_test(test_32_bit_branches_and_calls_wrap_at_4_g),
        cmocka_unit_test(test_a_jump_beyond_the_cs_limit_is_gp),
        cmocka_unit_test(test_pusha_pushes_the_old_sp_and_popa_ignores_it),
        cmocka_unit_test(test_pop_to_memory_by_esp_sees_it_incremented_and_a_fault_leaves_it),
        cmocka_unit_test(test_decimal_adjustments),
        cmocka_unit_test(test_aam_and_aad_take_any_base_and_aam_0_is_de),
        cmocka_unit_test(test_salc_inc_dec_and_xchg_short_forms),
        cmocka_unit_test(test_enter_copies_frames_and_faults_before_anything_moved),
        cmocka_unit_test(test_locked_operation_across_pages_runs_alone),
        cmocka_unit_test(test_cmpxchg16b_wants_alignment),
        cmocka_unit_test(test_rep_stops_for_what_is_pending_and_goes_on_where_it_was),
        cmocka_unit_test(test_rep_traps_after_each_iteration_under_tf),
        cmocka_unit_test(test_rep_movs_that_faults_keeps_what_was_moved),
        cmocka_unit_test(test_16_bit_rep_movs_wraps_the_index_registers),
        cmocka_unit_test(test_loop_and_jcxz_count_by_address_size),
        cmocka_unit_test(test_ins_moves_registers_and_leaves_the_port_to_sys),
        cmocka_unit_test(test_ud_and_far_and_int_leave_by_the_right_door),
    };
    return cmocka_run_group_tests(tests, init, NULL);
}
