/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MOVS CMPS STOS LODS SCAS INS OUTS, single and repeated. Source: SDM vol. 2B, REP.
 *
 * A repeated instruction goes chunk by chunk: as many elements as stay in one page on each side, by the host's own repeated
 * instruction on host pointers. Source and destination that overlap keep their distance there, so a copy onto itself
 * propagates bytes exactly as on hardware. Registers are updated after each chunk, so a fault in the next one finds them as
 * the architecture wants; between chunks an interrupt may be taken, and the instruction starts over with what is left.
 * Elements that cross a page, MMIO, tracked pages and segments with limits go one by one.
 */
#include "engine/soft/interp/interp-int.h"

struct str {
    unsigned size;              /* bytes an element */
    unsigned asize;             /* log2 bytes of counter and index registers */
    uint64_t mask;              /* of these */
    unsigned seg;               /* of the source */
};

ALWAYS struct str str_of(const struct uop *u)
{
    return (struct str){ 1u << u->i.opsize, u->i.asize, addr_masks[u->i.asize], u->i.seg };
}

static bool str_flat(const struct soft_cpu *c, unsigned seg)
{
    return cpu_code64(c) || ((c->mode & MODE_FLAT) && seg < SEG_FS);
}

static uint64_t str_lin(struct soft_cpu *c, const struct str *s, unsigned reg, unsigned seg, bool write)
{
    uint64_t off = c->r[reg] & s->mask;
    return str_flat(c, seg) ? c->segbase[seg] + off : sys_seg_lin(c, seg, off, s->size, write);
}

static uint64_t src_lin(struct soft_cpu *c, const struct str *s)
{
    return str_lin(c, s, R_SI, s->seg, false);
}

static uint64_t dst_lin(struct soft_cpu *c, const struct str *s, bool write)
{
    return str_lin(c, s, R_DI, SEG_ES, write);
}

static void str_advance(struct soft_cpu *c, const struct str *s, unsigned reg, uint64_t n)
{
    reg_add_asize(c, reg, n * s->size * (uint64_t)c->df_step, s->asize);
}

/*
 * Host pointer to the first element (in the direction of DF) of up to *n ones that lie in one page; *n becomes what lies
 * there. NULL: take one element the slow way.
 */
static void *str_span(struct soft_cpu *c, const struct str *s, unsigned reg, unsigned seg, enum mmu_access acc,
                      uint64_t *n)
{
    if (!str_flat(c, seg)) {
        return NULL;
    }
    uint64_t off = c->r[reg] & s->mask, lin = c->segbase[seg] + off, in_page = lin & (PAGE_SIZE - 1), got;
    bool down = c->df_step < 0;
    if (in_page + s->size > PAGE_SIZE || s->mask - off < s->size - 1) {
        return NULL;
    }
    uint64_t fit = down ? in_page / s->size + 1 : (PAGE_SIZE - in_page) / s->size;
    fit = min_u64(*n, fit);
    /* the index register may wrap inside the page */
    fit = min_u64(fit, down ? off / s->size + 1 : (s->mask - off - (s->size - 1)) / s->size + 1);
    /* the page is asked for by the first element, which is what a fault names, also when DF is set */
    interp_check_lin(c, lin, 1, seg);
    uint8_t *p = mmu_span(c, lin, s->size, acc, &got);
    if (p) {
        *n = fit;
    }
    return p;
}

/* TF traps after each iteration. */
static uint64_t str_limit(const struct soft_cpu *c, uint64_t n)
{
    return c->st.rflags & X86_TF ? 1 : n;
}

/* Elements are left: stop here for an interrupt or a trap? The block is left with RIP at this instruction. */
static bool str_pause(struct soft_cpu *c)
{
    if (likely(!atomic_load_explicit(&c->pending, memory_order_relaxed) && !(c->st.rflags & X86_TF))) {
        return false;
    }
    c->rip = cpu_insn_rip(c);
    return true;
}

