/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fixture.h"

static struct soft_cpu *cpu1;
static unsigned n_eoi;
static uint8_t eoi_vector;

static void count_eoi(void *ioapic, uint8_t vector)
{
    n_eoi++;
    eoi_vector = vector;
}

static int ack_33(void *pic)
{
    return 0x33;
}

/* Two CPUs in 64-bit mode with every vector leading to its own number; LAPICs enabled, IF set. */
static void setup_pair(void)
{
    setup_cpus(2);
    cpu1 = f.vm->cpus[1];
    for (unsigned v = 0; v < 256; v++) {
        idt64(v, CS64, v, 0x8e, 0);
    }
    for (unsigned i = 2; i-- > 0;) {
        f.c = f.vm->cpus[i];
        enter_long(0);
        f.c->r[R_SP] = i ? STACK3 : STACK0;
        f.c->st.ev.mp_state = MP_RUNNABLE;
        lapic_write(f.c, 0xf0, 0x1ff);
        cpu_set_rflags(f.c, X86_IF, X86_IF);
    }
    f.irq.eoi = count_eoi;
    n_eoi = 0;
}

static bool pends(struct soft_cpu *c, uint32_t bits)
{
    return (atomic_load(&c->pending) & bits) != 0;
}

static void take(struct soft_cpu *c, int vector)
{
    assert_true(sys_take_interrupt(c));
    assert_int_equal(c->rip, vector);
}

static void test_fixed_messages_find_their_cpu(void **unused)
{
    setup_pair();
    assert_true(lapic_msi(f.vm, 0xfee00000 | 1 << 12, 0x41));
    assert_false(sys_take_interrupt(f.c));
    take(cpu1, 0x41);
    assert_true(lapic_msi(f.vm, 0xfee00000 | 0xff << 12, 0x42));        /* broadcast */
    take(f.c, 0x42);
    assert_false(lapic_msi(f.vm, 0xfee00000 | 7 << 12, 0x43));          /* nobody */
    assert_false(lapic_msi(f.vm, 0xfee00000, 0x0f));                    /* illegal vector: error, no interrupt */
    lapic_write(f.c, 0x280, 0);
    assert_int_equal(lapic_read(f.c, 0x280), 1 << 6);
    teardown();
}

static void test_logical_destinations_flat_and_cluster(void **unused)
{
    setup_pair();
    lapic_write(f.c, 0xd0, 0x01000000);
    lapic_write(cpu1, 0xd0, 0x02000000);
    assert_true(lapic_msi(f.vm, 0xfee00004 | 2 << 12, 0x51));
    assert_false(sys_take_interrupt(f.c));
    take(cpu1, 0x51);
    lapic_write(f.c, 0xe0, 0x0fffffff);                 /* cluster model */
    lapic_write(cpu1, 0xe0, 0x0fffffff);
    lapic_write(f.c, 0xd0, 0x11000000);
    lapic_write(cpu1, 0xd0, 0x21000000);
    assert_true(lapic_msi(f.vm, 0xfee00004 | 0x11 << 12, 0x52));
    take(f.c, 0x52);
    assert_false(lapic_msi(f.vm, 0xfee00004 | 0x32 << 12, 0x53));
    teardown();
}

static void test_lowest_priority_goes_to_the_idler(void **unused)
{
    setup_pair();
    lapic_write(f.c, 0xd0, 0x01000000);
    lapic_write(cpu1, 0xd0, 0x02000000);
    lapic_write(f.c, 0x80, 0x40);
    assert_true(lapic_msi(f.vm, 0xfee00004 | 3 << 12, 0x151));
    assert_false(sys_take_interrupt(f.c));
    take(cpu1, 0x51);
    teardown();
}

