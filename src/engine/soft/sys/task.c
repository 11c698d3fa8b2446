/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Task switches through TSSs and task gates, outside long mode. Source: SDM vol. 3A ch. 7 (7.3 task switching, table 7-1).
 * The old TSS is saved and the new one read before registers change; faults after that point are the new task's.
 */
#include <string.h>

#include "engine/soft/sys/sys-int.h"

struct tss_regs {
    uint32_t cr3, eip, eflags, gpr[8];
    uint16_t seg[N_SEGS], ldt;
};

enum { TSS32_SIZE = 104, TSS16_SIZE = 44 };

static void tss_save(struct soft_cpu *c, const struct x86_seg *tr, uint64_t ret, uint64_t flags)
{
    uint32_t base = (uint32_t)tr->base;
    bool is32 = tr->attr & 8;
    unsigned size = is32 ? 4 : 2, at = is32 ? 0x20 : 0x0e;
    mmu_store_sys(c, base + at, size, ret);
    mmu_store_sys(c, base + at + size, size, flags);
    for (unsigned i = 0; i < 8; i++) {
        mmu_store_sys(c, base + at + (2 + i) * size, size, c->r[i]);
    }
    unsigned seg_at = at + 10 * size;
    for (unsigned i = 0; i < (is32 ? 6u : 4u); i++) {
        mmu_store_sys(c, base + seg_at + i * size, 2, c->st.seg[i].sel);
    }
}

static void tss_read(struct soft_cpu *c, const struct desc *d, struct tss_regs *t)
{
    uint32_t base = (uint32_t)desc_base(d);
    bool is32 = desc_type(d) & 8;
    unsigned size = is32 ? 4 : 2, at = is32 ? 0x20 : 0x0e;
    *t = (struct tss_regs){ 0 };
    t->cr3 = is32 ? (uint32_t)mmu_load_sys(c, base + 0x1c, 4) : 0;
    t->eip = (uint32_t)mmu_load_sys(c, base + at, size);
    t->eflags = (uint32_t)mmu_load_sys(c, base + at + size, size);
    for (unsigned i = 0; i < 8; i++) {
        t->gpr[i] = (uint32_t)mmu_load_sys(c, base + at + (2 + i) * size, size) | (is32 ? 0 : 0xffff0000);
    }
    unsigned seg_at = at + 10 * size;
    for (unsigned i = 0; i < (is32 ? 6u : 4u); i++) {
        t->seg[i] = (uint16_t)mmu_load_sys(c, base + seg_at + i * size, 2);
    }
    t->ldt = (uint16_t)mmu_load_sys(c, base + (is32 ? 0x60 : 0x2a), 2);
}

/* The new TSS's descriptor: #GP for a jump's or gate's wrong type, #TS for IRET's back link. */
static void tss_desc(struct soft_cpu *c, uint16_t sel, enum task_why why, struct desc *d)
{
    unsigned vector = why == TASK_IRET ? EXC_TS : EXC_GP;
    if ((sel & 4) || is_null(sel)) {
        raise_sel(c, vector, sel);
    }
    desc_get(c, sel, d, vector);
    unsigned type = desc_type(d), want = why == TASK_IRET ? 2 : 0;
    if (desc_s(d) || (type & 7) != (1 | want)) {
        raise_sel(c, vector, sel);
    }
    if (!desc_p(d)) {
        raise_sel(c, EXC_NP, sel);
    }
    if (desc_limit(d) < (type & 8 ? TSS32_SIZE - 1 : TSS16_SIZE - 1)) {
        raise_sel(c, EXC_TS, sel);
    }
}

/* Descriptor types change only by the busy bit; cleared by a plain store, as no CPU shares a TSS. */
static void set_busy(struct soft_cpu *c, uint16_t sel, bool busy)
{
    struct desc d;
    if (!desc_read(c, sel, &d)) {
        return;
    }
    uint8_t b = (uint8_t)mmu_load_sys(c, d.lin + 5, 1);
    mmu_store_sys(c, d.lin + 5, 1, busy ? b | 2 : b & ~2u);
}

static void load_new_segs(struct soft_cpu *c, const struct tss_regs *t)
{
    struct desc d;
    unsigned cpl = t->seg[SEG_CS] & 3;
    ldt_load(c, t->ldt, EXC_TS);
    c->cpl = (uint8_t)cpl;
    seg_check_ss(c, t->seg[SEG_SS], cpl, EXC_TS, &d);
    desc_set_accessed(c, &d);
    c->st.seg[SEG_SS] = desc_to_seg(&d, t->seg[SEG_SS]);
    if (is_null(t->seg[SEG_CS])) {
        raise_sel(c, EXC_TS, 0);
    }
    desc_get(c, t->seg[SEG_CS], &d, EXC_TS);
    if (!desc_is_code(&d) || (desc_conforming(&d) ? desc_dpl(&d) > cpl : desc_dpl(&d) != cpl)) {
        raise_sel(c, EXC_TS, t->seg[SEG_CS]);
    }
    if (!desc_p(&d)) {
        raise_sel(c, EXC_NP, t->seg[SEG_CS]);
    }
    desc_set_accessed(c, &d);
    c->st.seg[SEG_CS] = desc_to_seg(&d, t->seg[SEG_CS]);
    cpu_update_mode(c);
    static const uint8_t data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
        unsigned seg = data[i];
        uint16_t sel = t->seg[seg];
        if (is_null(sel)) {
            continue;
        }
        desc_get(c, sel, &d, EXC_TS);
        unsigned type = desc_type(&d);
        bool ok = desc_s(&d) && !((type & 8) && !(type & 2));
        ok = ok && ((type & 12) == 12 || (desc_dpl(&d) >= cpl && desc_dpl(&d) >= (sel & 3u)));
        if (!ok) {
            raise_sel(c, EXC_TS, sel);
        }
        if (!desc_p(&d)) {
            raise_sel(c, EXC_NP, sel);
        }
        desc_set_accessed(c, &d);
        c->st.seg[seg] = desc_to_seg(&d, sel);
    }
}

