/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random cases from the opcode tables: a row is drawn, encoded with random prefixes, operands and addresses, and decoded
 * again, because a prefix may have made it another row. Memory operands are solved backwards: first where the access
 * should go (RAM, page borders, a read-only page, holes, nowhere), then registers and displacement that lead there.
 */
#include "hostdiff.h"

#include <stdio.h>
#include <string.h>

uint8_t pristine[AR_PAGES * PG];

struct gen {
    uint64_t x;
    struct test_case *t;
    bool alone;                 /* single instruction: registers may be chosen for it */
    bool op66, op67, asize16;
    uint64_t target;            /* linear address of the memory operand, when alone */
};

static uint64_t feats;
static uint16_t *eligible[2];
static unsigned n_eligible[2];

static uint64_t rnd(struct gen *g)
{
    uint64_t z = g->x += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
static unsigned below(struct gen *g, unsigned n)
{
    return (unsigned)((rnd(g) >> 32) * n >> 32);
}
static bool chance(struct gen *g, unsigned percent)
{
    return below(g, 100) < percent;
}

/* --- what may run on the host at all --- */

/* Deterministic, unprivileged or faulting, and harmless to the process. */
static bool op_allowed(unsigned op)
{
    switch (op) {
    case OP_ILLEGAL: case OP_JMPF: case OP_CALLF: case OP_RETF: case OP_IRET: case OP_INT: case OP_INT3: case OP_INT1: case OP_INTO:
    case OP_SYSCALL: case OP_SYSENTER: case OP_MOVSEG_TO: case OP_LDSEG: case OP_POPSEG:
    case OP_SGDT: case OP_SIDT: case OP_SLDT: case OP_STR: case OP_SMSW: case OP_LAR: case OP_LSL: case OP_VERR: case OP_VERW:
    case OP_RDTSC: case OP_RDTSCP: case OP_RDPMC: case OP_RDPID: case OP_CPUID: case OP_XGETBV: case OP_RDRAND: case OP_RDSEED:
    case OP_RDPKRU: case OP_WRPKRU: case OP_MONITOR: case OP_MWAIT: case OP_RSM: case OP_VMCALL: case OP_CLZERO:
    case OP_SYSEXIT: case OP_SYSRET: case OP_CLAC: case OP_STAC: case OP_INVPCID: case OP_XSAVES: case OP_XRSTORS:
    case OP_MOV_FROM_CR: case OP_MOV_TO_CR: case OP_MOV_FROM_DR: case OP_MOV_TO_DR: case OP_INS: case OP_OUTS:
        return false;
    default:
        return true;
    }
}

static enum insn_mode mode_of(unsigned bits)
{
    return bits == 64 ? INSN_MODE_64 : bits == 32 ? INSN_MODE_32 : INSN_MODE_16;
}

bool gen_row_eligible(unsigned row, unsigned bits)
{
    const struct insn_row *r = &insn_rows[row];
    /* 0F 0D with a register is a NOP on Intel's CPUs, as our decoder has it, and #UD on AMD's */
    if (!r->name || !op_allowed(r->op) || (r->map == 1 && r->opcode == 0x0d && r->op == OP_NOP) || (bits == 64 ? r->attr & RA_NO64 : r->attr & RA_ONLY64)) {
        return false;
    }
    if (bits != 64 && (r->enc & RE_VEX ? false : (r->enc & RE_W1) != 0)) {
        return false;
    }
    return (feats >> r->feat & 1 || r->feat == FEAT_BASE) && (feats >> r->feat2 & 1 || r->feat2 == FEAT_BASE);
}

void gen_init(uint64_t f)
{
    feats = f;
    for (unsigned m = 0; m < 2; m++) {
        eligible[m] = new0_array(uint16_t, n_insn_rows);
        for (unsigned row = 0; row < n_insn_rows; row++) {
            if (gen_row_eligible(row, m ? 32 : 64)) {
                eligible[m][n_eligible[m]++] = (uint16_t)row;
            }
        }
    }
}

/* --- values --- */

static uint32_t rnd_f32(struct gen *g)
{
    static const uint32_t special[] = {0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001,
                                       0x00000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0x40490fdb, 0x4b000000, 0x4f000000, 0xcf000000};
    switch (below(g, 4)) {
    case 0: return special[below(g, ARRAY_SIZE(special))];
    case 1: return 0x3f000000 + (uint32_t)(rnd(g) & 0x01ffffff);
    case 2: return (uint32_t)rnd(g) & 0x80ffffff;
    default: return (uint32_t)rnd(g);
    }
}

static uint64_t rnd_f64(struct gen *g)
{
    static const uint64_t special[] = {0, 1ull << 63, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000, 0xfff0000000000000,
                                       0x7ff8000000000000, 0x7ff0000000000001, 1, 0x000fffffffffffff, 0x0010000000000000,
                                       0x7fefffffffffffff, 0x4330000000000000, 0x41dfffffffc00000, 0xc1e0000000000000, 0x36a0000000000000};
    switch (below(g, 4)) {
    case 0: return special[below(g, ARRAY_SIZE(special))];
    case 1: return 0x3fe0000000000000ull + (rnd(g) & 0x003fffffffffffffull);
    case 2: return rnd(g) & 0x801fffffffffffffull;
    default: return rnd(g);
    }
}

static uint64_t rnd_int(struct gen *g)
{
    static const uint64_t special[] = {0, 1, 2, 7, 8, 31, 32, 63, 64, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000,
                                       0xffffffff, 0x100000000, 0x7fffffffffffffff, 0x8000000000000000, ~0ull, ~1ull, ~0x7full};
    switch (below(g, 4)) {
    case 0: return special[below(g, ARRAY_SIZE(special))];
    case 1: return rnd(g) & 0xff;
    case 2: return rnd(g) >> below(g, 64);
    default: return rnd(g);
    }
}

static void rnd_vec(struct gen *g, uint8_t *p, unsigned bytes)
{
    unsigned kind = below(g, 4);
    for (unsigned i = 0; i < bytes; i += 8) {
        store_le64(p + i, kind == 0 ? (uint64_t)rnd_f32(g) << 32 | rnd_f32(g) : kind == 1 ? rnd_f64(g) : kind == 2 ? rnd_int(g) : rnd(g));
    }
}

static void rnd_st(struct gen *g, uint8_t *p)
{
    static const uint16_t exps[] = {0, 1, 0x3ffe, 0x3fff, 0x4000, 0x403e, 0x3c00, 0x43ff, 0x7ffe, 0x7fff};
    uint64_t m = chance(g, 80) ? rnd_int(g) | 1ull << 63 : rnd_int(g);
    uint16_t e = chance(g, 60) ? exps[below(g, ARRAY_SIZE(exps))] : chance(g, 60) ? 0x3ff0 + below(g, 64) : (uint16_t)rnd(g) & 0x7fff;
    store_le64(p, chance(g, 20) ? 1ull << 63 : m);
    store_le16(p + 8, e | (chance(g, 50) ? 0x8000 : 0));
}

static void rnd_x87(struct gen *g, uint8_t *x)
{
    uint16_t fcw = chance(g, 60) ? 0x37f : chance(g, 60) ? 0x7f | (uint16_t)(rnd(g) & 0xf00) : 0x40 | (uint16_t)(rnd(g) & 0xf3f);
    uint16_t fsw = (uint16_t)((rnd(g) & 0x4700) | (chance(g, 30) ? 0 : below(g, 8) << 11));
    if (chance(g, 20)) {
        fsw |= (uint16_t)(rnd(g) & 0x7f);
        fsw &= chance(g, 70) ? 0xffc0 | (fcw & 0x3f) : 0xffff;
    }
    if (fsw & ~fcw & 0x3f) {
        fsw |= 0x8080;
    }
    store_le16(x, fcw);
    store_le16(x + 2, fsw);
    unsigned ftw = below(g, 4);
    x[4] = ftw == 0 ? 0 : ftw == 1 ? 0xff : (uint8_t)rnd(g);
    for (unsigned i = 0; i < 8; i++) {
        rnd_st(g, x + 32 + 16 * i);
    }
}

static uint32_t rnd_mxcsr(struct gen *g)
{
    if (chance(g, 60)) {
        return 0x1f80 | (chance(g, 50) ? (uint32_t)rnd(g) & 0x3f : 0);
    }
    return chance(g, 60) ? 0x1f80 | ((uint32_t)rnd(g) & 0xe07f) : (uint32_t)rnd(g) & 0xffff;
}

static void rnd_xsave(struct gen *g, uint8_t *x)
{
    memset(x, 0, XS_SIZE);
    rnd_x87(g, x);
    store_le32(x + 24, rnd_mxcsr(g));
    for (unsigned n = 0; n < 16; n++) {
        rnd_vec(g, x + 160 + 16 * n, 16);
        rnd_vec(g, x + 576 + 16 * n, 16);
    }
}

/* Data pages: numbers of all kinds, and images that FXRSTOR and XRSTOR like (mostly). */
void gen_pristine(void)
{
    struct gen g = {.x = 0x10d9e};
    for (unsigned page = 0; page < AR_PAGES; page++) {
        for (unsigned i = 0; page_mapped(page) && i < PG; i += 32) {
            rnd_vec(&g, pristine + page * PG + i, 32);
        }
    }
    for (unsigned k = 0; k < 4; k++) {
        uint8_t *x = pristine + (AR_IMAGES - AR) + 1024 * k;
        rnd_xsave(&g, x);
        store_le64(x + 512, rnd(&g) & 7);
        if (k == 1) {
            store_le64(x + 512, 5);
            store_le64(x + 520, 1ull << 63 | 7);
        }
        if (k == 2) {
            store_le64(x + 512, 3);
            store_le64(x + 520, 1ull << 63 | 3);
        }
    }
    store_le32(pristine + (AR_IMAGES - AR) + 3 * 1024 + 24, 0x2001f80);         /* #GP: reserved MXCSR bits */
}

static uint64_t pristine64(uint64_t lin)
{
    return lin - AR <= AR_PAGES * PG - 8 ? load_le64(pristine + (lin - AR)) : 0;
}

/* --- initial state --- */

static uint64_t rnd_data_ptr(struct gen *g)
{
    return AR + 64 + below(g, 2 * PG - 128);
}

/* Registers as the mode has them: 32 bits; pointers are offsets where segments have a base. */
static void narrow_registers(struct gen *g)
{
    for (unsigned i = 0; g->t->bits != 64 && i < 8; i++) {
        uint64_t *r = &g->t->in.r[i];
        *r = g->t->segs && (*r >> 16 == AR >> 16 || *r >> 16 == CODE >> 16) ? *r & 0xffff : (uint32_t)*r;
    }
}

/* Where the stack is. */
static uint64_t stack_lin(struct gen *g)
{
    return g->t->segs ? AR + (g->t->in.r[R_SP] & 0xffff) : g->t->in.r[R_SP];
}

static void init_state(struct gen *g)
{
    struct test_case *t = g->t;
    struct cpu_image *s = &t->in;
    for (unsigned i = 0; i < 16; i++) {
        s->r[i] = chance(g, 40) ? rnd_data_ptr(g) : rnd_int(g);
    }
    s->r[R_SP] = AR_STACK + 1024 + below(g, 256) * 8 + (chance(g, 10) ? below(g, 8) : 0);
    s->r[R_BP] = chance(g, 70) ? AR_STACK + 512 + below(g, 2048) : s->r[R_BP];
    if (!g->alone) {
        static const uint8_t ptrs[] = {R_BX, R_SI, R_DI, R_12, R_13, R_14};
        for (unsigned i = 0; i < ARRAY_SIZE(ptrs); i++) {
            s->r[ptrs[i]] = (rnd_data_ptr(g) | 63) ^ 63;
        }
    }
    s->rflags = 0x202 | (rnd(g) & X86_ARITH) | (chance(g, 8) ? X86_DF : 0);
    s->fs = chance(g, 50) ? below(g, 16) * 4096 : below(g, 1 << 20);
    s->gs = chance(g, 50) ? AR : rnd(g) >> 17;
    rnd_xsave(g, s->xsave);
    if (t->bits != 64) {
        memset(s->r + 8, 0, sizeof(s->r) - 8 * sizeof(s->r[0]));
        s->fs = s->gs = 0;
    }
    narrow_registers(g);
    s->rip = CODE + 512 + below(g, 2048);
}

static void patch(struct gen *g, uint64_t lin, uint64_t val)
{
    struct test_case *t = g->t;
    unsigned first = (unsigned)((lin - AR) / PG), last = (unsigned)((lin + 7 - AR) / PG);
    if (lin - AR < AR_PAGES * PG - 8 && page_writable(first) && page_writable(last) && t->n_patches < MAX_PATCHES) {
        t->patch[t->n_patches].lin = lin;
        t->patch[t->n_patches++].val = val;
    }
}

/* Somewhere to jump to: int3 well away from the case, or (rarely) where nothing can be fetched. */
static uint64_t rnd_code_target(struct gen *g)
{
    return chance(g, 90) ? CODE + 3072 + below(g, 1000) : chance(g, 50) ? rnd_data_ptr(g) : AR_HOLE1 + below(g, PG);
}

/* --- memory operands --- */

static bool is_area(unsigned op)
{
    return op == OP_FXSAVE || op == OP_FXRSTOR || op == OP_XSAVE || op == OP_XSAVEC || op == OP_XSAVEOPT || op == OP_XRSTOR;
}

static bool is_env(const struct insn_row *r)
{
    return r->mem_size == MEM_X87ENV || r->mem_size == MEM_X87SAVE;
}

static uint64_t rnd_target(struct gen *g, const struct insn_row *r)
{
    unsigned size = r->mem_size == 0 ? 8 : r->mem_size < 0x80 ? r->mem_size : 32;
    bool aligned = r->attr & RA_ALIGN || r->mem_size == MEM_PAIR ? chance(g, 90) : chance(g, 30);
    uint64_t mask = aligned ? ~(uint64_t)(size >= 16 ? (size & (size - 1) ? 15 : size - 1) : 7) : ~0ull;

    if (is_area(r->op)) {
        return chance(g, 90) ? AR_IMAGES + 1024 * below(g, 4) : chance(g, 50) ? rnd_data_ptr(g) & ~15ull : AR_HOLE1 - 64 * below(g, 16);
    }
    switch (below(g, 32)) {
    case 0: case 1: case 2:
        return (AR + PG - below(g, size + 4)) & mask;           /* over a border between two good pages */
    case 3:
        return (AR_HOLE1 - below(g, size + 4)) & mask;          /* into a hole */
    case 4:
        return (AR_RO + below(g, PG - 64)) & mask;
    case 5:
        return (AR_RO + PG - below(g, size + 4)) & mask;        /* read-only, then writable */
    case 6:
        return (AR_RO - below(g, size + 4)) & mask;             /* hole, then read-only */
    case 7:
        return AR_IMAGES + below(g, PG - 128);
    case 8:
        switch (below(g, 5)) {
        case 0: return below(g, 256);
        case 1: return 0x800000000000ull + rnd(g) % 0xfff0000000000000ull;
        case 2: return 0x7fffffffffffull - below(g, 40);
        case 3: return CODE + below(g, PG);
        default: return AR_HOLE2 + below(g, PG);
        }
    default:
        return (AR + 64 + below(g, 2 * PG - 256)) & mask;
    }
}

struct enc {
    uint8_t b[24];
    unsigned n;
    unsigned rex;               /* W R X B */
    uint8_t modrm, sib, disp_size;
    int32_t disp;
    bool has_modrm, has_sib;
};

static unsigned rnd_gpr(struct gen *g)
{
    return below(g, g->t->bits == 64 ? 16 : 8);
}

/* Puts `want` into a register that is to be a base: in the width the address uses, rubbish above. */
static void set_base(struct gen *g, unsigned reg, uint64_t want)
{
    if (g->t->bits == 64) {
        g->t->in.r[reg] = g->op67 ? (rnd(g) & 0xffffffff00000000ull) | (uint32_t)want : want;
    } else {
        g->t->in.r[reg] = (uint32_t)want;
    }
}

static bool fits32(uint64_t v)
{
    return (uint64_t)(int64_t)(int32_t)v == v;
}

static void put_base_disp(struct gen *g, struct enc *e, unsigned base, int index, unsigned scale, int32_t disp)
{
    unsigned mod = disp == 0 && (base & 7) != 5 ? 0 : disp == (int8_t)disp && chance(g, 80) ? 1 : 2;
    e->disp = disp;
    e->disp_size = mod == 0 ? 0 : mod == 1 ? 1 : 4;
    e->rex |= base & 8 ? 1 : 0;
    e->has_sib = index >= 0 || (base & 7) == 4;
    e->modrm = (uint8_t)((e->modrm & 0x38) | mod << 6 | (e->has_sib ? 4 : base & 7));
    e->sib = (uint8_t)(scale << 6 | (index >= 0 ? index & 7 : 4) << 3 | (base & 7));
    e->rex |= index >= 0 && index & 8 ? 2 : 0;
}

/* base register (and index) that lead to off. */
static void mem_registers(struct gen *g, struct enc *e, uint64_t off, const struct insn_row *r)
{
    unsigned base = rnd_gpr(g), scale = below(g, 4);
    int index = chance(g, 45) ? (int)rnd_gpr(g) : -1;
    int32_t disp = chance(g, 40) ? 0 : chance(g, 60) ? (int8_t)rnd(g) : (int32_t)rnd(g);
    bool vsib = r->enc & RE_VSIB;

    if (vsib) {
        index = (int)rnd_gpr(g);
        disp = (int8_t)rnd(g);
        set_base(g, base, off - (uint64_t)(int64_t)disp);
    } else {
        index = index == 4 || index == (int)base ? -1 : index;
        if (index >= 0 && chance(g, 60)) {
            g->t->in.r[index] = rnd(g) & 0xff;
        }
        uint64_t x = index >= 0 ? g->t->in.r[index] << scale : 0;
        set_base(g, base, off - (uint64_t)(int64_t)disp - x);
    }
    put_base_disp(g, e, base, index, scale, disp);
    e->has_sib |= vsib;
}

/* 16-bit forms: SDM vol. 2A table 2-1. */
static void mem16(struct gen *g, struct enc *e, uint64_t off, bool solve)
{
    static const uint8_t base[8] = {R_BX, R_BX, R_BP, R_BP, R_SI, R_DI, R_BP, R_BX};
    static const int8_t index[8] = {R_SI, R_DI, R_SI, R_DI, -1, -1, -1, -1};
    static const uint8_t in_sequence[] = {4, 5, 7};
    unsigned rm = solve ? below(g, 8) : in_sequence[below(g, 3)], mod = solve ? below(g, 3) : 1;
    int32_t disp = mod == 0 ? 0 : mod == 1 ? (int8_t)rnd(g) : (int16_t)rnd(g);

    if (!solve) {
        disp = (int32_t)off;
    } else if (mod == 0 && rm == 6) {
        disp = (int16_t)off;
    } else {
        uint64_t x = index[rm] >= 0 ? g->t->in.r[index[rm]] : 0;
        uint64_t *r = &g->t->in.r[base[rm]];
        *r = (*r & 0xffff0000) | ((off - (uint64_t)(int64_t)disp - x) & 0xffff);
    }
    e->modrm = (uint8_t)((e->modrm & 0x38) | mod << 6 | rm);
    e->disp = disp;
    e->disp_size = mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;
}

/* rel: bytes from the displacement's end to the instruction's end are not known yet, so RIP-relative is fixed up later. */
static void mem_alone(struct gen *g, struct enc *e, const struct insn_row *r, uint64_t segbase, bool *riprel)
{
    uint64_t off = g->target - segbase;
    bool wide = g->t->bits == 64;
    unsigned form = below(g, 10);

    *riprel = false;
    if (g->asize16) {
        mem16(g, e, off, true);
    } else if (form == 0 && !(r->enc & RE_VSIB) && wide && fits32(off - CODE) && !segbase) {
        e->modrm = (e->modrm & 0x38) | 5;
        e->disp_size = 4;
        *riprel = true;
    } else if (form == 1 && !(r->enc & RE_VSIB) && (fits32(off) || !wide)) {
        e->modrm = (uint8_t)((e->modrm & 0x38) | (wide ? 4 : 5));
        e->has_sib = wide;
        e->sib = (uint8_t)(below(g, 4) << 6 | 4 << 3 | 5);
        e->disp_size = 4;
        e->disp = (int32_t)off;
    } else {
        mem_registers(g, e, off, r);
    }
}

static void mem_in_sequence(struct gen *g, struct enc *e, const struct insn_row *r)
{
    static const uint8_t ptrs[] = {R_BX, R_SI, R_DI, R_BX, R_12, R_13, R_14};
    unsigned base = ptrs[below(g, g->t->bits == 64 ? 7 : 4)];
    if (g->asize16) {
        mem16(g, e, below(g, 120), false);
        return;
    }
    int32_t disp = (int32_t)(below(g, 8) * 16) + (chance(g, 20) ? (int)below(g, 16) : 0);
    put_base_disp(g, e, base, r->enc & RE_VSIB ? (int)rnd_gpr(g) : -1, 0, disp);
    e->has_sib |= !!(r->enc & RE_VSIB);
}

/* --- encoding --- */

static void put(struct enc *e, unsigned b)
{
    if (e->n < sizeof(e->b)) {
        e->b[e->n++] = (uint8_t)b;
    }
}

static void put_n(struct enc *e, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        put(e, (unsigned)(v >> (8 * i)) & 0xff);
    }
}

