/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * XCHG XADD CMPXCHG CMPXCHG8B CMPXCHG16B. Source: SDM vol. 2. XCHG with memory locks by itself; the others are
 * made atomic with and without LOCK, which no program can tell and spares a second set of handlers.
 */
#include "engine/soft/interp/interp-int.h"

ALWAYS uop_next xchg_reg(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    uint64_t a = reg_get(c, u->i.rm, size), b = reg_get(c, u->i.reg, size);
    reg_put(c, u->i.rm, size, b);
    reg_put(c, u->i.reg, size, a);
    return next(c, u);
}

ALWAYS uop_next xchg_mem(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    uint64_t v = reg_get(c, u->i.reg, size);
    struct locked l = { 0 };
    locked_begin(c, &l, rm_lin(c, u, K_ANY, size, true), size, u->i.seg);
    while (!locked_commit(c, &l, size, v)) {
        continue;
    }
    reg_put(c, u->i.reg, size, l.old);
    return next(c, u);
}

SIZES(xchg_reg)
SIZES(xchg_mem)

ALWAYS uop_next xadd_reg(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    uint64_t d = reg_get(c, u->i.rm, size), s = reg_get(c, u->i.reg, size);
    reg_put(c, u->i.reg, size, d);
    reg_put(c, u->i.rm, size, alu(c, OP_ADD, size, d, s));      /* last: XADD r,r leaves the sum */
    return next(c, u);
}

ALWAYS uop_next xadd_mem(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    uint64_t s = reg_get(c, u->i.reg, size), sum;
    struct locked l = { 0 };
    locked_begin(c, &l, rm_lin(c, u, K_ANY, size, true), size, u->i.seg);
    do {
        sum = alu(c, OP_ADD, size, l.old, s);
    } while (!locked_commit(c, &l, size, sum));
    reg_put(c, u->i.reg, size, l.old);
    return next(c, u);
}

SIZES(xadd_reg)
SIZES(xadd_mem)

/*
 * rAX and the destination go through the host's instruction as whole registers: which of them a 32-bit form zero-extends
 * when the comparison fails or holds is the host's to say.
 */
#define CMPXCHG_ASM(sfx, w)                                                                                  \
    __asm__("movq %[acc], %%rax\n\tcmpxchg" sfx " %" w "[src], %" w "[dst]\n\tmovq %%rax, %[acc]" FLAGS_OUT  \
            : "=&a"(ax), [acc] "+&r"(acc), [dst] "+&r"(dst) : [src] "r"(src) : "cc")
#define CMPXCHG_MEM_ASM(sfx, w)                                                                              \
    __asm__ volatile("movq %[acc], %%rax\n\tlock cmpxchg" sfx " %" w "[src], (%[p])\n\tmovq %%rax, %[acc]" FLAGS_OUT \
            : "=&a"(ax), [acc] "+&r"(acc) : [src] "r"(src), [p] "r"(p) : "cc", "memory")

ALWAYS uop_next cmpxchg_reg(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    uint64_t src = reg_get(c, u->i.reg, size), acc = c->r[R_AX];
    uint16_t ax;
    if (size == 1 || u->i.rm == R_AX) {
        /* AH.. cannot go whole; and with rAX itself the comparison always holds */
        uint64_t dst = reg_get(c, u->i.rm, size);
        alu(c, OP_CMP, size, acc, dst);
        if (cond(c, 4)) {
            reg_put(c, u->i.rm, size, src);
        } else {
            reg_put(c, R_AX, size, dst);
        }
        return next(c, u);
    }
    uint64_t dst = c->r[u->i.rm];
    switch (size) {
    case 2: CMPXCHG_ASM("w", "w"); break;
    case 4: CMPXCHG_ASM("l", "k"); break;
    default: CMPXCHG_ASM("q", "q"); break;
    }
    c->r[R_AX] = acc;
    c->r[u->i.rm] = dst;
    c->af = ax;
    return next(c, u);
}

/* No host pointer. The old value is written back when the comparison fails: this always writes. */
static void cmpxchg_slow(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg, uint64_t src)
{
    struct locked l = { 0 };
    locked_begin(c, &l, lin, size, seg);
    uint64_t acc = reg_get(c, R_AX, size);
    while (!locked_commit(c, &l, size, acc == l.old ? src : l.old)) {
        continue;
    }
    switch (size) {
    case 1: alu(c, OP_CMP, 1, acc, l.old); break;
    case 2: alu(c, OP_CMP, 2, acc, l.old); break;
    case 4: alu(c, OP_CMP, 4, acc, l.old); break;
    default: alu(c, OP_CMP, 8, acc, l.old); break;
    }
    if (acc != l.old) {
        reg_put(c, R_AX, size, l.old);
    }
}

