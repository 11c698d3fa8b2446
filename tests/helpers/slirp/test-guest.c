/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest made by hand on one end of the socket, lodge-slirp with its sandbox on the other. The helper's path is the argument. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "net/net.h"

static const char *helper;
static const uint8_t guest_mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
enum { GUEST_IP = 0x0a00020f, GATEWAY = 0x0a000202, DNS = 0x0a000203, WAIT_MS = 5000 };
enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

struct guest {
    int fd;
    pid_t pid;
    char ready[600];
    uint8_t rx[NET_MAX_FRAME];          /* last frame, without header */
    size_t rx_len;
    uint8_t gw_mac[6];
    /* one TCP connection */
    uint16_t sport, dport;
    uint32_t dst, seq, ack;
};

static void start(struct guest *g, const char *a1, const char *a2)
{
    int sv[2], rd[2];
    memset(g, 0, sizeof(*g));
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
    assert_int_equal(pipe2(rd, O_CLOEXEC), 0);
    g->pid = fork();
    if (g->pid == 0) {
        char fd_arg[32], ready_arg[32];
        fd_set_cloexec(sv[1], false);
        fd_set_cloexec(rd[1], false);
        snprintf(fd_arg, sizeof(fd_arg), "--fd=%d", sv[1]);
        snprintf(ready_arg, sizeof(ready_arg), "--ready-fd=%d", rd[1]);
        execl(helper, helper, fd_arg, ready_arg, a1, a2, (char *)NULL);
        _exit(127);
    }
    close(sv[1]);
    close(rd[1]);
    ssize_t n = fd_read_full(rd[0], g->ready, sizeof(g->ready) - 1);
    g->ready[n > 0 ? n : 0] = '\0';
    close(rd[0]);
    g->fd = sv[0];
    net_socket_buffers(g->fd);
}

static void up(struct guest *g, const char *a1, const char *a2)
{
    start(g, a1, a2);
    assert_string_equal(g->ready, "ok\n");
}