static void legacy_prefixes(struct gen *g, struct enc *e, const struct insn_row *r, bool mem)
{
    static const uint8_t seg_byte[] = {0x26, 0x2e, 0x36, 0x3e};
    bool string = r->op >= OP_MOVS && r->op <= OP_SCAS;
    if (g->op66) {
        put(e, 0x66);
    }
    if (g->op67) {
        put(e, 0x67);
    }
    if (chance(g, 2)) {
        put(e, seg_byte[below(g, 4)]);
    }
    if (string && chance(g, 65)) {
        put(e, chance(g, 60) ? 0xf3 : 0xf2);
    }
    if (mem && r->enc & RE_LOCK ? chance(g, 20) : !mem && r->enc & RE_LOCK && chance(g, 1)) {
        put(e, 0xf0);
    }
    if (!(r->enc & RE_VEX) && r->enc & RE_PP && r->pp) {
        static const uint8_t pp[] = {0, 0x66, 0xf3, 0xf2};
        put(e, pp[r->pp]);
    }
}

static void put_vex(struct gen *g, struct enc *e, const struct insn_row *r, unsigned vvvv)
{
    unsigned l = r->enc & RE_L1 ? 1 : r->enc & RE_L0 ? 0 : below(g, 2), w = e->rex >> 3 & 1;
    unsigned last = (~vvvv & 15) << 3 | l << 2 | r->pp;
    if (r->map == 1 && !w && !(e->rex & 3) && chance(g, 70)) {
        put(e, 0xc5);
        put(e, (e->rex & 4 ? 0 : 0x80) | last);
        return;
    }
    put(e, 0xc4);
    put(e, (e->rex & 4 ? 0 : 0x80) | (e->rex & 2 ? 0 : 0x40) | (e->rex & 1 ? 0 : 0x20) | r->map);
    put(e, w << 7 | last);
}

