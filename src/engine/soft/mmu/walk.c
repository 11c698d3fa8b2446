/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's page tables: no paging, 32-bit with PSE, PAE, 4-level. Sources: SDM vol. 3A §4.3 (32-bit), §4.4 (PAE),
 * §4.5 (4-level), §4.6 (access rights), §4.7 (error codes), §4.8 (accessed and dirty flags).
 *
 * Upper entries get their A bit as they are used; the leaf gets A, and D for a write, only when the access is allowed.
 * Both by compare-and-exchange on the guest's entry: if it changed under us the walk starts again.
 */
#include "engine/soft/mmu/mmu-int.h"

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 1 << 5, PTE_D = 1 << 6, PTE_PS = 1 << 7, PTE_G = 1 << 8 };
#define PTE_NX (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull

bool walk_may_write(const struct soft_cpu *c, const struct walk_leaf *leaf, unsigned ctx)
{
    return leaf->write || (ctx != TLB_USER && !(c->st.cr0 & CR0_WP));
}

static bool denied(const struct soft_cpu *c, const struct walk_leaf *leaf, unsigned ctx, enum mmu_access acc)
{
    if (ctx == TLB_USER && !leaf->user) {
        return true;
    }
    if (acc == MMU_EXEC) {
        return leaf->nx || (ctx != TLB_USER && leaf->user && c->st.cr4 & CR4_SMEP);
    }
    if (ctx == TLB_SUPER && leaf->user) {
        return true;
    }
    return acc == MMU_WRITE && !walk_may_write(c, leaf, ctx);
}

uint32_t walk_error_code(const struct soft_cpu *c, enum walk_result why, unsigned ctx, enum mmu_access acc)
{
    uint32_t e = (ctx == TLB_USER ? PF_U : 0) | (acc == MMU_WRITE ? PF_W : 0);
    if (acc == MMU_EXEC && (c->st.cr4 & CR4_SMEP || (c->st.cr4 & CR4_PAE && c->st.efer & EFER_NXE))) {
        e |= PF_I;
    }
    return e | (why == WALK_NOT_PRESENT ? 0 : why == WALK_RESERVED ? PF_P | PF_RSVD : PF_P);
}

/* A page-table entry was changed by the walk: the page may be logged or, of all things, hold code. */
static void entry_written(struct code_map *m, gpa_t gpa, unsigned size)
{
    struct ram_slot *s = ram_find(m, gpa);
    ram_mark_dirty(s, gpa);
    struct code_page *pg = ram_page(s, gpa);
    if (unlikely(atomic_load_explicit(&pg->tracked, memory_order_relaxed))) {
        code_page_hit(pg, gpa & (PAGE_SIZE - 1), size);
    }
}

/* Host address of an entry; NULL outside RAM (it then reads as all ones). *rom: A and D cannot be set there. */
static void *entry_ptr(struct code_map *m, gpa_t gpa, bool *rom)
{
    struct ram_slot *s = ram_find(m, gpa);
    if (!s) {
        return NULL;
    }
    *rom = s->readonly;
    return ram_host(s, gpa);
}

