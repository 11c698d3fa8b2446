/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The run loop: find a block, run it, look up between blocks when something is pending.
 *
 * Faults unwind to guarded(), which lives as long as the loop below it. Between blocks c->u is NULL: a fault found then
 * (fetch, delivery) belongs to c->rip as it stands. The state is always that of an instruction boundary there.
 */
#include "engine/soft/run/run-int.h"
#include "engine/soft/sys/sys.h"

uint64_t cpu_insn_rip(const struct soft_cpu *c)
{
    static const uint64_t mask[4] = { 0xffff, 0xffffffff, UINT64_MAX, UINT64_MAX };
    if (!c->u) {
        return c->rip;
    }
    return (c->r[R_BLOCK_RIP] + (uint64_t)(int64_t)c->blk->offs[c->u - c->blk->uops]) & mask[c->mode & MODE_SIZE_MASK];
}

uint64_t cpu_next_rip(const struct soft_cpu *c)
{
    static const uint64_t mask[4] = { 0xffff, 0xffffffff, UINT64_MAX, UINT64_MAX };
    if (!c->u) {
        return c->rip;
    }
    return (c->r[R_BLOCK_RIP] + (uint64_t)(int64_t)c->blk->offs[c->u - c->blk->uops] + c->u->i.len) & mask[c->mode & MODE_SIZE_MASK];
}

enum run_end { RUN_GO, RUN_KICKED, RUN_SHUTDOWN, RUN_STEPPED /* soft_step is done, or the CPU halted in it */ };

static inline __attribute__((always_inline)) void run_block(struct soft_cpu *c, const struct soft_block *b)
{
    c->blk = (struct soft_block *)b;
    c->r[R_BLOCK_RIP] = c->rip + b->rip_bias;
    const struct uop *u = b->uops;
    do {
        c->u = u;
        u = u->fn(c, u);
    } while (u);
    unsigned done = (unsigned)(c->u - b->uops) + 1;
    c->insns += done < b->n ? done : b->n;
    c->stats.blocks_run++;
    c->u = NULL;
}

static void single_over(struct soft_cpu *c)
{
    c->single = false;
    if (unlikely(c->n_smc)) {
        mmu_smc_flush(c);
    }
}

static void run_single(struct soft_cpu *c)
{
    struct soft_block *b = block_single(c);
    c->single = true;
    run_block(c, b);
    single_over(c);
}

/* After a raise. Must not raise. */
static void on_unwind(struct soft_cpu *c)
{
    struct soft_run *r = c->run;
    mmu_exclusive_abort(c);
    if (c->u) {
        c->insns += (uint64_t)(c->u - c->blk->uops);
    }
    switch (cpu_unwind_reason) {
    case UNWIND_EXCEPTION:
        c->rip = c->exc_soft ? cpu_next_rip(c) : cpu_insn_rip(c);
        r->deliver = true;
        break;
    case UNWIND_SINGLE:
        c->rip = cpu_insn_rip(c);
        r->run_single = true;
        break;
    case UNWIND_LEAVE:
        break;
    }
    c->u = NULL;
    c->watch_hits = 0;
    single_over(c);
}

static bool runnable(const struct soft_cpu *c)
{
    return !c->st.ev.halted && c->st.ev.mp_state == MP_RUNNABLE;
}

/* One instruction with everything that looks at instruction boundaries: TF, RF, shadows, instruction breakpoints. */
static void step_one(struct soft_cpu *c)
{
    uint64_t old = c->st.rflags;
    c->st.ev.int_shadow = 0;
    if (sys_step_begin(c)) {
        run_single(c);
        sys_step_done(c, old);
    }
}

static enum run_end halted(struct soft_cpu *c)
{
    if (c->run->stepping) {
        return RUN_STEPPED;
    }
    c->stats.hlt++;
    timer_rearm(c);
    mmu_world_leave(c);
    sleep_wait(c);
    mmu_world_enter(c);
    return RUN_GO;
}

/*
 * One at a time, then guest code and the other pending work: a guest can arrange deliveries that follow each other for ever
 * (a trap gate, and a line that stays up), and a kick must still reach it.
 */
static void take_one_interrupt(struct soft_cpu *c)
{
    if (sys_take_interrupt(c)) {
        c->stats.irqs++;
        cpu_pend(c, PEND_IRQ | PEND_INIT_SIPI_NMI);
    }
}