static uint64_t rnd_imm(struct gen *g, unsigned bytes)
{
    uint64_t v = rnd_int(g);
    return bytes == 8 ? v : v & ((1ull << (8 * bytes)) - 1);
}

/* Displacement of a branch from the end of the case: to its end, or into int3; backwards past all its bytes. */
static int32_t rnd_branch(struct gen *g, bool byte, unsigned len_so_far)
{
    if (chance(g, 20)) {
        return 0;
    }
    if (byte) {
        return chance(g, 70) ? 16 + (int)below(g, 112) : -128 + (int)below(g, 128 - len_so_far - 6);
    }
    int32_t away = chance(g, 50) ? 512 : -300;
    return chance(g, 10) && g->t->bits != 16 ? AR - CODE + (int32_t)below(g, PG) : away + (int)below(g, 100) - (int)len_so_far;
}

static void put_imm(struct gen *g, struct enc *e, const struct insn_row *r, unsigned opsize)
{
    unsigned z = opsize == 1 ? 2 : 4, done = g->t->len + e->n;
    switch (r->imm) {
    case IMM_NONE: break;
    case IMM_8: case IMM_S8: put_n(e, rnd_imm(g, 1), 1); break;
    case IMM_16: put_n(e, below(g, 300), 2); break;
    case IMM_Z: put_n(e, rnd_imm(g, z), z); break;
    case IMM_V: put_n(e, rnd_imm(g, 1u << opsize), 1u << opsize); break;
    case IMM_ENTER: put_n(e, below(g, 512), 2); put_n(e, chance(g, 70) ? below(g, 4) : rnd(g), 1); break;
    case IMM_J8: put_n(e, (uint64_t)rnd_branch(g, true, done), 1); break;
    case IMM_JZ: put_n(e, (uint64_t)rnd_branch(g, false, done), z); break;
    case IMM_IS4: put_n(e, rnd(g), 1); break;
    case IMM_8_8: put_n(e, rnd(g), 2); break;
    case IMM_MOFFS:
        put_n(e, g->target - (g->t->segs ? AR : 0), g->t->bits == 64 ? (g->op67 ? 4 : 8) : g->asize16 ? 2 : 4);
        break;
    default: put_n(e, rnd(g), 2); break;
    }
}

