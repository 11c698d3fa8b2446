/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The rest: CPUID, MSR and TSC instructions, XGETBV/XSETBV, BOUND, RDRAND, CLZERO, hypercalls, and the FPU's traps. */
#include <sys/random.h>

#include "engine/soft/sys/sys-int.h"

static void do_cpuid(struct soft_cpu *c)
{
    uint32_t v[4], leaf = (uint32_t)c->r[R_AX];
    cpu_model_cpuid(c->model, c->st.lapic.id, c->st.cr4, c->st.xcr0, leaf, (uint32_t)c->r[R_CX], v);
    if ((leaf == 1 || leaf == 0x80000001) && !(c->st.lapic.base_msr & APIC_BASE_EN)) {
        v[3] &= ~(1u << 9);             /* a switched-off APIC is not there: SDM vol. 3A 10.4.3 */
    }
    c->r[R_AX] = v[0];
    c->r[R_BX] = v[1];
    c->r[R_CX] = v[2];
    c->r[R_DX] = v[3];
}

static void set_edx_eax(struct soft_cpu *c, uint64_t val)
{
    c->r[R_AX] = (uint32_t)val;
    c->r[R_DX] = val >> 32;
}

static uint64_t edx_eax(const struct soft_cpu *c)
{
    return (uint32_t)c->r[R_AX] | (c->r[R_DX] & 0xffffffff) << 32;
}

static void rdmsr(struct soft_cpu *c)
{
    uint64_t val;
    need_cpl0(c);
    if (!sys_rdmsr(c, (uint32_t)c->r[R_CX], &val)) {
        raise_gp(c);
    }
    set_edx_eax(c, val);
}

static void wrmsr(struct soft_cpu *c)
{
    need_cpl0(c);
    if (!sys_wrmsr(c, (uint32_t)c->r[R_CX], edx_eax(c))) {
        raise_gp(c);
    }
}

static void rdtsc(struct soft_cpu *c, bool p)
{
    if ((c->st.cr4 & CR4_TSD) && in_prot(c) && c->cpl != 0) {
        raise_gp(c);
    }
    set_edx_eax(c, sys_read_tsc(c));
    if (p) {
        c->r[R_CX] = (uint32_t)c->st.tsc_aux;
    }
}

static void xgetbv(struct soft_cpu *c)
{
    if (!(c->st.cr4 & CR4_OSXSAVE)) {
        cpu_raise(c, EXC_UD);
    }
    if ((uint32_t)c->r[R_CX] != 0) {
        raise_gp(c);
    }
    set_edx_eax(c, c->st.xcr0);
}

static void xsetbv(struct soft_cpu *c)
{
    if (!(c->st.cr4 & CR4_OSXSAVE)) {
        cpu_raise(c, EXC_UD);
    }
    need_cpl0(c);
    uint64_t val = edx_eax(c);
    if ((uint32_t)c->r[R_CX] != 0 || !(val & 1) || (val & ~c->model->xcr0_mask) || ((val & 4) && !(val & 2))) {
        raise_gp(c);
    }
    c->st.xcr0 = val;
    cpu_update_mode(c);
}

static void bound(struct soft_cpu *c, const struct uop *u, uint64_t lin)
{
    unsigned size = 1u << u->i.opsize, shift = 64 - size * 8;
    int64_t index = (int64_t)(c->r[u->i.reg] << shift) >> shift;
    int64_t low = (int64_t)(mmu_load(c, lin, size) << shift) >> shift;
    int64_t high = (int64_t)(mmu_load(c, lin + size, size) << shift) >> shift;
    if (index < low || index > high) {
        cpu_raise(c, EXC_BR);
    }
}

/* From the kernel's generator: the guest only gets CF=0 when that cannot answer at once. */
static void rdrand(struct soft_cpu *c, const struct uop *u)
{
    uint64_t val = 0;
    unsigned size = u->i.opsize == 0 ? 2 : 1u << u->i.opsize;
    bool ok = getrandom(&val, sizeof(val), GRND_NONBLOCK) == sizeof(val);
    reg_set(c, u->i.rm, size, ok ? val : 0);
    cpu_set_rflags(c, ok ? X86_CF : 0, X86_ARITH);
}

static void clzero(struct soft_cpu *c, const struct uop *u)
{
    static const uint8_t zero[64];
    uint64_t addr = c->r[R_AX] & (u->i.asize == 3 ? ~63ull : u->i.asize == 2 ? 0xffffffc0 : 0xffc0);
    mmu_write_buf(c, sys_seg_lin(c, u->i.seg_override ? u->i.seg : SEG_DS, addr, 64, true), zero, sizeof(zero));
}

bool sys_misc_insn(struct soft_cpu *c, const struct uop *u, uint64_t lin)
{
    switch (insn_row(&u->i)->op) {
    case OP_CPUID: do_cpuid(c); return false;
    case OP_RDMSR: rdmsr(c); return false;
    case OP_WRMSR: wrmsr(c); return true;
    case OP_RDTSC: rdtsc(c, false); return false;
    case OP_RDTSCP: rdtsc(c, true); return false;
    case OP_RDPID: c->r[u->i.rm] = (uint32_t)c->st.tsc_aux; return false;
    case OP_RDPMC: raise_gp(c);                 /* no counters */
    case OP_XGETBV: xgetbv(c); return false;
    case OP_XSETBV: xsetbv(c); return true;
    case OP_BOUND: bound(c, u, lin); return false;
    case OP_RDRAND: case OP_RDSEED: rdrand(c, u); return false;
    case OP_CLZERO: clzero(c, u); return false;
    case OP_VMCALL: pv_hypercall(c); return true;
    default: cpu_raise(c, EXC_UD);              /* RSM, MONITOR, RDPKRU, ...: never in a model */
    }
}

/* SDM vol. 3A tables 2-2 and 13-1, vol. 2A 2.4 (VEX exception classes). */
void sys_fpu_check(struct soft_cpu *c, const struct insn *i)
{
    const struct insn_row *row = insn_row(i);
    uint64_t cr0 = c->st.cr0, cr4 = c->st.cr4;
    bool ts = cr0 & CR0_TS, em = cr0 & CR0_EM, ud = false, nm = ts;
    switch (row->op) {
    case OP_FWAIT:
        nm = ts && (cr0 & CR0_MP);
        break;
    case OP_X87: case OP_FXSAVE: case OP_FXRSTOR:
        nm = ts || em;
        break;
    case OP_MMX: case OP_EMMS:
        ud = em;
        break;
    case OP_XSAVE: case OP_XSAVEC: case OP_XSAVEOPT: case OP_XSAVES: case OP_XRSTOR: case OP_XRSTORS:
        ud = !(cr4 & CR4_OSXSAVE);
        break;
    default:
        ud = i->flags & INSN_VEX ? !(cr4 & CR4_OSXSAVE) || (c->st.xcr0 & 6) != 6 : em || !(cr4 & CR4_OSFXSR);
        break;
    }
    if (ud) {
        cpu_raise(c, EXC_UD);
    }
    if (nm) {
        cpu_raise(c, EXC_NM);
    }
}
