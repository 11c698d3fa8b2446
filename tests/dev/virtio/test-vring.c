/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rings good and hostile, seen through the entropy device (writes) and the control queue of the network card (reads, then writes). */
#include "driver.h"

enum { INDIRECT = 28, EVENT_IDX = 29, TABLE = 0x300000 };
#define ALL (1ull << INDIRECT | 1ull << EVENT_IDX)

static void put_table(struct drv *d, gpa_t at, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    uint8_t raw[16];
    store_le64(raw, addr);
    store_le32(raw + 8, len);
    store_le16(raw + 12, flags);
    store_le16(raw + 14, next);
    poke(d, at, raw, sizeof(raw));
}

static void test_the_ring_wraps_many_times_and_nothing_is_lost(void **unused)
{
    for (unsigned mode = 0; mode < 4; mode++) {
        struct drv d;
        uint32_t id, len;
        drv_init(&d, &virtio_rng_type);
        drv_start(&d, (mode & 1 ? 1ull << INDIRECT : 0) | (mode & 2 ? 1ull << EVENT_IDX : 0));
        for (unsigned i = 0; i < 70000; i += 50) {
            uint16_t head[50];
            for (unsigned k = 0; k < 50; k++) {
                head[k] = drv_chain(&d, 0, (struct piece[]){ { DATA + k * 4, 1, true } }, 1);
            }
            drv_kick(&d, 0);
            for (unsigned k = 0; k < 50; k++) {
                assert_true(drv_used(&d, 0, &id, &len));
                assert_int_equal(id, head[k]);
                assert_int_equal(len, 1);
            }
            if (i > 3000) {
                i += 5000;      /* the index passes 65535 all the same */
            }
        }
        drv_fini(&d);
    }
}

static void test_chains_of_every_shape_are_understood(void **unused)
{
    struct drv d;
    uint32_t id, len;
    uint8_t ack;
    drv_init(&d, &virtio_net_type);
    drv_start(&d, ~0ull);
    static const uint8_t cmd[3] = { 0, 0, 1 };          /* promiscuous on */
    poke(&d, DATA, cmd, 3);
    /* byte by byte */
    drv_chain(&d, 2, (struct piece[]){ { DATA, 1, 0 }, { DATA + 1, 1, 0 }, { DATA + 2, 1, 0 }, { DATA + 16, 1, 1 } }, 4);
    /* in a table */
    put_table(&d, TABLE, DATA, 2, D_NEXT, 2);
    put_table(&d, TABLE + 32, DATA + 2, 1, D_NEXT, 1);
    put_table(&d, TABLE + 16, DATA + 17, 1, D_WRITE, 0);
    drv_desc(&d, 2, 10, TABLE, 48, D_INDIRECT, 0);
    drv_offer(&d, 2, 10);
    /* a plain one, then a table */
    put_table(&d, TABLE + 64, DATA + 1, 2, D_NEXT, 1);
    put_table(&d, TABLE + 80, DATA + 18, 1, D_WRITE, 0);
    drv_desc(&d, 2, 20, DATA, 1, D_NEXT, 21);
    drv_desc(&d, 2, 21, TABLE + 64, 32, D_INDIRECT, 0);
    drv_offer(&d, 2, 20);
    static const uint8_t ones[3] = { 0xff, 0xff, 0xff };
    poke(&d, DATA + 16, ones, 3);
    drv_kick(&d, 2);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(drv_used(&d, 2, &id, &len));
        assert_int_equal(len, 1);
        peek(&d, DATA + 16 + i, &ack, 1);
        assert_int_equal(ack, 0);
    }
    drv_fini(&d);
}

static void loop_of_two(struct drv *d)
{
    drv_desc(d, 0, 0, DATA, 4, D_WRITE | D_NEXT, 1);
    drv_desc(d, 0, 1, DATA, 4, D_WRITE | D_NEXT, 0);
    drv_offer(d, 0, 0);
}

static void loop_of_one(struct drv *d)
{
    drv_desc(d, 0, 5, DATA, 4, D_WRITE | D_NEXT, 5);
    drv_offer(d, 0, 5);
}

static void head_out_of_bounds(struct drv *d)
{
    drv_offer(d, 0, 64);
}

static void next_out_of_bounds(struct drv *d)
{
    drv_desc(d, 0, 0, DATA, 4, D_WRITE | D_NEXT, 65535);
    drv_offer(d, 0, 0);
}

