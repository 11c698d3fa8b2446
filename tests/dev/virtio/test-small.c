/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Entropy and balloon. */
#include "driver.h"

#include <sys/stat.h>

enum { INFLATE = 0, DEFLATE = 1, STATS = 2, REPORT = 3, BUF = DATA, F_STATS = 1, F_REPORT = 5 };

static void test_entropy_is_different_every_time_and_rationed(void **unused)
{
    struct drv d;
    uint32_t id, len;
    uint8_t a[32], b[32], zero[32] = { 0 };
    drv_init(&d, &virtio_rng_type);
    drv_start(&d, ~0ull);
    drv_chain(&d, 0, (struct piece[]){ { BUF, 32, true } }, 1);
    drv_chain(&d, 0, (struct piece[]){ { BUF + 64, 10, true }, { BUF + 128, 22, true } }, 2);
    drv_kick(&d, 0);
    assert_true(drv_used(&d, 0, &id, &len));
    assert_int_equal(len, 32);
    assert_true(drv_used(&d, 0, &id, &len));
    assert_int_equal(len, 32);
    peek(&d, BUF, a, 32);
    peek(&d, BUF + 64, b, 10);
    peek(&d, BUF + 128, b + 10, 22);
    assert_memory_not_equal(a, zero, 32);
    assert_memory_not_equal(b, zero, 32);
    assert_memory_not_equal(a, b, 32);
    /* a greedy guest gets a burst and then its rate */
    uint64_t began = host_clock_ns(), total = 0;
    for (unsigned i = 0; i < 4; i++) {
        drv_chain(&d, 0, (struct piece[]){ { BUF, 100000, true } }, 1);
    }
    drv_kick(&d, 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(drv_used(&d, 0, &id, &len));
        assert_true(len > 0 && len <= 65536);
        total += len;
    }
    uint64_t ms = (host_clock_ns() - began) / NS_PER_MS + 1;
    assert_true(total <= 65536 + ms * 1049 * 2);
    drv_fini(&d);
}

