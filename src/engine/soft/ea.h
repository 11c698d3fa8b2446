/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Effective and linear addresses of a memory operand, shared by interp/ and native/. Sources: SDM vol. 1 §3.3.7, §3.7.5
 * (address forms), vol. 3A §5.3 (limits), §5.3.1 (64-bit: canonical form instead of limits).
 */
#ifndef LODGE_SOFT_EA_H
#define LODGE_SOFT_EA_H

#include "engine/soft/sys/sys.h"

/* Offset in the segment, masked to the address size. base and index are as struct uop says (R_ZERO, R_BLOCK_RIP). */
static inline __attribute__((always_inline)) uint64_t ea_mask(const struct insn *i, uint64_t ea)
{
    return likely(i->asize == 3) ? ea : i->asize == 2 ? (uint32_t)ea : (uint16_t)ea;
}

static inline __attribute__((always_inline)) uint64_t ea_off(const struct soft_cpu *c, const struct insn *i)
{
    if (unlikely(i->flags & INSN_MOFFS)) {
        return ea_mask(i, i->imm);
    }
    return ea_mask(i, c->r[i->base] + (c->r[i->index] << i->scale) + (uint64_t)(int64_t)i->disp);
}

/* One compare: [lin, lin + size) does not leave the canonical half it starts in. 48-bit linear addresses. */
static inline __attribute__((always_inline)) bool ea_canonical(uint64_t lin, uint64_t size)
{
    return lin + (1ull << 47) <= (1ull << 48) - size;
}

/* Linear address of `off` in segment `seg` for an access of size >= 1 bytes; raises #GP(0) or #SS(0). */
static inline __attribute__((always_inline)) uint64_t ea_seg_lin(struct soft_cpu *c, unsigned seg, uint64_t off, unsigned size,
                                                                 bool write)
{
    if (likely(cpu_code64(c))) {
        uint64_t lin = c->segbase[seg] + off;
        if (unlikely(!ea_canonical(lin, size))) {
            cpu_raise_err(c, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
        }
        return lin;
    }
    if (c->mode & MODE_FLAT && seg <= SEG_DS && !(seg == SEG_CS && write) && off <= UINT32_MAX - (size - 1)) {
        return off;
    }
    return sys_seg_lin(c, seg, off, size, write);
}

static inline __attribute__((always_inline)) uint64_t ea_lin(struct soft_cpu *c, const struct uop *u, unsigned size, bool write)
{
    return ea_seg_lin(c, u->i.seg, ea_off(c, &u->i), size, write);
}

#endif
