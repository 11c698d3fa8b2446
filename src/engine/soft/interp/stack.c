/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PUSH POP PUSHA POPA ENTER LEAVE (of segment registers: sys/). Source: SDM vol. 2. RSP moves after the last access
 * that can fault. Which part of RSP is the stack pointer depends on the mode: RSP, ESP (zero-extended when written) or
 * SP (the rest is kept).
 */
#include "engine/soft/interp/interp-int.h"

uint64_t interp_stack_mask(const struct soft_cpu *c)
{
    return cpu_code64(c) ? UINT64_MAX : c->mode & MODE_SS32 ? 0xffffffff : 0xffff;
}

static uint64_t stack_lin(struct soft_cpu *c, uint64_t sp, unsigned size, bool write)
{
    sp &= interp_stack_mask(c);
    if (cpu_code64(c) || (c->mode & (MODE_FLAT | MODE_SS32)) == (MODE_FLAT | MODE_SS32)) {
        return sp;
    }
    return sys_seg_lin(c, SEG_SS, sp, size, write);
}

uint64_t interp_stack_load(struct soft_cpu *c, uint64_t sp, unsigned size)
{
    return lin_load(c, stack_lin(c, sp, size, false), size, SEG_SS);
}

void interp_stack_store(struct soft_cpu *c, uint64_t sp, unsigned size, uint64_t v)
{
    lin_store(c, stack_lin(c, sp, size, true), size, SEG_SS, v);
}

void interp_set_sp(struct soft_cpu *c, uint64_t sp)
{
    reg_put(c, R_SP, cpu_code64(c) ? 8 : c->mode & MODE_SS32 ? 4 : 2, sp);
}

void interp_push(struct soft_cpu *c, uint64_t v, unsigned size)
{
    uint64_t sp = c->r[R_SP] - size;
    interp_stack_store(c, sp, size, v);
    interp_set_sp(c, sp);
}

/* --- 64-bit code, 8-byte operands --- */

ALWAYS uop_next push_64(struct soft_cpu *c, const struct uop *u, uint64_t v)
{
    uint64_t sp = c->r[R_SP] - 8;
    lin_store(c, sp, 8, SEG_SS, v);
    c->r[R_SP] = sp;
    return next(c, u);
}

static uop_next push_r64(struct soft_cpu *c, const struct uop *u)
{
    return push_64(c, u, c->r[u->i.rm]);
}

static uop_next push_i64(struct soft_cpu *c, const struct uop *u)
{
    return push_64(c, u, u->i.imm);
}

static uop_next push_m64(struct soft_cpu *c, const struct uop *u)
{
    return push_64(c, u, rm_get(c, u, K_MF, 8));
}

static uop_next pop_r64(struct soft_cpu *c, const struct uop *u)
{
    uint64_t sp = c->r[R_SP], v = lin_load(c, sp, 8, SEG_SS);
    c->r[R_SP] = sp + 8;
    c->r[u->i.rm] = v;          /* last: POP RSP keeps what it read */
    return next(c, u);
}

/* --- any mode --- */

static uop_next push_any(struct soft_cpu *c, const struct uop *u)
{
    unsigned size = 1u << u->i.opsize;
    interp_push(c, u->i.form == F_I ? u->i.imm : rm_get(c, u, K_ANY, size), size);
    return next(c, u);
}

/* A memory operand addressed by rSP sees it already incremented. */
static uop_next pop_any(struct soft_cpu *c, const struct uop *u)
{
    unsigned size = 1u << u->i.opsize;
    uint64_t sp = c->r[R_SP], v = interp_stack_load(c, sp, size);
    if (u->i.flags & INSN_MEM) {
        uint64_t lin = interp_lin_any(c, u, size, true, u->i.base == R_SP ? size : 0);
        lin_store(c, lin, size, u->i.seg, v);
        interp_set_sp(c, sp + size);
    } else {
        interp_set_sp(c, sp + size);
        reg_put(c, u->i.rm, size, v);
    }
    return next(c, u);
}

static uop_next pusha(struct soft_cpu *c, const struct uop *u)
{
    unsigned size = 1u << u->i.opsize;
    uint64_t sp = c->r[R_SP];
    for (unsigned reg = R_AX; reg <= R_DI; reg++) {
        sp -= size;
        interp_stack_store(c, sp, size, c->r[reg]);     /* SP as it was before */
    }
    interp_set_sp(c, sp);
    return next(c, u);
}

static uop_next popa(struct soft_cpu *c, const struct uop *u)
{
    unsigned size = 1u << u->i.opsize;
    uint64_t sp = c->r[R_SP], v[8];
    for (unsigned n = 0; n < 8; n++) {
        v[7 - n] = interp_stack_load(c, sp, size);
        sp += size;
    }
    interp_set_sp(c, sp);
    for (unsigned reg = R_AX; reg <= R_DI; reg++) {
        if (reg != R_SP) {
            reg_put(c, reg, size, v[reg]);
        }
    }
    return next(c, u);
}

/* FrameTemp and the copied frame pointers; SDM vol. 2A, ENTER. */
static uop_next enter(struct soft_cpu *c, const struct uop *u)
{
    unsigned size = 1u << u->i.opsize, level = u->i.imm >> 16 & 31;
    uint64_t sp = c->r[R_SP] - size, bp = c->r[R_BP], frame = sp;
    interp_stack_store(c, sp, size, bp);
    for (unsigned n = 1; n < level; n++) {
        bp -= size;
        sp -= size;
        interp_stack_store(c, sp, size, interp_stack_load(c, bp, size));
    }
    if (level) {
        sp -= size;
        interp_stack_store(c, sp, size, frame);
    }
    sp -= u->i.imm & 0xffff;
    uint64_t lin = stack_lin(c, sp, size, true);
    interp_check_lin(c, lin, size, SEG_SS);
    mmu_probe(c, lin, size, MMU_WRITE);         /* faults as a push there would */
    reg_put(c, R_BP, size, frame);
    interp_set_sp(c, sp);
    return next(c, u);
}

static uop_next leave_any(struct soft_cpu *c, const struct uop *u)
{
    unsigned size = 1u << u->i.opsize;
    uint64_t bp = c->r[R_BP], v = interp_stack_load(c, bp, size);
    interp_set_sp(c, bp + size);
    reg_put(c, R_BP, size, v);
    return next(c, u);
}

uop_fn *interp_pick_stack(const struct insn *i, enum insn_op op, uint32_t mode)
{
    bool wide = mode_is64(mode) && i->opsize == 3, mem = i->flags & INSN_MEM;
    switch (op) {
    case OP_PUSH:
        if (!wide) {
            return push_any;
        }
        return i->form == F_I ? push_i64 : mem ? push_m64 : push_r64;
    case OP_POP: return wide && !mem ? pop_r64 : pop_any;
    case OP_PUSHA: return pusha;
    case OP_POPA: return popa;
    case OP_ENTER: return enter;
    case OP_LEAVE: return leave_any;
    default: return NULL;
    }
}
