/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * x87 and MMX: handlers around a thunk that runs between FXRSTOR and FXSAVE. Unmasked x87 exceptions stay in FSW.ES and
 * are raised by the next waiting instruction, which is checked for here; the thunk itself never waits with one pending,
 * so the host takes no SIGFPE for them.
 *
 * The host leaves its own addresses in FIP and FDP where the instruction sets them; they are turned into the guest's
 * before anybody can look. FCS and FDS are always 0 (CPUID.7.EBX[13], and what AMD saves in 64-bit mode).
 * CR0.NE = 0 (FERR#, IRQ13) is not offered: #MF is raised whatever NE says.
 *
 * In a prepared uop i.reg is the guest's ModRM byte (for FOP) and, in the memory form, i.rm the operand's size.
 */
#include "engine/soft/native/native-int.h"

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

/* What the instruction left in FIP, FDP and FOP, from the host's terms into the guest's. */
static void fx_fix_pointers(struct soft_cpu *c, const struct uop *u, const void *mem, uint64_t off)
{
    if (!code_buf_contains(c->vm->code_buf, load_le64(xs(c, XS_FIP)))) {
        return;                 /* a control instruction: pointers are the guest's own */
    }
    const struct insn_row *r = insn_row(&u->i);
    store_le64(xs(c, XS_FIP), cpu_insn_rip(c));
    if (mem && load_le64(xs(c, XS_FDP)) == (uintptr_t)mem) {
        store_le64(xs(c, XS_FDP), off);
    }
    if (r->map == 0 && load_le16(xs(c, XS_FOP))) {
        store_le16(xs(c, XS_FOP), (uint16_t)((r->opcode & 7) << 8 | u->i.reg));
    }
}

static void fx_call(struct soft_cpu *c, const struct uop *u, void *mem, uint64_t off)
{
    uint32_t v = load_le32(xs(c, XS_MXCSR)) & MXCSR_VALID;
    store_le32(xs(c, XS_MXCSR), v);     /* FXRSTOR must not find reserved bits */
    if (unlikely((v & MXCSR_MASKS) != MXCSR_MASKS) && insn_row(&u->i)->attr & RA_FPEXC) {
        bool raised = fpe_run(c, native_thunk(u), mem);
        if (raised) {
            fpe_raise(c);
        }
    } else {
        native_thunk(u)(c, mem);
        host_set_mxcsr(MXCSR_INIT);
    }
    fx_fix_pointers(c, u, mem, off);
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
 * The environment in real and virtual-8086 mode: pointers are 20- or 32-bit linear, cut into pieces around FOP; the
 * thunk knows only the protected-mode form. SDM vol. 1 figures 8-9 to 8-12.
 */
static void env_to_real(uint8_t *p, unsigned opsize, uint64_t fip, uint64_t fdp, uint16_t fop)
{
    fop &= 0x7ff;
    if (opsize == 1) {
        store_le16(p + 6, (uint16_t)fip);
        store_le16(p + 8, (uint16_t)((fip >> 16 & 0xf) << 12 | fop));
        store_le16(p + 10, (uint16_t)fdp);
        store_le16(p + 12, (uint16_t)((fdp >> 16 & 0xf) << 12));
        return;
    }
    store_le32(p + 12, 0xffff0000u | (uint16_t)fip);
    store_le32(p + 16, (uint32_t)(fip >> 16 & 0xffff) << 12 | fop);
    store_le32(p + 20, 0xffff0000u | (uint16_t)fdp);
    store_le32(p + 24, (uint32_t)(fdp >> 16 & 0xffff) << 12);
}

static void env_from_real(uint8_t *p, unsigned opsize)
{
    if (opsize == 1) {
        store_le16(p + 8, 0);           /* selectors; the upper bits of 20-bit pointers have no place in this form */
        store_le16(p + 12, 0);
        return;
    }
    uint32_t hi_ip = load_le32(p + 16), hi_dp = load_le32(p + 24);
    store_le32(p + 12, (uint32_t)load_le16(p + 12) | (hi_ip >> 12 & 0xffff) << 16);
    store_le32(p + 16, (hi_ip & 0x7ff) << 16);
    store_le32(p + 20, (uint32_t)load_le16(p + 20) | (hi_dp >> 12 & 0xffff) << 16);
    store_le32(p + 24, 0);
}

static const struct uop *fx_env(struct soft_cpu *c, const struct uop *u)
{
    const struct insn_row *r = insn_row(&u->i);
    unsigned size = u->i.rm, opsize = u->i.opsize;
    bool store = r->rm.write, real = !(c->mode & MODE_PROT);
    uint64_t fip = load_le64(xs(c, XS_FIP)), fdp = load_le64(xs(c, XS_FDP));
    uint16_t fop = load_le16(xs(c, XS_FOP));

    native_check(c, u);
    if (!(r->attr & RA_NOWAIT) && fx_pending(c)) {
        cpu_raise(c, EXC_MF);
    }
    uint64_t lin = ea_lin(c, u, size, store);
    if (!store) {
        mmu_read_buf(c, lin, bounce(c), size);
        if (real) {
            env_from_real(bounce(c), opsize);
        }
        fx_call(c, u, bounce(c), 0);
        return u + 1;
    }
    native_claim_write(c, lin, size);
    fx_call(c, u, bounce(c), 0);
    if (real) {
        env_to_real(bounce(c), opsize, fip, fdp, fop);
    }
    mmu_write_buf(c, lin, bounce(c), size);
    return u + 1;
}

static void fx_mem(struct soft_cpu *c, const struct uop *u, const struct insn_row *r)
{
    unsigned size = u->i.rm;
    bool store = r->rm.write;
    uint64_t off = ea_off(c, &u->i), lin = ea_seg_lin(c, u->i.seg, off, size, store);
    if (unlikely(r->attr & RA_ALIGN && lin & (size - 1))) {
        cpu_raise_err(c, EXC_GP, 0);
    }
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
    if (unlikely(fx_pending(c)) && !(r->attr & RA_NOWAIT)) {
        cpu_raise(c, EXC_MF);
    }
    if (u->i.flags & INSN_MEM) {
        fx_mem(c, u, r);
    } else {
        fx_call(c, u, NULL, 0);
    }
    return u + 1;
}

const struct uop *xstate_fwait(struct soft_cpu *c, const struct uop *u)
{
    native_check(c, u);
    if (fx_pending(c)) {
        cpu_raise(c, EXC_MF);
    }
    return u + 1;
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