static unsigned opsize_of(struct gen *g, const struct insn_row *r, unsigned rex_w)
{
    bool wide = g->t->bits == 64, word = (g->t->bits == 16) != g->op66;
    switch (r->size) {
    case SZ_B: return 0;
    case SZ_W: return 1;
    case SZ_D: return 2;
    case SZ_Z: return word && !rex_w ? 1 : 2;
    case SZ_F64: return wide ? 3 : word ? 1 : 2;
    case SZ_D64: return wide ? (word && !rex_w ? 1 : 3) : word ? 1 : 2;
    default: return rex_w ? 3 : word ? 1 : 2;
    }
}

static void choose_prefixes(struct gen *g, struct enc *e, const struct insn_row *r)
{
    bool sized = !(r->enc & RE_PP) && (r->size == SZ_V || r->size == SZ_Z || r->size == SZ_D64);
    if (r->op == OP_CRC32 || (r->op == OP_MOVBE) || r->op == OP_POPCNT || r->op == OP_TZCNT || r->op == OP_LZCNT) {
        sized = true;
    }
    g->op66 = sized && !(r->enc & RE_VEX) && chance(g, 25);
    /* 66 on near branches: the decoder does as Intel does, the host may be AMD */
    g->op67 = r->enc & RE_VSIB ? g->t->bits == 16 : chance(g, g->t->bits == 64 ? 7 : g->t->segs ? 35 : 1);
    g->asize16 = g->t->bits == 16 ? !g->op67 : g->t->bits == 32 && g->op67;
    if (g->t->bits == 64 || r->enc & RE_VEX) {
        /* VEX.W outside 64-bit mode is ignored with a general register (Intel, our decoder) or #UD (AMD) */
        bool no_w = g->t->bits != 64 && (r->reg.kind == K_GPR || r->rm.kind == K_GPR);
        e->rex |= r->enc & RE_W1 ? 8 : r->enc & RE_W0 || no_w ? 0 : chance(g, 35) ? 8 : 0;
    }
}

