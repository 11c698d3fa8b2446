/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The field table of CPU state, its values after power-on and INIT, and what a loaded state may be. The table's reset
 * values are those of a boot CPU where they do not depend on who it is; x86_state_reset adds the rest.
 * Sources: SDM vol. 3A table 9-1 (power-up, RESET, INIT), §10.4.7 (local APIC), §13.6 (XSAVE), vol. 3C §26.3.1 (checks
 * a CPU makes of a guest state it is handed).
 */
#include "x86/x86_state.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "x86/msr.h"
#include "x86/paging.h"

/* In the XSAVE image. */
enum { XS_FCW = 0, XS_FTW = 4, XS_MXCSR = 24, XS_MXCSR_MASK = 28, XS_XSTATE_BV = 512, XS_XCOMP_BV = 520, XS_HEADER_END = 576 };
enum { MXCSR_RESET = 0x1f80, MXCSR_VALID = 0xffff };
#define XCR0_X87 (1ull << 0)
#define XCR0_SSE (1ull << 1)
#define XCR0_AVX (1ull << 2)
#define XCR0_AVX512 (7ull << 5)
#define XCR0_PKRU (1ull << 9)

#define RFLAGS_VALID 0x3f7fd7ull
#define CR0_VALID (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR4_VALID                                                                                       \
    (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | \
     CR4_UMIP | CR4_LA57 | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP | CR4_PKE)
#define EFER_VALID (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_FFXSR | EFER_AUTOIBRS)

static const struct state_field seg_fields[] = {
    STATE(struct x86_seg, base),
    STATE(struct x86_seg, limit, .reset = 0xffff),
    STATE(struct x86_seg, sel),
    STATE(struct x86_seg, attr, .reset = SEGA_P | SEGA_S | 3),
    STATE(struct x86_seg, unusable, .max = 1),
    STATE_END
};

static const struct state_field dtable_fields[] = {
    STATE(struct x86_dtable, base),
    STATE(struct x86_dtable, limit, .reset = 0xffff),
    STATE_END
};

static const struct state_field events_fields[] = {
    STATE(struct x86_events, exc_pending, .max = 1),
    STATE(struct x86_events, exc_vector, .max = 31),
    STATE(struct x86_events, exc_has_error, .max = 1),
    STATE(struct x86_events, exc_error),
    STATE(struct x86_events, exc_cr2),
    STATE(struct x86_events, int_shadow, .max = 3),
    STATE(struct x86_events, nmi_pending, .max = 1),
    STATE(struct x86_events, nmi_blocked, .max = 1),
    STATE(struct x86_events, smi_pending, .max = 1),
    STATE(struct x86_events, halted, .max = 1),
    STATE(struct x86_events, mp_state, .max = N_MP_STATES - 1),
    STATE(struct x86_events, sipi_vector),
    STATE(struct x86_events, init_pending, .max = 1),
    STATE(struct x86_events, sipi_pending, .max = 1),
    STATE_END
};

enum { LVT_MASKED = 1 << 16, LAPIC_VERSION = 0x50014 /* 6 LVT entries, integrated */ };

static const struct state_field lapic_fields[] = {
    STATE(struct x86_lapic, base_msr, .reset = APICBASE_DEFAULT | APICBASE_EN),
    STATE(struct x86_lapic, id),
    STATE(struct x86_lapic, version, .reset = LAPIC_VERSION),
    STATE(struct x86_lapic, tpr, .max = 0xff),
    STATE(struct x86_lapic, ldr),
    STATE(struct x86_lapic, dfr, .reset = 0xffffffff),
    STATE(struct x86_lapic, svr, .reset = 0xff),
    STATE(struct x86_lapic, esr),
    STATE(struct x86_lapic, esr_pending),
    STATE_ARRAY(struct x86_lapic, isr),
    STATE_ARRAY(struct x86_lapic, tmr),
    STATE_ARRAY(struct x86_lapic, irr),
    STATE(struct x86_lapic, icr),
    STATE(struct x86_lapic, lvt_timer, .reset = LVT_MASKED),
    STATE(struct x86_lapic, lvt_thermal, .reset = LVT_MASKED),
    STATE(struct x86_lapic, lvt_perf, .reset = LVT_MASKED),
    STATE(struct x86_lapic, lvt_lint0, .reset = LVT_MASKED),
    STATE(struct x86_lapic, lvt_lint1, .reset = LVT_MASKED),
    STATE(struct x86_lapic, lvt_error, .reset = LVT_MASKED),
    STATE(struct x86_lapic, lvt_cmci, .reset = LVT_MASKED),
    STATE(struct x86_lapic, timer_initial),
    STATE(struct x86_lapic, timer_divide, .max = 0xf),
    STATE(struct x86_lapic, timer_start_ns),
    STATE(struct x86_lapic, tsc_deadline),
    STATE(struct x86_lapic, extint, .max = 1),
    STATE_END
};

