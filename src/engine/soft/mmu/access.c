/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The slow paths of loads and stores: TLB misses, accesses that cross a page, devices, pages with decoded code.
 * An access touches at most two pages; both are translated, and faults raised, before the first byte moves.
 */
#include "engine/soft/mmu/mmu-int.h"
#include "engine/soft/sys/sys.h"

/* --- devices --- */
static unsigned io_width(gpa_t gpa, unsigned left)
{
    unsigned w = 8;
    while (w > left || gpa & (w - 1)) {
        w >>= 1;
    }
    return w;
}

uint64_t mmu_io_load(struct soft_cpu *c, gpa_t gpa, unsigned size)
{
    c->stats.mmio++;
    if (mmu_is_lapic(c, gpa)) {
        /* SDM vol. 3A §10.4.1: 32-bit registers on 16-byte boundaries; narrower reads see their part of the register */
        unsigned off = gpa & (PAGE_SIZE - 1), in = off & 15;
        uint64_t v = in < 4 ? (uint64_t)lapic_read(c, off & ~15u) >> (8 * in) : 0;
        return size < 4 ? v & ((1ull << (8 * size)) - 1) : v;
    }
    uint64_t v = 0;
    for (unsigned done = 0, w; done < size; done += w) {
        w = io_width(gpa + done, size - done);
        v |= mem_io_read(c->vm->mem, MEM_MMIO, gpa + done, w) << (8 * done);
    }
    return v;
}

void mmu_io_store(struct soft_cpu *c, gpa_t gpa, unsigned size, uint64_t val)
{
    c->stats.mmio++;
    if (mmu_is_lapic(c, gpa)) {
        unsigned off = gpa & (PAGE_SIZE - 1);
        if (size >= 4 && !(off & 15)) {
            lapic_write(c, off, (uint32_t)val);
        }
        return;
    }
    for (unsigned done = 0, w; done < size; done += w) {
        w = io_width(gpa + done, size - done);
        uint64_t v = val >> (8 * done);
        mem_io_write(c->vm->mem, MEM_MMIO, gpa + done, w == 8 ? v : v & ((1ull << (8 * w)) - 1), w);
    }
}

/* --- one access, one or two pages --- */
struct span {
    struct xlat x[2];
    unsigned n[2];              /* bytes in each */
};

static uint64_t next_page(const struct soft_cpu *c, uint64_t lin)
{
    uint64_t next = (lin | (PAGE_SIZE - 1)) + 1;
    return cpu_long_mode(c) ? next : (uint32_t)next;
}

/* Translates [lin, lin + len), len 1..4096; for writes restarts the instruction alone if decoded code is in the way. */
static void span_begin(struct soft_cpu *c, unsigned ctx, uint64_t lin, unsigned len, enum mmu_access acc, struct span *s)
{
    lin = mmu_canonical(c, lin, acc);
    unsigned room = PAGE_SIZE - (lin & (PAGE_SIZE - 1));
    s->n[0] = len < room ? len : room;
    s->n[1] = len - s->n[0];
    mmu_xlat(c, ctx, lin, acc, &s->x[0]);
    if (s->n[1]) {
        mmu_xlat(c, ctx, mmu_canonical(c, next_page(c, lin), acc), acc, &s->x[1]);
    }
    if (acc != MMU_WRITE || c->single || !c->u) {
        return;
    }
    for (unsigned i = 0; i < 2 && s->n[i]; i++) {
        const struct xlat *x = &s->x[i];
        if (x->page && atomic_load(&x->page->lines) & code_line_mask(x->gpa & (PAGE_SIZE - 1), s->n[i])) {
            cpu_restart_single(c);
        }
    }
}

static void part_read(struct soft_cpu *c, const struct xlat *x, void *to, unsigned n)
{
    if (likely(x->host != NULL)) {
        memcpy(to, x->host, n);
        return;
    }
    uint8_t *p = to;
    for (unsigned done = 0, w; done < n; done += w) {
        w = io_width(x->gpa + done, n - done);
        uint64_t v = mmu_io_load(c, x->gpa + done, w);
        memcpy(p + done, &v, w);
    }
}

enum { UNTRACK_AFTER = 16 };

/* The page that instructions are being run from, as far as this vCPU knows. */
static bool running_from(const struct soft_cpu *c, gpa_t gpa)
{
    uint64_t lin = c->segbase[SEG_CS] + c->r[R_BLOCK_RIP];
    const struct itlb_entry *e = &mmu_of(c)->itlb[c->cpl == 3][(lin >> PAGE_SHIFT) & (ITLB_SIZE - 1)];
    return e->tag == (lin & ~(uint64_t)(PAGE_SIZE - 1)) && e->gpa == (gpa & ~(uint64_t)(PAGE_SIZE - 1));
}