/* Encodes row r; false when it cannot be in this place. */
static bool encode(struct gen *g, struct enc *e, const struct insn_row *r)
{
    bool wide = g->t->bits == 64, modrm = r->enc & RE_MODRM;
    bool mem = modrm && !(r->enc & (RE_REG | RE_MODANY)) && (r->enc & RE_MEM || chance(g, 55));
    bool riprel = false, fs = false;
    unsigned opcode = r->opcode, vvvv = 0;

    memset(e, 0, sizeof(*e));
    choose_prefixes(g, e, r);
    if (g->t->bits == 32 && g->op67 && mem && !g->t->segs) {
        g->op67 = g->asize16 = false;   /* 16-bit addresses lead nowhere on a host whose first pages are not mapped */
    }
    unsigned reg = r->ext != 0xff ? r->ext : r->enc & RE_SEGREG ? below(g, 6) : rnd_gpr(g);
    unsigned rm = r->rmx ? r->rmx - 1u : rnd_gpr(g);
    e->has_modrm = modrm;
    e->modrm = (uint8_t)((reg & 7) << 3);
    e->rex |= reg & 8 ? 4 : 0;
    if (mem || r->imm == IMM_MOFFS) {
        g->target = rnd_target(g, r);
        fs = wide && g->alone && chance(g, 8);
    }
    if (mem && g->alone) {
        mem_alone(g, e, r, fs ? g->t->in.fs : g->t->segs ? AR : 0, &riprel);
    } else if (mem) {
        mem_in_sequence(g, e, r);
    } else if (modrm) {
        e->modrm |= (r->enc & RE_MODANY ? below(g, 4) << 6 : 0xc0) | (rm & 7);
        e->rex |= rm & 8 ? 1 : 0;
    } else if (r->enc & RE_OPREG) {
        opcode |= rm & 7;
        e->rex |= rm & 8 ? 1 : 0;
    } else if (wide && chance(g, 5)) {
        e->rex |= below(g, 16);
    }
    if (r->enc & RE_CC) {
        opcode |= below(g, 16);
    }
    if (r->vvvv.kind != K_NONE) {
        vvvv = rnd_gpr(g);
    }
    if (fs) {
        put(e, 0x64);
    }
    legacy_prefixes(g, e, r, mem);
    if (r->enc & RE_VEX) {
        put_vex(g, e, r, vvvv);
    } else {
        if (wide && (e->rex || chance(g, 8))) {
            put(e, 0x40 | e->rex);
        }
        if (r->map) {
            put(e, 0x0f);
        }
        if (r->map >= 2) {
            put(e, r->map == 2 ? 0x38 : 0x3a);
        }
    }
    put(e, opcode);
    if (modrm) {
        put(e, e->modrm);
    }
    if (e->has_sib) {
        put(e, e->sib);
    }
    unsigned disp_at = e->n;
    put_n(e, (uint64_t)(int64_t)e->disp, e->disp_size);
    put_imm(g, e, r, opsize_of(g, r, e->rex & 8));
    if (riprel) {
        store_le32(e->b + disp_at, (uint32_t)(g->target - (g->t->in.rip + g->t->len + e->n)));
    }
    return e->n <= 15;
}

