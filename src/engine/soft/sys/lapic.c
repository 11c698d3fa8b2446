/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The local APIC's registers and timer. Source: SDM vol. 3A ch. 10 (10.4 registers, 10.5.4 timer, 10.8 interrupt handling,
 * 10.12 x2APIC). Messages between LAPICs: lapic-msg.c.
 *
 * c->apic_lock guards IRR, TMR, the registers that address a LAPIC, and the pending INIT/SIPI/NMI bits against other threads;
 * everything else belongs to the vCPU thread. No lock is held while the IOAPIC is told of an EOI (it may send again).
 *
 * Timer: the input clock is 1 GHz, so a tick is divide ns of the VM clock. Nothing counts: the current count is computed from
 * timer_start_ns. PEND_TIMER makes run/ look at lapic_next_deadline again after every change.
 */
#include "engine/soft/sys/sys-int.h"
#include "x86/msr.h"

static struct x86_lapic *apic(struct soft_cpu *c)
{
    return &c->st.lapic;
}

static void lock(struct soft_cpu *c)
{
    pthread_mutex_lock(&c->apic_lock);
}

static void unlock(struct soft_cpu *c)
{
    pthread_mutex_unlock(&c->apic_lock);
}

static bool sw_enabled(const struct soft_cpu *c)
{
    return (c->st.lapic.base_msr & APIC_BASE_EN) && (c->st.lapic.svr & APIC_SVR_ENABLE);
}

int lapic_top(const uint32_t bits[8])
{
    for (int i = 7; i >= 0; i--) {
        uint32_t w = READ_ONCE(bits[i]);
        if (w) {
            return i * 32 + 31 - __builtin_clz(w);
        }
    }
    return -1;
}

uint32_t lapic_ppr_locked(const struct soft_cpu *c)
{
    int isr = lapic_top(c->st.lapic.isr);
    uint32_t tpr = c->st.lapic.tpr & 0xff, isrv = isr < 0 ? 0 : (uint32_t)isr & 0xf0;
    return tpr >> 4 >= isrv >> 4 ? tpr : isrv;
}

int lapic_candidate_locked(const struct soft_cpu *c)
{
    int irr = sw_enabled(c) ? lapic_top(c->st.lapic.irr) : -1;
    return irr >= 0 && (uint32_t)irr >> 4 > lapic_ppr_locked(c) >> 4 ? irr : -1;
}

void lapic_ack_locked(struct soft_cpu *c, uint8_t vector)
{
    apic(c)->irr[vector / 32] &= ~(1u << vector % 32);
    apic(c)->isr[vector / 32] |= 1u << vector % 32;
}

bool lapic_extint_ready(const struct soft_cpu *c)
{
    const struct x86_lapic *a = &c->st.lapic;
    if (!READ_ONCE(a->extint)) {
        return false;
    }
    if ((a->base_msr & APIC_BASE_BSP) && !(a->svr & APIC_SVR_ENABLE)) {
        return true;                    /* not yet touched: the virtual wire that firmware sets up before a kernel runs */
    }
    return !(a->base_msr & APIC_BASE_EN) || (!(a->lvt_lint0 & APIC_LVT_MASKED) && (a->lvt_lint0 >> 8 & 7) == APIC_DM_EXTINT);
}

/* Something in IRR may have become deliverable. */
static void recheck(struct soft_cpu *c)
{
    if (lapic_top(apic(c)->irr) >= 0) {
        cpu_pend(c, PEND_IRQ);
    }
}

void lapic_set_tpr(struct soft_cpu *c, uint32_t tpr)
{
    pv_eoi_sync(c);
    lock(c);
    bool lower = (tpr & 0xff) < apic(c)->tpr;
    apic(c)->tpr = tpr & 0xff;
    c->st.cr8 = apic(c)->tpr >> 4;
    unlock(c);
    if (lower) {
        recheck(c);
    }
}

