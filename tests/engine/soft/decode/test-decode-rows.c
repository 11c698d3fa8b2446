/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every row of the opcode table can be reached, and says what its consumers rely on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "encode.h"

static struct encode_wish wish_of(unsigned k)
{
    struct encode_wish wish = {
        .mode = k % 3, .mem = k / 3 & 1, .wide = k / 6 & 1, .word = k / 12 & 1, .ymm = k / 24 & 1,
        .reg = 4, .vvvv = 3, .rm = 1, .base = 6, .disp = 0x1234, .imm = 0x12345678,
    };
    if (k / 48 & 1) {
        wish.reg = 9, wish.vvvv = 12, wish.rm = 14, wish.base = 13;
    }
    return wish;
}
enum { N_WISHES = 96 };

/* A row behind a newer feature's row shows only when that feature is absent. */
static bool reaches(unsigned row, const uint8_t *bytes, size_t n, enum insn_mode mode, struct insn *i)
{
    const struct insn_row *r = &insn_rows[row];
    uint64_t own = 1ull << r->feat | 1ull << r->feat2;

    return (insn_decode(bytes, n, mode, UINT64_MAX, i) == DECODE_OK && i->row == row) ||
           (insn_decode(bytes, n, mode, own, i) == DECODE_OK && i->row == row);
}

static void check_decoded(const struct insn_row *r, const struct encode_wish *wish, const struct insn *i, size_t n)
{
    bool regs64 = wish->mode == INSN_MODE_64;

    assert_int_equal(i->len, n);
    assert_int_equal(i->form, r->form);
    if (i->flags & INSN_MEM && !(i->flags & INSN_MOFFS)) {
        assert_int_equal(i->disp, wish->disp);
        assert_int_equal(i->base, wish->mode == INSN_MODE_16 ? INSN_REG_NONE : regs64 ? wish->base : wish->base & 7);
    }
    if (r->vvvv.kind != K_NONE) {
        assert_int_equal(insn_vvvv(i), regs64 ? wish->vvvv : wish->vvvv & 7);
    }
    if (r->enc & RE_VSIB) {
        assert_int_equal(i->index, regs64 ? wish->rm : wish->rm & 7);
    }
}

static void test_every_row_is_reached_by_an_encoding_of_its_own(void **unused)
{
    unsigned reached = 0, encodings = 0;

    for (unsigned row = 1; row < n_insn_rows; row++) {
        bool hit = false;
        for (unsigned k = 0; k < N_WISHES; k++) {
            struct encode_wish wish = wish_of(k);
            uint8_t bytes[15];
            struct insn i;
            size_t n = row_encode(&insn_rows[row], &wish, bytes);
            if (n && reaches(row, bytes, n, wish.mode, &i)) {
                check_decoded(&insn_rows[row], &wish, &i, n);
                hit = true;
                encodings++;
            }
        }
        if (!hit) {
            fprintf(stderr, "row %u %s: map %u opcode %02x never decoded\n", row, insn_rows[row].name, insn_rows[row].map,
                    insn_rows[row].opcode);
        }
        reached += hit;
    }
    fprintf(stderr, "rows reached: %u of %u, by %u encodings\n", reached, n_insn_rows - 1, encodings);
    assert_int_equal(reached, n_insn_rows - 1);
}

/* Any shorter prefix of an instruction is DECODE_SHORT, on a buffer that ends there: no byte more is looked at. */
static void test_a_cut_instruction_is_short_and_nothing_else(void **unused)
{
    for (unsigned row = 1; row < n_insn_rows; row++) {
        for (unsigned k = 0; k < N_WISHES; k++) {
            struct encode_wish wish = wish_of(k);
            uint8_t bytes[15];
            struct insn i;
            size_t n = row_encode(&insn_rows[row], &wish, bytes);
            if (!n || insn_decode(bytes, n, wish.mode, UINT64_MAX, &i) != DECODE_OK) {
                continue;
            }
            for (size_t cut = 1; cut < n; cut++) {
                AUTO_FREE uint8_t *exact = malloc(cut);
                memcpy(exact, bytes, cut);
                assert_int_equal(insn_decode(exact, cut, wish.mode, UINT64_MAX, &i), DECODE_SHORT);
            }
        }
    }
}

static void test_rows_of_one_opcode_agree_about_modrm(void **unused)
{
    for (unsigned a = 1; a < n_insn_rows; a++) {
        for (unsigned b = a + 1; b < n_insn_rows; b++) {
            const struct insn_row *x = &insn_rows[a], *y = &insn_rows[b];
            if (x->map == y->map && x->opcode == y->opcode && !((x->enc ^ y->enc) & RE_VEX)) {
                assert_int_equal(x->enc & RE_MODRM, y->enc & RE_MODRM);
            }
        }
    }
}

static bool is_copied(const struct insn_row *r)
{
    return r->op == OP_VEC || r->op == OP_MMX;
}

/* What native copies rely on. */
static void test_vector_rows_describe_their_operands(void **unused)
{
    for (unsigned row = 1; row < n_insn_rows; row++) {
        const struct insn_row *r = &insn_rows[row];
        if (!is_copied(r)) {
            continue;
        }
        assert_true(r->rm.kind != K_NONE);
        assert_true(r->reg.write || r->rm.write || r->vvvv.write || r->flags_w || r->implicit);
        if (r->attr & RA_ALIGN) {
            assert_true(r->mem_size == 16 || r->mem_size == MEM_VL);
        }
        if (r->mem_size == 0 && !(r->enc & RE_REG)) {
            assert_int_equal(r->rm.kind, K_GPR);        /* only these go by operand size */
        }
        if (r->enc & RE_VEX) {
            assert_true(r->attr & RA_NOREAL);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_is_reached_by_an_encoding_of_its_own),
        cmocka_unit_test(test_a_cut_instruction_is_short_and_nothing_else),
        cmocka_unit_test(test_rows_of_one_opcode_agree_about_modrm),
        cmocka_unit_test(test_vector_rows_describe_their_operands),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
