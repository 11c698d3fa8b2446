/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bytes to struct insn: prefixes, opcode, row, operands, checks; each step is one function and they run in this order.
 * Sources: SDM vol. 2A §2.1-2.3 (formats, REX, VEX), APM vol. 3 ch. 1. Where the vendors differ:
 *  - near branches with 66 in 64-bit mode: the prefix is ignored (Intel; AMD would cut RIP to 16 bits);
 *  - LOCK MOV CR0 is #UD (AMD's 32-bit way to CR8 is not offered);
 *  - far pointers in memory take REX.W (Intel; AMD ignores it).
 * #UD rules that depend on CPL, CR0, CR4 or XCR0 are not here but in sys/.
 */
#include "engine/soft/decode/insn.h"

#include <string.h>

#include "engine/soft/decode/index-int.h"

enum { MAX_LEN = 15, REX_W = 8, REX_R = 4, REX_X = 2, REX_B = 1 };

struct decoder {
    const uint8_t *bytes;
    size_t n;                   /* bytes that may be looked at */
    unsigned at;
    enum decode_result result;  /* why a step returned false */
    enum insn_mode mode;
    uint64_t feats;
    struct insn *out;
    bool has_66, has_67, has_lock, has_rex, has_modrm;
    uint8_t rep;                /* last of F3 and F2, else 0 */
    int8_t seg;                 /* last segment override that counts, else -1 */
    uint8_t rex;                /* W R X B, from REX or VEX; always 0 outside 64-bit mode but for VEX.W */
    uint8_t map, opcode, modrm;
    bool vex;
    uint8_t vex_pp, vvvv, vex_l;
    unsigned row;
};

static bool fail(struct decoder *d, enum decode_result why)
{
    d->result = why;
    return false;
}

/* Makes `count` more bytes available at d->at. */
static bool need(struct decoder *d, unsigned count)
{
    if (likely(d->at + count <= d->n)) {
        return true;
    }
    if (d->at + count > MAX_LEN) {
        return fail(d, DECODE_LONG);
    }
    return fail(d, DECODE_SHORT);
}

static bool take(struct decoder *d, unsigned count, uint64_t *value)
{
    if (!need(d, count)) {
        return false;
    }
    *value = 0;
    memcpy(value, d->bytes + d->at, count);     /* little-endian host, checked by the build */
    d->at += count;
    return true;
}

static bool take_byte(struct decoder *d, uint8_t *value)
{
    if (!need(d, 1)) {
        return false;
    }
    *value = d->bytes[d->at++];
    return true;
}

static int64_t sign_extend(uint64_t v, unsigned bytes)
{
    unsigned shift = 64 - 8 * bytes;

    return (int64_t)(v << shift) >> shift;
}


static void set_segment(struct decoder *d, int seg)
{
    d->out->seg_override = 1;
    if (d->mode != INSN_MODE_64 || seg >= SEG_FS) {
        d->seg = seg;
    }
}

enum prefix_kind { PFX_NOT, PFX_LEGACY, PFX_REX };

static enum prefix_kind prefix_apply(struct decoder *d, uint8_t b)
{
    switch (b) {
    case 0x26: case 0x2e: case 0x36: case 0x3e:
        set_segment(d, (b >> 3) & 3);
        return PFX_LEGACY;
    case 0x64: case 0x65:
        set_segment(d, b == 0x64 ? SEG_FS : SEG_GS);
        return PFX_LEGACY;
    case 0x66:
        d->has_66 = true;
        return PFX_LEGACY;
    case 0x67:
        d->has_67 = true;
        return PFX_LEGACY;
    case 0xf0:
        d->has_lock = true;
        return PFX_LEGACY;
    case 0xf2: case 0xf3:
        d->rep = b;
        return PFX_LEGACY;
    case 0x40 ... 0x4f:
        return d->mode == INSN_MODE_64 ? PFX_REX : PFX_NOT;
    default:
        return PFX_NOT;
    }
}

