/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encode.h"

#include <string.h>

struct writer {
    uint8_t bytes[32];
    size_t n;
};

static void emit(struct writer *w, uint64_t v, unsigned bytes)
{
    memcpy(w->bytes + w->n, &v, bytes);
    w->n += bytes;
}

static bool is_mem(const struct insn_row *r, const struct encode_wish *wish)
{
    if (r->rm.kind == K_MEM_ONLY || r->enc & RE_MEM) {
        return true;
    }
    return wish->mem && !(r->enc & (RE_REG | RE_MODANY)) && !r->rmx;
}

static bool possible(const struct insn_row *r, const struct encode_wish *wish)
{
    bool is64 = wish->mode == INSN_MODE_64;

    if (r->op == OP_ILLEGAL || r->attr & (is64 ? RA_NO64 : RA_ONLY64)) {
        return false;
    }
    if (!is64 && !(r->enc & RE_VEX) && r->enc & RE_W1) {
        return false;
    }
    /* no VSIB without 32-bit addresses */
    return !(r->enc & RE_VSIB) || wish->mode != INSN_MODE_16;
}

/* Whether 66 may stand in front without making it another instruction. */
static bool may_have_66(const struct insn_row *r)
{
    return !(r->enc & RE_PP) || (r->pp >= 2 && r->op != OP_VEC && r->op != OP_MMX);
}

static unsigned log2_opsize(const struct insn_row *r, const struct encode_wish *wish)
{
    bool is64 = wish->mode == INSN_MODE_64;
    bool w = is64 && wish->wide && !(r->enc & RE_W0);
    bool word = (wish->mode == INSN_MODE_16) != (wish->word && may_have_66(r));

    switch (r->size) {
    case SZ_B:
        return 0;
    case SZ_F64:
        return is64 ? 3 : word ? 1 : 2;
    case SZ_D64:
        return is64 ? (word && !w ? 1 : 3) : word ? 1 : 2;
    case SZ_V:
        return w ? 3 : word ? 1 : 2;
    default:
        return word && !w ? 1 : 2;
    }
}

static void emit_imm(struct writer *out, const struct insn_row *r, const struct encode_wish *wish)
{
    unsigned log2 = log2_opsize(r, wish), z = log2 == 1 ? 2 : 4;

    switch (r->imm) {
    case IMM_NONE:
        break;
    case IMM_V:
        emit(out, wish->imm, 1u << log2);
        break;
    case IMM_16: case IMM_8_8:
        emit(out, wish->imm, 2);
        break;
    case IMM_Z: case IMM_JZ:
        emit(out, wish->imm, z);
        break;
    case IMM_ENTER:
        emit(out, wish->imm, 3);
        break;
    case IMM_FAR:
        emit(out, wish->imm, z);
        emit(out, wish->imm >> 32, 2);
        break;
    case IMM_MOFFS:
        emit(out, wish->imm, wish->mode == INSN_MODE_64 ? 8 : wish->mode == INSN_MODE_32 ? 4 : 2);
        break;
    case IMM_IS4:
        emit(out, wish->imm << 4, 1);
        break;
    default:
        emit(out, wish->imm, 1);
    }
}

static void emit_modrm(struct writer *out, const struct insn_row *r, const struct encode_wish *wish)
{
    unsigned reg = r->ext != 0xff ? r->ext : wish->reg & 7u;
    unsigned rm = r->rmx ? r->rmx - 1u : wish->rm & 7u;

    if (!is_mem(r, wish)) {
        emit(out, 0xc0 | reg << 3 | rm, 1);
    } else if (r->enc & RE_VSIB) {
        emit(out, 0x84 | reg << 3, 1);
        emit(out, (wish->rm & 7u) << 3 | (wish->base & 7u), 1);
        emit(out, (uint32_t)wish->disp, 4);
    } else if (wish->mode == INSN_MODE_16) {
        emit(out, 0x06 | reg << 3, 1);
        emit(out, (uint16_t)wish->disp, 2);
    } else if ((wish->base & 7) == 4) {
        emit(out, 0x84 | reg << 3, 1);
        emit(out, 0x24, 1);
        emit(out, (uint32_t)wish->disp, 4);
    } else {
        emit(out, 0x80 | reg << 3 | (wish->base & 7u), 1);
        emit(out, (uint32_t)wish->disp, 4);
    }
}

