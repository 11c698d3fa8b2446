/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Instructions as text for logs: Intel order, no symbols, sizes named only where no register tells them. */
#include "engine/soft/decode/insn.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct text {
    char *buf;
    size_t size, len;
    const struct insn *i;
    const struct insn_row *row;
    enum insn_mode mode;
    uint64_t next;              /* address after the instruction */
    bool first;                 /* no operand yet */
};

static const char *const seg_names[8] = {"es", "cs", "ss", "ds", "fs", "gs", "?", "?"};
static const char *const cond_names[16] = {"o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"};

PRINTF_LIKE(2, 3) static void put(struct text *t, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(t->buf + t->len, t->size - t->len, fmt, ap);
    va_end(ap);
    if (n > 0) {
        t->len += (size_t)n < t->size - t->len ? (size_t)n : t->size - t->len - 1;
    }
}

static void separator(struct text *t)
{
    put(t, t->first ? " " : ", ");
    t->first = false;
}

static void put_gpr(struct text *t, unsigned reg, unsigned log2)
{
    static const char *const low[8] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
    static const char *const high[4] = {"ah", "ch", "dh", "bh"};
    static const char *const suffix[4] = {"b", "w", "d", ""};

    if (reg >= INSN_AH) {
        put(t, "%s", high[reg & 3]);
    } else if (reg >= 8) {
        put(t, "r%u%s", reg, suffix[log2]);
    } else if (log2 == 0) {
        put(t, reg < 4 ? "%.1sl" : "%sl", low[reg]);
    } else {
        put(t, "%s%s", log2 == 3 ? "r" : log2 == 2 ? "e" : "", low[reg]);
    }
}

static void put_signed(struct text *t, int64_t v, bool plus)
{
    put(t, "%s0x%" PRIx64, v < 0 ? "-" : plus ? "+" : "", v < 0 ? -(uint64_t)v : (uint64_t)v);
}

static void put_address(struct text *t)
{
    const struct insn *i = t->i;
    bool vsib = t->row->enc & RE_VSIB, any = false;

    if (i->flags & INSN_MOFFS) {
        put(t, "0x%" PRIx64, i->imm);
        return;
    }
    if (i->base == INSN_REG_RIP) {
        put(t, "rip");
        any = true;
    } else if (i->base != INSN_REG_NONE) {
        put_gpr(t, i->base, i->asize);
        any = true;
    }
    if (i->index != INSN_REG_NONE) {
        put(t, any ? "+" : "");
        if (vsib) {
            put(t, "%cmm%u", i->flags & INSN_L ? 'y' : 'x', i->index);
        } else {
            put_gpr(t, i->index, i->asize);
        }
        if (i->scale) {
            put(t, "*%u", 1u << i->scale);
        }
        any = true;
    }
    if (!any) {
        put(t, "0x%" PRIx32, (uint32_t)i->disp & (i->asize == 1 ? 0xffff : UINT32_MAX));
    } else if (i->disp) {
        put_signed(t, i->disp, true);
    }
}

static void put_mem(struct text *t, bool sized)
{
    static const char *const names[] = {[1] = "byte", [2] = "word", [4] = "dword", [8] = "qword"};
    unsigned size = insn_mem_size(t->i);

    if (sized && size < ARRAY_SIZE(names) && names[size]) {
        put(t, "%s ", names[size]);
    }
    if (t->i->seg_override) {
        put(t, "%s:", seg_names[t->i->seg]);
    }
    put(t, "[");
    put_address(t);
    put(t, "]");
}

static void put_reg_of(struct text *t, unsigned kind, unsigned reg, unsigned log2)
{
    switch (kind) {
    case K_XMM:
        put(t, "%cmm%u", t->i->flags & INSN_L ? 'y' : 'x', reg);
        break;
    case K_MM:
        put(t, "mm%u", reg);
        break;
    case K_ST:
        put(t, "st%u", reg);
        break;
    default:
        put_gpr(t, reg, log2);
    }
}

static void put_reg(struct text *t)
{
    const struct insn_row *r = t->row;

    separator(t);
    if (r->enc & RE_SEGREG) {
        put(t, "%s", seg_names[t->i->reg & 7]);
    } else if (r->enc & (RE_CRREG | RE_DRREG)) {
        put(t, "%s%u", r->enc & RE_CRREG ? "cr" : "dr", t->i->reg);
    } else {
        put_reg_of(t, r->reg.kind, t->i->reg, t->i->opsize);
    }
}

static void put_rm(struct text *t, bool sized)
{
    separator(t);
    if (t->i->flags & INSN_MEM) {
        put_mem(t, sized);
    } else {
        put_reg_of(t, t->row->rm.kind, t->i->rm, t->i->ssize);
    }
}

