/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the handler families share: operands, addresses, guest memory, host flags, and the grids that turn one inline
 * body into a handler per operand size and operand kind.
 *
 * A handler never asks what interp_prepare could already know: sizes, operand kinds and conditions are constants of
 * the body when it is instantiated. K_ANY bodies look at u->i and c->mode instead; they are for rare instructions.
 */
#ifndef LODGE_SOFT_INTERP_INT_H
#define LODGE_SOFT_INTERP_INT_H

#include "engine/soft/interp/interp.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/sys/sys.h"

#define ALWAYS static inline __attribute__((always_inline))
typedef const struct uop *uop_next;     /* what a handler returns: see struct uop */

typedef uint16_t __attribute__((aligned(1), may_alias)) any16;
typedef uint32_t __attribute__((aligned(1), may_alias)) any32;
typedef uint64_t __attribute__((aligned(1), may_alias)) any64;

/* Where ModRM.rm is. */
enum rm_kind {
    K_REG,
    K_MB,           /* 64-bit code: base + disp, no index, segment base 0 */
    K_MF,           /* flat: segment base (FS and GS only in 64-bit code) + any address form */
    K_MS,           /* segment limits and rights to be checked */
    N_KINDS,
    K_ANY = N_KINDS /* decided when executed */
};

static const uint64_t addr_masks[4] = { 0, 0xffff, 0xffffffff, UINT64_MAX };

ALWAYS bool mode_is64(uint32_t mode)
{
    return (mode & MODE_SIZE_MASK) == INSN_MODE_64;
}

/* No index: base + disp is all. */
ALWAYS bool ea_is_base_disp(const struct insn *i)
{
    return i->index == R_ZERO && !(i->flags & INSN_MOFFS);
}

ALWAYS enum rm_kind kind_of(const struct insn *i, uint32_t mode)
{
    if (!(i->flags & INSN_MEM)) {
        return K_REG;
    }
    if (mode_is64(mode)) {
        return i->asize == 3 && i->seg < SEG_FS && ea_is_base_disp(i) ? K_MB : K_MF;
    }
    /* code segments are never writable in protected mode: left to the check */
    return (mode & MODE_FLAT) && i->seg < SEG_FS && i->seg != SEG_CS ? K_MF : K_MS;
}

/* Goes on with the next instruction of the block, without a round through the run loop where the compiler can jump. */
ALWAYS uop_next next(struct soft_cpu *c, const struct uop *u)
{
    u++;
    c->u = u;
    return u->fn(c, u);
}

/* --- registers --- */

ALWAYS uint64_t reg_get(const struct soft_cpu *c, unsigned reg, unsigned size)
{
    switch (size) {
    case 1: return ((const uint8_t *)c->r)[(reg & 15) * 8 + (reg >> 4)];     /* INSN_AH.. are the second bytes */
    case 2: return (uint16_t)c->r[reg];
    case 4: return (uint32_t)c->r[reg];
    default: return c->r[reg];
    }
}

/* Whole 8-byte stores, even for narrow registers: a wide load after a narrow store would stall the host. */
ALWAYS void reg_put(struct soft_cpu *c, unsigned reg, unsigned size, uint64_t v)
{
    switch (size) {
    case 1: {
        unsigned sh = (reg >> 4) * 8;
        uint64_t *r = &c->r[reg & 15];
        *r = (*r & ~(UINT64_C(0xff) << sh)) | (uint64_t)(uint8_t)v << sh;
        break;
    }
    case 2: c->r[reg] = (c->r[reg] & ~UINT64_C(0xffff)) | (uint16_t)v; break;
    case 4: c->r[reg] = (uint32_t)v; break;
    default: c->r[reg] = v; break;
    }
}

ALWAYS uint64_t sext(uint64_t v, unsigned size)
{
    switch (size) {
    case 1: return (uint64_t)(int8_t)v;
    case 2: return (uint64_t)(int16_t)v;
    case 4: return (uint64_t)(int32_t)v;
    default: return v;
    }
}