static void no_length(struct drv *d)
{
    drv_desc(d, 0, 0, DATA, 0, D_WRITE, 0);
    drv_offer(d, 0, 0);
}

static void outside_ram(struct drv *d)
{
    drv_desc(d, 0, 0, FIX_RAM, 4, D_WRITE, 0);
    drv_offer(d, 0, 0);
}

static void over_the_end_of_ram(struct drv *d)
{
    drv_desc(d, 0, 0, FIX_RAM - 4, 8, D_WRITE, 0);
    drv_offer(d, 0, 0);
}

static void wrapping_address(struct drv *d)
{
    drv_desc(d, 0, 0, UINT64_MAX - 3, 8, D_WRITE, 0);
    drv_offer(d, 0, 0);
}

static void own_registers(struct drv *d)
{
    drv_desc(d, 0, 0, d->bar, 8, D_WRITE, 0);
    drv_offer(d, 0, 0);
}

static void readable_after_writable(struct drv *d)
{
    drv_chain(d, 0, (struct piece[]){ { DATA, 4, true }, { DATA, 4, false } }, 2);
}

static void only_readable(struct drv *d)
{
    drv_chain(d, 0, (struct piece[]){ { DATA, 4, false } }, 1);
}

static void huge_jump(struct drv *d)
{
    drv_desc(d, 0, 0, DATA, 4, D_WRITE, 0);
    mem_write_le16(d->f.env.mem, d->q[0].avail + 2, 1000);
}

static void more_than_4_gib(struct drv *d)
{
    /* the same 4 MiB often enough is impossible in 64 entries; lengths that wrap the sum are not in RAM either */
    drv_desc(d, 0, 0, 0, UINT32_MAX, D_WRITE | D_NEXT, 1);
    drv_desc(d, 0, 1, 0, UINT32_MAX, D_WRITE, 0);
    drv_offer(d, 0, 0);
}

static void table_of_odd_size(struct drv *d)
{
    drv_desc(d, 0, 0, TABLE, 24, D_INDIRECT, 0);
    drv_offer(d, 0, 0);
}

static void table_of_no_size(struct drv *d)
{
    drv_desc(d, 0, 0, TABLE, 0, D_INDIRECT, 0);
    drv_offer(d, 0, 0);
}

static void table_with_next(struct drv *d)
{
    put_table(d, TABLE, DATA, 4, D_WRITE, 0);
    drv_desc(d, 0, 0, TABLE, 16, D_INDIRECT | D_NEXT, 1);
    drv_offer(d, 0, 0);
}

static void table_in_a_table(struct drv *d)
{
    put_table(d, TABLE, TABLE, 16, D_INDIRECT, 0);
    drv_desc(d, 0, 0, TABLE, 16, D_INDIRECT, 0);
    drv_offer(d, 0, 0);
}

static void table_loop(struct drv *d)
{
    put_table(d, TABLE, DATA, 4, D_WRITE | D_NEXT, 0);
    drv_desc(d, 0, 0, TABLE, 16, D_INDIRECT, 0);
    drv_offer(d, 0, 0);
}

static void table_next_out_of_bounds(struct drv *d)
{
    put_table(d, TABLE, DATA, 4, D_WRITE | D_NEXT, 1);
    drv_desc(d, 0, 0, TABLE, 16, D_INDIRECT, 0);
    drv_offer(d, 0, 0);
}

static void table_outside_ram(struct drv *d)
{
    drv_desc(d, 0, 0, FIX_RAM - 8, 16, D_INDIRECT, 0);
    drv_offer(d, 0, 0);
}

static void table_at_the_end_of_everything(struct drv *d)
{
    put_table(d, TABLE, DATA, 4, D_WRITE, 0);
    drv_desc(d, 0, 0, UINT64_MAX - 7, 0xfffffff0, D_INDIRECT, 0);
    drv_offer(d, 0, 0);
}

static void table_longer_than_the_queue(struct drv *d)
{
    for (uint16_t i = 0; i < 65; i++) {
        put_table(d, TABLE + 16 * (gpa_t)i, DATA, 4, D_WRITE | (i < 64 ? D_NEXT : 0), (uint16_t)(i + 1));
    }
    drv_desc(d, 0, 0, TABLE, 65 * 16, D_INDIRECT, 0);
    drv_offer(d, 0, 0);
}

