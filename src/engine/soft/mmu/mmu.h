/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest memory as the software CPU sees it: linear -> physical by the guest's tables, a TLB in front, MMIO behind, and
 * the tracking of pages that hold decoded code. All functions raise the guest's fault and do not return if there is one.
 * Sources: SDM vol. 3A ch. 4 (paging, access rights, accessed and dirty flags).
 */
#ifndef LODGE_SOFT_MMU_MMU_H
#define LODGE_SOFT_MMU_MMU_H

#include "base/bytes.h"
#include "engine/soft/cpu.h"

enum mmu_access { MMU_READ = 0, MMU_WRITE = PF_W, MMU_EXEC = PF_I };

/* Slow paths: fill the TLB, cross pages, do MMIO, keep code coherent. size 1..8. */
uint64_t mmu_load_slow(struct soft_cpu *c, uint64_t lin, unsigned size);
void mmu_store_slow(struct soft_cpu *c, uint64_t lin, unsigned size, uint64_t val);
/*
 * Host pointer for an access of `size` bytes in one page, or NULL when it crosses a page, is MMIO, or (for writes) the
 * page is tracked and c->single is not set... in which case the instruction is restarted single first (does not return).
 * NULL is only for crossing and MMIO: then do it in pieces (mmu_read_buf, mmu_write_buf) or under mmu_exclusive_begin.
 */
void *mmu_ptr_slow(struct soft_cpu *c, uint64_t lin, unsigned size, enum mmu_access acc);

/* Guest memory at any alignment, in one host access: other vCPUs look. */
typedef volatile uint16_t __attribute__((aligned(1), may_alias)) mem16;
typedef volatile uint32_t __attribute__((aligned(1), may_alias)) mem32;
typedef volatile uint64_t __attribute__((aligned(1), may_alias)) mem64;

static inline __attribute__((always_inline)) uint64_t host_read(const void *p, unsigned size)
{
    switch (size) {
    case 1: return *(const volatile uint8_t *)p;
    case 2: return *(const mem16 *)p;
    case 4: return *(const mem32 *)p;
    default: return *(const mem64 *)p;
    }
}

static inline __attribute__((always_inline)) void host_write(void *p, unsigned size, uint64_t val)
{
    switch (size) {
    case 1: *(volatile uint8_t *)p = (uint8_t)val; return;
    case 2: *(mem16 *)p = (uint16_t)val; return;
    case 4: *(mem32 *)p = (uint32_t)val; return;
    default: *(mem64 *)p = val; return;
    }
}

static inline struct tlb_entry *tlb_slot(struct soft_cpu *c, uint64_t lin)
{
    return &c->tlb[(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)];
}

static inline __attribute__((always_inline)) uint64_t mmu_load(struct soft_cpu *c, uint64_t lin, unsigned size)
{
    const struct tlb_entry *e = tlb_slot(c, lin);
    if (likely(lin - e->tag_r <= PAGE_SIZE - size)) {
        return host_read((const void *)(uintptr_t)(lin + e->addend), size);
    }
    return mmu_load_slow(c, lin, size);
}

static inline __attribute__((always_inline)) void mmu_store(struct soft_cpu *c, uint64_t lin, unsigned size, uint64_t val)
{
    const struct tlb_entry *e = tlb_slot(c, lin);
    if (likely(lin - e->tag_w <= PAGE_SIZE - size)) {
        host_write((void *)(uintptr_t)(lin + e->addend), size, val);
        return;
    }
    mmu_store_slow(c, lin, size, val);
}

/* Pointer for read-modify-write (checks write rights only, as the CPU does) or for a plain read. See mmu_ptr_slow for NULL. */
static inline __attribute__((always_inline)) void *mmu_ptr_w(struct soft_cpu *c, uint64_t lin, unsigned size)
{
    const struct tlb_entry *e = tlb_slot(c, lin);
    if (likely(lin - e->tag_w <= PAGE_SIZE - size)) {
        return (void *)(uintptr_t)(lin + e->addend);
    }
    return mmu_ptr_slow(c, lin, size, MMU_WRITE);
}
static inline __attribute__((always_inline)) const void *mmu_ptr_r(struct soft_cpu *c, uint64_t lin, unsigned size)
{
    const struct tlb_entry *e = tlb_slot(c, lin);
    if (likely(lin - e->tag_r <= PAGE_SIZE - size)) {
        return (const void *)(uintptr_t)(lin + e->addend);
    }
    return mmu_ptr_slow(c, lin, size, MMU_READ);
}

/* Any length up to 4096, crossing allowed, MMIO in naturally aligned pieces. All pages are checked before the first byte moves. */
void mmu_read_buf(struct soft_cpu *c, uint64_t lin, void *buf, unsigned len);
void mmu_write_buf(struct soft_cpu *c, uint64_t lin, const void *buf, unsigned len);
/* Raises what an access would raise, touches no data (sets A, and D for writes, as the CPU may). */
void mmu_probe(struct soft_cpu *c, uint64_t lin, unsigned len, enum mmu_access acc);
/*
 * REP strings: host pointer for up to `want` bytes from lin towards higher addresses that stay in one page and are plain
 * RAM, *n of them (0 < *n <= want); NULL when MMIO or a tracked page: do one element by mmu_load/mmu_store.
 */
void *mmu_span(struct soft_cpu *c, uint64_t lin, uint64_t want, enum mmu_access acc, uint64_t *n);