/* --- what single instructions need to be interesting --- */

static void fix_gather(struct gen *g, const struct insn *i)
{
    struct cpu_image *s = &g->t->in;
    unsigned isize = insn_row(i)->opcode & 1 ? 8 : 4;
    for (unsigned half = 0; half < 2; half++) {
        uint8_t *p = s->xsave + (half ? 576 : 160) + 16 * i->index;
        for (unsigned k = 0; k < 16 && chance(g, 97); k += isize) {
            int64_t v = ((int)below(g, 4096) - 2048) >> i->scale;
            if (isize == 8) {
                store_le64(p + k, (uint64_t)v);
            } else {
                store_le32(p + k, (uint32_t)v);
            }
        }
    }
}

static void fix_string(struct gen *g, const struct insn *i)
{
    struct cpu_image *s = &g->t->in;
    s->r[R_SI] = chance(g, 90) ? rnd_data_ptr(g) : rnd_target(g, insn_row(i));
    s->r[R_DI] = chance(g, 60) ? rnd_data_ptr(g) : chance(g, 50) ? s->r[R_SI] + below(g, 40) - 20 : rnd_target(g, insn_row(i));
    s->r[R_CX] = chance(g, 70) ? below(g, 64) : chance(g, 70) ? below(g, 4000) : rnd_int(g);
    if (chance(g, 20)) {
        s->rflags ^= X86_DF;
    }
    if (chance(g, 50)) {        /* runs of equal bytes, for SCAS and CMPS */
        unsigned v = below(g, 3);
        for (unsigned k = 0; k < 3; k++) {
            patch(g, (chance(g, 50) ? s->r[R_DI] : s->r[R_SI]) + 8 * k, v * 0x0101010101010101ull);
        }
        s->r[R_AX] = v * 0x0101010101010101ull;
    }
}

