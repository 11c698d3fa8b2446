/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JMP Jcc CALL RET LOOP JCXZ, far transfers, INT and what enters or leaves the kernel. Source: SDM vol. 2. A target is
 * checked, and a stack slot written or read, before RSP and RIP change.
 */
#include "engine/soft/interp/interp-int.h"

/* How a target is cut and checked. */
enum jump_kind {
    J_64,           /* 64-bit code, 64-bit operand: canonical */
    J_32,           /* flat 32-bit code: CS ends at 4 GiB */
    J_CS,           /* CS limit */
};

ALWAYS enum jump_kind jump_kind_of(const struct insn *i, uint32_t mode)
{
    if (mode_is64(mode)) {
        return i->opsize == 3 ? J_64 : J_CS;
    }
    return (mode & MODE_FLAT) && (mode & MODE_SIZE_MASK) == INSN_MODE_32 && i->opsize == 2 ? J_32 : J_CS;
}

ALWAYS uint64_t check_target(struct soft_cpu *c, const struct uop *u, enum jump_kind j, uint64_t t)
{
    switch (j) {
    case J_64:
        if (unlikely(!is_canonical(t))) {
            cpu_raise_err(c, EXC_GP, 0);
        }
        return t;
    case J_32: return (uint32_t)t;
    default: return sys_branch_target(c, t, 1u << u->i.opsize);
    }
}

ALWAYS uint64_t direct_target(struct soft_cpu *c, const struct uop *u, enum jump_kind j)
{
    return check_target(c, u, j, c->r[R_BLOCK_RIP] + u->i.imm);
}

ALWAYS uop_next jump_direct(struct soft_cpu *c, const struct uop *u, enum jump_kind j)
{
    c->rip = direct_target(c, u, j);
    return NULL;
}

ALWAYS uop_next jcc(struct soft_cpu *c, const struct uop *u, unsigned cc, enum jump_kind j)
{
    return cond(c, cc) ? jump_direct(c, u, j) : next(c, u);
}

#define JCC_FN(cc)                                                                                           \
    static uop_next jcc_##cc##_64(struct soft_cpu *c, const struct uop *u)                                   \
    {                                                                                                        \
        return jcc(c, u, cc, J_64);                                                                          \
    }                                                                                                        \
    static uop_next jcc_##cc##_32(struct soft_cpu *c, const struct uop *u)                                   \
    {                                                                                                        \
        return jcc(c, u, cc, J_32);                                                                          \
    }
#define JCC_REFS(cc) { jcc_##cc##_64, jcc_##cc##_32, jcc_cs }
static uop_next jcc_cs(struct soft_cpu *c, const struct uop *u)
{
    return jcc(c, u, u->i.cc, J_CS);
}

JCC_FN(0)
JCC_FN(1)
JCC_FN(2)
JCC_FN(3)
JCC_FN(4)
JCC_FN(5)
JCC_FN(6)
JCC_FN(7)
JCC_FN(8)
JCC_FN(9)
JCC_FN(10)
JCC_FN(11)
JCC_FN(12)
JCC_FN(13)
JCC_FN(14)
JCC_FN(15)
static uop_fn *const jcc_tab[16][3] = {
    JCC_REFS(0), JCC_REFS(1), JCC_REFS(2),  JCC_REFS(3),  JCC_REFS(4),  JCC_REFS(5),  JCC_REFS(6),  JCC_REFS(7),
    JCC_REFS(8), JCC_REFS(9), JCC_REFS(10), JCC_REFS(11), JCC_REFS(12), JCC_REFS(13), JCC_REFS(14), JCC_REFS(15),
};

static uop_next jmp_64(struct soft_cpu *c, const struct uop *u)
{
    return jump_direct(c, u, J_64);
}

static uop_next jmp_32(struct soft_cpu *c, const struct uop *u)
{
    return jump_direct(c, u, J_32);
}

