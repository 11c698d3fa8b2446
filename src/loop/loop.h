/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Event loop: descriptors, timers, calls from other threads. One thread runs a loop; callbacks run on it.
 * Watches, timers and calls are embedded in their owner and recovered with container_of.
 * `lock`, when set, is held around the callback (a device's lock domain); the owner holds it when it removes the watch
 * or disarms the timer, so that a callback never runs after that. The lock itself must outlive the round in progress:
 * free it on the loop's thread, or after a loop_run_sync. Without a lock, remove and disarm on the loop's thread.
 */
#ifndef LODGE_LOOP_LOOP_H
#define LODGE_LOOP_LOOP_H

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/list.h"

struct loop;

struct loop *loop_create(struct err *err);
/* Everything must be removed first. NULL is fine. */
void loop_destroy(struct loop *loop);
/* Runs callbacks until loop_quit. Loop thread. */
void loop_run(struct loop *loop);
/* One round: waits at most timeout_ms (-1: for ever), runs what is ready. Returns callbacks run. */
int loop_once(struct loop *loop, int timeout_ms);
/* Any thread, async-signal-safe; sticky until loop_run returns. */
void loop_quit(struct loop *loop);

struct loop_fd {
    int fd;                     /* borrowed */
    uint32_t events;            /* EPOLLIN, EPOLLOUT; level triggered */
    void (*fn)(struct loop_fd *w, uint32_t events);
    pthread_mutex_t *lock;      /* may be NULL */
    struct loop *loop;          /* NULL when not added */
    uint32_t slot;              /* loop's */
};
/* Any thread. fd, fn, lock set by the caller. */
bool loop_fd_add(struct loop *loop, struct loop_fd *w, uint32_t events, struct err *err);
void loop_fd_mod(struct loop_fd *w, uint32_t events);   /* 0 pauses: not even EPOLLHUP is reported */
void loop_fd_del(struct loop_fd *w);                    /* harmless when not added */

/*
 * The guest's time: runs while the VM runs, stands still while it is paused. Any thread; readers are lock-free.
 */
struct vm_clock {
    _Atomic uint64_t offset_ns;         /* running: host clock - VM clock; paused: the frozen VM clock */
    _Atomic bool running;
    _Atomic uint32_t seq;
    pthread_mutex_t lock;
    struct list timers_loops;           /* loops to wake when it starts again */
};
void vm_clock_init(struct vm_clock *c);                 /* paused, at 0 */
void vm_clock_fini(struct vm_clock *c);
void vm_clock_start(struct vm_clock *c);
void vm_clock_stop(struct vm_clock *c);
void vm_clock_set(struct vm_clock *c, uint64_t ns);     /* while paused: after load */
uint64_t vm_clock_ns(const struct vm_clock *c);

struct timer {
    void (*fn)(struct timer *t);        /* runs once an arming, at or after the time */
    struct loop *loop;
    struct vm_clock *clock;             /* NULL: host_clock_ns */
    pthread_mutex_t *lock;              /* may be NULL */
    uint64_t expire_ns;                 /* absolute, in `clock` */
    bool armed;                         /* the loop's lock guards this and the rest */
    size_t slot;
    struct timer_heap *heap;
};
void timer_init(struct timer *t, struct loop *loop, struct vm_clock *clock, void (*fn)(struct timer *));
/* Any thread. Arming an armed timer moves it. A time in the past fires at once; while its VM clock is paused none does. */
void timer_arm(struct timer *t, uint64_t when_ns);
void timer_disarm(struct timer *t);

/* Runs fn on the loop's thread. Any thread. The struct must live until fn ran. Posting a posted call is one call. */
struct loop_call {
    void (*fn)(struct loop_call *c);
    struct list node;
    bool posted;
};
void loop_post(struct loop *loop, struct loop_call *c);
/*
 * As loop_post and waits for it; runs at once when already on the loop's thread. Until a loop first runs, its creator
 * counts as its thread.
 */
void loop_run_sync(struct loop *loop, struct loop_call *c);
bool loop_is_current(const struct loop *loop);

/* A child's exit by pidfd. fn gets the wait status; the child is reaped before fn runs. */
struct loop_child {
    pid_t pid;
    void (*fn)(struct loop_child *c, int status);
    struct loop_fd watch;
};
bool loop_child_add(struct loop *loop, struct loop_child *c, struct err *err);
void loop_child_del(struct loop_child *c);

#endif