static void test_what_no_driver_may_do_stops_the_device_until_it_is_reset(void **unused)
{
    static const struct { const char *name; void (*fn)(struct drv *d); } evil[] = {
        { "loop of two", loop_of_two }, { "loop of one", loop_of_one }, { "head", head_out_of_bounds }, { "next", next_out_of_bounds },
        { "no length", no_length }, { "outside", outside_ram }, { "over the end", over_the_end_of_ram }, { "wrap", wrapping_address },
        { "own registers", own_registers }, { "order", readable_after_writable }, { "readable", only_readable }, { "jump", huge_jump },
        { "4 GiB", more_than_4_gib }, { "odd table", table_of_odd_size }, { "empty table", table_of_no_size },
        { "table with next", table_with_next }, { "nested", table_in_a_table }, { "table loop", table_loop },
        { "table next", table_next_out_of_bounds }, { "table outside", table_outside_ram }, { "table end", table_at_the_end_of_everything },
        { "long table", table_longer_than_the_queue },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(evil); i++) {
        struct drv d;
        uint32_t id, len;
        drv_init(&d, &virtio_rng_type);
        drv_start(&d, ALL);
        evil[i].fn(&d);
        drv_kick(&d, 0);
        if (!(drv_status(&d) & ST_NEEDS_RESET)) {
            fail_msg("'%s' was accepted", evil[i].name);
        }
        assert_int_equal(drv_msgs(&d, 0), 1);           /* said once */
        drv_kick(&d, 0);
        assert_false(drv_used(&d, 0, &id, &len));
        drv_start(&d, ALL);
        drv_chain(&d, 0, (struct piece[]){ { DATA, 8, true } }, 1);
        drv_kick(&d, 0);
        assert_true(drv_used(&d, 0, &id, &len));
        drv_fini(&d);
    }
}

static void test_a_table_is_refused_when_it_was_not_negotiated(void **unused)
{
    struct drv d;
    drv_init(&d, &virtio_rng_type);
    drv_start(&d, 0);
    put_table(&d, TABLE, DATA, 4, D_WRITE, 0);
    drv_desc(&d, 0, 0, TABLE, 16, D_INDIRECT, 0);
    drv_offer(&d, 0, 0);
    drv_kick(&d, 0);
    assert_true(drv_status(&d) & ST_NEEDS_RESET);
    drv_fini(&d);
}

static void test_interrupts_come_as_the_driver_wishes(void **unused)
{
    struct drv d;
    uint32_t id, len;
    drv_init(&d, &virtio_rng_type);
    /* flags: none wanted */
    drv_start(&d, 0);
    mem_write_le16(d.f.env.mem, d.q[0].avail, 1);
    drv_chain(&d, 0, (struct piece[]){ { DATA, 8, true } }, 1);
    drv_kick(&d, 0);
    assert_true(drv_used(&d, 0, &id, &len));
    assert_int_equal(drv_msgs(&d, 1), 0);
    mem_write_le16(d.f.env.mem, d.q[0].avail, 0);
    drv_chain(&d, 0, (struct piece[]){ { DATA, 8, true } }, 1);
    drv_kick(&d, 0);
    assert_int_equal(drv_msgs(&d, 1), 1);
    /* event index: only when used passes 3 */
    drv_start(&d, ALL);
    drv_chain(&d, 0, (struct piece[]){ { DATA, 8, true } }, 1);
    drv_kick(&d, 0);
    d.f.n_msgs = 0;
    mem_write_le16(d.f.env.mem, d.q[0].avail + 4 + 2 * d.q[0].size, 3);
    for (unsigned i = 0; i < 5; i++) {
        drv_chain(&d, 0, (struct piece[]){ { DATA, 8, true } }, 1);
        drv_kick(&d, 0);
        assert_int_equal(drv_msgs(&d, 1), i >= 2);
    }
    /* and the device says which kick it waits for */
    uint16_t event;
    mem_read_le16(d.f.env.mem, d.q[0].used + 4 + 8 * d.q[0].size, &event);
    assert_int_equal(event, 6);
    drv_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_ring_wraps_many_times_and_nothing_is_lost),
        cmocka_unit_test(test_chains_of_every_shape_are_understood),
        cmocka_unit_test(test_what_no_driver_may_do_stops_the_device_until_it_is_reset),
        cmocka_unit_test(test_a_table_is_refused_when_it_was_not_negotiated),
        cmocka_unit_test(test_interrupts_come_as_the_driver_wishes),
    };
    return cmocka_run_group_tests_name("dev-virtio-vring", tests, NULL, NULL);
}
