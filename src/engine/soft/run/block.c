/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decoded blocks: one cache a vCPU, so that no lock is needed to look up, build or drop. A block is found by the physical
 * address of its first byte and the mode; nothing in it depends on the linear address it runs at.
 *
 * Bytes are copied once from guest memory, after their lines were marked (mmu/code.c); what is decoded is what is prepared.
 */
#include "engine/soft/run/run-int.h"

#include <sys/mman.h>

#include "engine/soft/interp/interp.h"
#include "engine/soft/native/native.h"

enum { INSN_MAX = 15, LINE = 64 };

struct builder {
    struct soft_cpu *c;
    unsigned n, off;                    /* instructions, bytes so far */
    struct uop uops[BLOCK_MAX_INSNS + 1];
    int16_t offs[BLOCK_MAX_INSNS + 1];
};

bool block_cache_init(struct soft_cpu *c, size_t size, struct err *err)
{
    struct soft_run *r = c->run;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        return err_set(err, ERR_NO_MEMORY, "no address space for the block cache of vCPU %u", c->index);
    }
    r->arena = p;
    r->arena_size = size;
    r->hash = new0_array(struct soft_block *, N_HASH);
    r->single = alloc0(sizeof(struct soft_block) + 2 * sizeof(struct uop) + 2 * sizeof(int16_t));
    return true;
}

void block_cache_fini(struct soft_cpu *c)
{
    struct soft_run *r = c->run;
    if (r->arena) {
        munmap(r->arena, r->arena_size);
    }
    free(r->hash);
    free(r->single);
}

void soft_drop_blocks(struct soft_cpu *c)
{
    struct soft_run *r = c->run;
    memset(r->hash, 0, N_HASH * sizeof(r->hash[0]));
    r->arena_used = 0;
    r->arena_drops++;
    mmu_jc_flush(c);
}

/* Host code is full: all vCPUs begin again. One that waits inside an instruction begins that again, too (mmu_code_dropped). */
static void flush_host_code(struct soft_cpu *c)
{
    struct soft_vm *vm = c->vm;
    mmu_exclusive_begin(c);
    mmu_code_dropped(vm);
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        soft_drop_blocks(vm->cpus[i]);
    }
    native_flush(vm->code_buf);
    mmu_exclusive_end(c);
}

/*
 * Fields as struct uop wants them. False: a RIP-relative displacement that does not fit once it counts from the block's
 * start; alone, the instruction has R_BLOCK_RIP at its own end (see block_single).
 */
static bool uop_localise(struct insn *i, unsigned off)
{
    if (i->base == INSN_REG_RIP) {
        int64_t disp = (int64_t)i->disp + off + i->len;
        if (disp != (int32_t)disp) {
            return false;
        }
        i->base = R_BLOCK_RIP;
        i->disp = (int32_t)disp;
    } else if (i->base == INSN_REG_NONE) {
        i->base = R_ZERO;
    }
    if (i->index == INSN_REG_NONE) {
        i->index = R_ZERO;
    }
    if (i->form == F_J) {
        i->imm += off + i->len;
        i->disp = (int32_t)(off + i->len);
    }
    return true;
}

static bool is_native(unsigned op)
{
    return op >= OP_FXSAVE;
}

static void uop_raise(struct uop *u, unsigned vector, unsigned len)
{
    memset(u, 0, sizeof(*u));
    u->fn = interp_raise;
    u->i.imm = vector;
    u->i.len = (uint8_t)len;
}

static bool uop_prepare(struct soft_cpu *c, struct uop *u, const uint8_t *bytes)
{
    if (is_native(insn_row(&u->i)->op)) {
        return native_prepare(c, u, bytes);
    }
    interp_prepare(u, c->mode);
    return true;
}

static void finish(struct builder *b)
{
    struct uop *end = &b->uops[b->n];
    memset(end, 0, sizeof(*end));
    end->fn = interp_block_end;
    end->i.imm = b->off;
    b->offs[b->n] = (int16_t)b->off;
}

enum step { STEP_GO, STEP_END, STEP_DROP /* the uop is not part of the block */, STEP_FULL /* no room for host code */ };

