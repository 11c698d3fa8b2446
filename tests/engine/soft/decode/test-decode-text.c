/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Known encodings and their text; refusals with their reasons. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "engine/soft/decode/insn.h"

#define BYTES(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})
#define M16 INSN_MODE_16
#define M32 INSN_MODE_32
#define M64 INSN_MODE_64

struct known {
    enum insn_mode mode;
    const char *text;
    const uint8_t *bytes;
    size_t n;
};

static const struct known knowns[] = {
    {M64, "add qword [rax+0x8], 0x1", BYTES(0x48, 0x83, 0x40, 0x08, 0x01)},
    {M64, "add rax, [rbx+rcx*4+0x10]", BYTES(0x48, 0x03, 0x44, 0x8b, 0x10)},
    {M64, "mov ah, cl", BYTES(0x88, 0xcc)},
    {M64, "mov spl, cl", BYTES(0x40, 0x88, 0xcc)},
    {M64, "mov rax, fs:[0x28]", BYTES(0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0)},
    {M64, "lea rdi, [rip+0x100]", BYTES(0x48, 0x8d, 0x3d, 0, 1, 0, 0)},
    {M64, "je 0x1012", BYTES(0x74, 0x10)},
    {M16, "jmpf 0xf000:0xe05b", BYTES(0xea, 0x5b, 0xe0, 0x00, 0xf0)},
    {M16, "mov ax, [bp+si-0x2]", BYTES(0x8b, 0x42, 0xfe)},
    {M32, "lock cmpxchg [ecx], edx", BYTES(0xf0, 0x0f, 0xb1, 0x11)},
    {M64, "rep movsq", BYTES(0xf3, 0x48, 0xa5)},
    {M64, "movzx eax, byte [rdi]", BYTES(0x0f, 0xb6, 0x07)},
    {M64, "mov cr3, rax", BYTES(0x0f, 0x22, 0xd8)},
    {M64, "shl eax, cl", BYTES(0xd3, 0xe0)},
    {M64, "enter 0x10, 0x1", BYTES(0xc8, 0x10, 0x00, 0x01)},
    {M64, "mov rax, 0x1122334455667788", BYTES(0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11)},
    {M64, "pause", BYTES(0xf3, 0x90)},
    {M64, "xchg r8, rax", BYTES(0x49, 0x90)},
    {M64, "vaddps ymm1, ymm2, [rax]", BYTES(0xc5, 0xec, 0x58, 0x08)},
    {M64, "vpextrb [rsi], xmm8, 0x3", BYTES(0xc4, 0x63, 0x79, 0x14, 0x06, 0x03)},
    {M64, "vmovss xmm3, xmm2, xmm1", BYTES(0xc5, 0xea, 0x11, 0xcb)},
    {M64, "shlx eax, [rcx], edx", BYTES(0xc4, 0xe2, 0x69, 0xf7, 0x01)},
    {M64, "vpgatherdd xmm0, [rax+xmm1*4], xmm2", BYTES(0xc4, 0xe2, 0x69, 0x90, 0x04, 0x88)},
    {M64, "vblendvps xmm1, xmm2, xmm3, xmm4", BYTES(0xc4, 0xe3, 0x69, 0x4a, 0xcb, 0x40)},
    {M64, "fadd qword [rdi]", BYTES(0xdc, 0x07)},
    {M64, "movd xmm1, ecx", BYTES(0x66, 0x0f, 0x6e, 0xc9)},
};

static void test_known_encodings_print_as_expected(void **unused)
{
    for (size_t k = 0; k < ARRAY_SIZE(knowns); k++) {
        struct insn i;
        char text[96];
        assert_int_equal(insn_decode(knowns[k].bytes, knowns[k].n, knowns[k].mode, UINT64_MAX, &i), DECODE_OK);
        assert_int_equal(i.len, knowns[k].n);
        assert_string_equal(insn_format(&i, knowns[k].mode, 0x1000, text, sizeof(text)), knowns[k].text);
    }
}

static const struct {
    enum decode_result result;
    enum insn_mode mode;
    const uint8_t *bytes;
    size_t n;
} refusals[] = {
    {DECODE_SHORT, M64, BYTES(0x48)},
    {DECODE_SHORT, M64, BYTES(0x8b, 0x44)},
    {DECODE_SHORT, M64, BYTES(0xe8, 0, 0, 0)},
    {DECODE_LONG, M64, BYTES(0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90)},
    {DECODE_ILLEGAL, M64, BYTES(0x06)},                         /* push es in 64-bit mode */
    {DECODE_ILLEGAL, M64, BYTES(0xf0, 0x90)},                   /* lock nop */
    {DECODE_ILLEGAL, M64, BYTES(0xf0, 0x01, 0xc0)},             /* lock add eax, eax */
    {DECODE_ILLEGAL, M64, BYTES(0x8d, 0xc0)},                   /* lea eax, eax */
    {DECODE_ILLEGAL, M64, BYTES(0x8e, 0xc8)},                   /* mov cs, eax */
    {DECODE_ILLEGAL, M64, BYTES(0x8c, 0xf0)},                   /* segment register 6 */
    {DECODE_ILLEGAL, M64, BYTES(0x0f, 0x20, 0xc8)},             /* mov rax, cr1 */
    {DECODE_ILLEGAL, M64, BYTES(0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0)},   /* EVEX */
    {DECODE_ILLEGAL, M64, BYTES(0x8f, 0xe8, 0x78, 0xcc, 0xc0, 0x00)},   /* XOP */
    {DECODE_ILLEGAL, M64, BYTES(0x0f, 0x0f, 0xc0, 0x9e)},       /* 3DNow */
    {DECODE_ILLEGAL, M64, BYTES(0x66, 0xc5, 0xf8, 0x77)},       /* 66 before VEX */
};

static void test_bad_encodings_are_refused_with_their_reason(void **unused)
{
    for (size_t k = 0; k < ARRAY_SIZE(refusals); k++) {
        struct insn i;
        assert_int_equal(insn_decode(refusals[k].bytes, refusals[k].n, refusals[k].mode, UINT64_MAX, &i), refusals[k].result);
        assert_true(i.len <= 15);
    }
}

static void test_absent_features_fall_back_to_the_older_meaning(void **unused)
{
    const uint8_t tzcnt[] = {0xf3, 0x0f, 0xbc, 0xc1}, popcnt[] = {0xf3, 0x0f, 0xb8, 0xc1};
    struct insn i;

    assert_int_equal(insn_decode(tzcnt, sizeof(tzcnt), M64, UINT64_MAX, &i), DECODE_OK);
    assert_int_equal(insn_row(&i)->op, OP_TZCNT);
    assert_int_equal(insn_decode(tzcnt, sizeof(tzcnt), M64, 0, &i), DECODE_OK);
    assert_int_equal(insn_row(&i)->op, OP_BSF);
    assert_int_equal(insn_decode(popcnt, sizeof(popcnt), M64, 0, &i), DECODE_ILLEGAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_encodings_print_as_expected),
        cmocka_unit_test(test_bad_encodings_are_refused_with_their_reason),
        cmocka_unit_test(test_absent_features_fall_back_to_the_older_meaning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
