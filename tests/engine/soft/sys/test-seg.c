/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fixture.h"

static void test_real_mode_loads_keep_the_limit(void **unused)
{
    setup_cpus(1);
    f.c->st.seg[SEG_DS].limit = 0xffffffff;             /* "unreal" */
    assert_runs(sys_load_seg(f.c, SEG_DS, 0x1234));
    assert_int_equal(f.c->st.seg[SEG_DS].base, 0x12340);
    assert_int_equal(f.c->st.seg[SEG_DS].limit, 0xffffffff);
    assert_runs(sys_seg_lin(f.c, SEG_DS, 0x100000, 4, true));
    assert_raises(EXC_GP, 0, sys_seg_lin(f.c, SEG_ES, 0xffff, 2, false));
    assert_raises(EXC_SS, 0, sys_seg_lin(f.c, SEG_SS, 0xffff, 2, false));
    teardown();
}

static void test_data_segments_obey_type_and_privilege(void **unused)
{
    setup_cpus(1);
    enter_prot(0);
    assert_runs(sys_load_seg(f.c, SEG_DS, DATA_RO));
    assert_int_equal(peek(GDT + DATA_RO + 5, 1), 0x91);          /* accessed */
    assert_int_equal(f.c->st.seg[SEG_DS].base, 0x1000);
    assert_int_equal(f.c->st.seg[SEG_DS].limit, 0xfff);
    assert_int_equal(CATCH(sys_seg_lin(f.c, SEG_DS, 0xffc, 4, false)), -1);
    assert_raises(EXC_GP, 0, sys_seg_lin(f.c, SEG_DS, 0xffd, 4, false));
    assert_raises(EXC_GP, 0, sys_seg_lin(f.c, SEG_DS, 0, 4, true));
    assert_raises(EXC_NP, NPDS, sys_load_seg(f.c, SEG_ES, NPDS));
    assert_raises(EXC_GP, CODE_XO, sys_load_seg(f.c, SEG_ES, CODE_XO));
    assert_raises(EXC_GP, GDT_SIZE, sys_load_seg(f.c, SEG_ES, GDT_SIZE));
    assert_raises(EXC_GP, DS32, sys_load_seg(f.c, SEG_ES, DS32 | 3));
    assert_raises(EXC_GP, TSSSEL, sys_load_seg(f.c, SEG_ES, TSSSEL));
    assert_runs(sys_load_seg(f.c, SEG_ES, 0));
    assert_raises(EXC_GP, 0, sys_seg_lin(f.c, SEG_ES, 0, 1, false));
    assert_raises(EXC_GP, 0, sys_load_seg(f.c, SEG_SS, 0));
    assert_raises(EXC_GP, DS32U & ~3, sys_load_seg(f.c, SEG_SS, DS32U));
    assert_raises(EXC_GP, DATA_RO, sys_load_seg(f.c, SEG_SS, DATA_RO));
    teardown();
}

static void test_a_not_present_stack_is_its_own_fault(void **unused)
{
    setup_cpus(1);
    enter_prot(0);
    assert_raises(EXC_SS, NPDS, sys_load_seg(f.c, SEG_SS, NPDS));
    assert_int_equal(f.c->st.seg[SEG_SS].sel, DS32);
    assert_int_equal(f.c->st.ev.int_shadow, 0);
    assert_runs(sys_load_seg(f.c, SEG_SS, DS32));
    assert_int_equal(f.c->st.ev.int_shadow, 2);
    teardown();
}

static void test_expand_down_limits_are_the_other_way_round(void **unused)
{
    setup_cpus(1);
    enter_prot(0);
    assert_runs(sys_load_seg(f.c, SEG_DS, DS_DOWN));             /* limit 0xffff, 32-bit */
    assert_raises(EXC_GP, 0, sys_seg_lin(f.c, SEG_DS, 0xffff, 1, false));
    assert_runs(sys_seg_lin(f.c, SEG_DS, 0x10000, 1, true));
    assert_runs(sys_seg_lin(f.c, SEG_DS, 0xfffffffc, 4, true));
    assert_raises(EXC_GP, 0, sys_seg_lin(f.c, SEG_DS, 0xfffffffd, 4, true));
    teardown();
}

