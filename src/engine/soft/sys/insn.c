/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One entry for system instructions: who executes which. */
#include "engine/soft/sys/sys-int.h"

bool sys_insn(struct soft_cpu *c, const struct uop *u, uint64_t lin)
{
    switch (insn_row(&u->i)->op) {
    case OP_MOVSEG_FROM: case OP_MOVSEG_TO: case OP_LDSEG: case OP_PUSHSEG:
    case OP_LGDT: case OP_SGDT: case OP_LIDT: case OP_SIDT: case OP_LLDT: case OP_SLDT: case OP_LTR: case OP_STR:
    case OP_LAR: case OP_LSL: case OP_VERR: case OP_VERW: case OP_ARPL: case OP_SWAPGS:
    case OP_RDFSBASE: case OP_RDGSBASE: case OP_WRFSBASE: case OP_WRGSBASE:
        return sys_seg_insn(c, u, lin);
    case OP_MOV_FROM_CR: case OP_MOV_TO_CR: case OP_MOV_FROM_DR: case OP_MOV_TO_DR: case OP_LMSW: case OP_SMSW: case OP_CLTS:
    case OP_INVLPG: case OP_INVPCID: case OP_INVD: case OP_WBINVD:
        return sys_cr_insn(c, u, lin);
    case OP_CLI: case OP_STI: case OP_PUSHF: case OP_POPF: case OP_CLAC: case OP_STAC: case OP_HLT:
        return sys_flags_insn(c, u);
    case OP_IN: case OP_OUT: case OP_INS: case OP_OUTS:
        return sys_io_insn(c, u, lin);
    case OP_POPSEG: {
        struct stk s;
        stk_current(c, &s);
        uint16_t sel = (uint16_t)stk_pop(c, &s, 1u << u->i.opsize);
        sys_load_seg(c, u->i.reg, sel);
        stk_commit(c, &s);
        return true;
    }
    default:
        return sys_misc_insn(c, u, lin);
    }
}
