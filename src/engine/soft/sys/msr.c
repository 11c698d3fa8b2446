/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Model-specific registers. What a model does not have is #GP, as on hardware: kernels probe that way. Sources: SDM vol. 4;
 * AMD APM vol. 2 appendix A. AMD configuration MSRs that kernels read without a net answer fixed values and ignore writes.
 */
#include "base/log.h"
#include "engine/soft/sys/sys-int.h"
#include "x86/msr.h"

/* Plain 64-bit registers in x86_state. canon: the value must be canonical. */
static const struct {
    uint32_t msr;
    uint32_t off;
    bool canon;
} plain[] = {
    { MSR_STAR, offsetof(struct x86_state, star), false },
    { MSR_LSTAR, offsetof(struct x86_state, lstar), true },
    { MSR_CSTAR, offsetof(struct x86_state, cstar), true },
    { MSR_KERNEL_GS_BASE, offsetof(struct x86_state, kernel_gs_base), true },
    { MSR_SYSENTER_CS, offsetof(struct x86_state, sysenter_cs), false },
    { MSR_SYSENTER_ESP, offsetof(struct x86_state, sysenter_esp), true },
    { MSR_SYSENTER_EIP, offsetof(struct x86_state, sysenter_eip), true },
    { MSR_MISC_ENABLE, offsetof(struct x86_state, misc_enable), false },
    { MSR_MCG_STATUS, offsetof(struct x86_state, mcg_status), false },
};

/* Registers that always read the same; writes are accepted and forgotten when `ignore`. */
static const struct fixed_msr {
    uint32_t msr;
    uint64_t val;
    bool amd_only, ignore;
} fixed[] = {
    { MSR_PLATFORM_ID, 0, false, false },
    { MSR_UCODE_WRITE, 0, false, true },
    { MSR_UCODE_REV, 0x100000000, false, true },
    { MSR_SMI_COUNT, 0, false, false },
    { MSR_MTRR_CAP, 0x508 /* 8 variable, fixed, WC */, false, false },
    { MSR_MCG_CAP, 0 /* no banks */, false, false },
    { MSR_PERF_STATUS, 0x1000000003e8, false, false },
    { MSR_AMD_SYSCFG, 0, true, true },
    { MSR_AMD_HWCR, HWCR_TSC_FREQ_SEL, true, true },
    { MSR_AMD_TOP_MEM, 0, true, true },
    { MSR_AMD_TOP_MEM2, 0, true, true },
    { MSR_AMD_NB_CFG, 0, true, true },
    { MSR_AMD_PATCH_LOADER, 0, true, true },
    { MSR_AMD_INT_PENDING, 0, true, true },
    { MSR_AMD_LS_CFG, 0, true, true },
    { MSR_AMD_DC_CFG, 0, true, true },
    { MSR_AMD_TW_CFG, 0, true, true },
    { MSR_AMD_DE_CFG, DE_CFG_LFENCE_SERIALIZE, true, true },
    { MSR_AMD_BU_CFG2, 0, true, true },
};

static uint64_t *plain_reg(struct soft_cpu *c, uint32_t msr, bool *canon)
{
    for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
        if (plain[i].msr == msr) {
            *canon = plain[i].canon;
            return (uint64_t *)(void *)((char *)&c->st + plain[i].off);
        }
    }
    return NULL;
}

static const struct fixed_msr *fixed_reg(const struct soft_cpu *c, uint32_t msr)
{
    /* Every AMD CPU has these four counters, whatever CPUID says: they count nothing here. APM vol. 2 13.2. */
    static const struct fixed_msr k7_counter = { MSR_K7_EVNTSEL0, 0, true, true };
    if (c->amd && msr >= MSR_K7_EVNTSEL0 && msr < MSR_K7_EVNTSEL0 + 8) {
        return &k7_counter;
    }
    for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
        if (fixed[i].msr == msr && (c->amd || !fixed[i].amd_only)) {
            return &fixed[i];
        }
    }
    return NULL;
}

