/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libslirp and the loop around it. Frames come from the guest as struct net_hdr and frame, one a message; libslirp knows no such header, so what it
 * asks for is done here. Towards the guest a full socket makes a queue; a long queue stops reading from the host.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/list.h"
#include "base/log.h"
#include "helpers/slirp/slirp-int.h"
#include "net/net.h"

enum { FRAMES_A_ROUND = 64, N_POLL = MAX_FLOWS + MAX_FORWARDS + 64, MTU = 1500, ETH_LEN = 14 };

/* What waits for room in the socket. */
struct queued {
    struct list node;
    size_t len;
    uint8_t msg[];
};

struct stack_timer {
    struct list node;
    SlirpTimerId id;
    void *cb_opaque;
    int64_t expire_ms;          /* -1: not armed */
};

struct stack {
    Slirp *slirp;
    int fd;
    struct list queue;          /* struct queued, oldest first */
    size_t queued;              /* bytes */
    struct list timers;
    struct pollfd poll[N_POLL]; /* 0 is the guest */
    unsigned n_poll;
    bool ended;
    struct reass reass;
    uint8_t msg[NET_MAX_FRAME];
};

/* -- towards the guest -- */

static bool send_now(struct stack *s, const uint8_t *msg, size_t len)
{
    ssize_t r;
    do {
        r = send(s->fd, msg, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (r < 0 && errno == EINTR);
    if (r < 0 && errno != EAGAIN && errno != EMSGSIZE && errno != ENOBUFS) {
        s->ended = true;
    }
    return r >= 0 || errno != EAGAIN;
}

static ssize_t on_send(const void *frame, size_t len, void *opaque)
{
    struct stack *s = opaque;
    if (len > NET_MAX_FRAME - sizeof(struct net_hdr) || s->queued + len > MAX_QUEUED) {
        return (ssize_t)len;            /* dropped, as on a wire; TCP sends it again */
    }
    struct queued *q = alloc0(sizeof(*q) + sizeof(struct net_hdr) + len);
    q->len = sizeof(struct net_hdr) + len;
    memcpy(q->msg + sizeof(struct net_hdr), frame, len);
    if (s->queued == 0 && send_now(s, q->msg, q->len)) {
        free(q);
    } else {
        s->queued += q->len;
        list_add_tail(&s->queue, &q->node);
    }
    return (ssize_t)len;
}

static void flush_queue(struct stack *s)
{
    while (!list_empty(&s->queue)) {
        struct queued *q = list_entry(s->queue.next, struct queued, node);
        if (!send_now(s, q->msg, q->len)) {
            return;
        }
        list_del(&q->node);
        s->queued -= q->len;
        free(q);
    }
}

/* -- from the guest -- */

/* The one way into libslirp: only what it needs to see. */
static void input_piece(void *arg, const uint8_t *frame, size_t len)
{
    struct stack *s = arg;
    uint16_t type = load_be16(frame + 12);
    if (type == 0x0800 || type == 0x0806 || type == 0x86dd) {
        frame = reass_input(&s->reass, frame, &len);
        if (frame) {
            slirp_input(s->slirp, frame, (int)len);
        }
    }
}

void stack_input(struct stack *s, uint8_t *msg, size_t len)
{
    struct net_hdr hdr;
    if (len < sizeof(hdr)) {
        return;
    }
    memcpy(&hdr, msg, sizeof(hdr));
    uint8_t *frame = msg + sizeof(hdr);
    len -= sizeof(hdr);
    if (!net_hdr_ok(&hdr, len, NET_OFF_CSUM | NET_OFF_TSO4 | NET_OFF_TSO6)) {
        return;
    }
    if (hdr.gso_type == NET_GSO_TCPV6 && len > MTU + ETH_LEN) {
        /* libslirp refuses IPv6 above its MTU, and IPv4 TCP of any size it takes. */
        net_tso_cut(&hdr, frame, len, input_piece, s);
    } else if (hdr.gso_type ? net_tso_whole(&hdr, frame, len) : net_csum_fill(&hdr, frame, len)) {
        input_piece(s, frame, len);
    }
}

static void take_frames(struct stack *s)
{
    for (int i = 0; i < FRAMES_A_ROUND; i++) {
        ssize_t n = recv(s->fd, s->msg, sizeof(s->msg), MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0) {
            s->ended = true;
            return;
        }
        if ((size_t)n <= sizeof(s->msg)) {
            stack_input(s, s->msg, (size_t)n);
        }
    }
}

/* -- what libslirp asks of us -- */

static int64_t on_clock(void *opaque)
{
    return (int64_t)host_clock_ns();
}

static void on_guest_error(const char *msg, void *opaque)
{
    LOG_LIMITED(LOG_INFO, "slirp", "%s", msg);
}

static void *on_timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
    struct stack *s = opaque;
    struct stack_timer *t = new0(struct stack_timer);
    *t = (struct stack_timer){ .id = id, .cb_opaque = cb_opaque, .expire_ms = -1 };
    list_add_tail(&s->timers, &t->node);
    return t;
}

static void on_timer_free(void *timer, void *opaque)
{
    struct stack_timer *t = timer;
    list_del(&t->node);
    free(t);
}

static void on_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    ((struct stack_timer *)timer)->expire_ms = expire_ms;
}

