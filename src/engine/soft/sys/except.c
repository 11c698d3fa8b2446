/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Delivery of exceptions and interrupts through the IVT or the IDT. Sources: SDM vol. 3A ch. 6 (interrupt and exception
 * handling; table 6-5 double-fault classes; 6.14 64-bit mode), 20.3 (virtual-8086 mode).
 *
 * Delivery checks and stores everything before it changes a register, so when it faults itself the interrupted state is
 * still whole and the new fault is delivered from there. event_deliver() catches such faults with an unwind buffer of its own.
 */
#include <string.h>

#include "engine/soft/sys/sys-int.h"

static uint32_t idt_error(struct soft_cpu *c, const struct event *ev)
{
    return ev->vector * 8u + 2 + c->ext;
}

/* A fault leaves RF set in the saved RFLAGS, so that an instruction breakpoint does not hit twice. */
static uint64_t saved_flags(const struct soft_cpu *c, const struct event *ev)
{
    static const uint32_t faults = 1u << EXC_DE | 1u << EXC_BR | 1u << EXC_UD | 1u << EXC_NM | 1u << EXC_TS | 1u << EXC_NP | 1u << EXC_SS |
                                   1u << EXC_GP | 1u << EXC_PF | 1u << EXC_MF | 1u << EXC_AC | 1u << EXC_XM;
    uint64_t flags = cpu_rflags(c);
    bool fault = !ev->soft && !ev->irq && c->ext && ev->vector < 32 && (faults >> ev->vector & 1);
    return fault ? flags | X86_RF : flags;
}

static void entered(struct soft_cpu *c, uint64_t clear)
{
    cpu_set_rflags(c, 0, clear | X86_TF | X86_RF | X86_NT);
    c->st.ev.int_shadow = 0;
}

static void deliver_real(struct soft_cpu *c, const struct event *ev)
{
    uint32_t off = ev->vector * 4u;
    if (off + 3 > c->st.idt.limit) {
        cpu_raise_err(c, EXC_GP, idt_error(c, ev));
    }
    uint32_t vec = (uint32_t)mmu_load_sys(c, (uint32_t)(c->st.idt.base + off), 4);
    struct stk s;
    stk_current(c, &s);
    stk_push(c, &s, cpu_rflags(c) & 0xffff, 2);
    stk_push(c, &s, c->st.seg[SEG_CS].sel, 2);
    stk_push(c, &s, ev->ret & 0xffff, 2);
    if ((vec & 0xffff) > c->st.seg[SEG_CS].limit) {
        raise_gp(c);
    }
    stk_commit(c, &s);
    seg_set_real(c, SEG_CS, (uint16_t)(vec >> 16));
    c->rip = vec & 0xffff;
    cpu_set_rflags(c, 0, X86_IF | X86_TF | X86_AC | X86_RF);
    c->st.ev.int_shadow = 0;
    cpu_update_mode(c);
}

/* Reads the gate and its code segment; faults name the IDT entry or the segment. */
static void gate_read(struct soft_cpu *c, const struct event *ev, struct desc *gate)
{
    bool lma = cpu_long_mode(c);
    uint32_t size = lma ? 16 : 8, off = ev->vector * size;
    if (off + size - 1 > c->st.idt.limit) {
        cpu_raise_err(c, EXC_GP, idt_error(c, ev));
    }
    uint64_t lin = c->st.idt.base + off;
    gate->lin = lma ? lin : (uint32_t)lin;
    gate->raw = mmu_load_sys(c, gate->lin, 8);
    gate->base_hi = lma ? mmu_load_sys(c, gate->lin + 8, 8) << 32 : 0;
    unsigned type = desc_type(gate);
    bool ok = type == DT_INT || type == DT_TRAP || (!lma && (type == DT_TASK || type == DT_INT16 || type == DT_TRAP16));
    if (desc_s(gate) || !ok || (ev->soft && desc_dpl(gate) < c->cpl)) {
        cpu_raise_err(c, EXC_GP, idt_error(c, ev));
    }
    if (!desc_p(gate)) {
        cpu_raise_err(c, EXC_NP, idt_error(c, ev));
    }
}

static void gate_code(struct soft_cpu *c, uint16_t sel, struct desc *cs)
{
    if (is_null(sel)) {
        raise_gp(c);
    }
    desc_get(c, sel, cs, EXC_GP);
    if (!desc_is_code(cs) || desc_dpl(cs) > c->cpl || (cpu_long_mode(c) && (!desc_l(cs) || desc_db(cs)))) {
        raise_sel(c, EXC_GP, sel);
    }
    if (!desc_p(cs)) {
        raise_sel(c, EXC_NP, sel);
    }
}

