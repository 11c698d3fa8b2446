/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Far jumps, calls and returns: code segments, call gates, task gates and TSSs; RIP checks of near branches.
 * Sources: SDM vol. 3A 5.8 (transfers between code segments), vol. 2 CALL, JMP, RET.
 */
#include "engine/soft/sys/sys-int.h"

uint64_t sys_branch_target(struct soft_cpu *c, uint64_t target, unsigned size)
{
    target &= size_mask(size);
    if (cpu_code64(c)) {
        if (!canonical(target)) {
            raise_gp(c);
        }
    } else if (target > c->st.seg[SEG_CS].limit) {
        raise_gp(c);
    }
    return target;
}

static bool is_code64(const struct soft_cpu *c, const struct desc *d)
{
    return cpu_long_mode(c) && desc_l(d);
}

uint64_t code_target(struct soft_cpu *c, const struct desc *d, uint64_t off)
{
    if (is_code64(c, d)) {
        if (!canonical(off)) {
            raise_gp(c);
        }
        return off;
    }
    off &= 0xffffffff;
    if (off > desc_limit(d)) {
        raise_gp(c);
    }
    return off;
}

void cs_commit(struct soft_cpu *c, const struct desc *d, uint16_t sel, unsigned cpl, uint64_t rip)
{
    c->st.seg[SEG_CS] = desc_to_seg(d, (uint16_t)((sel & ~3u) | cpl));
    c->rip = rip;
}

void cs_ss_flat(struct soft_cpu *c, uint16_t cs_sel, uint16_t ss_sel, unsigned cpl, bool code64)
{
    uint16_t dpl = (uint16_t)(cpl << SEGA_DPL_SHIFT), common = SEGA_S | SEGA_P | SEGA_G;
    c->st.seg[SEG_CS] = (struct x86_seg){
        .limit = 0xffffffff, .sel = cs_sel, .attr = (uint16_t)(0xb | common | dpl | (code64 ? SEGA_L : SEGA_DB)),
    };
    c->st.seg[SEG_SS] = (struct x86_seg){ .limit = 0xffffffff, .sel = ss_sel, .attr = (uint16_t)(0x3 | common | dpl | SEGA_DB) };
    cpu_update_mode(c);
}

/* A code segment that JMP or CALL names directly. */
static void check_direct(struct soft_cpu *c, uint16_t sel, const struct desc *d)
{
    unsigned dpl = desc_dpl(d);
    bool ok = desc_is_code(d) && !(is_code64(c, d) && desc_db(d));
    ok = ok && (desc_conforming(d) ? dpl <= c->cpl : dpl == c->cpl && (sel & 3u) <= c->cpl);
    if (!ok) {
        raise_sel(c, EXC_GP, sel);
    }
    if (!desc_p(d)) {
        raise_sel(c, EXC_NP, sel);
    }
}

static void real_far(struct soft_cpu *c, uint16_t sel, uint64_t off)
{
    seg_set_real(c, SEG_CS, sel);
    c->rip = off;
}

/* Reads a call gate and the code segment behind it, with the checks JMP and CALL share. */
static void gate_open(struct soft_cpu *c, uint16_t sel, struct desc *gate, uint16_t *cs_sel, struct desc *cs)
{
    if (desc_dpl(gate) < c->cpl || desc_dpl(gate) < (sel & 3u)) {
        raise_sel(c, EXC_GP, sel);
    }
    if (!desc_p(gate)) {
        raise_sel(c, EXC_NP, sel);
    }
    if (cpu_long_mode(c)) {
        desc_get_hi(c, sel, gate, EXC_GP);
    }
    *cs_sel = gate_sel(gate);
    if (is_null(*cs_sel)) {
        raise_gp(c);
    }
    desc_get(c, *cs_sel, cs, EXC_GP);
    if (!desc_is_code(cs) || desc_dpl(cs) > c->cpl || (cpu_long_mode(c) && (!desc_l(cs) || desc_db(cs)))) {
        raise_sel(c, EXC_GP, *cs_sel);
    }
}

static void jmp_gate(struct soft_cpu *c, uint16_t sel, struct desc *gate)
{
    uint16_t cs_sel;
    struct desc cs;
    gate_open(c, sel, gate, &cs_sel, &cs);
    if (!desc_conforming(&cs) && desc_dpl(&cs) != c->cpl) {
        raise_sel(c, EXC_GP, cs_sel);
    }
    if (!desc_p(&cs)) {
        raise_sel(c, EXC_NP, cs_sel);
    }
    uint64_t off = desc_type(gate) == DT_CALL16 ? gate_off(gate) & 0xffff : gate_off(gate);
    uint64_t rip = code_target(c, &cs, off);
    desc_set_accessed(c, &cs);
    cs_commit(c, &cs, cs_sel, c->cpl, rip);
}

