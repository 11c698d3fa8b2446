/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The walker against a naive one that follows the manual's tables word by word, over random tables, modes and accesses. */
#include "mmu-fixture.h"

enum { N_TABLES = 8, TABLES_AT = 0x10000 };

struct ref {
    int error;                  /* -1: no fault; else the error code */
    uint64_t gpa;
};

static uint64_t rng_state = 88172645463325252ull;

static uint64_t rnd(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state;
}

static uint64_t bit(uint64_t v, unsigned n)
{
    return v >> n & 1;
}

/* SDM vol. 3A tables 4-5, 4-6 (32-bit), 4-8..4-11 (PAE), 4-15..4-20 (4-level): reserved bits one by one. */
static bool ref_reserved(const struct soft_cpu *c, bool lma, bool wide, unsigned level, bool leaf, uint64_t e)
{
    if (!wide) {
        if (level == 2 && leaf) {
            return bit(e, 21);          /* PSE-36 with 40 bits: 20:13 are address */
        }
        return false;
    }
    for (unsigned b = 40; b <= 51; b++) {
        if (bit(e, b)) {
            return true;
        }
    }
    for (unsigned b = 52; !lma && b <= 62; b++) {
        if (bit(e, b)) {
            return true;
        }
    }
    if (bit(e, 63) && !(c->st.efer & EFER_NXE)) {
        return true;
    }
    if (level == 4 && bit(e, 7)) {
        return true;
    }
    for (unsigned b = 13; leaf && level > 1 && b <= (level == 2 ? 20 : 29); b++) {
        if (bit(e, b)) {
            return true;
        }
    }
    return false;
}

static uint64_t entry_load(const uint8_t *ram, uint64_t at, bool wide)
{
    if (at + 8 > RAM_SIZE) {
        return wide ? ~0ull : 0xffffffff;
    }
    return wide ? load_le64(ram + at) : load_le32(ram + at);
}

static void entry_or(uint8_t *ram, uint64_t at, uint64_t v)
{
    if (at + 8 <= RAM_SIZE) {
        store_le32(ram + at, load_le32(ram + at) | (uint32_t)v);
    }
}

static __attribute__((noinline)) struct ref ref_walk(struct soft_cpu *c, uint8_t *ram, uint64_t lin, bool user_acc, bool smap_off,
                                                     enum mmu_access acc)
{
    bool wide = c->st.cr4 & CR4_PAE, lma = c->st.efer & EFER_LMA;
    bool u = true, w = true, nx = false, leaf = false;
    int code = (user_acc ? 4 : 0) | (acc == MMU_WRITE ? 2 : 0);
    if (acc == MMU_EXEC && (c->st.cr4 & CR4_SMEP || (wide && c->st.efer & EFER_NXE))) {
        code |= 16;
    }
    unsigned level = lma ? 4 : 2;
    uint64_t table = lma ? c->st.cr3 & 0xffffffffff000ull : c->st.cr3 & 0xfffff000;
    if (wide && !lma) {
        table = c->st.pdpte[lin >> 30 & 3];
        if (!bit(table, 0)) {
            return (struct ref){ code, 0 };
        }
        table &= 0xffffffffff000ull;
    }
    uint64_t e = 0, at = 0;
    for (; !leaf; level--) {
        unsigned bits = wide ? 9 : 10, shift = 12 + bits * (level - 1);
        at = table + (lin >> shift & ((1u << bits) - 1)) * (wide ? 8 : 4);
        e = entry_load(ram, at, wide);
        if (!bit(e, 0)) {
            return (struct ref){ code, 0 };
        }
        leaf = level == 1 || (bit(e, 7) && (level == 2 || level == 3) && (wide || c->st.cr4 & CR4_PSE));
        if (ref_reserved(c, lma, wide, level, leaf, e)) {
            return (struct ref){ code | 9, 0 };
        }
        u = u && bit(e, 2);
        w = w && bit(e, 1);
        nx = nx || (wide && bit(e, 63));
        if (!leaf) {
            entry_or(ram, at, 1 << 5);
            table = wide ? e & 0xffffffffff000ull : e & 0xfffff000;
        }
    }
    level++;
    bool ok;
    if (user_acc) {
        ok = u && (acc != MMU_WRITE || w) && (acc != MMU_EXEC || !nx);
    } else if (acc == MMU_EXEC) {
        ok = !nx && !(u && c->st.cr4 & CR4_SMEP);
    } else {
        ok = (!u || smap_off) && (acc != MMU_WRITE || w || !(c->st.cr0 & CR0_WP));
    }
    if (!ok) {
        return (struct ref){ code | 1, 0 };
    }
    entry_or(ram, at, acc == MMU_WRITE ? 0x60 : 0x20);
    unsigned shift = wide ? 12 + 9 * (level - 1) : level == 2 ? 22 : 12;
    uint64_t in = (1ull << shift) - 1, base = e & 0xffffffffff000ull & ~in;
    if (!wide) {
        base = level == 2 ? (e & 0xffc00000) | (e >> 13 & 0xff) << 32 : e & 0xfffff000;
    }
    return (struct ref){ -1, base | (lin & in) };
}

/* Tables that mostly work: pointers to the few tables, now and then a hole, a stray bit or a wild address. */
static void random_tables(bool wide)
{
    for (unsigned i = 0; i < N_TABLES * 4096; i += wide ? 8 : 4) {
        uint64_t e = (TABLES_AT + rnd() % N_TABLES * 4096) | (rnd() & 0x67) | (rnd() % 16 ? 1 : 0) | (rnd() % 4 ? 6 : 0);
        if (rnd() % 4 == 0) {
            e |= 0x80;
            e &= rnd() % 4 ? ~0x1fe000ull : ~0ull;
        }
        if (rnd() % 24 == 0) {
            e |= 1ull << (rnd() % 64);
        }
        if (wide) {
            store_le64(fx.ram + TABLES_AT + i, e);
        } else {
            store_le32(fx.ram + TABLES_AT + i, (uint32_t)e);
        }
    }
}