static void test_ldt_descriptors_come_from_the_ldt(void **unused)
{
    setup_cpus(1);
    enter_prot(0);
    f.c->st.ldt = (struct x86_seg){ .unusable = 1 };
    assert_raises(EXC_GP, 0xc, sys_load_seg(f.c, SEG_DS, 0xc));
    struct uop lldt = uop_of(OP_LLDT);
    lldt.i.rm = R_AX;
    f.c->r[R_AX] = LDTSEL;
    assert_runs(sys_insn(f.c, &lldt, 0));
    poke(LDT + 8, 8, descriptor(0x5000, 0xff, 0x92, 0x40));
    assert_runs(sys_load_seg(f.c, SEG_DS, 0xc));
    assert_int_equal(f.c->st.seg[SEG_DS].base, 0x5000);
    assert_raises(EXC_GP, 0x24, sys_load_seg(f.c, SEG_DS, 0x24));        /* outside its limit */
    f.c->r[R_AX] = DS32;
    assert_raises(EXC_GP, DS32, sys_insn(f.c, &lldt, 0));
    teardown();
}

static void test_lar_lsl_verr_see_what_the_caller_may_see(void **unused)
{
    setup_cpus(1);
    enter_prot(3);
    struct uop lar = uop_of(OP_LAR), lsl = uop_of(OP_LSL), verw = uop_of(OP_VERW), verr = uop_of(OP_VERR);
    lar.i.reg = lsl.i.reg = R_CX;
    f.c->r[R_AX] = CS32U;
    f.c->r[R_CX] = 0x1111;
    assert_runs(sys_insn(f.c, &lar, 0));
    assert_true(cpu_rflags(f.c) & X86_ZF);
    assert_int_equal(f.c->r[R_CX], 0xc0fa00);
    assert_runs(sys_insn(f.c, &lsl, 0));
    assert_int_equal(f.c->r[R_CX], 0xffffffff);
    f.c->r[R_AX] = DS32;                                /* DPL 0 from CPL 3 */
    f.c->r[R_CX] = 0x1111;
    assert_runs(sys_insn(f.c, &lar, 0));
    assert_false(cpu_rflags(f.c) & X86_ZF);
    assert_int_equal(f.c->r[R_CX], 0x1111);
    assert_runs(sys_insn(f.c, &verr, 0));
    assert_false(cpu_rflags(f.c) & X86_ZF);
    f.c->r[R_AX] = CS32C;                               /* conforming: readable from anywhere */
    assert_runs(sys_insn(f.c, &verr, 0));
    assert_true(cpu_rflags(f.c) & X86_ZF);
    f.c->r[R_AX] = DS32U;
    assert_runs(sys_insn(f.c, &verw, 0));
    assert_true(cpu_rflags(f.c) & X86_ZF);
    teardown();
}

static void test_far_jumps_check_their_code_segment(void **unused)
{
    setup_cpus(1);
    enter_prot(0);
    assert_runs(sys_jmp_far(f.c, CS16, 0x1234, 4));
    assert_int_equal(f.c->rip, 0x1234);
    assert_int_equal(f.c->mode & MODE_SIZE_MASK, INSN_MODE_16);
    assert_raises(EXC_GP, 0, sys_jmp_far(f.c, CS16, 0x10000, 4));
    assert_raises(EXC_GP, 0, sys_jmp_far(f.c, 0, 0, 4));
    assert_raises(EXC_GP, DS32, sys_jmp_far(f.c, DS32, 0, 4));
    assert_raises(EXC_GP, CS32U & ~3, sys_jmp_far(f.c, CS32U, 0, 4));
    assert_runs(sys_jmp_far(f.c, CS32, CODE, 4));
    enter_prot(3);
    assert_raises(EXC_GP, CS32, sys_jmp_far(f.c, CS32, 0, 4));
    assert_runs(sys_jmp_far(f.c, CS32C, 0x77, 4));      /* conforming: CPL stays */
    assert_int_equal(f.c->cpl, 3);
    assert_int_equal(f.c->st.seg[SEG_CS].sel, CS32C | 3);
    teardown();
}

