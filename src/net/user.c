/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The port to user-mode networking: frames on a seqpacket socket, lodge-slirp at the other end. The message is struct net_hdr
 * and the frame, so offloads cross as they are and the helper does the work. Runs on the port's loop, under the user's lock.
 */
#include "net/net.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

enum { FRAMES_A_ROUND = 64, SOCKET_BUFFER = 1 * MIB, MAX_IOV = 1024 };

struct net_user_port {
    struct net_port port;
    struct loop_fd watch;
    struct timer again;         /* delivers the held frame after resume, from the loop */
    size_t held;                /* bytes in msg the user had no room for; 0: none */
    bool down;                  /* the helper is gone */
    uint8_t msg[NET_MAX_FRAME];
};

static void went_down(struct net_user_port *up)
{
    loop_fd_del(&up->watch);
    if (!up->down) {
        up->down = true;
        log_warn("net", "user networking has ended; the guest's link is down");
        if (up->port.user && up->port.user->link) {
            up->port.user->link(up->port.user, false);
        }
    }
}

/* False: the user has no room. A frame the helper should not have sent is dropped. */
static bool deliver(struct net_user_port *up, size_t len)
{
    struct net_hdr hdr;
    if (len < sizeof(hdr)) {
        return true;
    }
    memcpy(&hdr, up->msg, sizeof(hdr));
    len -= sizeof(hdr);
    if (!net_hdr_ok(&hdr, len, NET_OFF_CSUM)) {
        return true;
    }
    hdr.flags &= NET_HDR_NEEDS_CSUM | NET_HDR_DATA_VALID;
    hdr.num_buffers = 0;
    return up->port.user->receive(up->port.user, &hdr, up->msg + sizeof(hdr), len);
}

static void on_frames(struct loop_fd *w, uint32_t events)
{
    struct net_user_port *up = container_of(w, struct net_user_port, watch);
    for (int i = 0; i < FRAMES_A_ROUND && !up->held; i++) {
        ssize_t n = recv(w->fd, up->msg, sizeof(up->msg), MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0) {
            went_down(up);
            return;
        }
        if ((size_t)n <= sizeof(up->msg) && !deliver(up, (size_t)n)) {
            up->held = (size_t)n;
            loop_fd_mod(w, 0);
        }
    }
}

static void on_again(struct timer *t)
{
    struct net_user_port *up = container_of(t, struct net_user_port, again);
    if (up->held && deliver(up, up->held)) {
        up->held = 0;
        loop_fd_mod(&up->watch, EPOLLIN);
    }
}

static void user_resume(struct net_port *p)
{
    struct net_user_port *up = container_of(p, struct net_user_port, port);
    if (up->held) {
        timer_arm(&up->again, 0);
    }
}

static void user_send(struct net_port *p, const struct net_hdr *hdr, const struct iovec *iov, unsigned n_iov)
{
    struct net_user_port *up = container_of(p, struct net_user_port, port);
    struct iovec all[MAX_IOV];
    if (up->down || n_iov >= MAX_IOV) {
        return;
    }
    all[0] = (struct iovec){ (void *)hdr, sizeof(*hdr) };
    memcpy(all + 1, iov, n_iov * sizeof(*iov));
    struct msghdr msg = { .msg_iov = all, .msg_iovlen = n_iov + 1 };
    ssize_t r;
    do {
        r = sendmsg(up->watch.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (r < 0 && errno == EINTR);
    if (r < 0 && errno != EAGAIN) {
        LOG_LIMITED(LOG_WARN, "net", "a frame could not be sent: %s", strerror(errno));
    }
}

static void user_attached(struct net_port *p)
{
    struct net_user_port *up = container_of(p, struct net_user_port, port);
    struct err err = ERR_INIT;
    timer_disarm(&up->again);
    loop_fd_del(&up->watch);
    up->watch.lock = up->again.lock = p->user_lock;
    up->held = 0;
    if (p->user && !up->down && !loop_fd_add(p->loop, &up->watch, EPOLLIN, &err)) {
        log_error("net", "%s", err.msg);
    }
}

static void user_close(struct net_port *p)
{
    struct net_user_port *up = container_of(p, struct net_user_port, port);
    timer_disarm(&up->again);
    loop_fd_del(&up->watch);
    close(up->watch.fd);
    free(up);
}

static const struct net_port_ops user_ops = {
    .name = "user", .send = user_send,
    .resume = user_resume, .attached = user_attached, .close = user_close,
    .offloads = NET_OFF_CSUM | NET_OFF_TSO4 | NET_OFF_TSO6,
};

struct net_port *net_user_open(struct loop *loop, int take_sock, struct err *err)
{
    int type = 0;
    socklen_t len = sizeof(type);
    if (getsockopt(take_sock, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET || !fd_set_nonblock(take_sock, true)) {
        err_set(err, ERR_INVALID, "descriptor %d is not a seqpacket socket", take_sock);
        close(take_sock);
        return NULL;
    }
    net_socket_buffers(take_sock);
    struct net_user_port *up = new0(struct net_user_port);
    up->port.ops = &user_ops;
    up->port.loop = loop;
    up->watch = (struct loop_fd){ .fd = take_sock, .fn = on_frames };
    timer_init(&up->again, loop, NULL, on_again);
    return &up->port;
}

void net_socket_buffers(int sock)
{
    int size = SOCKET_BUFFER;
    /* The second form is capped by net.core.wmem_max, whose default still takes three of the largest frames. */
    if (setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0) {
        setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
}