static bool wants_w(const struct insn_row *r, const struct encode_wish *wish)
{
    return r->enc & RE_W1 || (wish->wide && !(r->enc & RE_W0));
}

/* R, X, B for registers 8 and up; fixed fields of groups have none. */
static unsigned extension_bits(const struct insn_row *r, const struct encode_wish *wish)
{
    unsigned bits = 0, b = is_mem(r, wish) ? wish->base : wish->rm;

    if (wish->mode != INSN_MODE_64) {
        return 0;
    }
    if (r->enc & RE_MODRM) {
        bits |= r->ext == 0xff && wish->reg & 8 && r->reg.kind != K_MM && !(r->enc & (RE_CRREG | RE_DRREG | RE_SEGREG)) ? 4 : 0;
        bits |= !r->rmx && b & 8 && !(r->rm.kind == K_MM && !is_mem(r, wish)) ? 1 : 0;
        bits |= r->enc & RE_VSIB && wish->rm & 8 ? 2 : 0;
    } else if (r->enc & RE_OPREG) {
        bits |= wish->rm & 8 ? 1 : 0;
    }
    return bits;
}

static void emit_vex(struct writer *out, const struct insn_row *r, const struct encode_wish *wish)
{
    unsigned w = wants_w(r, wish), l = r->enc & RE_L1 || (wish->ymm && !(r->enc & RE_L0));
    unsigned vvvv = r->vvvv.kind != K_NONE ? (wish->mode == INSN_MODE_64 ? wish->vvvv & 15u : wish->vvvv & 7u) : 0;

    emit(out, 0xc4, 1);
    emit(out, ((~extension_bits(r, wish) & 7) << 5) | r->map, 1);
    emit(out, w << 7 | (~vvvv & 15) << 3 | l << 2 | r->pp, 1);
    emit(out, r->opcode, 1);
}

static void emit_legacy(struct writer *out, const struct insn_row *r, const struct encode_wish *wish)
{
    static const uint8_t prefix[4] = {0, 0x66, 0xf3, 0xf2};
    unsigned rex = extension_bits(r, wish) | (wants_w(r, wish) && wish->mode == INSN_MODE_64 ? 8 : 0);
    unsigned low = r->enc & RE_OPREG ? wish->rm & 7u : r->enc & RE_CC ? wish->reg & 15u : 0;

    if (wish->word && may_have_66(r)) {
        emit(out, 0x66, 1);
    }
    if (r->enc & RE_PP && r->pp) {
        emit(out, prefix[r->pp], 1);
    }
    if (rex) {
        emit(out, 0x40 | rex, 1);
    }
    if (r->map) {
        emit(out, 0x0f, 1);
    }
    if (r->map >= 2) {
        emit(out, r->map == 2 ? 0x38 : 0x3a, 1);
    }
    emit(out, r->opcode + low, 1);
}

size_t row_encode(const struct insn_row *row, const struct encode_wish *wish, uint8_t out[15])
{
    struct writer w = {.n = 0};

    if (!possible(row, wish)) {
        return 0;
    }
    if (row->enc & RE_VEX) {
        emit_vex(&w, row, wish);
    } else {
        emit_legacy(&w, row, wish);
    }
    if (row->enc & RE_MODRM) {
        emit_modrm(&w, row, wish);
    }
    emit_imm(&w, row, wish);
    if (w.n > 15) {
        return 0;
    }
    memcpy(out, w.bytes, w.n);
    return w.n;
}
