/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "oracle.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <Zydis/Zydis.h>

struct pair {
    const uint8_t *bytes;
    size_t n;
    enum insn_mode mode;
    struct insn i;
    const struct insn_row *row;
    enum decode_result result;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    bool z_ok;
};

static unsigned long n_differences;
static struct oracle_counts counts;

enum { MAX_KINDS = 512 };
static struct {
    char key[96];
    unsigned long n;
} kinds[MAX_KINDS];
static unsigned n_kinds;

static void print_case(const struct pair *p, const char *key)
{
    char text[128] = "-";

    fprintf(stderr, "%s [%d]", key, p->mode == INSN_MODE_64 ? 64 : p->mode == INSN_MODE_32 ? 32 : 16);
    for (size_t i = 0; i < p->n && i < (p->z_ok ? p->z.length : 15); i++) {
        fprintf(stderr, " %02x", p->bytes[i]);
    }
    if (p->result == DECODE_OK) {
        insn_format(&p->i, p->mode, 0, text, sizeof(text));
    }
    fprintf(stderr, "  ours: %d %s", p->result, text);
    if (p->z_ok) {
        ZydisFormatter f;
        char ztext[128];
        ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
        ZydisFormatterFormatInstruction(&f, &p->z, p->ops, p->z.operand_count_visible, ztext, sizeof(ztext), 0, NULL);
        fprintf(stderr, "  theirs: %s (%s)", ztext, ZydisISASetGetString(p->z.meta.isa_set));
    }
    fputc('\n', stderr);
}

static void differ(const struct pair *p, const char *what)
{
    char key[96];

    n_differences++;
    snprintf(key, sizeof(key), "%s %s%s", p->z_ok ? ZydisMnemonicGetString(p->z.mnemonic) : "(refused)",
             p->z_ok ? "" : p->row ? p->row->name : "", what);
    for (unsigned k = 0; k < n_kinds; k++) {
        if (!strcmp(kinds[k].key, key)) {
            kinds[k].n++;
            return;
        }
    }
    if (n_kinds < MAX_KINDS) {
        snprintf(kinds[n_kinds].key, sizeof(key), "%s", key);
        kinds[n_kinds++].n = 1;
        print_case(p, key);
    }
}

unsigned long oracle_differences(void)
{
    return n_differences;
}

struct oracle_counts oracle_counts(void)
{
    return counts;
}

