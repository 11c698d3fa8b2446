/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fixture.h"

static void test_long_mode_delivery_builds_an_aligned_frame(void **unused)
{
    setup_cpus(1);
    enter_long(3);
    idt64(EXC_GP, CS64, 0xffff800000001234, 0x8e, 0);
    poke(TSS + 4, 8, STACK0 + 5);                       /* aligned down to 16 */
    f.c->r[R_SP] = 0x7ffd;
    cpu_set_rflags(f.c, X86_IF | X86_ZF | X86_TF | X86_DF, X86_IF | X86_ARITH | X86_TF | X86_DF);
    uint64_t flags = cpu_rflags(f.c);
    assert_true(deliver(EXC_GP, true, 0x1234));
    assert_int_equal(f.c->cpl, 0);
    assert_int_equal(f.c->rip, 0xffff800000001234);
    assert_int_equal(f.c->r[R_SP], STACK0 - 48);
    assert_int_equal(peek(STACK0 - 8, 8), DS32U);
    assert_int_equal(peek(STACK0 - 16, 8), 0x7ffd);
    assert_int_equal(peek(STACK0 - 24, 8), flags | X86_RF);      /* a fault: RF is set in the image */
    assert_int_equal(peek(STACK0 - 32, 8), CS64U);
    assert_int_equal(peek(STACK0 - 40, 8), CODE);
    assert_int_equal(peek(STACK0 - 48, 8), 0x1234);
    assert_int_equal(cpu_rflags(f.c) & (X86_IF | X86_TF | X86_RF | X86_NT), 0);
    assert_true(cpu_rflags(f.c) & X86_DF);
    assert_true(f.c->st.seg[SEG_SS].unusable);

    f.c->r[R_SP] += 8;                                  /* the handler drops the error code */
    assert_runs(sys_iret(f.c, 8));
    assert_int_equal(f.c->cpl, 3);
    assert_int_equal(f.c->rip, CODE);
    assert_int_equal(f.c->r[R_SP], 0x7ffd);
    assert_int_equal(cpu_rflags(f.c), flags | X86_RF);
    assert_int_equal(f.c->st.seg[SEG_SS].sel, DS32U);
    assert_true(atomic_load(&f.c->pending) & PEND_SHADOW);
    teardown();
}

static void test_a_trap_gate_keeps_if_and_ist_switches_always(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    idt64(EXC_NMI, CS64, 0x100, 0x8f, 1);
    f.c->r[R_SP] = STACK0;
    cpu_set_rflags(f.c, X86_IF, X86_IF);
    lapic_nmi(f.c);
    assert_true(sys_take_interrupt(f.c));
    assert_int_equal(f.c->rip, 0x100);
    assert_int_equal(f.c->r[R_SP], IST1 - 40);
    assert_true(cpu_rflags(f.c) & X86_IF);
    assert_false(f.c->st.seg[SEG_SS].unusable);         /* no change of level: SS stays */
    assert_int_equal(peek(IST1 - 24, 8) & X86_RF, 0);   /* an interrupt is no fault */
    lapic_nmi(f.c);
    assert_false(sys_take_interrupt(f.c));              /* blocked until IRET */
    assert_runs(sys_iret(f.c, 8));
    assert_int_equal(f.c->rip, CODE);
    assert_int_equal(f.c->r[R_SP], STACK0);
    assert_true(sys_take_interrupt(f.c));
    teardown();
}

static void test_idt_faults_name_the_vector(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    idt64(EXC_NP, CS64, 0x111, 0x8e, 0);
    idt64(EXC_GP, CS64, 0x222, 0x8e, 0);
    idt64(EXC_UD, CS64, 0, 0x0e, 0);                    /* not present */
    f.c->r[R_SP] = STACK0;
    assert_true(deliver(EXC_UD, false, 0));
    assert_int_equal(f.c->rip, 0x111);
    assert_int_equal(peek(STACK0 - 48, 8), EXC_UD * 8 + 3);      /* IDT, EXT */
    idt64(EXC_UD, DS32, 0, 0x8e, 0);                    /* not a code segment */
    f.c->r[R_SP] = STACK0;
    assert_true(deliver(EXC_UD, false, 0));
    assert_int_equal(f.c->rip, 0x222);
    assert_int_equal(peek(STACK0 - 48, 8), DS32 | 1);
    teardown();
}