static void on_poll_fd(int fd, void *opaque)
{
}

static void on_notify(void *opaque)
{
}

static const SlirpCb callbacks = {
    .send_packet = on_send, .guest_error = on_guest_error, .clock_get_ns = on_clock, .timer_free = on_timer_free,
    .timer_mod = on_timer_mod, .register_poll_fd = on_poll_fd, .unregister_poll_fd = on_poll_fd, .notify = on_notify,
    .timer_new_opaque = on_timer_new,
};

static void run_timers(struct stack *s)
{
    int64_t now = (int64_t)(host_clock_ns() / NS_PER_MS);
    list_for_each(t, &s->timers, struct stack_timer, node) {
        if (t->expire_ms >= 0 && t->expire_ms <= now) {
            t->expire_ms = -1;
            slirp_handle_timer(s->slirp, t->id, t->cb_opaque);
        }
    }
}

static int next_timeout(const struct stack *s, uint32_t slirp_ms)
{
    int64_t now = (int64_t)(host_clock_ns() / NS_PER_MS), left = slirp_ms;
    for (const struct list *l = s->timers.next; l != &s->timers; l = l->next) {
        const struct stack_timer *t = list_entry((struct list *)l, struct stack_timer, node);
        if (t->expire_ms >= 0 && t->expire_ms - now < left) {
            left = t->expire_ms > now ? t->expire_ms - now : 0;
        }
    }
    return left > 60000 ? 60000 : (int)left;
}

static bool is_listening(int fd)
{
    int on = 0;
    socklen_t len = sizeof(on);
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on;
}

static int on_add_poll(int fd, int events, void *opaque)
{
    struct stack *s = opaque;
    if (s->n_poll == N_POLL) {
        return -1;
    }
    /* At the limit nothing is accepted: with no descriptor left a listening socket would be ready for ever. */
    bool rest = s->queued > PAUSE_AT || (s->n_poll > MAX_FLOWS && is_listening(fd));
    s->poll[s->n_poll] = (struct pollfd){
        .fd = rest ? -1 : fd,
        .events = (short)((events & SLIRP_POLL_IN ? POLLIN : 0) | (events & SLIRP_POLL_OUT ? POLLOUT : 0) |
                          (events & SLIRP_POLL_PRI ? POLLPRI : 0)),
    };
    return (int)s->n_poll++;
}

