/* SPDX-License-Identifier: GPL-2.0-or-later */
/* MOV MOVZX MOVSX LEA CMOVcc SETcc BSWAP MOVBE MOVNTI CBW CWD XLAT. Source: SDM vol. 2. */
#include "engine/soft/interp/interp-int.h"

ALWAYS uop_next mov_rm_r(struct soft_cpu *c, const struct uop *u, unsigned size, enum rm_kind k)
{
    rm_put(c, u, k, size, reg_get(c, u->i.reg, size));
    return next(c, u);
}

ALWAYS uop_next mov_r_rm(struct soft_cpu *c, const struct uop *u, unsigned size, enum rm_kind k)
{
    reg_put(c, u->i.reg, size, rm_get(c, u, k, size));
    return next(c, u);
}

ALWAYS uop_next mov_rm_i(struct soft_cpu *c, const struct uop *u, unsigned size, enum rm_kind k)
{
    rm_put(c, u, k, size, u->i.imm);
    return next(c, u);
}

GRID(mov_rm_r)
GRID(mov_r_rm)
GRID(mov_rm_i)

static uop_next mov_from_moffs(struct soft_cpu *c, const struct uop *u)
{
    unsigned size = 1u << u->i.opsize;
    uint64_t lin = interp_lin_any(c, u, size, false, 0);
    reg_put(c, u->i.reg, size, lin_load(c, lin, size, u->i.seg));
    return next(c, u);
}

static uop_next mov_to_moffs(struct soft_cpu *c, const struct uop *u)
{
    unsigned size = 1u << u->i.opsize;
    uint64_t lin = interp_lin_any(c, u, size, true, 0);
    lin_store(c, lin, size, u->i.seg, reg_get(c, u->i.reg, size));
    return next(c, u);
}

/* The grid's size is the destination's; of MOVZX and MOVSX the source has its own. */
#define EXTEND(name, ssize, ext)                                                                             \
    ALWAYS uop_next name(struct soft_cpu *c, const struct uop *u, unsigned size, enum rm_kind k)             \
    {                                                                                                        \
        reg_put(c, u->i.reg, size, ext(rm_get(c, u, k, ssize), ssize));                                      \
        return next(c, u);                                                                                   \
    }                                                                                                        \
    GRID_W(name)
ALWAYS uint64_t zext(uint64_t v, unsigned size)
{
    return v;                   /* rm_get has cut it */
}

EXTEND(movzx_8, 1, zext)
EXTEND(movzx_16, 2, zext)
EXTEND(movsx_8, 1, sext)
EXTEND(movsx_16, 2, sext)
EXTEND(movsx_32, 4, sext)

/* K_MB: no index and 64-bit addresses; K_MF: any form. The segment is not used. */
ALWAYS uop_next lea(struct soft_cpu *c, const struct uop *u, unsigned size, enum rm_kind k)
{
    uint64_t ea = k == K_MB ? c->r[u->i.base] + (uint64_t)(int64_t)u->i.disp : ea_of(c, u, 0);
    reg_put(c, u->i.reg, size, ea);
    return next(c, u);
}

GRID_W(lea)

/* The source is read, and a 32-bit destination zero-extended, whatever the condition. */
ALWAYS uop_next cmov(struct soft_cpu *c, const struct uop *u, unsigned size, enum rm_kind k)
{
    uint64_t s = rm_get(c, u, k, size), d = reg_get(c, u->i.reg, size);
    reg_put(c, u->i.reg, size, cond(c, u->i.cc) ? s : d);
    return next(c, u);
}

GRID_W(cmov)

ALWAYS uop_next setcc(struct soft_cpu *c, const struct uop *u, enum rm_kind k)
{
    rm_put(c, u, k, 1, cond(c, u->i.cc));
    return next(c, u);
}

static uop_next setcc_REG(struct soft_cpu *c, const struct uop *u)
{
    return setcc(c, u, K_REG);
}

static uop_next setcc_any(struct soft_cpu *c, const struct uop *u)
{
    return setcc(c, u, K_ANY);
}

ALWAYS uint64_t swap_bytes(uint64_t v, unsigned size)
{
    switch (size) {
    case 2: return __builtin_bswap16((uint16_t)v);
    case 4: return __builtin_bswap32((uint32_t)v);
    default: return __builtin_bswap64(v);
    }
}