void lapic_eoi(struct soft_cpu *c)
{
    lock(c);
    int v = lapic_top(apic(c)->isr);
    bool level = false;
    if (v >= 0) {
        uint32_t bit = 1u << v % 32;
        apic(c)->isr[v / 32] &= ~bit;
        level = apic(c)->tmr[v / 32] & bit;
    }
    unlock(c);
    if (level && c->vm->irq && c->vm->irq->eoi) {
        c->vm->irq->eoi(c->vm->irq->ioapic, (uint8_t)v);
    }
    recheck(c);
}

void lapic_error(struct soft_cpu *c, uint32_t bit)
{
    lock(c);
    apic(c)->esr_pending |= bit;
    unlock(c);
    lapic_local(c, apic(c)->lvt_error & ~0x700u);
}

void lapic_local(struct soft_cpu *c, uint32_t lvt)
{
    if ((lvt & APIC_LVT_MASKED) || !(apic(c)->base_msr & APIC_BASE_EN)) {
        return;
    }
    switch (lvt >> 8 & 7) {
    case APIC_DM_FIXED:
        lock(c);
        lapic_accept_locked(c, (uint8_t)lvt, false);
        unlock(c);
        break;
    case APIC_DM_NMI:
        lapic_nmi(c);
        break;
    default:
        break;
    }
}

/* --- timer --- */

static unsigned timer_mode(const struct soft_cpu *c)
{
    return c->st.lapic.lvt_timer >> 17 & 3;
}

static uint64_t timer_divide(const struct soft_cpu *c)
{
    unsigned v = (c->st.lapic.timer_divide & 3) | (c->st.lapic.timer_divide >> 1 & 4);
    return v == 7 ? 1 : 2u << v;
}

static uint64_t timer_period_ns(const struct soft_cpu *c)
{
    return c->st.lapic.timer_initial * timer_divide(c);
}

static bool count_runs(const struct soft_cpu *c)
{
    return timer_mode(c) <= 1 && c->st.lapic.timer_initial && c->st.lapic.timer_start_ns != APIC_TIMER_STOPPED;
}

static uint32_t timer_current(struct soft_cpu *c)
{
    if (!count_runs(c)) {
        return 0;
    }
    uint64_t gone = vm_clock_ns(c->vm->clock) - apic(c)->timer_start_ns, period = timer_period_ns(c);
    if (timer_mode(c) == 1) {
        gone %= period;
    }
    return gone >= period ? 0 : (uint32_t)(apic(c)->timer_initial - gone / timer_divide(c));
}

uint64_t lapic_next_deadline(struct soft_cpu *c)
{
    const struct x86_lapic *a = apic(c);
    if ((a->lvt_timer & APIC_LVT_MASKED) || !(a->base_msr & APIC_BASE_EN)) {
        return UINT64_MAX;
    }
    if (timer_mode(c) == 2) {
        if (!a->tsc_deadline) {
            return UINT64_MAX;
        }
        uint64_t now = vm_clock_ns(c->vm->clock), tsc = sys_read_tsc(c);
        if (tsc >= a->tsc_deadline) {
            return now;
        }
        unsigned __int128 ns = (unsigned __int128)(a->tsc_deadline - tsc) * 1000000 / (c->vm->tsc_khz ? c->vm->tsc_khz : 1000000);
        return ns >= UINT64_MAX - now - 1 ? UINT64_MAX : now + (uint64_t)ns + 1;
    }
    return count_runs(c) ? a->timer_start_ns + timer_period_ns(c) : UINT64_MAX;
}

void lapic_timer_poll(struct soft_cpu *c)
{
    struct x86_lapic *a = apic(c);
    if (timer_mode(c) == 2) {
        if (!a->tsc_deadline || sys_read_tsc(c) < a->tsc_deadline) {
            return;
        }
        a->tsc_deadline = 0;
    } else {
        uint64_t now = vm_clock_ns(c->vm->clock), period = timer_period_ns(c);
        if (!count_runs(c) || now - a->timer_start_ns < period) {
            return;
        }
        if (timer_mode(c) == 1) {
            a->timer_start_ns += (now - a->timer_start_ns) / period * period;   /* missed ticks are one tick */
        } else {
            a->timer_start_ns = APIC_TIMER_STOPPED;
        }
    }
    lapic_local(c, a->lvt_timer & ~0x700u);
}

