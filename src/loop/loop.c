/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "loop/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "loop/loop-int.h"

/* epoll's 64 bits: generation and slot of a watch, or one of these. */
#define TAG_WAKE UINT64_MAX
#define TAG_TIMER (UINT64_MAX - 1)
enum { EVENTS_A_ROUND = 64, MAX_SLOTS = 1 << 20 };

static uint64_t tag_of(const struct loop *loop, uint32_t slot)
{
    return (uint64_t)loop->slots[slot].gen << 32 | slot;
}

static bool add_internal(struct loop *loop, int fd, uint64_t tag)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.u64 = tag };
    return fd >= 0 && epoll_ctl(loop->epfd, EPOLL_CTL_ADD, fd, &ev) == 0;
}

struct loop *loop_create(struct err *err)
{
    struct loop *loop = new0(struct loop);
    pthread_mutex_init(&loop->lock, NULL);
    pthread_cond_init(&loop->sync_done, NULL);
    list_init(&loop->calls);
    loop_timers_init(loop);
    loop->owner = (unsigned long)pthread_self();
    loop->epfd = epoll_create1(EPOLL_CLOEXEC);
    loop->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (loop->epfd < 0 || !add_internal(loop, loop->wakefd, TAG_WAKE) || !add_internal(loop, loop->timerfd, TAG_TIMER)) {
        err_set_errno(err, errno, "cannot set up an event loop");
        loop_destroy(loop);
        return NULL;
    }
    return loop;
}

void loop_destroy(struct loop *loop)
{
    if (!loop) {
        return;
    }
    for (uint32_t i = 0; i < loop->n_slots; i++) {
        assert(!loop->slots[i].w);
    }
    assert(list_empty(&loop->calls));
    loop_timers_fini(loop);
    auto_fd_fn(&loop->epfd);
    auto_fd_fn(&loop->wakefd);
    auto_fd_fn(&loop->timerfd);
    free(loop->slots);
    pthread_cond_destroy(&loop->sync_done);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

static void wake(struct loop *loop)
{
    uint64_t one = 1;
    /* Fails only when the count is full: then it is awake anyway. */
    (void)!write(loop->wakefd, &one, sizeof(one));
}

void loop_quit(struct loop *loop)
{
    int saved = errno;
    atomic_store(&loop->quit, true);
    wake(loop);
    errno = saved;
}

bool loop_is_current(const struct loop *loop)
{
    return atomic_load_explicit(&loop->owner, memory_order_relaxed) == (unsigned long)pthread_self();
}

/* A free slot, its generation moved on. */
static bool slot_get_locked(struct loop *loop, uint32_t *slot, struct err *err)
{
    uint32_t i = 0;
    while (i < loop->n_slots && loop->slots[i].w) {
        i++;
    }
    if (i == loop->n_slots) {
        uint32_t n = loop->n_slots ? 2 * loop->n_slots : 16;
        struct fd_slot *more = n <= MAX_SLOTS ? realloc(loop->slots, n * sizeof(*more)) : NULL;
        if (!more) {
            return err_set(err, ERR_LIMIT, "too many descriptors are watched");
        }
        memset(more + loop->n_slots, 0, (n - loop->n_slots) * sizeof(*more));
        loop->slots = more;
        loop->n_slots = n;
    }
    /* Top bit clear: no generation makes one of the internal tags. */
    loop->slots[i].gen = (loop->slots[i].gen + 1) & INT32_MAX;
    *slot = i;
    return true;
}

static int epoll_set(struct loop *loop, int op, const struct loop_fd *w, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.u64 = tag_of(loop, w->slot) };
    return epoll_ctl(loop->epfd, op, w->fd, &ev);
}

bool loop_fd_add(struct loop *loop, struct loop_fd *w, uint32_t events, struct err *err)
{
    if (w->loop) {
        return err_set(err, ERR_STATE, "descriptor %d is already watched", w->fd);
    }
    pthread_mutex_lock(&loop->lock);
    uint32_t slot = 0;
    bool ok = slot_get_locked(loop, &slot, err);
    if (ok) {
        w->slot = slot;
        w->events = events;
        if (events && epoll_set(loop, EPOLL_CTL_ADD, w, events) < 0) {
            ok = err_set_errno(err, errno, "cannot watch descriptor %d", w->fd);
        } else {
            loop->slots[slot].w = w;
            w->loop = loop;
        }
    }
    pthread_mutex_unlock(&loop->lock);
    return ok;
}

void loop_fd_mod(struct loop_fd *w, uint32_t events)
{
    struct loop *loop = w->loop;
    if (!loop) {
        return;
    }
    pthread_mutex_lock(&loop->lock);
    if (events != w->events) {
        /* epoll reports EPOLLHUP even to those who ask for nothing, so a paused watch leaves epoll altogether. */
        epoll_set(loop, !events ? EPOLL_CTL_DEL : w->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, w, events);
        w->events = events;
    }
    pthread_mutex_unlock(&loop->lock);
}