static void test_contributory_pairs_are_a_double_fault(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    idt64(EXC_DF, CS64, 0xdf, 0x8e, 1);
    f.c->r[R_SP] = STACK0;
    assert_true(deliver(EXC_GP, true, 0));              /* #GP, then #NP on its gate */
    assert_int_equal(f.c->rip, 0xdf);
    assert_int_equal(peek(IST1 - 48, 8), 0);
    assert_int_equal(peek(IST1 - 40, 8), CODE);
    teardown();
}

static void test_a_page_fault_while_pushing_is_exact(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    idt64(EXC_UD, CS64, 0x11, 0x8e, 0);
    idt64(EXC_PF, CS64, 0x22, 0x8e, 1);
    idt64(EXC_DF, CS64, 0xdf, 0x8e, 1);
    f.c->r[R_SP] = 0x40000000;                          /* the first page that is not mapped begins here: pushing is fine */
    poke(PD + 511 * 8, 8, 0);
    mmu_flush_all(f.c);
    assert_true(deliver(EXC_UD, false, 0));             /* #UD is benign: the #PF is delivered by itself */
    assert_int_equal(f.c->rip, 0x22);
    assert_int_equal(f.c->st.cr2, 0x40000000 - 8);
    assert_int_equal(peek(IST1 - 48, 8), PF_W);
    assert_int_equal(peek(IST1 - 40, 8), CODE);
    f.c->rip = CODE;
    f.c->r[R_SP] = 0x40000000;
    idt64(EXC_PF, CS64, 0x22, 0x8e, 0);
    assert_true(deliver(EXC_PF, true, 0));              /* #PF during #PF */
    assert_int_equal(f.c->rip, 0xdf);
    teardown();
}

static void test_no_way_to_deliver_is_a_triple_fault(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    f.c->r[R_SP] = STACK0;
    assert_false(deliver(EXC_GP, true, 0));
    f.c->st.idt.limit = 0;
    assert_false(deliver(EXC_UD, false, 0));
    teardown();
}

static void test_int_n_checks_the_gate_and_returns_behind_itself(void **unused)
{
    setup_cpus(1);
    enter_long(3);
    idt64(0x80, CS64, 0x808, 0xee, 0);
    idt64(0x81, CS64, 0x818, 0x8e, 0);
    f.c->r[R_SP] = STACK3;
    assert_raises(EXC_GP, 0x81 * 8 + 2, sys_int(f.c, 0x81, OP_INT));     /* DPL 0, and no EXT */
    assert_runs(sys_int(f.c, 0x80, OP_INT));
    assert_int_equal(f.c->rip, 0x808);
    assert_int_equal(peek(STACK0 - 24, 8) & X86_RF, 0);
    teardown();
}

static void test_legacy_delivery_to_an_inner_level(void **unused)
{
    setup_cpus(1);
    enter_prot(3);
    idt32(0x21, CS32, 0x1111, 0x8e);
    cpu_set_rflags(f.c, X86_IF, X86_IF);
    f.c->st.lapic.svr = 0x1ff;
    assert_true(lapic_msi(f.vm, 0xfee00000, 0x21));
    assert_true(sys_take_interrupt(f.c));
    assert_int_equal(f.c->rip, 0x1111);
    assert_int_equal(f.c->r[R_SP], STACK0 - 20);
    assert_int_equal(peek(STACK0 - 4, 4), DS32U);
    assert_int_equal(peek(STACK0 - 8, 4), STACK3);
    assert_int_equal(peek(STACK0 - 16, 4), CS32U);
    assert_int_equal(peek(STACK0 - 20, 4), CODE);
    assert_runs(sys_iret(f.c, 4));
    assert_int_equal(f.c->cpl, 3);
    assert_int_equal(f.c->r[R_SP], STACK3);
    assert_true(cpu_rflags(f.c) & X86_IF);
    teardown();
}

static void test_a_bad_inner_stack_is_an_invalid_tss(void **unused)
{
    setup_cpus(1);
    enter_prot(3);
    idt32(EXC_UD, CS32, 0x1111, 0x8e);
    idt32(EXC_TS, CS32C, 0x2222, 0x8e);                 /* conforming: needs no other stack */
    poke(TSS + 8, 4, DS32U);
    assert_true(deliver(EXC_UD, false, 0));
    assert_int_equal(f.c->rip, 0x2222);
    assert_int_equal(f.c->cpl, 3);
    assert_int_equal(peek(STACK3 - 16, 4), (DS32U & ~3) | 1);
    teardown();
}