static void test_priorities_nest_and_eoi_lets_the_next_in(void **unused)
{
    setup_pair();
    lapic_msi(f.vm, 0xfee00000, 0x41);
    lapic_msi(f.vm, 0xfee00000, 0x61);
    take(f.c, 0x61);
    assert_int_equal(lapic_read(f.c, 0xa0), 0x60);
    cpu_set_rflags(f.c, X86_IF, X86_IF);
    assert_false(sys_take_interrupt(f.c));              /* 41 is below what is in service */
    lapic_write(f.c, 0xb0, 0);
    assert_true(pends(f.c, PEND_IRQ));
    take(f.c, 0x41);
    lapic_write(f.c, 0xb0, 0);
    assert_int_equal(lapic_read(f.c, 0xa0), 0);
    assert_int_equal(n_eoi, 0);                         /* edge: nothing to tell the IOAPIC */
    lapic_msi(f.vm, 0xfee00000, 0x8041 | 1 << 14);      /* level */
    cpu_set_rflags(f.c, X86_IF, X86_IF);
    take(f.c, 0x41);
    lapic_write(f.c, 0xb0, 0);
    assert_int_equal(n_eoi, 1);
    assert_int_equal(eoi_vector, 0x41);
    teardown();
}

static void test_tpr_and_if_hold_interrupts_back(void **unused)
{
    setup_pair();
    struct uop u = uop_of(OP_MOV_TO_CR);
    u.i.reg = 8;
    f.c->r[R_AX] = 5;
    assert_runs(sys_insn(f.c, &u, 0));
    assert_int_equal(lapic_read(f.c, 0x80), 0x50);
    lapic_msi(f.vm, 0xfee00000, 0x55);
    assert_false(sys_take_interrupt(f.c));
    assert_false(pends(f.c, PEND_IRQ));
    f.c->r[R_AX] = 4;
    assert_runs(sys_insn(f.c, &u, 0));
    assert_true(pends(f.c, PEND_IRQ));
    cpu_set_rflags(f.c, 0, X86_IF);
    assert_false(sys_take_interrupt(f.c));
    assert_false(sys_interrupt_ready(f.c));
    struct uop sti = uop_of(OP_STI);
    assert_runs(sys_insn(f.c, &sti, 0));
    assert_true(pends(f.c, PEND_IRQ));
    assert_false(sys_take_interrupt(f.c));              /* the shadow of STI */
    assert_true(pends(f.c, PEND_IRQ));
    f.c->st.ev.int_shadow = 0;
    take(f.c, 0x55);
    teardown();
}

static void test_a_halted_cpu_wakes_by_an_interrupt(void **unused)
{
    setup_pair();
    struct uop hlt = uop_of(OP_HLT);
    assert_runs(sys_insn(f.c, &hlt, 0));
    assert_true(f.c->st.ev.halted);
    assert_false(sys_interrupt_ready(f.c));
    lapic_write(cpu1, 0x310, 0);
    lapic_write(cpu1, 0x300, 0x4000 | 0x71);            /* IPI to CPU 0 */
    assert_true(sys_interrupt_ready(f.c));
    take(f.c, 0x71);
    assert_false(f.c->st.ev.halted);
    teardown();
}

static void test_shorthands_name_self_all_and_others(void **unused)
{
    setup_pair();
    lapic_write(f.c, 0x300, 1 << 18 | 0x61);
    take(f.c, 0x61);
    assert_false(sys_take_interrupt(cpu1));
    lapic_write(f.c, 0xb0, 0);
    lapic_write(f.c, 0x300, 3 << 18 | 0x62);
    cpu_set_rflags(f.c, X86_IF, X86_IF);
    assert_false(sys_take_interrupt(f.c));
    take(cpu1, 0x62);
    lapic_write(cpu1, 0xb0, 0);
    lapic_write(f.c, 0x300, 2 << 18 | 0x63);
    cpu_set_rflags(cpu1, X86_IF, X86_IF);
    take(f.c, 0x63);
    take(cpu1, 0x63);
    teardown();
}

static void test_init_and_sipi_start_a_cpu(void **unused)
{
    setup_cpus(2);
    cpu1 = f.vm->cpus[1];
    assert_int_equal(cpu1->st.ev.mp_state, MP_WAIT_SIPI);
    lapic_write(f.c, 0xf0, 0x1ff);
    lapic_write(f.c, 0x310, 1 << 24);
    lapic_write(f.c, 0x300, 0x4500);                    /* INIT */
    assert_true(sys_interrupt_ready(cpu1));
    sys_take_interrupt(cpu1);
    assert_false(sys_take_interrupt(cpu1));
    assert_int_equal(cpu1->st.ev.mp_state, MP_WAIT_SIPI);
    lapic_write(f.c, 0x300, 0x4600 | 0x9a);             /* start-up */
    assert_true(sys_interrupt_ready(cpu1));
    assert_true(sys_take_interrupt(cpu1));
    assert_int_equal(cpu1->st.ev.mp_state, MP_RUNNABLE);
    assert_int_equal(cpu1->st.seg[SEG_CS].base, 0x9a000);
    assert_int_equal(cpu1->st.seg[SEG_CS].sel, 0x9a00);
    assert_int_equal(cpu1->rip, 0);
    assert_int_equal(cpu1->segbase[SEG_CS], 0x9a000);
    lapic_write(f.c, 0x300, 0x4600 | 0x33);             /* ignored while it runs */
    assert_false(sys_take_interrupt(cpu1));
    assert_int_equal(cpu1->rip, 0);
    teardown();
}