#define BY_SIZE(size, M)                                                                                     \
    switch (size) {                                                                                          \
    case 1: M("b"); break;                                                                                   \
    case 2: M("w"); break;                                                                                   \
    case 4: M("l"); break;                                                                                   \
    default: M("q"); break;                                                                                  \
    }

/* --- MOVS --- */

static void movs_one(struct soft_cpu *c, const struct str *s)
{
    uint64_t v = lin_load(c, src_lin(c, s), s->size, s->seg);
    lin_store(c, dst_lin(c, s, true), s->size, SEG_ES, v);
}

#define HOST_MOVS(sfx) __asm__ volatile("rep movs" sfx : "+S"(src), "+D"(dst), "+c"(n) : : "memory")
#define HOST_MOVS_DOWN(sfx) __asm__ volatile("std\n\trep movs" sfx "\n\tcld" : "+S"(src), "+D"(dst), "+c"(n) : : "memory")

static void host_movs(void *dst, const void *src, uint64_t n, unsigned size, bool down)
{
    if (down) {
        BY_SIZE(size, HOST_MOVS_DOWN)
    } else {
        BY_SIZE(size, HOST_MOVS)
    }
}

/* Up to n elements; returns how many. */
static uint64_t movs_chunk(struct soft_cpu *c, const struct str *s, uint64_t n)
{
    uint64_t k = n;
    const void *src = str_span(c, s, R_SI, s->seg, MMU_READ, &k);
    void *dst = src ? str_span(c, s, R_DI, SEG_ES, MMU_WRITE, &k) : NULL;
    if (!dst) {
        movs_one(c, s);
        return 1;
    }
    host_movs(dst, src, k, s->size, c->df_step < 0);
    return k;
}

static uop_next movs(struct soft_cpu *c, const struct uop *u)
{
    struct str s = str_of(u);
    movs_one(c, &s);
    str_advance(c, &s, R_SI, 1);
    str_advance(c, &s, R_DI, 1);
    return next(c, u);
}

static uop_next rep_movs(struct soft_cpu *c, const struct uop *u)
{
    struct str s = str_of(u);
    for (uint64_t left = c->r[R_CX] & s.mask; left;) {
        uint64_t n = movs_chunk(c, &s, str_limit(c, left));
        str_advance(c, &s, R_SI, n);
        str_advance(c, &s, R_DI, n);
        reg_add_asize(c, R_CX, -n, s.asize);
        left -= n;
        if (left && str_pause(c)) {
            return NULL;
        }
    }
    return next(c, u);
}

/* --- STOS --- */

#define HOST_STOS(sfx) __asm__ volatile("rep stos" sfx : "+D"(dst), "+c"(n) : "a"(v) : "memory")
#define HOST_STOS_DOWN(sfx) __asm__ volatile("std\n\trep stos" sfx "\n\tcld" : "+D"(dst), "+c"(n) : "a"(v) : "memory")

static void host_stos(void *dst, uint64_t v, uint64_t n, unsigned size, bool down)
{
    if (down) {
        BY_SIZE(size, HOST_STOS_DOWN)
    } else {
        BY_SIZE(size, HOST_STOS)
    }
}

static uint64_t stos_chunk(struct soft_cpu *c, const struct str *s, uint64_t n)
{
    void *dst = str_span(c, s, R_DI, SEG_ES, MMU_WRITE, &n);
    if (!dst) {
        lin_store(c, dst_lin(c, s, true), s->size, SEG_ES, c->r[R_AX]);
        return 1;
    }
    host_stos(dst, c->r[R_AX], n, s->size, c->df_step < 0);
    return n;
}

static uop_next stos(struct soft_cpu *c, const struct uop *u)
{
    struct str s = str_of(u);
    lin_store(c, dst_lin(c, &s, true), s.size, SEG_ES, c->r[R_AX]);
    str_advance(c, &s, R_DI, 1);
    return next(c, u);
}

static uop_next rep_stos(struct soft_cpu *c, const struct uop *u)
{
    struct str s = str_of(u);
    for (uint64_t left = c->r[R_CX] & s.mask; left;) {
        uint64_t n = stos_chunk(c, &s, str_limit(c, left));
        str_advance(c, &s, R_DI, n);
        reg_add_asize(c, R_CX, -n, s.asize);
        left -= n;
        if (left && str_pause(c)) {
            return NULL;
        }
    }
    return next(c, u);
}

