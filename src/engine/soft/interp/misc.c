/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Flag instructions, NOPs and hints, and the decimal adjustments of 16- and 32-bit code. Source: SDM vol. 2. */
#include "engine/soft/interp/interp-int.h"

#include <sched.h>

enum { AF_CF = 1 << 8, AF_AF = 1 << 12 };   /* bits of c->af */

static uop_next nop(struct soft_cpu *c, const struct uop *u)
{
    return next(c, u);
}

/* A vCPU that spins for another one gives its host core away now and then: there may be fewer cores than vCPUs. */
static uop_next pause_(struct soft_cpu *c, const struct uop *u)
{
    static _Thread_local unsigned pauses;
    __builtin_ia32_pause();
    if (c->vm && c->vm->n_cpus > 1 && ++pauses % 128 == 0) {
        sched_yield();
    }
    return next(c, u);
}

/* LFENCE in both: it also keeps a RDTSC behind it, which a locked instruction alone does not. */
static uop_next fence(struct soft_cpu *c, const struct uop *u)
{
    atomic_thread_fence(memory_order_seq_cst);
    __builtin_ia32_lfence();
    return next(c, u);
}

static uop_next clflush(struct soft_cpu *c, const struct uop *u)
{
    uint64_t lin = interp_lin_any(c, u, 1, false, 0);
    interp_check_lin(c, lin, 1, u->i.seg);
    mmu_probe(c, lin, 1, MMU_READ);
    return next(c, u);
}

static uop_next ud(struct soft_cpu *c, const struct uop *u)
{
    cpu_raise(c, EXC_UD);
}

static uop_next clc(struct soft_cpu *c, const struct uop *u)
{
    c->af &= (uint16_t)~AF_CF;
    return next(c, u);
}

static uop_next stc(struct soft_cpu *c, const struct uop *u)
{
    c->af |= AF_CF;
    return next(c, u);
}

static uop_next cmc(struct soft_cpu *c, const struct uop *u)
{
    c->af ^= AF_CF;
    return next(c, u);
}

static uop_next cld(struct soft_cpu *c, const struct uop *u)
{
    c->st.rflags &= ~(uint64_t)X86_DF;
    c->df_step = 1;
    return next(c, u);
}

static uop_next std_(struct soft_cpu *c, const struct uop *u)
{
    c->st.rflags |= X86_DF;
    c->df_step = -1;
    return next(c, u);
}

static uop_next lahf(struct soft_cpu *c, const struct uop *u)
{
    reg_put(c, INSN_AH + R_AX, 1, (flags_arith(c->af) & 0xff) | X86_F1);
    return next(c, u);
}

static uop_next sahf(struct soft_cpu *c, const struct uop *u)
{
    uint64_t of = c->af & 1 ? X86_OF : 0;
    c->af = flags_pack((c->r[R_AX] >> 8 & 0xff) | of);
    return next(c, u);
}

static uop_next salc(struct soft_cpu *c, const struct uop *u)
{
    reg_put(c, R_AX, 1, flag_cf(c) ? 0xff : 0);
    return next(c, u);
}

/* SF, ZF, PF by the result, CF and AF as given; OF is undefined and comes out clear. */
static void set_adjusted(struct soft_cpu *c, uint8_t al, bool cf, bool af)
{
    alu(c, OP_OR, 1, al, 0);
    c->af = (uint16_t)((c->af & ~(AF_CF | AF_AF)) | (cf ? AF_CF : 0) | (af ? AF_AF : 0));
}

/* SDM vol. 2A, DAA and DAS: `sign` 1 adds, -1 subtracts the corrections. */
static uop_next decimal_adjust(struct soft_cpu *c, const struct uop *u, int sign)
{
    uint8_t old = (uint8_t)c->r[R_AX], al = old;
    bool old_cf = flag_cf(c), low = (old & 15) > 9 || (c->af & AF_AF), high = old > 0x99 || old_cf, cf = old_cf;
    if (low) {
        cf = old_cf || (sign < 0 ? al < 6 : al > 0xf9);
        al = (uint8_t)(al + sign * 6);
    }
    if (high) {
        al = (uint8_t)(al + sign * 0x60);
        cf = true;
    } else if (sign > 0) {
        cf = false;
    }
    reg_put(c, R_AX, 1, al);
    set_adjusted(c, al, cf, low);
    return next(c, u);
}

static uop_next daa(struct soft_cpu *c, const struct uop *u)
{
    return decimal_adjust(c, u, 1);
}

static uop_next das(struct soft_cpu *c, const struct uop *u)
{
    return decimal_adjust(c, u, -1);
}

/* AAA: AX += 106h; AAS: AX -= 6, AH -= 1; then AL is cut to a digit. */
static uop_next ascii_adjust(struct soft_cpu *c, const struct uop *u, bool add)
{
    uint16_t ax = (uint16_t)c->r[R_AX];
    bool adjust = (ax & 15) > 9 || (c->af & AF_AF);
    if (adjust) {
        ax = (uint16_t)(add ? ax + 0x106 : ax - 6 - 0x100);
    }
    ax &= 0xff0f;
    reg_put(c, R_AX, 2, ax);
    set_adjusted(c, (uint8_t)ax, adjust, adjust);
    return next(c, u);
}

static uop_next aaa(struct soft_cpu *c, const struct uop *u)
{
    return ascii_adjust(c, u, true);
}

static uop_next aas(struct soft_cpu *c, const struct uop *u)
{
    return ascii_adjust(c, u, false);
}

uop_fn *interp_pick_misc(const struct insn *i, enum insn_op op, uint32_t mode)
{
    switch (op) {
    case OP_NOP:
    case OP_ENDBR:
    case OP_PREFETCH: return nop;
    case OP_PAUSE: return pause_;
    case OP_FENCE: return fence;
    case OP_CLFLUSH: return clflush;
    case OP_ILLEGAL:
    case OP_UD: return ud;
    case OP_CLC: return clc;
    case OP_STC: return stc;
    case OP_CMC: return cmc;
    case OP_CLD: return cld;
    case OP_STD: return std_;
    case OP_LAHF: return lahf;
    case OP_SAHF: return sahf;
    case OP_SALC: return salc;
    case OP_DAA: return daa;
    case OP_DAS: return das;
    case OP_AAA: return aaa;
    case OP_AAS: return aas;
    default: return NULL;
    }
}