/* Adds to a counter or index register of string and loop instructions, as wide as the address size. */
ALWAYS void reg_add_asize(struct soft_cpu *c, unsigned reg, uint64_t delta, unsigned asize)
{
    reg_put(c, reg, 1u << asize, c->r[reg] + delta);
}

/* --- memory: what the TLB does not answer goes through here, where non-canonical addresses are refused --- */

ALWAYS bool is_canonical(uint64_t a)
{
    return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

/*
 * The thunks (access.c) keep every general register but rAX, which C cannot promise: with them a handler needs no stack
 * frame for the sake of a miss. This library is built without a red zone.
 */
#define MISS_CLOBBERS                                                                                        \
    "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",         \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

ALWAYS uint64_t load_miss(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg)
{
    uint64_t v;
    __asm__ volatile("call interp_load_miss" : "=a"(v) : "D"(c), "S"(lin), "d"(size), "c"(seg) : MISS_CLOBBERS);
    return v;
}

ALWAYS void store_miss(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg, uint64_t v)
{
    register uint64_t r8 __asm__("r8") = v;
    __asm__ volatile("call interp_store_miss" : : "D"(c), "S"(lin), "d"(size), "c"(seg), "r"(r8) : MISS_CLOBBERS, "rax");
}

ALWAYS void *ptr_w_miss(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg)
{
    void *p;
    __asm__ volatile("call interp_ptr_w_miss" : "=a"(p) : "D"(c), "S"(lin), "d"(size), "c"(seg) : MISS_CLOBBERS);
    return p;
}

/* The read half of a read-modify-write that has no host pointer: write rights first, then the value. */
ALWAYS uint64_t rmw_get_slow(struct soft_cpu *c, uint64_t lin, unsigned size)
{
    uint64_t v;
    __asm__ volatile("call interp_rmw_get_slow" : "=a"(v) : "D"(c), "S"(lin), "d"(size) : MISS_CLOBBERS);
    return v;
}

/* #SS or #GP for an access that no TLB entry can cover. Sizes up to 16 MiB. */
void interp_check_lin(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg);

ALWAYS uint64_t host_load(const void *p, unsigned size)
{
    switch (size) {
    case 1: return READ_ONCE(*(const uint8_t *)p);
    case 2: return READ_ONCE(*(const any16 *)p);
    case 4: return READ_ONCE(*(const any32 *)p);
    default: return READ_ONCE(*(const any64 *)p);
    }
}

ALWAYS void host_store(void *p, unsigned size, uint64_t v)
{
    switch (size) {
    case 1: WRITE_ONCE(*(uint8_t *)p, (uint8_t)v); return;
    case 2: WRITE_ONCE(*(any16 *)p, (uint16_t)v); return;
    case 4: WRITE_ONCE(*(any32 *)p, (uint32_t)v); return;
    default: WRITE_ONCE(*(any64 *)p, v); return;
    }
}

ALWAYS uint64_t lin_load(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg)
{
    const struct tlb_entry *e = tlb_slot(c, lin);
    if (likely(lin - e->tag_r <= PAGE_SIZE - size)) {
        return host_load((const void *)(uintptr_t)(lin + e->addend), size);
    }
    return load_miss(c, lin, size, seg);
}

ALWAYS void lin_store(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg, uint64_t v)
{
    const struct tlb_entry *e = tlb_slot(c, lin);
    if (likely(lin - e->tag_w <= PAGE_SIZE - size)) {
        host_store((void *)(uintptr_t)(lin + e->addend), size, v);
        return;
    }
    store_miss(c, lin, size, seg, v);
}

/* NULL: crosses a page, or is MMIO. */
ALWAYS void *lin_ptr_w(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg)
{
    const struct tlb_entry *e = tlb_slot(c, lin);
    if (likely(lin - e->tag_w <= PAGE_SIZE - size)) {
        return (void *)(uintptr_t)(lin + e->addend);
    }
    return ptr_w_miss(c, lin, size, seg);
}

/* --- effective and linear addresses --- */

/* Offset in the segment; `add` is what POP [rSP] and BT put on top before the address size cuts it. */
ALWAYS uint64_t ea_of(const struct soft_cpu *c, const struct uop *u, uint64_t add)
{
    const struct insn *i = &u->i;
    return (c->r[i->base] + (c->r[i->index] << i->scale) + (uint64_t)(int64_t)i->disp + add) & addr_masks[i->asize];
}

uint64_t interp_lin_any(struct soft_cpu *c, const struct uop *u, unsigned size, bool write, uint64_t add);

ALWAYS uint64_t rm_lin(struct soft_cpu *c, const struct uop *u, enum rm_kind k, unsigned size, bool write)
{
    switch (k) {
    case K_MB: return c->r[u->i.base] + (uint64_t)(int64_t)u->i.disp;
    case K_MF: return c->segbase[u->i.seg] + ea_of(c, u, 0);
    case K_MS: return sys_seg_lin(c, u->i.seg, ea_of(c, u, 0), size, write);
    default: return interp_lin_any(c, u, size, write, 0);
    }
}

ALWAYS bool rm_is_reg(const struct uop *u, enum rm_kind k)
{
    return k == K_REG || (k == K_ANY && !(u->i.flags & INSN_MEM));
}

ALWAYS uint64_t rm_get(struct soft_cpu *c, const struct uop *u, enum rm_kind k, unsigned size)
{
    if (rm_is_reg(u, k)) {
        return reg_get(c, u->i.rm, size);
    }
    return lin_load(c, rm_lin(c, u, k, size, false), size, u->i.seg);
}

ALWAYS void rm_put(struct soft_cpu *c, const struct uop *u, enum rm_kind k, unsigned size, uint64_t v)
{
    if (rm_is_reg(u, k)) {
        reg_put(c, u->i.rm, size, v);
        return;
    }
    lin_store(c, rm_lin(c, u, k, size, true), size, u->i.seg, v);
}

/* Read-modify-write without LOCK: rmw_get checks write rights, so that rmw_put cannot fault. */
struct rmw {
    uint64_t lin;
    void *p;
};

ALWAYS uint64_t rmw_get_lin(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg, struct rmw *w)
{
    w->lin = lin;
    w->p = lin_ptr_w(c, lin, size, seg);
    return likely(w->p) ? host_load(w->p, size) : rmw_get_slow(c, lin, size);
}

ALWAYS void rmw_put_lin(struct soft_cpu *c, unsigned size, const struct rmw *w, uint64_t v)
{
    if (likely(w->p)) {
        host_store(w->p, size, v);
    } else {
        store_miss(c, w->lin, size, SEG_DS, v);     /* checked by rmw_get */
    }
}

ALWAYS uint64_t rmw_get(struct soft_cpu *c, const struct uop *u, enum rm_kind k, unsigned size, struct rmw *w)
{
    if (rm_is_reg(u, k)) {
        return reg_get(c, u->i.rm, size);
    }
    return rmw_get_lin(c, rm_lin(c, u, k, size, true), size, u->i.seg, w);
}

ALWAYS void rmw_put(struct soft_cpu *c, const struct uop *u, enum rm_kind k, unsigned size, const struct rmw *w,
                    uint64_t v)
{
    if (rm_is_reg(u, k)) {
        reg_put(c, u->i.rm, size, v);
    } else {
        rmw_put_lin(c, size, w, v);
    }
}

/*
 * Locked read-modify-write: get `old`, compute, commit; again with the new `old` when another vCPU was faster. In a
 * page of RAM that is the host's compare-and-exchange. Across two pages all other vCPUs stand still from begin to
 * commit. MMIO is plainly read and written: a device serialises its own accesses.
 */
struct locked {
    uint64_t lin;
    uint64_t old;
    uint8_t *p;                 /* NULL: p1/p2, or MMIO when these are NULL too */
    uint8_t *p1, *p2;           /* two pieces, n1 bytes in the first; the exclusive section is held */
    unsigned n1;
};
void interp_locked_begin_slow(struct soft_cpu *c, struct locked *l, unsigned size);
void interp_locked_commit_slow(struct soft_cpu *c, struct locked *l, unsigned size, uint64_t v);

ALWAYS void locked_begin(struct soft_cpu *c, struct locked *l, uint64_t lin, unsigned size, unsigned seg)
{
    l->lin = lin;
    l->p = lin_ptr_w(c, lin, size, seg);
    if (likely(l->p)) {
        l->old = host_load(l->p, size);
    } else {
        interp_locked_begin_slow(c, l, size);
    }
}

#define HOST_CAS(type, p, old, v)                                                                            \
    ({                                                                                                       \
        type want_ = (type)(old), seen_ = want_;                                                             \
        __asm__ volatile("lock cmpxchg %2, (%1)" : "+a"(seen_) : "r"(p), "r"((type)(v)) : "memory", "cc");   \
        (old) = seen_;                                                                                       \
        seen_ == want_;                                                                                      \
    })

ALWAYS bool locked_commit(struct soft_cpu *c, struct locked *l, unsigned size, uint64_t v)
{
    if (unlikely(!l->p)) {
        interp_locked_commit_slow(c, l, size, v);
        return true;
    }
    switch (size) {
    case 1: return HOST_CAS(uint8_t, l->p, l->old, v);
    case 2: return HOST_CAS(uint16_t, l->p, l->old, v);
    case 4: return HOST_CAS(uint32_t, l->p, l->old, v);
    default: return HOST_CAS(uint64_t, l->p, l->old, v);
    }
}

/* --- flags: in host asm around the operation itself; c->af is AH:AL as FLAGS_OUT leaves them --- */

#define FLAGS_IN "addb $0x7f, %%al\n\tsahf\n\t"          /* OF from AL, the others from AH */
#define FLAGS_OUT "\n\tlahf\n\tseto %%al"

ALWAYS bool flag_cf(const struct soft_cpu *c)
{
    return c->af >> 8 & 1;
}

/* Condition code of Jcc, SETcc, CMOVcc. Folds to one test when cc is constant, and has no branch when it is not. */
ALWAYS bool cond(const struct soft_cpu *c, unsigned cc)
{
    enum { O = 1, C = 1 << 8, P = 1 << 10, Z = 1 << 14, S = 1 << 15, L = 1 << 16 /* SF != OF */ };
    static const uint32_t masks[8] = { O, C, Z, C | Z, S, P, L, L | Z };
    uint32_t af = c->af;
    if (!__builtin_constant_p(cc) || cc >= 12) {
        af |= ((af >> 15 ^ af) & 1) << 16;
    }
    return ((af & masks[cc >> 1]) != 0) ^ (cc & 1);
}

/* The eight operations of opcodes 00-3F; sets flags, returns the result zero-extended (of CMP: d). */
#define ALU_CASE(insn, sfx, type)                                                                            \
    {                                                                                                        \
        type r_ = (type)d;                                                                                   \
        __asm__(insn sfx " %2, %1" FLAGS_OUT : "=&a"(ax), "+r"(r_) : "rm"((type)s) : "cc");                  \
        d = r_;                                                                                              \
        break;                                                                                               \
    }
#define ALU_CASE_CF(insn, sfx, type)                                                                         \
    {                                                                                                        \
        type r_ = (type)d;                                                                                   \
        __asm__("btl $8, %3\n\t" insn sfx " %2, %1" FLAGS_OUT                                                \
                : "=&a"(ax), "+&r"(r_) : "rm"((type)s), "r"((uint32_t)c->af) : "cc");                        \
        d = r_;                                                                                              \
        break;                                                                                               \
    }
#define ALU_SIZES(CASE, insn)                                                                                \
    switch (size) {                                                                                          \
    case 1: CASE(insn, "b", uint8_t)                                                                         \
    case 2: CASE(insn, "w", uint16_t)                                                                        \
    case 4: CASE(insn, "l", uint32_t)                                                                        \
    default: CASE(insn, "q", uint64_t)                                                                       \
    }                                                                                                        \
    break

ALWAYS uint64_t alu(struct soft_cpu *c, enum insn_op op, unsigned size, uint64_t d, uint64_t s)
{
    uint16_t ax;
    switch (op) {
    case OP_ADD: ALU_SIZES(ALU_CASE, "add");
    case OP_OR: ALU_SIZES(ALU_CASE, "or");
    case OP_ADC: ALU_SIZES(ALU_CASE_CF, "adc");
    case OP_SBB: ALU_SIZES(ALU_CASE_CF, "sbb");
    case OP_AND: ALU_SIZES(ALU_CASE, "and");
    case OP_SUB: ALU_SIZES(ALU_CASE, "sub");
    case OP_XOR: ALU_SIZES(ALU_CASE, "xor");
    case OP_TEST: ALU_SIZES(ALU_CASE, "test");
    default: ALU_SIZES(ALU_CASE, "cmp");
    }
    c->af = ax;
    return d;
}

/* --- stack, any mode; the 64-bit forms are inlined in stack.c and branch.c --- */

uint64_t interp_stack_mask(const struct soft_cpu *c);
/* sp is cut to the stack size here. */
uint64_t interp_stack_load(struct soft_cpu *c, uint64_t sp, unsigned size);
void interp_stack_store(struct soft_cpu *c, uint64_t sp, unsigned size, uint64_t v);
void interp_set_sp(struct soft_cpu *c, uint64_t sp);
void interp_push(struct soft_cpu *c, uint64_t v, unsigned size);

/* --- leaving a block --- */

ALWAYS uop_next leave_after(struct soft_cpu *c)
{
    c->rip = cpu_next_rip(c);
    return NULL;
}

/* --- grids: body(c, u, size, kind) as 16 handlers and body_tab[opsize][kind] --- */

#define GRID_FN(body, s, k)                                                                                  \
    static uop_next body##_##s##_##k(struct soft_cpu *c, const struct uop *u)                                \
    {                                                                                                        \
        return body(c, u, s, K_##k);                                                                         \
    }
#define GRID_ROW(body, s) GRID_FN(body, s, REG) GRID_FN(body, s, MB) GRID_FN(body, s, MF) GRID_FN(body, s, MS)
#define GRID_REFS(body, s) { body##_##s##_REG, body##_##s##_MB, body##_##s##_MF, body##_##s##_MS }
#define GRID(body)                                                                                           \
    GRID_ROW(body, 1) GRID_ROW(body, 2) GRID_ROW(body, 4) GRID_ROW(body, 8)                                  \
    static uop_fn *const body##_tab[4][N_KINDS] = {                                                          \
        GRID_REFS(body, 1), GRID_REFS(body, 2), GRID_REFS(body, 4), GRID_REFS(body, 8) };
/* No byte form. */
#define GRID_W(body)                                                                                         \
    GRID_ROW(body, 2) GRID_ROW(body, 4) GRID_ROW(body, 8)                                                    \
    static uop_fn *const body##_tab[4][N_KINDS] = {                                                          \
        { NULL }, GRID_REFS(body, 2), GRID_REFS(body, 4), GRID_REFS(body, 8) };