/* One decoded instruction onto the block. */
static enum step add_insn(struct builder *b, enum decode_result r, const struct insn *i, const uint8_t *bytes)
{
    struct uop *u = &b->uops[b->n];
    b->offs[b->n] = (int16_t)b->off;
    if (r == DECODE_OK && insn_row(i)->attr & RA_NOREAL && !(b->c->mode & MODE_PROT)) {
        r = DECODE_ILLEGAL;     /* VEX, ARPL, LAR ... in real and virtual-8086 mode */
    }
    if (r != DECODE_OK) {
        uop_raise(u, r == DECODE_LONG ? EXC_GP : EXC_UD, i->len ? i->len : 1);
        b->off += u->i.len;
        b->n++;
        return STEP_END;
    }
    u->i = *i;
    if (!uop_localise(&u->i, b->off)) {
        return STEP_DROP;
    }
    if (!uop_prepare(b->c, u, bytes)) {
        return STEP_FULL;
    }
    b->off += i->len;
    b->n++;
    return insn_row(i)->attr & RA_BLOCK_END ? STEP_END : STEP_GO;
}

static unsigned hash_of(gpa_t gpa, uint32_t mode)
{
    return (unsigned)((gpa ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull >> (64 - HASH_BITS));
}

/* Copies a finished block into the arena and the hash. */
static struct soft_block *commit(struct builder *b, const struct soft_block *head)
{
    struct soft_run *r = b->c->run;
    size_t uops = (b->n + 1) * sizeof(struct uop), size = sizeof(struct soft_block) + uops + (b->n + 1) * sizeof(int16_t);
    size = (size + 31) & ~(size_t)31;
    if (size > r->arena_size - r->arena_used) {
        soft_drop_blocks(b->c);
    }
    struct soft_block *blk = (struct soft_block *)(void *)(r->arena + r->arena_used);
    r->arena_used += size;
    *blk = *head;
    blk->n = (uint16_t)b->n;
    blk->len = b->off & 0x7fff;
    blk->offs = (int16_t *)(void *)((uint8_t *)blk->uops + uops);
    memcpy(blk->uops, b->uops, uops);
    memcpy(blk->offs, b->offs, (b->n + 1) * sizeof(int16_t));
    struct soft_block **bucket = &r->hash[hash_of(blk->gpa, blk->mode)];
    blk->hash_next = *bucket;
    *bucket = blk;
    b->c->stats.blocks_built++;
    return blk;
}

enum built { BUILT, BUILT_CHANGED /* look again */, BUILT_CROSSES, BUILT_ALONE, BUILT_FULL };

/* Decodes from gpa, whose first byte is at host, to the end of the block. `room`: bytes to the page's end. */
static enum built decode_page(struct builder *b, gpa_t gpa, const uint8_t *host, unsigned room, const struct soft_block *head)
{
    struct soft_cpu *c = b->c;
    unsigned marked = LINE - (gpa & (LINE - 1));       /* bytes from the start whose lines are marked */
    while (b->n < BLOCK_MAX_INSNS && b->off < room) {
        uint8_t bytes[16] = { 0 };
        unsigned avail = (unsigned)min_u64(INSN_MAX, marked - b->off);
        struct insn i = { 0 };
        enum decode_result r = DECODE_SHORT;
        if (avail) {
            memcpy(bytes, host + b->off, avail);
            r = insn_decode(bytes, avail, c->mode & MODE_SIZE_MASK, c->vm->model.insn_feats, &i);
        }
        if (r == DECODE_SHORT && marked < room) {
            uint32_t gen;
            code_track(c, gpa + marked, LINE, &gen);
            if (gen != head->gen) {
                return BUILT_CHANGED;
            }
            marked += LINE;
            continue;
        }
        if (r == DECODE_SHORT) {
            return b->n ? BUILT : BUILT_CROSSES;
        }
        enum step s = add_insn(b, r, &i, bytes);
        if (s == STEP_FULL) {
            return BUILT_FULL;
        }
        if (s == STEP_DROP) {
            return b->n ? BUILT : BUILT_ALONE;
        }
        if (s == STEP_END) {
            break;
        }
    }
    return BUILT;
}

struct fetched {
    gpa_t gpa, gpa2;
    const uint8_t *host, *host2;        /* NULL: MMIO */
    unsigned n1, n2;                    /* bytes taken from each page; n2 0: the second was not needed */
    uint8_t bytes[16];
    struct insn insn;
    enum decode_result result;
};

static void read_code(struct soft_cpu *c, gpa_t gpa, const uint8_t *host, uint8_t *to, unsigned n)
{
    if (host) {
        memcpy(to, host, n);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        to[i] = (uint8_t)mem_io_read(c->vm->mem, MEM_MMIO, gpa + i, 1);
    }
}

static enum decode_result decode(const struct soft_cpu *c, struct fetched *f, unsigned n)
{
    memset(&f->insn, 0, sizeof(f->insn));
    return insn_decode(f->bytes, n, c->mode & MODE_SIZE_MASK, c->vm->model.insn_feats, &f->insn);
}

/* Bytes that may be fetched from RIP on before CS's limit. #GP(0) when there is none. */
static unsigned limit_room(struct soft_cpu *c)
{
    if (c->mode & MODE_FLAT) {
        return INSN_MAX;
    }
    if (c->rip > c->st.seg[SEG_CS].limit) {
        cpu_raise_err(c, EXC_GP, 0);
    }
    return (unsigned)min_u64(INSN_MAX, c->st.seg[SEG_CS].limit - c->rip + 1);
}

/* The instruction at CS:RIP byte by byte as far as needed: limit, then page, then the second page. */
static void fetch_one(struct soft_cpu *c, struct fetched *f)
{
    uint64_t lin = code_lin(c);
    unsigned room = limit_room(c);
    f->gpa = mmu_fetch(c, lin, &f->host);
    f->n1 = (unsigned)min_u64(room, PAGE_SIZE - (lin & (PAGE_SIZE - 1)));
    f->n2 = 0;
    read_code(c, f->gpa, f->host, f->bytes, f->n1);
    f->result = decode(c, f, f->n1);
    if (f->result == DECODE_SHORT && f->n1 < room) {
        uint64_t next = lin + f->n1;
        f->gpa2 = mmu_fetch(c, cpu_code64(c) ? next : (uint32_t)next, &f->host2);
        f->n2 = room - f->n1;
        read_code(c, f->gpa2, f->host2, f->bytes + f->n1, f->n2);
        f->result = decode(c, f, room);
    }
    if (f->result == DECODE_SHORT) {
        cpu_raise_err(c, EXC_GP, 0);    /* the limit ends inside the instruction */
    }
}

/* RIP-relative at the very edge of 32 bits: R_BLOCK_RIP is the next instruction's address, the displacement as encoded. */
static enum step add_far_rip(struct builder *b, const struct fetched *f)
{
    struct uop *u = &b->uops[0];
    u->i.base = R_BLOCK_RIP;
    u->i.index = R_ZERO;
    if (!uop_prepare(b->c, u, f->bytes)) {
        return STEP_FULL;
    }
    b->n = 1;
    b->off = u->i.len;
    return STEP_END;
}

struct soft_block *block_single(struct soft_cpu *c)
{
    struct fetched f = { 0 };
    struct builder b = { .c = c };
    struct soft_block *blk = c->run->single;
    unsigned bias;
    for (;;) {
        fetch_one(c, &f);
        b.n = b.off = bias = 0;
        enum step s = add_insn(&b, f.result, &f.insn, f.bytes);
        if (s == STEP_DROP) {
            s = add_far_rip(&b, &f);
            bias = f.insn.len;
        }
        if (s != STEP_FULL) {
            break;
        }
        flush_host_code(c);
    }
    finish(&b);
    blk->n = 1;
    blk->len = b.off & 0x7fff;
    blk->rip_bias = bias;
    blk->offs = (int16_t *)(void *)&blk->uops[2];
    memcpy(blk->uops, b.uops, 2 * sizeof(struct uop));
    blk->offs[0] = (int16_t)(b.offs[0] - (int)bias);
    blk->offs[1] = (int16_t)(b.offs[1] - (int)bias);
    blk->uops[1].i.imm -= bias;
    return blk;
}

static bool tracked_gen(struct soft_cpu *c, gpa_t gpa, unsigned n, struct code_page **pg, uint32_t *gen)
{
    *pg = code_track(c, gpa, n, gen);
    return *pg != NULL;
}

/* A block of one instruction over the page's end. NULL: not to be cached. */
static struct soft_block *build_crossing(struct builder *b, uint64_t lin)
{
    struct soft_cpu *c = b->c;
    struct fetched f = { 0 };
    struct soft_block head = { .mode = c->mode, .crosses = 1 };
    fetch_one(c, &f);
    if (!f.n2 || !f.host || !f.host2 || f.result != DECODE_OK) {
        return NULL;
    }
    unsigned n2 = f.insn.len - f.n1;
    if (!tracked_gen(c, f.gpa, f.n1, &head.page, &head.gen) || !tracked_gen(c, f.gpa2, n2, &head.page2, &head.gen2)) {
        return NULL;
    }
    /* now the bytes count: once more, after both pages' lines are marked */
    struct fetched g = { 0 };
    fetch_one(c, &g);
    if (g.result != DECODE_OK || g.gpa != f.gpa || g.gpa2 != f.gpa2 || g.insn.len != f.insn.len) {
        return NULL;
    }
    b->n = b->off = 0;
    head.gpa = f.gpa;
    enum step s = add_insn(b, g.result, &g.insn, g.bytes);
    if (s == STEP_DROP || s == STEP_FULL) {
        return NULL;
    }
    finish(b);
    struct soft_block *blk = commit(b, &head);
    mmu_jc_fill(c, lin, blk);
    return blk;
}

static struct soft_block *build(struct soft_cpu *c, uint64_t lin)
{
    struct builder b = { .c = c };
    for (;;) {
        const uint8_t *host;
        struct soft_block head = { .mode = c->mode };
        head.gpa = mmu_fetch(c, lin, &host);
        head.page = host ? code_track(c, head.gpa, LINE - (head.gpa & (LINE - 1)), &head.gen) : NULL;
        if (!head.page) {
            return NULL;
        }
        if (mmu_fetch(c, lin, &host) != head.gpa || !host) {
            continue;                   /* the world changed while we waited for it */
        }
        head.page2 = head.page;
        head.gen2 = head.gen;
        b.n = b.off = 0;
        switch (decode_page(&b, head.gpa, host, PAGE_SIZE - (unsigned)(head.gpa & (PAGE_SIZE - 1)), &head)) {
        case BUILT:
            break;
        case BUILT_CHANGED:
            continue;
        case BUILT_FULL:
            flush_host_code(c);
            continue;
        case BUILT_CROSSES:
            return build_crossing(&b, lin);
        case BUILT_ALONE:
            return NULL;
        }
        finish(&b);
        struct soft_block *blk = commit(&b, &head);
        mmu_jc_fill(c, lin, blk);
        return blk;
    }
}

/* The second page of a crossing block is still the one it was decoded from, here. */
static bool second_page_is(struct soft_cpu *c, uint64_t lin, const struct soft_block *b)
{
    const uint8_t *host;
    uint64_t next = (lin | (PAGE_SIZE - 1)) + 1;
    gpa_t gpa = mmu_fetch(c, cpu_code64(c) ? next : (uint32_t)next, &host);
    return host && code_page_get(c->vm->code, gpa) == b->page2;
}

struct soft_block *block_find(struct soft_cpu *c)
{
    uint64_t lin = code_lin(c);
    const uint8_t *host;
    gpa_t gpa = mmu_fetch(c, lin, &host);
    struct soft_block **at = &c->run->hash[hash_of(gpa, c->mode)];
    for (struct soft_block *b; (b = *at); at = &b->hash_next) {
        if (b->gpa != gpa || b->mode != c->mode) {
            continue;
        }
        if (!block_fresh(b)) {
            *at = b->hash_next;         /* its memory comes back when the arena is full */
            break;
        }
        if (!b->crosses || second_page_is(c, lin, b)) {
            mmu_jc_fill(c, lin, b);
            return b;
        }
    }
    return build(c, lin);
}
