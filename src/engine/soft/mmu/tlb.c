/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From a linear address to a host pointer or a device: TLB fill, instruction fetch, flush rules.
 * Sources: SDM vol. 3A §4.10 (caching translation information), §4.10.4.1 (what invalidates), §10.4.1 (APIC page).
 *
 * A data entry's write tag means: allowed, D set, logged as dirty, and nobody needs to hear of the store. Otherwise the
 * store takes the slow path; TLB_F_CODE says that the guest allows it and only our own bookkeeping is in the way.
 * There is no negative caching, so what raises a #PF has just been walked.
 */
#include "engine/soft/mmu/mmu-int.h"

/* #SS instead of #GP: the current instruction reaches this address by its stack. */
static bool by_stack(const struct soft_cpu *c, enum mmu_access acc)
{
    if (!c->u || acc == MMU_EXEC) {
        return false;
    }
    const struct insn *i = &c->u->i;
    switch (insn_row(i)->op) {
    case OP_PUSH:
    case OP_CALL:
    case OP_CALLF:
        return acc == MMU_WRITE || !(i->flags & INSN_MEM) || i->seg == SEG_SS;
    case OP_POP:
        return acc == MMU_READ || !(i->flags & INSN_MEM) || i->seg == SEG_SS;
    case OP_PUSHSEG:
    case OP_POPSEG:
    case OP_PUSHA:
    case OP_POPA:
    case OP_PUSHF:
    case OP_POPF:
    case OP_RET:
    case OP_RETF:
    case OP_IRET:
    case OP_ENTER:
    case OP_LEAVE:
        return true;
    default:
        return i->flags & INSN_MEM && i->seg == SEG_SS;
    }
}

uint64_t mmu_canonical(struct soft_cpu *c, uint64_t lin, enum mmu_access acc)
{
    if (!cpu_long_mode(c)) {
        return (uint32_t)lin;
    }
    if (unlikely(lin + (1ull << 47) >= 1ull << 48)) {
        cpu_raise_err(c, by_stack(c, acc) ? EXC_SS : EXC_GP, 0);
    }
    return lin;
}

bool mmu_is_lapic(const struct soft_cpu *c, gpa_t gpa)
{
    uint64_t base = c->st.lapic.base_msr;
    return ((gpa ^ base) & 0x000ffffffffff000ull) == 0 && (base & 0xc00) == 0x800;
}

static void large_note(struct soft_cpu *c, unsigned ctx, uint64_t lin, unsigned shift)
{
    struct mmu_cpu *mc = mmu_of(c);
    if (shift == 30) {
        mc->large_1g |= 1ull << ((lin >> 30) & 63);
    } else {
        mc->large_4m[((lin >> 22) & 1023) / 64] |= 1ull << ((lin >> 22) & 63);
    }
    if (ctx < N_TLBS) {
        c->has_large[ctx] = true;
    }
}

static void entry_clear(struct tlb_entry *e, unsigned slot)
{
    e->tag_r = e->tag_w = TLB_INVALID(slot);
    e->gpa_flags = 0;
}

static void tlb_fill(struct soft_cpu *c, unsigned ctx, uint64_t lin, const struct walk_leaf *leaf, struct ram_slot *s,
                     enum mmu_access acc)
{
    struct mmu_cpu *mc = mmu_of(c);
    unsigned slot = (lin >> PAGE_SHIFT) & (TLB_SIZE - 1);
    struct tlb_entry *e = &c->tlbs[ctx][slot];
    uint64_t page = lin & ~(uint64_t)(PAGE_SIZE - 1);
    uint64_t flags = (leaf->global ? TLB_F_GLOBAL : 0) | (leaf->shift > PAGE_SHIFT ? TLB_F_LARGE : 0);
    bool w = leaf->dirty && walk_may_write(c, leaf, ctx);
    if (w && s->slot->dirty) {
        if (acc == MMU_WRITE) {
            ram_mark_dirty(s, leaf->gpa);
        } else {
            w = false;                  /* logged: the first store comes by here */
        }
    }
    if (w && (s->readonly || atomic_load(&ram_page(s, leaf->gpa)->tracked))) {
        flags |= TLB_F_CODE;
        w = false;
    }
    e->tag_r = page;
    e->tag_w = w ? page : TLB_INVALID(slot);
    e->addend = (uint64_t)(uintptr_t)ram_host(s, leaf->gpa) - page;
    e->gpa_flags = leaf->gpa | flags;
    mc->tlb_used[ctx][slot / 64] |= 1ull << (slot % 64);
    if (flags & TLB_F_LARGE) {
        large_note(c, ctx, lin, leaf->shift);
    }
    c->stats.tlb_misses++;
}

