/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "state/state.h"

struct ring {
    uint16_t head;
    uint8_t on;
};

struct chip {
    void *private;              /* not state: must never change */
    uint8_t a;
    int16_t neg;
    uint32_t idx;
    uint64_t wide;
    bool flag;
    uint16_t arr[3];
    bool flags[2];
    uint8_t mac[6];
    struct ring one;
    struct ring rings[2];
    uint32_t fifo_len;
    uint8_t fifo[4];
    uint32_t newer;
    uint32_t tail;              /* not state */
};

static bool fifo_needed(const void *obj)
{
    return ((const struct chip *)obj)->fifo_len > 0;
}

static const struct state_field ring_fields[] = {
    STATE(struct ring, head, .max = 7),
    STATE(struct ring, on, .reset = 1),
    STATE_END
};
static const struct state_field fifo_fields[] = {
    STATE(struct chip, fifo_len, .max = 4),
    STATE_BYTES(struct chip, fifo, .reset = 0xff),
    STATE_END
};
#define CHIP_V1                                                                                         \
    STATE(struct chip, a, .reset = 0x11), STATE(struct chip, neg), STATE(struct chip, idx, .max = 9),   \
    STATE(struct chip, wide, .reset = UINT64_MAX), STATE(struct chip, flag, .reset = true),             \
    STATE_ARRAY(struct chip, arr, .reset = 3), STATE_ARRAY(struct chip, flags), STATE_BYTES(struct chip, mac, .keep = true), \
    STATE_STRUCT(struct chip, one, ring_fields), STATE_STRUCTS(struct chip, rings, ring_fields),        \
    STATE_SECTION("fifo", fifo_fields, fifo_needed)
static const struct state_field v1_fields[] = { CHIP_V1, STATE_END };
static const struct state_field v2_fields[] = { CHIP_V1, STATE(struct chip, newer, .reset = 42, .since = 2), STATE_END };

static struct chip sample(void)
{
    struct chip c;
    memset(&c, 0, sizeof(c));
    c.private = &c;
    c.a = 1;
    c.neg = -2;
    c.idx = 9;
    c.wide = 0x0123456789abcdef;
    c.arr[2] = 500;
    c.flags[1] = true;
    memcpy(c.mac, "\x52\x54\0\1\2\3", 6);
    c.one.head = 7;
    c.rings[1].head = 5;
    c.fifo_len = 2;
    memcpy(c.fifo, "ab\0\0", 4);
    c.newer = 77;
    c.tail = 99;
    return c;
}

static bool load(const struct state_field *f, struct chip *c, uint32_t version, const struct buf *b, struct err *err)
{
    return state_load(f, c, sizeof(*c), version, b->data, b->len, err);
}

static void test_reset_gives_every_field_its_value_and_keeps_what_is_kept(void **unused)
{
    struct chip c = sample();
    state_reset(v2_fields, &c);
    assert_int_equal(c.a, 0x11);
    assert_int_equal(c.neg, 0);
    assert_true(c.wide == UINT64_MAX);
    assert_true(c.flag);
    assert_int_equal(c.arr[0] + c.arr[1] + c.arr[2], 9);
    assert_int_equal(c.mac[0], 0x52);
    assert_int_equal(c.rings[1].head, 0);
    assert_int_equal(c.rings[1].on, 1);
    assert_int_equal(c.fifo_len, 0);
    assert_int_equal(c.fifo[3], 0xff);
    assert_int_equal(c.newer, 42);
    assert_int_equal(c.tail, 99);
}

static void test_save_load_save_is_the_same_bytes(void **unused)
{
    struct err err = ERR_INIT;
    struct chip c = sample(), d;
    AUTO_BUF struct buf b = { 0 };
    AUTO_BUF struct buf again = { 0 };
    state_save(v2_fields, &c, 2, &b);
    memset(&d, 0xa5, sizeof(d));
    d.flag = d.flags[0] = d.flags[1] = false;
    void *private = d.private;
    assert_true(load(v2_fields, &d, 2, &b, &err));
    state_save(v2_fields, &d, 2, &again);
    assert_int_equal(b.len, again.len);
    assert_memory_equal(b.data, again.data, b.len);
    assert_int_equal(d.neg, -2);
    assert_int_equal(d.tail, 0xa5a5a5a5);
    assert_ptr_equal(d.private, private);
}

static void test_an_absent_section_means_its_reset_values(void **unused)
{
    struct chip c = sample(), d = sample();
    AUTO_BUF struct buf b = { 0 };
    c.fifo_len = 0;
    state_save(v1_fields, &c, 1, &b);
    assert_true(load(v1_fields, &d, 1, &b, NULL));
    assert_int_equal(d.fifo_len, 0);
    assert_int_equal(d.fifo[0], 0xff);
}

static void test_an_older_stream_defaults_newer_fields_and_a_newer_one_is_refused(void **unused)
{
    struct err err = ERR_INIT;
    struct chip c = sample(), d = sample();
    AUTO_BUF struct buf v1 = { 0 };
    AUTO_BUF struct buf v2 = { 0 };
    AUTO_BUF struct buf lying = { 0 };
    state_save(v1_fields, &c, 1, &v1);
    assert_true(load(v2_fields, &d, 2, &v1, &err));
    assert_int_equal(d.newer, 42);
    state_save(v2_fields, &c, 2, &v2);
    assert_false(load(v1_fields, &d, 1, &v2, &err));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    /* A version 2 section without its field is damaged, not old. */
    state_save(v1_fields, &c, 2, &lying);
    assert_false(load(v2_fields, &d, 2, &lying, &err));
    assert_non_null(strstr(err.msg, "'newer' is missing"));
}