/* --- LODS --- */

static void lods_one(struct soft_cpu *c, const struct str *s)
{
    uint64_t v = lin_load(c, src_lin(c, s), s->size, s->seg);
    reg_put(c, R_AX, s->size, v);
    str_advance(c, s, R_SI, 1);
}

static uop_next lods(struct soft_cpu *c, const struct uop *u)
{
    struct str s = str_of(u);
    lods_one(c, &s);
    return next(c, u);
}

static uop_next rep_lods(struct soft_cpu *c, const struct uop *u)
{
    struct str s = str_of(u);
    for (uint64_t left = c->r[R_CX] & s.mask; left;) {
        lods_one(c, &s);
        reg_add_asize(c, R_CX, -UINT64_C(1), s.asize);
        left--;
        if (left && str_pause(c)) {
            return NULL;
        }
    }
    return next(c, u);
}

/* --- SCAS, CMPS --- */

static void str_cmp(struct soft_cpu *c, unsigned size, uint64_t a, uint64_t b)
{
    switch (size) {
    case 1: alu(c, OP_CMP, 1, a, b); break;
    case 2: alu(c, OP_CMP, 2, a, b); break;
    case 4: alu(c, OP_CMP, 4, a, b); break;
    default: alu(c, OP_CMP, 8, a, b); break;
    }
}

static void scas_one(struct soft_cpu *c, const struct str *s)
{
    str_cmp(c, s->size, c->r[R_AX], lin_load(c, dst_lin(c, s, false), s->size, SEG_ES));
}

static void cmps_one(struct soft_cpu *c, const struct str *s)
{
    uint64_t a = lin_load(c, src_lin(c, s), s->size, s->seg);
    str_cmp(c, s->size, a, lin_load(c, dst_lin(c, s, false), s->size, SEG_ES));
}

#define HOST_SCAS(rep, sfx)                                                                                  \
    __asm__ volatile(rep " scas" sfx FLAGS_OUT : "+D"(dst), "+c"(left), "+a"(ax) : : "memory", "cc")
#define HOST_SCAS_NE(sfx) HOST_SCAS("repne", sfx)
#define HOST_SCAS_E(sfx) HOST_SCAS("repe", sfx)
#define HOST_CMPS(rep, sfx)                                                                                  \
    __asm__ volatile(rep " cmps" sfx FLAGS_OUT : "+S"(src), "+D"(dst), "+c"(left), "=&a"(ax) : : "memory", "cc")
#define HOST_CMPS_NE(sfx) HOST_CMPS("repne", sfx)
#define HOST_CMPS_E(sfx) HOST_CMPS("repe", sfx)

/* Compares upwards until the condition ends it; c->af is set; returns the elements compared. */
static uint64_t scas_chunk(struct soft_cpu *c, const struct str *s, bool ne, uint64_t n)
{
    const void *dst = c->df_step > 0 ? str_span(c, s, R_DI, SEG_ES, MMU_READ, &n) : NULL;
    if (!dst) {
        scas_one(c, s);
        return 1;
    }
    uint64_t left = n, ax = c->r[R_AX];
    if (ne) {
        BY_SIZE(s->size, HOST_SCAS_NE)
    } else {
        BY_SIZE(s->size, HOST_SCAS_E)
    }
    c->af = (uint16_t)ax;
    return n - left;
}

static uint64_t cmps_chunk(struct soft_cpu *c, const struct str *s, bool ne, uint64_t n)
{
    const void *src = c->df_step > 0 ? str_span(c, s, R_SI, s->seg, MMU_READ, &n) : NULL;
    const void *dst = src ? str_span(c, s, R_DI, SEG_ES, MMU_READ, &n) : NULL;
    if (!dst) {
        cmps_one(c, s);
        return 1;
    }
    uint64_t left = n, ax;
    if (ne) {
        BY_SIZE(s->size, HOST_CMPS_NE)
    } else {
        BY_SIZE(s->size, HOST_CMPS_E)
    }
    c->af = (uint16_t)ax;
    return n - left;
}

