/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Timers: one heap a clock, one timerfd a loop, set to the soonest of all heaps whose clock runs. It is only ever moved
 * forward in time by the loop itself, after it fired: a timer that is pushed back again and again (a guest reprogramming
 * its PIT) costs one idle wakeup, not a system call each time.
 */
#include "loop/loop.h"

#include <assert.h>
#include <sys/timerfd.h>

#include "loop/loop-int.h"

static void put(struct timer_heap *h, size_t slot, struct timer *t)
{
    h->t[slot] = t;
    t->slot = slot;
}

static void sift_up(struct timer_heap *h, size_t slot, struct timer *t)
{
    while (slot > 0 && t->expire_ns < h->t[(slot - 1) / 2]->expire_ns) {
        put(h, slot, h->t[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    put(h, slot, t);
}

static void sift_down(struct timer_heap *h, size_t slot, struct timer *t)
{
    for (;;) {
        size_t child = 2 * slot + 1;
        if (child + 1 < h->n && h->t[child + 1]->expire_ns < h->t[child]->expire_ns) {
            child++;
        }
        if (child >= h->n || t->expire_ns <= h->t[child]->expire_ns) {
            break;
        }
        put(h, slot, h->t[child]);
        slot = child;
    }
    put(h, slot, t);
}

static void heap_insert(struct timer_heap *h, struct timer *t)
{
    if (h->n == h->cap) {
        h->cap = h->cap ? 2 * h->cap : 16;
        struct timer **more = realloc(h->t, h->cap * sizeof(*more));
        if (!more) {
            abort();
        }
        h->t = more;
    }
    h->n++;
    sift_up(h, h->n - 1, t);
    t->armed = true;
}

static void heap_remove(struct timer_heap *h, struct timer *t)
{
    struct timer *last = h->t[--h->n];
    size_t slot = t->slot;
    t->armed = false;
    if (last == t) {
        return;
    }
    if (slot > 0 && last->expire_ns < h->t[(slot - 1) / 2]->expire_ns) {
        sift_up(h, slot, last);
    } else {
        sift_down(h, slot, last);
    }
}

/*
 * Host time at which the heap's first timer is due. UINT64_MAX for never: none is armed, or the clock stands still, when
 * nothing is due however late.
 */
static uint64_t heap_deadline(const struct timer_heap *h)
{
    bool running = true;
    int64_t offset = 0;
    if (h->n == 0 || h->dead) {
        return UINT64_MAX;
    }
    if (h->clock) {
        vm_clock_read(h->clock, &running, &offset);
    }
    __int128 at = (__int128)h->t[0]->expire_ns + offset;
    return !running || at > (__int128)UINT64_MAX ? UINT64_MAX : at < 0 ? 0 : (uint64_t)at;
}

void loop_timers_program_locked(struct loop *loop)
{
    uint64_t soonest = UINT64_MAX;
    list_for_each(h, &loop->heaps, struct timer_heap, node) {
        soonest = min_u64(soonest, heap_deadline(h));
    }
    if (soonest >= loop->programmed_ns) {
        return;
    }
    /* 0 would switch it off; what lies beyond time_t is never. */
    uint64_t ns = max_u64(1, min_u64(soonest, INT64_MAX));
    struct itimerspec its = { .it_value = { .tv_sec = (time_t)(ns / NS_PER_SEC), .tv_nsec = (long)(ns % NS_PER_SEC) } };
    if (timerfd_settime(loop->timerfd, TFD_TIMER_ABSTIME, &its, NULL) == 0) {
        loop->programmed_ns = soonest;
    }
}

static struct timer_heap *heap_of_locked(struct loop *loop, struct vm_clock *clock)
{
    list_for_each(h, &loop->heaps, struct timer_heap, node) {
        if (h->clock == clock && !h->dead) {
            return h;
        }
    }
    struct timer_heap *h = new0(struct timer_heap);
    h->loop = loop;
    h->clock = clock;
    list_add_tail(&loop->heaps, &h->node);
    list_add_tail(&clock->timers_loops, &h->clock_node);
    return h;
}

void timer_init(struct timer *t, struct loop *loop, struct vm_clock *clock, void (*fn)(struct timer *))
{
    *t = (struct timer){ .fn = fn, .loop = loop, .clock = clock };
    if (clock) {
        pthread_mutex_lock(&clock->lock);
    }
    pthread_mutex_lock(&loop->lock);
    t->heap = heap_of_locked(loop, clock);
    pthread_mutex_unlock(&loop->lock);
    if (clock) {
        pthread_mutex_unlock(&clock->lock);
    }
}

void timer_arm(struct timer *t, uint64_t when_ns)
{
    struct loop *loop = t->loop;
    pthread_mutex_lock(&loop->lock);
    if (t->armed) {
        heap_remove(t->heap, t);
    }
    t->expire_ns = when_ns;
    heap_insert(t->heap, t);
    if (t->slot == 0) {
        loop_timers_program_locked(loop);
    }
    pthread_mutex_unlock(&loop->lock);
}

void timer_disarm(struct timer *t)
{
    struct loop *loop = t->loop;
    if (!loop) {
        return;                 /* never initialized: destroy after a failed create */
    }
    pthread_mutex_lock(&loop->lock);
    if (loop->candidate == t) {
        loop->candidate = NULL;
    }
    if (t->armed) {
        heap_remove(t->heap, t);
    }
    pthread_mutex_unlock(&loop->lock);
}

static struct timer *first_due_locked(struct loop *loop)
{
    uint64_t now = host_clock_ns();
    list_for_each(h, &loop->heaps, struct timer_heap, node) {
        if (heap_deadline(h) <= now) {
            return h->t[0];
        }
    }
    return NULL;
}

/* Moved ones may no longer be first, though they are due: then their turn comes again. */
static bool is_due_locked(const struct timer *t)
{
    return t->armed && t->slot == 0 && heap_deadline(t->heap) <= host_clock_ns();
}

/*
 * Runs one due timer. Its lock cannot be taken under ours, and while we wait for it the owner, who holds it, may disarm
 * the timer, free it, or move it: so it is named as candidate, which timer_disarm clears, and looked at again.
 */
static bool run_one(struct loop *loop, bool *ran)
{
    pthread_mutex_lock(&loop->lock);
    struct timer *t = first_due_locked(loop);
    if (!t) {
        pthread_mutex_unlock(&loop->lock);
        return false;
    }
    pthread_mutex_t *lock = t->lock;
    if (lock) {
        loop->candidate = t;
        pthread_mutex_unlock(&loop->lock);
        pthread_mutex_lock(lock);
        pthread_mutex_lock(&loop->lock);
    }
    *ran = !lock || (loop->candidate == t && is_due_locked(t));
    loop->candidate = NULL;
    if (*ran) {
        heap_remove(t->heap, t);
    }
    pthread_mutex_unlock(&loop->lock);
    if (*ran) {
        t->fn(t);               /* may free t */
    }
    if (lock) {
        pthread_mutex_unlock(lock);
    }
    return true;
}

/* Runs what is due; a timer that arms itself again in the past gets its turn in the next round. Returns how many ran. */
int loop_timers_run(struct loop *loop)
{
    size_t budget = 0;
    int count = 0;
    pthread_mutex_lock(&loop->lock);
    list_for_each(h, &loop->heaps, struct timer_heap, node) {
        budget += h->n;
    }
    pthread_mutex_unlock(&loop->lock);
    for (bool ran; budget > 0 && run_one(loop, &ran); budget--) {
        count += ran;
    }
    pthread_mutex_lock(&loop->lock);
    if (loop->programmed_ns <= host_clock_ns()) {
        loop->programmed_ns = UINT64_MAX;       /* it has fired or is about to; set it anew */
    }
    loop_timers_program_locked(loop);
    pthread_mutex_unlock(&loop->lock);
    return count;
}

void loop_timers_init(struct loop *loop)
{
    list_init(&loop->heaps);
    loop->host.loop = loop;
    list_init(&loop->host.clock_node);
    list_add_tail(&loop->heaps, &loop->host.node);
    loop->programmed_ns = UINT64_MAX;
}

void loop_timers_fini(struct loop *loop)
{
    list_for_each(h, &loop->heaps, struct timer_heap, node) {
        assert(h->n == 0 || h->dead);
        if (h->clock) {
            pthread_mutex_lock(&h->clock->lock);
            list_del(&h->clock_node);
            pthread_mutex_unlock(&h->clock->lock);
        }
        list_del(&h->node);
        free(h->t);
        if (h != &loop->host) {
            free(h);
        }
    }
}