static void assert_refused(const struct chip *bad, const char *why)
{
    struct err err = ERR_INIT;
    struct chip d = sample(), before = d;
    AUTO_BUF struct buf b = { 0 };
    state_save(v2_fields, bad, 2, &b);
    assert_false(load(v2_fields, &d, 2, &b, &err));
    if (!strstr(err.msg, why)) {
        fail_msg("'%s' does not say '%s'", err.msg, why);
    }
    assert_memory_equal(&d, &before, sizeof(d));
}

static void test_a_value_over_its_bound_is_refused_and_nothing_changes(void **unused)
{
    struct chip c = sample();
    c.idx = 10;
    assert_refused(&c, "'idx' is 10");
    c = sample();
    c.rings[1].head = 8;
    assert_refused(&c, "rings[1]: ");
    c = sample();
    c.one.head = 8;
    assert_refused(&c, "one: ");
    c = sample();
    c.fifo_len = 5;
    assert_refused(&c, "fifo: ");
    c = sample();
    memset(&c.flags[1], 2, 1);
    assert_refused(&c, "'flags' is 2");
}

static void test_a_stream_cut_anywhere_is_refused_and_nothing_changes(void **unused)
{
    struct chip c = sample();
    AUTO_BUF struct buf b = { 0 };
    state_save(v1_fields, &c, 1, &b);
    for (size_t n = 0; n < b.len; n++) {
        struct chip d = sample(), before = d;
        AUTO_FREE uint8_t *copy = alloc0(n);        /* exact size, so that a sanitizer sees one byte too many */
        memcpy(copy, b.data, n);
        struct err err = ERR_INIT;
        bool ok = state_load(v1_fields, &d, sizeof(d), 1, copy, n, &err);
        if (ok) {
            /* The optional section is last in this table: without it the stream is whole again. */
            assert_int_equal(d.fifo_len, 0);
            continue;
        }
        assert_int_not_equal(err.code, ERR_NONE);
        assert_memory_equal(&d, &before, sizeof(d));
    }
}

static void test_a_flipped_byte_never_breaks_bounds_and_a_refusal_changes_nothing(void **unused)
{
    struct chip c = sample();
    AUTO_BUF struct buf b = { 0 };
    state_save(v2_fields, &c, 2, &b);
    static const uint8_t masks[] = { 0x01, 0x80, 0xff, 0x10 };
    for (size_t i = 0; i < b.len * ARRAY_SIZE(masks); i++) {
        struct chip d = sample(), before = d;
        uint8_t mask = masks[i % ARRAY_SIZE(masks)], *p = &b.data[i / ARRAY_SIZE(masks)];
        *p ^= mask;
        bool ok = load(v2_fields, &d, 2, &b, NULL);
        *p ^= mask;
        if (!ok) {
            assert_memory_equal(&d, &before, sizeof(d));
            continue;
        }
        uint8_t flag;
        memcpy(&flag, &d.flag, 1);
        assert_true(flag <= 1);
        assert_true(d.idx <= 9 && d.one.head <= 7 && d.rings[0].head <= 7 && d.fifo_len <= 4);
        assert_int_equal(d.tail, 99);
    }
}

static void test_random_bytes_are_refused(void **unused)
{
    uint32_t x = 12345;
    for (int round = 0; round < 20000; round++) {
        uint8_t junk[64];
        for (size_t i = 0; i < sizeof(junk); i++) {
            x = x * 1664525 + 1013904223;
            junk[i] = x >> 24;
        }
        junk[0] = 1;
        junk[1] = junk[2] = junk[3] = 0;
        struct chip d = sample();
        assert_false(state_load(v1_fields, &d, sizeof(d), 1, junk, x % sizeof(junk), NULL));
    }
}

static void test_inspect_shows_a_member_a_field(void **unused)
{
    struct chip c = sample();
    AUTO_JSON struct json_object *o = state_inspect(v2_fields, &c);
    assert_string_equal(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN),
        "{\"a\":1,\"neg\":65534,\"idx\":9,\"wide\":81985529216486895,\"flag\":false,\"arr\":[0,0,500],\"flags\":[false,true],"
        "\"mac\":\"525400010203\",\"one\":{\"head\":7,\"on\":0},\"rings\":[{\"head\":0,\"on\":0},{\"head\":5,\"on\":0}],"
        "\"fifo\":{\"fifo_len\":2,\"fifo\":\"61620000\"},\"newer\":77}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset_gives_every_field_its_value_and_keeps_what_is_kept),
        cmocka_unit_test(test_save_load_save_is_the_same_bytes),
        cmocka_unit_test(test_an_absent_section_means_its_reset_values),
        cmocka_unit_test(test_an_older_stream_defaults_newer_fields_and_a_newer_one_is_refused),
        cmocka_unit_test(test_a_value_over_its_bound_is_refused_and_nothing_changes),
        cmocka_unit_test(test_a_stream_cut_anywhere_is_refused_and_nothing_changes),
        cmocka_unit_test(test_a_flipped_byte_never_breaks_bounds_and_a_refusal_changes_nothing),
        cmocka_unit_test(test_random_bytes_are_refused),
        cmocka_unit_test(test_inspect_shows_a_member_a_field),
    };
    return cmocka_run_group_tests_name("state-stream", tests, NULL, NULL);
}