/* What a switch loads into the CPU, and what its faults are delivered on: the new task, at its first instruction. */
struct new_task {
    const struct tss_regs *t;
    bool has_error;
    uint32_t error;
};

static void enter_task(struct soft_cpu *c, const struct new_task *n)
{
    const struct tss_regs *t = n->t;
    if ((c->st.cr0 & CR0_PG) && (c->st.tr.attr & 8) && t->cr3 != c->st.cr3) {
        c->st.cr3 = t->cr3;
        mmu_cr3_loaded(c, false);
    }
    if (t->eflags & X86_VM) {
        ldt_load(c, t->ldt, EXC_TS);
        for (unsigned i = 0; i < N_SEGS; i++) {
            seg_set_real(c, i, t->seg[i]);
        }
        cpu_update_mode(c);
    } else {
        load_new_segs(c, t);
        cpu_update_mode(c);
    }
    if (n->has_error) {
        sys_push(c, n->error, c->st.tr.attr & 8 ? 4 : 2);
    }
    if (c->rip > c->st.seg[SEG_CS].limit) {
        raise_gp(c);
    }
    if ((c->st.tr.attr & 8) && (mmu_load_sys(c, (uint32_t)c->st.tr.base + 0x64, 1) & 1)) {
        dr6_or(c, DR6_BT);
        cpu_raise(c, EXC_DB);
    }
}

static __attribute__((noinline)) bool try_enter(struct soft_cpu *c, const struct new_task *n)
{
    void *saved[5];
    bool single = c->single, ok;
    memcpy(saved, c->jb, sizeof(saved));
    c->single = true;
    if (__builtin_setjmp(c->jb) == 0) {
        enter_task(c, n);
        ok = true;
    } else {
        ok = false;
    }
    memcpy(c->jb, saved, sizeof(saved));
    c->single = single;
    return ok;
}

/* The registers of the new task; until each is checked, segments hold selectors only. */
static void commit_regs(struct soft_cpu *c, const struct tss_regs *t, bool nt)
{
    for (unsigned i = 0; i < 8; i++) {
        c->r[i] = t->gpr[i];
    }
    c->rip = t->eip;
    for (unsigned i = 0; i < N_SEGS; i++) {
        c->st.seg[i] = (struct x86_seg){ .sel = t->seg[i], .unusable = i != SEG_CS && i != SEG_SS, .limit = 0xffff,
                                         .attr = i == SEG_CS ? 0x9b : 0x93 };
    }
    c->st.ldt = (struct x86_seg){ .sel = t->ldt, .unusable = 1 };
    cpu_set_rflags(c, t->eflags | (nt ? X86_NT : 0), 0x3f7fd5);
    cpu_update_mode(c);
}

void task_switch(struct soft_cpu *c, uint16_t sel, enum task_why why, uint64_t ret, bool has_error, uint32_t error)
{
    struct desc d;
    struct tss_regs t;
    struct x86_seg old = c->st.tr;
    uint64_t flags = cpu_rflags(c);
    bool link = why == TASK_CALL || why == TASK_GATE;
    tss_desc(c, sel, why, &d);
    tss_read(c, &d, &t);
    mmu_or8_sys(c, (uint32_t)old.base, 0);          /* both ends can be written */
    mmu_or8_sys(c, (uint32_t)(old.base + (old.attr & 8 ? TSS32_SIZE : TSS16_SIZE) - 1), 0);
    if (why == TASK_IRET) {
        flags &= ~(uint64_t)X86_NT;
    }
    if (!link) {
        set_busy(c, old.sel, false);
    }
    tss_save(c, &old, ret, flags);
    if (link) {
        mmu_store_sys(c, (uint32_t)desc_base(&d), 2, old.sel);
    }
    if (why != TASK_IRET) {
        set_busy(c, sel, true);
    }
    c->st.tr = desc_to_seg(&d, sel);
    c->st.tr.attr |= 2;
    c->st.cr0 |= CR0_TS;
    c->st.dr7 &= ~0x55ull;          /* local breakpoints */
    commit_regs(c, &t, link);
    c->tf_masked = true;
    struct new_task n = { .t = &t, .has_error = has_error, .error = error };
    if (!try_enter(c, &n)) {
        c->shutdown |= !event_deliver(c, (struct event){ .vector = c->exc_vector, .has_error = c->exc_has_error,
                                                         .error = c->exc_error, .ret = c->rip });
    }
}