static void test_a_call_gate_changes_stack_and_copies_parameters(void **unused)
{
    setup_cpus(1);
    enter_prot(3);
    poke(GDT + GATE, 8, gate(CS32, 0xabcd, 0xec, 2));
    poke(STACK3 - 8, 4, 0x11111111);
    poke(STACK3 - 4, 4, 0x22222222);
    f.c->r[R_SP] = STACK3 - 8;
    assert_runs(sys_call_far(f.c, GATE | 3, 0xdead, 4));
    assert_int_equal(f.c->cpl, 0);
    assert_int_equal(f.c->rip, 0xabcd);
    assert_int_equal(f.c->st.seg[SEG_CS].sel, CS32);
    assert_int_equal(f.c->st.seg[SEG_SS].sel, DS32);
    assert_int_equal(f.c->r[R_SP], STACK0 - 24);
    assert_int_equal(peek(STACK0 - 4, 4), DS32U);
    assert_int_equal(peek(STACK0 - 8, 4), STACK3 - 8);
    assert_int_equal(peek(STACK0 - 12, 4), 0x22222222);
    assert_int_equal(peek(STACK0 - 16, 4), 0x11111111);
    assert_int_equal(peek(STACK0 - 20, 4), CS32U);
    assert_int_equal(peek(STACK0 - 24, 4), CODE);
    assert_runs(sys_ret_far(f.c, 4, 8));                /* releases the parameters on both stacks */
    assert_int_equal(f.c->cpl, 3);
    assert_int_equal(f.c->rip, CODE);
    assert_int_equal(f.c->r[R_SP], STACK3);
    assert_int_equal(f.c->st.seg[SEG_SS].sel, DS32U);
    teardown();
}

static void test_a_64_bit_call_gate_pushes_eight_bytes(void **unused)
{
    setup_cpus(1);
    enter_long(3);
    poke(GDT + GATE, 8, gate(CS64, 0x1000, 0xec, 0));
    poke(GDT + GATE + 8, 8, 0);
    f.c->r[R_SP] = STACK3;
    assert_runs(sys_call_far(f.c, GATE | 3, 0, 4));
    assert_int_equal(f.c->cpl, 0);
    assert_int_equal(f.c->rip, 0x1000);
    assert_int_equal(f.c->r[R_SP], STACK0 - 32);
    assert_int_equal(f.c->st.seg[SEG_SS].sel, 0);
    assert_true(f.c->st.seg[SEG_SS].unusable);
    assert_int_equal(peek(STACK0 - 16, 8), STACK3);
    assert_int_equal(peek(STACK0 - 24, 8), CS64U);
    assert_runs(sys_ret_far(f.c, 8, 0));
    assert_int_equal(f.c->cpl, 3);
    assert_int_equal(f.c->rip, CODE);
    poke(GDT + GATE + 8, 8, 1ull << 40);                /* type bits of the upper half must be 0 */
    assert_raises(EXC_GP, GATE, sys_call_far(f.c, GATE | 3, 0, 4));
    poke(GDT + GATE, 8, gate(CS32, 0x1000, 0xec, 0));   /* a 64-bit gate leads to 64-bit code only */
    poke(GDT + GATE + 8, 8, 0);
    assert_raises(EXC_GP, CS32, sys_call_far(f.c, GATE | 3, 0, 4));
    teardown();
}

