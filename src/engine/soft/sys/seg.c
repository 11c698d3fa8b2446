/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptors, segment registers, limits, stacks. Every access that can fault comes before the first change of a register.
 * Sources: SDM vol. 3A ch. 3 (segmentation), 5.6-5.8 (privilege), vol. 2 MOV, LAR, LSL, VERR, LLDT, LTR.
 *
 * Real mode keeps limit and rights of a register when it is loaded, so limits set in protected mode survive ("unreal" mode).
 */
#include "engine/soft/sys/sys-int.h"

/* --- reading descriptors --- */

/* Linear address of the 8 bytes of `sel`, when `extra` more bytes than its own also lie in the table. */
static bool desc_lin(struct soft_cpu *c, uint16_t sel, unsigned extra, uint64_t *lin)
{
    uint64_t base;
    uint32_t limit, off = sel & 0xfff8u;
    if (sel & 4) {
        if (c->st.ldt.unusable || !(c->st.ldt.attr & SEGA_P)) {
            return false;
        }
        base = c->st.ldt.base;
        limit = c->st.ldt.limit;
    } else {
        base = c->st.gdt.base;
        limit = c->st.gdt.limit;
    }
    *lin = cpu_long_mode(c) ? base + off : (uint32_t)(base + off);
    return off + 7 + extra <= limit;
}

bool desc_read(struct soft_cpu *c, uint16_t sel, struct desc *d)
{
    if (!desc_lin(c, sel, 0, &d->lin)) {
        return false;
    }
    d->raw = mmu_load_sys(c, d->lin, 8);
    d->base_hi = 0;
    return true;
}

void desc_get(struct soft_cpu *c, uint16_t sel, struct desc *d, unsigned vector)
{
    if (!desc_read(c, sel, d)) {
        raise_sel(c, vector, sel);
    }
}

void desc_get_hi(struct soft_cpu *c, uint16_t sel, struct desc *d, unsigned vector)
{
    uint64_t lin;
    if (!desc_lin(c, sel, 8, &lin)) {
        raise_sel(c, vector, sel);
    }
    uint64_t hi = mmu_load_sys(c, d->lin + 8, 8);
    if (hi >> 40 & 0x1f) {
        raise_sel(c, vector, sel);
    }
    d->base_hi = hi << 32;
}

void desc_set_accessed(struct soft_cpu *c, struct desc *d)
{
    if (!(d->raw >> 40 & 1)) {
        mmu_or8_sys(c, d->lin + 5, 1);
        d->raw |= 1ull << 40;
    }
}

struct x86_seg desc_to_seg(const struct desc *d, uint16_t sel)
{
    return (struct x86_seg){ .base = desc_base(d), .limit = desc_limit(d), .sel = sel, .attr = (d->raw >> 40) & 0xf0ff };
}

/* --- addresses --- */

static bool in_limit(const struct x86_seg *s, uint64_t off, unsigned size)
{
    uint64_t last = off + size - 1;
    if ((s->attr & 0xc) == 4) {         /* expand-down data */
        return off > s->limit && last <= (s->attr & SEGA_DB ? 0xffffffff : 0xffff);
    }
    return last <= s->limit;
}

static bool rights_ok(const struct x86_seg *s, bool write)
{
    if (s->unusable) {
        return false;
    }
    if (s->attr & 8) {
        return !write && (s->attr & 2);
    }
    return !write || (s->attr & 2);
}

uint64_t seg_lin(struct soft_cpu *c, const struct x86_seg *s, uint64_t off, unsigned size, bool write, unsigned vector, uint32_t error)
{
    off &= 0xffffffff;
    if (((c->mode & MODE_PROT) && !rights_ok(s, write)) || !in_limit(s, off, size)) {
        cpu_raise_err(c, vector, error);
    }
    return (uint32_t)(s->base + off);
}

uint64_t sys_seg_lin(struct soft_cpu *c, unsigned seg, uint64_t off, unsigned size, bool write)
{
    unsigned vector = seg == SEG_SS ? EXC_SS : EXC_GP;
    if (cpu_code64(c)) {
        uint64_t lin = off + c->segbase[seg];
        if (!canonical(lin) || (size > 1 && !canonical(lin + size - 1))) {
            cpu_raise_err(c, vector, 0);
        }
        return lin;
    }
    return seg_lin(c, &c->st.seg[seg], off, size, write, vector, 0);
}