/* A REX that does not stand directly before the opcode is ignored, but its byte counts as one in front. */
static bool decode_prefixes(struct decoder *d)
{
    int rex_at = -1;

    for (;; d->at++) {
        if (!need(d, 1)) {
            return false;
        }
        enum prefix_kind kind = prefix_apply(d, d->bytes[d->at]);
        if (kind == PFX_NOT) {
            break;
        }
        rex_at = kind == PFX_REX ? (int)d->at : rex_at;
    }
    d->has_rex = rex_at >= 0 && rex_at == (int)d->at - 1;
    d->rex = d->has_rex ? d->bytes[rex_at] & 15 : 0;
    d->out->n_legacy = d->at - d->has_rex;
    return true;
}

/* C4 and C5, when they are VEX. Bits R, X, B and vvvv are stored inverted. */
static bool decode_vex(struct decoder *d, bool three)
{
    uint8_t p0, p1;

    if (d->has_66 || d->rep || d->has_lock || d->has_rex) {
        return fail(d, DECODE_ILLEGAL);
    }
    if (!take_byte(d, &p0)) {
        return false;
    }
    d->vex = true;
    d->map = 1;
    p1 = p0;
    d->rex = (p0 & 0x80) ? 0 : REX_R;
    if (three) {
        if (!take_byte(d, &p1)) {
            return false;
        }
        d->map = p0 & 31;
        d->rex |= ((p0 & 0x40) ? 0 : REX_X) | ((p0 & 0x20) ? 0 : REX_B) | ((p1 & 0x80) ? REX_W : 0);
        if (d->map < 1 || d->map > 3) {
            return fail(d, DECODE_ILLEGAL);
        }
    }
    d->vvvv = (~p1 >> 3) & 15;
    d->vex_l = (p1 >> 2) & 1;
    d->vex_pp = p1 & 3;
    if (d->mode != INSN_MODE_64) {
        d->rex &= REX_W;        /* R and X are 0 or this would be LES or LDS; B is ignored */
    }
    return take_byte(d, &d->opcode);
}

/* In 16- and 32-bit code C4, C5 and 62 are VEX and EVEX only where LES, LDS and BOUND would have a register operand. */
static bool is_vector_escape(struct decoder *d, bool *yes)
{
    *yes = d->mode == INSN_MODE_64;
    if (!*yes) {
        if (!need(d, 1)) {
            return false;
        }
        *yes = d->bytes[d->at] >= 0xc0;
    }
    return true;
}

static bool decode_opcode(struct decoder *d)
{
    if (!take_byte(d, &d->opcode)) {
        return false;
    }
    d->map = 0;
    if (d->opcode == 0x0f) {
        if (!take_byte(d, &d->opcode)) {
            return false;
        }
        d->map = 1;
        if (d->opcode == 0x38 || d->opcode == 0x3a) {
            d->map = d->opcode == 0x38 ? 2 : 3;
            return take_byte(d, &d->opcode);
        }
        return true;
    }
    if (d->opcode == 0xc4 || d->opcode == 0xc5 || d->opcode == 0x62) {
        bool escape;
        if (!is_vector_escape(d, &escape)) {
            return false;
        }
        if (escape) {
            return d->opcode == 0x62 ? fail(d, DECODE_ILLEGAL) : decode_vex(d, d->opcode == 0xc4);
        }
    }
    return true;
}

/* The prefix that selects among rows: F2 and F3 win over 66. */
static unsigned mandatory_prefix(const struct decoder *d)
{
    if (d->vex) {
        return d->vex_pp;
    }
    return d->rep == 0xf3 ? 2 : d->rep == 0xf2 ? 3 : d->has_66;
}

static bool has_feat(const struct decoder *d, unsigned feat)
{
    return feat == FEAT_BASE || (d->feats >> feat & 1);
}

/* Rules by ModRM, which exists when the row has one. */
static bool modrm_matches(const struct decoder *d, const struct insn_row *r)
{
    bool is_reg = d->modrm >= 0xc0;

    if (is_reg ? r->enc & RE_MEM || r->rm.kind == K_MEM_ONLY : r->enc & RE_REG) {
        return false;
    }
    return !r->rmx || (d->modrm & 7u) == r->rmx - 1u;
}

