/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "net/net.h"

/* Slow and plain: the sum over big-endian words with end-around carry. */
static uint16_t slow_sum(const uint8_t *p, size_t n, uint32_t start)
{
    uint32_t sum = start;
    for (size_t i = 0; i < n; i++) {
        sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

/* A TCP frame of `payload` bytes with nonsense in its checksums and lengths. Returns its length. */
static size_t make_tcp(uint8_t *f, bool v6, size_t payload)
{
    memset(f, 0, 14 + 60 + payload);
    store_be16(f + 12, v6 ? 0x86dd : 0x0800);
    uint8_t *ip = f + 14, *tcp = ip + (v6 ? 40 : 24);
    if (v6) {
        ip[0] = 0x60;
        ip[6] = 6;
        for (int i = 8; i < 40; i++) {
            ip[i] = (uint8_t)(i * 3);
        }
    } else {
        ip[0] = 0x46;
        ip[8] = 64;
        ip[9] = 6;
        store_be16(ip + 4, 0xfffe);
        store_be32(ip + 12, 0x0a00020f);
        store_be32(ip + 16, 0x0a000202);
    }
    store_be16(tcp, 1234);
    store_be16(tcp + 2, 80);
    store_be32(tcp + 4, 0xffffff00);
    tcp[12] = 8 << 4;
    tcp[13] = 0x99;             /* CWR, ACK, PSH, FIN */
    store_be16(tcp + 16, 0xdead);
    for (size_t i = 0; i < payload; i++) {
        tcp[32 + i] = (uint8_t)(i * 11);
    }
    return (size_t)(tcp + 32 + payload - f);
}

static void assert_good_tcp(const uint8_t *f, size_t len, bool v6)
{
    const uint8_t *ip = f + 14, *tcp = ip + (v6 ? 40 : 24);
    size_t seg = (size_t)(f + len - tcp);
    if (v6) {
        assert_int_equal(load_be16(ip + 4), len - 14 - 40);
        assert_int_equal(slow_sum(tcp, seg, slow_sum(ip + 8, 32, 6) + (uint32_t)seg), 0xffff);
    } else {
        assert_int_equal(load_be16(ip + 2), len - 14);
        assert_int_equal(slow_sum(ip, 24, 0), 0xffff);
        assert_int_equal(slow_sum(tcp, seg, slow_sum(ip + 12, 8, 6) + (uint32_t)seg), 0xffff);
    }
}

static struct net_hdr gso(bool v6, uint16_t size)
{
    return (struct net_hdr){ .flags = NET_HDR_NEEDS_CSUM, .gso_type = v6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4, .gso_size = size,
                             .csum_start = v6 ? 54 : 38, .csum_offset = 16 };
}

static void test_a_checksum_is_filled_in_as_the_header_says(void **unused)
{
    for (size_t n = 14; n < 200; n++) {
        uint8_t f[200];
        for (size_t i = 0; i < n; i++) {
            f[i] = (uint8_t)(i * 7 + 1);
        }
        struct net_hdr h = { .flags = NET_HDR_NEEDS_CSUM, .csum_start = 3, .csum_offset = 4 };
        uint8_t before[200];
        memcpy(before, f, n);
        assert_true(net_hdr_ok(&h, n, NET_OFF_CSUM));
        assert_true(net_csum_fill(&h, f, n));
        uint16_t want = (uint16_t)~slow_sum(before + 3, n - 3, 0);
        assert_int_equal(load_be16(f + 7), want ? want : 0xffff);
        store_be16(f + 7, load_be16(before + 7));
        assert_memory_equal(f, before, n);
    }
}

static void test_headers_that_point_outside_are_refused(void **unused)
{
    uint8_t f[100] = { 0 };
    struct net_hdr h = { .flags = NET_HDR_NEEDS_CSUM, .csum_start = 0xffff, .csum_offset = 0xffff };
    assert_false(net_hdr_ok(&h, 100, NET_OFF_CSUM));
    assert_false(net_csum_fill(&h, f, 100));
    h = (struct net_hdr){ .flags = NET_HDR_NEEDS_CSUM, .csum_start = 90, .csum_offset = 9 };
    assert_false(net_csum_fill(&h, f, 100));
    h.csum_offset = 8;
    assert_true(net_csum_fill(&h, f, 100));
    assert_false(net_hdr_ok(&h, 100, 0));
    h = gso(false, 0);
    assert_false(net_hdr_ok(&h, 100, NET_OFF_CSUM | NET_OFF_TSO4));
    h = gso(false, 100);
    assert_true(net_hdr_ok(&h, 100, NET_OFF_CSUM | NET_OFF_TSO4));
    assert_false(net_hdr_ok(&h, 100, NET_OFF_CSUM | NET_OFF_TSO6));
    h.gso_type |= NET_GSO_ECN;
    assert_false(net_hdr_ok(&h, 100, ~0u));
    h.gso_type = 3;
    assert_false(net_hdr_ok(&h, 100, ~0u));
    h = (struct net_hdr){ 0 };
    assert_false(net_hdr_ok(&h, 13, ~0u));
    assert_false(net_hdr_ok(&h, NET_MAX_FRAME, ~0u));
}

static void test_a_large_frame_becomes_one_correct_segment(void **unused)
{
    static uint8_t f[70000];
    for (int v6 = 0; v6 < 2; v6++) {
        size_t len = make_tcp(f, v6, 60001);
        struct net_hdr h = gso(v6, 1400);
        assert_true(net_tso_whole(&h, f, len));
        assert_good_tcp(f, len, v6);
        struct net_hdr wrong = gso(!v6, 1400);
        assert_false(net_tso_whole(&wrong, f, len));
        assert_false(net_tso_whole(&h, f, 60));
    }
}

struct pieces {
    bool v6;
    unsigned n;
    size_t payload, most;
    const uint8_t *orig;
    size_t data;
    bool saw_fin, saw_cwr;
};

static void take_piece(void *arg, const uint8_t *f, size_t len)
{
    struct pieces *p = arg;
    const uint8_t *tcp = f + 14 + (p->v6 ? 40 : 24);
    size_t n = len - p->data;
    assert_good_tcp(f, len, p->v6);
    assert_true(n <= p->most);
    assert_int_equal(load_be32(tcp + 4), (uint32_t)(0xffffff00 + p->payload));
    assert_memory_equal(f + p->data, p->orig + p->data + p->payload, n);
    assert_false(p->saw_fin);
    p->saw_fin = tcp[13] & 1;
    assert_true(!(tcp[13] & 0x80) == (p->n > 0));
    if (!p->v6) {
        assert_int_equal(load_be16(f + 18), (uint16_t)(0xfffe + p->n));
    }
    p->payload += n;
    p->n++;
}

static void test_cut_segments_are_correct_and_add_up(void **unused)
{
    static uint8_t f[70000];
    for (int v6 = 0; v6 < 2; v6++) {
        for (size_t payload = 0; payload < 6000; payload += 997) {
            size_t len = make_tcp(f, v6, payload);
            struct net_hdr h = gso(v6, 1000);
            struct pieces p = { .v6 = v6, .most = 1000, .orig = f, .data = 14 + (v6 ? 40 : 24) + 32 };
            assert_true(net_tso_cut(&h, f, len, take_piece, &p));
            assert_int_equal(p.payload, payload);
            assert_int_equal(p.n, payload ? (payload + 999) / 1000 : 1);
            assert_true(p.saw_fin);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_checksum_is_filled_in_as_the_header_says),
        cmocka_unit_test(test_headers_that_point_outside_are_refused),
        cmocka_unit_test(test_a_large_frame_becomes_one_correct_segment),
        cmocka_unit_test(test_cut_segments_are_correct_and_add_up),
    };
    return cmocka_run_group_tests_name("net-csum", tests, NULL, NULL);
}
