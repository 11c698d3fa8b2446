/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * BMI1 and BMI2, by the host's own instructions (a guest has them only if the host does). Operands in the manual's
 * order: ANDN PDEP PEXT MULX reg, vvvv, rm; BEXTR BZHI SARX SHLX SHRX reg, rm, vvvv; BLSI BLSR BLSMSK vvvv, rm;
 * RORX reg, rm, imm. Source: SDM vol. 2.
 */
#include "engine/soft/interp/interp-int.h"

#define BMI_FNS(name)                                                                                        \
    SIZES_FN(name, 4) SIZES_FN(name, 8)                                                                      \
    static uop_fn *const name##_tab[2] = { name##_4, name##_8 };

/* dst = op(rm, vvvv), AT&T order of the two sources given by `order`. Flags in and out: some forms change none. */
#define BMI3(name, dst_src)                                                                                  \
    ALWAYS uop_next name(struct soft_cpu *c, const struct uop *u, unsigned size)                             \
    {                                                                                                        \
        uint64_t rm = rm_get(c, u, K_ANY, size), v = reg_get(c, insn_vvvv(&u->i), size), d;                  \
        uint16_t ax = c->af;                                                                                 \
        if (size == 4) {                                                                                     \
            __asm__(FLAGS_IN #name dst_src("k") FLAGS_OUT : "+&a"(ax), "=&r"(d) : "r"(rm), "r"(v) : "cc");   \
        } else {                                                                                             \
            __asm__(FLAGS_IN #name dst_src("q") FLAGS_OUT : "+&a"(ax), "=&r"(d) : "r"(rm), "r"(v) : "cc");   \
        }                                                                                                    \
        reg_put(c, u->i.reg, size, d);                                                                       \
        c->af = ax;                                                                                          \
        return next(c, u);                                                                                   \
    }                                                                                                        \
    BMI_FNS(name)
#define RM_LAST(w) " %" w "2, %" w "3, %" w "1"         /* Intel: dst, vvvv, rm */
#define RM_FIRST(w) " %" w "3, %" w "2, %" w "1"        /* Intel: dst, rm, vvvv */
BMI3(andn, RM_LAST)
BMI3(pdep, RM_LAST)
BMI3(pext, RM_LAST)
BMI3(bextr, RM_FIRST)
BMI3(bzhi, RM_FIRST)
BMI3(sarx, RM_FIRST)
BMI3(shlx, RM_FIRST)
BMI3(shrx, RM_FIRST)

#define BMI2(name)                                                                                           \
    ALWAYS uop_next name(struct soft_cpu *c, const struct uop *u, unsigned size)                             \
    {                                                                                                        \
        uint64_t rm = rm_get(c, u, K_ANY, size), d;                                                          \
        uint16_t ax = c->af;                                                                                 \
        if (size == 4) {                                                                                     \
            __asm__(FLAGS_IN #name " %k2, %k1" FLAGS_OUT : "+&a"(ax), "=&r"(d) : "r"(rm) : "cc");            \
        } else {                                                                                             \
            __asm__(FLAGS_IN #name " %2, %1" FLAGS_OUT : "+&a"(ax), "=&r"(d) : "r"(rm) : "cc");              \
        }                                                                                                    \
        reg_put(c, insn_vvvv(&u->i), size, d);                                                               \
        c->af = ax;                                                                                          \
        return next(c, u);                                                                                   \
    }                                                                                                        \
    BMI_FNS(name)
BMI2(blsi)
BMI2(blsr)
BMI2(blsmsk)

ALWAYS uop_next mulx(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    unsigned __int128 p = (unsigned __int128)rm_get(c, u, K_ANY, size) * reg_get(c, R_DX, size);
    reg_put(c, insn_vvvv(&u->i), size, (uint64_t)p);
    reg_put(c, u->i.reg, size, (uint64_t)(p >> size * 8));      /* last: wins when both are one register */
    return next(c, u);
}

ALWAYS uop_next rorx(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    unsigned bits = size * 8, n = u->i.imm & (bits - 1);
    uint64_t v = rm_get(c, u, K_ANY, size);
    reg_put(c, u->i.reg, size, n ? v >> n | v << (bits - n) : v);
    return next(c, u);
}

BMI_FNS(mulx)
BMI_FNS(rorx)

uop_fn *interp_pick_bmi(const struct insn *i, enum insn_op op, uint32_t mode)
{
    bool wide = i->opsize == 3;
    switch (op) {
    case OP_ANDN: return andn_tab[wide];
    case OP_BEXTR: return bextr_tab[wide];
    case OP_BLSI: return blsi_tab[wide];
    case OP_BLSR: return blsr_tab[wide];
    case OP_BLSMSK: return blsmsk_tab[wide];
    case OP_BZHI: return bzhi_tab[wide];
    case OP_MULX: return mulx_tab[wide];
    case OP_PDEP: return pdep_tab[wide];
    case OP_PEXT: return pext_tab[wide];
    case OP_RORX: return rorx_tab[wide];
    case OP_SARX: return sarx_tab[wide];
    case OP_SHLX: return shlx_tab[wide];
    case OP_SHRX: return shrx_tab[wide];
    default: return NULL;
    }
}