const struct state_field x86_state_fields[] = {
    STATE_ARRAY(struct x86_state, gpr),
    STATE(struct x86_state, rip, .reset = 0xfff0),
    STATE(struct x86_state, rflags, .reset = X86_F1),
    STATE_STRUCTS(struct x86_state, seg, seg_fields),
    STATE_STRUCT(struct x86_state, ldt, seg_fields),
    STATE_STRUCT(struct x86_state, tr, seg_fields),
    STATE_STRUCT(struct x86_state, gdt, dtable_fields),
    STATE_STRUCT(struct x86_state, idt, dtable_fields),
    STATE(struct x86_state, cr0, .reset = CR0_ET | CR0_NW | CR0_CD),
    STATE(struct x86_state, cr2),
    STATE(struct x86_state, cr3),
    STATE(struct x86_state, cr4),
    STATE(struct x86_state, cr8, .max = 15),
    STATE(struct x86_state, xcr0, .reset = XCR0_X87),
    STATE_ARRAY(struct x86_state, dr),
    STATE(struct x86_state, dr6, .reset = 0xffff0ff0),
    STATE(struct x86_state, dr7, .reset = 0x400),
    STATE_ARRAY(struct x86_state, pdpte),
    STATE(struct x86_state, efer),
    STATE(struct x86_state, star),
    STATE(struct x86_state, lstar),
    STATE(struct x86_state, cstar),
    STATE(struct x86_state, sfmask),
    STATE(struct x86_state, kernel_gs_base),
    STATE(struct x86_state, sysenter_cs),
    STATE(struct x86_state, sysenter_esp),
    STATE(struct x86_state, sysenter_eip),
    STATE(struct x86_state, tsc_offset),
    STATE(struct x86_state, tsc_adjust),
    STATE(struct x86_state, tsc_aux, .max = UINT32_MAX),
    STATE(struct x86_state, pat, .reset = PAT_RESET),
    STATE(struct x86_state, misc_enable, .reset = MISC_ENABLE_FAST_STRING | MISC_ENABLE_BTS_UNAVAIL | MISC_ENABLE_PEBS_UNAVAIL),
    STATE(struct x86_state, spec_ctrl),
    STATE(struct x86_state, debugctl),
    STATE(struct x86_state, feature_control),
    STATE(struct x86_state, mcg_status),
    STATE(struct x86_state, xss),
    STATE(struct x86_state, pkru, .max = UINT32_MAX),
    STATE(struct x86_state, mtrr_def),
    STATE_ARRAY(struct x86_state, mtrr_fixed),
    STATE_ARRAY(struct x86_state, mtrr_var),
    STATE(struct x86_state, kvm_system_time),
    STATE(struct x86_state, kvm_wall_clock),
    STATE(struct x86_state, kvm_pv_eoi),
    STATE(struct x86_state, kvm_steal_time),
    STATE(struct x86_state, kvm_poll_control, .reset = 1),
    STATE(struct x86_state, kvm_async_pf),
    STATE_BYTES(struct x86_state, xsave),
    STATE_STRUCT(struct x86_state, ev, events_fields),
    STATE_STRUCT(struct x86_state, lapic, lapic_fields),
    STATE_END
};

enum { SEG_CS = 1, DX_FAMILY_6 = 0x600 };

/* What RESET and INIT share: segments, DX, and where this CPU goes next. */
static void set_start(struct x86_state *st, bool bsp)
{
    st->gpr[R_DX] = DX_FAMILY_6;
    st->seg[SEG_CS].sel = 0xf000;
    st->seg[SEG_CS].base = 0xffff0000;
    st->seg[SEG_CS].attr = SEGA_P | SEGA_S | 0xb;
    st->ldt.attr = SEGA_P | 2;
    st->tr.attr = SEGA_P | 0xb;         /* busy TSS: what hardware virtualization insists on */
    st->ev.mp_state = bsp ? MP_RUNNABLE : MP_WAIT_SIPI;
}

