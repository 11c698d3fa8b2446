/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All ports are one machine with up to three descriptors: where a client comes from, where bytes come from, where they go.
 * Everything below is guarded by the user's lock (`lock`), which the loop holds around our callbacks too.
 */
#include "chr/chr.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

enum { READ_SIZE = 4096, RING_FIRST = 4096 };

struct chr {
    struct loop *loop;                  /* NULL: the null port */
    struct chr_user *user;
    pthread_mutex_t *lock;
    struct loop_fd listen, in, out;     /* fd -1: none. in and out are never the same number */
    struct timer pump;                  /* stands in for epoll where `in` is a plain file */
    bool out_socket;                    /* send instead of write */
    bool in_plain;                      /* epoll does not take it: it is always ready */
    bool restore_in, restore_out;       /* we turned O_NONBLOCK on in a file shared with others */
    bool open;                          /* somebody is at the other end */
    bool broken;                        /* the other end failed while we wrote; the loop will close it */
    bool paused;                        /* the user had no room */
    bool stalled;                       /* the user was told less than it gave */
    uint8_t *ring;                      /* output not yet written; grows to CHR_QUEUE_MAX */
    size_t cap, head, len;
};

/* -- output queue -- */

static void ring_drop(struct chr *c, size_t n)
{
    c->len -= n;
    c->head = c->len ? (c->head + n) % c->cap : 0;
}

static void ring_room(struct chr *c, size_t want)
{
    size_t cap = c->cap ? c->cap : RING_FIRST;
    while (cap < want) {
        cap *= 2;
    }
    if (cap == c->cap) {
        return;
    }
    uint8_t *more = alloc0(cap);
    for (size_t i = 0, part; i < c->len; i += part) {
        size_t at = (c->head + i) % c->cap;
        part = (size_t)min_u64(c->len - i, c->cap - at);
        memcpy(more + i, c->ring + at, part);
    }
    free(c->ring);
    c->ring = more;
    c->cap = cap;
    c->head = 0;
}

/* Takes what fits under `max`. */
static size_t ring_put(struct chr *c, const uint8_t *data, size_t n, size_t max)
{
    n = (size_t)min_u64(n, max > c->len ? max - c->len : 0);
    if (n == 0) {
        return 0;
    }
    ring_room(c, c->len + n);
    for (size_t i = 0, part; i < n; i += part) {
        size_t at = (c->head + c->len) % c->cap;
        part = (size_t)min_u64(n - i, c->cap - at);
        memcpy(c->ring + at, data + i, part);
        c->len += part;
    }
    return n;
}

/* The newest CHR_RING_SIZE bytes for whoever comes next. */
static void ring_keep(struct chr *c, const uint8_t *data, size_t n)
{
    if (n > CHR_RING_SIZE) {
        data += n - CHR_RING_SIZE;
        n = CHR_RING_SIZE;
    }
    if (c->len + n > CHR_RING_SIZE) {
        ring_drop(c, c->len + n - CHR_RING_SIZE);
    }
    ring_put(c, data, n, CHR_RING_SIZE);
}