/* After a store of n bytes to a tracked page. */
static void tracked_written(struct soft_cpu *c, const struct xlat *x, unsigned n)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (code_page_hit(x->page, x->gpa & (PAGE_SIZE - 1), n)) {
        c->stats.smc_hits++;
        atomic_store_explicit(&x->page->misses, 0, memory_order_relaxed);
        return;
    }
    if (atomic_fetch_add_explicit(&x->page->misses, 1, memory_order_relaxed) + 1 < UNTRACK_AFTER) {
        return;
    }
    atomic_store_explicit(&x->page->misses, 0, memory_order_relaxed);
    if (!running_from(c, x->gpa)) {
        code_untrack(x->page);
    }
}

static void part_write(struct soft_cpu *c, const struct xlat *x, const void *from, unsigned n)
{
    if (unlikely(x->rom)) {
        return;
    }
    if (likely(x->host != NULL)) {
        if (n <= 8 && !(n & (n - 1))) {
            uint64_t v = 0;
            memcpy(&v, from, n);
            host_write(x->host, n, v);  /* scalars in one store */
        } else {
            memcpy(x->host, from, n);
        }
        if (unlikely(x->page != NULL)) {
            tracked_written(c, x, n);
        }
        return;
    }
    const uint8_t *p = from;
    for (unsigned done = 0, w; done < n; done += w) {
        uint64_t v = 0;
        w = io_width(x->gpa + done, n - done);
        memcpy(&v, p + done, w);
        mmu_io_store(c, x->gpa + done, w, v);
    }
}

static void read_ctx(struct soft_cpu *c, unsigned ctx, uint64_t lin, void *buf, unsigned len)
{
    struct span s;
    span_begin(c, ctx, lin, len, MMU_READ, &s);
    part_read(c, &s.x[0], buf, s.n[0]);
    if (s.n[1]) {
        part_read(c, &s.x[1], (uint8_t *)buf + s.n[0], s.n[1]);
    }
}

static void write_ctx(struct soft_cpu *c, unsigned ctx, uint64_t lin, const void *buf, unsigned len)
{
    struct span s;
    span_begin(c, ctx, lin, len, MMU_WRITE, &s);
    part_write(c, &s.x[0], buf, s.n[0]);
    if (s.n[1]) {
        part_write(c, &s.x[1], (const uint8_t *)buf + s.n[0], s.n[1]);
    }
}

static uint64_t load_ctx(struct soft_cpu *c, unsigned ctx, uint64_t lin, unsigned size)
{
    lin = mmu_canonical(c, lin, MMU_READ);
    if (likely((lin & (PAGE_SIZE - 1)) <= PAGE_SIZE - size)) {
        struct xlat x;
        mmu_xlat(c, ctx, lin, MMU_READ, &x);
        if (unlikely(!x.host)) {
            return mmu_io_load(c, x.gpa, size);
        }
        if (!(size & (size - 1))) {
            return host_read(x.host, size);
        }
    }
    uint64_t v = 0;
    read_ctx(c, ctx, lin, &v, size);
    return v;
}

/*
 * Data breakpoints (SDM vol. 3B 17.2.5) and alignment checking (vol. 3A 6.15, vector 17) of one access by an instruction, not of
 * implicit ones. A hit is a trap, taken behind the instruction: it runs alone so that run/ looks at c->watch_hits then.
 */
static __attribute__((noinline)) void watched(struct soft_cpu *c, uint64_t lin, unsigned len, enum mmu_access acc)
{
    static const uint8_t lens[4] = { 1, 2, 8, 4 };
    if (c->watch & WATCH_ALIGN && len <= 8 && !(len & (len - 1)) && lin & (len - 1)) {
        mmu_probe(c, lin, len, acc);            /* a page fault comes first */
        cpu_raise_err(c, EXC_AC, 0);
    }
    for (unsigned i = 0; c->watch & WATCH_DATA && i < 4; i++) {
        unsigned how = c->st.dr7 >> (16 + 4 * i) & 3, n = lens[c->st.dr7 >> (18 + 4 * i) & 3];
        uint64_t at = c->st.dr[i] & ~(uint64_t)(n - 1);
        if (!(c->st.dr7 >> (2 * i) & 3) || !(how & 1) || (how == 1 && acc != MMU_WRITE) || lin >= at + n || lin + len <= at) {
            continue;
        }
        if (!c->u) {
            continue;                           /* delivery of an event */
        }
        if (!c->single) {
            cpu_restart_single(c);
        }
        c->watch_hits |= (uint8_t)(1u << i);
    }
}

static inline void watch(struct soft_cpu *c, uint64_t lin, unsigned len, enum mmu_access acc)
{
    if (unlikely(c->watch)) {
        watched(c, lin, len, acc);
    }
}

uint64_t mmu_load_slow(struct soft_cpu *c, uint64_t lin, unsigned size)
{
    watch(c, lin, size, MMU_READ);
    return load_ctx(c, mmu_ctx(c), lin, size);
}

