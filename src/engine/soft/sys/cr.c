/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Control and debug registers, EFER, and TLB instructions. A register changes only after all checks; what the change makes
 * stale in the TLB is flushed here. Sources: SDM vol. 3A 2.5 (control registers), 4.10.4 (invalidation), 9.8.5 (entering
 * and leaving IA-32e mode), vol. 3B 17.2 (debug registers).
 */
#include "engine/soft/sys/sys-int.h"
#include "x86/msr.h"

#define CR0_ALL (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)

/* The four PAE page-directory pointers at `cr3` have no reserved bit set; checked before MOV commits anything. */
static void check_pdptes(struct soft_cpu *c, uint64_t cr3)
{
    uint64_t reserved = 0x1e6 | ~((1ull << c->model->phys_bits) - 1);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t e;
        if (mem_read_le64(c->vm->mem, (cr3 & 0xffffffe0) + i * 8, &e) && (e & 1) && (e & reserved)) {
            raise_gp(c);
        }
    }
}

static void cr0_write(struct soft_cpu *c, uint64_t val)
{
    uint64_t old = c->st.cr0;
    if (val >> 32) {
        raise_gp(c);
    }
    val = (val & CR0_ALL) | CR0_ET;
    if (((val & CR0_PG) && !(val & CR0_PE)) || ((val & CR0_NW) && !(val & CR0_CD))) {
        raise_gp(c);
    }
    uint64_t changed = old ^ val;
    bool lme = c->st.efer & EFER_LME;
    if ((changed & old & CR0_PG) && (cpu_code64(c) || (c->st.cr4 & CR4_PCIDE))) {
        raise_gp(c);
    }
    if ((changed & val & CR0_PG) && lme &&
        (!(c->st.cr4 & CR4_PAE) || (c->st.seg[SEG_CS].attr & SEGA_L) || (c->st.tr.attr & 0xf) == DT_TSS16_BUSY)) {
        raise_gp(c);
    }
    bool pae = (val & CR0_PG) && (c->st.cr4 & CR4_PAE) && !lme && (changed & (CR0_PG | CR0_CD | CR0_NW));
    if (pae) {
        check_pdptes(c, c->st.cr3);
    }
    c->st.cr0 = val;
    if (!(val & CR0_PG)) {
        c->st.efer &= ~EFER_LMA;
    } else if (lme) {
        c->st.efer |= EFER_LMA;
    }
    cpu_update_mode(c);
    if (changed & (CR0_PG | CR0_WP | CR0_PE)) {
        mmu_flush_all(c);
    }
    if (pae) {
        mmu_cr3_loaded(c, false);
    }
}

static void cr3_write(struct soft_cpu *c, uint64_t val)
{
    bool keep = false;
    if (c->st.cr4 & CR4_PCIDE) {
        keep = val >> 63;
        val &= ~(1ull << 63);
    }
    if (cpu_long_mode(c)) {
        if (val >> c->model->phys_bits) {
            raise_gp(c);
        }
    } else {
        val &= 0xffffffff;
        if ((c->st.cr0 & CR0_PG) && (c->st.cr4 & CR4_PAE)) {
            check_pdptes(c, val);
        }
    }
    c->st.cr3 = val;
    mmu_cr3_loaded(c, keep);
}

static void cr4_write(struct soft_cpu *c, uint64_t val)
{
    uint64_t old = c->st.cr4, changed = old ^ val;
    bool lma = cpu_long_mode(c);
    if ((val & ~c->cr4_valid) || (lma && !(val & CR4_PAE))) {
        raise_gp(c);
    }
    if ((changed & val & CR4_PCIDE) && (!lma || (c->st.cr3 & 0xfff))) {
        raise_gp(c);
    }
    bool pae = (c->st.cr0 & CR0_PG) && (val & CR4_PAE) && !lma && (changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP));
    if (pae) {
        check_pdptes(c, c->st.cr3);
    }
    c->st.cr4 = val;
    cpu_update_mode(c);
    if (changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE)) {
        mmu_flush_all(c);
    }
    if (pae) {
        mmu_cr3_loaded(c, false);
    }
}

bool efer_write(struct soft_cpu *c, uint64_t val)
{
    uint64_t old = c->st.efer;
    val = (val & ~EFER_LMA) | (old & EFER_LMA);
    if ((val & ~c->efer_valid) || ((c->st.cr0 & CR0_PG) && ((val ^ old) & EFER_LME))) {
        return false;
    }
    c->st.efer = val;
    if ((val ^ old) & EFER_NXE) {
        mmu_flush_all(c);
    }
    return true;
}

static void mov_to_cr(struct soft_cpu *c, unsigned n, uint64_t val)
{
    switch (n) {
    case 0: cr0_write(c, val); break;
    case 2: c->st.cr2 = val; break;
    case 3: cr3_write(c, val); break;
    case 4: cr4_write(c, val); break;
    default:
        if (val & ~15ull) {
            raise_gp(c);
        }
        lapic_set_tpr(c, (uint32_t)val << 4);
        break;
    }
}

static uint64_t mov_from_cr(struct soft_cpu *c, unsigned n)
{
    switch (n) {
    case 0: return c->st.cr0;
    case 2: return c->st.cr2;
    case 3: return c->st.cr3;
    case 4: return c->st.cr4;
    default: return c->st.lapic.tpr >> 4;
    }
}