static void enter_v86(unsigned iopl)
{
    enter_prot(0);
    f.c->r[R_SP] = STACK0;
    sys_push(f.c, 0x6000, 4);           /* GS FS DS ES SS ESP EFLAGS CS EIP */
    sys_push(f.c, 0x5000, 4);
    sys_push(f.c, 0x4000, 4);
    sys_push(f.c, 0x3000, 4);
    sys_push(f.c, 0x900, 4);
    sys_push(f.c, 0x100, 4);
    sys_push(f.c, X86_VM | X86_IF | iopl << 12 | X86_F1, 4);
    sys_push(f.c, 0x3000, 4);
    sys_push(f.c, 0x10, 4);
    assert_runs(sys_iret(f.c, 4));
}

static void test_virtual_8086_mode_in_and_out(void **unused)
{
    setup_cpus(1);
    enter_v86(3);
    assert_int_equal(f.c->cpl, 3);
    assert_false(f.c->mode & MODE_PROT);
    assert_int_equal(f.c->st.seg[SEG_DS].base, 0x40000);
    assert_int_equal(f.c->st.seg[SEG_SS].base, 0x9000);
    assert_int_equal(f.c->rip, 0x10);
    idt32(EXC_GP, CS32, 0x1313, 0x8e);
    assert_true(deliver(EXC_GP, true, 0));
    assert_int_equal(f.c->cpl, 0);
    assert_true(f.c->mode & MODE_PROT);
    assert_int_equal(f.c->r[R_SP], STACK0 - 40);
    assert_int_equal(peek(STACK0 - 4, 4), 0x6000);
    assert_int_equal(peek(STACK0 - 12, 4), 0x4000);
    assert_int_equal(peek(STACK0 - 16, 4), 0x3000);
    assert_true(peek(STACK0 - 28, 4) & X86_VM);
    assert_true(f.c->st.seg[SEG_DS].unusable && f.c->st.seg[SEG_GS].unusable);
    teardown();
}

static void test_iopl_guards_int_and_flags_in_v86(void **unused)
{
    setup_cpus(1);
    enter_v86(0);
    struct uop cli = uop_of(OP_CLI), pushf = uop_of(OP_PUSHF);
    pushf.i.opsize = 1;
    assert_raises(EXC_GP, 0, sys_int(f.c, 0x10, OP_INT));
    assert_raises(EXC_GP, 0, sys_insn(f.c, &cli, 0));
    assert_raises(EXC_GP, 0, sys_insn(f.c, &pushf, 0));
    assert_raises(EXC_GP, 0, sys_iret(f.c, 2));
    f.c->st.cr4 |= CR4_VME;
    assert_runs(sys_insn(f.c, &cli, 0));                /* VIF instead of IF */
    assert_true(cpu_rflags(f.c) & X86_IF);
    poke(TSS + 0x66, 2, 0x88);                          /* redirection bitmap at 0x68, all clear: to the task's own IVT */
    poke(0x10 * 4, 4, 0x40000123);
    assert_runs(sys_int(f.c, 0x10, OP_INT));
    assert_int_equal(f.c->st.seg[SEG_CS].sel, 0x4000);
    assert_int_equal(f.c->rip, 0x123);
    poke(TSS + 0x68 + 2, 1, 1);                         /* vector 10h to the monitor */
    assert_raises(EXC_GP, 0, sys_int(f.c, 0x10, OP_INT));
    teardown();
}