static uop_next jmp_cs(struct soft_cpu *c, const struct uop *u)
{
    return jump_direct(c, u, J_CS);
}

static uop_fn *const jmp_tab[3] = { jmp_64, jmp_32, jmp_cs };

ALWAYS uop_next jmp_rm(struct soft_cpu *c, const struct uop *u, unsigned size, enum rm_kind k)
{
    c->rip = check_target(c, u, size == 8 ? J_64 : J_CS, rm_get(c, u, k, size));
    return NULL;
}

GRID_W(jmp_rm)

/* Pushes the return address and goes to t, which is checked. */
ALWAYS uop_next call_to(struct soft_cpu *c, uint64_t t, uint64_t ret, unsigned size, bool code64)
{
    if (code64) {
        uint64_t sp = c->r[R_SP] - 8;
        lin_store(c, sp, 8, SEG_SS, ret);
        c->r[R_SP] = sp;
    } else {
        interp_push(c, ret, size);
    }
    c->rip = t;
    return NULL;
}

static uop_next call_64(struct soft_cpu *c, const struct uop *u)
{
    uint64_t ret = c->r[R_BLOCK_RIP] + (uint64_t)(int64_t)u->i.disp;
    return call_to(c, direct_target(c, u, J_64), ret, 8, true);
}

static uop_next call_32(struct soft_cpu *c, const struct uop *u)
{
    return call_to(c, direct_target(c, u, J_32), cpu_next_rip(c), 4, false);
}

static uop_next call_cs(struct soft_cpu *c, const struct uop *u)
{
    return call_to(c, direct_target(c, u, J_CS), cpu_next_rip(c), 1u << u->i.opsize, false);
}

static uop_fn *const call_tab[3] = { call_64, call_32, call_cs };

ALWAYS uop_next call_rm(struct soft_cpu *c, const struct uop *u, unsigned size, enum rm_kind k)
{
    uint64_t t = check_target(c, u, size == 8 ? J_64 : J_CS, rm_get(c, u, k, size));
    return call_to(c, t, cpu_next_rip(c), size, size == 8);
}

GRID_W(call_rm)

static uop_next ret_64(struct soft_cpu *c, const struct uop *u)
{
    uint64_t sp = c->r[R_SP], t = lin_load(c, sp, 8, SEG_SS);
    c->rip = check_target(c, u, J_64, t);
    c->r[R_SP] = sp + 8 + u->i.imm;
    return NULL;
}

static uop_next ret_any(struct soft_cpu *c, const struct uop *u)
{
    unsigned size = 1u << u->i.opsize;
    uint64_t sp = c->r[R_SP];
    c->rip = sys_branch_target(c, interp_stack_load(c, sp, size), size);
    interp_set_sp(c, sp + size + u->i.imm);
    return NULL;
}

/* The counter is as wide as the address size, and changes only when the target is good. */
static uop_next loop_any(struct soft_cpu *c, const struct uop *u)
{
    enum insn_op op = insn_row(&u->i)->op;
    uint64_t n = (c->r[R_CX] - 1) & addr_masks[u->i.asize];
    bool zf = c->af >> 14 & 1, taken = n != 0 && (op == OP_LOOP || zf == (op == OP_LOOPE));
    uint64_t t = taken ? direct_target(c, u, J_CS) : 0;
    reg_put(c, R_CX, 1u << u->i.asize, n);
    if (!taken) {
        return next(c, u);
    }
    c->rip = t;
    return NULL;
}

static uop_next jcxz(struct soft_cpu *c, const struct uop *u)
{
    return c->r[R_CX] & addr_masks[u->i.asize] ? next(c, u) : jump_direct(c, u, J_CS);
}

/* --- far transfers and system entries: sys/ sets c->rip --- */