uint64_t lapic_tsc_deadline(struct soft_cpu *c)
{
    lapic_timer_poll(c);
    return timer_mode(c) == 2 ? apic(c)->tsc_deadline : 0;
}

void lapic_set_tsc_deadline(struct soft_cpu *c, uint64_t val)
{
    if (timer_mode(c) == 2) {
        apic(c)->tsc_deadline = val;
        cpu_pend(c, PEND_TIMER);
    }
}

static void lvt_timer_write(struct soft_cpu *c, uint32_t val)
{
    lapic_timer_poll(c);
    bool was = timer_mode(c) == 2, is = (val >> 17 & 3) == 2;
    apic(c)->lvt_timer = val;
    if (was != is) {                    /* disarms either form */
        apic(c)->tsc_deadline = 0;
        apic(c)->timer_initial = 0;
    }
    cpu_pend(c, PEND_TIMER);
}

static void initial_count_write(struct soft_cpu *c, uint32_t val)
{
    if (timer_mode(c) == 2) {
        return;
    }
    lapic_timer_poll(c);
    apic(c)->timer_initial = val;
    apic(c)->timer_start_ns = vm_clock_ns(c->vm->clock);
    cpu_pend(c, PEND_TIMER);
}

/* A new divisor leaves the current count as it is. */
static void divide_write(struct soft_cpu *c, uint32_t val)
{
    lapic_timer_poll(c);
    uint32_t left = timer_current(c);
    bool running = count_runs(c);
    apic(c)->timer_divide = val & 0xb;
    if (running) {
        apic(c)->timer_start_ns = vm_clock_ns(c->vm->clock) - (apic(c)->timer_initial - left) * timer_divide(c);
        cpu_pend(c, PEND_TIMER);
    }
}

/* --- registers --- */

static uint32_t ldr_x2(const struct soft_cpu *c)
{
    return (c->st.lapic.id >> 4) << 16 | 1u << (c->st.lapic.id & 15);
}

uint32_t lapic_read(struct soft_cpu *c, unsigned off)
{
    const struct x86_lapic *a = apic(c);
    off &= 0xff0;
    if (off >= APIC_ISR && off < APIC_ESR) {
        pv_eoi_sync(c);
        unsigned i = off >> 4 & 7;
        return off < APIC_TMR ? a->isr[i] : off < APIC_IRR ? a->tmr[i] : READ_ONCE(a->irr[i]);
    }
    switch (off) {
    case APIC_ID: return lapic_x2(c) ? a->id : a->id << 24;
    case APIC_VER: return a->version;
    case APIC_TPR: return a->tpr;
    case APIC_PPR: pv_eoi_sync(c); return lapic_ppr_locked(c);
    case APIC_LDR: return lapic_x2(c) ? ldr_x2(c) : a->ldr;
    case APIC_DFR: return a->dfr;
    case APIC_SVR: return a->svr;
    case APIC_ESR: return a->esr;
    case APIC_ICR: return (uint32_t)a->icr;
    case APIC_ICR_HI: return (uint32_t)(a->icr >> 32);
    case APIC_LVT_TIMER: return a->lvt_timer;
    case APIC_LVT_THERMAL: return a->lvt_thermal;
    case APIC_LVT_PERF: return a->lvt_perf;
    case APIC_LVT_LINT0: return a->lvt_lint0;
    case APIC_LVT_LINT1: return a->lvt_lint1;
    case APIC_LVT_ERROR: return a->lvt_error;
    case APIC_TMICT: return timer_mode(c) == 2 ? 0 : a->timer_initial;
    case APIC_TMCCT: return timer_current(c);
    case APIC_TDCR: return a->timer_divide;
    default: return 0;          /* reserved; write-only: EOI, self-IPI */
    }
}