static void deliver_long(struct soft_cpu *c, const struct event *ev, struct desc *gate)
{
    struct desc cs;
    uint16_t sel = gate_sel(gate);
    gate_code(c, sel, &cs);
    unsigned ist = (gate->raw >> 32) & 7, dpl = desc_conforming(&cs) ? c->cpl : desc_dpl(&cs);
    bool inner = dpl < c->cpl;
    struct stk s = { .is64 = true, .mask = ~0ull, .sys = dpl < 3 && (inner || ist) };
    s.sp = ist ? tss64_ist(c, ist) : inner ? tss64_rsp(c, dpl) : c->r[R_SP];
    if (!canonical(s.sp)) {
        cpu_raise_err(c, EXC_SS, c->ext);
    }
    s.sp &= ~15ull;
    stk_push(c, &s, c->st.seg[SEG_SS].sel, 8);
    stk_push(c, &s, c->r[R_SP], 8);
    stk_push(c, &s, saved_flags(c, ev), 8);
    stk_push(c, &s, c->st.seg[SEG_CS].sel, 8);
    stk_push(c, &s, ev->ret, 8);
    if (ev->has_error) {
        stk_push(c, &s, ev->error, 8);
    }
    uint64_t rip = code_target(c, &cs, gate_off(gate));
    desc_set_accessed(c, &cs);
    cs_commit(c, &cs, sel, dpl, rip);
    if (inner) {
        c->cpl = (uint8_t)dpl;
        seg_set_null(c, SEG_SS, (uint16_t)dpl);
    }
    c->r[R_SP] = s.sp;
    entered(c, desc_type(gate) == DT_INT ? X86_IF : 0);
    cpu_update_mode(c);
}

/* SS:ESP of the interrupted code; out of virtual-8086 mode the data segments too, which then become null. */
static void push_outer(struct soft_cpu *c, struct stk *s, unsigned size, bool v86)
{
    if (v86) {
        static const uint8_t order[] = { SEG_GS, SEG_FS, SEG_DS, SEG_ES };
        for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
            stk_push(c, s, c->st.seg[order[i]].sel, size);
        }
    }
    stk_push(c, s, c->st.seg[SEG_SS].sel, size);
    stk_push(c, s, c->r[R_SP], size);
}

static void deliver_legacy(struct soft_cpu *c, const struct event *ev, struct desc *gate)
{
    struct desc cs, ss = { 0 };
    uint16_t sel = gate_sel(gate), ss_sel = 0;
    unsigned type = desc_type(gate), size = type == DT_INT16 || type == DT_TRAP16 ? 2 : 4;
    bool v86 = in_v86(c);
    gate_code(c, sel, &cs);
    unsigned dpl = desc_conforming(&cs) ? c->cpl : desc_dpl(&cs);
    bool inner = dpl < c->cpl;
    if (v86 && dpl != 0) {
        raise_sel(c, EXC_GP, sel);
    }
    struct stk s;
    if (inner) {
        stk_inner(c, dpl, &s, &ss, &ss_sel);
        push_outer(c, &s, size, v86);
    } else {
        stk_current(c, &s);
    }
    stk_push(c, &s, saved_flags(c, ev), size);
    stk_push(c, &s, c->st.seg[SEG_CS].sel, size);
    stk_push(c, &s, ev->ret, size);
    if (ev->has_error) {
        stk_push(c, &s, ev->error, size);
    }
    uint64_t rip = code_target(c, &cs, size == 2 ? gate_off(gate) & 0xffff : gate_off(gate));
    desc_set_accessed(c, &cs);
    if (inner) {
        desc_set_accessed(c, &ss);
        c->st.seg[SEG_SS] = desc_to_seg(&ss, ss_sel);
    }
    if (v86) {
        seg_set_null(c, SEG_ES, 0);
        seg_set_null(c, SEG_DS, 0);
        seg_set_null(c, SEG_FS, 0);
        seg_set_null(c, SEG_GS, 0);
    }
    stk_commit(c, &s);
    cs_commit(c, &cs, sel, dpl, rip);
    entered(c, X86_VM | (type == DT_INT || type == DT_INT16 ? X86_IF : 0));
    cpu_update_mode(c);
}

static void deliver(struct soft_cpu *c, const struct event *ev)
{
    struct desc gate;
    if (!in_prot(c)) {
        deliver_real(c, ev);
        return;
    }
    gate_read(c, ev, &gate);
    if (desc_type(&gate) == DT_TASK) {
        task_switch(c, gate_sel(&gate), TASK_GATE, ev->ret, ev->has_error, ev->error);
    } else if (cpu_long_mode(c)) {
        deliver_long(c, ev, &gate);
    } else {
        deliver_legacy(c, ev, &gate);
    }
    if (ev->vector == EXC_DB && !ev->soft) {
        c->st.dr7 &= ~(uint64_t)DR7_GD;
    }
    c->tf_masked = true;
}

