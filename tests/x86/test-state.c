/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/bytes.h"
#include "x86/msr.h"
#include "x86/x86_state.h"

/* A running 64-bit kernel. */
static void make_long_mode(struct x86_state *st)
{
    x86_state_reset(st, 3, false);
    for (unsigned i = 0; i < N_GPRS; i++) {
        st->gpr[i] = 0x0101010101010101 * i;
    }
    st->rip = 0xffffffff81000000;
    st->rflags = X86_F1 | X86_IF;
    st->cr0 = CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE;
    st->cr3 = 0x1234567000;
    st->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXSAVE | CR4_PCIDE;
    st->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    st->seg[1] = (struct x86_seg){ 0, 0xffffffff, 0x10, SEGA_G | SEGA_L | SEGA_P | SEGA_S | 0xb, 0 };
    st->seg[5].base = 0xffff888000000000;
    st->seg[0] = (struct x86_seg){ .unusable = 1 };
    st->tr = (struct x86_seg){ 0xfffffe0000003000, 0x206f, 0x40, SEGA_P | 0xb, 0 };
    st->ldt = (struct x86_seg){ .unusable = 1 };
    st->gdt = (struct x86_dtable){ 0xfffffe0000001000, 0x7f };
    st->idt = (struct x86_dtable){ 0xfffffe0000000000, 0xfff };
    st->lstar = 0xffffffff81e00000;
    st->xcr0 = 7;
    st->mtrr_def = MTRR_DEF_E | MEMTYPE_WB;
    st->mtrr_var[0] = 0xc0000000 | MEMTYPE_UC;
    st->mtrr_var[1] = 0xfc0000800;
    st->kvm_system_time = 0x1001;
    st->lapic.isr[7] = 1 << 5;
    st->lapic.base_msr |= APICBASE_EXTD;
    st->ev.mp_state = MP_RUNNABLE;
    for (unsigned i = 576; i < XSAVE_AREA_SIZE; i++) {
        st->xsave[i] = (uint8_t)i;
    }
}

static void mark(const struct state_field *f, uint8_t *map)
{
    for (; f->kind != STATE_K_END; f++) {
        for (uint32_t i = 0; i < f->count; i++) {
            if (f->kind == STATE_K_STRUCT) {
                mark(f->sub, map + f->offset + i * f->size);
                continue;
            }
            for (uint32_t b = 0; b < f->size; b++) {
                assert_int_equal(map[f->offset + i * f->size + b], 0);
                map[f->offset + i * f->size + b] = 0xff;
            }
        }
    }
}

static void clear_between(struct x86_state *st, size_t from, size_t to)
{
    assert_true(from <= to && to - from < 64);
    memset((uint8_t *)st + from, 0, to - from);
}

static void test_the_table_names_every_byte_once(void **unused)
{
#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
    static struct x86_state st;
    static uint8_t map[sizeof(struct x86_state)];
    mark(x86_state_fields, map);
    memset(&st, 0xff, sizeof(st));
    /* Piece by piece: gcc 12 loses count in arrays of structs. The outer struct pads around its aligned member only. */
    for (unsigned i = 0; i < ARRAY_SIZE(st.seg); i++) {
        __builtin_clear_padding(&st.seg[i]);
    }
    __builtin_clear_padding(&st.ldt);
    __builtin_clear_padding(&st.tr);
    __builtin_clear_padding(&st.gdt);
    __builtin_clear_padding(&st.idt);
    __builtin_clear_padding(&st.ev);
    __builtin_clear_padding(&st.lapic);
    clear_between(&st, offsetof(struct x86_state, kvm_async_pf) + sizeof(st.kvm_async_pf), offsetof(struct x86_state, xsave));
    clear_between(&st, offsetof(struct x86_state, ev) + sizeof(st.ev), offsetof(struct x86_state, lapic));
    clear_between(&st, offsetof(struct x86_state, lapic) + sizeof(st.lapic), sizeof(st));
    for (size_t i = 0; i < sizeof(st); i++) {
        if (map[i] != ((uint8_t *)&st)[i]) {
            fail_msg("byte %zu of struct x86_state is not in the table", i);
        }
    }
#endif
#endif
    (void)mark;
    (void)clear_between;
}