static bool row_matches(const struct decoder *d, const struct insn_row *r, unsigned pp)
{
    uint32_t enc = r->enc;
    bool w = d->rex & REX_W;

    if ((enc & RE_PP && r->pp != pp) || (enc & RE_NOF && pp >= 2)) {
        return false;
    }
    if (enc & RE_MODRM && !modrm_matches(d, r)) {
        return false;
    }
    if ((enc & RE_W0 && w) || (enc & RE_W1 && !w) || (enc & RE_NOB && d->rex & REX_B)) {
        return false;
    }
    if ((enc & RE_L0 && d->vex_l) || (enc & RE_L1 && !d->vex_l)) {
        return false;
    }
    if (r->attr & (d->mode == INSN_MODE_64 ? RA_NO64 : RA_ONLY64)) {
        return false;
    }
    return has_feat(d, r->feat) && has_feat(d, r->feat2);
}

static bool find_row(struct decoder *d)
{
    const struct row_index *x = row_index_get();
    const struct row_list *list = &x->map[d->map + (d->vex ? INDEX_VEX : 0)][d->opcode];
    unsigned pp = mandatory_prefix(d);

    if (list->kind & LIST_MODRM) {
        if (!need(d, 1)) {
            return false;
        }
        d->modrm = d->bytes[d->at];
        if (list->kind & LIST_GROUP) {
            list = &x->groups[list->first][d->modrm >> 3 & 7];
        }
    }
    for (unsigned i = 0; i < list->n; i++) {
        unsigned row = x->rows[list->first + i];
        if (row_matches(d, &insn_rows[row], pp)) {
            d->row = row;
            return true;
        }
    }
    return fail(d, DECODE_ILLEGAL);
}

/* log2 of the operand size that `size` gives with this instruction's prefixes. */
static unsigned operand_size(const struct decoder *d, unsigned size)
{
    bool w = d->rex & REX_W && d->mode == INSN_MODE_64;
    bool word = d->mode == INSN_MODE_16 ? !d->has_66 : d->has_66;

    switch (size) {
    case SZ_B:
        return 0;
    case SZ_W:
        return 1;
    case SZ_D:
        return 2;
    case SZ_Z:
        return word && !w ? 1 : 2;
    case SZ_Y:
        return w ? 3 : 2;
    case SZ_D64:
        return d->mode != INSN_MODE_64 ? (word ? 1 : 2) : word && !w ? 1 : 3;
    case SZ_F64:
        return d->mode == INSN_MODE_64 ? 3 : word ? 1 : 2;
    case SZ_N:
        return d->mode == INSN_MODE_64 ? 3 : 2;
    default:
        return w ? 3 : word ? 1 : 2;
    }
}

static void set_sizes(struct decoder *d, const struct insn_row *r)
{
    struct insn *o = d->out;

    o->asize = d->mode == INSN_MODE_64 ? (d->has_67 ? 2 : 3) : (d->mode == INSN_MODE_32) != d->has_67 ? 2 : 1;
    o->opsize = operand_size(d, r->size);
    if (r->mem_size == MEM_DTR && d->mode != INSN_MODE_64) {
        o->opsize = operand_size(d, SZ_V);
    }
    o->ssize = o->opsize;
    if (r->enc & RE_SRC8) {
        o->ssize = 0;
    } else if (r->enc & RE_SRC16) {
        o->ssize = 1;
    } else if (r->enc & RE_SRC32) {
        o->ssize = 2;           /* MOVSXD: AMD reads 32 bits even for a 16-bit destination (Intel's manual: 16) */
    } else if (r->enc & RE_SRCV) {
        o->ssize = operand_size(d, SZ_V);
    }
}

static bool take_disp(struct decoder *d, unsigned bytes)
{
    uint64_t v;

    if (!take(d, bytes, &v)) {
        return false;
    }
    d->out->disp = (int32_t)sign_extend(v, bytes);
    return true;
}

