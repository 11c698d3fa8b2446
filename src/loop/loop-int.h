/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_LOOP_LOOP_INT_H
#define LODGE_LOOP_LOOP_INT_H

#include "loop/loop.h"

/* The armed timers of one loop in one clock: a binary heap, soonest first. Guarded by loop->lock. */
struct timer_heap {
    struct loop *loop;
    struct vm_clock *clock;     /* NULL: host clock. Cleared, with `dead` set, when the clock goes first */
    bool dead;
    struct timer **t;
    size_t n, cap;
    struct list node;           /* in loop->heaps */
    struct list clock_node;     /* in clock->timers_loops, guarded by clock->lock */
};

struct fd_slot {
    struct loop_fd *w;          /* NULL: free */
    uint32_t gen;               /* counts uses, so that an event of an earlier use is recognized */
};

/*
 * Lock order: a device's lock (loop_fd.lock, timer.lock) -> vm_clock.lock -> loop.lock. The loop holds none when it
 * takes a device's lock; what it was about to do is looked up again afterwards.
 */
struct loop {
    int epfd, wakefd, timerfd;
    _Atomic bool quit;
    _Atomic unsigned long owner;        /* pthread_self of the thread that runs us */

    pthread_mutex_t lock;               /* guards all below */
    pthread_cond_t sync_done;
    struct list heaps;                  /* of struct timer_heap; the host clock's first */
    struct timer_heap host;
    struct timer *candidate;            /* due, its lock being taken; cleared when it is disarmed meanwhile */
    uint64_t programmed_ns;             /* host time timerfd is set to; UINT64_MAX: not set */
    struct fd_slot *slots;
    uint32_t n_slots;
    struct list calls;                  /* of struct loop_call, oldest first */
    bool woken;                         /* wakefd was written and not yet read */
};

/* timer.c. _locked: loop->lock held. */
void loop_timers_init(struct loop *loop);
void loop_timers_fini(struct loop *loop);
int loop_timers_run(struct loop *loop);
void loop_timers_program_locked(struct loop *loop);
/* clock.c: VM time, whether it runs, and if so host time - VM time (signed). One consistent look. */
uint64_t vm_clock_read(const struct vm_clock *c, bool *running, int64_t *offset);

#endif