/* Something is pending. RUN_GO: look again, or run on. */
static __attribute__((noinline)) enum run_end attend(struct soft_cpu *c)
{
    uint32_t p = atomic_load(&c->pending);
    if (p & (PEND_STOP_WORLD | PEND_REQUEST)) {
        atomic_fetch_and(&c->pending, ~(uint32_t)(PEND_STOP_WORLD | PEND_REQUEST));
        mmu_world_leave(c);
        mmu_world_enter(c);
    }
    if (p & PEND_KICK) {
        atomic_fetch_and(&c->pending, ~(uint32_t)PEND_KICK);
        return RUN_KICKED;
    }
    if (p & PEND_TIMER) {
        atomic_fetch_and(&c->pending, ~(uint32_t)PEND_TIMER);
        lapic_timer_poll(c);
        timer_rearm(c);
    }
    if (atomic_load(&c->pending) & (PEND_IRQ | PEND_INIT_SIPI_NMI)) {
        take_one_interrupt(c);
    }
    if (c->shutdown) {
        return RUN_SHUTDOWN;
    }
    if (!runnable(c)) {
        return halted(c);
    }
    if (p & PEND_SHADOW) {
        if (sys_needs_single(c)) {
            step_one(c);
        } else {
            atomic_fetch_and(&c->pending, ~(uint32_t)PEND_SHADOW);
        }
    }
    return RUN_GO;
}

static __attribute__((noinline)) void run_slow(struct soft_cpu *c)
{
    struct soft_block *b = block_find(c);
    if (b && block_in_limit(c, b)) {
        run_block(c, b);
    } else {
        run_single(c);
        sys_trap(c, false);
    }
}

/* What an unwind left to do. */
static enum run_end after_unwind(struct soft_cpu *c)
{
    struct soft_run *r = c->run;
    if (r->deliver) {
        r->deliver = false;
        c->stats.exceptions++;
        if (!sys_deliver_exception(c)) {
            return RUN_SHUTDOWN;
        }
    }
    if (r->run_single) {
        r->run_single = false;
        run_single(c);
        sys_trap(c, false);
    }
    return c->shutdown ? RUN_SHUTDOWN : RUN_GO;
}

static __attribute__((noinline)) enum run_end run_loop(struct soft_cpu *c)
{
    for (;;) {
        if (unlikely(atomic_load_explicit(&c->pending, memory_order_relaxed)) || unlikely(c->st.ev.halted)) {
            do {
                enum run_end e = attend(c);
                if (e != RUN_GO) {
                    return e;
                }
            } while (!runnable(c) || (atomic_load_explicit(&c->pending, memory_order_relaxed) & PEND_SHADOW));
        }
        uint64_t lin = code_lin(c);
        const struct jc_entry *e = &c->jc[jc_index(lin)];
        const struct soft_block *b = e->blk;
        if (likely(e->lin == lin && b && b->mode == c->mode && block_fresh(b) && block_in_limit(c, b))) {
            run_block(c, b);
        } else {
            run_slow(c);
        }
    }
}

static enum run_end step_loop(struct soft_cpu *c)
{
    struct soft_run *r = c->run;
    while (r->steps_left) {
        r->steps_left--;
        if (r->step_irqs && atomic_load(&c->pending)) {
            atomic_fetch_and(&c->pending, ~(uint32_t)PEND_TIMER);
            lapic_timer_poll(c);
            take_one_interrupt(c);
        }
        if (!runnable(c)) {
            return RUN_STEPPED;
        }
        step_one(c);
        if (c->shutdown) {
            return RUN_SHUTDOWN;
        }
    }
    return RUN_STEPPED;
}

static __attribute__((noinline)) enum run_end guarded(struct soft_cpu *c)
{
    if (__builtin_setjmp(c->jb)) {
        on_unwind(c);
    }
    enum run_end e = after_unwind(c);
    if (e != RUN_GO) {
        return e;
    }
    e = c->run->stepping ? step_loop(c) : run_loop(c);
    __asm__ volatile("" : : : "memory");        /* no tail call: a raise unwinds to this frame (clang would make one) */
    return e;
}

static enum run_end enter(struct soft_cpu *c)
{
    soft_thread_init(c, NULL);
    c->u = NULL;
    if (c->st.ev.exc_pending) {         /* raised before the state was saved */
        c->st.ev.exc_pending = 0;
        c->exc_vector = c->st.ev.exc_vector;
        c->exc_has_error = c->st.ev.exc_has_error;
        c->exc_error = c->st.ev.exc_error;
        c->exc_soft = false;
        c->run->deliver = true;
    }
    mmu_world_enter(c);
    enum run_end e = guarded(c);
    mmu_world_leave(c);
    return e;
}

enum soft_exit soft_run(struct soft_cpu *c)
{
    cpu_pend(c, PEND_TIMER | PEND_IRQ | PEND_INIT_SIPI_NMI | PEND_SHADOW);
    return enter(c) == RUN_SHUTDOWN ? SOFT_EXIT_SHUTDOWN : SOFT_EXIT_KICKED;
}

uint64_t soft_step(struct soft_cpu *c, uint64_t n, bool take_irqs)
{
    struct soft_run *r = c->run;
    uint64_t before = c->insns;
    r->stepping = true;
    r->step_irqs = take_irqs;
    r->steps_left = n;
    enter(c);
    r->stepping = false;
    return c->insns - before;
}
