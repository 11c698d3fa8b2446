/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ROL ROR RCL RCR SHL SHR SAR SHLD SHRD. Source: SDM vol. 2. The count is cut to 5 bits (6 for 64-bit operands); a
 * count of 0 changes no flag, but the destination is written all the same (a 32-bit register is zero-extended, memory
 * must be writable). All flags go in and out, because rotates change only CF and OF and because undefined ones shall
 * be the host's.
 */
#include "engine/soft/interp/interp-int.h"

#define SHIFT_CASE(insn, sfx, type)                                                                          \
    {                                                                                                        \
        type r_ = (type)d;                                                                                   \
        __asm__(FLAGS_IN insn sfx " %%cl, %1" FLAGS_OUT : "+a"(ax), "+r"(r_) : "c"((uint8_t)n) : "cc");      \
        d = r_;                                                                                              \
        break;                                                                                               \
    }

/* n is not 0. */
ALWAYS uint64_t shift(struct soft_cpu *c, enum insn_op op, unsigned size, uint64_t d, unsigned n)
{
    uint16_t ax = c->af;
    switch (op) {
    case OP_ROL: ALU_SIZES(SHIFT_CASE, "rol");
    case OP_ROR: ALU_SIZES(SHIFT_CASE, "ror");
    case OP_RCL: ALU_SIZES(SHIFT_CASE, "rcl");
    case OP_RCR: ALU_SIZES(SHIFT_CASE, "rcr");
    case OP_SHR: ALU_SIZES(SHIFT_CASE, "shr");
    case OP_SAR: ALU_SIZES(SHIFT_CASE, "sar");
    default: ALU_SIZES(SHIFT_CASE, "shl");
    }
    c->af = ax;
    return d;
}

ALWAYS uop_next shift_rm(struct soft_cpu *c, const struct uop *u, enum insn_op op, unsigned size, enum rm_kind k,
                         uint64_t count)
{
    unsigned n = count & (size == 8 ? 63 : 31);
    struct rmw w = { 0 };
    uint64_t d = rmw_get(c, u, k, size, &w);
    rmw_put(c, u, k, size, &w, n ? shift(c, op, size, d, n) : d);
    return next(c, u);
}

#define SHIFT_FNS(op, s)                                                                                     \
    static uop_next op##_i_##s##_REG(struct soft_cpu *c, const struct uop *u)                                \
    {                                                                                                        \
        return shift_rm(c, u, OP_##op, s, K_REG, u->i.imm);                                                  \
    }                                                                                                        \
    static uop_next op##_cl_##s##_REG(struct soft_cpu *c, const struct uop *u)                               \
    {                                                                                                        \
        return shift_rm(c, u, OP_##op, s, K_REG, c->r[R_CX]);                                                \
    }                                                                                                        \
    static uop_next op##_1_##s##_REG(struct soft_cpu *c, const struct uop *u)                                \
    {                                                                                                        \
        return shift_rm(c, u, OP_##op, s, K_REG, 1);                                                         \
    }                                                                                                        \
    static uop_next op##_##s##_mem(struct soft_cpu *c, const struct uop *u)                                  \
    {                                                                                                        \
        uint64_t n = u->i.form == F_RM_1 ? 1 : u->i.form == F_RM_CL ? c->r[R_CX] : u->i.imm;                 \
        return shift_rm(c, u, OP_##op, s, K_ANY, n);                                                         \
    }
#define SHIFT_REFS(op, s) { op##_i_##s##_REG, op##_cl_##s##_REG, op##_1_##s##_REG, op##_##s##_mem }
#define SHIFT_BODIES(op)                                                                                     \
    SHIFT_FNS(op, 1) SHIFT_FNS(op, 2) SHIFT_FNS(op, 4) SHIFT_FNS(op, 8)                                      \
    static uop_fn *const op##_tab[4][4] = { SHIFT_REFS(op, 1), SHIFT_REFS(op, 2), SHIFT_REFS(op, 4), SHIFT_REFS(op, 8) };

SHIFT_BODIES(ROL)
SHIFT_BODIES(ROR)
SHIFT_BODIES(RCL)
SHIFT_BODIES(RCR)
SHIFT_BODIES(SHL)
SHIFT_BODIES(SHR)
SHIFT_BODIES(SAR)

static uop_fn *const (*const shift_ops[8])[4] = {
    [OP_ROL - OP_ROL] = ROL_tab, [OP_ROR - OP_ROL] = ROR_tab, [OP_RCL - OP_ROL] = RCL_tab, [OP_RCR - OP_ROL] = RCR_tab,
    [OP_SHL - OP_ROL] = SHL_tab, [OP_SHR - OP_ROL] = SHR_tab, [OP_SAL - OP_ROL] = SHL_tab, [OP_SAR - OP_ROL] = SAR_tab,
};

#define DOUBLE_CASE(insn, sfx, type)                                                                         \
    {                                                                                                        \
        type r_ = (type)d;                                                                                   \
        __asm__(FLAGS_IN insn sfx " %%cl, %3, %1" FLAGS_OUT : "+&a"(ax), "+&r"(r_) : "c"((uint8_t)n), "r"((type)s) : "cc"); \
        d = r_;                                                                                              \
        break;                                                                                               \
    }
#define DOUBLE_SIZES(insn)                                                                                   \
    switch (size) {                                                                                          \
    case 2: DOUBLE_CASE(insn, "w", uint16_t)                                                                 \
    case 4: DOUBLE_CASE(insn, "l", uint32_t)                                                                 \
    default: DOUBLE_CASE(insn, "q", uint64_t)                                                                \
    }

ALWAYS uop_next double_shift(struct soft_cpu *c, const struct uop *u, bool left, unsigned size)
{
    uint64_t count = u->i.form == F_RM_R_CL ? c->r[R_CX] : u->i.imm;
    unsigned n = count & (size == 8 ? 63 : 31);
    struct rmw w = { 0 };
    uint64_t d = rmw_get(c, u, K_ANY, size, &w), s = reg_get(c, u->i.reg, size);
    if (n) {
        uint16_t ax = c->af;
        if (left) {
            DOUBLE_SIZES("shld")
        } else {
            DOUBLE_SIZES("shrd")
        }
        c->af = ax;
    }
    rmw_put(c, u, K_ANY, size, &w, d);
    return next(c, u);
}

ALWAYS uop_next shld(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    return double_shift(c, u, true, size);
}

ALWAYS uop_next shrd(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    return double_shift(c, u, false, size);
}

SIZES_W(shld)
SIZES_W(shrd)

uop_fn *interp_pick_shift(const struct insn *i, enum insn_op op, uint32_t mode)
{
    if (op == OP_SHLD || op == OP_SHRD) {
        return op == OP_SHLD ? shld_tab[i->opsize] : shrd_tab[i->opsize];
    }
    uop_fn *const *fns = shift_ops[op - OP_ROL][i->opsize];
    if (i->flags & INSN_MEM) {
        return fns[3];
    }
    switch (i->form) {
    case F_RM_I: return fns[0];
    case F_RM_CL: return fns[1];
    case F_RM_1: return fns[2];
    default: return NULL;
    }
}