static void test_power_on_is_as_the_manual_says(void **unused)
{
    struct x86_state st;
    memset(&st, 0xee, sizeof(st));
    x86_state_reset(&st, 5, true);
    assert_int_equal(st.rip, 0xfff0);
    assert_int_equal(st.rflags, 2);
    assert_int_equal(st.cr0, 0x60000010);
    assert_int_equal(st.gpr[R_AX] | st.gpr[R_15] | st.cr2 | st.cr3 | st.cr4 | st.efer, 0);
    assert_int_equal(st.seg[1].sel, 0xf000);
    assert_int_equal(st.seg[1].base, 0xffff0000);
    assert_int_equal(st.seg[1].attr, 0x9b);
    assert_int_equal(st.seg[3].attr, 0x93);
    assert_int_equal(st.seg[3].limit, 0xffff);
    assert_int_equal(st.idt.limit, 0xffff);
    assert_int_equal(st.dr6, 0xffff0ff0);
    assert_int_equal(st.dr7, 0x400);
    assert_true(st.pat == 0x0007040600070406);
    assert_int_equal(load_le16(st.xsave), 0x40);
    assert_int_equal(load_le32(st.xsave + 24), 0x1f80);
    assert_int_equal(st.lapic.id, 5);
    assert_int_equal(st.lapic.base_msr, 0xfee00900);
    assert_int_equal(st.lapic.lvt_lint0, 0x10000);
    assert_int_equal(st.ev.mp_state, MP_RUNNABLE);
    assert_true(x86_state_valid(&st, NULL));
    x86_state_reset(&st, 6, false);
    assert_int_equal(st.ev.mp_state, MP_WAIT_SIPI);
    assert_int_equal(st.lapic.base_msr, 0xfee00800);
    assert_true(x86_state_valid(&st, NULL));
}

static void test_init_keeps_what_the_manual_keeps(void **unused)
{
    struct x86_state st;
    make_long_mode(&st);
    st.cr0 |= CR0_CD;
    st.tsc_offset = 77;
    st.pat = 0;
    st.feature_control = FEATURE_CONTROL_LOCK;
    st.lapic.id = 0x123;
    st.lapic.extint = 1;
    st.ev.nmi_blocked = 1;
    x86_state_init_ipi(&st, false);
    assert_int_equal(st.rip, 0xfff0);
    assert_int_equal(st.cr0, CR0_ET | CR0_CD);
    assert_int_equal(st.efer | st.cr4 | st.cr3 | st.lstar | st.ev.nmi_blocked, 0);
    assert_int_equal(st.seg[1].sel, 0xf000);
    assert_int_equal(st.ev.mp_state, MP_WAIT_SIPI);
    assert_int_equal(st.tsc_offset, 77);
    assert_int_equal(st.pat, 0);
    assert_int_equal(st.feature_control, 1);
    assert_int_equal(st.mtrr_def, MTRR_DEF_E | MEMTYPE_WB);
    assert_int_equal(st.xcr0, 7);
    assert_int_equal(st.xsave[600], 600 & 0xff);
    assert_int_equal(st.lapic.isr[7], 0);
    assert_int_equal(st.lapic.id, 0x123);
    assert_int_equal(st.lapic.extint, 1);
    assert_int_equal(st.lapic.ldr, 0x12 << 16 | 1 << 3);
    assert_true(st.lapic.base_msr & APICBASE_EXTD);
    assert_true(x86_state_valid(&st, NULL));
    x86_state_init_ipi(&st, true);
    assert_int_equal(st.ev.mp_state, MP_RUNNABLE);
}