/* 16-bit forms: SDM vol. 2A table 2-1. */
static bool decode_mem16(struct decoder *d, unsigned mod, unsigned rm)
{
    static const uint8_t base[8] = {3, 3, 5, 5, 6, 7, 5, 3};            /* bx bx bp bp si di bp bx */
    static const uint8_t index[8] = {6, 7, 6, 7, INSN_REG_NONE, INSN_REG_NONE, INSN_REG_NONE, INSN_REG_NONE};
    struct insn *o = d->out;

    o->base = base[rm];
    o->index = index[rm];
    if (mod == 0 && rm == 6) {
        o->base = INSN_REG_NONE;
        return take_disp(d, 2);
    }
    return mod == 0 || take_disp(d, mod);
}

static bool decode_sib(struct decoder *d, unsigned mod, bool vsib)
{
    struct insn *o = d->out;
    uint8_t sib;

    if (!take_byte(d, &sib)) {
        return false;
    }
    o->scale = sib >> 6;
    o->index = (sib >> 3 & 7) | (d->rex & REX_X ? 8 : 0);
    if (o->index == 4 && !vsib) {
        o->index = INSN_REG_NONE;
    }
    o->base = (sib & 7) | (d->rex & REX_B ? 8 : 0);
    if ((sib & 7) == 5 && mod == 0) {
        o->base = INSN_REG_NONE;
        return take_disp(d, 4);
    }
    return true;
}

/* 32- and 64-bit forms: SDM vol. 2A tables 2-2, 2-3, §2.2.1.6 (RIP-relative). */
static bool decode_mem32(struct decoder *d, unsigned mod, unsigned rm, bool vsib)
{
    struct insn *o = d->out;

    o->index = INSN_REG_NONE;
    if (rm == 4) {
        if (!decode_sib(d, mod, vsib)) {
            return false;
        }
    } else if (mod == 0 && rm == 5) {
        o->base = d->mode == INSN_MODE_64 ? INSN_REG_RIP : INSN_REG_NONE;
        return take_disp(d, 4);
    } else {
        o->base = rm | (d->rex & REX_B ? 8 : 0);
    }
    return mod == 0 || take_disp(d, mod == 1 ? 1 : 4);
}

static bool decode_modrm(struct decoder *d, const struct insn_row *r)
{
    struct insn *o = d->out;
    unsigned mod = r->enc & RE_MODANY ? 3 : d->modrm >> 6, rm = d->modrm & 7;

    d->at++;                    /* find_row() has looked at it */
    o->reg = (d->modrm >> 3 & 7) | (d->rex & REX_R ? 8 : 0);
    if (mod == 3) {
        o->rm = rm | (d->rex & REX_B ? 8 : 0);
        return true;
    }
    o->flags |= INSN_MEM;
    if (r->enc & RE_VSIB && (o->asize == 1 || rm != 4)) {
        return fail(d, DECODE_ILLEGAL);
    }
    if (!(o->asize == 1 ? decode_mem16(d, mod, rm) : decode_mem32(d, mod, rm, r->enc & RE_VSIB))) {
        return false;
    }
    /* rSP and rBP as base mean SS, but not R12 and R13. */
    if (d->seg < 0 && (o->base == 4 || o->base == 5)) {
        o->seg = SEG_SS;
    }
    return true;
}

/* An immediate that the operand size widens: the value in opsize bits, zero above. */
static uint64_t widen(const struct insn *o, uint64_t v, unsigned bytes)
{
    uint64_t wide = (uint64_t)sign_extend(v, bytes);

    return o->opsize == 3 ? wide : wide & ((1ull << (8u << o->opsize)) - 1);
}

static bool take_two(struct decoder *d, unsigned low_bytes, unsigned high_bytes, unsigned high_shift)
{
    uint64_t low, high;

    if (!take(d, low_bytes, &low) || !take(d, high_bytes, &high)) {
        return false;
    }
    d->out->imm = low | high << high_shift;
    return true;
}

static bool decode_moffs(struct decoder *d)
{
    struct insn *o = d->out;

    o->flags |= INSN_MEM | INSN_MOFFS;
    return take(d, 1u << o->asize, &o->imm);
}