static void test_real_mode_uses_the_ivt(void **unused)
{
    setup_cpus(1);
    f.c->st.idt = (struct x86_dtable){ 0, 0x3ff };
    f.c->st.seg[SEG_CS] = (struct x86_seg){ .sel = 0x700, .base = 0x7000, .limit = 0xffff, .attr = 0x9b };
    f.c->rip = 0x50;
    f.c->r[R_SP] = 0x600;
    poke(0x21 * 4, 4, 0x12340056);
    cpu_set_rflags(f.c, X86_IF, X86_IF);
    cpu_update_mode(f.c);
    assert_runs(sys_int(f.c, 0x21, OP_INT));
    assert_int_equal(f.c->st.seg[SEG_CS].base, 0x12340);
    assert_int_equal(f.c->rip, 0x56);
    assert_int_equal(f.c->r[R_SP], 0x5fa);
    assert_int_equal(peek(0x5fa, 2), 0x50);
    assert_int_equal(peek(0x5fc, 2), 0x700);
    assert_true(peek(0x5fe, 2) & X86_IF);
    assert_false(cpu_rflags(f.c) & X86_IF);
    assert_runs(sys_iret(f.c, 2));
    assert_int_equal(f.c->rip, 0x50);
    assert_true(cpu_rflags(f.c) & X86_IF);
    teardown();
}

static void make_task(uint32_t eip, uint16_t cs, uint16_t ds)
{
    memset(f.ram + TSS2, 0, 0x68);
    poke(TSS2 + 4, 4, STACK0);
    poke(TSS2 + 8, 4, DS32);
    poke(TSS2 + 0x20, 4, eip);
    poke(TSS2 + 0x24, 4, X86_F1 | X86_CF);
    poke(TSS2 + 0x28, 4, 0xaaaa);                       /* EAX */
    poke(TSS2 + 0x38, 4, IST1);                         /* ESP */
    poke(TSS2 + 0x48, 4, ds);
    poke(TSS2 + 0x4c, 4, cs);
    poke(TSS2 + 0x50, 4, DS32);
    poke(TSS2 + 0x54, 4, ds);
}

static void test_a_task_gate_switches_tasks_and_iret_comes_back(void **unused)
{
    setup_cpus(1);
    enter_prot(3);
    make_task(0x2000, CS32, DS32);
    idt32(EXC_DF, TSSSEL2, 0, 0x85);
    f.c->r[R_AX] = 0x1234;
    assert_true(deliver(EXC_DF, true, 0));
    assert_int_equal(f.c->rip, 0x2000);
    assert_int_equal(f.c->cpl, 0);
    assert_int_equal(f.c->r[R_AX], 0xaaaa);
    assert_int_equal(f.c->r[R_SP], IST1 - 4);           /* error code */
    assert_int_equal(f.c->st.tr.sel, TSSSEL2);
    assert_int_equal(peek(GDT + TSSSEL2 + 5, 1), 0x8b);
    assert_int_equal(peek(GDT + TSSSEL + 5, 1), 0x8b);  /* nested: the old one stays busy */
    assert_int_equal(peek(TSS2, 2), TSSSEL);
    assert_int_equal(peek(TSS + 0x28, 4), 0x1234);
    assert_true(cpu_rflags(f.c) & X86_NT);
    assert_true(f.c->st.cr0 & CR0_TS);
    f.c->r[R_AX] = 0x5678;
    assert_runs(sys_iret(f.c, 4));
    assert_int_equal(f.c->cpl, 3);
    assert_int_equal(f.c->r[R_AX], 0x1234);
    assert_int_equal(f.c->rip, CODE);
    assert_int_equal(f.c->st.tr.sel, TSSSEL);
    assert_int_equal(peek(GDT + TSSSEL2 + 5, 1), 0x89);
    assert_int_equal(peek(TSS2 + 0x28, 4), 0x5678);
    assert_false(cpu_rflags(f.c) & X86_NT);
    teardown();
}

static void test_a_fault_in_the_new_task_belongs_to_it(void **unused)
{
    setup_cpus(1);
    enter_prot(0);
    make_task(0x2000, CS32, NPDS);
    idt32(EXC_NP, CS32, 0x1111, 0x8e);
    assert_runs(sys_jmp_far(f.c, TSSSEL2, 0, 4));
    assert_int_equal(f.c->st.tr.sel, TSSSEL2);
    assert_int_equal(f.c->rip, 0x1111);
    assert_int_equal(peek(IST1 - 12, 4), 0x2000);       /* saved EIP: the new task's first instruction */
    assert_int_equal(peek(IST1 - 16, 4), NPDS);         /* an instruction did it: no EXT */
    assert_int_equal(peek(GDT + TSSSEL + 5, 1), 0x89);  /* JMP: the old one is free */
    teardown();
}