/* It ends by itself when we close, and was alive until then. */
static void down(struct guest *g)
{
    int status = -1;
    assert_int_equal(waitpid(g->pid, &status, WNOHANG), 0);
    close(g->fd);
    for (int i = 0; i < 300 && waitpid(g->pid, &status, WNOHANG) == 0; i++) {
        usleep(10000);
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void send_frame(struct guest *g, const struct net_hdr *hdr, const uint8_t *frame, size_t len)
{
    struct iovec iov[2] = { { (void *)hdr, sizeof(*hdr) }, { (void *)frame, len } };
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
    assert_int_equal(sendmsg(g->fd, &m, MSG_NOSIGNAL), sizeof(*hdr) + len);
}

static size_t eth(struct guest *g, uint8_t *f, uint16_t type, bool broadcast)
{
    memset(f, 0xff, 6);
    if (!broadcast) {
        memcpy(f, g->gw_mac, 6);
    }
    memcpy(f + 6, guest_mac, 6);
    store_be16(f + 12, type);
    return 14;
}

static uint16_t csum(const uint8_t *p, size_t n)
{
    uint32_t s = 0;
    for (size_t i = 0; i < n; i++) {
        s += i & 1 ? p[i] : (uint32_t)p[i] << 8;
    }
    while (s >> 16) {
        s = (s & 0xffff) + (s >> 16);
    }
    return (uint16_t)~s;
}

static uint8_t *ip4(uint8_t *f, uint8_t proto, uint32_t src, uint32_t dst, size_t payload)
{
    uint8_t *ip = f + 14;
    memset(ip, 0, 20);
    ip[0] = 0x45;
    store_be16(ip + 2, (uint16_t)(20 + payload));
    store_be16(ip + 6, 0x4000);
    ip[8] = 64;
    ip[9] = proto;
    store_be32(ip + 12, src);
    store_be32(ip + 16, dst);
    store_be16(ip + 10, csum(ip, 20));
    return ip + 20;
}

/* The part of the checksum a sender with offload leaves: the pseudo header. */
static uint16_t pseudo(uint8_t proto, uint32_t src, uint32_t dst, size_t len)
{
    uint32_t s = proto + (uint32_t)len + (src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff);
    while (s >> 16) {
        s = (s & 0xffff) + (s >> 16);
    }
    return (uint16_t)s;
}

static bool recv_frame(struct guest *g, int timeout_ms)
{
    static uint8_t msg[NET_MAX_FRAME];
    struct pollfd p = { .fd = g->fd, .events = POLLIN };
    if (poll(&p, 1, timeout_ms) <= 0) {
        return false;
    }
    ssize_t n = recv(g->fd, msg, sizeof(msg), 0);
    if (n <= (ssize_t)sizeof(struct net_hdr)) {
        return false;
    }
    g->rx_len = (size_t)n - sizeof(struct net_hdr);
    memcpy(g->rx, msg + sizeof(struct net_hdr), g->rx_len);
    return true;
}

static void answer_arp(struct guest *g)
{
    uint8_t f[42];
    if (g->rx_len < 42 || load_be16(g->rx + 12) != 0x0806 || load_be16(g->rx + 20) != 1 || load_be32(g->rx + 38) != GUEST_IP) {
        return;
    }
    memcpy(g->gw_mac, g->rx + 22, 6);
    memcpy(f, g->rx, 42);
    eth(g, f, 0x0806, false);
    store_be16(f + 20, 2);
    memcpy(f + 22, guest_mac, 6);
    store_be32(f + 28, GUEST_IP);
    memcpy(f + 32, g->rx + 22, 10);
    send_frame(g, &(struct net_hdr){ 0 }, f, sizeof(f));
}

/* Next IPv4 packet of `proto` for us; its transport header, or NULL in time. */
static uint8_t *next_ip(struct guest *g, uint8_t proto, int timeout_ms)
{
    uint64_t end = host_clock_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    while (host_clock_ns() < end) {
        if (!recv_frame(g, (int)((end - host_clock_ns()) / NS_PER_MS) + 1)) {
            continue;
        }
        answer_arp(g);
        if (g->rx_len > 34 && load_be16(g->rx + 12) == 0x0800 && g->rx[23] == proto) {
            memcpy(g->gw_mac, g->rx + 6, 6);
            return g->rx + 14 + (g->rx[14] & 15) * 4;
        }
    }
    return NULL;
}

static void find_gateway(struct guest *g)
{
    uint8_t f[42] = { 0 };
    eth(g, f, 0x0806, true);
    memcpy(f + 14, "\0\1\x08\0\6\4\0\1", 8);
    memcpy(f + 22, guest_mac, 6);
    store_be32(f + 28, GUEST_IP);
    store_be32(f + 38, GATEWAY);
    send_frame(g, &(struct net_hdr){ 0 }, f, sizeof(f));
    for (int i = 0; i < 5000 && recv_frame(g, WAIT_MS); i++) {
        if (load_be16(g->rx + 12) == 0x0806 && load_be16(g->rx + 20) == 2) {
            assert_int_equal(load_be32(g->rx + 28), GATEWAY);
            memcpy(g->gw_mac, g->rx + 22, 6);
            return;
        }
    }
    int status = 0;
    pid_t dead = waitpid(g->pid, &status, WNOHANG);
    fail_msg("no answer to ARP; helper %s, status %#x", dead ? "ended" : "runs", (unsigned)status);
}

static void send_udp(struct guest *g, uint32_t src, uint32_t dst, uint16_t sport, uint16_t dport, const void *data, size_t len)
{
    uint8_t f[2000];
    eth(g, f, 0x0800, dst == 0xffffffff);
    uint8_t *u = ip4(f, 17, src, dst, 8 + len);
    store_be16(u, sport);
    store_be16(u + 2, dport);
    store_be16(u + 4, (uint16_t)(8 + len));
    store_be16(u + 6, pseudo(17, src, dst, 8 + len));
    memcpy(u + 8, data, len);
    struct net_hdr h = { .flags = NET_HDR_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6 };
    send_frame(g, &h, f, 42 + len);
}

static void send_tcp(struct guest *g, uint8_t flags, const void *data, size_t len)
{
    static uint8_t f[NET_MAX_FRAME];
    eth(g, f, 0x0800, false);
    uint8_t *t = ip4(f, 6, GUEST_IP, g->dst, 20 + len);
    memset(t, 0, 20);
    store_be16(t, g->sport);
    store_be16(t + 2, g->dport);
    store_be32(t + 4, g->seq);
    store_be32(t + 8, flags & ACK ? g->ack : 0);
    t[12] = 5 << 4;
    t[13] = flags;
    store_be16(t + 14, 65535);
    store_be16(t + 16, pseudo(6, GUEST_IP, g->dst, 20 + len));
    if (len) {
        memcpy(t + 20, data, len);
    }
    struct net_hdr h = { .flags = NET_HDR_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16 };
    if (len > 1400) {
        h.gso_type = NET_GSO_TCPV4;
        h.gso_size = 1460;
        h.hdr_len = 54;
    }
    send_frame(g, &h, f, 54 + len);
    g->seq += (uint32_t)len + (flags & (SYN | FIN) ? 1 : 0);
}

static int listener(uint16_t *port, int type)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(sa);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_true(type != SOCK_STREAM || listen(fd, 4) == 0);
    getsockname(fd, (struct sockaddr *)&sa, &len);
    *port = ntohs(sa.sin_port);
    return fd;
}

static bool ready(int fd, int timeout_ms)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    return poll(&p, 1, timeout_ms) > 0;
}