static void test_the_8259_comes_in_by_lint0(void **unused)
{
    setup_pair();
    f.irq.pic_ack = ack_33;
    lapic_write(f.c, 0x350, 0x10700);
    lapic_set_extint(f.c, true);
    assert_false(sys_take_interrupt(f.c));              /* masked */
    lapic_write(f.c, 0x350, 0x700);
    assert_true(pends(f.c, PEND_IRQ));
    take(f.c, 0x33);
    assert_int_equal(lapic_read(f.c, 0x110), 0);        /* no LAPIC bookkeeping for it */
    teardown();
}

static void wait_ns(uint64_t ns)
{
    uint64_t until = vm_clock_ns(&f.clock) + ns;
    while (vm_clock_ns(&f.clock) < until) {
    }
}

static void test_one_shot_and_periodic_timers(void **unused)
{
    setup_pair();
    lapic_write(f.c, 0x3e0, 0xb);                       /* divide by 1 */
    lapic_write(f.c, 0x320, 0x81);
    assert_int_equal(lapic_next_deadline(f.c), UINT64_MAX);
    lapic_write(f.c, 0x380, 100000);
    assert_true(pends(f.c, PEND_TIMER));
    uint64_t at = lapic_next_deadline(f.c), now = vm_clock_ns(&f.clock);
    assert_true(at <= now + 100000 && at + 1000000000 > now);
    wait_ns(150000);
    lapic_timer_poll(f.c);
    take(f.c, 0x81);
    assert_int_equal(lapic_read(f.c, 0x390), 0);
    assert_int_equal(lapic_next_deadline(f.c), UINT64_MAX);
    lapic_write(f.c, 0xb0, 0);

    lapic_write(f.c, 0x320, 0x20000 | 0x82);
    lapic_write(f.c, 0x380, 50000);
    for (int i = 0; i < 3; i++) {
        uint32_t count = lapic_read(f.c, 0x390);
        assert_true(count <= 50000);
        wait_ns(60000);
        lapic_timer_poll(f.c);
        cpu_set_rflags(f.c, X86_IF, X86_IF);
        take(f.c, 0x82);
        lapic_write(f.c, 0xb0, 0);
        assert_true(lapic_next_deadline(f.c) <= vm_clock_ns(&f.clock) + 50000);
    }
    lapic_write(f.c, 0x380, 0);                         /* stops */
    assert_int_equal(lapic_next_deadline(f.c), UINT64_MAX);
    teardown();
}

static void test_the_tsc_deadline_fires_once_also_in_the_past(void **unused)
{
    setup_pair();
    lapic_write(f.c, 0x320, 0x40000 | 0x83);
    assert_true(sys_wrmsr(f.c, MSR_TSC_DEADLINE, sys_read_tsc(f.c) + f.vm->tsc_khz / 10));      /* 100 us */
    uint64_t at = lapic_next_deadline(f.c), now = vm_clock_ns(&f.clock), v;
    assert_true(at <= now + 110000);
    wait_ns(150000);
    lapic_timer_poll(f.c);
    take(f.c, 0x83);
    assert_true(sys_rdmsr(f.c, MSR_TSC_DEADLINE, &v));
    assert_int_equal(v, 0);
    lapic_write(f.c, 0xb0, 0);
    cpu_set_rflags(f.c, X86_IF, X86_IF);
    assert_true(sys_wrmsr(f.c, MSR_TSC_DEADLINE, 1));
    assert_true(lapic_next_deadline(f.c) <= vm_clock_ns(&f.clock));
    lapic_timer_poll(f.c);
    take(f.c, 0x83);
    lapic_write(f.c, 0xb0, 0);
    assert_true(sys_wrmsr(f.c, MSR_TSC_DEADLINE, UINT64_MAX));
    assert_true(lapic_next_deadline(f.c) > vm_clock_ns(&f.clock) + 1000000000);
    lapic_write(f.c, 0x320, 0x83);                      /* another mode disarms */
    assert_true(sys_rdmsr(f.c, MSR_TSC_DEADLINE, &v));
    assert_int_equal(v, 0);
    teardown();
}