static uop_next bswap(struct soft_cpu *c, const struct uop *u)
{
    unsigned size = 1u << u->i.opsize;
    uint64_t v = reg_get(c, u->i.rm, size);
    if (size == 2) {
        /* Undefined by the manuals: whatever the host makes of it. */
        __asm__(".byte 0x66, 0x0f, 0xc8" : "+a"(v));
    } else {
        v = swap_bytes(v, size);
    }
    reg_put(c, u->i.rm, size, v);
    return next(c, u);
}

ALWAYS uop_next movbe_load(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    reg_put(c, u->i.reg, size, swap_bytes(rm_get(c, u, K_ANY, size), size));
    return next(c, u);
}

ALWAYS uop_next movbe_store(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    rm_put(c, u, K_ANY, size, swap_bytes(reg_get(c, u->i.reg, size), size));
    return next(c, u);
}

SIZES_W(movbe_load)
SIZES_W(movbe_store)

ALWAYS uop_next cbw(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    reg_put(c, R_AX, size, sext(c->r[R_AX], size / 2));
    return next(c, u);
}

ALWAYS uop_next cwd(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    reg_put(c, R_DX, size, (uint64_t)((int64_t)sext(c->r[R_AX], size) >> 63));
    return next(c, u);
}

SIZES_W(cbw)
SIZES_W(cwd)

static uop_next xlat(struct soft_cpu *c, const struct uop *u)
{
    const struct insn *i = &u->i;
    uint64_t ea = (c->r[R_BX] + (uint8_t)c->r[R_AX]) & addr_masks[i->asize], lin;
    if (cpu_code64(c) || ((c->mode & MODE_FLAT) && i->seg < SEG_FS)) {
        lin = c->segbase[i->seg] + ea;
    } else {
        lin = sys_seg_lin(c, i->seg, ea, 1, false);
    }
    reg_put(c, R_AX, 1, lin_load(c, lin, 1, i->seg));
    return next(c, u);
}

static uop_fn *pick_mov(const struct insn *i, enum rm_kind k)
{
    if (i->flags & INSN_MOFFS) {
        return i->form == F_R_RM ? mov_from_moffs : mov_to_moffs;
    }
    switch (i->form) {
    case F_RM_R: return mov_rm_r_tab[i->opsize][k];
    case F_R_RM: return mov_r_rm_tab[i->opsize][k];
    case F_RM_I: return mov_rm_i_tab[i->opsize][k];
    default: return NULL;
    }
}

static uop_fn *pick_extend(const struct insn *i, enum insn_op op, enum rm_kind k)
{
    switch (i->ssize) {
    case 0: return op == OP_MOVZX ? movzx_8_tab[i->opsize][k] : movsx_8_tab[i->opsize][k];
    case 1: return op == OP_MOVZX ? movzx_16_tab[i->opsize][k] : movsx_16_tab[i->opsize][k];
    /* MOVSXD with a 16-bit operand reads 16 bits only */
    case 2: return i->opsize == 1 ? movsx_16_tab[1][k] : movsx_32_tab[i->opsize][k];
    default: return NULL;
    }
}

uop_fn *interp_pick_move(const struct insn *i, enum insn_op op, uint32_t mode)
{
    enum rm_kind k = kind_of(i, mode);
    switch (op) {
    case OP_MOV:
    case OP_MOVNTI: return pick_mov(i, k);
    case OP_MOVZX:
    case OP_MOVSX: return pick_extend(i, op, k);
    case OP_LEA: return lea_tab[i->opsize][i->asize == 3 && ea_is_base_disp(i) ? K_MB : K_MF];
    case OP_CMOVCC: return cmov_tab[i->opsize][k];
    case OP_SETCC: return k == K_REG ? setcc_REG : setcc_any;
    case OP_BSWAP: return bswap;
    case OP_MOVBE: return i->form == F_R_RM ? movbe_load_tab[i->opsize] : movbe_store_tab[i->opsize];
    case OP_CBW: return cbw_tab[i->opsize];
    case OP_CWD: return cwd_tab[i->opsize];
    case OP_XLAT: return xlat;
    default: return NULL;
    }
}
