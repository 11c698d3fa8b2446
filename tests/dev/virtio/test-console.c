/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "driver.h"

#include <sys/socket.h>
#include <unistd.h>

enum { RX0 = 0, TX0 = 1, CIN = 2, COUT = 3, RX1 = 4, TX1 = 5, MULTIPORT = 1, BUF = DATA };

static void tell(struct drv *d, uint32_t id, uint16_t event, uint16_t value)
{
    uint8_t m[8];
    uint32_t uid, len;
    store_le32(m, id);
    store_le16(m + 4, event);
    store_le16(m + 6, value);
    poke(d, BUF + 0x9000, m, 8);
    drv_chain(d, COUT, (struct piece[]){ { BUF + 0x9000, 8, false } }, 1);
    drv_kick(d, COUT);
    assert_true(drv_used(d, COUT, &uid, &len));
}

static void give_control_room(struct drv *d, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        drv_chain(d, CIN, (struct piece[]){ { BUF + 0xa000 + 128 * i, 128, true } }, 1);
    }
    drv_kick(d, CIN);
}

/* Control messages in the order of their buffers. */
static void expect(struct drv *d, unsigned i, uint32_t id, uint16_t event, const void *extra, uint32_t n)
{
    uint32_t uid, len;
    uint8_t m[128];
    assert_true(drv_used(d, CIN, &uid, &len));
    assert_int_equal(len, 8 + n);
    peek(d, BUF + 0xa000 + 128 * i, m, len);
    assert_int_equal(load_le32(m), id);
    assert_int_equal(load_le16(m + 4), event);
    assert_int_equal(load_le16(m + 6), 1);
    assert_memory_equal(m + 8, extra, n);
}

static void test_ports_are_introduced_with_names_and_sizes(void **unused)
{
    struct drv d;
    drv_init(&d, &virtio_console_type);
    drv_start(&d, ~0ull);
    assert_int_equal(fix_read(&d.f, d.bar + 0x2000, 2), 80);
    assert_int_equal(fix_read(&d.f, d.bar + 0x2002, 2), 25);
    assert_int_equal(fix_read(&d.f, d.bar + 0x2004, 4), 2);
    tell(&d, 0xffffffff, 0, 1);                 /* device ready; no room for the answer yet */
    give_control_room(&d, 10);
    expect(&d, 0, 0, 1, "", 0);
    expect(&d, 1, 1, 1, "", 0);
    tell(&d, 0, 3, 1);
    expect(&d, 2, 0, 4, "", 0);                 /* console */
    expect(&d, 3, 0, 6, "", 0);                 /* open: the chr is there */
    expect(&d, 4, 0, 5, "\x19\0\x50\0", 4);     /* rows, columns */
    tell(&d, 1, 3, 1);
    expect(&d, 5, 1, 7, "org.lodge.agent", 15);
    virtio_console_resize(d.dev, 100, 40);
    drv_run(&d);
    expect(&d, 6, 0, 5, "\x28\0\x64\0", 4);
    assert_int_equal(drv_msgs(&d, 0), 1);
    tell(&d, 77, 3, 1);                         /* no such port: ignored */
    tell(&d, 0, 99, 1);
    assert_false(drv_status(&d) & ST_NEEDS_RESET);
    drv_fini(&d);
}

static void test_bytes_pass_both_ways_without_multiport(void **unused)
{
    struct drv d;
    uint32_t id, len;
    char in[64];
    drv_init(&d, &virtio_console_type);
    drv_start(&d, ~(1ull << MULTIPORT));
    poke(&d, BUF, "hello guest", 11);
    drv_chain(&d, TX0, (struct piece[]){ { BUF, 5, false }, { BUF + 5, 6, false } }, 2);
    drv_kick(&d, TX0);
    assert_true(drv_used(&d, TX0, &id, &len));
    assert_int_equal(read(d.f.peer, in, sizeof(in)), 11);
    assert_memory_equal(in, "hello guest", 11);
    /* input waits for room, and comes in pieces */
    assert_int_equal(write(d.f.peer, "0123456789", 10), 10);
    drv_run(&d);
    drv_chain(&d, RX0, (struct piece[]){ { BUF + 0x100, 4, true } }, 1);
    drv_kick(&d, RX0);
    assert_true(drv_used(&d, RX0, &id, &len));
    assert_int_equal(len, 4);
    drv_chain(&d, RX0, (struct piece[]){ { BUF + 0x200, 64, true } }, 1);
    drv_kick(&d, RX0);
    assert_true(drv_used(&d, RX0, &id, &len));
    assert_int_equal(len, 6);
    peek(&d, BUF + 0x200, in, 6);
    assert_memory_equal(in, "456789", 6);
    drv_fini(&d);
}