/* The memory-type range registers: stored, and without effect. */
static uint64_t *mtrr_reg(struct soft_cpu *c, uint32_t msr)
{
    if (msr >= MSR_MTRR_VAR0 && msr < MSR_MTRR_VAR0 + 2 * N_MTRR_VAR) {
        return &c->st.mtrr_var[msr - MSR_MTRR_VAR0];
    }
    if (msr >= MSR_MTRR_FIX4K && msr < MSR_MTRR_FIX4K + 8) {
        return &c->st.mtrr_fixed[3 + msr - MSR_MTRR_FIX4K];
    }
    switch (msr) {
    case MSR_MTRR_FIX64K: return &c->st.mtrr_fixed[0];
    case MSR_MTRR_FIX16K_80000: return &c->st.mtrr_fixed[1];
    case MSR_MTRR_FIX16K_A0000: return &c->st.mtrr_fixed[2];
    case MSR_MTRR_DEF: return &c->st.mtrr_def;
    default: return NULL;
    }
}

static bool mem_type_ok(uint64_t t)
{
    return t <= 1 || (t >= 4 && t <= 6);
}

static bool mtrr_valid(const struct soft_cpu *c, uint32_t msr, uint64_t val)
{
    uint64_t phys = ~((1ull << c->model->phys_bits) - 1);
    if (msr == MSR_MTRR_DEF) {
        return !(val & ~0xcffull) && mem_type_ok(val & 0xff);
    }
    if (msr >= MSR_MTRR_VAR0 && msr < MSR_MTRR_VAR0 + 2 * N_MTRR_VAR) {
        return (msr & 1) ? !(val & (phys | 0x7ff)) : !(val & (phys | 0xf00)) && mem_type_ok(val & 0xff);
    }
    for (unsigned i = 0; i < 8; i++) {
        if (!mem_type_ok(val >> (8 * i) & 0xff)) {
            return false;
        }
    }
    return true;
}

static bool pat_valid(uint64_t val)
{
    for (unsigned i = 0; i < 8; i++) {
        uint64_t t = val >> (8 * i) & 0xff;
        if (!mem_type_ok(t) && t != 7) {
            return false;
        }
    }
    return true;
}

static bool rdmsr_special(struct soft_cpu *c, uint32_t msr, uint64_t *val)
{
    switch (msr) {
    case MSR_TSC: *val = sys_read_tsc(c); return true;
    case MSR_APIC_BASE: *val = c->st.lapic.base_msr; return true;
    case MSR_FEATURE_CONTROL: *val = 1 /* locked, nothing enabled */; return !c->amd;
    case MSR_TSC_ADJUST: *val = c->st.tsc_adjust; return (c->has & HAS_TSC_ADJUST);
    case MSR_SPEC_CTRL: *val = c->st.spec_ctrl; return (c->has & HAS_SPEC_CTRL);
    case MSR_PLATFORM_INFO: *val = (c->vm->tsc_khz / 100000 & 0xff) << 8; return true;
    case MSR_ARCH_CAPABILITIES: *val = c->model->arch_caps; return (c->has & HAS_ARCH_CAPS);
    case MSR_DEBUGCTL: *val = c->st.debugctl; return true;
    case MSR_PAT: *val = c->st.pat; return true;
    case MSR_TSC_DEADLINE: *val = lapic_tsc_deadline(c); return (c->has & HAS_TSC_DEADLINE);
    case MSR_EFER: *val = c->st.efer; return true;
    case MSR_SFMASK: *val = c->st.sfmask; return true;
    case MSR_FS_BASE: *val = c->st.seg[SEG_FS].base; return true;
    case MSR_GS_BASE: *val = c->st.seg[SEG_GS].base; return true;
    case MSR_TSC_AUX: *val = c->st.tsc_aux; return c->has & HAS_TSC_AUX;
    default:
        *val = 0;
        return msr >= MSR_LASTBRANCH_FROM && msr <= MSR_LASTINT_TO;
    }
}

