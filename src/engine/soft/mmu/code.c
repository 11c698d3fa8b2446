/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which physical lines hold decoded instructions, so that a store to them makes the blocks stale.
 *
 * Invariants, with a builder B and a writer W on different threads:
 * (1) while a page is tracked no vCPU has a write tag for it: every store to it comes to tracked_written() or code_written().
 * (2) B marks the lines, reads gen, checks that page and lines are still tracked and marked, and reads the bytes last.
 * (3) W stores, fences, looks at the lines; if one is hit it clears them all and then changes gen, in this order.
 * So either W sees B's mark, and B's block is stale (its gen was read before W's change) or B marks again; or W's store
 * comes before B's bytes. Untracking follows (3) as well: tracked, lines, then gen.
 */
#include <sys/mman.h>

#include "engine/soft/mmu/mmu-int.h"

struct retired {
    struct retired *next;
    struct code_page *pages;
    size_t size;
};

static size_t pages_size(uint64_t ram_size)
{
    return (size_t)(ram_size >> PAGE_SHIFT) * sizeof(struct code_page);
}

bool code_page_hit(struct code_page *pg, unsigned off, unsigned len)
{
    if (likely(!(atomic_load(&pg->lines) & code_line_mask(off, len)))) {
        return false;
    }
    atomic_store(&pg->lines, 0);
    atomic_fetch_add(&pg->gen, 1);
    return true;
}

void code_untrack(struct code_page *pg)
{
    atomic_store(&pg->tracked, false);
    atomic_store(&pg->lines, 0);
    atomic_fetch_add(&pg->gen, 1);
}

static const struct cpuid_leaf *model_leaf(const struct cpu_model *m, uint32_t leaf)
{
    for (unsigned i = 0; i < m->n_leaves; i++) {
        if (m->leaves[i].leaf == leaf) {
            return &m->leaves[i];
        }
    }
    return NULL;
}

struct code_map *code_map_create(struct soft_vm *vm)
{
    struct code_map *m = new0(struct code_map);
    const struct cpuid_leaf *l1 = model_leaf(&vm->model, 1), *l8 = model_leaf(&vm->model, 0x80000001);
    m->vm = vm;
    m->pse36 = l1 && l1->edx & (1u << 17);
    m->gbpages = l8 && l8->edx & (1u << 26);
    m->cpus = new0_array(struct mmu_cpu, vm->n_cpus);
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        for (unsigned t = 0; t < N_ITLBS; t++) {
            for (unsigned slot = 0; slot < ITLB_SIZE; slot++) {
                m->cpus[i].itlb[t][slot].tag = TLB_INVALID(slot);
            }
        }
    }
    pthread_mutex_init(&m->world_lock, NULL);
    pthread_cond_init(&m->world_cond, NULL);
    vm->code = m;
    return m;
}

void mmu_cpu_init(struct soft_cpu *c)
{
    for (unsigned t = 0; t <= TLB_NONE; t++) {
        for (unsigned slot = 0; slot < TLB_SIZE; slot++) {
            c->tlbs[t][slot].tag_r = c->tlbs[t][slot].tag_w = TLB_INVALID(slot);
        }
    }
    c->tlb = c->tlbs[TLB_SUPER_AC];
}

void code_map_destroy(struct code_map *m)
{
    if (!m) {
        return;
    }
    for (unsigned i = 0; i < m->n_ram; i++) {
        munmap(m->ram[i].pages, pages_size(m->ram[i].size));
    }
    for (struct retired *r = m->retired, *next; r; r = next) {
        next = r->next;
        munmap(r->pages, r->size);
        free(r);
    }
    pthread_mutex_destroy(&m->world_lock);
    pthread_cond_destroy(&m->world_cond);
    free(m->cpus);
    free(m);
}

static void retire(struct code_map *m, struct ram_slot *old)
{
    struct retired *r = new0(struct retired);
    *r = (struct retired){ m->retired, old->pages, pages_size(old->size) };
    m->retired = r;
    for (uint64_t i = 0; i < old->size >> PAGE_SHIFT; i++) {
        if (atomic_load_explicit(&old->pages[i].tracked, memory_order_relaxed)) {
            code_untrack(&old->pages[i]);
        }
    }
}

