/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLB coherence, accesses over page borders, devices, ROM, tracking of decoded code, standing still. */
#include "mmu-fixture.h"

#include <unistd.h>

static void test_a_crossing_access_faults_on_the_second_page_and_moves_nothing(void **unused)
{
    struct soft_cpu *c = fx.cpu[0];
    fx_long_mode(c);
    ram64(PT_AT + 8 * 0x21, 0);
    store_le32(fx.ram + 0x20ffc, 0x11111111);
    assert_true(RAISES(mmu_store(c, 0x20ffe, 4, 0xffffffff)));
    assert_int_equal(raised.vector, EXC_PF);
    assert_int_equal(raised.error, PF_W);
    assert_true(raised.cr2 == 0x21000);
    assert_int_equal(load_le32(fx.ram + 0x20ffc), 0x11111111);
    ram64(PT_AT + 8 * 0x21, 0x30000 | 7);       /* not contiguous in RAM */
    mmu_store(c, 0x20ffe, 4, 0x44332211);
    assert_int_equal(load_le16(fx.ram + 0x20ffe), 0x2211);
    assert_int_equal(load_le16(fx.ram + 0x30000), 0x4433);
    assert_int_equal(mmu_load(c, 0x20ffe, 4), 0x44332211);
}

static void test_non_canonical_addresses_raise_gp_or_ss(void **unused)
{
    struct soft_cpu *c = fx.cpu[0];
    struct uop u = { 0 };
    fx_long_mode(c);
    assert_true(RAISES(mmu_load(c, 0x0000800000000000ull, 8)));
    assert_int_equal(raised.vector, EXC_GP);
    u.i.flags = INSN_MEM;
    u.i.seg = SEG_SS;
    c->u = &u;
    assert_true(RAISES(mmu_load(c, 0xffff7fffffffffffull, 1)));
    assert_int_equal(raised.vector, EXC_SS);
    c->u = NULL;
    assert_true(RAISES(mmu_load(c, 0x00007ffffffffffcull, 8)));
    assert_int_equal(raised.vector, EXC_PF);    /* the first page is canonical, and not mapped */
}

static void test_stale_entries_live_until_invlpg(void **unused)
{
    struct soft_cpu *c = fx.cpu[0];
    fx_long_mode(c);
    fx.ram[0x40000] = 1;
    fx.ram[0x41000] = 2;
    assert_int_equal(mmu_load(c, 0x40000, 1), 1);
    ram64(PT_AT + 8 * 0x40, 0x41000 | 7);
    mmu_flush_page(c, 0x40123);
    assert_int_equal(mmu_load(c, 0x40000, 1), 2);
}

static void test_global_pages_survive_cr3_but_not_a_full_flush(void **unused)
{
    struct soft_cpu *c = fx.cpu[0];
    fx_long_mode(c);
    ram64(PT_AT + 8 * 0x40, 0x40000 | 0x107);
    fx.ram[0x40000] = 1;
    fx.ram[0x50000] = 2;
    assert_int_equal(mmu_load(c, 0x40000, 1), 1);
    assert_int_equal(mmu_load(c, 0x42000, 1), 0);
    ram64(PT_AT + 8 * 0x40, 0x50000 | 0x107);
    ram64(PT_AT + 8 * 0x42, 0x50000 | 7);
    mmu_cr3_loaded(c, false);
    assert_int_equal(mmu_load(c, 0x40000, 1), 1);
    assert_int_equal(mmu_load(c, 0x42000, 1), 2);
    mmu_flush_all(c);
    assert_int_equal(mmu_load(c, 0x40000, 1), 2);
}

static void test_invlpg_of_a_large_page_drops_all_of_it(void **unused)
{
    struct soft_cpu *c = fx.cpu[0];
    fx_long_mode(c);
    fx.ram[0x201000] = 1;
    assert_int_equal(mmu_load(c, 0x201000, 1), 1);
    ram64(PD_AT + 8, 0x87);             /* now onto 0..2 MiB */
    mmu_flush_page(c, 0x3ff000);
    fx.ram[0x1000] = 9;
    assert_int_equal(mmu_load(c, 0x201000, 1), 9);
}

static void test_a_first_write_sets_dirty_even_after_a_read_filled_the_entry(void **unused)
{
    struct soft_cpu *c = fx.cpu[0];
    fx_long_mode(c);
    mmu_load(c, 0x40000, 8);
    assert_int_equal(load_le64(fx.ram + PT_AT + 8 * 0x40) & 0x60, 0x20);
    mmu_store(c, 0x40000, 8, 1);
    assert_int_equal(load_le64(fx.ram + PT_AT + 8 * 0x40) & 0x60, 0x60);
    assert_int_equal(load_le64(fx.ram + PML4_AT) & 0x60, 0x20);
}