bool sys_rdmsr(struct soft_cpu *c, uint32_t msr, uint64_t *val)
{
    bool canon, ok;
    const uint64_t *reg = plain_reg(c, msr, &canon);
    const struct fixed_msr *f;
    reg = reg ? reg : mtrr_reg(c, msr);
    if (reg) {
        *val = *reg;
        return true;
    }
    if (msr >= MSR_X2APIC && msr <= MSR_X2APIC_END) {
        return lapic_msr_read(c, msr, val);
    }
    if (c->model->kvm_pv && pv_rdmsr(c, msr, val)) {
        return true;
    }
    if ((f = fixed_reg(c, msr))) {
        *val = f->val;
        return true;
    }
    ok = rdmsr_special(c, msr, val);
    if (!ok) {
        LOG_LIMITED(LOG_DEBUG, "soft", "CPU %u reads unknown MSR %x", c->index, msr);
    }
    return ok;
}

static bool tsc_write(struct soft_cpu *c, uint64_t offset_change)
{
    c->st.tsc_offset += offset_change;
    c->st.tsc_adjust += offset_change;
    pv_clock_write(c);
    cpu_pend(c, PEND_TIMER);
    return true;
}

static bool seg_base_write(struct soft_cpu *c, unsigned seg, uint64_t val)
{
    if (!canonical(val)) {
        return false;
    }
    c->st.seg[seg].base = val;
    cpu_update_mode(c);
    return true;
}

static bool wrmsr_special(struct soft_cpu *c, uint32_t msr, uint64_t val)
{
    switch (msr) {
    case MSR_TSC: return tsc_write(c, val - sys_read_tsc(c));
    case MSR_TSC_ADJUST: return (c->has & HAS_TSC_ADJUST) && tsc_write(c, val - c->st.tsc_adjust);
    case MSR_APIC_BASE: return lapic_base_write(c, val);
    case MSR_SPEC_CTRL:
        if (!(c->has & HAS_SPEC_CTRL) || (val & ~0x487ull)) {
            return false;
        }
        c->st.spec_ctrl = val;
        return true;
    case MSR_PRED_CMD: return (c->has & HAS_SPEC_CTRL) && !(val & ~0x81ull);      /* IBPB, SBPB: nothing to flush */
    case MSR_DEBUGCTL:
        if (val & ~0x3full) {
            return false;
        }
        c->st.debugctl = val;
        return true;
    case MSR_PAT:
        if (!pat_valid(val)) {
            return false;
        }
        c->st.pat = val;
        return true;
    case MSR_TSC_DEADLINE:
        if (!(c->has & HAS_TSC_DEADLINE)) {
            return false;
        }
        lapic_set_tsc_deadline(c, val);
        return true;
    case MSR_EFER: return efer_write(c, val);
    case MSR_SFMASK: c->st.sfmask = (uint32_t)val; return true;
    case MSR_FS_BASE: return seg_base_write(c, SEG_FS, val);
    case MSR_GS_BASE: return seg_base_write(c, SEG_GS, val);
    case MSR_TSC_AUX:
        if ((val >> 32) || !(c->has & HAS_TSC_AUX)) {
            return false;
        }
        c->st.tsc_aux = val;
        return true;
    default:
        return false;
    }
}

bool sys_wrmsr(struct soft_cpu *c, uint32_t msr, uint64_t val)
{
    bool canon = false, ok;
    if (msr == MSR_TSC_DEADLINE || (msr >= MSR_X2APIC && msr <= MSR_X2APIC_END)) {      /* the hot ones */
        return msr == MSR_TSC_DEADLINE ? wrmsr_special(c, msr, val) : lapic_msr_write(c, msr, val);
    }
    uint64_t *reg = plain_reg(c, msr, &canon);
    const struct fixed_msr *f;
    if (reg) {
        if (canon && !canonical(val)) {
            return false;
        }
        *reg = val;
        return true;
    }
    if ((reg = mtrr_reg(c, msr))) {
        if (!mtrr_valid(c, msr, val)) {
            return false;
        }
        *reg = val;
        return true;
    }
    if (c->model->kvm_pv && pv_wrmsr(c, msr, val)) {
        return true;
    }
    if ((f = fixed_reg(c, msr))) {
        return f->ignore;
    }
    ok = wrmsr_special(c, msr, val);
    if (!ok) {
        LOG_LIMITED(LOG_DEBUG, "soft", "CPU %u writes %llx to unknown or guarded MSR %x", c->index, (unsigned long long)val, msr);
    }
    return ok;
}