static ssize_t put_some(struct chr *c, const uint8_t *data, size_t n)
{
    ssize_t r;
    do {
        r = c->out_socket ? send(c->out.fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT) : write(c->out.fd, data, n);
    } while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

/* Nobody reads any more. What is queued stays for the next client of a socket. The loop tells the user, not we. */
static void out_failed(struct chr *c, int en)
{
    c->broken = true;
    if (c->listen.fd < 0) {
        LOG_LIMITED(LOG_WARN, "chr", "output lost: %s", strerror(en));
        ring_drop(c, c->len);
        loop_fd_mod(&c->out, 0);
    } else {
        shutdown(c->in.fd, SHUT_RDWR);
        loop_fd_mod(&c->out, 0);
        loop_fd_mod(&c->in, EPOLLIN);
    }
}

/* Writes queued bytes until the descriptor is full; keeps EPOLLOUT watched exactly while something is left. */
static void push(struct chr *c)
{
    while (c->len && !c->broken) {
        ssize_t r = put_some(c, c->ring + c->head, (size_t)min_u64(c->len, c->cap - c->head));
        if (r == -EAGAIN) {
            break;
        }
        if (r < 0) {
            out_failed(c, (int)-r);
            return;
        }
        ring_drop(c, (size_t)r);
    }
    if (c->len == 0 && c->cap > CHR_RING_SIZE) {
        free(c->ring);
        c->ring = NULL;
        c->cap = 0;
    }
    loop_fd_mod(&c->out, c->len && !c->broken ? EPOLLOUT : 0);
}

size_t chr_write(struct chr *c, const uint8_t *data, size_t len)
{
    if (c->out.fd < 0 || c->broken) {
        if (c->listen.fd >= 0) {
            ring_keep(c, data, len);
        }
        return len;
    }
    size_t done = 0;
    while (c->len == 0 && done < len) {
        ssize_t r = put_some(c, data + done, len - done);
        if (r == -EAGAIN) {
            break;
        }
        if (r < 0) {
            out_failed(c, (int)-r);
            chr_write(c, data + done, len - done);
            return len;
        }
        done += (size_t)r;
    }
    if (done < len) {
        done += ring_put(c, data + done, len - done, CHR_QUEUE_MAX);
        loop_fd_mod(&c->out, EPOLLOUT);
    }
    c->stalled = done < len;
    return done;
}

static void tell_writable(struct chr *c)
{
    if (c->stalled && c->len <= CHR_QUEUE_MAX / 2) {
        c->stalled = false;
        if (c->user && c->user->writable) {
            c->user->writable(c->user);
        }
    }
}

static void on_out(struct loop_fd *w, uint32_t events)
{
    struct chr *c = container_of(w, struct chr, out);
    push(c);
    tell_writable(c);
}

/* -- input -- */

static void close_half(struct loop_fd *w, bool restore)
{
    loop_fd_del(w);
    if (w->fd >= 0 && restore) {
        fd_set_nonblock(w->fd, false);
    }
    auto_fd_fn(&w->fd);
    w->fd = -1;
}

/* The other end is gone. A socket goes back to waiting, the rest stays silent; output of a plain pair goes on. */
static void in_ended(struct chr *c)
{
    close_half(&c->in, c->restore_in);
    c->open = false;
    if (c->listen.fd >= 0) {
        close_half(&c->out, false);
        c->broken = false;
        if (c->len > CHR_RING_SIZE) {
            ring_drop(c, c->len - CHR_RING_SIZE);
        }
        loop_fd_mod(&c->listen, EPOLLIN);
    }
    if (c->user && c->user->event) {
        c->user->event(c->user, false);
    }
    tell_writable(c);
}

/* One helping. False: nothing more to do now. */
static bool take_input(struct chr *c)
{
    uint8_t data[READ_SIZE];
    size_t room = c->user ? c->user->can_receive(c->user) : 0;
    if (c->broken && c->listen.fd >= 0) {
        in_ended(c);
        return false;
    }
    if (room == 0) {
        c->paused = true;
        loop_fd_mod(&c->in, 0);
        return false;
    }
    ssize_t r = read(c->in.fd, data, (size_t)min_u64(room, sizeof(data)));
    if (r < 0 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    if (r <= 0) {
        in_ended(c);
        return false;
    }
    c->user->receive(c->user, data, (size_t)r);
    return true;
}

static void on_in(struct loop_fd *w, uint32_t events)
{
    take_input(container_of(w, struct chr, in));
}

static void on_pump(struct timer *t)
{
    struct chr *c = container_of(t, struct chr, pump);
    if (c->in.fd >= 0 && take_input(c)) {
        timer_arm(t, 0);
    }
}

void chr_accept(struct chr *c)
{
    if (c->paused && c->in.fd >= 0) {
        c->paused = false;
        if (c->in_plain) {
            timer_arm(&c->pump, 0);
        } else {
            loop_fd_mod(&c->in, EPOLLIN);
        }
    }
}

static void watch_input(struct chr *c)
{
    struct err err = ERR_INIT;
    c->in.lock = c->out.lock = c->pump.lock = c->lock;
    c->paused = false;
    if (c->in.fd >= 0 && !loop_fd_add(c->loop, &c->in, EPOLLIN, &err)) {
        c->in_plain = true;
        timer_arm(&c->pump, 0);
    }
    if (c->out.fd >= 0 && !loop_fd_add(c->loop, &c->out, 0, &err)) {
        log_error("chr", "%s", err.msg);
    }
}

static void on_client(struct loop_fd *w, uint32_t events)
{
    struct chr *c = container_of(w, struct chr, listen);
    int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        return;
    }
    int out = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (out < 0) {
        close(fd);
        return;
    }
    loop_fd_mod(w, 0);          /* one at a time: the next waits in the backlog */
    c->in.fd = fd;
    c->out.fd = out;
    c->out_socket = c->open = true;
    watch_input(c);
    push(c);
    if (c->user && c->user->event) {
        c->user->event(c->user, true);
    }
}

/* -- opening and closing -- */

static struct chr *chr_new(struct loop *loop)
{
    struct chr *c = new0(struct chr);
    c->loop = loop;
    c->listen = (struct loop_fd){ .fd = -1, .fn = on_client };
    c->in = (struct loop_fd){ .fd = -1, .fn = on_in };
    c->out = (struct loop_fd){ .fd = -1, .fn = on_out };
    if (loop) {
        timer_init(&c->pump, loop, NULL, on_pump);
    }
    return c;
}

/*
 * A descriptor of our own for `fd` that does not block. A terminal or pipe is opened anew, since O_NONBLOCK belongs to the open
 * file and our parent shares it; where that is refused it is set there and taken back at the end (*restore).
 */
static int own_fd(int fd, int mode, bool *socket, bool *restore)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return -1;
    }
    *socket = S_ISSOCK(st.st_mode);
    if (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)) {
        AUTO_FREE char *path = str_fmt("/proc/self/fd/%d", fd);
        int own = open(path, mode | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        if (own >= 0) {
            return own;
        }
    }
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own >= 0 && !S_ISREG(st.st_mode)) {
        int flags = fcntl(own, F_GETFL);
        *restore = flags >= 0 && !(flags & O_NONBLOCK);
        fd_set_nonblock(own, true);
    }
    return own;
}

