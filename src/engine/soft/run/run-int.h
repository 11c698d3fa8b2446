/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Private to run/: what a vCPU has beside struct soft_cpu. */
#ifndef LODGE_SOFT_RUN_INT_H
#define LODGE_SOFT_RUN_INT_H

#include <time.h>

#include "engine/soft/run/run.h"

enum { HASH_BITS = 15, N_HASH = 1 << HASH_BITS };

struct soft_run {
    /* block.c */
    struct soft_block **hash;           /* by (gpa, mode) */
    uint8_t *arena;                     /* blocks, one after another; all dropped when full */
    size_t arena_size, arena_used;
    struct soft_block *single;          /* the one that is never cached: one instruction */
    uint64_t arena_drops;
    /* loop.c */
    bool deliver;                       /* c->exc_* waits for delivery */
    bool run_single;                    /* the next instruction runs alone (cpu_restart_single) */
    bool stepping, step_irqs;           /* soft_step */
    uint64_t steps_left;
    /* sleep.c */
    _Atomic uint32_t sleeping;          /* in futex_wait on c->pending, or about to */
    pid_t tid;                          /* the thread the timer signals; 0: none yet */
    timer_t timer;
    uint64_t armed_ns;                  /* host clock; in the past when not armed */
};

bool block_cache_init(struct soft_cpu *c, size_t size, struct err *err);
void block_cache_fini(struct soft_cpu *c);
/* The block at CS:RIP, built if need be and entered in the jump cache. NULL: run it by block_single. Raises fetch faults. */
struct soft_block *block_find(struct soft_cpu *c);
/* One instruction at CS:RIP, not cached; valid until the next call. Raises fetch faults. */
struct soft_block *block_single(struct soft_cpu *c);

static inline uint64_t code_lin(const struct soft_cpu *c)
{
    uint64_t lin = c->segbase[SEG_CS] + c->rip;
    return likely(cpu_code64(c)) ? lin : (uint32_t)lin;
}

static inline bool block_fresh(const struct soft_block *b)
{
    return atomic_load_explicit(&b->page->gen, memory_order_relaxed) == b->gen &&
           atomic_load_explicit(&b->page2->gen, memory_order_relaxed) == b->gen2;
}

/* The whole block lies within CS's limit (always, where segments are flat). */
static inline bool block_in_limit(const struct soft_cpu *c, const struct soft_block *b)
{
    return likely(c->mode & MODE_FLAT) || c->rip + b->len - 1 <= c->st.seg[SEG_CS].limit;
}

/* Sleeps until something is pending. Not in the world. */
void sleep_wait(struct soft_cpu *c);
/* Sets the timer for the LAPIC's next deadline, or PEND_TIMER when it has passed. */
void timer_rearm(struct soft_cpu *c);
void timer_fini(struct soft_cpu *c);

#endif