static void svr_write(struct soft_cpu *c, uint32_t val)
{
    lock(c);
    struct x86_lapic *a = apic(c);
    a->svr = val & 0x1ff;
    if (!(val & APIC_SVR_ENABLE)) {
        uint32_t *lvt[] = { &a->lvt_timer, &a->lvt_thermal, &a->lvt_perf, &a->lvt_lint0, &a->lvt_lint1, &a->lvt_error };
        for (unsigned i = 0; i < ARRAY_SIZE(lvt); i++) {
            *lvt[i] |= APIC_LVT_MASKED;
        }
    }
    unlock(c);
    cpu_pend(c, PEND_TIMER | PEND_IRQ);
}

static void lvt_write(struct soft_cpu *c, unsigned off, uint32_t val)
{
    struct x86_lapic *a = apic(c);
    if (!(a->svr & APIC_SVR_ENABLE)) {
        val |= APIC_LVT_MASKED;
    }
    switch (off) {
    case APIC_LVT_TIMER: lvt_timer_write(c, val & 0x700ff); break;
    case APIC_LVT_THERMAL: a->lvt_thermal = val & 0x107ff; break;
    case APIC_LVT_PERF: a->lvt_perf = val & 0x107ff; break;
    case APIC_LVT_LINT0: a->lvt_lint0 = val & 0x1a7ff; cpu_pend(c, PEND_IRQ); break;
    case APIC_LVT_LINT1: a->lvt_lint1 = val & 0x1a7ff; break;
    default: a->lvt_error = val & 0x100ff; break;
    }
}

void lapic_write(struct soft_cpu *c, unsigned off, uint32_t val)
{
    struct x86_lapic *a = apic(c);
    switch (off &= 0xff0) {
    case APIC_TPR: lapic_set_tpr(c, val); break;
    case APIC_EOI:
        pv_eoi_sync(c);
        lapic_eoi(c);
        break;
    case APIC_LDR:
        lock(c);
        a->ldr = val & 0xff000000;
        unlock(c);
        break;
    case APIC_DFR:
        lock(c);
        a->dfr = val | 0x0fffffff;
        unlock(c);
        break;
    case APIC_SVR: svr_write(c, val); break;
    case APIC_ESR:
        lock(c);
        a->esr = a->esr_pending;
        a->esr_pending = 0;
        unlock(c);
        break;
    case APIC_ICR: lapic_icr_write(c, (a->icr & 0xffffffff00000000) | val); break;
    case APIC_ICR_HI: a->icr = (uint32_t)a->icr | (uint64_t)(val & 0xff000000) << 32; break;
    case APIC_LVT_TIMER: case APIC_LVT_THERMAL: case APIC_LVT_PERF: case APIC_LVT_LINT0: case APIC_LVT_LINT1: case APIC_LVT_ERROR:
        lvt_write(c, off, val);
        break;
    case APIC_TMICT: initial_count_write(c, val); break;
    case APIC_TDCR: divide_write(c, val); break;
    case APIC_SELF_IPI:
        if (lapic_x2(c)) {
            lapic_local(c, val & 0xff);
        }
        break;
    default:            /* read-only or reserved */
        break;
    }
}

/* --- enabling, resetting --- */

void lapic_reset(struct soft_cpu *c, bool keep_id)
{
    lock(c);
    struct x86_lapic *a = apic(c);
    uint64_t base = keep_id ? a->base_msr : 0xfee00000 | APIC_BASE_EN | (c->index == 0 ? APIC_BASE_BSP : 0);
    uint8_t extint = a->extint;
    *a = (struct x86_lapic){
        .base_msr = base, .id = a->id, .version = 0x50014, .dfr = 0xffffffff, .svr = 0xff, .extint = extint,
        .lvt_timer = APIC_LVT_MASKED, .lvt_thermal = APIC_LVT_MASKED, .lvt_perf = APIC_LVT_MASKED, .lvt_lint0 = APIC_LVT_MASKED,
        .lvt_lint1 = APIC_LVT_MASKED, .lvt_error = APIC_LVT_MASKED, .lvt_cmci = APIC_LVT_MASKED,
    };
    if (c->index == 0) {
        a->lvt_lint0 = APIC_DM_EXTINT << 8;     /* the wire of the 8259, as firmware leaves it */
    }
    c->st.cr8 = 0;
    unlock(c);
    cpu_pend(c, PEND_TIMER);
}

