/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Code of a thunk: void thunk(struct soft_cpu *c = rdi, void *mem = rsi). It is built from the instruction's row and
 * register numbers alone, never from the guest's bytes, so it holds nothing but that row's instruction; the only memory
 * operands ever encoded are [rdi + field of struct soft_cpu] and [rsi]. Registers:
 *  - vector registers keep their numbers and are loaded from and stored to the guest's XSAVE image;
 *  - a general register operand becomes rax, loaded from and stored to c->r (a 32-bit result zero-extends by itself);
 *  - x87 and MMX ("fx" thunks) run between FXRSTOR64 and FXSAVE64 of the whole legacy region, then FNINIT for the host.
 * Two families, and nothing touches the stack, so that a thunk can be left from a signal by a RET. Flags that the
 * instruction writes go to c->af as LAHF; SETO AL leave them. Sources: SDM vol. 2A §2.1 to 2.3 (encodings).
 */
#include "engine/soft/native/native-int.h"

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };
enum { PP_NONE, PP_66, PP_F3, PP_F2 };
enum { MAP_0F = 1, MAP_0F38, MAP_0F3A };

static const unsigned off_af = offsetof(struct soft_cpu, af), off_xs = offsetof(struct soft_cpu, st.xsave);

static void put(struct emit *e, unsigned byte)
{
    e->b[e->n++] = (uint8_t)byte;       /* the longest thunk (four ymm operands) takes under 200 bytes */
}

static void put_bytes(struct emit *e, const void *bytes, unsigned n)
{
    memcpy(e->b + e->n, bytes, n);
    e->n += n;
}
#define PUT(e, ...) put_bytes(e, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* ModRM and displacement of [rdi + off]. */
static void put_state(struct emit *e, unsigned reg, unsigned off)
{
    uint8_t disp[4];
    put(e, 0x80 | (reg & 7) << 3 | RDI);
    store_le32(disp, off);
    put_bytes(e, disp, 4);
}

static void put_vex(struct emit *e, unsigned map, unsigned pp, bool w, bool l, unsigned reg, unsigned vvvv, unsigned rm)
{
    put(e, 0xc4);
    put(e, (reg & 8 ? 0 : 0x80) | 0x40 | (rm & 8 ? 0 : 0x20) | map);
    put(e, w << 7 | (~vvvv & 15) << 3 | l << 2 | pp);
}

/* --- general registers --- */

static void load_gpr(struct emit *e, unsigned host, unsigned guest)
{
    PUT(e, 0x48, 0x8b);                 /* mov host, [rdi + r[guest]] */
    put_state(e, host, offsetof(struct soft_cpu, r) + 8 * guest);
}

static void store_gpr(struct emit *e, unsigned host, unsigned guest)
{
    PUT(e, 0x48, 0x89);
    put_state(e, host, offsetof(struct soft_cpu, r) + 8 * guest);
}

static void store_flags(struct emit *e)
{
    PUT(e, 0x9f, 0x0f, 0x90, 0xc0);     /* lahf; seto al */
    PUT(e, 0x66, 0x89);                 /* mov [rdi + af], ax */
    put_state(e, RAX, off_af);
}

static void load_flags(struct emit *e)
{
    PUT(e, 0x0f, 0xb7);                 /* movzx eax, word [rdi + af] */
    put_state(e, RAX, off_af);
    PUT(e, 0x04, 0x7f, 0x9e);           /* add al, 127 (sets OF from bit 0); sahf */
}

/* --- vector registers --- */

static void legacy_mov(struct emit *e, unsigned opcode, unsigned reg, unsigned off)
{
    if (reg & 8) {
        put(e, 0x44);
    }
    PUT(e, 0x0f, (uint8_t)opcode);      /* movups */
    put_state(e, reg, off);
}

static void vex_mov(struct emit *e, unsigned opcode, unsigned reg, unsigned off)
{
    put_vex(e, MAP_0F, PP_NONE, false, false, reg, 0, RDI);
    put(e, opcode);                     /* vmovups xmm */
    put_state(e, reg, off);
}

/* vinsertf128 / vextractf128 of the upper half. */
static void vex_hi(struct emit *e, unsigned opcode, unsigned reg, unsigned off)
{
    put_vex(e, MAP_0F3A, PP_66, false, true, reg, opcode == 0x18 ? reg : 0, RDI);
    put(e, opcode);
    put_state(e, reg, off);
    put(e, 1);
}