/* A write to a page of RAM that has no write tag but all rights: ROM, tracked, or no longer tracked. */
static void write_watched(struct ram_slot *s, struct xlat *x)
{
    x->rom = s->readonly;
    x->host = s->readonly ? NULL : ram_host(s, x->gpa);
    struct code_page *pg = ram_page(s, x->gpa);
    x->page = !s->readonly && atomic_load(&pg->tracked) ? pg : NULL;
}

void mmu_xlat(struct soft_cpu *c, unsigned ctx, uint64_t lin, enum mmu_access acc, struct xlat *x)
{
    struct tlb_entry *e = &c->tlbs[ctx][(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)];
    uint64_t in_page = lin & (PAGE_SIZE - 1), page = lin - in_page;
    x->page = NULL;
    x->rom = false;
    if ((acc == MMU_WRITE ? e->tag_w : e->tag_r) == page) {
        x->gpa = (e->gpa_flags & ~(uint64_t)(PAGE_SIZE - 1)) | in_page;
        x->host = (uint8_t *)(uintptr_t)(lin + e->addend);
        return;
    }
    struct code_map *m = c->vm->code;
    if (acc == MMU_WRITE && e->tag_r == page && e->gpa_flags & TLB_F_CODE) {
        x->gpa = (e->gpa_flags & ~(uint64_t)(PAGE_SIZE - 1)) | in_page;
        struct ram_slot *s = ram_find(m, x->gpa);
        write_watched(s, x);
        if (x->host) {
            ram_mark_dirty(s, x->gpa);
        }
        if (x->host && !x->page) {
            e->gpa_flags &= ~(uint64_t)TLB_F_CODE;
            e->tag_w = page;
        }
        return;
    }
    struct walk_leaf leaf;
    enum walk_result r = mmu_walk(c, lin, ctx, acc, true, &leaf);
    if (unlikely(r != WALK_OK)) {
        cpu_raise_pf(c, lin, walk_error_code(c, r, ctx, acc));
    }
    x->gpa = leaf.gpa | in_page;
    struct ram_slot *s = ram_find(m, leaf.gpa);
    if (unlikely(!s) || unlikely(mmu_is_lapic(c, leaf.gpa))) {
        x->host = NULL;
        return;
    }
    tlb_fill(c, ctx, lin, &leaf, s, acc);
    x->host = ram_host(s, x->gpa);
    if (acc == MMU_WRITE && e->tag_w != page) {
        write_watched(s, x);
    }
}

gpa_t mmu_fetch(struct soft_cpu *c, uint64_t lin, const uint8_t **host)
{
    lin = mmu_canonical(c, lin, MMU_EXEC);
    struct mmu_cpu *mc = mmu_of(c);
    unsigned t = c->cpl == 3, slot = (lin >> PAGE_SHIFT) & (ITLB_SIZE - 1);
    struct itlb_entry *e = &mc->itlb[t][slot];
    uint64_t in_page = lin & (PAGE_SIZE - 1);
    if (e->tag != lin - in_page) {
        struct walk_leaf leaf;
        unsigned ctx = t ? TLB_USER : TLB_SUPER_AC;
        enum walk_result r = mmu_walk(c, lin, ctx, MMU_EXEC, true, &leaf);
        if (unlikely(r != WALK_OK)) {
            cpu_raise_pf(c, lin, walk_error_code(c, r, ctx, MMU_EXEC));
        }
        struct ram_slot *s = ram_find(c->vm->code, leaf.gpa);
        *e = (struct itlb_entry){ .tag = lin - in_page, .gpa = leaf.gpa, .global = leaf.global,
                                  .host = s && !mmu_is_lapic(c, leaf.gpa) ? ram_host(s, leaf.gpa) : NULL };
        mc->itlb_used[t][slot / 64] |= 1ull << (slot % 64);
        if (leaf.shift > PAGE_SHIFT) {
            large_note(c, N_TLBS, lin, leaf.shift);
        }
    }
    *host = e->host ? e->host + in_page : NULL;
    return e->gpa | in_page;
}

