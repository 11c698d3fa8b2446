/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What must hold for every device type there is, whoever wrote it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "fixture.h"

static uint32_t rnd_state;
static uint32_t rnd(void)
{
    rnd_state = rnd_state * 1664525 + 1013904223;
    return rnd_state >> 8;
}

static struct dev *make(struct fixture *f, const struct dev_type *type)
{
    struct err err = ERR_INIT;
    fixture_init(f);
    struct dev *dev = fixture_make(f, type, &err);
    if (!dev) {
        fail_msg("%s: %s", type->name, err.msg);
    }
    return dev;
}

/* Random writes and reads all over the device's mapped registers, and over configuration space. */
static void stir(struct fixture *f, struct dev *dev, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned width = 1u << rnd() % 3;
        if (f->env.pci && rnd() % 4 == 0) {
            pci_cfg_write(f->env.pci, rnd() & 0xff, rnd() & 0xff, rnd(), width);
        }
        list_for_each(r, &dev->regions, struct dev_region, node) {
            if (r->io.mapped && r->io.space == MEM_PIO && rnd() & 1) {
                fix_out(f, r->io.base + rnd() % r->io.size, rnd(), width);
                fix_in(f, r->io.base + rnd() % r->io.size, width);
            } else if (r->io.mapped && rnd() & 1) {
                fix_write(f, r->io.base + rnd() % r->io.size, rnd(), width);
                fix_read(f, r->io.base + rnd() % r->io.size, width);
            }
        }
    }
}

static void test_save_load_save_is_the_same_byte_for_byte(void **unused)
{
    for (const struct dev_type *const *t = dev_types; *t; t++) {
        for (unsigned round = 0; round < 8; round++) {
            struct fixture a, b;
            struct err err = ERR_INIT;
            AUTO_BUF struct buf first = { 0 }, second = { 0 };
            rnd_state = round + 1;
            struct dev *from = make(&a, *t), *to = make(&b, *t);
            stir(&a, from, round * 20);
            dev_save(from, &first);
            if (!dev_load(to, (*t)->version, first.data, first.len, &err)) {
                fail_msg("%s: %s", (*t)->name, err.msg);
            }
            dev_save(to, &second);
            if (first.len != second.len || (first.len && memcmp(first.data, second.data, first.len))) {
                AUTO_JSON struct json_object *x = dev_inspect(from), *y = dev_inspect(to);
                fail_msg("%s changed in round %u:\n%s\n%s", (*t)->name, round, json_object_to_json_string(x),
                         json_object_to_json_string(y));
            }
            fixture_fini(&b);
            fixture_fini(&a);
        }
    }
}

static void test_reset_gives_the_state_of_a_new_device(void **unused)
{
    for (const struct dev_type *const *t = dev_types; *t; t++) {
        struct fixture a;
        AUTO_BUF struct buf fresh = { 0 }, again = { 0 };
        rnd_state = 7;
        struct dev *dev = make(&a, *t);
        dev_reset_all(&a.env);
        dev_save(dev, &fresh);
        bool keeps_memory = !strcmp((*t)->name, "rtc");         /* CMOS memory and time survive, as they must */
        stir(&a, dev, 100);
        dev_reset_all(&a.env);
        dev_save(dev, &again);
        if (!keeps_memory && (fresh.len != again.len || (fresh.len && memcmp(fresh.data, again.data, fresh.len)))) {
            AUTO_JSON struct json_object *x = dev_inspect(dev);
            fail_msg("%s after reset: %s", (*t)->name, json_object_to_json_string(x));
        }
        fixture_fini(&a);
    }
}

static void test_a_broken_stream_is_refused_or_harmless(void **unused)
{
    for (const struct dev_type *const *t = dev_types; *t; t++) {
        struct fixture a;
        AUTO_BUF struct buf good = { 0 };
        rnd_state = 3;
        struct dev *dev = make(&a, *t);
        dev_save(dev, &good);
        for (unsigned i = 0; i < 300 && good.len; i++) {
            AUTO_BUF struct buf bad = { 0 }, before = { 0 }, after = { 0 };
            buf_add(&bad, good.data, i & 1 ? good.len : rnd() % good.len);
            for (unsigned n = rnd() % 4; n && bad.len; n--) {
                bad.data[rnd() % bad.len] ^= 1 << rnd() % 8;
            }
            dev_save(dev, &before);
            if (!dev_load(dev, (*t)->version, bad.data, bad.len, NULL)) {
                dev_save(dev, &after);
                assert_int_equal(before.len, after.len);
                assert_memory_equal(before.data, after.data, before.len);
            }
            stir(&a, dev, 3);
            fix_time(&a, (i + 1) * 1000000ull);
        }
        fixture_fini(&a);
    }
}

static void test_every_device_can_be_inspected(void **unused)
{
    for (const struct dev_type *const *t = dev_types; *t; t++) {
        struct fixture a;
        struct dev *dev = make(&a, *t);
        AUTO_JSON struct json_object *o = dev_inspect(dev);
        const char *name = NULL;
        assert_true(json_get_str(o, "type", &name, NULL));
        assert_string_equal(name, (*t)->name);
        fixture_fini(&a);
    }
}

static void test_type_names_are_unique(void **unused)
{
    for (const struct dev_type *const *t = dev_types; *t; t++) {
        for (const struct dev_type *const *u = t + 1; *u; u++) {
            assert_string_not_equal((*t)->name, (*u)->name);
        }
    }
}

static void test_a_second_device_of_the_same_id_is_refused(void **unused)
{
    struct fixture f;
    struct err err = ERR_INIT;
    fixture_init(&f);
    assert_true(dev_realize(dev_create(&f.env, dev_types[0], "x"), &err));
    assert_false(dev_realize(dev_create(&f.env, dev_types[0], "x"), &err));
    assert_int_equal(err.code, ERR_EXISTS);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_type_names_are_unique),
        cmocka_unit_test(test_a_second_device_of_the_same_id_is_refused),
        cmocka_unit_test(test_save_load_save_is_the_same_byte_for_byte),
        cmocka_unit_test(test_reset_gives_the_state_of_a_new_device),
        cmocka_unit_test(test_a_broken_stream_is_refused_or_harmless),
        cmocka_unit_test(test_every_device_can_be_inspected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
