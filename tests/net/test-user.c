/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The port's own side of the socket; the helper is played by the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/net.h"

struct nic {
    struct net_user u;
    pthread_mutex_t lock;
    bool room;
    int frames, links_down;
    size_t len;
    uint8_t first;
};

static bool receive(struct net_user *u, const struct net_hdr *hdr, const uint8_t *frame, size_t len)
{
    struct nic *nic = container_of(u, struct nic, u);
    assert_int_not_equal(pthread_mutex_trylock(&nic->lock), 0);
    if (nic->room) {
        nic->frames++;
        nic->len = len;
        nic->first = frame[0];
    }
    return nic->room;
}

static void link_changed(struct net_user *u, bool up)
{
    container_of(u, struct nic, u)->links_down += !up;
}

static void run(struct loop *loop)
{
    while (loop_once(loop, 20)) {
    }
}

static void test_frames_cross_with_their_header_and_wait_for_room(void **unused)
{
    struct err err = ERR_INIT;
    struct loop *loop = loop_create(&err);
    struct nic nic = { .u = { receive, link_changed }, .lock = PTHREAD_MUTEX_INITIALIZER, .room = true };
    int sv[2];
    static uint8_t msg[NET_MAX_FRAME + 100];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
    net_socket_buffers(sv[1]);
    struct net_port *p = net_user_open(loop, sv[0], &err);
    assert_non_null(p);
    net_port_attach(p, &nic.u, &nic.lock);

    msg[12] = 0x42;
    assert_int_equal(send(sv[1], msg, 12 + 60, 0), 72);
    run(loop);
    assert_int_equal(nic.frames, 1);
    assert_int_equal(nic.len, 60);
    assert_int_equal(nic.first, 0x42);
    /* too short, too long, asking for what may not come from there */
    send(sv[1], msg, 5, 0);
    send(sv[1], msg, sizeof(msg), 0);
    msg[1] = NET_GSO_TCPV4;
    send(sv[1], msg, 72, 0);
    msg[1] = 0;
    run(loop);
    assert_int_equal(nic.frames, 1);

    nic.room = false;
    send(sv[1], msg, 72, 0);
    msg[12] = 0x43;
    send(sv[1], msg, 73, 0);
    run(loop);
    assert_int_equal(nic.frames, 1);
    nic.room = true;
    pthread_mutex_lock(&nic.lock);
    net_port_resume(p);
    assert_int_equal(nic.frames, 1);
    pthread_mutex_unlock(&nic.lock);
    run(loop);
    assert_int_equal(nic.frames, 3);
    assert_int_equal(nic.len, 61);

    /* the largest frame the guest may send */
    struct net_hdr h = { .flags = NET_HDR_NEEDS_CSUM, .gso_type = NET_GSO_TCPV4, .gso_size = 1400 };
    struct iovec iov[2] = { { msg, 100 }, { msg + 100, NET_MAX_FRAME - 12 - 100 } };
    net_port_send(p, &h, iov, 2);
    assert_int_equal(recv(sv[1], msg, sizeof(msg), 0), NET_MAX_FRAME);
    assert_memory_equal(msg, &h, sizeof(h));
    /* nobody reads: frames are lost, nothing blocks */
    for (int i = 0; i < 1000; i++) {
        net_port_send(p, &h, iov, 2);
    }
    close(sv[1]);
    run(loop);
    assert_int_equal(nic.links_down, 1);
    net_port_send(p, &h, iov, 2);
    net_port_close(p);
    loop_destroy(loop);
}

static void test_only_a_seqpacket_socket_will_do(void **unused)
{
    struct err err = ERR_INIT;
    struct loop *loop = loop_create(&err);
    int sv[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    assert_null(net_user_open(loop, sv[0], &err));
    assert_int_equal(err.code, ERR_INVALID);
    close(sv[1]);
    net_port_close(NULL);
    loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_cross_with_their_header_and_wait_for_room),
        cmocka_unit_test(test_only_a_seqpacket_socket_will_do),
    };
    return cmocka_run_group_tests_name("net-user", tests, NULL, NULL);
}