struct chr *chr_fd_open(struct loop *loop, int in_fd, int out_fd, bool take, struct err *err)
{
    struct chr *c = chr_new(loop);
    int en = 0;
    if (in_fd >= 0) {
        bool is_socket;
        c->in.fd = own_fd(in_fd, O_RDONLY, &is_socket, &c->restore_in);
        en = c->in.fd < 0 ? errno : 0;
    }
    if (out_fd >= 0 && !en) {
        c->out.fd = own_fd(out_fd, O_WRONLY, &c->out_socket, &c->restore_out);
        en = c->out.fd < 0 ? errno : 0;
    }
    if (take) {
        if (in_fd >= 0) {
            close(in_fd);
        }
        if (out_fd >= 0 && out_fd != in_fd) {
            close(out_fd);
        }
    }
    if (en) {
        err_set_errno(err, en, "cannot use descriptor %d as a console", c->in.fd < 0 ? in_fd : out_fd);
        chr_close(c);
        return NULL;
    }
    c->open = true;
    return c;
}

struct chr *chr_listen_open(struct loop *loop, int take_listen_fd, struct err *err)
{
    int listening = 0;
    socklen_t len = sizeof(listening);
    if (getsockopt(take_listen_fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 || !listening ||
        !fd_set_nonblock(take_listen_fd, true)) {
        err_set(err, ERR_INVALID, "descriptor %d is not a listening socket", take_listen_fd);
        close(take_listen_fd);
        return NULL;
    }
    struct chr *c = chr_new(loop);
    c->listen.fd = take_listen_fd;
    return c;
}

struct chr *chr_file_open(struct loop *loop, int take_fd, struct err *err)
{
    return chr_fd_open(loop, -1, take_fd, true, err);
}

struct chr *chr_null_open(void)
{
    struct chr *c = chr_new(NULL);
    c->open = true;
    return c;
}

void chr_close(struct chr *c)
{
    if (!c) {
        return;
    }
    if (c->loop) {
        timer_disarm(&c->pump);
    }
    close_half(&c->listen, false);
    close_half(&c->in, c->restore_in);
    close_half(&c->out, c->restore_out);
    free(c->ring);
    free(c);
}

void chr_attach(struct chr *c, struct chr_user *u, pthread_mutex_t *lock)
{
    if (c->loop) {
        timer_disarm(&c->pump);
    }
    loop_fd_del(&c->listen);
    loop_fd_del(&c->in);
    loop_fd_del(&c->out);
    c->user = u;
    c->lock = lock;
    if (!u || !c->loop) {
        return;
    }
    struct err err = ERR_INIT;
    watch_input(c);
    c->listen.lock = lock;
    if (c->listen.fd >= 0 && !loop_fd_add(c->loop, &c->listen, c->in.fd < 0 ? EPOLLIN : 0, &err)) {
        log_error("chr", "%s", err.msg);
    }
    if (c->out.fd >= 0) {
        push(c);
    }
}

bool chr_is_open(const struct chr *c)
{
    return c->open;
}

void chr_flush(struct chr *c, int timeout_ms)
{
    uint64_t end = host_clock_ns() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * NS_PER_MS;
    if (c->lock) {
        pthread_mutex_lock(c->lock);
    }
    for (;;) {
        uint64_t now = host_clock_ns();
        if (c->out.fd >= 0) {
            push(c);
        }
        if (c->len == 0 || c->out.fd < 0 || c->broken || now >= end) {
            break;
        }
        struct pollfd p = { .fd = c->out.fd, .events = POLLOUT };
        poll(&p, 1, (int)((end - now) / NS_PER_MS) + 1);
    }
    if (c->lock) {
        pthread_mutex_unlock(c->lock);
    }
}