static void test_returning_outward_drops_inner_data_segments(void **unused)
{
    setup_cpus(1);
    enter_prot(0);
    assert_runs(sys_load_seg(f.c, SEG_FS, DS32U));
    sys_push(f.c, DS32U, 4);
    sys_push(f.c, STACK3, 4);
    sys_push(f.c, CS32U, 4);
    sys_push(f.c, 0x4444, 4);
    assert_runs(sys_ret_far(f.c, 4, 0));
    assert_int_equal(f.c->cpl, 3);
    assert_true(f.c->st.seg[SEG_DS].unusable && f.c->st.seg[SEG_DS].sel == 0);
    assert_false(f.c->st.seg[SEG_FS].unusable);
    teardown();
}

static void test_a_faulting_return_changes_nothing(void **unused)
{
    setup_cpus(1);
    enter_prot(0);
    sys_push(f.c, DS32, 4);             /* SS of the wrong level */
    sys_push(f.c, STACK3, 4);
    sys_push(f.c, CS32U, 4);
    sys_push(f.c, 0x4444, 4);
    struct x86_state *before = aligned_alloc(64, (sizeof(*before) + 63) & ~(size_t)63), *after = aligned_alloc(64, (sizeof(*after) + 63) & ~(size_t)63);
    soft_cpu_export(f.c, before);
    assert_raises(EXC_GP, DS32, sys_ret_far(f.c, 4, 0));
    soft_cpu_export(f.c, after);
    after->tsc_offset = before->tsc_offset;
    assert_memory_equal(before, after, sizeof(*before));
    free(before);
    free(after);
    teardown();
}

static void test_the_16_bit_stack_wraps(void **unused)
{
    setup_cpus(1);
    f.c->r[R_SP] = 0x12340000;
    sys_push(f.c, 0xbeef, 2);
    assert_int_equal(f.c->r[R_SP], 0x1234fffe);
    assert_int_equal(peek(0xfffe, 2), 0xbeef);
    assert_int_equal(sys_pop(f.c, 2), 0xbeef);
    assert_int_equal(f.c->r[R_SP], 0x12340000);
    f.c->r[R_SP] = 1;
    assert_raises(EXC_SS, 0, sys_push(f.c, 1, 2));
    assert_int_equal(f.c->r[R_SP], 1);
    teardown();
}

static void test_non_canonical_addresses_fault_by_segment(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    assert_raises(EXC_GP, 0, sys_seg_lin(f.c, SEG_DS, 0x800000000000, 1, false));
    assert_raises(EXC_SS, 0, sys_seg_lin(f.c, SEG_SS, 0x7fffffffffff, 2, false));
    assert_raises(EXC_GP, 0, sys_branch_target(f.c, 0x800000000000, 8));
    assert_int_equal(sys_branch_target(f.c, 0xffff800000000000, 8), 0xffff800000000000);
    teardown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_mode_loads_keep_the_limit),
        cmocka_unit_test(test_data_segments_obey_type_and_privilege),
        cmocka_unit_test(test_a_not_present_stack_is_its_own_fault),
        cmocka_unit_test(test_expand_down_limits_are_the_other_way_round),
        cmocka_unit_test(test_ldt_descriptors_come_from_the_ldt),
        cmocka_unit_test(test_lar_lsl_verr_see_what_the_caller_may_see),
        cmocka_unit_test(test_far_jumps_check_their_code_segment),
        cmocka_unit_test(test_a_call_gate_changes_stack_and_copies_parameters),
        cmocka_unit_test(test_a_64_bit_call_gate_pushes_eight_bytes),
        cmocka_unit_test(test_returning_outward_drops_inner_data_segments),
        cmocka_unit_test(test_a_faulting_return_changes_nothing),
        cmocka_unit_test(test_the_16_bit_stack_wraps),
        cmocka_unit_test(test_non_canonical_addresses_fault_by_segment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