void x86_state_reset(struct x86_state *st, uint32_t apic_id, bool bsp)
{
    memset(st, 0, sizeof(*st));
    state_reset(x86_state_fields, st);
    set_start(st, bsp);
    st->lapic.id = apic_id;
    st->lapic.base_msr |= bsp ? APICBASE_BSP : 0;
    /* x87 after power-up, which is not what FNINIT makes: control word 0040h, all registers +0 and valid. */
    store_le16(st->xsave + XS_FCW, 0x0040);
    st->xsave[XS_FTW] = 0xff;
    store_le32(st->xsave + XS_MXCSR, MXCSR_RESET);
    store_le32(st->xsave + XS_MXCSR_MASK, MXCSR_VALID);
    store_le64(st->xsave + XS_XSTATE_BV, XCR0_X87);
}

/* The local APIC is reset but for its id and mode; in x2APIC mode the logical id follows from the id. SDM §10.12.5.1, §10.12.10.2. */
static void keep_lapic(struct x86_state *st, const struct x86_lapic *old)
{
    st->lapic.base_msr = old->base_msr;
    st->lapic.id = old->id;
    st->lapic.version = old->version;
    st->lapic.extint = old->extint;     /* a wire, not ours to lower */
    if (old->base_msr & APICBASE_EXTD) {
        st->lapic.ldr = old->id >> 4 << 16 | 1u << (old->id & 15);
    }
}

void x86_state_init_ipi(struct x86_state *st, bool bsp)
{
    const struct x86_state old = *st;
    state_reset(x86_state_fields, st);
    set_start(st, bsp);
    st->cr0 = CR0_ET | (old.cr0 & (CR0_CD | CR0_NW));
    memcpy(st->xsave, old.xsave, sizeof(st->xsave));
    st->xcr0 = old.xcr0;
    st->xss = old.xss;
    st->pkru = old.pkru;
    st->pat = old.pat;
    st->mtrr_def = old.mtrr_def;
    memcpy(st->mtrr_fixed, old.mtrr_fixed, sizeof(st->mtrr_fixed));
    memcpy(st->mtrr_var, old.mtrr_var, sizeof(st->mtrr_var));
    st->tsc_offset = old.tsc_offset;
    st->tsc_adjust = old.tsc_adjust;
    st->tsc_aux = old.tsc_aux;
    st->misc_enable = old.misc_enable;
    st->feature_control = old.feature_control;         /* its lock bit outlives INIT */
    st->mcg_status = old.mcg_status;
    keep_lapic(st, &old.lapic);
}

static bool bad(struct err *err, const char *what, uint64_t v)
{
    return err_set(err, ERR_INVALID, "no CPU can have %s = %#" PRIx64, what, v);
}

static bool control_valid(const struct x86_state *st, struct err *err)
{
    bool paging = st->cr0 & CR0_PG, lma = st->efer & EFER_LMA;
    if ((st->cr0 & ~CR0_VALID) || (paging && !(st->cr0 & CR0_PE)) || ((st->cr0 & CR0_NW) && !(st->cr0 & CR0_CD))) {
        return bad(err, "CR0", st->cr0);
    }
    if ((st->efer & ~EFER_VALID) || lma != (paging && (st->efer & EFER_LME))) {
        return bad(err, "EFER", st->efer);
    }
    if ((st->cr4 & ~CR4_VALID) || (lma && !(st->cr4 & CR4_PAE)) || (!lma && (st->cr4 & CR4_PCIDE))) {
        return bad(err, "CR4", st->cr4);
    }
    if (st->cr3 >> 52) {        /* over 32 bits it is kept, though ignored, when long mode is left */
        return bad(err, "CR3", st->cr3);
    }
    if (st->cr8 > 15) {
        return bad(err, "CR8", st->cr8);
    }
    if (st->dr6 >> 32 || st->dr7 >> 32) {
        return bad(err, "a debug register", st->dr6 >> 32 ? st->dr6 : st->dr7);
    }
    for (unsigned i = 0; paging && !lma && (st->cr4 & CR4_PAE) && i < ARRAY_SIZE(st->pdpte); i++) {
        if ((st->pdpte[i] & PTE_P) && (st->pdpte[i] & (PDPTE_PAE_RSVD | ~(PTE_ADDR | 0xfff)))) {
            return bad(err, "a page-directory pointer", st->pdpte[i]);
        }
    }
    return true;
}

