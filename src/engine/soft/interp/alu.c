/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ADD OR ADC SBB AND SUB XOR CMP TEST INC DEC NOT NEG. Source: SDM vol. 2. */
#include "engine/soft/interp/interp-int.h"

ALWAYS uop_next alu_to_rm(struct soft_cpu *c, const struct uop *u, enum insn_op op, unsigned size, enum rm_kind k,
                          uint64_t s)
{
    if (op == OP_CMP || op == OP_TEST) {
        alu(c, op, size, rm_get(c, u, k, size), s);
    } else {
        struct rmw w = { 0 };
        uint64_t d = rmw_get(c, u, k, size, &w);
        rmw_put(c, u, k, size, &w, alu(c, op, size, d, s));
    }
    return next(c, u);
}

ALWAYS uop_next alu_to_reg(struct soft_cpu *c, const struct uop *u, enum insn_op op, unsigned size, enum rm_kind k)
{
    uint64_t s = rm_get(c, u, k, size);
    uint64_t r = alu(c, op, size, reg_get(c, u->i.reg, size), s);
    if (op != OP_CMP && op != OP_TEST) {
        reg_put(c, u->i.reg, size, r);
    }
    return next(c, u);
}

/* INC, DEC keep CF; NOT changes no flag. */
#define UNARY_CASE(insn, sfx, type)                                                                          \
    {                                                                                                        \
        type r_ = (type)d;                                                                                   \
        __asm__("btl $8, %2\n\t" insn sfx " %1" FLAGS_OUT : "=&a"(ax), "+&r"(r_) : "r"((uint32_t)c->af) : "cc"); \
        d = r_;                                                                                              \
        break;                                                                                               \
    }

ALWAYS uint64_t unary(struct soft_cpu *c, enum insn_op op, unsigned size, uint64_t d)
{
    uint16_t ax;
    switch (op) {
    case OP_NOT: return ~d;
    case OP_INC: ALU_SIZES(UNARY_CASE, "inc");
    case OP_DEC: ALU_SIZES(UNARY_CASE, "dec");
    default: ALU_SIZES(UNARY_CASE, "neg");
    }
    c->af = ax;
    return d;
}

ALWAYS uop_next unary_rm(struct soft_cpu *c, const struct uop *u, enum insn_op op, unsigned size, enum rm_kind k)
{
    struct rmw w = { 0 };
    uint64_t d = rmw_get(c, u, k, size, &w);
    rmw_put(c, u, k, size, &w, unary(c, op, size, d));
    return next(c, u);
}

/* LOCK forms: memory only, source by form. c->af is an input of ADC and SBB, so each try starts from the same one. */
ALWAYS uop_next alu_locked(struct soft_cpu *c, const struct uop *u, enum insn_op op, unsigned size)
{
    struct locked l = { 0 };
    uint64_t s = u->i.form == F_RM_R ? reg_get(c, u->i.reg, size) : u->i.imm, r;
    uint16_t af = c->af;
    locked_begin(c, &l, rm_lin(c, u, K_ANY, size, true), size, u->i.seg);
    do {
        c->af = af;
        r = op >= OP_INC && op <= OP_NEG ? unary(c, op, size, l.old) : alu(c, op, size, l.old, s);
    } while (!locked_commit(c, &l, size, r));
    return next(c, u);
}