/* JMP or CALL to a system descriptor that is no call gate: a TSS or a task gate (legacy), else #GP. */
static void far_task(struct soft_cpu *c, uint16_t sel, const struct desc *d, enum task_why why, uint64_t ret)
{
    unsigned type = desc_type(d);
    bool tss = type == DT_TSS || type == DT_TSS16, gate = type == DT_TASK;
    if (cpu_long_mode(c) || !(tss || gate) || desc_dpl(d) < c->cpl || desc_dpl(d) < (sel & 3u)) {
        raise_sel(c, EXC_GP, sel);
    }
    if (gate && !desc_p(d)) {
        raise_sel(c, EXC_NP, sel);
    }
    task_switch(c, gate ? gate_sel(d) : sel, why, ret, false, 0);
}

void sys_jmp_far(struct soft_cpu *c, uint16_t sel, uint64_t off, unsigned size)
{
    off &= size_mask(size);
    if (!(c->mode & MODE_PROT)) {
        if (off > c->st.seg[SEG_CS].limit) {
            raise_gp(c);
        }
        real_far(c, sel, off);
        cpu_update_mode(c);
        return;
    }
    if (is_null(sel)) {
        raise_gp(c);
    }
    struct desc d;
    desc_get(c, sel, &d, EXC_GP);
    unsigned type = desc_type(&d);
    if (desc_s(&d)) {
        check_direct(c, sel, &d);
        uint64_t rip = code_target(c, &d, off);
        desc_set_accessed(c, &d);
        cs_commit(c, &d, sel, c->cpl, rip);
    } else if (type == DT_CALL || (type == DT_CALL16 && !cpu_long_mode(c))) {
        jmp_gate(c, sel, &d);
    } else {
        far_task(c, sel, &d, TASK_JMP, cpu_next_rip(c));
        return;
    }
    cpu_update_mode(c);
}

/* CALL through a gate to more privilege: stack of the inner level from the TSS, parameters copied. */
static void call_inner(struct soft_cpu *c, const struct desc *gate, uint16_t cs_sel, struct desc *cs, uint64_t rip)
{
    unsigned dpl = desc_dpl(cs), size = cpu_long_mode(c) ? 8 : desc_type(gate) == DT_CALL16 ? 2 : 4;
    struct stk in, old;
    struct desc ss = { 0 };
    uint16_t ss_sel = (uint16_t)dpl;
    stk_current(c, &old);
    if (size == 8) {
        in = (struct stk){ .is64 = true, .sys = true, .mask = ~0ull, .sp = tss64_rsp(c, dpl) };
    } else {
        stk_inner(c, dpl, &in, &ss, &ss_sel);
    }
    stk_push(c, &in, c->st.seg[SEG_SS].sel, size);
    stk_push(c, &in, c->r[R_SP] & (size == 8 ? ~0ull : old.mask), size);
    unsigned n = size == 8 ? 0 : (gate->raw >> 32) & 31;
    for (unsigned i = n; i-- > 0;) {            /* last parameter first; the offset wraps with the old stack's width */
        uint64_t lin = seg_lin(c, &old.seg, (old.sp + i * size) & old.mask, size, false, EXC_SS, 0);
        stk_push(c, &in, mmu_load(c, lin, size), size);
    }
    stk_push(c, &in, c->st.seg[SEG_CS].sel, size);
    stk_push(c, &in, cpu_next_rip(c), size);
    desc_set_accessed(c, cs);
    if (size != 8) {
        desc_set_accessed(c, &ss);
        c->st.seg[SEG_SS] = desc_to_seg(&ss, ss_sel);
    } else {
        c->cpl = (uint8_t)dpl;
        seg_set_null(c, SEG_SS, ss_sel);
    }
    stk_commit(c, &in);
    cs_commit(c, cs, cs_sel, dpl, rip);
}

static void call_gate(struct soft_cpu *c, uint16_t sel, struct desc *gate)
{
    uint16_t cs_sel;
    struct desc cs;
    gate_open(c, sel, gate, &cs_sel, &cs);
    if (!desc_p(&cs)) {
        raise_sel(c, EXC_NP, cs_sel);
    }
    bool is16 = desc_type(gate) == DT_CALL16;
    uint64_t rip = code_target(c, &cs, is16 ? gate_off(gate) & 0xffff : gate_off(gate));
    if (!desc_conforming(&cs) && desc_dpl(&cs) < c->cpl) {
        call_inner(c, gate, cs_sel, &cs, rip);
        return;
    }
    unsigned size = cpu_long_mode(c) ? 8 : is16 ? 2 : 4;
    struct stk s;
    stk_current(c, &s);
    stk_push(c, &s, c->st.seg[SEG_CS].sel, size);
    stk_push(c, &s, cpu_next_rip(c), size);
    desc_set_accessed(c, &cs);
    stk_commit(c, &s);
    cs_commit(c, &cs, cs_sel, c->cpl, rip);
}

static void call_direct(struct soft_cpu *c, uint16_t sel, struct desc *d, uint64_t off, unsigned size)
{
    check_direct(c, sel, d);
    struct stk s;
    stk_current(c, &s);
    stk_push(c, &s, c->st.seg[SEG_CS].sel, size);
    stk_push(c, &s, cpu_next_rip(c), size);
    uint64_t rip = code_target(c, d, off);
    desc_set_accessed(c, d);
    stk_commit(c, &s);
    cs_commit(c, d, sel, c->cpl, rip);
}