static void test_dhcp_gives_the_usual_address(void **unused)
{
    static struct guest g;
    up(&g, "--hostname=box", NULL);
    for (uint8_t kind = 1; kind <= 3; kind += 2) {      /* discover -> offer, request -> ack */
        uint8_t d[300] = { 1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78 };
        memcpy(d + 28, guest_mac, 6);
        store_be32(d + 236, 0x63825363);
        memcpy(d + 240, (uint8_t[]){ 53, 1, kind, 50, 4, 10, 0, 2, 15, 255 }, 10);
        send_udp(&g, 0, 0xffffffff, 68, 67, d, sizeof(d));
        uint8_t *u = next_ip(&g, 17, WAIT_MS);
        assert_non_null(u);
        assert_int_equal(load_be16(u + 2), 68);
        assert_int_equal(load_be32(u + 8 + 4), 0x12345678);
        assert_int_equal(load_be32(u + 8 + 16), GUEST_IP);
        assert_int_equal(u[8 + 240], 53);
        assert_int_equal(u[8 + 242], kind == 1 ? 2 : 5);
    }
    down(&g);
}

static void test_udp_reaches_the_host_and_comes_back(void **unused)
{
    static struct guest g;
    uint16_t port;
    AUTO_FD int s = listener(&port, SOCK_DGRAM);
    up(&g, NULL, NULL);
    find_gateway(&g);
    send_udp(&g, GUEST_IP, GATEWAY, 4000, port, "ping", 4);
    char in[16];
    struct sockaddr_in from;
    socklen_t len = sizeof(from);
    assert_true(ready(s, WAIT_MS));
    assert_int_equal(recvfrom(s, in, sizeof(in), 0, (struct sockaddr *)&from, &len), 4);
    assert_memory_equal(in, "ping", 4);
    assert_int_equal(sendto(s, "pong!", 5, 0, (struct sockaddr *)&from, len), 5);
    uint8_t *u = next_ip(&g, 17, WAIT_MS);
    assert_non_null(u);
    assert_int_equal(load_be16(u), port);
    assert_int_equal(load_be16(u + 2), 4000);
    assert_memory_equal(u + 8, "pong!", 5);
    down(&g);
}

/* One fragment of the IP payload `data`. */
static void send_fragment(struct guest *g, const uint8_t *data, size_t at, size_t n, bool more)
{
    uint8_t f[1600];
    eth(g, f, 0x0800, false);
    uint8_t *p = ip4(f, 17, GUEST_IP, GATEWAY, n), *ip = f + 14;
    store_be16(ip + 4, 0x4242);
    store_be16(ip + 6, (uint16_t)(at / 8 | (more ? 0x2000 : 0)));
    store_be16(ip + 10, 0);
    store_be16(ip + 10, csum(ip, 20));
    memcpy(p, data + at, n);
    send_frame(g, &(struct net_hdr){ 0 }, f, 34 + n);
}

static void test_a_datagram_in_fragments_arrives_whole_and_wrong_order_harms_nobody(void **unused)
{
    static struct guest g;
    static uint8_t u[4008], in[5000];
    uint16_t port;
    AUTO_FD int s = listener(&port, SOCK_DGRAM);
    up(&g, NULL, NULL);
    find_gateway(&g);
    store_be16(u, 4000);
    store_be16(u + 2, port);
    store_be16(u + 4, sizeof(u));
    for (size_t i = 8; i < sizeof(u); i++) {
        u[i] = (uint8_t)(i * 17);
    }
    send_fragment(&g, u, 2960, sizeof(u) - 2960, false);        /* libslirp 4.7 would crash on this one first */
    send_fragment(&g, u, 1480, 1480, true);
    send_fragment(&g, u, 0, 1480, true);
    send_fragment(&g, u, 2960, sizeof(u) - 2960, false);        /* a gap */
    assert_false(ready(s, 100));
    send_fragment(&g, u, 0, 1480, true);
    send_fragment(&g, u, 1480, 1480, true);
    send_fragment(&g, u, 2960, sizeof(u) - 2960, false);
    assert_true(ready(s, WAIT_MS));
    assert_int_equal(recv(s, in, sizeof(in), 0), 4000);
    assert_memory_equal(in, u + 8, 4000);
    /* never more than a datagram can be */
    for (size_t at = 0; at < 80000; at += 1480) {
        uint8_t f[1600];
        eth(&g, f, 0x0800, false);
        ip4(f, 17, GUEST_IP, GATEWAY, 1480);
        store_be16(f + 20, (uint16_t)((at / 8 & 0x1fff) | 0x2000));
        store_be16(f + 24, 0);
        store_be16(f + 24, csum(f + 14, 20));
        send_frame(&g, &(struct net_hdr){ 0 }, f, 34 + 1480);
    }
    find_gateway(&g);
    down(&g);
}

