/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a vCPU takes between two instructions: INIT and SIPI, NMI, the 8259's ExtINT, the LAPIC's highest vector.
 * Source: SDM vol. 3A 6.9 (priority), 8.4 (INIT-SIPI), 10.8.3.
 *
 * The PEND_ bits are cleared before the state is looked at, so whoever posts after that sets them again. A source that is only
 * held off by IF leaves c->irq_waiting; setting IF then pends again (cpu_set_rflags).
 */
#include <string.h>

#include "engine/soft/sys/sys-int.h"

static void unhalt(struct soft_cpu *c)
{
    c->st.ev.halted = 0;
    c->st.ev.mp_state = MP_RUNNABLE;
}

/* As after reset, but for what INIT keeps; an application processor then waits for SIPI. */
static void take_init(struct soft_cpu *c)
{
    bool bsp = c->st.lapic.base_msr & APIC_BASE_BSP;
    pv_eoi_sync(c);
    pthread_mutex_lock(&c->apic_lock);
    struct x86_state *st = &c->st;
    memcpy(st->gpr, c->r, sizeof(st->gpr));
    st->rip = c->rip;
    st->rflags = cpu_rflags(c);
    bool sipi = st->ev.sipi_pending;
    uint8_t vector = st->ev.sipi_vector, extint = st->lapic.extint;
    x86_state_init_ipi(st, bsp);
    st->ev.init_pending = 0;
    st->ev.sipi_pending = sipi && !bsp;
    st->ev.sipi_vector = vector;
    st->lapic.extint = extint;
    pthread_mutex_unlock(&c->apic_lock);
    soft_cpu_import(c, st);
}

static void take_sipi(struct soft_cpu *c)
{
    pthread_mutex_lock(&c->apic_lock);
    uint8_t vector = c->st.ev.sipi_vector;
    c->st.ev.sipi_pending = 0;
    unhalt(c);
    pthread_mutex_unlock(&c->apic_lock);
    struct x86_seg *cs = &c->st.seg[SEG_CS];
    cs->sel = (uint16_t)(vector << 8);
    cs->base = (uint64_t)vector << 12;
    c->rip = 0;
    cpu_update_mode(c);
}

static bool take_nmi(struct soft_cpu *c)
{
    pthread_mutex_lock(&c->apic_lock);
    c->st.ev.nmi_pending = 0;
    pthread_mutex_unlock(&c->apic_lock);
    c->st.ev.nmi_blocked = 1;
    unhalt(c);
    c->shutdown |= !event_deliver(c, (struct event){ .vector = EXC_NMI, .irq = true, .ret = c->rip });
    return true;
}

/* An exception that was pending in a loaded state. */
static bool take_pending_exception(struct soft_cpu *c)
{
    struct x86_events *ev = &c->st.ev;
    ev->exc_pending = 0;
    if (ev->exc_vector == EXC_PF) {
        c->st.cr2 = ev->exc_cr2;
    }
    c->shutdown |= !event_deliver(c, (struct event){
        .vector = ev->exc_vector, .has_error = ev->exc_has_error, .error = ev->exc_error, .ret = c->rip });
    return true;
}

/* Vector to deliver, acknowledged at its source; -1 when the LAPIC has none above PPR. */
static int acknowledge(struct soft_cpu *c)
{
    if (lapic_extint_ready(c) && c->vm->irq && c->vm->irq->pic_ack) {
        cpu_pend(c, PEND_IRQ);          /* perhaps not the last one */
        return c->vm->irq->pic_ack(c->vm->irq->pic) & 0xff;
    }
    pthread_mutex_lock(&c->apic_lock);
    int vector = lapic_candidate_locked(c);
    bool offer = false;
    if (vector >= 0) {
        lapic_ack_locked(c, (uint8_t)vector);
        bool more = lapic_top(c->st.lapic.irr) >= 0, level = c->st.lapic.tmr[vector / 32] >> vector % 32 & 1;
        if (more) {
            cpu_pend(c, PEND_IRQ);
        }
        offer = !more && !level;
    }
    pthread_mutex_unlock(&c->apic_lock);
    if (offer) {
        pv_eoi_offer(c);
    }
    return vector;
}

static bool irq_present(struct soft_cpu *c)
{
    if (lapic_extint_ready(c)) {
        return true;
    }
    pthread_mutex_lock(&c->apic_lock);
    bool any = lapic_candidate_locked(c) >= 0;
    pthread_mutex_unlock(&c->apic_lock);
    return any;
}

static bool take_irq(struct soft_cpu *c)
{
    pv_eoi_sync(c);
    if (!irq_present(c)) {
        return false;
    }
    if (!(c->st.rflags & X86_IF)) {
        c->irq_waiting = true;
        return false;
    }
    int vector = acknowledge(c);
    if (vector < 0) {
        return false;
    }
    unhalt(c);
    c->shutdown |= !event_deliver(c, (struct event){ .vector = (uint8_t)vector, .irq = true, .ret = c->rip });
    return true;
}

bool sys_take_interrupt(struct soft_cpu *c)
{
    struct x86_events *ev = &c->st.ev;
    if (unlikely(c->pv_stale)) {
        pv_clock_write(c);
    }
    if (unlikely(ev->exc_pending)) {
        return take_pending_exception(c);
    }
    if (ev->int_shadow && !READ_ONCE(ev->init_pending)) {
        return false;                   /* the bits stay set: looked at again after the next instruction */
    }
    atomic_fetch_and_explicit(&c->pending, ~(uint32_t)(PEND_IRQ | PEND_INIT_SIPI_NMI), memory_order_acq_rel);
    c->irq_waiting = false;
    if (READ_ONCE(ev->init_pending)) {
        take_init(c);
        return true;
    }
    if (ev->mp_state == MP_WAIT_SIPI) {
        if (!READ_ONCE(ev->sipi_pending)) {
            return false;
        }
        take_sipi(c);
        return true;
    }
    if (READ_ONCE(ev->nmi_pending) && !ev->nmi_blocked) {
        return take_nmi(c);
    }
    if (take_irq(c)) {
        return true;
    }
    if (ev->halted && atomic_exchange(&c->pv_kicked, false)) {
        unhalt(c);
        return true;
    }
    return false;
}

bool sys_interrupt_ready(struct soft_cpu *c)
{
    struct x86_events *ev = &c->st.ev;
    if (READ_ONCE(ev->init_pending) || c->shutdown) {
        return true;
    }
    if (ev->mp_state == MP_WAIT_SIPI) {
        return READ_ONCE(ev->sipi_pending);
    }
    if ((READ_ONCE(ev->nmi_pending) && !ev->nmi_blocked) || atomic_load(&c->pv_kicked)) {
        return true;
    }
    pv_eoi_sync(c);
    return (c->st.rflags & X86_IF) && irq_present(c);
}