void loop_fd_del(struct loop_fd *w)
{
    struct loop *loop = w->loop;
    if (!loop) {
        return;
    }
    pthread_mutex_lock(&loop->lock);
    if (w->events) {
        epoll_set(loop, EPOLL_CTL_DEL, w, 0);
    }
    loop->slots[w->slot].w = NULL;
    w->loop = NULL;
    pthread_mutex_unlock(&loop->lock);
}

/* The watch an event belongs to, if it is still that watch and still wants some of `events`. */
static struct loop_fd *watch_locked(struct loop *loop, uint64_t tag, uint32_t *events)
{
    uint32_t slot = (uint32_t)tag;
    struct loop_fd *w = slot < loop->n_slots && loop->slots[slot].gen == tag >> 32 ? loop->slots[slot].w : NULL;
    if (!w || !w->events) {
        return NULL;
    }
    *events &= w->events | EPOLLHUP | EPOLLERR;
    return *events ? w : NULL;
}

static int dispatch_fd(struct loop *loop, uint64_t tag, uint32_t events)
{
    pthread_mutex_lock(&loop->lock);
    struct loop_fd *w = watch_locked(loop, tag, &events);
    pthread_mutex_t *lock = w ? w->lock : NULL;
    if (lock) {
        /* The owner may remove and free the watch while we wait for its lock: look again afterwards. */
        pthread_mutex_unlock(&loop->lock);
        pthread_mutex_lock(lock);
        pthread_mutex_lock(&loop->lock);
        w = watch_locked(loop, tag, &events);
    }
    pthread_mutex_unlock(&loop->lock);
    if (w) {
        w->fn(w, events);
    }
    if (lock) {
        pthread_mutex_unlock(lock);
    }
    return w ? 1 : 0;
}

static int run_calls(struct loop *loop)
{
    struct list todo;
    int n = 0;
    list_init(&todo);
    pthread_mutex_lock(&loop->lock);
    /* What is posted meanwhile waits for the next round, or a call that posts itself would starve the rest. */
    if (!list_empty(&loop->calls)) {
        list_insert_before(loop->calls.next, &todo);
        list_del(&loop->calls);
    }
    while (!list_empty(&todo)) {
        struct loop_call *c = list_entry(todo.next, struct loop_call, node);
        list_del(&c->node);
        c->posted = false;
        pthread_mutex_unlock(&loop->lock);
        c->fn(c);
        n++;
        pthread_mutex_lock(&loop->lock);
    }
    pthread_mutex_unlock(&loop->lock);
    return n;
}

static void drain_wake(struct loop *loop)
{
    uint64_t count;
    pthread_mutex_lock(&loop->lock);
    loop->woken = false;
    (void)!read(loop->wakefd, &count, sizeof(count));
    pthread_mutex_unlock(&loop->lock);
}

static void drain_timer(struct loop *loop)
{
    uint64_t count;
    (void)!read(loop->timerfd, &count, sizeof(count));
}

int loop_once(struct loop *loop, int timeout_ms)
{
    struct epoll_event ev[EVENTS_A_ROUND];
    atomic_store_explicit(&loop->owner, (unsigned long)pthread_self(), memory_order_relaxed);
    int n = epoll_wait(loop->epfd, ev, EVENTS_A_ROUND, timeout_ms), count = 0;
    for (int i = 0; i < n; i++) {
        if (ev[i].data.u64 == TAG_WAKE) {
            drain_wake(loop);
        } else if (ev[i].data.u64 == TAG_TIMER) {
            drain_timer(loop);
        } else {
            count += dispatch_fd(loop, ev[i].data.u64, ev[i].events);
        }
    }
    count += loop_timers_run(loop);
    return count + run_calls(loop);
}

void loop_run(struct loop *loop)
{
    while (!atomic_load(&loop->quit)) {
        loop_once(loop, -1);
    }
    run_calls(loop);            /* nobody who posted before the end is left waiting */
    atomic_store(&loop->quit, false);
}

void loop_post(struct loop *loop, struct loop_call *c)
{
    pthread_mutex_lock(&loop->lock);
    if (!c->posted) {
        c->posted = true;
        list_add_tail(&loop->calls, &c->node);
        if (!loop->woken) {
            loop->woken = true;
            wake(loop);
        }
    }
    pthread_mutex_unlock(&loop->lock);
}

struct sync_call {
    struct loop_call call;
    struct loop_call *inner;
    struct loop *loop;
    bool done;
};

static void run_sync_call(struct loop_call *c)
{
    struct sync_call *s = container_of(c, struct sync_call, call);
    struct loop *loop = s->loop;
    s->inner->fn(s->inner);
    pthread_mutex_lock(&loop->lock);
    s->done = true;
    pthread_cond_broadcast(&loop->sync_done);
    pthread_mutex_unlock(&loop->lock);
}

void loop_run_sync(struct loop *loop, struct loop_call *c)
{
    if (loop_is_current(loop)) {
        c->fn(c);
        return;
    }
    struct sync_call s = { .call.fn = run_sync_call, .inner = c, .loop = loop };
    loop_post(loop, &s.call);
    pthread_mutex_lock(&loop->lock);
    while (!s.done) {
        pthread_cond_wait(&loop->sync_done, &loop->lock);
    }
    pthread_mutex_unlock(&loop->lock);
}