/* Offset, then selector, from memory. */
static uint64_t far_operand(struct soft_cpu *c, const struct uop *u, uint16_t *sel)
{
    if (u->i.form == F_FAR) {
        *sel = (uint16_t)(u->i.imm >> 32);
        return (uint32_t)u->i.imm;
    }
    unsigned size = 1u << u->i.opsize;
    uint64_t lin = interp_lin_any(c, u, size + 2, false, 0), off = lin_load(c, lin, size, u->i.seg);
    *sel = (uint16_t)lin_load(c, lin + size, 2, u->i.seg);
    return off;
}

static uop_next jmpf(struct soft_cpu *c, const struct uop *u)
{
    uint16_t sel;
    uint64_t off = far_operand(c, u, &sel);
    sys_jmp_far(c, sel, off, 1u << u->i.opsize);
    return NULL;
}

static uop_next callf(struct soft_cpu *c, const struct uop *u)
{
    uint16_t sel;
    uint64_t off = far_operand(c, u, &sel);
    sys_call_far(c, sel, off, 1u << u->i.opsize);
    return NULL;
}

static uop_next retf(struct soft_cpu *c, const struct uop *u)
{
    sys_ret_far(c, 1u << u->i.opsize, (uint16_t)u->i.imm);
    return NULL;
}

static uop_next iret(struct soft_cpu *c, const struct uop *u)
{
    sys_iret(c, 1u << u->i.opsize);
    return NULL;
}

static uop_next int_n(struct soft_cpu *c, const struct uop *u)
{
    sys_int(c, (uint8_t)u->i.imm, OP_INT);
    return NULL;
}

static uop_next int3(struct soft_cpu *c, const struct uop *u)
{
    sys_int(c, EXC_BP, OP_INT3);
    return NULL;
}

static uop_next int1(struct soft_cpu *c, const struct uop *u)
{
    sys_int(c, EXC_DB, OP_INT1);
    return NULL;
}

static uop_next into(struct soft_cpu *c, const struct uop *u)
{
    if (!(c->af & 1)) {
        return next(c, u);
    }
    sys_int(c, EXC_OF, OP_INTO);
    return NULL;
}

static uop_next syscall_(struct soft_cpu *c, const struct uop *u)
{
    sys_syscall(c);
    return NULL;
}

static uop_next sysret_(struct soft_cpu *c, const struct uop *u)
{
    sys_sysret(c, 1u << u->i.opsize);
    return NULL;
}

static uop_next sysenter_(struct soft_cpu *c, const struct uop *u)
{
    sys_sysenter(c);
    return NULL;
}

static uop_next sysexit_(struct soft_cpu *c, const struct uop *u)
{
    sys_sysexit(c, 1u << u->i.opsize);
    return NULL;
}

uop_fn *interp_pick_branch(const struct insn *i, enum insn_op op, uint32_t mode)
{
    enum jump_kind j = jump_kind_of(i, mode);
    switch (op) {
    case OP_JCC: return jcc_tab[i->cc][j];
    case OP_JMP: return i->form == F_J ? jmp_tab[j] : jmp_rm_tab[i->opsize][kind_of(i, mode)];
    case OP_CALL: return i->form == F_J ? call_tab[j] : call_rm_tab[i->opsize][kind_of(i, mode)];
    case OP_RET: return mode_is64(mode) && i->opsize == 3 ? ret_64 : ret_any;
    case OP_LOOP:
    case OP_LOOPE:
    case OP_LOOPNE: return loop_any;
    case OP_JCXZ: return jcxz;
    case OP_JMPF: return jmpf;
    case OP_CALLF: return callf;
    case OP_RETF: return retf;
    case OP_IRET: return iret;
    case OP_INT: return int_n;
    case OP_INT3: return int3;
    case OP_INT1: return int1;
    case OP_INTO: return into;
    case OP_SYSCALL: return syscall_;
    case OP_SYSRET: return sysret_;
    case OP_SYSENTER: return sysenter_;
    case OP_SYSEXIT: return sysexit_;
    default: return NULL;
    }
}