static const ZydisDecoder *decoder_for(enum insn_mode mode)
{
    static ZydisDecoder decoders[3];
    static bool ready;

    if (!ready) {
        ZydisDecoderInit(&decoders[INSN_MODE_16], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
        ZydisDecoderInit(&decoders[INSN_MODE_32], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
        ZydisDecoderInit(&decoders[INSN_MODE_64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
        for (int m = 0; m < 3; m++) {
            ZydisDecoderEnableMode(&decoders[m], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
            ZydisDecoderEnableMode(&decoders[m], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
            ZydisDecoderEnableMode(&decoders[m], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
            ZydisDecoderEnableMode(&decoders[m], ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
        }
        ready = true;
    }
    return &decoders[mode];
}

/* What Zydis knows and we hide: these must be #UD for us. CET's NOPs stay NOPs. */
static bool is_hidden(const ZydisDecodedInstruction *z)
{
    static const ZydisISASet sets[] = {
        ZYDIS_ISA_SET_AMD3DNOW, ZYDIS_ISA_SET_AMD_INVLPGB, ZYDIS_ISA_SET_AMX_TILE, ZYDIS_ISA_SET_AMX_INT8,
        ZYDIS_ISA_SET_AMX_BF16, ZYDIS_ISA_SET_AVX_VNNI, ZYDIS_ISA_SET_CET, ZYDIS_ISA_SET_ENQCMD, ZYDIS_ISA_SET_FMA4, ZYDIS_ISA_SET_HRESET,
        ZYDIS_ISA_SET_KEYLOCKER, ZYDIS_ISA_SET_KEYLOCKER_WIDE, ZYDIS_ISA_SET_LWP, ZYDIS_ISA_SET_MCOMMIT, ZYDIS_ISA_SET_MONITORX,
        ZYDIS_ISA_SET_PADLOCK_ACE, ZYDIS_ISA_SET_PADLOCK_PHE, ZYDIS_ISA_SET_PADLOCK_PMM, ZYDIS_ISA_SET_PADLOCK_RNG,
        ZYDIS_ISA_SET_PCONFIG, ZYDIS_ISA_SET_PT, ZYDIS_ISA_SET_RDPRU, ZYDIS_ISA_SET_RTM, ZYDIS_ISA_SET_SERIALIZE,
        ZYDIS_ISA_SET_SGX, ZYDIS_ISA_SET_SGX_ENCLV, ZYDIS_ISA_SET_SMX, ZYDIS_ISA_SET_SNP, ZYDIS_ISA_SET_SVM, ZYDIS_ISA_SET_TBM,
        ZYDIS_ISA_SET_TDX, ZYDIS_ISA_SET_TSX_LDTRK, ZYDIS_ISA_SET_UINTR, ZYDIS_ISA_SET_VMFUNC, ZYDIS_ISA_SET_VTX,
        ZYDIS_ISA_SET_WAITPKG, ZYDIS_ISA_SET_XOP,
    };
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || z->encoding == ZYDIS_INSTRUCTION_ENCODING_XOP ||
        z->encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW || z->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX) {
        return true;
    }
    if (z->mnemonic == ZYDIS_MNEMONIC_MOVDIR64B) {
        return true;
    }
    if (z->mnemonic == ZYDIS_MNEMONIC_VMCALL || z->mnemonic == ZYDIS_MNEMONIC_VMMCALL) {
        return false;
    }
    for (size_t k = 0; k < ARRAY_SIZE(sets); k++) {
        if (z->meta.isa_set == sets[k]) {
            return true;
        }
    }
    const char *name = ZydisISASetGetString(z->meta.isa_set);
    /* AVX-512 mask instructions are VEX-coded; KNC is Knights Corner's */
    return !strncmp(name, "AVX512", 6) || !strncmp(name, "KNC", 3);
}

/*
 * Where we differ from Zydis on purpose. Every line has its reason; `what` is the aspect it excuses.
 */
enum aspect { A_PRIVILEGE, A_FLAGS_R, A_FLAGS_W, A_FLAGS_U, A_ACCESS, A_WIDTH, A_MEM_SIZE };
static const struct excuse {
    const char *name;           /* our mnemonic, a trailing * matches any rest */
    enum aspect what;
    const char *reason;
} excuses[] = {
    {"lgdt", A_PRIVILEGE, "is privileged; Zydis has it for LIDT only"},
    {"monitor", A_PRIVILEGE, "#UD, not #GP, outside CPL 0"},
    {"mwait", A_PRIVILEGE, "#UD, not #GP, outside CPL 0"},
    {"clac", A_PRIVILEGE, "#UD, not #GP, outside CPL 0"},
    {"stac", A_PRIVILEGE, "#UD, not #GP, outside CPL 0"},
    {"vmcall", A_FLAGS_W, "as a hypercall it leaves the flags"},
    {"syscall", A_FLAGS_R, "saves the flags in R11"},
    {"cmps", A_FLAGS_R, "Zydis counts REPE's own use of ZF"},
    {"scas", A_FLAGS_R, "Zydis counts REPE's own use of ZF"},
    {"sbb", A_FLAGS_U, "AF is defined; Zydis errs for the AL form"},
    {"bextr", A_FLAGS_U, "CF and OF are cleared, ZF is defined"},
    {"ptest", A_FLAGS_W, "AF, OF, PF, SF are cleared"},
    {"vptest", A_FLAGS_W, "AF, OF, PF, SF are cleared"},
    {"vtestp*", A_FLAGS_W, "AF, OF, PF, SF are cleared"},
    {"movlp*", A_ACCESS, "keeps the other half"},
    {"movhp*", A_ACCESS, "keeps the other half"},
    {"movlhps", A_ACCESS, "keeps the other half"},
    {"movhlps", A_ACCESS, "keeps the other half"},
    {"movss", A_ACCESS, "keeps the upper part"},
    {"movsd", A_ACCESS, "keeps the upper part"},
    {"cvtsd2ss", A_ACCESS, "keeps the upper part"},
    {"cvtss2sd", A_ACCESS, "keeps the upper part"},
    {"cvtsi2s*", A_ACCESS, "keeps the upper part"},
    {"cvtpi2ps", A_ACCESS, "keeps the upper part"},
    {"rounds*", A_ACCESS, "keeps the upper part"},
    {"rcpss", A_ACCESS, "keeps the upper part"},
    {"rsqrtss", A_ACCESS, "keeps the upper part"},
    {"sqrts*", A_ACCESS, "keeps the upper part"},
    {"insertq", A_ACCESS, "inserts"},
    {"extrq", A_ACCESS, "shifts its destination"},
    {"clflush*", A_MEM_SIZE, "checked as a byte read"},
    {"clwb", A_MEM_SIZE, "checked as a byte read"},
    {"movsxd", A_WIDTH, "16-bit destination: the low half of what is read"},
    {"lar", A_WIDTH, "only 16 bits of the source matter"},
    {"lsl", A_WIDTH, "only 16 bits of the source matter"},
};

static bool excused(const struct pair *p, enum aspect what)
{
    for (size_t k = 0; k < ARRAY_SIZE(excuses); k++) {
        size_t stem = strcspn(excuses[k].name, "*");
        bool rest = excuses[k].name[stem] == '*';
        if (excuses[k].what == what && !strncmp(p->row->name, excuses[k].name, stem) && (rest || !p->row->name[stem])) {
            return true;
        }
    }
    /* Zydis leaves OF undefined for every shift and rotate; it is defined for a count of 1. */
    return what == A_FLAGS_U && p->i.form == F_RM_1;
}

static unsigned zydis_flags(ZydisAccessedFlagsMask m)
{
    return (m & ZYDIS_CPUFLAG_CF ? FL_CF : 0) | (m & ZYDIS_CPUFLAG_PF ? FL_PF : 0) | (m & ZYDIS_CPUFLAG_AF ? FL_AF : 0) |
           (m & ZYDIS_CPUFLAG_ZF ? FL_ZF : 0) | (m & ZYDIS_CPUFLAG_SF ? FL_SF : 0) | (m & ZYDIS_CPUFLAG_OF ? FL_OF : 0) |
           (m & ZYDIS_CPUFLAG_DF ? FL_DF : 0);
}

static void compare_flags(const struct pair *p)
{
    unsigned r = 0, w = 0, u = 0;

    if (p->z.cpu_flags) {
        r = zydis_flags(p->z.cpu_flags->tested);
        u = zydis_flags(p->z.cpu_flags->undefined);
        w = u | zydis_flags(p->z.cpu_flags->modified | p->z.cpu_flags->set_0 | p->z.cpu_flags->set_1);
    }
    char what[64];
    if (r & ~p->row->flags_r && !excused(p, A_FLAGS_R)) {
        snprintf(what, sizeof(what), " flags_r lacks %02x", r & ~p->row->flags_r);
        differ(p, what);
    } else if (p->row->flags_r & ~r && !(p->row->enc & RE_CC) && !excused(p, A_FLAGS_R)) {
        snprintf(what, sizeof(what), " flags_r extra %02x", p->row->flags_r & ~r);
        differ(p, what);
    }
    if (w != p->row->flags_w && !excused(p, A_FLAGS_W)) {
        snprintf(what, sizeof(what), " flags_w %02x theirs %02x", p->row->flags_w, w);
        differ(p, what);
    }
    if (u != p->row->flags_u && !excused(p, A_FLAGS_U)) {
        snprintf(what, sizeof(what), " flags_u %02x theirs %02x", p->row->flags_u, u);
        differ(p, what);
    }
}

/* Register number in our terms. */
static unsigned zydis_reg(ZydisRegister r)
{
    if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH) {
        return INSN_AH + (r - ZYDIS_REGISTER_AH);
    }
    if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_DIL) {
        return 4 + (r - ZYDIS_REGISTER_SPL);
    }
    if (r >= ZYDIS_REGISTER_R8B && r <= ZYDIS_REGISTER_R15B) {
        return 8 + (r - ZYDIS_REGISTER_R8B);
    }
    switch (r) {
    case ZYDIS_REGISTER_NONE:
        return INSN_REG_NONE;
    case ZYDIS_REGISTER_RIP: case ZYDIS_REGISTER_EIP: case ZYDIS_REGISTER_IP:
        return INSN_REG_RIP;
    default:
        return ZydisRegisterGetId(r);
    }
}

static bool segment_counts(const struct pair *p)
{
    return p->row->mem_size != MEM_NO;
}

static void compare_mem(const struct pair *p, const ZydisDecodedOperand *op)
{
    static const ZydisRegister segs[] = {ZYDIS_REGISTER_ES, ZYDIS_REGISTER_CS, ZYDIS_REGISTER_SS,
                                         ZYDIS_REGISTER_DS, ZYDIS_REGISTER_FS, ZYDIS_REGISTER_GS};
    const struct insn *i = &p->i;

    if (segment_counts(p) && op->mem.segment != segs[i->seg]) {
        differ(p, " segment");
    }
    if (i->flags & INSN_MOFFS) {
        uint64_t mask = i->asize == 3 ? UINT64_MAX : i->asize == 2 ? UINT32_MAX : 0xffff;
        if (((uint64_t)op->mem.disp.value & mask) != i->imm) {
            differ(p, " moffs");
        }
    } else if (op->mem.base == ZYDIS_REGISTER_R13D && i->base == INSN_REG_NONE && p->z.raw.modrm.mod == 0) {
        return;                 /* SIB without base, 67 and REX.B: Zydis takes R13D, SDM vol. 2A table 2-5 says none */
    } else if (zydis_reg(op->mem.base) != i->base || zydis_reg(op->mem.index) != i->index) {
        differ(p, " base or index");
    } else if (i->index != INSN_REG_NONE && (op->mem.scale ? op->mem.scale : 1) != 1u << i->scale) {
        differ(p, " scale");
    } else if ((op->mem.disp.has_displacement ? op->mem.disp.value : 0) != i->disp) {
        differ(p, " displacement");
    }
    unsigned size = insn_mem_size(i);
    if (size != op->size / 8u && p->row->mem_size != MEM_XSAVE && p->row->mem_size != MEM_NO && !excused(p, A_MEM_SIZE)) {
        char what[64];
        snprintf(what, sizeof(what), " memory size %u theirs %u", size, op->size / 8u);
        differ(p, what);
    }
}

static void compare_access(const struct pair *p, const ZydisDecodedOperand *op, struct opnd o, const char *which)
{
    bool read = op->actions & ZYDIS_OPERAND_ACTION_MASK_READ, write = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    char what[64];

    if (p->row->form != F_VEX && p->row->op != OP_VEC && p->row->op != OP_MMX) {
        return;
    }
    if (o.kind == K_NONE) {
        snprintf(what, sizeof(what), " %s has no kind", which);
        differ(p, what);
    } else if ((o.read != read || o.write != write) && !excused(p, A_ACCESS)) {
        snprintf(what, sizeof(what), " %s access %s%s theirs %s%s", which, o.read ? "r" : "", o.write ? "w" : "",
                 read ? "r" : "", write ? "w" : "");
        differ(p, what);
    }
}

static unsigned kind_of(ZydisRegister r)
{
    switch (ZydisRegisterGetClass(r)) {
    case ZYDIS_REGCLASS_XMM: case ZYDIS_REGCLASS_YMM:
        return K_XMM;
    case ZYDIS_REGCLASS_MMX:
        return K_MM;
    case ZYDIS_REGCLASS_X87:
        return K_ST;
    default:
        return K_GPR;
    }
}

static void compare_register(const struct pair *p, const ZydisDecodedOperand *op, unsigned ours, struct opnd o, const char *which)
{
    char what[64];

    if (zydis_reg(op->reg.value) != ours) {
        snprintf(what, sizeof(what), " %s is another register", which);
        differ(p, what);
    } else if (o.kind != K_NONE && o.kind != kind_of(op->reg.value)) {
        snprintf(what, sizeof(what), " %s is of another kind", which);
        differ(p, what);
    }
}

static void compare_size(const struct pair *p, const ZydisDecodedOperand *op, unsigned log2)
{
    if (p->row->enc & RE_SEGREG || p->row->mem_size == MEM_NO || excused(p, A_WIDTH)) {
        return;
    }
    /* W with a vector source that has 32 significant bits at most: a zero-extended result is the same */
    if ((p->row->op == OP_VEC || p->row->op == OP_MMX) && op->size == 32 && log2 == 3 && (p->row->mem_size || p->row->enc & RE_REG)) {
        return;
    }
    if (kind_of(op->reg.value) == K_GPR && ZydisRegisterGetClass(op->reg.value) <= ZYDIS_REGCLASS_GPR64 &&
        op->size != 8u << log2) {
        differ(p, " register width");
    }
}

static void compare_operand(const struct pair *p, const ZydisDecodedOperand *op)
{
    const struct insn *i = &p->i;

    if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (!(i->flags & INSN_MEM)) {
            differ(p, " memory operand missing");
            return;
        }
        compare_mem(p, op);
        compare_access(p, op, p->row->rm, "rm");
        return;
    }
    if (op->type != ZYDIS_OPERAND_TYPE_REGISTER) {
        return;
    }
    switch (op->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        compare_register(p, op, i->reg, p->row->reg, "reg");
        compare_access(p, op, p->row->reg, "reg");
        compare_size(p, op, i->opsize);
        break;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        compare_register(p, op, i->rm, p->row->rm, "rm");
        compare_access(p, op, p->row->rm, "rm");
        compare_size(p, op, i->ssize);
        break;
    case ZYDIS_OPERAND_ENCODING_OPCODE:
        compare_register(p, op, i->rm, p->row->rm, "opcode register");
        compare_size(p, op, i->opsize);
        break;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
        compare_register(p, op, insn_vvvv(i), p->row->vvvv, "vvvv");
        compare_access(p, op, p->row->vvvv, "vvvv");
        break;
    case ZYDIS_OPERAND_ENCODING_IS4:
        compare_register(p, op, i->imm, (struct opnd){.kind = K_XMM}, "is4");
        break;
    default:
        break;
    }
}

static void compare_imm(const struct pair *p)
{
    const struct insn *i = &p->i;
    const ZydisDecodedInstruction *z = &p->z;
    uint64_t first = z->raw.imm[0].value.u, second = z->raw.imm[1].value.u;
    uint64_t mask = i->opsize == 3 ? UINT64_MAX : (1ull << (8u << i->opsize)) - 1;
    uint64_t want;

    switch (p->row->imm) {
    case IMM_NONE:
        if (z->raw.imm[0].size) {
            differ(p, " immediate missing");
        }
        return;
    case IMM_MOFFS: case IMM_IS4:
        return;
    case IMM_ENTER:
        want = (first & 0xffff) | (second & 0xff) << 16;
        break;
    case IMM_FAR:
        want = (first & UINT32_MAX & (z->raw.imm[0].size == 16 ? 0xffff : UINT32_MAX)) | (second & 0xffff) << 32;
        break;
    case IMM_8_8:
        want = (first & 0xff) | (second & 0xff) << 8;
        break;
    case IMM_S8: case IMM_Z:
        want = (uint64_t)((int64_t)(first << (64 - z->raw.imm[0].size)) >> (64 - z->raw.imm[0].size)) & mask;
        break;
    case IMM_8:
        want = first & 0xff;
        break;
    case IMM_V:
        want = first & mask;
        break;
    default:
        want = first;
    }
    if (want != i->imm) {
        differ(p, " immediate");
    }
}

static void compare_prefixes(const struct pair *p)
{
    bool lock = p->z.attributes & ZYDIS_ATTRIB_HAS_LOCK;

    if (lock != !!(p->i.flags & INSN_LOCK)) {
        differ(p, " lock");
    }
    if (!!(p->z.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) != !!(p->row->attr & RA_CPL0) && !excused(p, A_PRIVILEGE)) {
        differ(p, " privilege");
    }
    if (p->z.address_width != 8u << p->i.asize) {
        differ(p, " address width");
    }
}

static void compare_accepted(struct pair *p)
{
    bool wants_mem = false;

    if (p->z.length != p->i.len) {
        differ(p, " length");
        return;
    }
    compare_prefixes(p);
    for (unsigned k = 0; k < p->z.operand_count; k++) {
        const ZydisDecodedOperand *op = &p->ops[k];
        bool ours = op->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            /* strings, stack and rDI operands are implicit for us */
            ours = op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM || p->i.flags & INSN_MOFFS;
            wants_mem |= ours;
        }
        if (ours) {
            compare_operand(p, op);
        }
    }
    if (!wants_mem && p->i.flags & INSN_MEM) {
        differ(p, " has a memory operand");
    }
    compare_imm(p);
    compare_flags(p);
}

/*
 * Which of two refusals comes first may differ where bytes end inside a bad instruction, and Zydis may see the end of a
 * hidden one that we gave up at its opcode. Too long is too long.
 */
static bool refusal_fits(const struct pair *p, ZyanStatus status)
{
    bool too_long = status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG;

    return (p->result == DECODE_LONG) == too_long || (too_long && p->result == DECODE_ILLEGAL && p->i.len < 15);
}

unsigned oracle_compare(const uint8_t *bytes, size_t n, enum insn_mode mode)
{
    struct pair p = {.bytes = bytes, .n = n, .mode = mode};

    p.result = insn_decode(bytes, n, mode, UINT64_MAX, &p.i);
    p.row = p.result == DECODE_OK ? insn_row(&p.i) : NULL;
    ZyanStatus status = ZydisDecoderDecodeFull(decoder_for(mode), bytes, n, &p.z, p.ops);
    p.z_ok = ZYAN_SUCCESS(status);
    if (p.z_ok && is_hidden(&p.z)) {
        counts.excused++;
        if (p.result == DECODE_OK) {
            differ(&p, " should be hidden");
        }
        return p.z.length;
    }
    if (p.z_ok && p.result == DECODE_OK) {
        counts.accepted++;
        compare_accepted(&p);
        return p.z.length;
    }
    if (p.z_ok) {
        differ(&p, " refused by us");
        return p.z.length;
    }
    if (p.result == DECODE_OK) {
        differ(&p, " accepted by us");
        return p.i.len;
    }
    counts.refused++;
    if (!refusal_fits(&p, status)) {
        char what[64];
        snprintf(what, sizeof(what), " reason %d theirs %x", p.result, (unsigned)ZYAN_STATUS_CODE(status));
        differ(&p, what);
    }
    return 1;
}