static bool decode_imm(struct decoder *d, const struct insn_row *r)
{
    struct insn *o = d->out;
    unsigned z = o->opsize == 1 ? 2 : 4;        /* bytes of an iz or rel16/32 */
    bool ok;

    switch (r->imm) {
    case IMM_NONE:
        return true;
    case IMM_8:
        return take(d, 1, &o->imm);
    case IMM_16:
        return take(d, 2, &o->imm);
    case IMM_V:
        return take(d, 1u << o->opsize, &o->imm);
    case IMM_S8:
        ok = take(d, 1, &o->imm);
        o->imm = widen(o, o->imm, 1);
        return ok;
    case IMM_Z:
        ok = take(d, z, &o->imm);
        o->imm = widen(o, o->imm, z);
        return ok;
    case IMM_J8:
        ok = take(d, 1, &o->imm);
        o->imm = (uint64_t)sign_extend(o->imm, 1);
        return ok;
    case IMM_JZ:
        ok = take(d, z, &o->imm);
        o->imm = (uint64_t)sign_extend(o->imm, z);
        return ok;
    case IMM_IS4:
        ok = take(d, 1, &o->imm);
        o->imm = o->imm >> 4 & (d->mode == INSN_MODE_64 ? 15 : 7);
        return ok;
    case IMM_ENTER:
        return take_two(d, 2, 1, 16);
    case IMM_FAR:
        return take_two(d, z, 2, 32);
    case IMM_8_8:
        return take_two(d, 1, 1, 8);
    default:
        return decode_moffs(d);
    }
}

/* spl, bpl, sil, dil with any REX; ah, ch, dh, bh without. */
static uint8_t byte_reg(const struct decoder *d, uint8_t reg)
{
    return !d->has_rex && reg >= 4 && reg < 8 ? INSN_AH + reg - 4 : reg;
}

static bool row_has_byte_reg(const struct insn_row *r)
{
    return r->size == SZ_B && r->form != F_NONE && r->form != F_I;
}

/* Registers of short encodings, segment registers, and the byte registers. */
static void set_registers(struct decoder *d, const struct insn_row *r)
{
    struct insn *o = d->out;
    uint32_t enc = r->enc;

    if (enc & RE_OPREG) {
        o->rm = (d->opcode & 7) | (d->rex & REX_B ? 8 : 0);
    }
    if (enc & RE_CC) {
        o->cc = d->opcode & 15;
    }
    if (enc & RE_SEGREG) {
        o->reg = enc & RE_MODRM ? o->reg & 7 : d->opcode >> 3 & 7;
    }
    if (r->op == OP_LDSEG) {
        o->cc = d->map == 0 ? (d->opcode == 0xc4 ? SEG_ES : SEG_DS) : d->opcode == 0xb2 ? SEG_SS : d->opcode & 7;
    }
    if (row_has_byte_reg(r)) {
        o->reg = enc & RE_MODRM && (r->form == F_RM_R || r->form == F_R_RM) ? byte_reg(d, o->reg) : o->reg;
        o->rm = o->flags & INSN_MEM ? o->rm : byte_reg(d, o->rm);
    } else if (enc & RE_SRC8 && !(o->flags & INSN_MEM)) {
        o->rm = byte_reg(d, o->rm);
    }
    if (d->vex) {
        o->cc = d->mode == INSN_MODE_64 ? d->vvvv : d->vvvv & 7;
    }
    /* MM registers have no fourth bit; ST(i) comes from ModRM.rm alone. */
    o->reg = r->reg.kind == K_MM ? o->reg & 7 : o->reg;
    o->rm = r->rm.kind == K_MM || r->rm.kind == K_ST ? o->rm & 7 : o->rm;
}