ALWAYS uop_next cmpxchg_mem(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    uint64_t lin = rm_lin(c, u, K_ANY, size, true), src = reg_get(c, u->i.reg, size), acc = c->r[R_AX];
    void *p = lin_ptr_w(c, lin, size, u->i.seg);
    uint16_t ax;
    if (unlikely(!p)) {
        cmpxchg_slow(c, lin, size, u->i.seg, src);
        return next(c, u);
    }
    switch (size) {
    case 1: CMPXCHG_MEM_ASM("b", "b"); break;
    case 2: CMPXCHG_MEM_ASM("w", "w"); break;
    case 4: CMPXCHG_MEM_ASM("l", "k"); break;
    default: CMPXCHG_MEM_ASM("q", "q"); break;
    }
    c->r[R_AX] = acc;
    c->af = ax;
    return next(c, u);
}

SIZES(cmpxchg_reg)
SIZES(cmpxchg_mem)

/* ZF alone. */
static void set_zf(struct soft_cpu *c, bool zf)
{
    c->af = (uint16_t)((c->af & ~(1 << 14)) | zf << 14);
}

/* EDX:EAX against 8 bytes that may lie anywhere. */
static uop_next cmpxchg8b(struct soft_cpu *c, const struct uop *u)
{
    uint64_t lin = rm_lin(c, u, K_ANY, 8, true);
    uint64_t want = (uint32_t)c->r[R_AX] | c->r[R_DX] << 32, src = (uint32_t)c->r[R_BX] | c->r[R_CX] << 32;
    struct locked l = { 0 };
    locked_begin(c, &l, lin, 8, u->i.seg);
    while (!locked_commit(c, &l, 8, l.old == want ? src : l.old)) {
        continue;
    }
    if (l.old != want) {
        reg_put(c, R_AX, 4, l.old);
        reg_put(c, R_DX, 4, l.old >> 32);
    }
    set_zf(c, l.old == want);
    return next(c, u);
}

/* Aligned, hence never across a page. Without a host pointer it is MMIO. */
static uop_next cmpxchg16b(struct soft_cpu *c, const struct uop *u)
{
    uint64_t lin = rm_lin(c, u, K_ANY, 16, true), lo = c->r[R_AX], hi = c->r[R_DX];
    uint8_t equal;
    if (lin & 15) {
        cpu_raise_err(c, EXC_GP, 0);
    }
    void *p = lin_ptr_w(c, lin, 16, u->i.seg);
    if (likely(p)) {
        __asm__ volatile("lock cmpxchg16b (%[p])\n\tsete %[eq]"
                         : "+a"(lo), "+d"(hi), [eq] "=q"(equal)
                         : "b"(c->r[R_BX]), "c"(c->r[R_CX]), [p] "r"(p) : "cc", "memory");
    } else {
        uint64_t old[2] = { rmw_get_slow(c, lin, 8), rmw_get_slow(c, lin + 8, 8) };
        equal = old[0] == lo && old[1] == hi;
        mmu_store(c, lin, 8, equal ? c->r[R_BX] : old[0]);
        mmu_store(c, lin + 8, 8, equal ? c->r[R_CX] : old[1]);
        lo = old[0];
        hi = old[1];
    }
    c->r[R_AX] = lo;
    c->r[R_DX] = hi;
    set_zf(c, equal);
    return next(c, u);
}

uop_fn *interp_pick_atomic(const struct insn *i, enum insn_op op, uint32_t mode)
{
    bool mem = i->flags & INSN_MEM;
    switch (op) {
    case OP_XCHG: return mem ? xchg_mem_tab[i->opsize] : xchg_reg_tab[i->opsize];
    case OP_XADD: return mem ? xadd_mem_tab[i->opsize] : xadd_reg_tab[i->opsize];
    case OP_CMPXCHG: return mem ? cmpxchg_mem_tab[i->opsize] : cmpxchg_reg_tab[i->opsize];
    case OP_CMPXCHG8B: return i->opsize == 3 ? cmpxchg16b : cmpxchg8b;
    default: return NULL;
    }
}