/* Linear addresses that the CPU checks when they are loaded. */
static bool addresses_valid(const struct x86_state *st, unsigned bits, struct err *err)
{
    const struct {
        const char *name;
        uint64_t va;
    } regs[] = {
        { "LSTAR", st->lstar }, { "CSTAR", st->cstar }, { "KERNEL_GS_BASE", st->kernel_gs_base },
        { "SYSENTER_ESP", st->sysenter_esp }, { "SYSENTER_EIP", st->sysenter_eip },
        { "GDT base", st->gdt.base }, { "IDT base", st->idt.base },
    };
    for (size_t i = 0; i < ARRAY_SIZE(regs); i++) {
        if (canonical(regs[i].va, bits) != regs[i].va) {
            return bad(err, regs[i].name, regs[i].va);
        }
    }
    return true;
}

enum { SEGA_VALID = SEGA_TYPE | SEGA_S | 3 << SEGA_DPL_SHIFT | SEGA_P | SEGA_AVL | SEGA_L | SEGA_DB | SEGA_G };

static bool seg_valid(const struct x86_seg *s, const char *name, unsigned base_bits, struct err *err)
{
    if (s->unusable > 1 || (s->attr & ~SEGA_VALID)) {
        return bad(err, name, s->attr);
    }
    /* 32 bits for a segment that has no 64-bit base; else the canonical width. */
    if (base_bits == 32 ? s->base >> 32 : canonical(s->base, base_bits) != s->base) {
        return bad(err, name, s->base);
    }
    if (s->unusable) {
        return true;
    }
    /* A limit in bytes that no descriptor can say. */
    if (((s->limit & 0xfff) != 0xfff && (s->attr & SEGA_G)) || (s->limit >> 20 && !(s->attr & SEGA_G))) {
        return bad(err, name, s->limit);
    }
    return true;
}

static bool segments_valid(const struct x86_state *st, unsigned bits, struct err *err)
{
    static const char *const names[] = { "ES", "CS", "SS", "DS", "FS", "GS" };
    bool lma = st->efer & EFER_LMA;
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        if (!seg_valid(&st->seg[i], names[i], i < 4 && !st->seg[i].unusable ? 32 : bits, err)) {
            return false;
        }
    }
    const struct x86_seg *cs = &st->seg[SEG_CS];
    if (cs->unusable || (lma && (cs->attr & SEGA_L) && (cs->attr & SEGA_DB))) {
        return bad(err, "CS", cs->attr);
    }
    if (!seg_valid(&st->ldt, "LDT", bits, err) || !seg_valid(&st->tr, "TR", bits, err)) {
        return false;
    }
    if (!st->ldt.unusable && (st->ldt.attr & (SEGA_S | SEGA_TYPE)) != 2) {
        return bad(err, "LDT", st->ldt.attr);
    }
    unsigned type = st->tr.attr & (SEGA_S | SEGA_TYPE);
    if (!st->tr.unusable && type != 11 && (lma || type != 3)) {
        return bad(err, "TR", st->tr.attr);
    }
    return true;
}

static bool flow_valid(const struct x86_state *st, unsigned bits, struct err *err)
{
    bool lma = st->efer & EFER_LMA;
    if ((st->rflags & ~RFLAGS_VALID) || !(st->rflags & X86_F1) ||
        ((st->rflags & X86_VM) && (lma || !(st->cr0 & CR0_PE)))) {
        return bad(err, "RFLAGS", st->rflags);
    }
    if (lma && (st->seg[SEG_CS].attr & SEGA_L) ? canonical(st->rip, bits) != st->rip : st->rip >> 32) {
        return bad(err, "RIP", st->rip);
    }
    /* Vectors with an error code: #DF #TS #NP #SS #GP #PF #AC. */
    bool with_error = st->ev.exc_vector < 32 && (1u << st->ev.exc_vector & 0x27d00);
    if (st->ev.exc_pending && (st->ev.exc_vector > 31 || st->ev.exc_vector == EXC_NMI || (st->ev.exc_has_error && !with_error))) {
        return bad(err, "a pending exception", st->ev.exc_vector);
    }
    return st->ev.mp_state < N_MP_STATES || bad(err, "MP state", st->ev.mp_state);
}