static void test_syscall_and_sysret_turn_around(void **unused)
{
    setup_cpus(1);
    enter_long(3);
    f.c->st.star = (uint64_t)(CS32U & ~3) << 48 | (uint64_t)CS32 << 32;
    f.c->st.lstar = 0xffff800000000000;
    f.c->st.sfmask = X86_IF | X86_TF;
    cpu_set_rflags(f.c, X86_IF | X86_CF, X86_IF | X86_ARITH);
    uint64_t flags = cpu_rflags(f.c);
    assert_runs(sys_syscall(f.c));
    assert_int_equal(f.c->cpl, 0);
    assert_int_equal(f.c->rip, 0xffff800000000000);
    assert_int_equal(f.c->r[R_CX], CODE);
    assert_int_equal(f.c->r[R_11], flags);
    assert_false(cpu_rflags(f.c) & X86_IF);
    assert_true(cpu_code64(f.c));
    assert_runs(sys_sysret(f.c, 8));
    assert_int_equal(f.c->cpl, 3);
    assert_int_equal(f.c->rip, CODE);
    assert_int_equal(f.c->st.seg[SEG_CS].sel, (CS32U & ~3) + 16 + 3);
    assert_int_equal(cpu_rflags(f.c), flags);
    assert_raises(EXC_GP, 0, sys_sysret(f.c, 8));       /* CPL 3 */
    f.c->st.efer &= ~EFER_SCE;
    assert_int_equal(CATCH(sys_syscall(f.c)), EXC_UD);
    teardown();
}

static void test_single_step_traps_once_and_not_into_handlers(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    idt64(EXC_DB, CS64, 0xdb, 0x8e, 0);
    f.c->r[R_SP] = STACK0;
    cpu_set_rflags(f.c, X86_TF | X86_RF, X86_TF | X86_RF);
    assert_true(sys_needs_single(f.c));
    uint64_t old = f.c->st.rflags;
    assert_true(sys_step_begin(f.c));
    f.c->rip += 3;
    sys_step_done(f.c, old);
    assert_int_equal(f.c->rip, 0xdb);
    assert_int_equal(f.c->st.dr6 & 0xffff, 0x4ff0);
    assert_int_equal(peek(STACK0 - 40, 8), CODE + 3);
    assert_true(peek(STACK0 - 24, 8) & X86_TF);
    assert_false(peek(STACK0 - 24, 8) & X86_RF);
    assert_false(sys_needs_single(f.c));

    f.c->rip = CODE;                                    /* an instruction breakpoint hits before, and RF passes it */
    f.c->st.dr[1] = CODE;
    f.c->st.dr7 |= 1 << 2;
    assert_true(sys_needs_single(f.c));
    f.c->st.dr6 = 0xffff0ff0;
    assert_false(sys_step_begin(f.c));
    assert_int_equal(f.c->st.dr6 & 15, 2);
    f.c->rip = CODE;
    cpu_set_rflags(f.c, X86_RF, X86_RF);
    assert_true(sys_step_begin(f.c));
    teardown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_mode_delivery_builds_an_aligned_frame),
        cmocka_unit_test(test_a_trap_gate_keeps_if_and_ist_switches_always),
        cmocka_unit_test(test_idt_faults_name_the_vector),
        cmocka_unit_test(test_contributory_pairs_are_a_double_fault),
        cmocka_unit_test(test_a_page_fault_while_pushing_is_exact),
        cmocka_unit_test(test_no_way_to_deliver_is_a_triple_fault),
        cmocka_unit_test(test_int_n_checks_the_gate_and_returns_behind_itself),
        cmocka_unit_test(test_legacy_delivery_to_an_inner_level),
        cmocka_unit_test(test_a_bad_inner_stack_is_an_invalid_tss),
        cmocka_unit_test(test_virtual_8086_mode_in_and_out),
        cmocka_unit_test(test_iopl_guards_int_and_flags_in_v86),
        cmocka_unit_test(test_real_mode_uses_the_ivt),
        cmocka_unit_test(test_a_task_gate_switches_tasks_and_iret_comes_back),
        cmocka_unit_test(test_a_fault_in_the_new_task_belongs_to_it),
        cmocka_unit_test(test_syscall_and_sysret_turn_around),
        cmocka_unit_test(test_single_step_traps_once_and_not_into_handlers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