void sys_call_far(struct soft_cpu *c, uint16_t sel, uint64_t off, unsigned size)
{
    off &= size_mask(size);
    if (!(c->mode & MODE_PROT)) {
        struct stk s;
        stk_current(c, &s);
        stk_push(c, &s, c->st.seg[SEG_CS].sel, size);
        stk_push(c, &s, cpu_next_rip(c), size);
        if (off > c->st.seg[SEG_CS].limit) {
            raise_gp(c);
        }
        stk_commit(c, &s);
        real_far(c, sel, off);
        cpu_update_mode(c);
        return;
    }
    if (is_null(sel)) {
        raise_gp(c);
    }
    struct desc d;
    desc_get(c, sel, &d, EXC_GP);
    unsigned type = desc_type(&d);
    if (desc_s(&d)) {
        call_direct(c, sel, &d, off, size);
    } else if (type == DT_CALL || (type == DT_CALL16 && !cpu_long_mode(c))) {
        call_gate(c, sel, &d);
    } else {
        far_task(c, sel, &d, TASK_CALL, cpu_next_rip(c));
        return;
    }
    cpu_update_mode(c);
}

void return_check_cs(struct soft_cpu *c, uint16_t sel, struct desc *d)
{
    unsigned rpl = sel & 3;
    if (is_null(sel)) {
        raise_gp(c);
    }
    desc_get(c, sel, d, EXC_GP);
    bool ok = desc_is_code(d) && rpl >= c->cpl && !(is_code64(c, d) && desc_db(d));
    ok = ok && (desc_conforming(d) ? desc_dpl(d) <= rpl : desc_dpl(d) == rpl);
    if (!ok) {
        raise_sel(c, EXC_GP, sel);
    }
    if (!desc_p(d)) {
        raise_sel(c, EXC_NP, sel);
    }
}

/*
 * SS:RSP of a return: null SS is allowed into 64-bit code below CPL 3. Commits nothing; *null tells which.
 */
static void check_return_ss(struct soft_cpu *c, uint16_t sel, unsigned rpl, bool to64, struct desc *ss, bool *null)
{
    *null = is_null(sel) && to64 && rpl != 3 && (sel & 3u) == rpl;
    if (*null) {
        return;
    }
    if (is_null(sel)) {
        raise_gp(c);
    }
    seg_check_ss(c, sel, rpl, EXC_GP, ss);
}

void far_return(struct soft_cpu *c, struct desc *cs, uint16_t cs_sel, uint64_t rip, const struct stk *s, bool with_ss,
                uint16_t ss_sel, uint64_t rsp, uint16_t pop)
{
    unsigned rpl = cs_sel & 3;
    bool outer = rpl > c->cpl, null = false;
    struct desc ss = { 0 };
    if (with_ss) {
        check_return_ss(c, ss_sel, rpl, is_code64(c, cs), &ss, &null);
    }
    rip = code_target(c, cs, rip);
    desc_set_accessed(c, cs);
    if (with_ss && !null) {
        desc_set_accessed(c, &ss);
    }
    cs_commit(c, cs, cs_sel, rpl, rip);
    if (!with_ss) {
        stk_commit(c, s);
        cpu_update_mode(c);
        return;
    }
    c->cpl = (uint8_t)rpl;
    if (null) {
        seg_set_null(c, SEG_SS, ss_sel);
    } else {
        c->st.seg[SEG_SS] = desc_to_seg(&ss, ss_sel);
    }
    cpu_update_mode(c);
    if (cpu_code64(c)) {
        c->r[R_SP] = rsp + pop;
    } else if (c->mode & MODE_SS32) {
        c->r[R_SP] = (uint32_t)(rsp + pop);
    } else {
        reg_set(c, R_SP, 2, rsp + pop);
    }
    if (outer) {
        segs_leave_inner(c, rpl);
        cpu_update_mode(c);
    }
}

void sys_ret_far(struct soft_cpu *c, unsigned size, uint16_t pop)
{
    struct stk s;
    stk_current(c, &s);
    uint64_t rip = stk_pop(c, &s, size);
    uint16_t sel = (uint16_t)stk_pop(c, &s, size);
    if (!(c->mode & MODE_PROT)) {
        if (rip > c->st.seg[SEG_CS].limit) {
            raise_gp(c);
        }
        s.sp = (s.sp + pop) & s.mask;
        stk_commit(c, &s);
        real_far(c, sel, rip);
        cpu_update_mode(c);
        return;
    }
    struct desc d;
    return_check_cs(c, sel, &d);
    s.sp = (s.sp + pop) & s.mask;
    if ((sel & 3u) == c->cpl) {
        far_return(c, &d, sel, rip, &s, false, 0, 0, 0);
        return;
    }
    uint64_t rsp = stk_pop(c, &s, size);
    uint16_t ss = (uint16_t)stk_pop(c, &s, size);
    far_return(c, &d, sel, rip, &s, true, ss, rsp, pop);
}
