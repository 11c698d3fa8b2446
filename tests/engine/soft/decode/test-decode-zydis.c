/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random instructions, shaped so that every map, prefix and refusal is common, against Zydis. Argument: seconds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "oracle.h"

static double seconds = 1;
static uint64_t seed = 1;

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s * 0x2545f4914f6cdd1dull >> 16;
}

static bool chance(uint64_t *s, unsigned percent)
{
    return next_random(s) % 100 < percent;
}

/* Overwrites the start of 16 random bytes with prefixes and an escape. */
static void shape(uint64_t *s, uint8_t *b, enum insn_mode mode)
{
    static const uint8_t legacy[] = {0x66, 0x66, 0xf2, 0xf3, 0x67, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65};
    unsigned at = 0;

    while (chance(s, 35) && at < 6) {
        b[at++] = legacy[next_random(s) % sizeof(legacy)];
    }
    if (mode == INSN_MODE_64 && chance(s, 35)) {
        b[at++] = 0x40 | (next_random(s) & 15);
    }
    switch (next_random(s) % 8) {
    case 0: case 1:
        b[at++] = 0x0f;
        break;
    case 2:
        b[at++] = 0x0f;
        b[at++] = 0x38;
        break;
    case 3:
        b[at++] = 0x0f;
        b[at++] = 0x3a;
        break;
    case 4: case 5:
        at = chance(s, 95) ? 0 : at;    /* a prefix makes VEX #UD: keep that rare */
        b[at++] = 0xc4;
        b[at] = (b[at] & 0xe0) | (1 + next_random(s) % 3);
        b[at] |= mode == INSN_MODE_64 ? 0 : 0xc0;
        b[at + 1] |= chance(s, 50) ? 0x78 : 0;
        break;
    case 6:
        if (chance(s, 40)) {
            at = chance(s, 95) ? 0 : at;
            b[at++] = 0xc5;
            b[at] |= (mode == INSN_MODE_64 ? 0 : 0xc0) | (chance(s, 50) ? 0x78 : 0);
        } else if (chance(s, 40)) {
            b[at++] = 0xd8 + next_random(s) % 8;
        }
        break;
    default:
        break;
    }
}

static void test_random_instructions_decode_as_zydis_says(void **unused)
{
    uint64_t s = seed * 0x9e3779b97f4a7c15ull | 1;
    clock_t end = clock() + (clock_t)(seconds * CLOCKS_PER_SEC);
    unsigned long n = 0;

    for (; n % 4096 || clock() < end; n++) {
        uint8_t b[24];
        for (unsigned i = 0; i < sizeof(b); i += 8) {
            uint64_t v = next_random(&s) ^ next_random(&s) << 32;
            memcpy(b + i, &v, 8);
        }
        enum insn_mode mode = n % 4 == 3 ? INSN_MODE_64 : (enum insn_mode)(n % 4);
        shape(&s, b, mode);
        size_t len = chance(&s, 90) ? 16 : 1 + next_random(&s) % 15;
        oracle_compare(b, len, mode);
    }
    struct oracle_counts c = oracle_counts();
    fprintf(stderr, "%lu cases: %lu decoded by both, %lu refused by both, %lu hidden features, %lu differences\n", n,
            c.accepted, c.refused, c.excused, oracle_differences());
    assert_int_equal(oracle_differences(), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_instructions_decode_as_zydis_says)};

    seconds = argc > 1 ? strtod(argv[1], NULL) : 1;
    seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