/* Implicit supervisor accesses: descriptor tables, TSS, the stack of an inner level given explicitly. */
uint64_t mmu_load_sys(struct soft_cpu *c, uint64_t lin, unsigned size);
void mmu_store_sys(struct soft_cpu *c, uint64_t lin, unsigned size, uint64_t val);
/* Atomically ORs bits into a descriptor byte (accessed, busy). */
void mmu_or8_sys(struct soft_cpu *c, uint64_t lin, uint8_t bits);

/* Locked accesses that cross a page or hit MMIO: every other vCPU stands still between these. Nesting is not allowed. */
void mmu_exclusive_begin(struct soft_cpu *c);
void mmu_exclusive_end(struct soft_cpu *c);

/* Invalidation, own vCPU. */
void mmu_flush_all(struct soft_cpu *c);                 /* with global pages, and the jump cache */
void mmu_flush_nonglobal(struct soft_cpu *c);
void mmu_flush_page(struct soft_cpu *c, uint64_t lin);
/* CR3 was loaded (st.cr3 holds the new value without bit 63): flush as the rules say; keep: bit 63 with PCIDE. Loads PDPTEs in PAE mode (raises #GP). */
void mmu_cr3_loaded(struct soft_cpu *c, bool keep);
/* CPL, EFLAGS.AC, CR0, CR4 or EFER changed: choose c->tlb; flushes nothing. Called by sys' cpu_update_mode. */
void mmu_select_context(struct soft_cpu *c);

/* Where a linear address is in physical memory for `acc` at the current privilege, no side effects, no fault. */
bool mmu_translate_debug(struct soft_cpu *c, uint64_t lin, gpa_t *gpa);
/*
 * Instruction fetch: physical address of `lin`, execute rights checked, raises #PF with the I bit. *host: the byte's
 * address in the page, or NULL when it is MMIO (fetch through mmu_fetch_io).
 */
gpa_t mmu_fetch(struct soft_cpu *c, uint64_t lin, const uint8_t **host);

/* --- code tracking: which 64-byte lines of RAM hold decoded instructions --- */
struct code_page {
    _Atomic uint32_t gen;       /* changes whenever decoded code of this page became stale */
    _Atomic bool tracked;       /* no vCPU has a write tag for it */
    _Atomic uint64_t lines;     /* bit a 64-byte line with decoded instructions */
    _Atomic uint32_t misses;    /* slow stores since the last execution from it */
};
struct code_map *code_map_create(struct soft_vm *vm);
void code_map_destroy(struct code_map *m);
struct code_page *code_page_get(struct code_map *m, gpa_t gpa);         /* NULL: not RAM */
/*
 * Before decoding [gpa, gpa+len), in one page: tracks the page (dropping its write tags in every vCPU, and waiting for
 * that) and marks the lines. Returns the page and the gen that a block has whose bytes are read after this call; NULL: not RAM.
 */
struct code_page *code_track(struct soft_cpu *c, gpa_t gpa, unsigned len, uint32_t *gen);
/* Bytes were written (store on a tracked page, DMA): stale blocks get a new gen. Any thread. After the write. */
void code_written(struct soft_vm *vm, gpa_t gpa, uint64_t len);
/* No longer worth watching: its blocks go stale, stores are fast again. */
void code_untrack(struct code_page *pg);
/* Drops the write tags of one page in every vCPU while all stand still. c: the calling vCPU, NULL on other threads. */
void code_drop_write_tags(struct soft_vm *vm, struct soft_cpu *c, gpa_t page);
/*
 * A memslot appeared, changed (its dirty log came or went) or, with size 0, goes; `s` stays where it is. Flushes every TLB. Not from
 * a vCPU thread.
 */
bool code_map_slot_set(struct code_map *m, const struct memslot *s, struct err *err);

/* --- for run/ --- */
/* Empty tables; before anything else of this vCPU. */
void mmu_cpu_init(struct soft_cpu *c);
/* After an instruction that ran `single`: tells the code map of the stores in c->smc. */
void mmu_smc_flush(struct soft_cpu *c);
/* Jump cache: groups of 256 entries, a page's blocks all in one group, both halves of the address space apart. */
enum { JC_GROUP_BITS = 8 };
_Static_assert(JC_BITS == 14, "jc_index spells out the bits");
static inline __attribute__((always_inline)) unsigned jc_index(uint64_t lin)
{
    return (unsigned)(((lin ^ (lin >> 5)) & 0xff) | (((lin >> 4) ^ (lin >> 9)) & 0x1f00) | ((lin >> 50) & 0x2000));
}
/* lin was just fetched from; remembers whether its page is global. */
void mmu_jc_fill(struct soft_cpu *c, uint64_t lin, struct soft_block *blk);
void mmu_jc_flush(struct soft_cpu *c);
/*
 * In the world: may be asked to stand still, which it does by leaving at a block edge when PEND_STOP_WORLD is set and
 * entering again (which waits). Code that unwinds out of an instruction aborts its exclusive section.
 */
void mmu_world_enter(struct soft_cpu *c);
void mmu_world_leave(struct soft_cpu *c);
void mmu_exclusive_abort(struct soft_cpu *c);
/*
 * In an exclusive section: every block of every vCPU is about to be dropped, and the host code in it. A vCPU that waits inside an
 * instruction restarts it alone when its turn comes.
 */
void mmu_code_dropped(struct soft_vm *vm);
/* From a thread that is no vCPU: all vCPUs stand still between these. */
void mmu_world_stop(struct soft_vm *vm);
void mmu_world_start(struct soft_vm *vm);

#endif