static void test_smap_follows_ac_for_data_and_not_for_system_structures(void **unused)
{
    struct soft_cpu *c = fx.cpu[0];
    fx_long_mode(c);
    c->st.cr4 |= CR4_SMAP;
    mmu_select_context(c);
    assert_true(RAISES(mmu_load(c, 0x40000, 1)));
    assert_int_equal(raised.error, PF_P);
    c->st.rflags |= X86_AC;
    mmu_select_context(c);
    assert_false(RAISES(mmu_load(c, 0x40000, 1)));
    assert_true(RAISES(mmu_load_sys(c, 0x40000, 8)));
    c->st.rflags = 0;
    mmu_select_context(c);
    assert_true(RAISES(mmu_load(c, 0x40000, 1)));
    c->cpl = 3;
    mmu_select_context(c);
    assert_false(RAISES(mmu_load(c, 0x40000, 1)));
    assert_true(RAISES(mmu_load_sys(c, 0x40000, 8)));
    assert_int_equal(raised.error, PF_P);       /* an implicit supervisor access */
}

static void test_devices_see_naturally_aligned_pieces(void **unused)
{
    struct soft_cpu *c = fx.cpu[0];
    assert_true(mmu_load(c, DEV_GPA + 8, 8) == 0x0f0e0d0c0b0a0908ull);
    assert_int_equal(n_io, 1);
    n_io = 0;
    assert_true(mmu_load(c, DEV_GPA + 3, 4) == 0x06050403);
    assert_int_equal(n_io, 3);
    assert_int_equal(io_log[0].width, 1);
    assert_int_equal(io_log[1].width, 2);
    assert_int_equal(io_log[2].width, 1);
    n_io = 0;
    mmu_store(c, DEV_GPA + 6, 4, 0x44332211);
    assert_int_equal(n_io, 2);
    assert_int_equal(io_log[0].val, 0x2211);
    assert_int_equal(io_log[1].val, 0x4433);
    assert_null(mmu_ptr_w(c, DEV_GPA, 4));
    n_io = 0;
    mmu_store(c, RAM_SIZE - 2, 4, 0x44332211);  /* RAM's end, then nobody */
    assert_int_equal(load_le16(fx.ram + RAM_SIZE - 2), 0x2211);
    assert_int_equal(n_io, 1);
    assert_int_equal(io_log[0].width, 2);
}

static void test_the_apic_page_is_this_cpus(void **unused)
{
    struct soft_cpu *c = fx.cpu[0];
    assert_int_equal(mmu_load(c, 0xfee00020, 4), 0x01020320);
    mmu_store(c, 0xfee000b0, 4, 5);
    assert_int_equal(lapic_last, 0xb0 ^ 5);
    assert_int_equal(n_io, 0);
    c->st.lapic.base_msr |= 0x400;      /* x2APIC: the page is the bus's again */
    mmu_load(c, 0xfee00020, 4);
    assert_int_equal(n_io, 1);
}

static void test_rom_ignores_writes(void **unused)
{
    struct soft_cpu *c = fx.cpu[0];
    fx.rom[16] = 7;
    assert_int_equal(mmu_load(c, ROM_GPA + 16, 1), 7);
    mmu_store(c, ROM_GPA + 16, 1, 9);
    assert_int_equal(mmu_load(c, ROM_GPA + 16, 1), 7);
    assert_null(mmu_ptr_w(c, ROM_GPA + 16, 4));
    assert_int_equal(fx.rom[16], 7);
    assert_int_equal(n_io, 0);
}

static void test_decoded_lines_go_stale_by_stores_and_by_dma(void **unused)
{
    struct soft_cpu *c = fx.cpu[0], *d = fx.cpu[1];
    uint32_t gen, again;
    mmu_store(c, 0x3000, 8, 1);
    mmu_store(d, 0x3000, 8, 1);         /* both have a write tag */
    struct code_page *pg = code_track(c, 0x3040, 16, &gen);
    assert_non_null(pg);
    mmu_store(d, 0x3000, 8, 2);         /* another line of the page */
    assert_int_equal(atomic_load(&pg->gen), gen);
    mmu_store(d, 0x303f, 2, 0);         /* reaches into the marked line */
    assert_int_equal(atomic_load(&pg->gen), gen + 1);
    code_track(c, 0x3040, 16, &again);
    assert_int_equal(again, gen + 1);
    code_written(&fx.vm, 0x2fff, 0x42);
    assert_int_equal(atomic_load(&pg->gen), gen + 2);
    assert_int_equal(load_le64(fx.ram + 0x3000), 2);
}