void mmu_jc_fill(struct soft_cpu *c, uint64_t lin, struct soft_block *blk)
{
    struct mmu_cpu *mc = mmu_of(c);
    const struct itlb_entry *e = &mc->itlb[c->cpl == 3][(lin >> PAGE_SHIFT) & (ITLB_SIZE - 1)];
    unsigned i = jc_index(lin);
    c->jc[i] = (struct jc_entry){ lin, blk };
    if (e->tag == (lin & ~(uint64_t)(PAGE_SIZE - 1)) && e->global) {
        mc->jc_global |= 1ull << (i >> JC_GROUP_BITS);
    } else {
        mc->jc_local |= 1ull << (i >> JC_GROUP_BITS);
    }
}

static void jc_clear_groups(struct soft_cpu *c, uint64_t groups)
{
    for (; groups; groups &= groups - 1) {
        memset(&c->jc[(unsigned)__builtin_ctzll(groups) << JC_GROUP_BITS], 0, sizeof(struct jc_entry) << JC_GROUP_BITS);
    }
}

void mmu_jc_flush(struct soft_cpu *c)
{
    struct mmu_cpu *mc = mmu_of(c);
    jc_clear_groups(c, mc->jc_local | mc->jc_global);
    mc->jc_local = mc->jc_global = 0;
}

/* Calls for each filled slot of context t whose entry must go; keeps the used bits of the others. */
static void tlb_flush(struct soft_cpu *c, unsigned t, bool global_too)
{
    uint64_t *used = mmu_of(c)->tlb_used[t];
    for (unsigned w = 0; w < TLB_SIZE / 64; w++) {
        uint64_t keep = 0;
        for (uint64_t left = used[w]; left; left &= left - 1) {
            unsigned slot = w * 64 + (unsigned)__builtin_ctzll(left);
            struct tlb_entry *e = &c->tlbs[t][slot];
            if (!global_too && e->gpa_flags & TLB_F_GLOBAL) {
                keep |= left & -left;
            } else {
                entry_clear(e, slot);
            }
        }
        used[w] = keep;
    }
}

static void itlb_flush(struct soft_cpu *c, unsigned t, bool global_too)
{
    struct mmu_cpu *mc = mmu_of(c);
    for (unsigned w = 0; w < ITLB_SIZE / 64; w++) {
        uint64_t keep = 0;
        for (uint64_t left = mc->itlb_used[t][w]; left; left &= left - 1) {
            unsigned slot = w * 64 + (unsigned)__builtin_ctzll(left);
            if (!global_too && mc->itlb[t][slot].global) {
                keep |= left & -left;
            } else {
                mc->itlb[t][slot].tag = TLB_INVALID(slot);
            }
        }
        mc->itlb_used[t][w] = keep;
    }
}

void mmu_flush_all(struct soft_cpu *c)
{
    struct mmu_cpu *mc = mmu_of(c);
    for (unsigned t = 0; t < N_TLBS; t++) {
        tlb_flush(c, t, true);
        c->has_large[t] = false;
    }
    for (unsigned t = 0; t < N_ITLBS; t++) {
        itlb_flush(c, t, true);
    }
    memset(mc->large_4m, 0, sizeof(mc->large_4m));
    mc->large_1g = 0;
    mmu_jc_flush(c);
    c->stats.tlb_flushes++;
}

void mmu_flush_nonglobal(struct soft_cpu *c)
{
    struct mmu_cpu *mc = mmu_of(c);
    for (unsigned t = 0; t < N_TLBS; t++) {
        tlb_flush(c, t, false);
    }
    for (unsigned t = 0; t < N_ITLBS; t++) {
        itlb_flush(c, t, false);
    }
    jc_clear_groups(c, mc->jc_local);
    mc->jc_global &= ~mc->jc_local;
    mc->jc_local = 0;
    c->stats.tlb_flushes++;
}

/* Drops every entry cut from a large mapping that may contain lin; `shift` says how far around it. */
static void flush_large(struct soft_cpu *c, uint64_t lin, unsigned shift)
{
    struct mmu_cpu *mc = mmu_of(c);
    for (unsigned t = 0; t < N_TLBS; t++) {
        for (unsigned slot = 0; slot < TLB_SIZE; slot++) {
            struct tlb_entry *e = &c->tlbs[t][slot];
            if (e->gpa_flags & TLB_F_LARGE && (e->tag_r ^ lin) >> shift == 0) {
                entry_clear(e, slot);
            }
        }
    }
    for (unsigned t = 0; t < N_ITLBS; t++) {
        for (unsigned slot = 0; slot < ITLB_SIZE; slot++) {
            if ((mc->itlb[t][slot].tag ^ lin) >> shift == 0) {
                mc->itlb[t][slot].tag = TLB_INVALID(slot);
            }
        }
    }
    mmu_jc_flush(c);
}

