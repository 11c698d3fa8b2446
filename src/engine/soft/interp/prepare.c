/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which handler an instruction gets; the handlers that only call sys/. */
#include "engine/soft/interp/interp-int.h"

uop_next interp_block_end(struct soft_cpu *c, const struct uop *u)
{
    uint64_t rip = c->r[R_BLOCK_RIP] + u->i.imm;
    c->rip = cpu_code64(c) ? rip : (c->mode & MODE_SIZE_MASK) == INSN_MODE_32 ? (uint32_t)rip : (uint16_t)rip;
    return NULL;
}

uop_next interp_raise(struct soft_cpu *c, const struct uop *u)
{
    unsigned vector = (unsigned)u->i.imm;
    bool has_error = vector == EXC_DF || (vector >= EXC_TS && vector <= EXC_PF) || vector == EXC_AC;
    if (has_error) {
        cpu_raise_err(c, vector, 0);
    }
    cpu_raise(c, vector);
}

static uop_next sys_reg(struct soft_cpu *c, const struct uop *u)
{
    return sys_insn(c, u, 0) ? leave_after(c) : next(c, u);
}

/* Does the instruction store to its memory operand? Decides the segment check only; sys/ makes the access. */
static bool sys_writes(enum insn_op op)
{
    switch (op) {
    case OP_SGDT:
    case OP_SIDT:
    case OP_SLDT:
    case OP_STR:
    case OP_SMSW:
    case OP_MOVSEG_FROM:
    case OP_ARPL: return true;
    default: return false;
    }
}

static uop_next sys_mem(struct soft_cpu *c, const struct uop *u)
{
    enum insn_op op = insn_row(&u->i)->op;
    unsigned size = insn_mem_size(&u->i);
    if (insn_row(&u->i)->attr & RA_CPL0 && c->cpl) {
        cpu_raise_err(c, EXC_GP, 0);    /* before the operand is looked at */
    }
    uint64_t lin = interp_lin_any(c, u, size ? size : 1, sys_writes(op), 0);
    if (op != OP_INVLPG) {      /* a non-canonical INVLPG does nothing */
        interp_check_lin(c, lin, size ? size : 1, u->i.seg);
    }
    return sys_insn(c, u, lin) ? leave_after(c) : next(c, u);
}

static pick_fn *family_of(enum insn_op op)
{
    switch (op) {
    case OP_ADD ... OP_TEST:
    case OP_INC ... OP_NEG: return interp_pick_alu;
    case OP_MOV:
    case OP_LEA:
    case OP_MOVZX ... OP_SETCC:
    case OP_CBW ... OP_XLAT:
    case OP_BSWAP:
    case OP_MOVBE:
    case OP_MOVNTI: return interp_pick_move;
    case OP_MUL ... OP_IMUL:
    case OP_AAM ... OP_AAD: return interp_pick_muldiv;
    case OP_ROL ... OP_SHRD: return interp_pick_shift;
    case OP_JCC ... OP_JCXZ:
    case OP_INT ... OP_IRET:
    case OP_SYSCALL ... OP_SYSEXIT: return interp_pick_branch;
    case OP_PUSH ... OP_POP:
    case OP_PUSHA ... OP_POPA:
    case OP_ENTER ... OP_LEAVE: return interp_pick_stack;
    case OP_BT ... OP_POPCNT:
    case OP_CRC32 ... OP_ADOX: return interp_pick_bits;
    case OP_ANDN ... OP_SHRX: return interp_pick_bmi;
    case OP_XCHG:
    case OP_CMPXCHG ... OP_XADD: return interp_pick_atomic;
    case OP_MOVS ... OP_OUTS: return interp_pick_string;
    case OP_ILLEGAL:
    case OP_LAHF ... OP_AAS:
    case OP_NOP ... OP_STD:
    case OP_ENDBR:
    case OP_UD: return interp_pick_misc;
    default: return NULL;
    }
}

void interp_prepare(struct uop *u, uint32_t mode)
{
    enum insn_op op = insn_row(&u->i)->op;
    pick_fn *pick = family_of(op);
    if (pick) {
        u->fn = pick(&u->i, op, mode);
        return;
    }
    u->fn = u->i.flags & INSN_MEM ? sys_mem : sys_reg;
}
