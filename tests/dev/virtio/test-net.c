/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "driver.h"

#include <sys/socket.h>
#include <unistd.h>

enum { RX = 0, TX = 1, CTRL = 2, CSUM = 0, GUEST_CSUM = 1, TSO4 = 11, MRG = 15, BUF = DATA, BUF_STEP = 0x1000 };

static const uint8_t mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };

/* The wire's far end sends a frame of `len` bytes, first to `to`. */
static void from_wire(struct drv *d, const struct net_hdr *h, const uint8_t *to, size_t len)
{
    static uint8_t msg[NET_MAX_FRAME];
    memset(msg, 0, sizeof(msg));
    memcpy(msg, h, sizeof(*h));
    memcpy(msg + 12, to, 6);
    for (size_t i = 6; i < len; i++) {
        msg[12 + i] = (uint8_t)(i * 3);
    }
    assert_int_equal(send(d->f.peer, msg, 12 + len, 0), 12 + len);
    drv_run(d);
}

static void test_a_frame_fills_as_many_buffers_as_it_needs(void **unused)
{
    struct drv d;
    uint32_t id, len;
    uint8_t in[1600];
    drv_init(&d, &virtio_net_type);
    drv_start(&d, ~0ull);
    for (unsigned i = 0; i < 8; i++) {
        drv_chain(&d, RX, (struct piece[]){ { BUF + i * BUF_STEP, 300, true }, { BUF + i * BUF_STEP + 300, 200, true } }, 2);
    }
    drv_kick(&d, RX);
    from_wire(&d, &(struct net_hdr){ 0 }, mac, 1500);
    unsigned n = 0;
    for (unsigned total = 0; total < 1512; n++) {
        assert_true(drv_used(&d, RX, &id, &len));
        assert_int_equal(len, total + 500 <= 1512 ? 500 : 1512 - total);
        peek(&d, BUF + n * BUF_STEP, in + total, len);
        total += len;
    }
    assert_int_equal(n, 4);
    assert_int_equal(load_le16(in + 10), 4);            /* num_buffers */
    assert_memory_equal(in + 12, mac, 6);
    for (size_t i = 6; i < 1500; i++) {
        assert_int_equal(in[12 + i], (uint8_t)(i * 3));
    }
    assert_int_equal(drv_msgs(&d, 1), 1);
    drv_fini(&d);
}

static void test_frames_wait_for_buffers_and_keep_their_order(void **unused)
{
    for (unsigned mode = 0; mode < 2; mode++) {         /* flags, event index */
        struct drv d;
        uint32_t id, len;
        drv_init(&d, &virtio_net_type);
        drv_start(&d, mode ? ~0ull : ~(1ull << 29));
        from_wire(&d, &(struct net_hdr){ 0 }, mac, 100);
        from_wire(&d, &(struct net_hdr){ 0 }, mac, 1200);
        from_wire(&d, &(struct net_hdr){ 0 }, mac, 102);
        /* one at a time, too few for the second frame for a while */
        static const uint32_t want[] = { 112, 500, 500, 212, 114 };
        unsigned got = 0;
        for (unsigned i = 0; i < 5; i++) {
            drv_chain(&d, RX, (struct piece[]){ { BUF + i * BUF_STEP, 500, true } }, 1);
            drv_kick(&d, RX);
            uint16_t idx;
            mem_read_le16(d.f.env.mem, d.q[RX].used + 2, &idx);
            assert_int_equal(idx, i < 1 ? 1 : i < 3 ? 1 : i < 4 ? 4 : 5);
            while (got < idx) {
                assert_true(drv_used(&d, RX, &id, &len));
                assert_int_equal(len, want[got]);
                got++;
            }
        }
        assert_int_equal(got, 5);
        drv_fini(&d);
    }
}

static void test_without_merging_a_frame_fits_one_chain_or_is_lost(void **unused)
{
    struct drv d;
    uint32_t id, len;
    drv_init(&d, &virtio_net_type);
    drv_start(&d, ~(1ull << MRG));
    drv_chain(&d, RX, (struct piece[]){ { BUF, 12, true }, { BUF + 12, 188, true } }, 2);
    drv_kick(&d, RX);
    from_wire(&d, &(struct net_hdr){ 0 }, mac, 189);
    from_wire(&d, &(struct net_hdr){ 0 }, mac, 188);
    assert_true(drv_used(&d, RX, &id, &len));
    assert_int_equal(len, 200);
    drv_fini(&d);
}