static void test_x2apic_mode_by_the_book(void **unused)
{
    setup_pair();
    uint64_t base = f.c->st.lapic.base_msr, v;
    assert_false(sys_rdmsr(f.c, 0x802, &v));
    assert_false(sys_wrmsr(f.c, MSR_APIC_BASE, (base & ~0x800ull) | 0x400));     /* off with x2APIC: no such state */
    assert_true(lapic_at(f.c, 0xfee00300));
    assert_true(sys_wrmsr(f.c, MSR_APIC_BASE, base | 0x400));
    assert_false(lapic_at(f.c, 0xfee00300));
    assert_true(sys_wrmsr(cpu1, MSR_APIC_BASE, (base & ~0x100ull) | 0x400));
    assert_false(sys_wrmsr(f.c, MSR_APIC_BASE, base));                           /* not straight back */
    assert_true(sys_rdmsr(cpu1, 0x802, &v));
    assert_int_equal(v, 1);
    assert_true(sys_rdmsr(cpu1, 0x80d, &v));
    assert_int_equal(v, 2);
    assert_false(sys_wrmsr(f.c, 0x802, 0));             /* read-only, write-only, reserved */
    assert_false(sys_rdmsr(f.c, 0x80b, &v));
    assert_false(sys_wrmsr(f.c, 0x80b, 1));
    assert_false(sys_rdmsr(f.c, 0x80e, &v));
    assert_true(sys_wrmsr(f.c, 0x830, 1ull << 32 | 0x91));
    take(cpu1, 0x91);
    assert_true(sys_wrmsr(f.c, 0x830, (uint64_t)1 << 32 | 0x800 | 0x92));        /* logical id 1: CPU 0 */
    take(f.c, 0x92);
    assert_true(sys_wrmsr(f.c, 0x80b, 0));
    assert_true(sys_wrmsr(f.c, 0x83f, 0x93));           /* self IPI */
    cpu_set_rflags(f.c, X86_IF, X86_IF);
    take(f.c, 0x93);
    teardown();
}

static void test_a_disabled_lapic_takes_only_nmi_and_init(void **unused)
{
    setup_pair();
    lapic_write(f.c, 0x320, 0x81);
    lapic_write(f.c, 0xf0, 0xff);
    assert_true(lapic_read(f.c, 0x320) & 1 << 16);      /* all LVTs masked */
    lapic_write(f.c, 0x320, 0x81);
    assert_true(lapic_read(f.c, 0x320) & 1 << 16);
    assert_false(lapic_msi(f.vm, 0xfee00000, 0x41));
    assert_true(lapic_msi(f.vm, 0xfee00000, 0x400));
    take(f.c, EXC_NMI);
    teardown();
}

static void test_pv_eoi_saves_the_write_and_never_loses_one(void **unused)
{
    setup_pair();
    assert_true(sys_wrmsr(f.c, MSR_KVM_PV_EOI_EN, DATA | 1));
    lapic_msi(f.vm, 0xfee00000, 0x41);
    take(f.c, 0x41);
    assert_int_equal(peek(DATA, 1), 1);
    poke(DATA, 1, 0);                                   /* the guest's EOI */
    assert_int_equal(lapic_read(f.c, 0xa0), 0);
    lapic_msi(f.vm, 0xfee00000, 0x41);
    cpu_set_rflags(f.c, X86_IF, X86_IF);
    take(f.c, 0x41);
    assert_int_equal(peek(DATA, 1), 1);
    lapic_msi(f.vm, 0xfee00000, 0x31);                  /* another one waits: the offer is withdrawn */
    cpu_set_rflags(f.c, X86_IF, X86_IF);
    assert_false(sys_take_interrupt(f.c));
    assert_int_equal(peek(DATA, 1), 0);
    lapic_write(f.c, 0xb0, 0);
    take(f.c, 0x31);
    assert_true(sys_wrmsr(f.c, MSR_KVM_PV_EOI_EN, 0));
    teardown();
}