static bool slot_add(struct code_map *m, const struct memslot *s, struct err *err)
{
    void *p = mmap(NULL, pages_size(s->size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        return err_set(err, ERR_NO_MEMORY, "no address space for the code map of %llu MiB of RAM",
                       (unsigned long long)(s->size / MIB));
    }
    struct ram_slot r = { s->gpa, s->size, s->hva, s->readonly, s, p };
    unsigned at = m->n_ram++;           /* biggest first: ram_find looks there first */
    for (; at > 0 && m->ram[at - 1].size < r.size; at--) {
        m->ram[at] = m->ram[at - 1];
    }
    m->ram[at] = r;
    return true;
}

static bool slot_set(struct code_map *m, const struct memslot *s, struct err *err)
{
    for (unsigned i = 0; i < m->n_ram; i++) {
        struct ram_slot *r = &m->ram[i];
        if (r->slot != s) {
            continue;
        }
        if (s->size == r->size && s->gpa == r->gpa && s->hva == r->hva) {
            return true;
        }
        retire(m, r);
        m->n_ram--;
        memmove(r, r + 1, (m->n_ram - i) * sizeof(*r));
        break;
    }
    return !s->size || slot_add(m, s, err);
}

bool code_map_slot_set(struct code_map *m, const struct memslot *s, struct err *err)
{
    struct soft_vm *vm = m->vm;
    mmu_world_stop(vm);
    bool ok = slot_set(m, s, err);
    for (unsigned i = 0; vm->cpus && i < vm->n_cpus; i++) {
        if (vm->cpus[i]) {
            mmu_flush_all(vm->cpus[i]);
        }
    }
    mmu_world_start(vm);
    return ok;
}

struct code_page *code_page_get(struct code_map *m, gpa_t gpa)
{
    struct ram_slot *s = ram_find(m, gpa);
    return s ? ram_page(s, gpa) : NULL;
}

/* The world stands still. */
static void drop_write_tags(struct soft_vm *vm, gpa_t page)
{
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        struct soft_cpu *c = vm->cpus[i];
        struct mmu_cpu *mc = mmu_of(c);
        for (unsigned t = 0; t < N_TLBS; t++) {
            for (unsigned w = 0; w < TLB_SIZE / 64; w++) {
                for (uint64_t left = mc->tlb_used[t][w]; left; left &= left - 1) {
                    unsigned slot = w * 64 + (unsigned)__builtin_ctzll(left);
                    struct tlb_entry *e = &c->tlbs[t][slot];
                    if ((e->gpa_flags & ~(uint64_t)(PAGE_SIZE - 1)) == page && e->tag_w == e->tag_r) {
                        e->tag_w = TLB_INVALID(slot);
                        e->gpa_flags |= TLB_F_CODE;
                    }
                }
            }
        }
    }
}

void code_drop_write_tags(struct soft_vm *vm, struct soft_cpu *c, gpa_t page)
{
    if (c) {
        mmu_exclusive_begin(c);
    } else {
        mmu_world_stop(vm);
    }
    drop_write_tags(vm, page & ~(uint64_t)(PAGE_SIZE - 1));
    if (c) {
        mmu_exclusive_end(c);
    } else {
        mmu_world_start(vm);
    }
}

struct code_page *code_track(struct soft_cpu *c, gpa_t gpa, unsigned len, uint32_t *gen)
{
    struct ram_slot *s = ram_find(c->vm->code, gpa);
    if (!s) {
        return NULL;
    }
    struct code_page *pg = ram_page(s, gpa);
    uint64_t mask = code_line_mask(gpa & (PAGE_SIZE - 1), len);
    do {
        if (!atomic_load(&pg->tracked)) {
            atomic_store(&pg->tracked, true);
            code_drop_write_tags(c->vm, c, gpa);
        }
        atomic_fetch_or(&pg->lines, mask);
        *gen = atomic_load(&pg->gen);
    } while (!atomic_load(&pg->tracked) || (atomic_load(&pg->lines) & mask) != mask);
    return pg;
}

void code_written(struct soft_vm *vm, gpa_t gpa, uint64_t len)
{
    atomic_thread_fence(memory_order_seq_cst);
    while (len) {
        unsigned off = gpa & (PAGE_SIZE - 1);
        unsigned n = (unsigned)min_u64(len, PAGE_SIZE - off);
        struct code_page *pg = code_page_get(vm->code, gpa);
        if (pg && unlikely(atomic_load(&pg->tracked))) {
            code_page_hit(pg, off, n);
        }
        gpa += n;
        len -= n;
    }
}
