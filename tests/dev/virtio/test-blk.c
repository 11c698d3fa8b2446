/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "driver.h"

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, ZEROES = 13, HDR = DATA, BUF = DATA + 0x1000, STATUS = DATA + 0x800 };

static void put_header(struct drv *d, gpa_t at, uint32_t type, uint64_t sector)
{
    uint8_t h[16] = { 0 };
    store_le32(h, type);
    store_le64(h + 8, sector);
    poke(d, at, h, sizeof(h));
}

/* One request with its data in one piece. Status, or -1 when none came. */
static int request(struct drv *d, uint32_t type, uint64_t sector, uint32_t len)
{
    uint8_t status = 0xee;
    uint32_t id, used;
    bool in = type == IN || type == GET_ID;
    put_header(d, HDR, type, sector);
    poke(d, STATUS, &status, 1);
    struct piece p[3] = { { HDR, 16, false }, { BUF, len, in }, { STATUS, 1, true } };
    if (!len) {
        p[1] = p[2];
    }
    drv_chain(d, 0, p, len ? 3 : 2);
    drv_kick(d, 0);
    if (!drv_used(d, 0, &id, &used)) {
        return -1;
    }
    assert_int_equal(used, in ? len + 1 : 1);
    peek(d, STATUS, &status, 1);
    return status;
}

static void test_what_is_written_is_read_back_and_flushed(void **unused)
{
    struct drv d;
    uint8_t out[4096], in[4096];
    drv_init(&d, &virtio_blk_type);
    drv_start(&d, ~0ull);
    for (unsigned i = 0; i < sizeof(out); i++) {
        out[i] = (uint8_t)(i * 7);
    }
    poke(&d, BUF, out, sizeof(out));
    assert_int_equal(request(&d, OUT, 100, 4096), 0);
    assert_int_equal(request(&d, FLUSH, 0, 0), 0);
    mem_zero(d.f.env.mem, BUF, 4096);
    assert_int_equal(request(&d, IN, 100, 4096), 0);
    peek(&d, BUF, in, sizeof(in));
    assert_memory_equal(in, out, sizeof(in));
    assert_true(drv_msgs(&d, 1) >= 1);
    drv_fini(&d);
}