/* MOV to and from control, debug and segment registers name some that do not exist. */
static bool special_reg_ok(const struct decoder *d, const struct insn_row *r)
{
    unsigned n = d->out->reg;

    if (r->enc & RE_CRREG) {
        return n == 0 || n == 2 || n == 3 || n == 4 || (n == 8 && d->mode == INSN_MODE_64);
    }
    if (r->enc & RE_DRREG) {
        return n < 8;
    }
    if (r->enc & RE_SEGREG && r->enc & RE_MODRM) {
        return n < N_SEGS && !(r->op == OP_MOVSEG_TO && n == SEG_CS);
    }
    return true;
}

/* What is #UD although the row was found and all bytes are there. */
static bool operands_ok(const struct decoder *d, const struct insn_row *r)
{
    const struct insn *o = d->out;

    if (d->has_lock && !(r->enc & RE_LOCK && o->flags & INSN_MEM)) {
        return false;
    }
    if (d->vex && r->vvvv.kind == K_NONE && d->vvvv != 0) {
        return false;
    }
    if (r->enc & RE_VSIB && (o->reg == o->index || o->reg == o->cc || o->index == o->cc)) {
        return false;           /* gathers: destination, index and mask differ */
    }
    return special_reg_ok(d, r);
}

static void set_flags(struct decoder *d, const struct insn_row *r)
{
    struct insn *o = d->out;

    if (d->has_lock) {
        o->flags |= INSN_LOCK;
    }
    if (d->rep && !(r->enc & RE_PP)) {
        o->flags |= d->rep == 0xf3 ? INSN_REP : INSN_REPNE;
    }
    if (d->vex) {
        o->flags |= INSN_VEX | (d->vex_l ? INSN_L : 0);
    }
    if (d->rex & REX_W) {
        o->flags |= INSN_W;
    }
}

static bool decode_operands(struct decoder *d)
{
    const struct insn_row *r = &insn_rows[d->row];
    struct insn *o = d->out;

    o->row = d->row;
    o->form = r->form;
    o->seg = d->seg < 0 ? SEG_DS : d->seg;
    o->base = INSN_REG_NONE;
    o->index = INSN_REG_NONE;
    set_sizes(d, r);
    if (r->enc & RE_MODRM && !decode_modrm(d, r)) {
        return false;
    }
    if (!decode_imm(d, r)) {
        return false;
    }
    set_registers(d, r);
    set_flags(d, r);
    return operands_ok(d, r) || fail(d, DECODE_ILLEGAL);
}

enum decode_result insn_decode(const uint8_t *bytes, size_t n, enum insn_mode mode, uint64_t feats, struct insn *out)
{
    struct decoder d = {.bytes = bytes, .n = n < MAX_LEN ? n : MAX_LEN, .mode = mode, .feats = feats, .out = out, .seg = -1};

    memset(out, 0, sizeof(*out));
    if (likely(decode_prefixes(&d) && decode_opcode(&d) && find_row(&d) && decode_operands(&d))) {
        out->len = d.at;
        return DECODE_OK;
    }
    unsigned n_legacy = out->n_legacy;
    *out = (struct insn){.len = d.at, .n_legacy = n_legacy, .base = INSN_REG_NONE, .index = INSN_REG_NONE};
    return d.result;
}

unsigned insn_mem_size(const struct insn *i)
{
    const struct insn_row *r = insn_row(i);
    unsigned vl = i->flags & INSN_L ? 32 : 16;

    if (!(i->flags & INSN_MEM)) {
        return 0;
    }
    switch (r->mem_size) {
    case 0:
        return 1u << i->ssize;
    case MEM_VL:
        return vl;
    case MEM_VL2:
        return vl / 2;
    case MEM_VL4:
        return vl / 4;
    case MEM_VL8:
        return vl / 8;
    case MEM_FAR:
        return (1u << i->opsize) + 2;
    case MEM_PAIR:
        return 2u << i->opsize;
    case MEM_DTR:
        return i->opsize == 3 ? 10 : 6;
    case MEM_X87ENV:
        return i->opsize == 1 ? 14 : 28;
    case MEM_X87SAVE:
        return i->opsize == 1 ? 94 : 108;
    case MEM_FX512:
        return 512;
    case MEM_XSAVE: case MEM_NO:
        return 0;
    default:
        return r->mem_size;
    }
}