/* --- loading --- */

void seg_set_null(struct soft_cpu *c, unsigned seg, uint16_t sel)
{
    unsigned dpl = seg == SEG_SS ? c->cpl : 0;
    c->st.seg[seg] = (struct x86_seg){ .sel = sel, .unusable = 1, .attr = (uint16_t)(dpl << SEGA_DPL_SHIFT) };
}

/* Real and virtual-8086 mode: base from the selector. v86 has fixed limit and rights, real mode keeps what there was. */
void seg_set_real(struct soft_cpu *c, unsigned seg, uint16_t sel)
{
    struct x86_seg *s = &c->st.seg[seg];
    if (in_v86(c)) {
        *s = (struct x86_seg){ .limit = 0xffff, .attr = 0xf3 };
    } else if (s->unusable || !(s->attr & SEGA_P)) {
        *s = (struct x86_seg){ .limit = 0xffff, .attr = 0x93 };
    }
    s->sel = sel;
    s->base = (uint64_t)sel << 4;
}

void seg_check_ss(struct soft_cpu *c, uint16_t sel, unsigned cpl, unsigned vector, struct desc *d)
{
    if (is_null(sel)) {
        raise_sel(c, vector, 0);
    }
    desc_get(c, sel, d, vector);
    if ((sel & 3) != cpl || !desc_writable_data(d) || desc_dpl(d) != cpl) {
        raise_sel(c, vector, sel);
    }
    if (!desc_p(d)) {
        raise_sel(c, EXC_SS, sel);
    }
}

static void seg_load_data(struct soft_cpu *c, unsigned seg, uint16_t sel)
{
    struct desc d;
    desc_get(c, sel, &d, EXC_GP);
    unsigned type = desc_type(&d), rpl = sel & 3, dpl = desc_dpl(&d);
    if (!desc_s(&d) || ((type & 8) && !(type & 2))) {
        raise_sel(c, EXC_GP, sel);
    }
    if ((type & 12) != 12 && (rpl > dpl || c->cpl > dpl)) {
        raise_sel(c, EXC_GP, sel);
    }
    if (!desc_p(&d)) {
        raise_sel(c, EXC_NP, sel);
    }
    desc_set_accessed(c, &d);
    c->st.seg[seg] = desc_to_seg(&d, sel);
}

void seg_load(struct soft_cpu *c, unsigned seg, uint16_t sel)
{
    if (!(c->mode & MODE_PROT)) {
        seg_set_real(c, seg, sel);
    } else if (is_null(sel)) {
        if (seg == SEG_SS && !(cpu_code64(c) && c->cpl != 3 && (sel & 3) == c->cpl)) {
            raise_gp(c);
        }
        seg_set_null(c, seg, sel);
    } else if (seg == SEG_SS) {
        struct desc d;
        seg_check_ss(c, sel, c->cpl, EXC_GP, &d);
        desc_set_accessed(c, &d);
        c->st.seg[SEG_SS] = desc_to_seg(&d, sel);
    } else {
        seg_load_data(c, seg, sel);
    }
    cpu_update_mode(c);
}

void sys_load_seg(struct soft_cpu *c, unsigned seg, uint16_t sel)
{
    seg_load(c, seg, sel);
    if (seg == SEG_SS && c->st.ev.int_shadow != 2) {
        c->st.ev.int_shadow = 2;
        cpu_pend(c, PEND_SHADOW);
    }
}

void segs_leave_inner(struct soft_cpu *c, unsigned cpl)
{
    static const uint8_t regs[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
    for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
        const struct x86_seg *s = &c->st.seg[regs[i]];
        unsigned dpl = (s->attr >> SEGA_DPL_SHIFT) & 3;
        if (!s->unusable && dpl < cpl && (s->attr & 12) != 12) {
            uint64_t base = s->base;
            seg_set_null(c, regs[i], 0);
            if (cpu_long_mode(c) && regs[i] >= SEG_FS) {
                c->st.seg[regs[i]].base = base;     /* only the selector goes: the base may come from an MSR */
            }
        }
    }
}

