/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Private to mmu/: the walker's answer, RAM as the software CPU sees it, what is kept for each vCPU beside its TLB. */
#ifndef LODGE_SOFT_MMU_INT_H
#define LODGE_SOFT_MMU_INT_H

#include "engine/soft/mmu/mmu.h"

/* A memslot with its code pages. Changes only while the world stands still (code_map_slot_set). */
struct ram_slot {
    gpa_t gpa;
    uint64_t size;
    uint8_t *hva;
    bool readonly;
    const struct memslot *slot;         /* for the dirty bitmap, which comes and goes */
    struct code_page *pages;            /* one a page, zero pages until touched */
};

enum { ITLB_SIZE = 128, N_ITLBS = 2 /* supervisor, user */ };
struct itlb_entry {
    uint64_t tag;                       /* linear page; TLB_INVALID(slot) when empty */
    gpa_t gpa;
    const uint8_t *host;                /* NULL: MMIO */
    bool global;
};

/* Only the vCPU's own thread touches it, or whoever stopped the world. */
struct mmu_cpu {
    struct itlb_entry itlb[N_ITLBS][ITLB_SIZE];
    uint64_t itlb_used[N_ITLBS][ITLB_SIZE / 64];
    uint64_t tlb_used[N_TLBS][TLB_SIZE / 64];   /* slots filled since the last flush: a flush walks these only */
    uint64_t jc_local, jc_global;       /* jump-cache groups filled from private and from global pages */
    /* linear regions from which pages of a large mapping were cut; false positives only cost a scan */
    uint64_t large_4m[1024 / 64];       /* bit (lin >> 22) % 1024 */
    uint64_t large_1g;                  /* bit (lin >> 30) % 64 */
    bool in_world, exclusive;           /* world.c, guarded by world_lock */
};

struct code_map {
    struct soft_vm *vm;
    struct ram_slot ram[MEM_MAX_SLOTS];
    unsigned n_ram;
    bool pse36, gbpages;                /* from the model's CPUID */
    struct mmu_cpu *cpus;               /* vm->n_cpus */
    struct retired *retired;            /* code-page arrays of removed slots: old blocks still point into them */
    /* world.c */
    pthread_mutex_t world_lock;
    pthread_cond_t world_cond;
    unsigned n_in_world;
    bool world_stopped;
    uint32_t drops;                     /* mmu_code_dropped was called so often */
};

enum walk_result { WALK_OK, WALK_NOT_PRESENT, WALK_RESERVED, WALK_DENIED };
struct walk_leaf {
    gpa_t gpa;                          /* of the 4 KiB page */
    uint8_t shift;                      /* of the mapping: 12, 21, 22, 30 */
    bool user, write, nx, global, dirty;
};
/*
 * Walks the guest's tables for one page. touch: sets A on the way and A, D in the leaf when the access is allowed.
 * ctx: TLB_USER, TLB_SUPER (SMAP enforced) or TLB_SUPER_AC.
 */
enum walk_result mmu_walk(struct soft_cpu *c, uint64_t lin, unsigned ctx, enum mmu_access acc, bool touch, struct walk_leaf *leaf);
/* May a page with these rights be written in this context? */
bool walk_may_write(const struct soft_cpu *c, const struct walk_leaf *leaf, unsigned ctx);
uint32_t walk_error_code(const struct soft_cpu *c, enum walk_result why, unsigned ctx, enum mmu_access acc);

static inline struct mmu_cpu *mmu_of(const struct soft_cpu *c)
{
    return &c->vm->code->cpus[c->index];
}

/* The slot that holds gpa, or NULL. The first slots are the big ones. */
static inline struct ram_slot *ram_find(struct code_map *m, gpa_t gpa)
{
    for (unsigned i = 0; i < m->n_ram; i++) {
        if (gpa - m->ram[i].gpa < m->ram[i].size) {
            return &m->ram[i];
        }
    }
    return NULL;
}

static inline struct code_page *ram_page(const struct ram_slot *s, gpa_t gpa)
{
    return &s->pages[(gpa - s->gpa) >> PAGE_SHIFT];
}

static inline uint8_t *ram_host(const struct ram_slot *s, gpa_t gpa)
{
    return s->hva + (gpa - s->gpa);
}

static inline void ram_mark_dirty(const struct ram_slot *s, gpa_t gpa)
{
    _Atomic uint64_t *bits = s->slot->dirty;
    if (unlikely(bits != NULL)) {
        uint64_t i = (gpa - s->gpa) >> PAGE_SHIFT;
        atomic_fetch_or_explicit(&bits[i / 64], 1ull << (i % 64), memory_order_relaxed);
    }
}

/* Lines of a page that [off, off + len) touches; len >= 1, within the page. */
static inline uint64_t code_line_mask(unsigned off, unsigned len)
{
    unsigned first = off >> 6, last = (off + len - 1) >> 6;
    return (~0ull << first) & (~0ull >> (63 - last));
}
/* After bytes of a page were written: if decoded lines were hit, makes the page's blocks stale. True then. */
bool code_page_hit(struct code_page *pg, unsigned off, unsigned len);

/* What a linear page is: filled by mmu_xlat. */
struct xlat {
    gpa_t gpa;                          /* of the byte asked for */
    uint8_t *host;                      /* NULL: MMIO, or a write to ROM */
    struct code_page *page;             /* set for a write to a tracked page */
    bool rom;                           /* a write that goes nowhere */
};
/* Translates one byte's page for an access that stays in it; raises. Fills the TLB of ctx. */
void mmu_xlat(struct soft_cpu *c, unsigned ctx, uint64_t lin, enum mmu_access acc, struct xlat *x);
/* Canonical form in long mode (raises #GP or #SS), 32 bits elsewhere. */
uint64_t mmu_canonical(struct soft_cpu *c, uint64_t lin, enum mmu_access acc);

bool mmu_is_lapic(const struct soft_cpu *c, gpa_t gpa);
uint64_t mmu_io_load(struct soft_cpu *c, gpa_t gpa, unsigned size);
void mmu_io_store(struct soft_cpu *c, gpa_t gpa, unsigned size, uint64_t val);

/* By CPL, SMAP and EFLAGS.AC; c->tlb is its table, but while c->watch. */
static inline unsigned mmu_ctx(const struct soft_cpu *c)
{
    bool smap = c->st.cr4 & CR4_SMAP && !(c->st.rflags & X86_AC);
    return c->cpl == 3 ? TLB_USER : smap ? TLB_SUPER : TLB_SUPER_AC;
}
/* Implicit accesses to system structures: SMAP holds whatever EFLAGS.AC says (SDM vol. 3A §4.6.1). */
static inline unsigned mmu_sys_ctx(const struct soft_cpu *c)
{
    return c->st.cr4 & CR4_SMAP ? TLB_SUPER : TLB_SUPER_AC;
}

static inline bool mmu_paging(const struct soft_cpu *c)
{
    return (c->st.cr0 & CR0_PG) != 0;
}

#endif