static void fix_alone(struct gen *g, const struct insn *i)
{
    struct cpu_image *s = &g->t->in;
    const struct insn_row *r = insn_row(i);
    bool mem = i->flags & INSN_MEM;

    switch (r->op) {
    case OP_BT: case OP_BTS: case OP_BTR: case OP_BTC:
        if (i->form == F_RM_R && mem && i->reg != i->base && i->reg != i->index && chance(g, 90)) {
            s->r[i->reg] = (uint64_t)((int64_t)below(g, 4096) - 2048);
        }
        break;
    case OP_DIV: case OP_IDIV:
        if (chance(g, 75)) {
            s->r[R_DX] = r->op == OP_DIV || chance(g, 50) ? below(g, 4) : ~0ull - below(g, 2);
            if (i->opsize == 0) {
                s->r[R_AX] = rnd(g) & 0x3fff;
            }
        }
        break;
    case OP_JMP: case OP_CALL:
        if (i->form == F_RM && mem) {
            patch(g, g->target, rnd_code_target(g) - (g->t->bits == 16 ? CODE : 0));
        } else if (i->form == F_RM) {
            s->r[i->rm] = rnd_code_target(g);
        }
        break;
    case OP_RET:
        patch(g, stack_lin(g), rnd_code_target(g) - (g->t->bits == 16 ? CODE : 0));
        break;
    case OP_POPF:
        patch(g, stack_lin(g), rnd(g) & ~(uint64_t)(X86_TF | X86_AC | X86_RF | X86_VM));
        break;
    case OP_MOVS: case OP_CMPS: case OP_STOS: case OP_LODS: case OP_SCAS:
        fix_string(g, i);
        break;
    case OP_XLAT:
        s->r[R_BX] = rnd_target(g, r) - (s->r[R_AX] & 0xff);
        break;
    case OP_ENTER: case OP_LEAVE:
        s->r[R_BP] = chance(g, 90) ? AR_STACK + 512 + below(g, 2048) : rnd_target(g, r);
        break;
    case OP_CMPXCHG:
        if (mem && chance(g, 60)) {
            s->r[R_AX] = i->base == R_AX || i->index == R_AX ? s->r[R_AX] : pristine64(g->target);
        }
        break;
    case OP_CMPXCHG8B:
        if (chance(g, 60) && i->base != R_AX && i->index != R_AX && i->base != R_DX && i->index != R_DX) {
            s->r[R_AX] = pristine64(g->target);
            s->r[R_DX] = i->opsize == 3 ? pristine64(g->target + 8) : s->r[R_AX] >> 32;
        }
        break;
    case OP_XSAVE: case OP_XSAVEC: case OP_XSAVEOPT: case OP_XRSTOR:
        if (i->base == R_AX || i->base == R_DX || i->index == R_AX || i->index == R_DX) {
            break;
        }
        s->r[R_AX] = (s->r[R_AX] & ~0xffffffffull) | (rnd(g) & 7);
        s->r[R_DX] &= ~0xffffffffull;
        break;
    case OP_MASKMOV:
        s->r[R_DI] = rnd_target(g, r);
        break;
    case OP_GATHER:
        fix_gather(g, i);
        break;
    case OP_LOOP: case OP_LOOPE: case OP_LOOPNE: case OP_JCXZ:
        s->r[R_CX] = below(g, 3);
        break;
    case OP_LDMXCSR:
        if (chance(g, 80)) {
            patch(g, g->target, rnd_mxcsr(g));
        }
        break;
    default:
        break;
    }
    narrow_registers(g);
}