static void test_the_id_is_the_serial(void **unused)
{
    struct drv d;
    char id[20];
    drv_init(&d, &virtio_blk_type);
    drv_start(&d, ~0ull);
    assert_int_equal(request(&d, GET_ID, 0, 20), 0);
    peek(&d, BUF, id, 20);
    assert_memory_equal(id, "lodge-1\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
    assert_int_equal(request(&d, GET_ID, 0, 19), 1);
    drv_fini(&d);
}

static void test_requests_beyond_the_disk_fail_and_unknown_ones_are_unsupported(void **unused)
{
    struct drv d;
    drv_init(&d, &virtio_blk_type);
    drv_start(&d, ~0ull);
    uint64_t sectors = FIX_DISK / 512;
    assert_int_equal(request(&d, IN, sectors - 1, 512), 0);
    assert_int_equal(request(&d, IN, sectors, 512), 1);
    assert_int_equal(request(&d, OUT, sectors - 1, 1024), 1);
    assert_int_equal(request(&d, IN, UINT64_MAX, 512), 1);
    assert_int_equal(request(&d, OUT, UINT64_MAX / 512, 512), 1);
    assert_int_equal(request(&d, OUT, 1ull << 55, 512), 1);
    assert_int_equal(request(&d, IN, 0, 511), 1);
    assert_int_equal(request(&d, OUT, 0, 513), 1);
    assert_int_equal(request(&d, IN, 0, 0), 1);
    assert_int_equal(request(&d, OUT, 0, 0), 1);
    assert_int_equal(request(&d, 77, 0, 512), 2);
    assert_int_equal(request(&d, 14, 0, 0), 2);         /* secure erase was not offered */
    drv_fini(&d);
}

static int range_request(struct drv *d, uint32_t type, uint64_t sector, uint32_t n, uint32_t flags)
{
    uint8_t r[16];
    store_le64(r, sector);
    store_le32(r + 8, n);
    store_le32(r + 12, flags);
    poke(d, BUF, r, sizeof(r));
    return request(d, type, 0, 16);
}

static void test_discard_and_write_zeroes_keep_to_their_range(void **unused)
{
    struct drv d;
    uint8_t b[4096];
    drv_init(&d, &virtio_blk_type);
    drv_start(&d, ~0ull);
    memset(b, 0x5a, sizeof(b));
    for (unsigned s = 0; s < 64; s += 8) {
        poke(&d, BUF, b, sizeof(b));
        assert_int_equal(request(&d, OUT, s, 4096), 0);
    }
    assert_int_equal(range_request(&d, ZEROES, 9, 2, 0), 0);
    assert_int_equal(range_request(&d, ZEROES, 16, 8, 1), 0);
    assert_int_equal(range_request(&d, DISCARD, 24, 8, 0), 0);
    assert_int_equal(request(&d, IN, 8, 4096), 0);
    peek(&d, BUF, b, sizeof(b));
    assert_int_equal(b[511], 0x5a);
    assert_int_equal(b[512], 0);
    assert_int_equal(b[512 + 1023], 0);
    assert_int_equal(b[512 + 1024], 0x5a);
    assert_int_equal(request(&d, IN, 16, 4096), 0);
    peek(&d, BUF, b, sizeof(b));
    assert_int_equal(b[0] | b[4095], 0);
    assert_int_equal(request(&d, IN, 32, 4096), 0);
    peek(&d, BUF, b, sizeof(b));
    assert_int_equal(b[0] & b[4095], 0x5a);
    assert_int_equal(range_request(&d, DISCARD, 0, 8, 1), 2);
    assert_int_equal(range_request(&d, ZEROES, 0, 8, 2), 2);
    assert_int_equal(range_request(&d, DISCARD, FIX_DISK / 512, 1, 0), 1);
    assert_int_equal(range_request(&d, ZEROES, 0, UINT32_MAX, 0), 1);
    assert_int_equal(request(&d, DISCARD, 0, 32), 1);   /* two ranges: one was stated */
    drv_fini(&d);
}

static void test_any_layout_of_header_data_and_status_will_do(void **unused)
{
    struct drv d;
    uint32_t id, used;
    uint8_t b[520], out[512];
    drv_init(&d, &virtio_blk_type);
    drv_start(&d, ~0ull);
    memset(out, 0x66, sizeof(out));
    /* header in two, data glued to its second half */
    put_header(&d, HDR, OUT, 5);
    poke(&d, HDR + 16, out, sizeof(out));
    drv_chain(&d, 0, (struct piece[]){ { HDR, 7, false }, { HDR + 7, 9 + 512, false }, { STATUS, 1, true } }, 3);
    /* data and status in one piece */
    put_header(&d, HDR + 0x2000, IN, 5);
    drv_chain(&d, 0, (struct piece[]){ { HDR + 0x2000, 16, false }, { BUF, 100, true }, { BUF + 100, 413, true } }, 3);
    drv_kick(&d, 0);
    assert_true(drv_used(&d, 0, &id, &used));
    assert_true(drv_used(&d, 0, &id, &used));
    /* they may pass each other: read again */
    drv_chain(&d, 0, (struct piece[]){ { HDR + 0x2000, 16, false }, { BUF, 100, true }, { BUF + 100, 413, true } }, 3);
    drv_kick(&d, 0);
    assert_true(drv_used(&d, 0, &id, &used));
    assert_int_equal(used, 513);
    peek(&d, BUF, b, 513);
    assert_memory_equal(b, out, 512);
    assert_int_equal(b[512], 0);
    drv_fini(&d);
}

static void test_a_request_without_room_for_its_status_stops_the_device(void **unused)
{
    static const struct { struct piece p[2]; unsigned n; } bad[] = {
        { { { HDR, 16, false } }, 1 }, { { { HDR, 15, false }, { STATUS, 1, true } }, 2 }, { { { STATUS, 1, true } }, 1 },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct drv d;
        drv_init(&d, &virtio_blk_type);
        drv_start(&d, ~0ull);
        put_header(&d, HDR, IN, 0);
        drv_chain(&d, 0, bad[i].p, bad[i].n);
        drv_kick(&d, 0);
        assert_true(drv_status(&d) & ST_NEEDS_RESET);
        drv_start(&d, ~0ull);
        assert_int_equal(request(&d, FLUSH, 0, 0), 0);
        drv_fini(&d);
    }
}

/* The same head offered again and again, before the device answered: a correct driver cannot do this. */
static void test_more_requests_in_flight_than_the_queue_holds_stop_the_device(void **unused)
{
    struct drv d;
    drv_init(&d, &virtio_blk_type);
    drv_start(&d, ~0ull);
    put_header(&d, HDR, IN, 0);
    uint16_t head = drv_chain(&d, 0, (struct piece[]){ { HDR, 16, false }, { BUF, 512, true }, { STATUS, 1, true } }, 3);
    for (unsigned i = 0; i < 20000 && !(drv_status(&d) & ST_NEEDS_RESET); i++) {
        drv_offer(&d, 0, head);
        if (i % 100 == 99) {
            fix_write(&d.f, d.bar + 0x3000, 0, 2);
            loop_once(d.f.env.io_loop, 0);
        }
    }
    assert_true(drv_status(&d) & ST_NEEDS_RESET);
    drv_start(&d, ~0ull);
    assert_int_equal(request(&d, FLUSH, 0, 0), 0);
    drv_fini(&d);
}

static void test_reset_waits_for_requests_in_flight_and_answers_none_of_them(void **unused)
{
    struct drv d;
    drv_init(&d, &virtio_blk_type);
    for (unsigned round = 0; round < 20; round++) {
        drv_start(&d, ~0ull);
        for (unsigned i = 0; i < 60; i++) {
            put_header(&d, HDR + 16 * i, i & 1 ? IN : OUT, i);
            drv_chain(&d, i % 2, (struct piece[]){ { HDR + 16 * i, 16, false }, { BUF + 512 * i, 512, i & 1 }, { STATUS + i, 1, true } }, 3);
        }
        fix_write(&d.f, d.bar + 0x3000, 0, 2);
        fix_write(&d.f, d.bar + 0x3004, 1, 2);
        loop_once(d.f.env.io_loop, 0);
        fix_write(&d.f, d.bar + 0x14, 0, 1);
        uint16_t idx, later;
        mem_read_le16(d.f.env.mem, d.q[0].used + 2, &idx);
        for (int i = 0; i < 2000 && drv_status(&d); i++) {
            loop_once(d.f.env.io_loop, 1);
        }
        assert_int_equal(drv_status(&d), 0);
        drv_run(&d);
        mem_read_le16(d.f.env.mem, d.q[0].used + 2, &later);
        assert_int_equal(idx, later);
    }
    drv_start(&d, ~0ull);
    assert_int_equal(request(&d, FLUSH, 0, 0), 0);
    /* and the machine's reset does the same at once */
    put_header(&d, HDR, IN, 0);
    drv_chain(&d, 0, (struct piece[]){ { HDR, 16, false }, { BUF, 512, true }, { STATUS, 1, true } }, 3);
    fix_write(&d.f, d.bar + 0x3000, 0, 2);
    loop_once(d.f.env.io_loop, 0);
    dev_reset(d.dev);
    fix_cfg_write(&d.f, FIX_SLOT, 0x20, (uint32_t)d.bar, 4);
    fix_cfg_write(&d.f, FIX_SLOT, PCI_COMMAND, 7, 2);
    assert_int_equal(drv_status(&d), 0);
    drv_fini(&d);
}

static void test_configuration_tells_size_and_limits(void **unused)
{
    struct drv d;
    drv_init(&d, &virtio_blk_type);
    gpa_t c = d.bar + 0x2000;
    assert_int_equal(fix_read(&d.f, c, 8), FIX_DISK / 512);
    assert_int_equal(fix_read(&d.f, c + 0x0c, 4), 254);
    assert_int_equal(fix_read(&d.f, c + 0x14, 4), 512);
    assert_int_equal(fix_read(&d.f, c + 0x22, 2), 2);
    assert_int_equal(fix_read(&d.f, c + 0x28, 4), 1);
    assert_int_equal(fix_read(&d.f, c + 0x38, 1), 1);
    assert_int_equal(fix_read(&d.f, c + 0x3c, 4), 0xffffffff);
    assert_int_equal(drv_offered(&d) & 0xffffffff, 1u << 1 | 1u << 2 | 1u << 6 | 1u << 9 | 1u << 10 | 1u << 12 | 1u << 13 | 1u << 14 | 3u << 28);
    uint8_t gen = (uint8_t)fix_read(&d.f, d.bar + 0x15, 1);
    virtio_blk_resized(d.dev);
    assert_int_equal((uint8_t)fix_read(&d.f, d.bar + 0x15, 1), (uint8_t)(gen + 1));
    drv_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read_back_and_flushed),
        cmocka_unit_test(test_the_id_is_the_serial),
        cmocka_unit_test(test_requests_beyond_the_disk_fail_and_unknown_ones_are_unsupported),
        cmocka_unit_test(test_discard_and_write_zeroes_keep_to_their_range),
        cmocka_unit_test(test_any_layout_of_header_data_and_status_will_do),
        cmocka_unit_test(test_a_request_without_room_for_its_status_stops_the_device),
        cmocka_unit_test(test_more_requests_in_flight_than_the_queue_holds_stop_the_device),
        cmocka_unit_test(test_reset_waits_for_requests_in_flight_and_answers_none_of_them),
        cmocka_unit_test(test_configuration_tells_size_and_limits),
    };
    return cmocka_run_group_tests_name("dev-virtio-blk", tests, NULL, NULL);
}
