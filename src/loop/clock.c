/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VM clock. (offset_ns, running) change together under a sequence count: odd while a writer is inside. Readers take
 * no lock; the release fence after the odd store pairs with the acquire fence before the reader's second look.
 */
#include "loop/loop.h"

#include <stdatomic.h>

#include "loop/loop-int.h"

uint64_t vm_clock_read(const struct vm_clock *c, bool *running, int64_t *offset_ns)
{
    for (;;) {
        uint32_t seq = atomic_load_explicit(&c->seq, memory_order_acquire);
        uint64_t offset = atomic_load_explicit(&c->offset_ns, memory_order_relaxed);
        bool run = atomic_load_explicit(&c->running, memory_order_relaxed);
        uint64_t now = run ? host_clock_ns() - offset : offset;
        atomic_thread_fence(memory_order_acquire);
        if (!(seq & 1) && atomic_load_explicit(&c->seq, memory_order_relaxed) == seq) {
            *running = run;
            *offset_ns = (int64_t)offset;
            return now;
        }
    }
}

uint64_t vm_clock_ns(const struct vm_clock *c)
{
    bool running;
    int64_t offset;
    return vm_clock_read(c, &running, &offset);
}

static void change_locked(struct vm_clock *c, bool running, uint64_t offset)
{
    uint32_t seq = atomic_load_explicit(&c->seq, memory_order_relaxed);
    atomic_store_explicit(&c->seq, seq + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&c->offset_ns, offset, memory_order_relaxed);
    atomic_store_explicit(&c->running, running, memory_order_relaxed);
    atomic_store_explicit(&c->seq, seq + 2, memory_order_release);
    list_for_each(h, &c->timers_loops, struct timer_heap, clock_node) {
        pthread_mutex_lock(&h->loop->lock);
        loop_timers_program_locked(h->loop);
        pthread_mutex_unlock(&h->loop->lock);
    }
}

void vm_clock_init(struct vm_clock *c)
{
    atomic_init(&c->offset_ns, 0);
    atomic_init(&c->running, false);
    atomic_init(&c->seq, 0);
    pthread_mutex_init(&c->lock, NULL);
    list_init(&c->timers_loops);
}

void vm_clock_fini(struct vm_clock *c)
{
    pthread_mutex_lock(&c->lock);
    list_for_each(h, &c->timers_loops, struct timer_heap, clock_node) {
        pthread_mutex_lock(&h->loop->lock);
        list_del(&h->clock_node);
        h->clock = NULL;
        h->dead = true;         /* freed with its loop; timers still in it never fire */
        pthread_mutex_unlock(&h->loop->lock);
    }
    pthread_mutex_unlock(&c->lock);
    pthread_mutex_destroy(&c->lock);
}

void vm_clock_start(struct vm_clock *c)
{
    pthread_mutex_lock(&c->lock);
    bool running;
    int64_t offset;
    uint64_t now = vm_clock_read(c, &running, &offset);
    if (!running) {
        change_locked(c, true, host_clock_ns() - now);
    }
    pthread_mutex_unlock(&c->lock);
}

void vm_clock_stop(struct vm_clock *c)
{
    pthread_mutex_lock(&c->lock);
    bool running;
    int64_t offset;
    uint64_t now = vm_clock_read(c, &running, &offset);
    if (running) {
        change_locked(c, false, now);
    }
    pthread_mutex_unlock(&c->lock);
}

void vm_clock_set(struct vm_clock *c, uint64_t ns)
{
    pthread_mutex_lock(&c->lock);
    bool running = atomic_load(&c->running);
    change_locked(c, running, running ? host_clock_ns() - ns : ns);
    pthread_mutex_unlock(&c->lock);
}
