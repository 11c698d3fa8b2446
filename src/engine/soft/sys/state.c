/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between the working state of a vCPU and a plain struct x86_state, and what is derived from it.
 * CPL is SS.DPL, also when SS is null (as VMX and KVM keep it); sys/ keeps that true at every load of SS.
 */
#include <string.h>

#include "engine/soft/sys/sys-int.h"
#include "x86/msr.h"

void soft_cpu_export(const struct soft_cpu *c, struct x86_state *out)
{
    struct soft_cpu *self = c->vm->cpus ? c->vm->cpus[c->index] : NULL;
    if (self == c && c->pv_eoi_pending) {
        pv_eoi_sync(self);          /* an EOI made in memory is not state: settle it first */
    }
    *out = c->st;
    memcpy(out->gpr, c->r, sizeof(out->gpr));
    out->rip = c->rip;
    out->rflags = cpu_rflags(c);
    out->cr8 = c->st.lapic.tpr >> 4;
    out->tsc_offset = c->st.tsc_offset + vm_tsc_skew(c->vm);
}

static void set_valid_bits(struct soft_cpu *c)
{
    static const struct { const char *feature; uint64_t bits; } cr4[] = {
        { "vme", CR4_VME | CR4_PVI }, { "tsc", CR4_TSD }, { "de", CR4_DE }, { "pse", CR4_PSE }, { "pae", CR4_PAE },
        { "mce", CR4_MCE }, { "pge", CR4_PGE }, { "fxsr", CR4_OSFXSR }, { "sse", CR4_OSXMMEXCPT }, { "umip", CR4_UMIP },
        { "fsgsbase", CR4_FSGSBASE }, { "pcid", CR4_PCIDE }, { "xsave", CR4_OSXSAVE }, { "smep", CR4_SMEP }, { "smap", CR4_SMAP },
    };
    static const struct { const char *feature; uint64_t bits; } efer[] = {
        { "syscall", EFER_SCE }, { "lm", EFER_LME | EFER_LMA }, { "nx", EFER_NXE }, { "auto-ibrs", EFER_AUTOIBRS },
    };
    /* SPEC_CTRL and PRED_CMD come with any of the speculation-control features. */
    static const struct { const char *feature; uint32_t bit; } has[] = {
        { "tsc-deadline", HAS_TSC_DEADLINE }, { "x2apic", HAS_X2APIC }, { "tsc-adjust", HAS_TSC_ADJUST }, { "rdtscp", HAS_TSC_AUX },
        { "rdpid", HAS_TSC_AUX }, { "spec-ctrl", HAS_SPEC_CTRL }, { "ibrs", HAS_SPEC_CTRL }, { "amd-stibp", HAS_SPEC_CTRL },
        { "amd-ssbd", HAS_SPEC_CTRL }, { "arch-capabilities", HAS_ARCH_CAPS },
    };
    c->has = 0;
    for (size_t i = 0; i < ARRAY_SIZE(has); i++) {
        c->has |= cpu_model_has(c->model, has[i].feature) ? has[i].bit : 0;
    }
    c->cr4_valid = CR4_PCE;
    for (size_t i = 0; i < ARRAY_SIZE(cr4); i++) {
        c->cr4_valid |= cpu_model_has(c->model, cr4[i].feature) ? cr4[i].bits : 0;
    }
    c->efer_valid = 0;
    for (size_t i = 0; i < ARRAY_SIZE(efer); i++) {
        c->efer_valid |= cpu_model_has(c->model, efer[i].feature) ? efer[i].bits : 0;
    }
    uint32_t v[4];
    cpu_model_cpuid(c->model, 0, 0, 0, 0, 0, v);
    c->amd = v[1] == 0x68747541 /* "Auth" */ || v[1] == 0x6f677948 /* "Hygo" */;
}

void soft_cpu_import(struct soft_cpu *c, const struct x86_state *in)
{
    if (in != &c->st) {
        c->st = *in;
        c->st.tsc_offset = in->tsc_offset - vm_tsc_skew(c->vm);
    }
    memcpy(c->r, c->st.gpr, sizeof(c->st.gpr));
    c->r[R_ZERO] = 0;
    c->rip = c->st.rip;
    c->af = flags_pack(c->st.rflags);
    c->st.rflags |= X86_F1;
    c->st.lapic.tpr = (c->st.lapic.tpr & 15) | (uint32_t)(c->st.cr8 & 15) << 4;
    c->ext = 0;
    c->irq_waiting = c->shutdown = false;
    c->pv_eoi_pending = false;
    c->pv_stale = true;
    atomic_store(&c->pv_kicked, false);
    set_valid_bits(c);
    mmu_flush_all(c);
    cpu_update_mode(c);
    cpu_pend(c, PEND_IRQ | PEND_TIMER | PEND_INIT_SIPI_NMI | (sys_needs_single(c) ? PEND_SHADOW : 0));
}