#define ALU_BODIES(op)                                                                                       \
    ALWAYS uop_next op##_rm_r(struct soft_cpu *c, const struct uop *u, unsigned size, enum rm_kind k)        \
    {                                                                                                        \
        return alu_to_rm(c, u, OP_##op, size, k, reg_get(c, u->i.reg, size));                                \
    }                                                                                                        \
    ALWAYS uop_next op##_rm_i(struct soft_cpu *c, const struct uop *u, unsigned size, enum rm_kind k)        \
    {                                                                                                        \
        return alu_to_rm(c, u, OP_##op, size, k, u->i.imm);                                                  \
    }                                                                                                        \
    ALWAYS uop_next op##_r_rm(struct soft_cpu *c, const struct uop *u, unsigned size, enum rm_kind k)        \
    {                                                                                                        \
        return alu_to_reg(c, u, OP_##op, size, k);                                                           \
    }                                                                                                        \
    GRID(op##_rm_r) GRID(op##_rm_i) GRID(op##_r_rm)
#define UNARY_BODIES(op)                                                                                     \
    ALWAYS uop_next op##_rm(struct soft_cpu *c, const struct uop *u, unsigned size, enum rm_kind k)          \
    {                                                                                                        \
        return unary_rm(c, u, OP_##op, size, k);                                                             \
    }                                                                                                        \
    GRID(op##_rm)
#define LOCKED_BODIES(op)                                                                                    \
    ALWAYS uop_next op##_locked(struct soft_cpu *c, const struct uop *u, unsigned size)                      \
    {                                                                                                        \
        return alu_locked(c, u, OP_##op, size);                                                              \
    }                                                                                                        \
    SIZES(op##_locked)

ALU_BODIES(ADD)
ALU_BODIES(OR)
ALU_BODIES(ADC)
ALU_BODIES(SBB)
ALU_BODIES(AND)
ALU_BODIES(SUB)
ALU_BODIES(XOR)
ALU_BODIES(CMP)
ALU_BODIES(TEST)
UNARY_BODIES(INC)
UNARY_BODIES(DEC)
UNARY_BODIES(NOT)
UNARY_BODIES(NEG)
LOCKED_BODIES(ADD)
LOCKED_BODIES(OR)
LOCKED_BODIES(ADC)
LOCKED_BODIES(SBB)
LOCKED_BODIES(AND)
LOCKED_BODIES(SUB)
LOCKED_BODIES(XOR)
LOCKED_BODIES(INC)
LOCKED_BODIES(DEC)
LOCKED_BODIES(NOT)
LOCKED_BODIES(NEG)

typedef uop_fn *const grid_row[N_KINDS];
#define ALU_TABS(op) [OP_##op - OP_ADD] = { op##_rm_r_tab, op##_rm_i_tab, op##_r_rm_tab }
static const struct {
    const grid_row *rm_r, *rm_i, *r_rm;
} two_ops[] = {
    ALU_TABS(ADD), ALU_TABS(OR), ALU_TABS(ADC), ALU_TABS(SBB), ALU_TABS(AND), ALU_TABS(SUB), ALU_TABS(XOR),
    ALU_TABS(CMP), ALU_TABS(TEST),
};
static const grid_row *const one_op[] = { INC_rm_tab, DEC_rm_tab, NOT_rm_tab, NEG_rm_tab };
static uop_fn *const *const locked_ops[] = {
    [OP_ADD] = ADD_locked_tab, [OP_OR] = OR_locked_tab,   [OP_ADC] = ADC_locked_tab, [OP_SBB] = SBB_locked_tab,
    [OP_AND] = AND_locked_tab, [OP_SUB] = SUB_locked_tab, [OP_XOR] = XOR_locked_tab, [OP_INC] = INC_locked_tab,
    [OP_DEC] = DEC_locked_tab, [OP_NOT] = NOT_locked_tab, [OP_NEG] = NEG_locked_tab,
};

uop_fn *interp_pick_alu(const struct insn *i, enum insn_op op, uint32_t mode)
{
    enum rm_kind k = kind_of(i, mode);
    if ((i->flags & INSN_LOCK) && k != K_REG) {
        return op < ARRAY_SIZE(locked_ops) && locked_ops[op] ? locked_ops[op][i->opsize] : NULL;
    }
    if (op >= OP_INC && op <= OP_NEG) {
        return one_op[op - OP_INC][i->opsize][k];
    }
    switch (i->form) {
    case F_RM_R: return two_ops[op - OP_ADD].rm_r[i->opsize][k];
    case F_R_RM: return two_ops[op - OP_ADD].r_rm[i->opsize][k];
    case F_RM_I: return two_ops[op - OP_ADD].rm_i[i->opsize][k];
    default: return NULL;
    }
}