static bool memtype_valid(uint8_t t, bool in_pat)
{
    return t == MEMTYPE_UC || t == MEMTYPE_WC || (t >= MEMTYPE_WT && t <= (in_pat ? MEMTYPE_UC_MINUS : MEMTYPE_WB));
}

static bool memtypes_valid(uint64_t v, bool in_pat)
{
    for (unsigned i = 0; i < 8; i++) {
        if (!memtype_valid(v >> 8 * i & 0xff, in_pat)) {
            return false;
        }
    }
    return true;
}

static bool memory_types_valid(const struct x86_state *st, struct err *err)
{
    if (!memtypes_valid(st->pat, true)) {
        return bad(err, "PAT", st->pat);
    }
    if ((st->mtrr_def & ~(MTRR_DEF_E | MTRR_DEF_FE | 0xff)) || !memtype_valid(st->mtrr_def & 0xff, false)) {
        return bad(err, "MTRR default type", st->mtrr_def);
    }
    for (unsigned i = 0; i < N_MTRR_FIXED; i++) {
        if (!memtypes_valid(st->mtrr_fixed[i], false)) {
            return bad(err, "a fixed MTRR", st->mtrr_fixed[i]);
        }
    }
    for (unsigned i = 0; i < 2 * N_MTRR_VAR; i++) {
        uint64_t v = st->mtrr_var[i];
        bool ok = i & 1 ? !(v & 0x7ff) : !(v & 0xf00) && memtype_valid(v & 0xff, false);
        if (!ok || v >> 52) {
            return bad(err, "a variable MTRR", v);
        }
    }
    return true;
}

/*
 * An engine hands the image to the host CPU by XRSTOR, where a bad header or MXCSR faults in the host: checked here for
 * all engines. That the components are ones this machine has is the engine's to check, against its model.
 */
static bool xsave_valid(const struct x86_state *st, struct err *err)
{
    uint64_t x = st->xcr0, bv = load_le64(st->xsave + XS_XSTATE_BV);
    uint64_t avx512 = x & XCR0_AVX512;
    if ((x & ~(XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512 | XCR0_PKRU)) || !(x & XCR0_X87) || ((x & XCR0_AVX) && !(x & XCR0_SSE)) ||
        (avx512 && (avx512 != XCR0_AVX512 || !(x & XCR0_AVX)))) {
        return bad(err, "XCR0", x);
    }
    if (bv & ~(XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512 | XCR0_PKRU)) {
        return bad(err, "XSTATE_BV", bv);
    }
    for (unsigned i = XS_XCOMP_BV; i < XS_HEADER_END; i++) {
        if (st->xsave[i]) {
            return bad(err, "a reserved byte of the XSAVE header", st->xsave[i]);
        }
    }
    uint32_t mxcsr = load_le32(st->xsave + XS_MXCSR);
    return !(mxcsr & ~(uint32_t)MXCSR_VALID) || bad(err, "MXCSR", mxcsr);
}

static bool lapic_valid(const struct x86_lapic *l, struct err *err)
{
    bool x2_off = (l->base_msr & APICBASE_EXTD) && !(l->base_msr & APICBASE_EN);
    if ((l->base_msr & 0x2ff) || l->base_msr >> 52 || x2_off) {
        return bad(err, "APIC_BASE", l->base_msr);
    }
    if (l->tpr > 0xff) {
        return bad(err, "TPR", l->tpr);
    }
    return !(l->timer_divide & ~0xbu) || bad(err, "the APIC timer's divide register", l->timer_divide);
}

bool x86_state_valid(const struct x86_state *st, struct err *err)
{
    unsigned bits = st->cr4 & CR4_LA57 ? 57 : 48;
    return control_valid(st, err) && addresses_valid(st, bits, err) && segments_valid(st, bits, err) &&
           flow_valid(st, bits, err) && memory_types_valid(st, err) && xsave_valid(st, err) && lapic_valid(&st->lapic, err);
}