static void connect_to(struct guest *g, uint32_t dst, uint16_t dport)
{
    g->dst = dst;
    g->sport = 5000;
    g->dport = dport;
    g->seq = 1000;
    send_tcp(g, SYN, NULL, 0);
    uint8_t *t = next_ip(g, 6, WAIT_MS);
    assert_non_null(t);
    assert_int_equal(t[13] & (SYN | ACK | RST), SYN | ACK);
    assert_int_equal(load_be32(t + 8), g->seq);
    g->ack = load_be32(t + 4) + 1;
    send_tcp(g, ACK, NULL, 0);
}

static void test_tcp_moves_large_segments_out_and_data_back(void **unused)
{
    static struct guest g;
    static uint8_t big[60000], got[60000];
    uint16_t port;
    AUTO_FD int s = listener(&port, SOCK_STREAM);
    up(&g, NULL, NULL);
    find_gateway(&g);
    connect_to(&g, GATEWAY, port);
    assert_true(ready(s, WAIT_MS));
    AUTO_FD int c = accept(s, NULL, NULL);
    for (size_t i = 0; i < sizeof(big); i++) {
        big[i] = (uint8_t)(i * 13 + i / 251);
    }
    send_tcp(&g, ACK | PSH, big, sizeof(big));          /* one frame, as TSO gives it */
    assert_int_equal(fd_read_full(c, got, sizeof(got)), sizeof(got));
    assert_memory_equal(got, big, sizeof(big));
    assert_int_equal(fd_write_full(c, big, 20000), 0);
    size_t back = 0;
    uint32_t base = g.ack;
    while (back < 20000) {
        uint8_t *t = next_ip(&g, 6, WAIT_MS);
        assert_non_null(t);
        size_t n = g.rx + 14 + load_be16(g.rx + 16) - (t + (t[12] >> 4) * 4);
        assert_true(g.rx_len <= NET_MTU_FRAME);
        if (n && load_be32(t + 4) == g.ack) {
            assert_memory_equal(t + (t[12] >> 4) * 4, big + (g.ack - base), n);
            g.ack += (uint32_t)n;
            back += n;
            send_tcp(&g, ACK, NULL, 0);
        }
    }
    send_tcp(&g, FIN | ACK, NULL, 0);
    char end;
    assert_int_equal(read(c, &end, 1), 0);
    down(&g);
}

static void test_a_forward_lets_the_host_in(void **unused)
{
    static struct guest g;
    uint16_t port;
    close(listener(&port, SOCK_STREAM));        /* a port that is free now */
    char arg[64];
    snprintf(arg, sizeof(arg), "--forward=tcp:%u:22", port);
    up(&g, arg, NULL);
    find_gateway(&g);
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    AUTO_FD int c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(c, (struct sockaddr *)&sa, sizeof(sa)), 0);
    uint8_t *t = next_ip(&g, 6, WAIT_MS);
    assert_non_null(t);
    assert_int_equal(t[13] & (SYN | ACK), SYN);
    assert_int_equal(load_be16(t + 2), 22);
    assert_int_equal(load_be32(g.rx + 14 + 16), GUEST_IP);
    g.dst = load_be32(g.rx + 14 + 12);
    g.sport = 22;
    g.dport = load_be16(t);
    g.seq = 77;
    g.ack = load_be32(t + 4) + 1;
    send_tcp(&g, SYN | ACK, NULL, 0);
    assert_non_null(next_ip(&g, 6, WAIT_MS));
    send_tcp(&g, ACK | PSH, "SSH-2.0", 7);
    char in[8];
    assert_true(ready(c, WAIT_MS));
    assert_int_equal(read(c, in, sizeof(in)), 7);
    assert_int_equal(write(c, "hello", 5), 5);
    for (int i = 0; i < 20; i++) {
        t = next_ip(&g, 6, WAIT_MS);
        assert_non_null(t);
        uint8_t *d = t + (t[12] >> 4) * 4;
        if (g.rx + 14 + load_be16(g.rx + 16) - d == 5) {
            assert_memory_equal(d, "hello", 5);
            down(&g);
            return;
        }
    }
    fail_msg("the host's bytes did not come");
}