static void test_a_state_survives_save_load_save(void **unused)
{
    struct err err = ERR_INIT;
    struct x86_state a, b;
    AUTO_BUF struct buf s1 = { 0 };
    AUTO_BUF struct buf s2 = { 0 };
    make_long_mode(&a);
    assert_true(x86_state_valid(&a, &err));
    state_save(x86_state_fields, &a, X86_STATE_VERSION, &s1);
    x86_state_reset(&b, 0, true);
    assert_true(state_load(x86_state_fields, &b, sizeof(b), X86_STATE_VERSION, s1.data, s1.len, &err));
    state_save(x86_state_fields, &b, X86_STATE_VERSION, &s2);
    assert_int_equal(s1.len, s2.len);
    assert_memory_equal(s1.data, s2.data, s1.len);
    assert_true(x86_state_valid(&b, &err));
    AUTO_JSON struct json_object *o = state_inspect(x86_state_fields, &b);
    assert_non_null(o);
}

static void test_a_damaged_stream_is_refused_or_within_its_bounds(void **unused)
{
    struct x86_state a, b, before;
    AUTO_BUF struct buf s = { 0 };
    make_long_mode(&a);
    state_save(x86_state_fields, &a, X86_STATE_VERSION, &s);
    x86_state_reset(&b, 0, true);
    before = b;
    for (size_t n = 0; n < s.len; n += n < 3000 ? 1 : 61) {
        assert_false(state_load(x86_state_fields, &b, sizeof(b), X86_STATE_VERSION, s.data, n, NULL));
    }
    assert_memory_equal(&b, &before, sizeof(b));
    int passed = 0;
    for (size_t i = 0; i < s.len; i++) {
        s.data[i] ^= 0xff;
        if (state_load(x86_state_fields, &b, sizeof(b), X86_STATE_VERSION, s.data, s.len, NULL)) {
            assert_true(b.ev.mp_state < N_MP_STATES && b.ev.exc_vector < 32 && b.lapic.tpr < 256 && b.cr8 < 16);
            x86_state_valid(&b, NULL);
            passed++;
        }
        s.data[i] ^= 0xff;
    }
    assert_true(passed > XSAVE_AREA_SIZE);      /* data bytes are free, structure is not */
}

