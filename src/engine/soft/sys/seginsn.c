/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Instructions about segments and descriptor tables: MOV Sreg, LxS, LGDT..STR, LAR, LSL, VERR, VERW, ARPL, FS and GS bases. */
#include "engine/soft/sys/sys-int.h"

uint64_t reg_get(const struct soft_cpu *c, unsigned reg, unsigned size)
{
    if (reg >= INSN_AH) {
        return (c->r[reg - INSN_AH] >> 8) & 0xff;
    }
    return c->r[reg] & size_mask(size);
}

void reg_set(struct soft_cpu *c, unsigned reg, unsigned size, uint64_t val)
{
    if (reg >= INSN_AH) {
        uint64_t *r = &c->r[reg - INSN_AH];
        *r = (*r & ~0xff00ull) | (val & 0xff) << 8;
    } else if (size >= 4) {
        c->r[reg] = val & size_mask(size);
    } else {
        c->r[reg] = (c->r[reg] & ~size_mask(size)) | (val & size_mask(size));
    }
}

uint64_t rm_get(struct soft_cpu *c, const struct uop *u, uint64_t lin, unsigned size)
{
    return u->i.flags & INSN_MEM ? mmu_load(c, lin, size) : reg_get(c, u->i.rm, size);
}

void rm_set(struct soft_cpu *c, const struct uop *u, uint64_t lin, unsigned size, uint64_t val)
{
    if (u->i.flags & INSN_MEM) {
        mmu_store(c, lin, size, val);
    } else {
        reg_set(c, u->i.rm, size, val);
    }
}

void ldt_load(struct soft_cpu *c, uint16_t sel, unsigned vector)
{
    if (is_null(sel)) {
        c->st.ldt = (struct x86_seg){ .sel = sel, .unusable = 1 };
        return;
    }
    struct desc d;
    if ((sel & 4) || !desc_read(c, sel, &d) || desc_s(&d) || desc_type(&d) != DT_LDT) {
        raise_sel(c, vector, sel);
    }
    if (!desc_p(&d)) {
        raise_sel(c, vector == EXC_TS ? EXC_TS : EXC_NP, sel);
    }
    if (cpu_long_mode(c)) {
        desc_get_hi(c, sel, &d, vector);
        if (!canonical(desc_base(&d))) {
            raise_sel(c, vector, sel);
        }
    }
    c->st.ldt = desc_to_seg(&d, sel);
}

void tr_load(struct soft_cpu *c, uint16_t sel, bool set_busy)
{
    struct desc d;
    if (is_null(sel)) {
        raise_gp(c);
    }
    if ((sel & 4) || !desc_read(c, sel, &d) || desc_s(&d) ||
        !(desc_type(&d) == DT_TSS || (desc_type(&d) == DT_TSS16 && !cpu_long_mode(c)))) {
        raise_sel(c, EXC_GP, sel);
    }
    if (!desc_p(&d)) {
        raise_sel(c, EXC_NP, sel);
    }
    if (cpu_long_mode(c)) {
        desc_get_hi(c, sel, &d, EXC_GP);
        if (!canonical(desc_base(&d))) {
            raise_sel(c, EXC_GP, sel);
        }
    }
    if (set_busy) {
        mmu_or8_sys(c, d.lin + 5, 2);
    }
    c->st.tr = desc_to_seg(&d, sel);
    c->st.tr.attr |= 2;
}

/* UMIP: SGDT, SIDT, SLDT, STR, SMSW only for CPL 0. */
static void umip_check(struct soft_cpu *c)
{
    if ((c->st.cr4 & CR4_UMIP) && c->cpl != 0) {
        raise_gp(c);
    }
}

static void store_dtable(struct soft_cpu *c, uint64_t lin, const struct x86_dtable *t)
{
    umip_check(c);
    uint8_t buf[10];
    store_le16(buf, t->limit);
    store_le64(buf + 2, t->base);
    mmu_write_buf(c, lin, buf, cpu_code64(c) ? 10 : 6);
}