static int on_revents(int idx, void *opaque)
{
    struct stack *s = opaque;
    short r = idx > 0 && (unsigned)idx < s->n_poll && s->poll[idx].fd >= 0 ? s->poll[idx].revents : 0;
    return (r & POLLIN ? SLIRP_POLL_IN : 0) | (r & POLLOUT ? SLIRP_POLL_OUT : 0) | (r & POLLPRI ? SLIRP_POLL_PRI : 0) |
           (r & POLLERR ? SLIRP_POLL_ERR : 0) | (r & POLLHUP ? SLIRP_POLL_HUP : 0);
}

bool stack_once(struct stack *s, int max_wait_ms)
{
    uint32_t timeout = UINT32_MAX;
    s->poll[0] = (struct pollfd){ .fd = s->fd, .events = (short)(POLLIN | (s->queued ? POLLOUT : 0)) };
    s->n_poll = 1;
    slirp_pollfds_fill(s->slirp, &timeout, on_add_poll, s);
    int wait = next_timeout(s, timeout), n = poll(s->poll, s->n_poll, wait < max_wait_ms ? wait : max_wait_ms);
    if (n < 0 && errno != EINTR) {
        return false;
    }
    if (s->queued) {
        flush_queue(s);
    }
    slirp_pollfds_poll(s->slirp, n < 0, on_revents, s);
    run_timers(s);
    if (n > 0 && s->poll[0].revents & (POLLIN | POLLHUP | POLLERR)) {
        take_frames(s);
    }
    return !s->ended;
}

int stack_run(struct stack *s)
{
    while (stack_once(s, INT_MAX)) {
    }
    return s->ended ? 0 : 1;
}

/* -- life -- */

static bool bind_forwards(struct stack *s, const struct options *o, struct err *err)
{
    for (unsigned i = 0; i < o->n_forwards; i++) {
        const struct forward *f = &o->forward[i];
        struct sockaddr_in guest = f->guest;
        if (guest.sin_addr.s_addr == 0) {
            guest.sin_addr = o->dhcp;
        }
        errno = 0;
        if (slirp_add_hostfwd(s->slirp, f->udp, f->host.sin_addr, ntohs(f->host.sin_port), guest.sin_addr, ntohs(guest.sin_port)) < 0) {
            char addr[INET_ADDRSTRLEN];
            inet_ntop(AF_INET, &f->host.sin_addr, addr, sizeof(addr));
            return err_set_errno(err, errno ? errno : EADDRINUSE, "cannot listen on %s port %s:%u", f->udp ? "udp" : "tcp", addr,
                                 ntohs(f->host.sin_port));
        }
    }
    return true;
}

struct stack *stack_create(const struct options *o, struct err *err)
{
    SlirpConfig cfg = {
        .version = 4, .restricted = o->restricted, .in_enabled = true, .vnetwork = o->net, .vnetmask = o->mask, .vhost = o->host,
        .vdhcp_start = o->dhcp, .vnameserver = o->dns, .vhostname = o->hostname, .in6_enabled = o->ipv6, .vprefix_len = 64,
        .if_mtu = MTU, .if_mru = MTU, .disable_host_loopback = !o->host_loopback,
    };
    inet_pton(AF_INET6, "fec0::", &cfg.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &cfg.vhost6);
    inet_pton(AF_INET6, "fec0::3", &cfg.vnameserver6);
    struct stack *s = new0(struct stack);
    s->fd = o->fd;
    list_init(&s->queue);
    list_init(&s->timers);
    s->slirp = slirp_new(&cfg, &callbacks, s);
    if (!s->slirp) {
        err_set(err, ERR_GENERIC, "libslirp refuses the configuration");
    } else if (bind_forwards(s, o, err)) {
        return s;
    }
    stack_destroy(s);
    return NULL;
}

void stack_destroy(struct stack *s)
{
    if (!s) {
        return;
    }
    if (s->slirp) {
        slirp_cleanup(s->slirp);
    }
    list_for_each(q, &s->queue, struct queued, node) {
        free(q);
    }
    list_for_each(t, &s->timers, struct stack_timer, node) {
        free(t);
    }
    free(s);
}