/* One attempt. False: it raised, and c->exc_* say what. */
static __attribute__((noinline)) bool try_deliver(struct soft_cpu *c, const struct event *ev)
{
    void *saved[5];
    bool single = c->single, ok;
    memcpy(saved, c->jb, sizeof(saved));
    c->single = true;               /* may write tracked pages */
    c->ext = ev->ext;
    if (__builtin_setjmp(c->jb) == 0) {
        deliver(c, ev);
        ok = true;
    } else {
        ok = false;
    }
    memcpy(c->jb, saved, sizeof(saved));
    c->ext = 0;
    c->single = single;
    mmu_smc_flush(c);               /* stores that hit decoded code: no instruction ends here for run/ to see to them */
    return ok;
}

static bool contributory(unsigned vector)
{
    return vector == EXC_DE || (vector >= EXC_TS && vector <= EXC_GP);
}

/* `ev` could not be delivered because c->exc_* happened: what is delivered now. False: triple fault. SDM table 6-5. */
static bool combine(const struct soft_cpu *c, struct event *ev)
{
    unsigned second = c->exc_vector;
    bool bad = contributory(second) || second == EXC_PF, exception = !ev->irq && ev->vector < 32;
    if (exception && ev->vector == EXC_DF) {
        return false;
    }
    struct event next = { .vector = (uint8_t)second, .has_error = c->exc_has_error, .error = c->exc_error, .ext = true, .ret = ev->ret };
    if (exception && bad && ((contributory(ev->vector) && second != EXC_PF) || ev->vector == EXC_PF)) {
        next.vector = EXC_DF;
        next.has_error = true;
        next.error = 0;
    }
    *ev = next;
    return true;
}

bool event_deliver(struct soft_cpu *c, struct event ev)
{
    ev.ext = true;
    for (int i = 0; i < 8; i++) {           /* benign faults in a row could chase each other for ever */
        ev.has_error = ev.has_error && in_prot(c);
        if (try_deliver(c, &ev)) {
            return true;
        }
        if (cpu_unwind_reason != UNWIND_EXCEPTION) {
            continue;
        }
        if (!combine(c, &ev)) {
            return false;
        }
    }
    return false;
}

bool sys_deliver_exception(struct soft_cpu *c)
{
    struct event ev = {
        .vector = c->exc_vector, .has_error = c->exc_has_error, .error = c->exc_error, .soft = c->exc_soft, .ret = c->rip,
    };
    c->exc_soft = false;
    c->st.ev.int_shadow = 0;
    return event_deliver(c, ev);
}

/* --- INT n and relatives: part of their instruction, so a fault is an ordinary one at its address --- */

/* CR4.VME: INT n in virtual-8086 mode goes to the task's own IVT when its bit in the redirection bitmap is clear. */
static bool vme_redirected(struct soft_cpu *c, uint8_t vector)
{
    const struct x86_seg *tr = &c->st.tr;
    uint32_t base = (uint32_t)tr->base;
    if (!(c->st.cr4 & CR4_VME) || tr->limit < 0x67) {
        return false;
    }
    uint32_t map = (uint32_t)mmu_load_sys(c, base + 0x66, 2) - 32 + vector / 8;
    return map <= tr->limit && !(mmu_load_sys(c, base + map, 1) >> (vector & 7) & 1);
}

static void deliver_v86_ivt(struct soft_cpu *c, uint8_t vector)
{
    uint32_t vec = (uint32_t)mmu_load(c, vector * 4u, 4);
    uint64_t flags = cpu_rflags(c) & 0xffff;
    bool full = cpu_iopl(c) == 3;
    if (!full) {
        flags = (flags & ~(uint64_t)X86_IF) | X86_IOPL | (c->st.rflags & X86_VIF ? X86_IF : 0);
    }
    struct stk s;
    stk_current(c, &s);
    stk_push(c, &s, flags, 2);
    stk_push(c, &s, c->st.seg[SEG_CS].sel, 2);
    stk_push(c, &s, cpu_next_rip(c) & 0xffff, 2);
    stk_commit(c, &s);
    seg_set_real(c, SEG_CS, (uint16_t)(vec >> 16));
    c->rip = vec & 0xffff;
    cpu_set_rflags(c, 0, X86_TF | X86_NT | (full ? X86_IF : X86_VIF));
    cpu_update_mode(c);
}

void sys_int(struct soft_cpu *c, uint8_t vector, enum insn_op kind)
{
    struct event ev = { .vector = vector, .soft = kind != OP_INT1, .ret = cpu_next_rip(c) };
    if (kind == OP_INT && in_v86(c)) {
        if (vme_redirected(c, vector)) {
            deliver_v86_ivt(c, vector);
            c->tf_masked = true;
            return;
        }
        if (cpu_iopl(c) < 3) {
            raise_gp(c);
        }
    }
    deliver(c, &ev);
}