static void load_vec(struct emit *e, const struct thunk_spec *s, unsigned n)
{
    unsigned lo = off_xs + XS_XMM + 16 * n, hi = off_xs + XS_YMM + 16 * n;
    if (!(s->flags & INSN_VEX)) {
        legacy_mov(e, 0x10, n, lo);
        return;
    }
    vex_mov(e, 0x10, n, lo);
    if (s->flags & INSN_L) {
        vex_hi(e, 0x18, n, hi);
    }
}

/* A legacy instruction keeps the upper half, VEX.128 clears it. */
static void store_vec(struct emit *e, const struct thunk_spec *s, unsigned n)
{
    unsigned lo = off_xs + XS_XMM + 16 * n, hi = off_xs + XS_YMM + 16 * n;
    if (!(s->flags & INSN_VEX)) {
        legacy_mov(e, 0x11, n, lo);
        return;
    }
    vex_mov(e, 0x11, n, lo);
    if (s->flags & INSN_L) {
        vex_hi(e, 0x19, n, hi);
        return;
    }
    for (unsigned i = 0; i < 16; i += 8) {
        PUT(e, 0x48, 0xc7);             /* mov qword [rdi + hi], 0 */
        put_state(e, 0, hi + i);
        PUT(e, 0, 0, 0, 0);
    }
}

/* --- the instruction itself --- */

static bool mem_form(const struct thunk_spec *s)
{
    return s->flags & INSN_MEM;
}

/* Number of an operand as the host instruction names it: general registers became rax. */
static unsigned host_reg(const struct opnd *o, unsigned n)
{
    return o->kind == K_XMM ? n & 15 : o->kind == K_MM || o->kind == K_ST ? n & 7 : RAX;
}

static unsigned modrm_reg(const struct insn_row *r, const struct thunk_spec *s)
{
    return r->ext != 0xff ? r->ext : host_reg(&r->reg, s->reg);
}

static unsigned modrm_rm(const struct insn_row *r, const struct thunk_spec *s)
{
    return mem_form(s) ? RSI : r->rmx ? r->rmx - 1u : host_reg(&r->rm, s->rm);
}

static void put_imm(struct emit *e, const struct insn_row *r, const struct thunk_spec *s)
{
    switch (r->imm) {
    case IMM_NONE:
        break;
    case IMM_IS4:
        put(e, (s->imm & 15) << 4);
        break;
    case IMM_8_8:
        put(e, s->imm & 0xff);
        put(e, s->imm >> 8);
        break;
    default:
        put(e, s->imm & 0xff);
        break;
    }
}

static void put_legacy_prefixes(struct emit *e, const struct insn_row *r, const struct thunk_spec *s, unsigned reg, unsigned rm)
{
    static const uint8_t pp_byte[] = {0, 0x66, 0xf3, 0xf2};
    unsigned rex = (s->flags & INSN_W ? 8 : 0) | (reg & 8 ? 4 : 0) | (rm & 8 ? 1 : 0);
    unsigned pp = s->flags & THUNK_OP16 ? PP_66 : r->enc & RE_PP ? r->pp : PP_NONE;

    if (pp) {
        put(e, pp_byte[pp]);
    }
    if (rex) {
        put(e, 0x40 | rex);
    }
    if (r->map) {
        put(e, 0x0f);
    }
    if (r->map >= MAP_0F38) {
        put(e, r->map == MAP_0F38 ? 0x38 : 0x3a);
    }
}

static void put_insn(struct emit *e, const struct insn_row *r, const struct thunk_spec *s)
{
    unsigned reg = modrm_reg(r, s), rm = modrm_rm(r, s);

    if (s->flags & INSN_VEX) {
        put_vex(e, r->map, r->pp, s->flags & INSN_W, s->flags & INSN_L, reg, s->vvvv, rm);
    } else {
        put_legacy_prefixes(e, r, s, reg, rm);
    }
    put(e, r->opcode);
    if (r->enc & RE_MODRM) {
        put(e, (mem_form(s) ? 0 : 0xc0) | (reg & 7) << 3 | (rm & 7));
    }
    put_imm(e, r, s);
}

/* --- operands around it --- */

/* Vector registers named, as a mask: written ones too where the instruction keeps a part of them. */
static unsigned vec_mask(const struct insn_row *r, const struct thunk_spec *s, bool write)
{
    const struct opnd *o[3] = {&r->reg, &r->vvvv, &r->rm};
    const unsigned n[3] = {s->reg, s->vvvv, s->rm};
    bool keeps = !write && !(s->flags & INSN_VEX);
    unsigned mask = 0;

    for (unsigned i = 0; i < 3; i++) {
        if (o[i]->kind == K_XMM && !(i == 2 && mem_form(s)) && (write ? o[i]->write : o[i]->read || keeps)) {
            mask |= 1u << (n[i] & 15);
        }
    }
    if (r->imm == IMM_IS4 && !write) {
        mask |= 1u << (s->imm & 15);
    }
    if (r->implicit & (write ? IMP_W_XMM0 : IMP_R_XMM0)) {
        mask |= 1;
    }
    return mask;
}