/* One handler a size, operand kinds decided when executed: body(c, u, size). */
#define SIZES_FN(body, s)                                                                                    \
    static uop_next body##_##s(struct soft_cpu *c, const struct uop *u)                                      \
    {                                                                                                        \
        return body(c, u, s);                                                                                \
    }
#define SIZES(body)                                                                                          \
    SIZES_FN(body, 1) SIZES_FN(body, 2) SIZES_FN(body, 4) SIZES_FN(body, 8)                                  \
    static uop_fn *const body##_tab[4] = { body##_1, body##_2, body##_4, body##_8 };
#define SIZES_W(body)                                                                                        \
    SIZES_FN(body, 2) SIZES_FN(body, 4) SIZES_FN(body, 8)                                                    \
    static uop_fn *const body##_tab[4] = { NULL, body##_2, body##_4, body##_8 };

/* --- pickers, one a family (file); NULL: a form that the family does not have --- */
typedef uop_fn *pick_fn(const struct insn *i, enum insn_op op, uint32_t mode);
pick_fn interp_pick_alu, interp_pick_move, interp_pick_shift, interp_pick_muldiv, interp_pick_bits, interp_pick_bmi,
    interp_pick_branch, interp_pick_stack, interp_pick_atomic, interp_pick_string, interp_pick_misc;

#endif