#define REFUSED(change)                                                                                 \
    do {                                                                                                \
        struct err err_ = ERR_INIT;                                                                     \
        make_long_mode(&st);                                                                            \
        change;                                                                                         \
        if (x86_state_valid(&st, &err_) || err_.code != ERR_INVALID) {                                  \
            fail_msg("accepted: %s", #change);                                                          \
        }                                                                                               \
    } while (0)
#define ACCEPTED(change)                                                                                \
    do {                                                                                                \
        struct err err_ = ERR_INIT;                                                                     \
        make_long_mode(&st);                                                                            \
        change;                                                                                         \
        if (!x86_state_valid(&st, &err_)) {                                                             \
            fail_msg("refused: %s: %s", #change, err_.msg);                                             \
        }                                                                                               \
    } while (0)

static void test_states_no_cpu_can_be_in_are_refused(void **unused)
{
    struct x86_state st;
    REFUSED(st.cr0 |= 1 << 6);
    REFUSED(st.cr0 |= 1ull << 40);
    REFUSED(st.cr0 &= ~CR0_PE);
    REFUSED(st.cr0 |= CR0_NW);
    REFUSED(st.cr0 &= ~CR0_PG);
    REFUSED(st.efer &= ~EFER_LMA);
    REFUSED(st.efer &= ~EFER_LME);
    REFUSED(st.efer |= 1 << 1);
    REFUSED(st.cr4 &= ~CR4_PAE);
    REFUSED(st.cr4 |= 1 << 13);
    REFUSED(st.cr3 = 1ull << 52);
    REFUSED(st.cr8 = 16);
    REFUSED(st.dr7 = 1ull << 32);
    REFUSED(st.rip = 0x0000800000000000);
    REFUSED(st.rflags &= ~(uint64_t)X86_F1);
    REFUSED(st.rflags |= 1 << 3);
    REFUSED(st.rflags |= X86_VM);
    REFUSED(st.lstar = 1ull << 63);
    REFUSED(st.gdt.base = 1ull << 50);
    REFUSED(st.seg[5].base = 1ull << 47);
    REFUSED(st.seg[2].base = 1ull << 32);
    REFUSED(st.seg[1].attr |= SEGA_DB);
    REFUSED(st.seg[1].attr |= 1 << 8);
    REFUSED(st.seg[1].limit = 0xfffff000);
    REFUSED(st.seg[2].limit = 0x100000);
    REFUSED(st.seg[1].unusable = 1);
    REFUSED(st.seg[0].unusable = 2);
    REFUSED(st.tr.attr = SEGA_P | 9);
    REFUSED(st.tr.attr = SEGA_P | 3);
    REFUSED(st.ldt = st.tr);
    REFUSED(st.pat = 2);
    REFUSED(st.pat = 0xffull << 56);
    REFUSED(st.mtrr_def = 1 << 8);
    REFUSED(st.mtrr_def = 7);
    REFUSED(st.mtrr_fixed[3] = 3);
    REFUSED(st.mtrr_var[2] = 2);
    REFUSED(st.mtrr_var[3] = 1);
    REFUSED(st.xcr0 = 6);
    REFUSED(st.xcr0 = 5);
    REFUSED(st.xcr0 = 1 << 5 | 7);
    REFUSED(st.xcr0 = 1ull << 62 | 7);
    REFUSED(store_le64(st.xsave + 512, 1ull << 63));
    REFUSED(st.xsave[520] = 1);
    REFUSED(st.xsave[575] = 1);
    REFUSED(store_le32(st.xsave + 24, 0x10000));
    REFUSED(st.lapic.base_msr &= ~APICBASE_EN);
    REFUSED(st.lapic.base_msr |= 1);
    REFUSED(st.lapic.timer_divide = 4);
    REFUSED(st.lapic.tpr = 256);
    REFUSED(st.ev.mp_state = N_MP_STATES);
    REFUSED(st.ev.exc_pending = 1; st.ev.exc_vector = EXC_NMI);
    REFUSED(st.ev.exc_pending = 1; st.ev.exc_vector = EXC_UD; st.ev.exc_has_error = 1);
    REFUSED(st.efer = 0; st.cr4 = CR4_PAE; st.cr3 = 0x1000; st.rip = 0; st.pdpte[1] = 0x1003);
}

static void test_unusual_but_possible_states_are_accepted(void **unused)
{
    struct x86_state st;
    ACCEPTED((void)0);
    ACCEPTED(st.cr4 |= CR4_LA57; st.rip = 1ull << 55);
    ACCEPTED(st.efer = 0; st.cr4 = CR4_PAE; st.cr3 = 0x1000; st.rip = 0; st.pdpte[1] = 0x1001);
    ACCEPTED(st.ev.exc_pending = 1; st.ev.exc_vector = EXC_PF; st.ev.exc_has_error = 1);
    ACCEPTED(st.seg[1].attr &= ~SEGA_L; st.seg[1].attr |= SEGA_DB; st.rip = 0xfffffff0);       /* compatibility mode */
    ACCEPTED(st.cr0 = CR0_ET; st.efer = EFER_SCE | EFER_LME; st.cr4 = 0; st.rip = 0x7c00; st.seg[3].limit = 0xffffffff;
             st.seg[3].attr |= SEGA_G);                                                         /* unreal mode */
    ACCEPTED(st.cr0 &= ~CR0_PG; st.efer = 0; st.cr4 = 0; st.rip = 0x100; st.rflags |= X86_VM);
    ACCEPTED(st.lapic.base_msr = 0xfee00000);
    ACCEPTED(st.lapic.timer_divide = 0xb);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_table_names_every_byte_once),
        cmocka_unit_test(test_power_on_is_as_the_manual_says),
        cmocka_unit_test(test_init_keeps_what_the_manual_keeps),
        cmocka_unit_test(test_a_state_survives_save_load_save),
        cmocka_unit_test(test_a_damaged_stream_is_refused_or_within_its_bounds),
        cmocka_unit_test(test_states_no_cpu_can_be_in_are_refused),
        cmocka_unit_test(test_unusual_but_possible_states_are_accepted),
    };
    return cmocka_run_group_tests_name("x86-state", tests, NULL, NULL);
}