static void put_imm(struct text *t)
{
    unsigned second = t->row->imm == IMM_ENTER ? 16 : t->row->imm == IMM_8_8 ? 8 : 0;

    separator(t);
    if (second) {
        put(t, "0x%" PRIx64 ", 0x%" PRIx64, t->i->imm & ((1u << second) - 1), t->i->imm >> second);
    } else {
        put(t, "0x%" PRIx64, t->i->imm);
    }
}

static void put_target(struct text *t)
{
    static const uint64_t mask[4] = {0xff, 0xffff, 0xffffffff, UINT64_MAX};

    separator(t);
    put(t, "0x%" PRIx64, (t->next + t->i->imm) & mask[t->i->opsize]);
}

static void put_vvvv(struct text *t)
{
    if (t->row->vvvv.kind) {
        separator(t);
        put_reg_of(t, t->row->vvvv.kind, insn_vvvv(t->i), t->i->opsize);
    }
}

/* Destination first: r/m for stores. Some BMI instructions and gathers have r/m before vvvv. */
static void put_vex(struct text *t)
{
    const struct insn_row *r = t->row;
    bool store = r->rm.write && r->reg.kind && !r->reg.write;
    bool rm_second = r->op == OP_BEXTR || r->op == OP_BZHI || r->op == OP_SARX || r->op == OP_SHLX || r->op == OP_SHRX ||
                     r->op == OP_GATHER;

    if (store) {
        put_rm(t, false);
    } else if (r->reg.kind) {
        put_reg(t);
    }
    if (rm_second) {
        put_rm(t, false);
    }
    put_vvvv(t);
    if (store) {
        put_reg(t);
    } else if (r->rm.kind && !rm_second) {
        put_rm(t, false);
    }
    if (r->imm == IMM_IS4) {
        separator(t);
        put_reg_of(t, K_XMM, t->i->imm, 0);
    } else if (r->imm) {
        put_imm(t);
    }
}

static void put_operands(struct text *t)
{
    bool sized = t->row->enc & (RE_SRC8 | RE_SRC16 | RE_SRC32);

    switch (t->i->form) {
    case F_RM:
        put_rm(t, true);
        break;
    case F_RM_R: case F_RM_R_I: case F_RM_R_CL:
        put_rm(t, false);
        put_reg(t);
        break;
    case F_R_RM: case F_R_RM_I:
        put_reg(t);
        put_rm(t, sized);
        break;
    case F_RM_I: case F_RM_1: case F_RM_CL:
        put_rm(t, true);
        break;
    case F_J:
        put_target(t);
        break;
    case F_FAR:
        separator(t);
        put(t, "0x%x:0x%" PRIx64, (unsigned)(t->i->imm >> 32) & 0xffff, t->i->imm & UINT32_MAX);
        break;
    case F_VEX:
        put_vex(t);
        break;
    case F_NONE:
        if (t->row->enc & RE_SEGREG) {
            put_reg(t);
        }
        break;
    default:
        break;
    }
    if (t->i->form == F_RM_I || t->i->form == F_R_RM_I || t->i->form == F_RM_R_I || t->i->form == F_I ||
        (t->i->form == F_NONE && t->row->imm)) {
        put_imm(t);
    } else if (t->i->form == F_RM_CL || t->i->form == F_RM_R_CL) {
        put(t, ", cl");
    } else if (t->i->form == F_RM_1) {
        put(t, ", 1");
    }
}

static void put_mnemonic(struct text *t)
{
    static const char sizes[4] = {'b', 'w', 'd', 'q'};
    const struct insn_row *r = t->row;
    size_t stem = strlen(r->name);

    if (t->i->flags & INSN_LOCK) {
        put(t, "lock ");
    }
    if (t->i->flags & (INSN_REP | INSN_REPNE) && r->op >= OP_MOVS && r->op <= OP_OUTS) {
        put(t, t->i->flags & INSN_REP ? "rep " : "repne ");
    }
    if (r->enc & RE_CC) {
        put(t, "%.*s%s", (int)stem - 2, r->name, cond_names[t->i->cc]);
    } else {
        put(t, "%s", r->name);
    }
    if (r->op >= OP_MOVS && r->op <= OP_OUTS) {
        put(t, "%c", sizes[t->i->opsize]);
    }
}

const char *insn_format(const struct insn *i, enum insn_mode mode, uint64_t rip, char *buf, size_t size)
{
    struct text t = {.buf = buf, .size = size, .i = i, .row = insn_row(i), .mode = mode, .next = rip + i->len, .first = true};

    if (size == 0) {
        return buf;
    }
    buf[0] = 0;
    put_mnemonic(&t);
    if (i->row) {
        put_operands(&t);
    }
    return buf;
}