static void mov_cr(struct soft_cpu *c, const struct uop *u, bool write)
{
    unsigned n = u->i.reg;
    if (n == 1 || (n > 4 && n != 8)) {
        cpu_raise(c, EXC_UD);
    }
    need_cpl0(c);
    uint64_t mask = cpu_code64(c) ? ~0ull : 0xffffffff;
    if (write) {
        mov_to_cr(c, n, c->r[u->i.rm] & mask);
    } else {
        c->r[u->i.rm] = mov_from_cr(c, n) & mask;
    }
}

void dr6_or(struct soft_cpu *c, uint64_t bits)
{
    c->st.dr6 = (c->st.dr6 & ~0xfull) | bits | DR6_FIXED;
}

static void dr_write(struct soft_cpu *c, unsigned n, uint64_t val)
{
    if (n < 4) {
        c->st.dr[n] = val;              /* not kept anywhere else: an access looks here */
    } else if (val >> 32) {
        raise_gp(c);
    } else if (n == 6) {
        c->st.dr6 = (val & 0xe00f) | DR6_FIXED;
    } else {
        c->st.dr7 = (val & 0xffff2bff) | DR7_FIXED;
        mmu_select_context(c);
        if (sys_needs_single(c)) {
            cpu_pend(c, PEND_SHADOW);
        }
    }
}

static void mov_dr(struct soft_cpu *c, const struct uop *u, bool write)
{
    unsigned n = u->i.reg;
    if (n >= 8 || ((n == 4 || n == 5) && (c->st.cr4 & CR4_DE))) {
        cpu_raise(c, EXC_UD);
    }
    need_cpl0(c);
    n = n == 4 ? 6 : n == 5 ? 7 : n;
    if (c->st.dr7 & DR7_GD) {
        dr6_or(c, DR6_BD);
        cpu_raise(c, EXC_DB);
    }
    uint64_t mask = cpu_code64(c) ? ~0ull : 0xffffffff;
    if (write) {
        dr_write(c, n, c->r[u->i.rm] & mask);
    } else {
        uint64_t val = n < 4 ? c->st.dr[n] : n == 6 ? c->st.dr6 | DR6_FIXED : c->st.dr7 | DR7_FIXED;
        c->r[u->i.rm] = val & mask;
    }
}

static void smsw(struct soft_cpu *c, const struct uop *u, uint64_t lin)
{
    if ((c->st.cr4 & CR4_UMIP) && c->cpl != 0) {
        raise_gp(c);
    }
    if (u->i.flags & INSN_MEM) {
        mmu_store(c, lin, 2, c->st.cr0 & 0xffff);
    } else {
        reg_set(c, u->i.rm, 1u << u->i.opsize, c->st.cr0);
    }
}

/* LMSW reaches the low four bits and cannot clear PE. */
static void lmsw(struct soft_cpu *c, const struct uop *u, uint64_t lin)
{
    need_cpl0(c);
    uint64_t val = rm_get(c, u, lin, 2) & 15;
    cr0_write(c, (c->st.cr0 & ~(uint64_t)(CR0_MP | CR0_EM | CR0_TS)) | val);
}

static void clts(struct soft_cpu *c)
{
    need_cpl0(c);
    c->st.cr0 &= ~CR0_TS;
    cpu_update_mode(c);
}

static void invlpg(struct soft_cpu *c, uint64_t lin)
{
    need_cpl0(c);
    if (!cpu_code64(c) || canonical(lin)) {
        mmu_flush_page(c, lin);
    }
}

/* Conservative: what concerns another PCID than the current one flushes everything. */
void invpcid(struct soft_cpu *c, const struct uop *u, uint64_t lin)
{
    if (!(c->mode & MODE_PROT) && in_prot(c)) {
        raise_gp(c);
    }
    need_cpl0(c);
    uint64_t type = reg_get(c, u->i.reg, cpu_code64(c) ? 8 : 4), d[2];
    mmu_read_buf(c, lin, d, sizeof(d));
    bool pcide = c->st.cr4 & CR4_PCIDE;
    if (type > 3 || d[0] >> 12 || (type < 2 && d[0] && !pcide) || (type == 0 && !canonical(d[1]))) {
        raise_gp(c);
    }
    bool current = d[0] == (pcide ? c->st.cr3 & 0xfff : 0);
    if (type == 0 && current) {
        mmu_flush_page(c, d[1]);
    } else if (type == 1 && current) {
        mmu_flush_nonglobal(c);
    } else {
        mmu_flush_all(c);
    }
}

bool sys_cr_insn(struct soft_cpu *c, const struct uop *u, uint64_t lin)
{
    switch (insn_row(&u->i)->op) {
    case OP_MOV_FROM_CR: mov_cr(c, u, false); return false;
    case OP_MOV_TO_CR: mov_cr(c, u, true); return true;
    case OP_MOV_FROM_DR: mov_dr(c, u, false); return false;
    case OP_MOV_TO_DR: mov_dr(c, u, true); return true;
    case OP_SMSW: smsw(c, u, lin); return false;
    case OP_LMSW: lmsw(c, u, lin); return true;
    case OP_CLTS: clts(c); return true;
    case OP_INVLPG: invlpg(c, lin); return true;
    case OP_INVPCID: invpcid(c, u, lin); return true;
    default: need_cpl0(c); return false;        /* INVD, WBINVD: caches are coherent */
    }
}