static void random_mode(struct soft_cpu *c, unsigned mode)
{
    c->st.cr0 = CR0_PE | CR0_PG | (rnd() & 1 ? CR0_WP : 0);
    c->st.cr4 = (mode ? CR4_PAE : 0) | (rnd() & 1 ? CR4_SMEP : 0) | (rnd() & 1 ? CR4_SMAP : 0) | (rnd() & 3 ? CR4_PSE : 0) |
                (rnd() & 1 ? CR4_PGE : 0);
    c->st.efer = (mode && rnd() & 1 ? EFER_NXE : 0) | (mode == 2 ? EFER_LMA | EFER_LME : 0);
    c->st.rflags = rnd() & 1 ? X86_AC : 0;
    c->st.cr3 = TABLES_AT + rnd() % N_TABLES * 4096;
    c->mode = mode == 2 ? INSN_MODE_64 : INSN_MODE_32;
    for (unsigned i = 0; i < 4; i++) {
        c->st.pdpte[i] = (TABLES_AT + rnd() % N_TABLES * 4096) | (rnd() % 8 ? 1 : 0);
    }
}

static void one_access(struct soft_cpu *c, unsigned mode, uint8_t *copy)
{
    uint64_t lin = mode == 2 ? (uint64_t)((int64_t)(rnd() << 16) >> 16) : (uint32_t)rnd();
    enum mmu_access acc = (const enum mmu_access[]){ MMU_READ, MMU_WRITE, MMU_EXEC }[rnd() % 3];
    c->cpl = rnd() & 1 ? 3 : 0;
    lin &= ~7ull;
    mmu_flush_all(c);
    mmu_select_context(c);
    memcpy(copy, fx.ram, TABLES_AT + N_TABLES * 4096);
    struct ref want = ref_walk(c, copy, lin, c->cpl == 3, !(c->st.cr4 & CR4_SMAP) || c->st.rflags & X86_AC, acc);
    const uint8_t *host;
    volatile gpa_t got = ~0ull;
    raised.vector = 0;
    bool fault;
    if (acc == MMU_EXEC) {
        fault = RAISES(got = mmu_fetch(c, lin, &host));
    } else {
        fault = RAISES(mmu_probe(c, lin, 8, acc));
        gpa_t gpa;
        if (!fault) {
            assert_true(mmu_translate_debug(c, lin, &gpa));
            got = gpa;
        }
    }
    if (fault != (want.error >= 0) || (fault && (raised.error != (uint32_t)want.error || raised.cr2 != lin)) ||
        (!fault && got != want.gpa)) {
        fail_msg("mode %u lin %#llx acc %d cpl %d cr0 %#llx cr4 %#llx efer %#llx: fault %d error %#x gpa %#llx, want error %d gpa %#llx",
                 mode, (unsigned long long)lin, acc, c->cpl, (unsigned long long)c->st.cr0, (unsigned long long)c->st.cr4,
                 (unsigned long long)c->st.efer, fault, raised.error, (unsigned long long)got, want.error,
                 (unsigned long long)want.gpa);
    }
    assert_memory_equal(copy, fx.ram, TABLES_AT + N_TABLES * 4096);
}

static void test_walks_agree_with_the_manual_over_random_tables(void **unused)
{
    uint8_t *copy = calloc(1, RAM_SIZE);
    struct soft_cpu *c = fx.cpu[0];
    for (unsigned round = 0; round < 240; round++) {
        unsigned mode = round % 3;
        random_tables(mode != 0);
        random_mode(c, mode);
        for (unsigned i = 0; i < 60; i++) {
            one_access(c, mode, copy);
        }
    }
    free(copy);
}

static void test_without_paging_linear_is_physical(void **unused)
{
    struct soft_cpu *c = fx.cpu[0];
    store_le32(fx.ram + 0x1234, 0xcafe);
    assert_int_equal(mmu_load(c, 0x1234, 4), 0xcafe);
    mmu_store(c, 0x1234, 2, 0xbeef);
    assert_int_equal(load_le32(fx.ram + 0x1234), 0xbeef);
    assert_int_equal(mmu_load(c, 0x1234, 4), 0xbeef);
}

static void test_pae_loads_pdptes_with_cr3_and_refuses_reserved_bits(void **unused)
{
    struct soft_cpu *c = fx.cpu[0];
    c->st.cr0 = CR0_PE | CR0_PG;
    c->st.cr4 = CR4_PAE;
    c->st.cr3 = 0x5020;
    for (unsigned i = 0; i < 4; i++) {
        ram64(0x5020 + 8 * i, 0x6000 + i * 0x1000 + 1);
    }
    mmu_cr3_loaded(c, false);
    assert_int_equal(c->st.pdpte[3], 0x9001);
    ram64(0x5020 + 8, 0x7003);          /* bit 1 is reserved */
    assert_int_equal(c->st.pdpte[1], 0x7001);
    assert_true(RAISES(mmu_cr3_loaded(c, false)));
    assert_int_equal(raised.vector, EXC_GP);
    assert_int_equal(c->st.pdpte[1], 0x7001);
    ram64(0x5020 + 8, 0x7002);          /* not present: anything goes */
    assert_false(RAISES(mmu_cr3_loaded(c, false)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_walks_agree_with_the_manual_over_random_tables, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_without_paging_linear_is_physical, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_pae_loads_pdptes_with_cr3_and_refuses_reserved_bits, fx_setup, fx_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