static void test_restrict_keeps_the_guest_in(void **unused)
{
    static struct guest g;
    uint16_t port, uport;
    AUTO_FD int s = listener(&port, SOCK_STREAM), u = listener(&uport, SOCK_DGRAM);
    up(&g, "--restrict", NULL);
    find_gateway(&g);
    send_udp(&g, GUEST_IP, GATEWAY, 4000, uport, "ping", 4);
    g.dst = GATEWAY;
    g.sport = 5000;
    g.dport = port;
    send_tcp(&g, SYN, NULL, 0);
    uint8_t *t = next_ip(&g, 6, 300);
    assert_true(!t || !(t[13] & SYN));
    assert_false(ready(s, 0));
    assert_false(ready(u, 0));
    down(&g);
}

static void test_a_port_that_is_taken_is_said_before_the_guest_starts(void **unused)
{
    static struct guest g;
    uint16_t port;
    int status;
    AUTO_FD int s = listener(&port, SOCK_STREAM);
    char arg[64], want[64];
    snprintf(arg, sizeof(arg), "--forward=tcp:%u:22", port);
    snprintf(want, sizeof(want), "127.0.0.1:%u", port);
    start(&g, arg, NULL);
    assert_int_equal(strncmp(g.ready, "error: ", 7), 0);
    assert_non_null(strstr(g.ready, want));
    assert_non_null(strstr(g.ready, "in use"));
    close(g.fd);
    waitpid(g.pid, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 1);
    start(&g, "--forward=nonsense", NULL);
    assert_int_equal(strncmp(g.ready, "error: ", 7), 0);
    close(g.fd);
    waitpid(g.pid, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 2);
}

static void test_name_queries_and_rubbish_do_not_kill_it_in_its_sandbox(void **unused)
{
    static struct guest g;
    static uint8_t junk[NET_MAX_FRAME];
    up(&g, NULL, NULL);
    AUTO_FREE char *path = str_fmt("/proc/%d/status", g.pid);
    AUTO_FREE char *status = file_read(path, 64 * KIB, NULL, NULL);
    assert_non_null(status);
    assert_non_null(strstr(status, "\nSeccomp:\t2\n"));
    assert_non_null(strstr(status, "\nNoNewPrivs:\t1\n"));
    find_gateway(&g);
    static const uint8_t query[] = "\x12\x34\1\0\0\1\0\0\0\0\0\0\7example\3org\0\0\1\0\1";
    send_udp(&g, GUEST_IP, DNS, 4001, 53, query, sizeof(query) - 1);
    uint32_t x = 1;
    for (unsigned i = 0; i < 3000; i++) {
        size_t len = 14 + i % 400;
        for (size_t k = 0; k < len; k++) {
            x = x * 1664525 + 1013904223;
            junk[k] = (uint8_t)(x >> 24);
        }
        eth(&g, junk, i % 3 == 0 ? 0x0800 : i % 3 == 1 ? 0x86dd : 0x0806, false);
        junk[14] = i % 3 == 0 ? 0x45 : 0x60;
        struct net_hdr h = { .flags = i & 1, .gso_type = i % 5 ? 0 : i % 4, .gso_size = (uint16_t)i, .csum_start = (uint16_t)(x >> 22), .csum_offset = 6 };
        send_frame(&g, &h, junk, len);
        while (recv_frame(&g, 0)) {
        }
    }
    send(g.fd, junk, 3, 0);
    find_gateway(&g);
    down(&g);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dhcp_gives_the_usual_address),
        cmocka_unit_test(test_udp_reaches_the_host_and_comes_back),
        cmocka_unit_test(test_a_datagram_in_fragments_arrives_whole_and_wrong_order_harms_nobody),
        cmocka_unit_test(test_tcp_moves_large_segments_out_and_data_back),
        cmocka_unit_test(test_a_forward_lets_the_host_in),
        cmocka_unit_test(test_restrict_keeps_the_guest_in),
        cmocka_unit_test(test_a_port_that_is_taken_is_said_before_the_guest_starts),
        cmocka_unit_test(test_name_queries_and_rubbish_do_not_kill_it_in_its_sandbox),
    };
    if (argc < 2) {
        return 77;
    }
    helper = argv[1];
    return cmocka_run_group_tests_name("slirp-guest", tests, NULL, NULL);
}
