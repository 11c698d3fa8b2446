/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * x87 and MMX: handlers around a thunk that runs between FXRSTOR and FXSAVE. Unmasked x87 exceptions stay in FSW.ES and
 * are raised by the next waiting instruction, which is checked for here; the thunk itself never waits with one pending,
 * so the host takes no SIGFPE for them.
 *
 * The host leaves its own addresses in FIP and FDP; the guest's are kept by hand and put over them. FCS and FDS are always 0, as CPUID.(7,0).EBX[13] tells the guest.
 * CR0.NE = 0 (FERR#, IRQ13) is not offered: #MF is raised whatever NE says.
 *
 * In a prepared uop i.reg is the guest's ModRM byte (for FOP) and, in the memory form, i.rm the operand's size.
 */
#include "engine/soft/native/native-int.h"

#include <cpuid.h>

static bool fx_pending(struct soft_cpu *c)
{
    return load_le16(xs(c, XS_FSW)) & FSW_ES;
}

void xs_settle_fsw(struct soft_cpu *c)
{
    uint16_t fsw = load_le16(xs(c, XS_FSW)) & (uint16_t)~(FSW_ES | FSW_B), fcw = load_le16(xs(c, XS_FCW));
    if (fsw & ~fcw & 0x3f) {
        fsw |= FSW_ES | FSW_B;
    }
    store_le16(xs(c, XS_FSW), fsw);
}

/* MM n as FXSAVE has it: the image is in stack order. */
uint8_t *xs_mm(struct soft_cpu *c, unsigned n)
{
    unsigned top = (load_le16(xs(c, XS_FSW)) & FSW_TOP) >> 11;
    return xs(c, XS_ST + 16 * ((n - top) & 7));
}

/* What every MMX instruction but EMMS does: TOP = 0 and all registers valid. The image is turned to the new top. */
void xs_mmx_enter(struct soft_cpu *c)
{
    uint8_t st[128];
    uint16_t fsw = load_le16(xs(c, XS_FSW));
    for (unsigned n = 0; n < 8; n++) {
        memcpy(st + 16 * n, xs_mm(c, n), 16);
    }
    memcpy(xs(c, XS_ST), st, sizeof(st));
    store_le16(xs(c, XS_FSW), fsw & (uint16_t)~FSW_TOP);
    c->st.xsave[XS_FTW] = 0xff;
    xs_used(c, XC_X87);
}

struct fx_pointers {
    uint64_t fip, fdp;
    uint16_t fop;
};

static struct fx_pointers fx_get_pointers(struct soft_cpu *c)
{
    return (struct fx_pointers){load_le64(xs(c, XS_FIP)), load_le64(xs(c, XS_FDP)), load_le16(xs(c, XS_FOP))};
}

static void fx_set_pointers(struct soft_cpu *c, const struct fx_pointers *p)
{
    store_le64(xs(c, XS_FIP), p->fip);
    store_le64(xs(c, XS_FDP), p->fdp);
    store_le16(xs(c, XS_FOP), p->fop & 0x7ff);
}

/*
 * What this CPU does, since the guest is told its vendor: AMD stores zeros for the pointers in FXSAVE and XSAVE unless an
 * exception is pending; Intel sets FOP, and newer ones FDP, only on an unmasked exception. Only FNSTENV always tells.
 * CVTPI2PS from memory may switch to MMX or not; Intel's SHA instructions insist on alignment, AMD's do not.
 */
struct fx_quirks fx_quirks;

void fx_probe(void)
{
    static const double one = 1;
    uint8_t image[512] __attribute__((aligned(16))) = {0};
    uint32_t env[7];
    __asm__ volatile("fninit\n fldl %2\n fxsave64 %0\n fnstenv %1\n fninit" : "=m"(image), "=m"(env) : "m"(one));
    unsigned a, b, c, d;
    uint8_t after[512] __attribute__((aligned(16))) = {0};
    __asm__ volatile("fninit\n cvtpi2ps %1, %%xmm0\n fxsave64 %0\n fninit" : "=m"(after) : "m"(one) : "xmm0");
    fx_quirks.cvtpi2ps_mem_is_mmx = after[XS_FTW] != 0;
    fx_quirks.sha_unaligned = __get_cpuid(0, &a, &b, &c, &d) && b != signature_INTEL_ebx;
    fx_quirks.hides_pointers = load_le64(image + XS_FIP) == 0;
    fx_quirks.fop_on_exception = (env[4] >> 16 & 0x7ff) == 0;
    fx_quirks.fdp_on_exception = env[5] != (uint32_t)(uintptr_t)&one;
}

enum fx_kind { FX_SETS, FX_KEEPS, FX_CLEARS };

/* Control instructions leave the pointers alone or (FNINIT, FNSAVE) clear them; so does MMX. */
static enum fx_kind fx_kind(const struct insn_row *r)
{
    if (r->op != OP_X87) {
        return FX_KEEPS;
    }
    if (r->opcode == 0xdb && r->ext == 4 && r->rmx) {           /* FNENI FNDISI FNCLEX FNINIT FNSETPM */
        return r->rmx == 4 ? FX_CLEARS : FX_KEEPS;
    }
    switch (r->mem_size) {
    case MEM_X87ENV:
        return FX_KEEPS;
    case MEM_X87SAVE:
        return r->rm.write ? FX_CLEARS : FX_KEEPS;
    case 2:
        return r->opcode == 0xd9 || (r->opcode == 0xdd && r->ext == 7) ? FX_KEEPS : FX_SETS;       /* FLDCW FNSTCW FNSTSW */
    default:
        return r->implicit & IMP_W_AX ? FX_KEEPS : FX_SETS;     /* FNSTSW AX */
    }
}

/* After the thunk, whose FIP, FDP and FOP are the host's or nobody's. */
static void fx_fix_pointers(struct soft_cpu *c, const struct uop *u, struct fx_pointers p, bool mem, uint64_t off)
{
    const struct insn_row *r = insn_row(&u->i);

    switch (fx_kind(r)) {
    case FX_CLEARS:
        p = (struct fx_pointers){0};
        break;
    case FX_SETS:
        p.fip = cpu_insn_rip(c);
        if (mem && (!fx_quirks.fdp_on_exception || fx_pending(c))) {
            p.fdp = off;
        }
        if (!fx_quirks.fop_on_exception || fx_pending(c)) {
            p.fop = (uint16_t)((r->opcode & 7) << 8 | u->i.reg);
        }
        break;
    case FX_KEEPS:
        break;
    }
    fx_set_pointers(c, &p);
}

/* CVTPI2PD, and CVTPI2PS depending on the CPU, are no MMX instructions with a memory operand. */
static bool fx_touches_x87(const struct insn_row *r, bool mem)
{
    return !(mem && r->reg.kind == K_XMM && r->rm.kind == K_MM && (r->pp == 1 || !fx_quirks.cvtpi2ps_mem_is_mmx));
}

static void fx_call(struct soft_cpu *c, const struct uop *u, void *mem, uint64_t off)
{
    struct fx_pointers before = fx_get_pointers(c);
    uint32_t v = load_le32(xs(c, XS_MXCSR)) & MXCSR_VALID;
    store_le32(xs(c, XS_MXCSR), v);     /* FXRSTOR must not find reserved bits */
    if (unlikely((v & MXCSR_MASKS) != MXCSR_MASKS) && insn_row(&u->i)->attr & RA_FPEXC) {
        if (fpe_run(c, native_thunk(u), mem)) {
            if (fx_touches_x87(insn_row(&u->i), mem != NULL)) {
                xs_mmx_enter(c);        /* comes before the exception */
            }
            fpe_raise(c);
        }
    } else {
        native_thunk(u)(c, mem);
        host_set_mxcsr(MXCSR_INIT);
    }
    fx_fix_pointers(c, u, before, mem != NULL, off);
}

/* An unmasked exception other than precision leaves the destination in memory as it was. */
static bool fx_store_happened(struct soft_cpu *c, bool nowait)
{
    return nowait || !fx_pending(c) || !(load_le16(xs(c, XS_FSW)) & ~load_le16(xs(c, XS_FCW)) & 0x1f);
}

static bool is_env(const struct insn_row *r)
{
    return r->mem_size == MEM_X87ENV || r->mem_size == MEM_X87SAVE;
}

/*
 * The environment's pointers in memory, which the thunk does not do: in real and virtual-8086 mode they are 20- or 32-bit
 * linear and cut into pieces around FOP. Selectors are 0. SDM vol. 1 figures 8-9 to 8-12.
 */
static void env_store(uint8_t *p, unsigned opsize, bool real, const struct fx_pointers *v)
{
    if (opsize == 1) {
        store_le16(p + 6, (uint16_t)v->fip);
        store_le16(p + 8, real ? (uint16_t)((v->fip >> 16 & 0xf) << 12 | v->fop) : 0);
        store_le16(p + 10, (uint16_t)v->fdp);
        store_le16(p + 12, real ? (uint16_t)((v->fdp >> 16 & 0xf) << 12) : 0);
    } else if (real) {
        store_le32(p + 12, 0xffff0000u | (uint16_t)v->fip);
        store_le32(p + 16, (uint32_t)(v->fip >> 16 & 0xffff) << 12 | v->fop);
        store_le32(p + 20, 0xffff0000u | (uint16_t)v->fdp);
        store_le32(p + 24, (uint32_t)(v->fdp >> 16 & 0xffff) << 12);
    } else {
        store_le32(p + 12, (uint32_t)v->fip);
        store_le32(p + 16, (uint32_t)v->fop << 16);
        store_le32(p + 20, (uint32_t)v->fdp);
        store_le32(p + 24, 0xffff0000u);
    }
}

static struct fx_pointers env_load(const uint8_t *p, unsigned opsize, bool real)
{
    struct fx_pointers v = {0};
    if (opsize == 1) {
        unsigned ip_hi = load_le16(p + 8), dp_hi = load_le16(p + 12);
        v.fip = load_le16(p + 6) | (real ? (ip_hi >> 12) << 16 : 0);
        v.fdp = load_le16(p + 10) | (real ? (dp_hi >> 12) << 16 : 0);
        v.fop = real ? ip_hi & 0x7ff : 0;
    } else if (real) {
        uint32_t ip_hi = load_le32(p + 16), dp_hi = load_le32(p + 24);
        v.fip = load_le16(p + 12) | (ip_hi >> 12 & 0xffff) << 16;
        v.fdp = load_le16(p + 20) | (dp_hi >> 12 & 0xffff) << 16;
        v.fop = ip_hi & 0x7ff;
    } else {
        v.fip = load_le32(p + 12);
        v.fdp = load_le32(p + 20);
        v.fop = load_le16(p + 18) & 0x7ff;
    }
    return v;
}

/*
 * Ten bytes move as eight and two, an environment by words: where there are no limits (64-bit and flat code) the end may be
 * non-canonical, or past 4 GiB, and still the first page's fault comes first.
 */
static unsigned fx_piece(const struct soft_cpu *c, const struct insn *i, unsigned size)
{
    return !(c->mode & MODE_FLAT) || size < 10 ? size : size == 10 ? 8 : i->opsize == 1 ? 2 : 4;
}

/* FNSTENV, FNSAVE, FLDENV, FRSTOR. */
static const struct uop *fx_env(struct soft_cpu *c, const struct uop *u)
{
    const struct insn_row *r = insn_row(&u->i);
    unsigned size = u->i.rm, opsize = u->i.opsize;
    bool store = r->rm.write, real = !(c->mode & MODE_PROT);

    native_check(c, u);
    if (!(r->attr & RA_NOWAIT) && fx_pending(c)) {
        cpu_raise(c, EXC_MF);
    }
    uint64_t lin = ea_lin(c, u, fx_piece(c, &u->i, size), store);
    struct fx_pointers v = fx_get_pointers(c);
    if (store) {
        native_claim_write(c, lin, size);
        fx_call(c, u, bounce(c), 0);
        env_store(bounce(c), opsize, real, &v);
        mmu_write_buf(c, lin, bounce(c), size);
    } else {
        mmu_read_buf(c, lin, bounce(c), size);
        v = env_load(bounce(c), opsize, real);
        fx_call(c, u, bounce(c), 0);
        fx_set_pointers(c, &v);
    }
    return native_next(c, u);
}

static void fx_mem(struct soft_cpu *c, const struct uop *u, const struct insn_row *r)
{
    unsigned size = u->i.rm;
    bool store = r->rm.write;
    uint64_t off = ea_off(c, &u->i);
    uint64_t lin = native_lin(c, u, off, fx_piece(c, &u->i, size), r->attr & RA_ALIGN ? size - 1 : 0, store);
    void *p = store ? mmu_ptr_w(c, lin, size) : (void *)(uintptr_t)mmu_ptr_r(c, lin, size);
    if (likely(p)) {
        fx_call(c, u, p, off);
    } else if (!store) {
        mmu_read_buf(c, lin, bounce(c), size);
        fx_call(c, u, bounce(c), off);
    } else {
        native_claim_write(c, lin, size);
        fx_call(c, u, bounce(c), off);
        if (fx_store_happened(c, r->attr & RA_NOWAIT)) {
            mmu_write_buf(c, lin, bounce(c), size);
        }
    }
}

static const struct uop *fx_run(struct soft_cpu *c, const struct uop *u)
{
    const struct insn_row *r = insn_row(&u->i);

    native_check(c, u);
    if (unlikely(fx_pending(c)) && !(r->attr & RA_NOWAIT) && fx_touches_x87(r, u->i.flags & INSN_MEM)) {
        cpu_raise(c, EXC_MF);
    }
    if (u->i.flags & INSN_MEM) {
        fx_mem(c, u, r);
    } else {
        fx_call(c, u, NULL, 0);
    }
    return native_next(c, u);
}

const struct uop *xstate_fwait(struct soft_cpu *c, const struct uop *u)
{
    native_check(c, u);
    if (fx_pending(c)) {
        cpu_raise(c, EXC_MF);
    }
    return native_next(c, u);
}

/* The guest's ModRM byte: after prefixes, REX and the one-byte opcode of an x87 instruction. */
static uint8_t x87_modrm(const struct insn *i, const uint8_t *bytes)
{
    for (unsigned at = 0; at + 1 < i->len; at++) {
        if ((bytes[at] & 0xf8) == 0xd8) {
            return bytes[at + 1];
        }
    }
    return 0;
}

bool fx_prepare(struct soft_cpu *c, struct uop *u, const uint8_t *bytes)
{
    struct insn *i = &u->i;
    const struct insn_row *r = insn_row(i);
    bool mem = i->flags & INSN_MEM;
    struct thunk_spec s = {
        .row = i->row,
        .flags = i->flags & INSN_MEM,
        .reg = r->ext == 0xff ? i->reg & 15 : 0,
        .rm = mem ? 0 : i->rm & 15,
        .imm = r->imm == IMM_NONE ? 0 : (uint16_t)i->imm,
    };
    if (r->reg.kind == K_GPR || r->rm.kind == K_GPR || r->mem_size == 0) {
        s.flags |= i->flags & INSN_W;
    }
    if (is_env(r) && i->opsize == 1) {
        s.flags |= THUNK_OP16;
    }
    uint64_t addr = code_buf_thunk(c->vm->code_buf, &s);
    if (!addr) {
        return false;
    }
    u->fn = is_env(r) ? fx_env : fx_run;
    i->imm = addr;
    if (mem) {
        i->rm = (uint8_t)insn_mem_size(i);
    }
    if (r->map == 0) {
        i->reg = x87_modrm(i, bytes);
    }
    return true;
}