static void test_input_for_a_port_nobody_opened_waits(void **unused)
{
    struct drv d;
    uint32_t id, len;
    uint16_t idx;
    drv_init(&d, &virtio_console_type);
    drv_start(&d, ~0ull);
    drv_chain(&d, RX0, (struct piece[]){ { BUF, 64, true } }, 1);
    drv_kick(&d, RX0);
    assert_int_equal(write(d.f.peer, "abc", 3), 3);
    drv_run(&d);
    mem_read_le16(d.f.env.mem, d.q[RX0].used + 2, &idx);
    assert_int_equal(idx, 0);
    tell(&d, 0, 3, 1);
    tell(&d, 0, 6, 1);
    assert_true(drv_used(&d, RX0, &id, &len));
    assert_int_equal(len, 3);
    drv_fini(&d);
}

static void test_a_reader_that_sleeps_holds_the_ring_and_loses_nothing(void **unused)
{
    struct drv d;
    uint32_t id, len;
    static uint8_t block[0x10000], in[0x10000];
    drv_init(&d, &virtio_console_type);
    drv_start(&d, ~0ull);
    for (size_t i = 0; i < sizeof(block); i++) {
        block[i] = (uint8_t)(i * 5 + i / 256);
    }
    poke(&d, BUF, block, sizeof(block));
    enum { CHAINS = 60 };                       /* 3.75 MiB: more than socket and queue take */
    for (unsigned i = 0; i < CHAINS; i++) {
        drv_chain(&d, TX0, (struct piece[]){ { BUF, sizeof(block), false } }, 1);
    }
    drv_kick(&d, TX0);
    uint16_t idx;
    mem_read_le16(d.f.env.mem, d.q[TX0].used + 2, &idx);
    assert_true(idx > 0 && idx < CHAINS);
    /* saved and loaded in the middle of a chain it goes on at the right byte */
    AUTO_BUF struct buf state = { 0 };
    d.dev->type->quiesce(d.dev);
    dev_save(d.dev, &state);
    assert_true(dev_load(d.dev, 1, state.data, state.len, NULL));
    d.dev->type->resume(d.dev);
    size_t got = 0;
    for (unsigned idle = 0; got < (size_t)CHAINS * sizeof(block) && idle < 100;) {
        ssize_t r = read(d.f.peer, in, sizeof(in));
        idle = r > 0 ? 0 : idle + 1;
        for (ssize_t i = 0; i < r; i++) {
            if (in[i] != block[(got + (size_t)i) % sizeof(block)]) {
                fail_msg("byte %zu", got + (size_t)i);
            }
        }
        got += r > 0 ? (size_t)r : 0;
        loop_once(d.f.env.io_loop, 1);
    }
    assert_int_equal(got, (size_t)CHAINS * sizeof(block));
    for (unsigned i = 0; i < CHAINS; i++) {
        assert_true(drv_used(&d, TX0, &id, &len));
    }
    drv_fini(&d);
}

static void test_emergency_write_needs_no_driver(void **unused)
{
    struct drv d;
    char in[4];
    drv_init(&d, &virtio_console_type);
    fix_write(&d.f, d.bar + 0x2008, 'A', 4);
    fix_write(&d.f, d.bar + 0x2008, 'B', 4);
    assert_int_equal(read(d.f.peer, in, sizeof(in)), 2);
    assert_memory_equal(in, "AB", 2);
    drv_fini(&d);
}

static void test_a_port_without_a_chr_swallows_its_output(void **unused)
{
    struct drv d;
    uint32_t id, len;
    drv_init(&d, &virtio_console_type);
    drv_start(&d, ~0ull);
    drv_chain(&d, TX1, (struct piece[]){ { BUF, 100, false } }, 1);
    drv_kick(&d, TX1);
    assert_true(drv_used(&d, TX1, &id, &len));
    drv_fini(&d);
}

static void test_the_guest_hears_when_the_other_end_goes(void **unused)
{
    struct drv d;
    uint32_t id, len;
    uint8_t m[8];
    drv_init(&d, &virtio_console_type);
    drv_start(&d, ~0ull);
    give_control_room(&d, 8);
    tell(&d, 0, 3, 1);
    tell(&d, 0, 6, 1);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(drv_used(&d, CIN, &id, &len));
    }
    close(d.f.peer);
    d.f.peer = 0;
    drv_run(&d);
    assert_true(drv_used(&d, CIN, &id, &len));
    peek(&d, BUF + 0xa000 + 128 * 3, m, 8);
    assert_int_equal(load_le16(m + 4), 6);
    assert_int_equal(load_le16(m + 6), 0);
    drv_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ports_are_introduced_with_names_and_sizes),
        cmocka_unit_test(test_bytes_pass_both_ways_without_multiport),
        cmocka_unit_test(test_input_for_a_port_nobody_opened_waits),
        cmocka_unit_test(test_a_reader_that_sleeps_holds_the_ring_and_loses_nothing),
        cmocka_unit_test(test_emergency_write_needs_no_driver),
        cmocka_unit_test(test_a_port_without_a_chr_swallows_its_output),
        cmocka_unit_test(test_the_guest_hears_when_the_other_end_goes),
    };
    return cmocka_run_group_tests_name("dev-virtio-console", tests, NULL, NULL);
}