/* IA32_APIC_BASE; the legal transitions of SDM vol. 3A figure 10-27. False: #GP. */
bool lapic_base_write(struct soft_cpu *c, uint64_t val)
{
    uint64_t old = apic(c)->base_msr, on = APIC_BASE_EN | APIC_BASE_X2;
    bool x2 = c->has & HAS_X2APIC;
    if ((val >> c->model->phys_bits) || (val & 0x2ff) || ((val & APIC_BASE_X2) && !x2)) {
        return false;
    }
    uint64_t from = old & on, to = val & on;
    if (to == APIC_BASE_X2 || (from == on && to == APIC_BASE_EN) || (from == 0 && to == on)) {
        return false;
    }
    if (from && !to) {
        lapic_reset(c, true);
    }
    lock(c);
    apic(c)->base_msr = (val & ~APIC_BASE_BSP) | (old & APIC_BASE_BSP);
    if (from == APIC_BASE_EN && to == on) {
        apic(c)->icr &= 0xffffffff;
        apic(c)->ldr = ldr_x2(c);
    } else if (from == on && !to) {
        apic(c)->ldr = 0;
    }
    unlock(c);
    if ((old ^ val) & (0xffffffffff000 | on)) {
        mmu_flush_all(c);               /* the MMIO page came, went or moved */
    }
    cpu_pend(c, PEND_IRQ | PEND_TIMER);
    return true;
}

/* --- x2APIC: registers as MSRs. SDM vol. 3A table 10-6 --- */

static bool x2_readable(unsigned off)
{
    switch (off) {
    case APIC_ID: case APIC_VER: case APIC_TPR: case APIC_PPR: case APIC_LDR: case APIC_SVR: case APIC_ESR: case APIC_ICR:
    case APIC_LVT_TIMER: case APIC_LVT_THERMAL: case APIC_LVT_PERF: case APIC_LVT_LINT0: case APIC_LVT_LINT1: case APIC_LVT_ERROR:
    case APIC_TMICT: case APIC_TMCCT: case APIC_TDCR:
        return true;
    default:
        return off >= APIC_ISR && off < APIC_ESR;
    }
}

bool lapic_msr_read(struct soft_cpu *c, uint32_t msr, uint64_t *val)
{
    unsigned off = (msr - MSR_X2APIC) << 4;
    if (!lapic_x2(c) || !x2_readable(off)) {
        return false;
    }
    *val = off == APIC_ICR ? apic(c)->icr : lapic_read(c, off);
    return true;
}

bool lapic_msr_write(struct soft_cpu *c, uint32_t msr, uint64_t val)
{
    unsigned off = (msr - MSR_X2APIC) << 4;
    if (!lapic_x2(c)) {
        return false;
    }
    switch (off) {
    case APIC_ICR:
        if (val & 0xfff33000) {
            return false;
        }
        lapic_icr_write(c, val);
        return true;
    case APIC_EOI: case APIC_ESR:
        if (val) {
            return false;
        }
        break;
    case APIC_TPR: case APIC_SELF_IPI:
        if (val >> 8) {
            return false;
        }
        break;
    case APIC_SVR: case APIC_LVT_TIMER: case APIC_LVT_THERMAL: case APIC_LVT_PERF: case APIC_LVT_LINT0: case APIC_LVT_LINT1:
    case APIC_LVT_ERROR: case APIC_TMICT: case APIC_TDCR:
        break;
    default:
        return false;
    }
    if (val >> 32) {
        return false;
    }
    lapic_write(c, off, (uint32_t)val);
    return true;
}