static uop_next scas(struct soft_cpu *c, const struct uop *u)
{
    struct str s = str_of(u);
    scas_one(c, &s);
    str_advance(c, &s, R_DI, 1);
    return next(c, u);
}

static uop_next cmps(struct soft_cpu *c, const struct uop *u)
{
    struct str s = str_of(u);
    cmps_one(c, &s);
    str_advance(c, &s, R_SI, 1);
    str_advance(c, &s, R_DI, 1);
    return next(c, u);
}

ALWAYS uop_next rep_compare(struct soft_cpu *c, const struct uop *u, bool two)
{
    struct str s = str_of(u);
    bool ne = u->i.flags & INSN_REPNE;
    for (uint64_t left = c->r[R_CX] & s.mask; left;) {
        uint64_t n = str_limit(c, left);
        n = two ? cmps_chunk(c, &s, ne, n) : scas_chunk(c, &s, ne, n);
        if (two) {
            str_advance(c, &s, R_SI, n);
        }
        str_advance(c, &s, R_DI, n);
        reg_add_asize(c, R_CX, -n, s.asize);
        left -= n;
        if (cond(c, 4) == ne) {
            break;              /* REPE ends at a difference, REPNE at a match */
        }
        if (left && str_pause(c)) {
            return NULL;
        }
    }
    return next(c, u);
}

static uop_next rep_scas(struct soft_cpu *c, const struct uop *u)
{
    return rep_compare(c, u, false);
}

static uop_next rep_cmps(struct soft_cpu *c, const struct uop *u)
{
    return rep_compare(c, u, true);
}

/* --- INS, OUTS: sys/ does one element's port and memory access; registers are ours --- */

ALWAYS bool io_one(struct soft_cpu *c, const struct uop *u, const struct str *s, bool in)
{
    uint64_t lin = in ? dst_lin(c, s, true) : src_lin(c, s);
    bool leave = sys_insn(c, u, lin);
    str_advance(c, s, in ? R_DI : R_SI, 1);
    return leave;
}

ALWAYS uop_next io_string(struct soft_cpu *c, const struct uop *u, bool in)
{
    struct str s = str_of(u);
    return io_one(c, u, &s, in) ? leave_after(c) : next(c, u);
}

ALWAYS uop_next rep_io_string(struct soft_cpu *c, const struct uop *u, bool in)
{
    struct str s = str_of(u);
    bool leave = false;
    for (uint64_t left = c->r[R_CX] & s.mask; left;) {
        leave |= io_one(c, u, &s, in);
        reg_add_asize(c, R_CX, -UINT64_C(1), s.asize);
        left--;
        if (left && str_pause(c)) {
            return NULL;
        }
    }
    return leave ? leave_after(c) : next(c, u);
}

static uop_next ins(struct soft_cpu *c, const struct uop *u)
{
    return io_string(c, u, true);
}

static uop_next outs(struct soft_cpu *c, const struct uop *u)
{
    return io_string(c, u, false);
}

static uop_next rep_ins(struct soft_cpu *c, const struct uop *u)
{
    return rep_io_string(c, u, true);
}

static uop_next rep_outs(struct soft_cpu *c, const struct uop *u)
{
    return rep_io_string(c, u, false);
}

uop_fn *interp_pick_string(const struct insn *i, enum insn_op op, uint32_t mode)
{
    bool rep = i->flags & (INSN_REP | INSN_REPNE);
    switch (op) {
    case OP_MOVS: return rep ? rep_movs : movs;
    case OP_STOS: return rep ? rep_stos : stos;
    case OP_LODS: return rep ? rep_lods : lods;
    case OP_SCAS: return rep ? rep_scas : scas;
    case OP_CMPS: return rep ? rep_cmps : cmps;
    case OP_INS: return rep ? rep_ins : ins;
    case OP_OUTS: return rep ? rep_outs : outs;
    default: return NULL;
    }
}