/* The general register operand; at most one. */
static bool gpr_operand(const struct insn_row *r, const struct thunk_spec *s, struct opnd *o, unsigned *n)
{
    if (r->implicit & IMP_W_AX) {       /* FNSTSW AX: a part of the register, see store_gprs() */
        return false;
    }
    if (r->reg.kind == K_GPR) {
        *o = r->reg;
        *n = s->reg;
        return true;
    }
    if (r->rm.kind == K_GPR && !mem_form(s)) {
        *o = r->rm;
        *n = s->rm;
        return true;
    }
    return false;
}

static void load_gprs(struct emit *e, const struct insn_row *r, const struct thunk_spec *s)
{
    struct opnd o;
    unsigned n;

    if (gpr_operand(r, s, &o, &n) && o.read) {
        load_gpr(e, RAX, n & 15);
    }
    if (r->implicit & IMP_R_AX_DX) {
        load_gpr(e, RAX, R_AX);
        load_gpr(e, RDX, R_DX);
    }
}

static void store_gprs(struct emit *e, const struct insn_row *r, const struct thunk_spec *s)
{
    struct opnd o;
    unsigned n;

    if (gpr_operand(r, s, &o, &n) && o.write) {
        store_gpr(e, RAX, n & 15);
    }
    if (r->implicit & IMP_W_CX) {
        store_gpr(e, RCX, R_CX);
    }
    if (r->implicit & IMP_W_AX) {
        PUT(e, 0x66, 0x89);             /* FNSTSW AX: 16 bits */
        put_state(e, RAX, offsetof(struct soft_cpu, r) + 8 * R_AX);
    }
    if (r->flags_w) {
        store_flags(e);
    }
}

static void mark_used(struct emit *e, unsigned components)
{
    PUT(e, 0x80);                       /* or byte [rdi + XSTATE_BV], components */
    put_state(e, 1, off_xs + XS_BV);
    put(e, components);
}

static void emit_vec(struct emit *e, const struct insn_row *r, const struct thunk_spec *s)
{
    unsigned in = vec_mask(r, s, false), out = vec_mask(r, s, true);
    bool wide = (s->flags & INSN_VEX) && (s->flags & INSN_L);

    for (unsigned n = 0; n < 16; n++) {
        if (in >> n & 1) {
            load_vec(e, s, n);
        }
    }
    load_gprs(e, r, s);
    put_insn(e, r, s);
    store_gprs(e, r, s);
    for (unsigned n = 0; n < 16; n++) {
        if (out >> n & 1) {
            store_vec(e, s, n);
        }
    }
    if (out) {
        mark_used(e, wide ? XC_SSE | XC_AVX : XC_SSE);
    }
    if (wide) {
        PUT(e, 0xc5, 0xf8, 0x77);       /* vzeroupper: the host's SSE code pays for a dirty upper half */
    }
}

static void emit_fx(struct emit *e, const struct insn_row *r, const struct thunk_spec *s)
{
    if (r->flags_r) {
        load_flags(e);
    }
    PUT(e, 0x48, 0x0f, 0xae);           /* fxrstor64 [rdi + xsave] */
    put_state(e, 1, off_xs);
    load_gprs(e, r, s);
    put_insn(e, r, s);
    store_gprs(e, r, s);
    PUT(e, 0x48, 0x0f, 0xae);           /* fxsave64 [rdi + xsave] */
    put_state(e, 0, off_xs);
    mark_used(e, vec_mask(r, s, true) ? XC_X87 | XC_SSE : XC_X87);
    PUT(e, 0xdb, 0xe3);                 /* fninit: also drops a pending exception */
}

bool thunk_is_fx(const struct insn_row *r)
{
    return r->op != OP_VEC || r->reg.kind == K_MM || r->rm.kind == K_MM;
}

void thunk_emit(struct emit *e, const struct thunk_spec *s)
{
    const struct insn_row *r = &insn_rows[s->row];

    PUT(e, 0xf3, 0x0f, 0x1e, 0xfa);     /* endbr64: thunks are called through a pointer */
    if (thunk_is_fx(r)) {
        emit_fx(e, r, s);
    } else {
        emit_vec(e, r, s);
    }
    put(e, 0xc3);
}