/* XSAVE with components that only the host has would ask for more than the guest knows. */
static bool acceptable(struct gen *g, const struct insn *i)
{
    const struct insn_row *r = insn_row(i);
    const struct cpu_image *s = &g->t->in;
    if (r->op >= OP_XSAVE && r->op <= OP_XRSTORS) {
        return g->alone && (s->r[R_AX] & 0xfffffff8) == 0 && (uint32_t)s->r[R_DX] == 0;
    }
    return true;
}

/* --- cases --- */

static bool fits_sequence(const struct insn_row *r, bool last)
{
    switch (r->op) {
    case OP_POPF: case OP_RET: case OP_ENTER: case OP_LEAVE: case OP_XLAT: case OP_MASKMOV: case OP_GATHER: case OP_WRFSBASE:
    case OP_WRGSBASE: case OP_PUSHF: case OP_POPA: case OP_ARPL: case OP_LDMXCSR /* MXCSR.MM of AMD is not offered */:
        return false;
    case OP_JMP: case OP_CALL:
        return last && r->form == F_J;
    case OP_LOOP: case OP_LOOPE: case OP_LOOPNE: case OP_JCXZ: case OP_JCC:
        return last;
    default:
        /* what FNSTENV stores is compared with an open eye, so nothing may read it */
        return !(r->attr & RA_BLOCK_END) && (last || !(is_env(r) && r->rm.write)) && !is_area(r->op) && r->imm != IMM_MOFFS && !(r->op >= OP_MOVS && r->op <= OP_OUTS);
    }
}

static bool add_insn(struct gen *g, unsigned row)
{
    struct test_case *t = g->t;
    struct insn *i = &t->insn[t->n];
    struct enc e;
    if (!encode(g, &e, &insn_rows[row]) ||
        insn_decode(e.b, e.n, mode_of(t->bits), feats, i) != DECODE_OK || i->len != e.n ||
        !gen_row_eligible(i->row, t->bits)) {
        return false;
    }
    const struct insn_row *r = insn_row(i);
    uint8_t undefined = t->n ? t->undefined[t->n - 1] : 0;
    if (!g->alone && r->flags_r & undefined) {
        return false;           /* would spread what the manual leaves open */
    }
    if (g->alone) {
        fix_alone(g, i);
    }
    if (!acceptable(g, i)) {
        return false;
    }
    /* a shift by 0 leaves the flags as they were */
    bool always = !(r->op >= OP_ROL && r->op <= OP_SHRD && r->op != OP_MOVZX);
    t->undefined[t->n] = (uint8_t)((always ? undefined & ~r->flags_w : undefined) | r->flags_u);
    memcpy(t->code + t->len, e.b, e.n);
    t->len += e.n;
    t->n++;
    return true;
}

static void one_insn(struct gen *g, int only_row, unsigned m)
{
    struct test_case *t = g->t;
    struct test_case base = *t;
    for (unsigned tries = 0; t->n == 0; tries++) {
        if (tries) {
            t->n_patches = 0;
            memcpy(&t->in, &base.in, sizeof(t->in));
        }
        unsigned row = only_row >= 0 && tries < 50 ? (unsigned)only_row : eligible[m][below(g, n_eligible[m])];
        add_insn(g, row);
    }
}

static void sequence(struct gen *g, unsigned m)
{
    unsigned want = 2 + below(g, MAX_SEQ - 1);
    for (unsigned tries = 0; g->t->n < want && tries < 60; tries++) {
        unsigned row = eligible[m][below(g, n_eligible[m])];
        if (fits_sequence(&insn_rows[row], g->t->n + 1 == want)) {
            add_insn(g, row);
        }
    }
}

void gen_case(struct test_case *t, uint64_t seed, uint64_t number, int only_row, unsigned bits, bool segs)
{
    struct gen g = {.x = seed * 0xd1342543de82ef95ull + number * 0x2545f4914f6cdd1dull, .t = t};
    memset(t, 0, sizeof(*t));
    rnd(&g);
    t->seed = seed;
    t->number = number;
    t->bits = bits;
    t->segs = bits == 16 || (bits == 32 && segs);
    unsigned m = bits != 64;
    g.alone = only_row >= 0 || chance(&g, 65);
    init_state(&g);
    if (!g.alone) {
        sequence(&g, m);
    }
    if (t->n == 0) {
        g.alone = true;
        one_insn(&g, only_row, m);
    }
}