static void test_a_guest_without_checksum_offload_gets_complete_frames(void **unused)
{
    struct drv d;
    uint32_t id, len;
    uint8_t in[200];
    struct net_hdr h = { .flags = NET_HDR_NEEDS_CSUM, .csum_start = 14, .csum_offset = 2 };
    drv_init(&d, &virtio_net_type);
    drv_start(&d, ~(1ull << GUEST_CSUM));
    drv_chain(&d, RX, (struct piece[]){ { BUF, 200, true } }, 1);
    drv_kick(&d, RX);
    from_wire(&d, &h, mac, 100);
    assert_true(drv_used(&d, RX, &id, &len));
    peek(&d, BUF, in, 112);
    assert_int_equal(in[0], 0);
    assert_false(in[12 + 16] == (uint8_t)(16 * 3) && in[12 + 17] == (uint8_t)(17 * 3));
    drv_start(&d, ~0ull);
    drv_chain(&d, RX, (struct piece[]){ { BUF, 200, true } }, 1);
    drv_kick(&d, RX);
    from_wire(&d, &h, mac, 100);
    assert_true(drv_used(&d, RX, &id, &len));
    peek(&d, BUF, in, 112);
    assert_int_equal(in[0], NET_HDR_NEEDS_CSUM);
    assert_int_equal(in[12 + 16], 16 * 3);
    drv_fini(&d);
}

static ssize_t sent(struct drv *d, uint8_t *out, size_t size)
{
    return recv(d->f.peer, out, size, MSG_DONTWAIT);
}

static void test_frames_go_out_with_what_the_guest_may_ask(void **unused)
{
    struct drv d;
    uint32_t id, len;
    static uint8_t out[NET_MAX_FRAME];
    uint8_t h[12] = { 0 };
    drv_init(&d, &virtio_net_type);
    drv_start(&d, ~0ull);
    poke(&d, BUF, h, 12);
    drv_chain(&d, TX, (struct piece[]){ { BUF, 12, false }, { BUF + 0x100, 60, false } }, 2);
    drv_chain(&d, TX, (struct piece[]){ { BUF, 5, false }, { BUF + 5, 7 + 100, false } }, 2);
    h[0] = 1;
    h[1] = NET_GSO_TCPV4;
    store_le16(h + 4, 1400);
    store_le16(h + 6, 34);
    store_le16(h + 8, 16);
    poke(&d, BUF + 0x1000, h, 12);
    drv_chain(&d, TX, (struct piece[]){ { BUF + 0x1000, 12, false }, { BUF + 0x2000, 65000, false } }, 2);
    drv_kick(&d, TX);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(drv_used(&d, TX, &id, &len));
        assert_int_equal(len, 0);
    }
    assert_int_equal(sent(&d, out, sizeof(out)), 72);
    assert_int_equal(sent(&d, out, sizeof(out)), 112);
    assert_int_equal(sent(&d, out, sizeof(out)), 65012);
    assert_int_equal(out[1], NET_GSO_TCPV4);
    /* what it got wrong is lost, no more: runt, giant, checksum outside, segmentation not agreed */
    drv_start(&d, ~(1ull << TSO4));
    drv_chain(&d, TX, (struct piece[]){ { BUF, 12, false }, { BUF, 13, false } }, 2);
    drv_chain(&d, TX, (struct piece[]){ { BUF, 12, false }, { BUF, 70000, false } }, 2);
    drv_chain(&d, TX, (struct piece[]){ { BUF + 0x1000, 12, false }, { BUF, 1000, false } }, 2);
    drv_chain(&d, TX, (struct piece[]){ { BUF + 0x1000, 12, false }, { BUF, 40, false } }, 2);
    drv_kick(&d, TX);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(drv_used(&d, TX, &id, &len));
    }
    assert_int_equal(sent(&d, out, sizeof(out)), -1);
    assert_false(drv_status(&d) & ST_NEEDS_RESET);
    drv_chain(&d, TX, (struct piece[]){ { BUF, 11, false } }, 1);
    drv_kick(&d, TX);
    assert_true(drv_status(&d) & ST_NEEDS_RESET);
    drv_fini(&d);
}

static uint8_t control(struct drv *d, uint8_t class, uint8_t cmd, const void *data, uint32_t n)
{
    uint8_t head[2] = { class, cmd }, ack = 0xee;
    uint32_t id, len;
    poke(d, BUF + 0x8000, head, 2);
    poke(d, BUF + 0x8100, data, n);
    poke(d, BUF + 0x8f00, &ack, 1);
    drv_chain(d, CTRL, (struct piece[]){ { BUF + 0x8000, 2, false }, { BUF + 0x8100, n, false }, { BUF + 0x8f00, 1, true } }, 3);
    drv_kick(d, CTRL);
    assert_true(drv_used(d, CTRL, &id, &len));
    peek(d, BUF + 0x8f00, &ack, 1);
    return ack;
}

static bool passes(struct drv *d, const uint8_t *to)
{
    uint32_t id, len;
    uint16_t before, after;
    drv_chain(d, RX, (struct piece[]){ { BUF, 200, true } }, 1);
    drv_kick(d, RX);
    mem_read_le16(d->f.env.mem, d->q[RX].used + 2, &before);
    from_wire(d, &(struct net_hdr){ 0 }, to, 60);
    mem_read_le16(d->f.env.mem, d->q[RX].used + 2, &after);
    return after != before && drv_used(d, RX, &id, &len);
}