static uint64_t ram_blocks(struct drv *d)
{
    struct stat st;
    unsigned n;
    assert_int_equal(fstat(mem_slots(d->f.env.mem, &n)->fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void test_inflating_gives_memory_back_and_the_guest_reads_zeros(void **unused)
{
    struct drv d;
    uint32_t id, len;
    uint8_t page[4096], pfn[4 * 64];
    drv_init(&d, &virtio_balloon_type);
    drv_start(&d, ~0ull);
    memset(page, 0xab, sizeof(page));
    for (unsigned i = 0; i < 64; i++) {
        poke(&d, 0x100000 + i * 4096, page, sizeof(page));
        store_le32(pfn + 4 * i, 0x100 + i);
    }
    store_le32(pfn + 4 * 63, 0xffffffff);       /* nowhere: ignored */
    poke(&d, BUF, pfn, sizeof(pfn));
    uint64_t before = ram_blocks(&d);
    drv_chain(&d, INFLATE, (struct piece[]){ { BUF, sizeof(pfn), false } }, 1);
    drv_kick(&d, INFLATE);
    assert_true(drv_used(&d, INFLATE, &id, &len));
    assert_int_equal(len, 0);
    assert_true(ram_blocks(&d) <= before - 63 * 4096);
    peek(&d, 0x100000 + 62 * 4096, page, sizeof(page));
    assert_int_equal(page[0] | page[4095], 0);
    peek(&d, 0x100000 + 63 * 4096, page, sizeof(page));
    assert_int_equal(page[0], 0xab);
    drv_chain(&d, DEFLATE, (struct piece[]){ { BUF, sizeof(pfn), false } }, 1);
    drv_kick(&d, DEFLATE);
    assert_true(drv_used(&d, DEFLATE, &id, &len));
    drv_fini(&d);
}

static void test_free_pages_are_reported_on_the_queue_the_driver_counts(void **unused)
{
    for (unsigned stats = 0; stats < 2; stats++) {
        struct drv d;
        uint32_t id, len;
        uint8_t page[4096];
        unsigned q = stats ? REPORT : STATS;
        drv_init(&d, &virtio_balloon_type);
        drv_start(&d, stats ? ~0ull : ~(1ull << F_STATS));
        memset(page, 0xcd, sizeof(page));
        poke(&d, 0x180000, page, sizeof(page));
        drv_chain(&d, q, (struct piece[]){ { 0x180000, 0x80000, true }, { 0x100000, 0x1000, true } }, 2);
        drv_kick(&d, q);
        assert_true(drv_used(&d, q, &id, &len));
        peek(&d, 0x180000, page, sizeof(page));
        assert_int_equal(page[0] | page[4095], 0);
        drv_fini(&d);
    }
}

static void test_target_and_actual_are_exchanged(void **unused)
{
    struct drv d;
    drv_init(&d, &virtio_balloon_type);
    drv_start(&d, ~0ull);
    virtio_balloon_set_target(d.dev, 1 * MIB);
    assert_int_equal(drv_msgs(&d, 0), 1);
    assert_int_equal(fix_read(&d.f, d.bar + 0x2000, 4), 256);
    fix_write(&d.f, d.bar + 0x2004, 100, 4);
    assert_int_equal(virtio_balloon_actual(d.dev), 400 * KIB);
    drv_fini(&d);
}

static void test_statistics_are_kept_and_asked_for_again(void **unused)
{
    struct drv d;
    uint32_t id, len;
    uint8_t s[30];
    uint16_t idx;
    struct virtio_balloon_stats st;
    drv_init(&d, &virtio_balloon_type);
    drv_start(&d, ~0ull);
    store_le16(s, 4);
    store_le64(s + 2, 12345);
    store_le16(s + 10, 5);
    store_le64(s + 12, 99999);
    store_le16(s + 20, 777);                    /* a tag of the future */
    store_le64(s + 22, 1);
    poke(&d, BUF, s, sizeof(s));
    uint16_t head = drv_chain(&d, STATS, (struct piece[]){ { BUF, sizeof(s), false } }, 1);
    drv_kick(&d, STATS);
    mem_read_le16(d.f.env.mem, d.q[STATS].used + 2, &idx);
    assert_int_equal(idx, 0);                   /* held until somebody asks */
    assert_true(virtio_balloon_get_stats(d.dev, &st));
    assert_int_equal(st.free, 12345);
    assert_int_equal(st.total, 99999);
    assert_true(st.available == UINT64_MAX && st.updated_ns);
    assert_true(drv_used(&d, STATS, &id, &len));
    assert_int_equal(id, head);
    assert_true(virtio_balloon_get_stats(d.dev, &st));  /* nothing held now: the old ones */
    assert_int_equal(st.free, 12345);
    drv_fini(&d);
}

static void test_a_list_without_end_stops_the_device(void **unused)
{
    struct drv d;
    drv_init(&d, &virtio_balloon_type);
    drv_start(&d, ~0ull);
    drv_chain(&d, INFLATE, (struct piece[]){ { 0, 2 * MIB, false } }, 1);
    drv_kick(&d, INFLATE);
    assert_true(drv_status(&d) & ST_NEEDS_RESET);
    drv_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entropy_is_different_every_time_and_rationed),
        cmocka_unit_test(test_inflating_gives_memory_back_and_the_guest_reads_zeros),
        cmocka_unit_test(test_free_pages_are_reported_on_the_queue_the_driver_counts),
        cmocka_unit_test(test_target_and_actual_are_exchanged),
        cmocka_unit_test(test_statistics_are_kept_and_asked_for_again),
        cmocka_unit_test(test_a_list_without_end_stops_the_device),
    };
    return cmocka_run_group_tests_name("dev-virtio-small", tests, NULL, NULL);
}