static void load_dtable(struct soft_cpu *c, const struct uop *u, uint64_t lin, struct x86_dtable *t)
{
    need_cpl0(c);
    uint8_t buf[10] = { 0 };
    mmu_read_buf(c, lin, buf, cpu_code64(c) ? 10 : 6);
    uint64_t base = load_le64(buf + 2);
    if (cpu_code64(c)) {
        if (!canonical(base)) {
            raise_gp(c);
        }
    } else {
        base &= u->i.opsize == 1 ? 0xffffff : 0xffffffff;
    }
    t->limit = load_le16(buf);
    t->base = base;
}

/* Selector to a register (zero-extended by operand size) or 16 bits to memory. */
static void store_sel(struct soft_cpu *c, const struct uop *u, uint64_t lin, uint64_t val)
{
    if (u->i.flags & INSN_MEM) {
        mmu_store(c, lin, 2, val & 0xffff);
    } else {
        reg_set(c, u->i.rm, 1u << u->i.opsize, val);
    }
}

static void set_zf(struct soft_cpu *c, bool zf)
{
    cpu_set_rflags(c, zf ? X86_ZF : 0, X86_ZF);
}

/* LAR and LSL: which descriptor types they accept. SDM vol. 2A LAR table 3-53, LSL table 3-56. */
static bool visible(struct soft_cpu *c, uint16_t sel, bool lsl, struct desc *d)
{
    if (is_null(sel) || !desc_read(c, sel, d)) {
        return false;
    }
    unsigned type = desc_type(d), dpl = desc_dpl(d);
    if (!desc_s(d)) {
        static const uint16_t lar16 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 11 | 1 << 12;
        static const uint16_t lar64 = 1 << 2 | 1 << 9 | 1 << 11 | 1 << 12;
        static const uint16_t lsl16 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 9 | 1 << 11;
        static const uint16_t lsl64 = 1 << 2 | 1 << 9 | 1 << 11;
        uint16_t ok = cpu_long_mode(c) ? (lsl ? lsl64 : lar64) : (lsl ? lsl16 : lar16);
        if (!(ok >> type & 1)) {
            return false;
        }
    } else if (desc_conforming(d)) {
        return true;
    }
    return dpl >= c->cpl && dpl >= (sel & 3u);
}

static void lar_lsl(struct soft_cpu *c, const struct uop *u, uint64_t lin, bool lsl)
{
    struct desc d;
    uint16_t sel = (uint16_t)rm_get(c, u, lin, 2);
    bool ok = visible(c, sel, lsl, &d);
    if (ok) {
        uint64_t val = lsl ? desc_limit(&d) : (d.raw >> 32) & 0xf0ff00;
        reg_set(c, u->i.reg, 1u << u->i.opsize, val);
    }
    set_zf(c, ok);
}

static void verr_verw(struct soft_cpu *c, const struct uop *u, uint64_t lin, bool write)
{
    struct desc d;
    uint16_t sel = (uint16_t)rm_get(c, u, lin, 2);
    bool ok = !is_null(sel) && desc_read(c, sel, &d) && desc_s(&d);
    if (ok) {
        unsigned type = desc_type(&d), dpl = desc_dpl(&d);
        bool conf = (type & 12) == 12;
        ok = write ? (type & 10) == 2 : !(type & 8) || (type & 2);
        ok = ok && (conf || (dpl >= c->cpl && dpl >= (sel & 3u)));
    }
    set_zf(c, ok);
}

static void arpl(struct soft_cpu *c, const struct uop *u, uint64_t lin)
{
    uint64_t dst = rm_get(c, u, lin, 2), rpl = c->r[u->i.reg] & 3;
    bool adjust = (dst & 3) < rpl;
    if (adjust) {
        rm_set(c, u, lin, 2, (dst & ~3ull) | rpl);
    }
    set_zf(c, adjust);
}

static void mov_to_seg(struct soft_cpu *c, const struct uop *u, uint64_t lin)
{
    if (u->i.reg == SEG_CS || u->i.reg >= N_SEGS) {
        cpu_raise(c, EXC_UD);
    }
    sys_load_seg(c, u->i.reg, (uint16_t)rm_get(c, u, lin, 2));
}

