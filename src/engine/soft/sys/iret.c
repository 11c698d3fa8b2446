/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IRET in every mode, and the fast system calls. Sources: SDM vol. 2 IRET, SYSCALL, SYSRET, SYSENTER, SYSEXIT; AMD APM
 * vol. 3 the same, where the two differ the model's vendor decides (c->amd).
 */
#include "engine/soft/sys/sys-int.h"

/* NMIs are let in again, also when the IRET itself faults. */
static void nmi_unblock(struct soft_cpu *c)
{
    if (c->st.ev.nmi_blocked) {
        c->st.ev.nmi_blocked = 0;
        if (READ_ONCE(c->st.ev.nmi_pending)) {
            cpu_pend(c, PEND_INIT_SIPI_NMI);
        }
    }
}

/* RFLAGS bits that IRET at `cpl` may change. */
static uint64_t iret_mask(const struct soft_cpu *c, unsigned cpl, unsigned iopl, unsigned size)
{
    uint64_t mask = X86_ARITH | X86_TF | X86_DF | X86_NT;
    if (size >= 4) {
        mask |= X86_RF | X86_AC | X86_ID;
    }
    if (cpl <= iopl) {
        mask |= X86_IF;
    }
    if (cpl == 0 && in_prot(c)) {
        mask |= X86_IOPL | (size >= 4 ? X86_VIF | X86_VIP : 0);
    }
    return mask;
}

static void iret_real(struct soft_cpu *c, unsigned size)
{
    bool v86 = in_v86(c);
    struct stk s;
    bool vme = v86 && cpu_iopl(c) < 3;
    if (vme && !((c->st.cr4 & CR4_VME) && size == 2)) {
        raise_gp(c);
    }
    stk_current(c, &s);
    uint64_t rip = stk_pop(c, &s, size);
    uint16_t cs = (uint16_t)stk_pop(c, &s, size);
    uint64_t flags = stk_pop(c, &s, size), mask;
    if (rip > c->st.seg[SEG_CS].limit) {
        raise_gp(c);
    }
    if (vme) {
        bool vif = flags & X86_IF;
        if ((vif && (c->st.rflags & X86_VIP)) || (flags & X86_TF)) {
            raise_gp(c);
        }
        mask = X86_ARITH | X86_DF | X86_NT | X86_TF | X86_VIF;
        flags = (flags & ~(uint64_t)X86_VIF) | (vif ? X86_VIF : 0);
    } else {
        mask = iret_mask(c, 0, 3, size) | (v86 ? 0 : X86_IOPL);
    }
    stk_commit(c, &s);
    seg_set_real(c, SEG_CS, cs);
    c->rip = rip;
    cpu_set_rflags(c, flags, mask);
    cpu_update_mode(c);
}

/* From CPL 0 protected mode back into virtual-8086 mode: nine words were pushed. */
static void iret_to_v86(struct soft_cpu *c, struct stk *s, uint64_t rip, uint16_t cs, uint64_t flags)
{
    uint64_t sp = stk_pop(c, s, 4);
    uint16_t sel[N_SEGS];
    sel[SEG_SS] = (uint16_t)stk_pop(c, s, 4);
    sel[SEG_ES] = (uint16_t)stk_pop(c, s, 4);
    sel[SEG_DS] = (uint16_t)stk_pop(c, s, 4);
    sel[SEG_FS] = (uint16_t)stk_pop(c, s, 4);
    sel[SEG_GS] = (uint16_t)stk_pop(c, s, 4);
    sel[SEG_CS] = cs;
    if ((rip & 0xffffffff) > 0xffff) {
        raise_gp(c);
    }
    cpu_set_rflags(c, flags, iret_mask(c, 0, 3, 4) | X86_VM);
    for (unsigned i = 0; i < N_SEGS; i++) {
        seg_set_real(c, i, sel[i]);
    }
    c->r[R_SP] = (uint32_t)sp;
    c->rip = rip & 0xffff;
    cpu_update_mode(c);
}

static void iret_prot(struct soft_cpu *c, unsigned size)
{
    if (c->st.rflags & X86_NT) {
        if (cpu_long_mode(c)) {
            raise_gp(c);
        }
        uint16_t link = (uint16_t)mmu_load_sys(c, (uint32_t)c->st.tr.base, 2);
        task_switch(c, link, TASK_IRET, cpu_next_rip(c), false, 0);
        return;
    }
    struct stk s;
    struct desc d;
    stk_current(c, &s);
    uint64_t rip = stk_pop(c, &s, size);
    uint16_t cs = (uint16_t)stk_pop(c, &s, size);
    uint64_t flags = stk_pop(c, &s, size);
    if ((flags & X86_VM) && size == 4 && c->cpl == 0 && !cpu_long_mode(c)) {
        iret_to_v86(c, &s, rip, cs, flags);
        return;
    }
    return_check_cs(c, cs, &d);
    uint64_t mask = iret_mask(c, c->cpl, cpu_iopl(c), size);
    bool with_ss = cpu_code64(c) || (cs & 3u) > c->cpl;
    uint64_t rsp = 0;
    uint16_t ss = 0;
    if (with_ss) {
        rsp = stk_pop(c, &s, size);
        ss = (uint16_t)stk_pop(c, &s, size);
    }
    far_return(c, &d, cs, rip, &s, with_ss, ss, rsp, 0);
    cpu_set_rflags(c, flags, mask);
}