/* Segments whose bases and limits need no check: ES CS SS DS of 4 GiB with the rights compilers assume. */
static bool is_flat(const struct x86_state *st)
{
    for (unsigned i = SEG_ES; i <= SEG_DS; i++) {
        const struct x86_seg *s = &st->seg[i];
        unsigned want = i == SEG_CS ? 0xa : 0x2, mask = i == SEG_CS ? 0xa : 0xe;
        if (s->unusable || s->base || s->limit != 0xffffffff || (s->attr & mask) != want) {
            return false;
        }
    }
    return true;
}

static uint8_t fpu_trap(const struct x86_state *st)
{
    bool avx = (st->cr4 & CR4_OSXSAVE) && (st->xcr0 & 6) == 6;
    return (st->cr0 & (CR0_EM | CR0_TS)) || !(st->cr4 & CR4_OSFXSR) || !avx;
}

void cpu_update_mode(struct soft_cpu *c)
{
    const struct x86_state *st = &c->st;
    const struct x86_seg *cs = &st->seg[SEG_CS], *ss = &st->seg[SEG_SS];
    bool prot = in_prot(c), v86 = in_v86(c);
    bool code64 = (st->efer & EFER_LMA) && (cs->attr & SEGA_L);
    uint32_t mode = code64 ? INSN_MODE_64 : cs->attr & SEGA_DB ? INSN_MODE_32 : INSN_MODE_16;
    if (!code64 && (ss->attr & SEGA_DB)) {
        mode |= MODE_SS32;
    }
    c->cpl = !prot ? 0 : v86 ? 3 : (ss->attr >> SEGA_DPL_SHIFT) & 3;
    mode |= (uint32_t)c->cpl << MODE_CPL_SHIFT;
    if (prot && !v86) {
        mode |= MODE_PROT;
    }
    if (code64 || ((mode & MODE_PROT) && is_flat(st))) {
        mode |= MODE_FLAT;
    }
    c->mode = mode;
    for (unsigned i = 0; i < N_SEGS; i++) {
        c->segbase[i] = !code64 ? (uint32_t)st->seg[i].base : i >= SEG_FS ? st->seg[i].base : 0;
    }
    c->fpu_trap = fpu_trap(st);
    c->df_step = st->rflags & X86_DF ? -1 : 1;
    mmu_select_context(c);
}

void cpu_set_rflags(struct soft_cpu *c, uint64_t value, uint64_t mask)
{
    uint64_t old = cpu_rflags(c), now = (old & ~mask) | (value & mask) | X86_F1;
    uint64_t changed = old ^ now;
    c->st.rflags = now;
    c->af = flags_pack(now);
    if (changed & X86_DF) {
        c->df_step = now & X86_DF ? -1 : 1;
    }
    if (changed & X86_AC) {
        mmu_select_context(c);
    }
    if (now & (X86_TF | X86_RF)) {
        cpu_pend(c, PEND_SHADOW);
    }
    if ((changed & now & X86_IF) && c->irq_waiting) {
        cpu_pend(c, PEND_IRQ);
    }
}

/* --- one instruction at a time: TF, RF, shadows, instruction breakpoints --- */

static bool code_breakpoint(const struct x86_state *st, unsigned i)
{
    return (st->dr7 >> (2 * i) & 3) && (st->dr7 >> (16 + 4 * i) & 15) == 0;
}

bool sys_needs_single(const struct soft_cpu *c)
{
    if ((c->st.rflags & (X86_TF | X86_RF)) || c->st.ev.int_shadow) {
        return true;
    }
    for (unsigned i = 0; (c->st.dr7 & 0xff) && i < 4; i++) {
        if (code_breakpoint(&c->st, i)) {
            return true;
        }
    }
    return false;
}

bool sys_step_begin(struct soft_cpu *c)
{
    c->tf_masked = false;
    uint64_t hit = 0, lin = c->rip + c->segbase[SEG_CS];
    if (!cpu_code64(c)) {
        lin = (uint32_t)lin;
    }
    for (unsigned i = 0; (c->st.dr7 & 0xff) && i < 4; i++) {
        hit |= code_breakpoint(&c->st, i) && c->st.dr[i] == lin ? 1u << i : 0;
    }
    if (!hit || (c->st.rflags & X86_RF)) {
        return true;
    }
    dr6_or(c, hit);
    c->shutdown |= !event_deliver(c, (struct event){ .vector = EXC_DB, .ret = c->rip });
    return false;
}

void sys_step_done(struct soft_cpu *c, uint64_t old_rflags)
{
    if (old_rflags & X86_RF) {
        c->st.rflags &= ~(uint64_t)X86_RF;
    }
    sys_trap(c, (old_rflags & X86_TF) && !c->tf_masked);
}

void sys_trap(struct soft_cpu *c, bool step)
{
    if ((!step && likely(!c->watch_hits)) || c->st.ev.int_shadow == 2) {
        return;                 /* behind MOV SS hits wait for the next instruction */
    }
    dr6_or(c, c->watch_hits | (step ? DR6_BS : 0));
    c->watch_hits = 0;
    if (c->st.ev.halted) {      /* behind HLT: the trap ends it */
        c->st.ev.halted = 0;
        c->st.ev.mp_state = MP_RUNNABLE;
    }
    c->shutdown |= !event_deliver(c, (struct event){ .vector = EXC_DB, .ret = c->rip });
}