static void ldseg(struct soft_cpu *c, const struct uop *u, uint64_t lin)
{
    unsigned size = 1u << u->i.opsize;
    uint64_t off = mmu_load(c, lin, size);
    uint16_t sel = (uint16_t)mmu_load(c, lin + size, 2);
    seg_load(c, u->i.cc, sel);
    reg_set(c, u->i.reg, size, off);
}

static void fsgsbase(struct soft_cpu *c, const struct uop *u, unsigned seg, bool write)
{
    if (!(c->st.cr4 & CR4_FSGSBASE)) {
        cpu_raise(c, EXC_UD);
    }
    unsigned size = u->i.opsize == 3 ? 8 : 4;
    if (!write) {
        reg_set(c, u->i.rm, size, c->st.seg[seg].base);
        return;
    }
    uint64_t base = reg_get(c, u->i.rm, size);
    if (!canonical(base)) {
        raise_gp(c);
    }
    c->st.seg[seg].base = base;
    c->segbase[seg] = base;
}

static void swapgs(struct soft_cpu *c)
{
    need_cpl0(c);
    uint64_t base = c->st.seg[SEG_GS].base;
    c->st.seg[SEG_GS].base = c->segbase[SEG_GS] = c->st.kernel_gs_base;
    c->st.kernel_gs_base = base;
}

static void need_prot(struct soft_cpu *c)
{
    if (!(c->mode & MODE_PROT)) {
        cpu_raise(c, EXC_UD);
    }
}

/* Instructions that only protected mode has. */
static bool prot_insn(struct soft_cpu *c, const struct uop *u, uint64_t lin)
{
    need_prot(c);
    switch (insn_row(&u->i)->op) {
    case OP_LLDT:
        need_cpl0(c);
        ldt_load(c, (uint16_t)rm_get(c, u, lin, 2), EXC_GP);
        break;
    case OP_LTR:
        need_cpl0(c);
        tr_load(c, (uint16_t)rm_get(c, u, lin, 2), true);
        break;
    case OP_SLDT:
        umip_check(c);
        store_sel(c, u, lin, c->st.ldt.sel);
        break;
    case OP_STR:
        umip_check(c);
        store_sel(c, u, lin, c->st.tr.sel);
        break;
    case OP_LAR: lar_lsl(c, u, lin, false); break;
    case OP_LSL: lar_lsl(c, u, lin, true); break;
    case OP_VERR: verr_verw(c, u, lin, false); break;
    case OP_VERW: verr_verw(c, u, lin, true); break;
    default: arpl(c, u, lin); break;
    }
    return false;
}

bool sys_seg_insn(struct soft_cpu *c, const struct uop *u, uint64_t lin)
{
    switch (insn_row(&u->i)->op) {
    case OP_MOVSEG_FROM: store_sel(c, u, lin, c->st.seg[u->i.reg].sel); return false;
    case OP_MOVSEG_TO: mov_to_seg(c, u, lin); return true;
    case OP_LDSEG: ldseg(c, u, lin); return true;
    case OP_PUSHSEG: sys_push(c, c->st.seg[u->i.reg].sel, 1u << u->i.opsize); return false;
    case OP_LGDT: load_dtable(c, u, lin, &c->st.gdt); return false;
    case OP_LIDT: load_dtable(c, u, lin, &c->st.idt); return false;
    case OP_SGDT: store_dtable(c, lin, &c->st.gdt); return false;
    case OP_SIDT: store_dtable(c, lin, &c->st.idt); return false;
    case OP_SWAPGS: swapgs(c); return false;
    case OP_RDFSBASE: fsgsbase(c, u, SEG_FS, false); return false;
    case OP_RDGSBASE: fsgsbase(c, u, SEG_GS, false); return false;
    case OP_WRFSBASE: fsgsbase(c, u, SEG_FS, true); return false;
    case OP_WRGSBASE: fsgsbase(c, u, SEG_GS, true); return false;
    default: return prot_insn(c, u, lin);
    }
}