void mmu_flush_page(struct soft_cpu *c, uint64_t lin)
{
    struct mmu_cpu *mc = mmu_of(c);
    uint64_t page = lin & ~(uint64_t)(PAGE_SIZE - 1);
    unsigned slot = (lin >> PAGE_SHIFT) & (TLB_SIZE - 1), islot = (lin >> PAGE_SHIFT) & (ITLB_SIZE - 1);
    for (unsigned t = 0; t < N_TLBS; t++) {
        if (c->tlbs[t][slot].tag_r == page) {
            entry_clear(&c->tlbs[t][slot], slot);
        }
    }
    for (unsigned t = 0; t < N_ITLBS; t++) {
        if (mc->itlb[t][islot].tag == page) {
            mc->itlb[t][islot].tag = TLB_INVALID(islot);
        }
    }
    /* a block may begin on the page before and end on this one */
    uint64_t groups = 1ull << (jc_index(page) >> JC_GROUP_BITS) | 1ull << (jc_index(page - 1) >> JC_GROUP_BITS);
    jc_clear_groups(c, groups & (mc->jc_local | mc->jc_global));
    if (mc->large_1g >> ((lin >> 30) & 63) & 1) {
        flush_large(c, lin, 30);
    } else if (mc->large_4m[((lin >> 22) & 1023) / 64] >> ((lin >> 22) & 63) & 1) {
        flush_large(c, lin, 22);
    }
    c->stats.tlb_flushes++;
}

static bool pdptes_load(struct soft_cpu *c)
{
    uint64_t pdpte[4];
    gpa_t at = c->st.cr3 & 0xffffffe0u;
    struct ram_slot *s = ram_find(c->vm->code, at);
    uint64_t rsvd = 0x1e6 | ~((1ull << c->vm->model.phys_bits) - 1);
    for (unsigned i = 0; i < 4; i++) {
        pdpte[i] = s ? READ_ONCE(*(const uint64_t *)(const void *)(ram_host(s, at) + 8 * i)) : ~0ull;
        if (pdpte[i] & 1 && pdpte[i] & rsvd) {
            return false;
        }
    }
    memcpy(c->st.pdpte, pdpte, sizeof(pdpte));
    c->pdpte_cr3 = c->st.cr3;
    return true;
}

void mmu_cr3_loaded(struct soft_cpu *c, bool keep)
{
    (void)keep;     /* entries carry no PCID: what belongs to another one must go in any case */
    if (mmu_paging(c) && c->st.cr4 & CR4_PAE && !cpu_long_mode(c) && !pdptes_load(c)) {
        cpu_raise_err(c, EXC_GP, 0);
    }
    mmu_flush_nonglobal(c);
}

/* Any breakpoint on reads or writes of memory? */
static bool dr7_data(const struct x86_state *st)
{
    for (unsigned i = 0; i < 4; i++) {
        if (st->dr7 >> (2 * i) & 3 && st->dr7 >> (16 + 4 * i) & 1) {
            return true;
        }
    }
    return false;
}

void mmu_select_context(struct soft_cpu *c)
{
    c->watch = 0;
    if (unlikely(c->st.dr7 & 0xff) && dr7_data(&c->st)) {
        c->watch |= WATCH_DATA;
    }
    if (unlikely(c->st.rflags & X86_AC) && c->cpl == 3 && c->st.cr0 & CR0_AM) {
        c->watch |= WATCH_ALIGN;
    }
    c->tlb = c->tlbs[c->watch ? TLB_NONE : mmu_ctx(c)];
}

bool mmu_translate_debug(struct soft_cpu *c, uint64_t lin, gpa_t *gpa)
{
    struct walk_leaf leaf;
    if (cpu_long_mode(c) && lin + (1ull << 47) >= 1ull << 48) {
        return false;
    }
    if (mmu_walk(c, cpu_long_mode(c) ? lin : (uint32_t)lin, mmu_ctx(c), MMU_READ, false, &leaf) != WALK_OK) {
        return false;
    }
    *gpa = leaf.gpa | (lin & (PAGE_SIZE - 1));
    return true;
}