/* ORs `bits` into an entry that still holds `old`. False: it changed, walk again. */
static bool entry_set64(struct code_map *m, gpa_t gpa, uint64_t *p, uint64_t old, uint64_t bits)
{
    if (!__atomic_compare_exchange_n(p, &old, old | bits, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        return false;
    }
    entry_written(m, gpa, 8);
    return true;
}

static bool entry_set32(struct code_map *m, gpa_t gpa, uint32_t *p, uint32_t old, uint32_t bits)
{
    if (!__atomic_compare_exchange_n(p, &old, old | bits, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        return false;
    }
    entry_written(m, gpa, 4);
    return true;
}

enum { WALK_AGAIN = 100 };

/* PAE below the PDPTE registers, and 4-level. */
static int walk64(struct soft_cpu *c, uint64_t lin, unsigned ctx, enum mmu_access acc, bool touch, struct walk_leaf *leaf)
{
    struct code_map *m = c->vm->code;
    bool lma = cpu_long_mode(c);
    unsigned phys = c->vm->model.phys_bits;
    uint64_t rsvd_hi = (lma ? PTE_ADDR : PTE_ADDR | (0x7ffull << 52)) & ~((1ull << phys) - 1);
    if (!(c->st.efer & EFER_NXE)) {
        rsvd_hi |= PTE_NX;
    }
    uint64_t table = c->st.cr3;
    unsigned level = 4;
    if (!lma) {
        table = c->st.pdpte[(lin >> 30) & 3];
        if (!(table & PTE_P)) {
            return WALK_NOT_PRESENT;
        }
        level = 2;
    }
    leaf->user = leaf->write = true;
    leaf->nx = false;
    for (;; level--) {
        unsigned shift = 12 + 9 * (level - 1);
        gpa_t at = (table & PTE_ADDR) + ((lin >> shift) & 511) * 8;
        bool rom = false;
        uint64_t *p = entry_ptr(m, at, &rom);
        uint64_t e = p ? __atomic_load_n(p, __ATOMIC_RELAXED) : ~0ull;
        if (!(e & PTE_P)) {
            return WALK_NOT_PRESENT;
        }
        bool last = level == 1 || (e & PTE_PS && (level == 2 || (level == 3 && m->gbpages)));
        uint64_t rsvd = rsvd_hi;
        if (level > 1 && e & PTE_PS) {
            rsvd |= last ? ((1ull << shift) - 1) & ~0x1fffull : (uint64_t)PTE_PS;
        }
        if (e & rsvd) {
            return WALK_RESERVED;
        }
        leaf->user &= (e & PTE_U) != 0;
        leaf->write &= (e & PTE_W) != 0;
        leaf->nx |= (e & PTE_NX) != 0;
        if (!last) {
            if (touch && !(e & PTE_A) && p && !rom && !entry_set64(m, at, p, e, PTE_A)) {
                return WALK_AGAIN;
            }
            table = e;
            continue;
        }
        if (denied(c, leaf, ctx, acc)) {
            return WALK_DENIED;
        }
        uint64_t need = PTE_A | (acc == MMU_WRITE ? PTE_D : 0);
        if (touch && (e & need) != need && p && !rom) {
            if (!entry_set64(m, at, p, e, need)) {
                return WALK_AGAIN;
            }
            e |= need;
        }
        uint64_t in = (1ull << shift) - 1;
        leaf->gpa = ((e & PTE_ADDR & ~in) | (lin & in)) & ~(uint64_t)(PAGE_SIZE - 1);
        leaf->shift = (uint8_t)shift;
        leaf->global = e & PTE_G && c->st.cr4 & CR4_PGE;
        leaf->dirty = (e & PTE_D) != 0;
        return WALK_OK;
    }
}

static int walk32(struct soft_cpu *c, uint64_t lin, unsigned ctx, enum mmu_access acc, bool touch, struct walk_leaf *leaf)
{
    struct code_map *m = c->vm->code;
    bool rom = false;
    gpa_t at = (c->st.cr3 & 0xfffff000u) + ((lin >> 22) & 1023) * 4;
    uint32_t *p = entry_ptr(m, at, &rom);
    uint32_t e = p ? __atomic_load_n(p, __ATOMIC_RELAXED) : ~0u;
    if (!(e & PTE_P)) {
        return WALK_NOT_PRESENT;
    }
    leaf->nx = false;
    leaf->user = (e & PTE_U) != 0;
    leaf->write = (e & PTE_W) != 0;
    leaf->shift = 12;
    bool large = e & PTE_PS && c->st.cr4 & CR4_PSE;
    if (large) {
        unsigned phys = m->pse36 ? (unsigned)min_u64(c->vm->model.phys_bits, 40) : 32;
        if (e & ((1u << 22) - (1u << (phys - 19)))) {   /* bits 21:(M-19) */
            return WALK_RESERVED;
        }
        leaf->shift = 22;
    } else {
        if (touch && !(e & PTE_A) && p && !rom && !entry_set32(m, at, p, e, PTE_A)) {
            return WALK_AGAIN;
        }
        at = (e & 0xfffff000u) + ((lin >> 12) & 1023) * 4;
        rom = false;
        p = entry_ptr(m, at, &rom);
        e = p ? __atomic_load_n(p, __ATOMIC_RELAXED) : ~0u;
        if (!(e & PTE_P)) {
            return WALK_NOT_PRESENT;
        }
        leaf->user &= (e & PTE_U) != 0;
        leaf->write &= (e & PTE_W) != 0;
    }
    if (denied(c, leaf, ctx, acc)) {
        return WALK_DENIED;
    }
    uint32_t need = PTE_A | (acc == MMU_WRITE ? PTE_D : 0);
    if (touch && (e & need) != need && p && !rom) {
        if (!entry_set32(m, at, p, e, need)) {
            return WALK_AGAIN;
        }
        e |= need;
    }
    leaf->gpa = large ? (e & 0xffc00000u) | ((uint64_t)(e & 0x1fe000) << 19) | (lin & 0x3ff000) : e & 0xfffff000u;
    leaf->global = e & PTE_G && c->st.cr4 & CR4_PGE;
    leaf->dirty = (e & PTE_D) != 0;
    return WALK_OK;
}

enum walk_result mmu_walk(struct soft_cpu *c, uint64_t lin, unsigned ctx, enum mmu_access acc, bool touch, struct walk_leaf *leaf)
{
    if (!mmu_paging(c)) {
        *leaf = (struct walk_leaf){ .gpa = lin & 0xfffff000u, .shift = 12, .user = true, .write = true, .dirty = true };
        return WALK_OK;
    }
    int r;
    do {
        r = c->st.cr4 & CR4_PAE ? walk64(c, lin, ctx, acc, touch, leaf) : walk32(c, lin, ctx, acc, touch, leaf);
    } while (r == WALK_AGAIN);
    return (enum walk_result)r;
}