static void test_filters_let_through_what_the_guest_asked_for(void **unused)
{
    struct drv d;
    static const uint8_t other[6] = { 0x52, 1, 2, 3, 4, 5 }, multi[6] = { 0x33, 0x33, 0, 0, 0, 1 }, all[6] = { 255, 255, 255, 255, 255, 255 };
    uint8_t on = 1, off = 0, table[4 + 6 + 4 + 6];
    drv_init(&d, &virtio_net_type);
    drv_start(&d, ~0ull);
    assert_true(passes(&d, mac));
    assert_true(passes(&d, all));
    assert_false(passes(&d, other));
    assert_false(passes(&d, multi));
    assert_int_equal(control(&d, 0, 0, &on, 1), 0);
    assert_true(passes(&d, other));
    assert_int_equal(control(&d, 0, 0, &off, 1), 0);
    assert_int_equal(control(&d, 0, 1, &on, 1), 0);
    assert_true(passes(&d, multi));
    assert_int_equal(control(&d, 0, 1, &off, 1), 0);
    store_le32(table, 1);
    memcpy(table + 4, other, 6);
    store_le32(table + 10, 1);
    memcpy(table + 14, multi, 6);
    assert_int_equal(control(&d, 1, 0, table, sizeof(table)), 0);
    assert_true(passes(&d, other));
    assert_true(passes(&d, multi));
    store_le32(table, 0x40000000);
    assert_int_equal(control(&d, 1, 0, table, sizeof(table)), 1);
    assert_int_equal(control(&d, 1, 1, other, 6), 0);
    assert_false(passes(&d, mac));
    assert_int_equal(fix_read(&d.f, d.bar + 0x2000, 1), 0x52);
    assert_int_equal(fix_read(&d.f, d.bar + 0x2001, 1), 1);
    assert_int_equal(control(&d, 0, 5, &on, 1), 0);
    assert_false(passes(&d, all));
    assert_int_equal(control(&d, 9, 0, &on, 1), 1);
    assert_int_equal(control(&d, 0, 200, &on, 1), 1);
    assert_int_equal(control(&d, 0, 0, table, 2), 1);
    dev_reset(d.dev);           /* the card's own address comes back with the machine's reset */
    fix_cfg_write(&d.f, FIX_SLOT, 0x20, (uint32_t)d.bar, 4);
    fix_cfg_write(&d.f, FIX_SLOT, 0x24, (uint32_t)(d.bar >> 32), 4);
    fix_cfg_write(&d.f, FIX_SLOT, PCI_COMMAND, 7, 2);
    assert_int_equal(fix_read(&d.f, d.bar + 0x2001, 1), mac[1]);
    drv_fini(&d);
}

static void test_link_and_announce_show_in_the_configuration(void **unused)
{
    struct drv d;
    drv_init(&d, &virtio_net_type);
    drv_start(&d, ~0ull);
    assert_int_equal(fix_read(&d.f, d.bar + 0x2006, 2), 1);
    virtio_net_set_link(d.dev, false);
    assert_int_equal(fix_read(&d.f, d.bar + 0x2006, 2), 0);
    assert_int_equal(drv_msgs(&d, 0), 1);
    assert_false(passes(&d, mac));
    virtio_net_set_link(d.dev, true);
    assert_true(passes(&d, mac));
    virtio_net_announce(d.dev);
    assert_int_equal(fix_read(&d.f, d.bar + 0x2006, 2), 3);
    assert_int_equal(control(&d, 3, 0, "x", 1), 0);
    assert_int_equal(fix_read(&d.f, d.bar + 0x2006, 2), 1);
    /* the helper goes away */
    close(d.f.peer);
    d.f.peer = 0;
    drv_run(&d);
    assert_int_equal(fix_read(&d.f, d.bar + 0x2006, 2), 0);
    drv_fini(&d);
}

static void test_a_receive_buffer_that_is_none_stops_the_device(void **unused)
{
    static const struct piece bad[] = { { BUF, 100, false }, { BUF, 11, true } };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct drv d;
        drv_init(&d, &virtio_net_type);
        drv_start(&d, ~0ull);
        drv_chain(&d, RX, &bad[i], 1);
        drv_kick(&d, RX);
        from_wire(&d, &(struct net_hdr){ 0 }, mac, 60);
        assert_true(drv_status(&d) & ST_NEEDS_RESET);
        drv_start(&d, ~0ull);
        assert_true(passes(&d, mac));
        drv_fini(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_frame_fills_as_many_buffers_as_it_needs),
        cmocka_unit_test(test_frames_wait_for_buffers_and_keep_their_order),
        cmocka_unit_test(test_without_merging_a_frame_fits_one_chain_or_is_lost),
        cmocka_unit_test(test_a_guest_without_checksum_offload_gets_complete_frames),
        cmocka_unit_test(test_frames_go_out_with_what_the_guest_may_ask),
        cmocka_unit_test(test_filters_let_through_what_the_guest_asked_for),
        cmocka_unit_test(test_link_and_announce_show_in_the_configuration),
        cmocka_unit_test(test_a_receive_buffer_that_is_none_stops_the_device),
    };
    return cmocka_run_group_tests_name("dev-virtio-net", tests, NULL, NULL);
}