static void test_hypercalls_send_ipis_and_kick(void **unused)
{
    setup_pair();
    f.c->r[R_AX] = 10;                                  /* SEND_IPI to APIC ids 0 and 1 */
    f.c->r[R_BX] = 3;
    f.c->r[R_CX] = 0;
    f.c->r[R_DX] = 0;
    f.c->r[R_SI] = 0x77;
    struct uop vmcall = uop_of(OP_VMCALL), hlt = uop_of(OP_HLT);
    assert_runs(sys_insn(f.c, &vmcall, 0));
    assert_int_equal(f.c->r[R_AX], 2);
    take(f.c, 0x77);
    take(cpu1, 0x77);
    f.c->r[R_AX] = 99;
    assert_runs(sys_insn(f.c, &vmcall, 0));
    assert_int_equal((int64_t)f.c->r[R_AX], -1000);
    struct soft_cpu *c0 = f.c;
    f.c = cpu1;
    assert_runs(sys_insn(cpu1, &hlt, 0));
    f.c = c0;
    assert_false(sys_interrupt_ready(cpu1));            /* IF is clear in its handler */
    f.c->r[R_AX] = 5;
    f.c->r[R_CX] = 1;
    assert_runs(sys_insn(f.c, &vmcall, 0));
    assert_true(sys_interrupt_ready(cpu1));
    assert_true(sys_take_interrupt(cpu1));
    assert_false(cpu1->st.ev.halted);
    f.c->r[R_AX] = 5;
    assert_runs(sys_insn(f.c, &vmcall, 0));             /* a kick that comes before the HLT is not lost */
    sys_take_interrupt(cpu1);
    f.c = cpu1;
    assert_runs(sys_insn(cpu1, &hlt, 0));
    assert_false(cpu1->st.ev.halted);
    assert_runs(sys_insn(cpu1, &hlt, 0));
    assert_true(cpu1->st.ev.halted);
    teardown();
}

static void test_a_sleeper_flushes_when_it_was_asked_to(void **unused)
{
    setup_pair();
    assert_true(sys_wrmsr(f.c, MSR_KVM_STEAL_TIME, DATA | 1));
    sys_sleep_begin(f.c);
    assert_int_equal(peek(DATA + 16, 1), 1);
    poke(DATA + 16, 1, 3);
    uint64_t flushes = f.c->stats.tlb_flushes;
    sys_sleep_end(f.c);
    assert_int_equal(peek(DATA + 16, 1), 0);
    assert_int_equal(f.c->stats.tlb_flushes, flushes + 1);
    assert_false(sys_wrmsr(f.c, MSR_KVM_STEAL_TIME, DATA | 3));
    teardown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixed_messages_find_their_cpu),
        cmocka_unit_test(test_logical_destinations_flat_and_cluster),
        cmocka_unit_test(test_lowest_priority_goes_to_the_idler),
        cmocka_unit_test(test_priorities_nest_and_eoi_lets_the_next_in),
        cmocka_unit_test(test_tpr_and_if_hold_interrupts_back),
        cmocka_unit_test(test_a_halted_cpu_wakes_by_an_interrupt),
        cmocka_unit_test(test_shorthands_name_self_all_and_others),
        cmocka_unit_test(test_init_and_sipi_start_a_cpu),
        cmocka_unit_test(test_the_8259_comes_in_by_lint0),
        cmocka_unit_test(test_one_shot_and_periodic_timers),
        cmocka_unit_test(test_the_tsc_deadline_fires_once_also_in_the_past),
        cmocka_unit_test(test_x2apic_mode_by_the_book),
        cmocka_unit_test(test_a_disabled_lapic_takes_only_nmi_and_init),
        cmocka_unit_test(test_pv_eoi_saves_the_write_and_never_loses_one),
        cmocka_unit_test(test_hypercalls_send_ipis_and_kick),
        cmocka_unit_test(test_a_sleeper_flushes_when_it_was_asked_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