static void test_an_instruction_that_hits_decoded_code_is_restarted_alone(void **unused)
{
    struct soft_cpu *c = fx.cpu[0];
    struct uop u = { 0 };
    uint32_t gen;
    c->u = &u;
    struct code_page *pg = code_track(c, 0x3040, 16, &gen);
    assert_false(RAISES(mmu_store(c, 0x3000, 8, 2)));
    assert_true(RAISES(mmu_store(c, 0x3048, 8, 2)));
    assert_int_equal(raised.vector, -1);
    assert_int_equal(load_le64(fx.ram + 0x3048), 0);
    assert_true(RAISES(mmu_ptr_w(c, 0x3080, 8)));       /* what will be stored through a pointer is not known yet */
    c->single = true;
    uint8_t *p = mmu_ptr_w(c, 0x3048, 8);
    assert_ptr_equal(p, fx.ram + 0x3048);
    assert_int_equal(c->n_smc, 1);
    store_le64(p, 3);
    assert_int_equal(atomic_load(&pg->gen), gen);
    mmu_smc_flush(c);
    assert_int_equal(atomic_load(&pg->gen), gen + 1);
    uint64_t n;
    assert_null(mmu_span(c, 0x3080, 64, MMU_WRITE, &n));
    assert_non_null(mmu_span(c, 0x3ff0, 64, MMU_READ, &n));
    assert_int_equal(n, 16);
}

static void test_a_page_that_is_only_written_is_let_go(void **unused)
{
    struct soft_cpu *c = fx.cpu[0];
    uint32_t gen;
    struct code_page *pg = code_track(c, 0x3040, 16, &gen);
    for (unsigned i = 0; i < 16; i++) {
        assert_true(atomic_load(&pg->tracked));
        mmu_store(c, 0x3800, 4, i);
    }
    assert_false(atomic_load(&pg->tracked));
    assert_int_equal(atomic_load(&pg->gen), gen + 1);
    mmu_store(c, 0x3800, 4, 99);
    assert_true(tlb_slot(c, 0x3800)->tag_w == 0x3000);
}

static void test_dirty_logging_sees_every_written_page(void **unused)
{
    static _Atomic uint64_t bits[RAM_SIZE / PAGE_SIZE / 64];
    struct soft_cpu *c = fx.cpu[0];
    struct err err = ERR_INIT;
    mmu_store(c, 0x5000, 4, 1);
    memset((void *)bits, 0, sizeof(bits));
    fx.slots[0].dirty = bits;
    assert_true(code_map_slot_set(fx.vm.code, &fx.slots[0], &err));
    mmu_load(c, 0x5000, 4);
    assert_int_equal(bits[0], 0);
    mmu_store(c, 0x5000, 4, 2);
    mmu_store(c, 0x5004, 4, 2);
    assert_int_equal(bits[0], 1 << 5);
    fx_long_mode(c);
    mmu_load(c, 0x40000, 4);
    assert_true(bits[PT_AT / PAGE_SIZE / 64] >> (PT_AT / PAGE_SIZE % 64) & 1);     /* the walk set A */
}

struct spinner {
    struct soft_cpu *c;
    _Atomic uint64_t rounds;
    _Atomic bool quit;
};

static void *spin(void *arg)
{
    struct spinner *s = arg;
    mmu_world_enter(s->c);
    while (!atomic_load(&s->quit)) {
        if (atomic_load(&s->c->pending) & PEND_STOP_WORLD) {
            atomic_fetch_and(&s->c->pending, ~(uint32_t)PEND_STOP_WORLD);
            mmu_world_leave(s->c);
            mmu_world_enter(s->c);
        }
        atomic_fetch_add(&s->rounds, 1);
    }
    mmu_world_leave(s->c);
    return NULL;
}

static void test_others_stand_still_in_an_exclusive_section(void **unused)
{
    struct spinner s = { .c = fx.cpu[1] };
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, spin, &s), 0);
    while (atomic_load(&s.rounds) == 0) {
        usleep(100);
    }
    for (unsigned i = 0; i < 20; i++) {
        mmu_exclusive_begin(fx.cpu[0]);
        uint64_t before = atomic_load(&s.rounds);
        usleep(200);
        assert_true(atomic_load(&s.rounds) == before);
        mmu_exclusive_end(fx.cpu[0]);
    }
    uint64_t before = atomic_load(&s.rounds);
    while (atomic_load(&s.rounds) == before) {
        usleep(100);
    }
    atomic_store(&s.quit, true);
    pthread_join(t, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_crossing_access_faults_on_the_second_page_and_moves_nothing, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_non_canonical_addresses_raise_gp_or_ss, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_stale_entries_live_until_invlpg, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_global_pages_survive_cr3_but_not_a_full_flush, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_invlpg_of_a_large_page_drops_all_of_it, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_a_first_write_sets_dirty_even_after_a_read_filled_the_entry, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_smap_follows_ac_for_data_and_not_for_system_structures, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_devices_see_naturally_aligned_pieces, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_the_apic_page_is_this_cpus, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_rom_ignores_writes, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_decoded_lines_go_stale_by_stores_and_by_dma, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_an_instruction_that_hits_decoded_code_is_restarted_alone, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_a_page_that_is_only_written_is_let_go, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_dirty_logging_sees_every_written_page, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_others_stand_still_in_an_exclusive_section, fx_setup, fx_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