/* --- stacks --- */

void stk_current(struct soft_cpu *c, struct stk *s)
{
    *s = (struct stk){ .seg = c->st.seg[SEG_SS], .is64 = cpu_code64(c) };
    s->mask = s->is64 ? ~0ull : s->seg.attr & SEGA_DB ? 0xffffffff : 0xffff;
    s->sp = c->r[R_SP] & s->mask;
}

static uint64_t stk_lin(struct soft_cpu *c, const struct stk *s, unsigned size, bool write)
{
    if (!s->is64) {
        return seg_lin(c, &s->seg, s->sp, size, write, EXC_SS, s->err | c->ext);
    }
    if (!canonical(s->sp) || !canonical(s->sp + size - 1)) {
        cpu_raise_err(c, EXC_SS, s->err | c->ext);
    }
    return s->sp;
}

void stk_push(struct soft_cpu *c, struct stk *s, uint64_t val, unsigned size)
{
    s->sp = (s->sp - size) & s->mask;
    uint64_t lin = stk_lin(c, s, size, true);
    if (s->sys) {
        mmu_store_sys(c, lin, size, val);
    } else {
        mmu_store(c, lin, size, val);
    }
}

uint64_t stk_pop(struct soft_cpu *c, struct stk *s, unsigned size)
{
    uint64_t lin = stk_lin(c, s, size, false);
    uint64_t val = s->sys ? mmu_load_sys(c, lin, size) : mmu_load(c, lin, size);
    s->sp = (s->sp + size) & s->mask;
    return val;
}

void stk_commit(struct soft_cpu *c, const struct stk *s)
{
    if (s->mask == 0xffff) {
        reg_set(c, R_SP, 2, s->sp);
    } else {
        c->r[R_SP] = s->sp;
    }
}

void sys_push(struct soft_cpu *c, uint64_t val, unsigned size)
{
    struct stk s;
    stk_current(c, &s);
    stk_push(c, &s, val, size);
    stk_commit(c, &s);
}

uint64_t sys_pop(struct soft_cpu *c, unsigned size)
{
    struct stk s;
    stk_current(c, &s);
    uint64_t val = stk_pop(c, &s, size);
    stk_commit(c, &s);
    return val;
}

/* Field of the current TSS; #TS(TR) outside its limit. */
static uint64_t tss_field(struct soft_cpu *c, uint32_t off, unsigned size)
{
    const struct x86_seg *tr = &c->st.tr;
    if (off + size - 1 > tr->limit) {
        raise_sel(c, EXC_TS, tr->sel);
    }
    uint64_t lin = tr->base + off;
    return mmu_load_sys(c, cpu_long_mode(c) ? lin : (uint32_t)lin, size);
}

void stk_inner(struct soft_cpu *c, unsigned dpl, struct stk *s, struct desc *ss, uint16_t *ss_sel)
{
    *s = (struct stk){ .sys = true };
    if (c->st.tr.attr & 8) {
        s->sp = tss_field(c, 4 + dpl * 8, 4);
        *ss_sel = (uint16_t)tss_field(c, 8 + dpl * 8, 2);
    } else {
        s->sp = tss_field(c, 2 + dpl * 4, 2);
        *ss_sel = (uint16_t)tss_field(c, 4 + dpl * 4, 2);
    }
    seg_check_ss(c, *ss_sel, dpl, EXC_TS, ss);
    s->seg = desc_to_seg(ss, *ss_sel);
    s->mask = s->seg.attr & SEGA_DB ? 0xffffffff : 0xffff;
    s->sp &= s->mask;
    s->err = *ss_sel & 0xfffc;
}

uint64_t tss64_rsp(struct soft_cpu *c, unsigned dpl)
{
    return tss_field(c, 4 + dpl * 8, 8);
}

uint64_t tss64_ist(struct soft_cpu *c, unsigned ist)
{
    return tss_field(c, 0x24 + (ist - 1) * 8, 8);
}