void sys_iret(struct soft_cpu *c, unsigned size)
{
    nmi_unblock(c);
    if (c->mode & MODE_PROT) {
        iret_prot(c, size);
    } else {
        iret_real(c, size);
    }
}

/* --- fast system calls --- */

void sys_syscall(struct soft_cpu *c)
{
    bool lma = cpu_long_mode(c);
    if (!(c->st.efer & EFER_SCE) || !in_prot(c) || (!c->amd && !cpu_code64(c))) {
        cpu_raise(c, EXC_UD);
    }
    uint64_t next = cpu_next_rip(c), flags = cpu_rflags(c);
    uint16_t cs = (uint16_t)(c->st.star >> 32 & 0xfffc);
    c->tf_masked = c->st.sfmask & X86_TF;
    if (lma) {
        c->r[R_11] = flags & ~(uint64_t)X86_RF;
        c->rip = cpu_code64(c) ? c->st.lstar : c->st.cstar;
        c->r[R_CX] = next;
        cs_ss_flat(c, cs, (uint16_t)(cs + 8), 0, true);
        cpu_set_rflags(c, 0, c->st.sfmask | X86_RF);
    } else {
        c->r[R_CX] = (uint32_t)next;
        c->rip = (uint32_t)c->st.star;
        cpu_set_rflags(c, 0, X86_VM | X86_IF | X86_RF);
        cs_ss_flat(c, cs, (uint16_t)(cs + 8), 0, false);
    }
}

void sys_sysret(struct soft_cpu *c, unsigned size)
{
    if (!(c->st.efer & EFER_SCE) || (!c->amd && !cpu_code64(c))) {
        cpu_raise(c, EXC_UD);
    }
    if (!(c->mode & MODE_PROT) || c->cpl != 0) {
        raise_gp(c);
    }
    uint16_t base = (uint16_t)(c->st.star >> 48);
    uint64_t rip = c->r[R_CX];
    bool to64 = cpu_code64(c) && size == 8;
    if (to64 && !canonical(rip) && !c->amd) {
        raise_gp(c);
    }
    bool lma = cpu_long_mode(c), stepped = c->st.rflags & X86_TF;
    cs_ss_flat(c, (uint16_t)((to64 ? base + 16 : base) | 3), (uint16_t)((base + 8) | 3), 3, to64);
    if (lma) {
        cpu_set_rflags(c, c->r[R_11], 0x3c7fd7);
    } else {
        cpu_set_rflags(c, X86_IF, X86_IF);
    }
    c->rip = to64 ? rip : (uint32_t)rip;         /* AMD: a non-canonical one faults at the fetch, at CPL 3 */
    if (!stepped && c->st.rflags & X86_TF) {     /* unlike behind POPF and IRET, the trap comes at once */
        dr6_or(c, DR6_BS);
        c->st.ev.exc_pending = 1;
        c->st.ev.exc_vector = EXC_DB;
        c->st.ev.exc_has_error = 0;
        cpu_pend(c, PEND_IRQ);
    }
}

void sys_sysenter(struct soft_cpu *c)
{
    bool lma = cpu_long_mode(c);
    if (c->amd && lma) {
        cpu_raise(c, EXC_UD);
    }
    if (!in_prot(c) || is_null((uint16_t)c->st.sysenter_cs)) {
        raise_gp(c);
    }
    uint16_t cs = (uint16_t)c->st.sysenter_cs & 0xfffc;
    cpu_set_rflags(c, 0, X86_VM | X86_IF | X86_RF);
    c->r[R_SP] = lma ? c->st.sysenter_esp : (uint32_t)c->st.sysenter_esp;
    c->rip = lma ? c->st.sysenter_eip : (uint32_t)c->st.sysenter_eip;
    cs_ss_flat(c, cs, (uint16_t)(cs + 8), 0, lma);
}

void sys_sysexit(struct soft_cpu *c, unsigned size)
{
    if (c->amd && cpu_long_mode(c)) {
        cpu_raise(c, EXC_UD);
    }
    if (!(c->mode & MODE_PROT) || c->cpl != 0 || is_null((uint16_t)c->st.sysenter_cs)) {
        raise_gp(c);
    }
    bool to64 = cpu_code64(c) && size == 8;
    uint64_t rip = c->r[R_DX], rsp = c->r[R_CX];
    if (to64 && (!canonical(rip) || !canonical(rsp))) {
        raise_gp(c);
    }
    uint16_t cs = (uint16_t)((c->st.sysenter_cs & 0xfffc) + (to64 ? 32 : 16));
    cs_ss_flat(c, cs | 3, (uint16_t)(cs + 8) | 3, 3, to64);
    c->r[R_SP] = to64 ? rsp : (uint32_t)rsp;
    c->rip = to64 ? rip : (uint32_t)rip;
}
