/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MUL IMUL DIV IDIV AAM AAD. Source: SDM vol. 2. Division runs on the host only after the quotient was seen to fit, so the
 * host never takes a divide error.
 */
#include "engine/soft/interp/interp-int.h"

#define IMUL_CASE(sfx, type)                                                                                 \
    {                                                                                                        \
        type r_ = (type)d;                                                                                   \
        __asm__(FLAGS_IN "imul" sfx " %2, %1" FLAGS_OUT : "+&a"(ax), "+&r"(r_) : "r"((type)s) : "cc");       \
        d = r_;                                                                                              \
        break;                                                                                               \
    }

ALWAYS uint64_t imul(struct soft_cpu *c, unsigned size, uint64_t d, uint64_t s)
{
    uint16_t ax = c->af;
    switch (size) {
    case 2: IMUL_CASE("w", uint16_t)
    case 4: IMUL_CASE("l", uint32_t)
    default: IMUL_CASE("q", uint64_t)
    }
    c->af = ax;
    return d;
}

ALWAYS uop_next imul_r_rm(struct soft_cpu *c, const struct uop *u, unsigned size, enum rm_kind k)
{
    uint64_t s = rm_get(c, u, k, size);
    reg_put(c, u->i.reg, size, imul(c, size, reg_get(c, u->i.reg, size), s));
    return next(c, u);
}

ALWAYS uop_next imul_r_rm_i(struct soft_cpu *c, const struct uop *u, unsigned size, enum rm_kind k)
{
    reg_put(c, u->i.reg, size, imul(c, size, rm_get(c, u, k, size), u->i.imm));
    return next(c, u);
}

GRID_W(imul_r_rm)
GRID_W(imul_r_rm_i)

/* One-operand forms: rAX and rDX in and out around the instruction, flags through rAX before and after it. */
#define ACC_ASM(insn, type)                                                                                  \
    __asm__(FLAGS_IN "movq %[lo], %%rax\n\t" insn " %[s]\n\tmovq %%rax, %[lo]" FLAGS_OUT                     \
            : "+&a"(ax), "+&d"(hi), [lo] "+&r"(lo) : [s] "r"((type)s) : "cc")
#define ACC_SIZES(insn)                                                                                      \
    switch (size) {                                                                                          \
    case 1: ACC_ASM(insn "b", uint8_t); break;                                                               \
    case 2: ACC_ASM(insn "w", uint16_t); break;                                                              \
    case 4: ACC_ASM(insn "l", uint32_t); break;                                                              \
    default: ACC_ASM(insn "q", uint64_t); break;                                                             \
    }

ALWAYS void put_acc(struct soft_cpu *c, unsigned size, uint64_t lo, uint64_t hi)
{
    if (size == 1) {
        reg_put(c, R_AX, 2, lo);        /* AH:AL */
    } else {
        reg_put(c, R_AX, size, lo);
        reg_put(c, R_DX, size, hi);
    }
}

ALWAYS uop_next mul(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    uint64_t s = rm_get(c, u, K_ANY, size), lo = c->r[R_AX], hi = c->r[R_DX], ax = c->af;
    ACC_SIZES("mul")
    put_acc(c, size, lo, hi);
    c->af = (uint16_t)ax;
    return next(c, u);
}

ALWAYS uop_next imul1(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    uint64_t s = rm_get(c, u, K_ANY, size), lo = c->r[R_AX], hi = c->r[R_DX], ax = c->af;
    ACC_SIZES("imul")
    put_acc(c, size, lo, hi);
    c->af = (uint16_t)ax;
    return next(c, u);
}

/* The high half of the dividend: AH, or rDX cut to size. */
ALWAYS uint64_t dividend_high(const struct soft_cpu *c, unsigned size)
{
    return size == 1 ? (uint8_t)(c->r[R_AX] >> 8) : reg_get(c, R_DX, size);
}

ALWAYS uop_next div_u(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    uint64_t s = rm_get(c, u, K_ANY, size), lo = c->r[R_AX], hi = c->r[R_DX], ax = c->af;
    if (dividend_high(c, size) >= s) {
        cpu_raise(c, EXC_DE);           /* also for s == 0 */
    }
    ACC_SIZES("div")
    put_acc(c, size, lo, hi);
    c->af = (uint16_t)ax;
    return next(c, u);
}

/* Does hi:lo / s fit in `size` bytes? By magnitudes: |quotient| may reach 2^(bits-1) only when it is negative. */
static bool idiv_fits(uint64_t hi, uint64_t lo, uint64_t s, unsigned size)
{
    unsigned bits = size * 8;
    uint64_t low = size == 8 ? lo : lo & ((UINT64_C(1) << bits) - 1);
    unsigned __int128 n = (unsigned __int128)(__int128)(int64_t)sext(hi, size) << bits | low;
    int64_t d = (int64_t)sext(s, size);
    bool neg_n = n >> 127 != 0, neg_d = d < 0;
    uint64_t mag_d = neg_d ? -(uint64_t)d : (uint64_t)d;
    if (neg_n) {
        n = -n;
    }
    if (!mag_d) {
        return false;
    }
    uint64_t limit = (UINT64_C(1) << (bits - 1)) - (neg_n == neg_d);
    return n / mag_d <= limit;
}

ALWAYS uop_next div_s(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    uint64_t s = rm_get(c, u, K_ANY, size), lo = c->r[R_AX], hi = c->r[R_DX], ax = c->af;
    if (!idiv_fits(dividend_high(c, size), lo, s, size)) {
        cpu_raise(c, EXC_DE);
    }
    ACC_SIZES("idiv")
    put_acc(c, size, lo, hi);
    c->af = (uint16_t)ax;
    return next(c, u);
}

SIZES(mul)
SIZES(imul1)
SIZES(div_u)
SIZES(div_s)

/* SF, ZF and PF by the result in AL; CF, OF and AF are undefined and come out clear, as after OR. */
static uop_next aam(struct soft_cpu *c, const struct uop *u)
{
    uint8_t base = (uint8_t)u->i.imm, al = (uint8_t)c->r[R_AX];
    if (!base) {
        cpu_raise(c, EXC_DE);
    }
    reg_put(c, R_AX, 2, (uint64_t)(al / base) << 8 | al % base);
    alu(c, OP_OR, 1, al % base, 0);
    return next(c, u);
}

static uop_next aad(struct soft_cpu *c, const struct uop *u)
{
    uint8_t al = (uint8_t)((uint8_t)c->r[R_AX] + (uint8_t)(c->r[R_AX] >> 8) * (uint8_t)u->i.imm);
    reg_put(c, R_AX, 2, al);
    alu(c, OP_OR, 1, al, 0);
    return next(c, u);
}

uop_fn *interp_pick_muldiv(const struct insn *i, enum insn_op op, uint32_t mode)
{
    enum rm_kind k = kind_of(i, mode);
    switch (op) {
    case OP_IMUL: return i->form == F_R_RM_I ? imul_r_rm_i_tab[i->opsize][k] : imul_r_rm_tab[i->opsize][k];
    case OP_MUL: return mul_tab[i->opsize];
    case OP_IMUL1: return imul1_tab[i->opsize];
    case OP_DIV: return div_u_tab[i->opsize];
    case OP_IDIV: return div_s_tab[i->opsize];
    case OP_AAM: return aam;
    case OP_AAD: return aad;
    default: return NULL;
    }
}
