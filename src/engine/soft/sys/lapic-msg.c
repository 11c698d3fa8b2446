/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupt messages: from ICR, MSIs, the IOAPIC and the KVM hypercall to the LAPICs they name. Any thread.
 * Source: SDM vol. 3A 10.6 (IPIs, destinations), 10.12.9-10 (x2APIC), 10.11 (MSI format).
 */
#include "engine/soft/sys/sys-int.h"

enum { ESR_SEND_ILLEGAL = 1 << 5, ESR_RECV_ILLEGAL = 1 << 6 };
enum { SH_NONE, SH_SELF, SH_ALL, SH_OTHERS };

static bool match_logical(const struct x86_lapic *a, bool x2, uint32_t dest, bool wide)
{
    if (x2) {
        uint32_t ldr = (a->id >> 4) << 16 | 1u << (a->id & 15);
        return dest >> 16 == ldr >> 16 && (dest & ldr & 0xffff);
    }
    if (wide && dest >> 8) {
        return false;
    }
    uint32_t ldr = a->ldr >> 24;
    if (a->dfr >> 28 == 0xf) {
        return (ldr & dest & 0xff) != 0;
    }
    return a->dfr >> 28 == 0 && (ldr >> 4) == (dest >> 4 & 15) && (ldr & dest & 15);
}

static bool match_locked(const struct soft_cpu *c, const struct lapic_msg *m, const struct soft_cpu *self, unsigned shorthand)
{
    const struct x86_lapic *a = &c->st.lapic;
    switch (shorthand) {
    case SH_SELF: return c == self;
    case SH_ALL: return true;
    case SH_OTHERS: return c != self;
    default: break;
    }
    if (!(a->base_msr & APIC_BASE_EN)) {
        return false;
    }
    if (m->dest == (m->wide ? 0xffffffff : 0xff)) {
        return true;
    }
    return m->logical ? match_logical(a, lapic_x2(c), m->dest, m->wide) : a->id == m->dest;
}

bool lapic_accept_locked(struct soft_cpu *c, uint8_t vector, bool level)
{
    struct x86_lapic *a = &c->st.lapic;
    if (!(a->base_msr & APIC_BASE_EN) || !(a->svr & APIC_SVR_ENABLE)) {
        return false;
    }
    if (vector < 16) {
        a->esr_pending |= ESR_RECV_ILLEGAL;
        return false;
    }
    uint32_t bit = 1u << vector % 32;
    a->tmr[vector / 32] = level ? a->tmr[vector / 32] | bit : a->tmr[vector / 32] & ~bit;
    WRITE_ONCE(a->irr[vector / 32], a->irr[vector / 32] | bit);
    cpu_pend(c, PEND_IRQ);
    return true;
}

static bool take_locked(struct soft_cpu *c, const struct lapic_msg *m)
{
    struct x86_events *ev = &c->st.ev;
    switch (m->mode) {
    case APIC_DM_FIXED: case APIC_DM_LOWEST:
        return lapic_accept_locked(c, m->vector, m->level);
    case APIC_DM_NMI:
        ev->nmi_pending = 1;
        break;
    case APIC_DM_INIT:
        if (m->level && !m->assert_) {
            return true;                /* de-assert: only ancient arbitration listens */
        }
        ev->init_pending = 1;
        ev->sipi_pending = 0;
        break;
    case APIC_DM_SIPI:
        if (ev->mp_state != MP_WAIT_SIPI && !ev->init_pending) {
            return true;                /* ignored by a CPU that runs */
        }
        ev->sipi_pending = 1;
        ev->sipi_vector = m->vector;
        break;
    default:
        return true;                    /* SMI: no SMM here. ExtINT comes over its own wire. */
    }
    cpu_pend(c, PEND_INIT_SIPI_NMI);
    return true;
}

static bool take(struct soft_cpu *c, const struct lapic_msg *m)
{
    pthread_mutex_lock(&c->apic_lock);
    bool ok = take_locked(c, m);
    pthread_mutex_unlock(&c->apic_lock);
    if (ok) {
        cpu_wake(c);
    }
    return ok;
}

/* Lowest priority: the matching CPU with the lowest PPR. */
static struct soft_cpu *arbitrate(struct soft_vm *vm, const struct lapic_msg *m, const struct soft_cpu *self, unsigned shorthand)
{
    struct soft_cpu *best = NULL;
    uint32_t best_ppr = 0;
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        struct soft_cpu *c = vm->cpus[i];
        pthread_mutex_lock(&c->apic_lock);
        bool ok = (c->st.lapic.svr & APIC_SVR_ENABLE) && match_locked(c, m, self, shorthand);
        uint32_t ppr = ok ? lapic_ppr_locked(c) : 0;
        pthread_mutex_unlock(&c->apic_lock);
        if (ok && (!best || ppr < best_ppr)) {
            best = c;
            best_ppr = ppr;
        }
    }
    return best;
}

bool lapic_send(struct soft_vm *vm, const struct lapic_msg *m, const struct soft_cpu *self, unsigned shorthand)
{
    if (m->mode == APIC_DM_LOWEST) {
        struct soft_cpu *c = arbitrate(vm, m, self, shorthand);
        return c && take(c, m);
    }
    bool any = false;
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        struct soft_cpu *c = vm->cpus[i];
        pthread_mutex_lock(&c->apic_lock);
        bool ok = match_locked(c, m, self, shorthand);
        pthread_mutex_unlock(&c->apic_lock);
        if (ok) {
            any |= take(c, m);
        }
    }
    return any;
}

void lapic_icr_write(struct soft_cpu *c, uint64_t icr)
{
    bool x2 = lapic_x2(c);
    c->st.lapic.icr = icr & ~0x1000ull;         /* never busy */
    struct lapic_msg m = {
        .vector = (uint8_t)icr, .mode = icr >> 8 & 7, .logical = icr >> 11 & 1, .assert_ = icr >> 14 & 1,
        .wide = x2, .dest = x2 ? (uint32_t)(icr >> 32) : (uint32_t)(icr >> 56),
    };
    if (m.mode == APIC_DM_INIT) {
        m.level = icr >> 15 & 1;                /* IPIs are edge-triggered, but for INIT's de-assert */
    }
    if (m.mode <= APIC_DM_LOWEST && m.vector < 16) {
        lapic_error(c, ESR_SEND_ILLEGAL);
        return;
    }
    lapic_send(c->vm, &m, c, icr >> 18 & 3);
}

bool lapic_msi(struct soft_vm *vm, uint64_t addr, uint32_t data)
{
    struct lapic_msg m = {
        .vector = (uint8_t)data, .mode = data >> 8 & 7, .logical = addr >> 2 & 1, .level = data >> 15 & 1, .assert_ = data >> 14 & 1,
        .dest = (uint32_t)(addr >> 12) & 0xff,
    };
    return lapic_send(vm, &m, NULL, SH_NONE);
}

void lapic_set_extint(struct soft_cpu *bsp, bool level)
{
    pthread_mutex_lock(&bsp->apic_lock);
    WRITE_ONCE(bsp->st.lapic.extint, level);
    pthread_mutex_unlock(&bsp->apic_lock);
    if (level) {
        cpu_pend(bsp, PEND_IRQ);
        cpu_wake(bsp);
    }
}

void lapic_nmi(struct soft_cpu *c)
{
    static const struct lapic_msg nmi = { .mode = APIC_DM_NMI, .assert_ = true };
    take(c, &nmi);
}