void mmu_store_slow(struct soft_cpu *c, uint64_t lin, unsigned size, uint64_t val)
{
    watch(c, lin, size, MMU_WRITE);
    write_ctx(c, mmu_ctx(c), lin, &val, size);
}

void mmu_read_buf(struct soft_cpu *c, uint64_t lin, void *buf, unsigned len)
{
    if (len) {
        watch(c, lin, len, MMU_READ);
        read_ctx(c, mmu_ctx(c), lin, buf, len);
    }
}

void mmu_write_buf(struct soft_cpu *c, uint64_t lin, const void *buf, unsigned len)
{
    if (len) {
        watch(c, lin, len, MMU_WRITE);
        write_ctx(c, mmu_ctx(c), lin, buf, len);
    }
}

uint64_t mmu_load_sys(struct soft_cpu *c, uint64_t lin, unsigned size)
{
    return load_ctx(c, mmu_sys_ctx(c), lin, size);
}

void mmu_store_sys(struct soft_cpu *c, uint64_t lin, unsigned size, uint64_t val)
{
    write_ctx(c, mmu_sys_ctx(c), lin, &val, size);
}

void mmu_or8_sys(struct soft_cpu *c, uint64_t lin, uint8_t bits)
{
    struct xlat x;
    mmu_xlat(c, mmu_sys_ctx(c), mmu_canonical(c, lin, MMU_WRITE), MMU_WRITE, &x);
    if (x.host) {
        __atomic_fetch_or(x.host, bits, __ATOMIC_SEQ_CST);
        if (x.page) {
            tracked_written(c, &x, 1);
        }
    } else if (!x.rom) {
        mmu_io_store(c, x.gpa, 1, mmu_io_load(c, x.gpa, 1) | bits);
    }
}

void mmu_probe(struct soft_cpu *c, uint64_t lin, unsigned len, enum mmu_access acc)
{
    if (len) {
        struct xlat x;
        unsigned ctx = mmu_ctx(c);
        lin = mmu_canonical(c, lin, acc);
        mmu_xlat(c, ctx, lin, acc, &x);
        if ((lin & (PAGE_SIZE - 1)) + len > PAGE_SIZE) {
            mmu_xlat(c, ctx, mmu_canonical(c, next_page(c, lin), acc), acc, &x);
        }
    }
}

/* A pointer will be stored through while `single`: run/ tells the code map once the instruction is done. */
static void smc_note(struct soft_cpu *c, gpa_t gpa, unsigned len)
{
    for (unsigned i = 0; i < c->n_smc; i++) {
        if ((c->smc[i].gpa ^ gpa) >> PAGE_SHIFT == 0) {
            gpa_t end = max_u64(c->smc[i].gpa + c->smc[i].len, gpa + len);
            c->smc[i].gpa = min_u64(c->smc[i].gpa, gpa);
            c->smc[i].len = (uint32_t)(end - c->smc[i].gpa);
            return;
        }
    }
    if (c->n_smc == ARRAY_SIZE(c->smc)) {
        mmu_smc_flush(c);       /* no instruction writes more pages than that; its last bytes would be told now */
    }
    c->smc[c->n_smc].gpa = gpa;
    c->smc[c->n_smc++].len = len;
}

void mmu_smc_flush(struct soft_cpu *c)
{
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < c->n_smc; i++) {
        struct ram_slot *s = ram_find(c->vm->code, c->smc[i].gpa);
        struct xlat x = { .gpa = c->smc[i].gpa, .page = s ? ram_page(s, c->smc[i].gpa) : NULL };
        if (x.page) {
            tracked_written(c, &x, c->smc[i].len);
        }
    }
    c->n_smc = 0;
}

void *mmu_ptr_slow(struct soft_cpu *c, uint64_t lin, unsigned size, enum mmu_access acc)
{
    lin = mmu_canonical(c, lin, acc);
    watch(c, lin, size, acc);
    if ((lin & (PAGE_SIZE - 1)) > PAGE_SIZE - size) {
        return NULL;
    }
    struct xlat x;
    mmu_xlat(c, mmu_ctx(c), lin, acc, &x);
    if (x.page) {
        if (!c->single) {
            cpu_restart_single(c);
        }
        smc_note(c, x.gpa, size);
    }
    return x.host;
}

void *mmu_span(struct soft_cpu *c, uint64_t lin, uint64_t want, enum mmu_access acc, uint64_t *n)
{
    struct xlat x;
    lin = mmu_canonical(c, lin, acc);
    mmu_xlat(c, mmu_ctx(c), lin, acc, &x);
    if (!x.host || x.page || c->watch) {
        return NULL;
    }
    *n = min_u64(want, PAGE_SIZE - (lin & (PAGE_SIZE - 1)));
    return x.host;
}
