/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Everything a guest CPU is, and nothing of an engine. A VM saved under one engine resumes under the other because this
 * struct and its field table (x86_state_fields) are the only form in which CPU state crosses an engine's boundary.
 * Sources: Intel SDM vol. 3A ch. 2, 3, 9 (state after reset), 10 (local APIC), 13 (XSAVE).
 */
#ifndef LODGE_X86_X86_STATE_H
#define LODGE_X86_X86_STATE_H

#include "state/state.h"

enum { R_AX, R_CX, R_DX, R_BX, R_SP, R_BP, R_SI, R_DI, R_8, R_9, R_10, R_11, R_12, R_13, R_14, R_15, N_GPRS };

struct x86_seg {
    uint64_t base;
    uint32_t limit;             /* bytes, granularity applied: the last valid offset */
    uint16_t sel;
    uint16_t attr;              /* descriptor bits 40..55 without limit: type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15 */
    uint8_t unusable;
};
enum { SEGA_TYPE = 0xf, SEGA_S = 1 << 4, SEGA_DPL_SHIFT = 5, SEGA_P = 1 << 7, SEGA_AVL = 1 << 12, SEGA_L = 1 << 13, SEGA_DB = 1 << 14, SEGA_G = 1 << 15 };

struct x86_dtable {
    uint64_t base;
    uint16_t limit;
};

/* What the CPU will do at the next instruction boundary. */
struct x86_events {
    uint8_t exc_pending, exc_vector, exc_has_error;     /* an exception that was raised and not yet delivered */
    uint32_t exc_error;
    uint64_t exc_cr2;
    uint8_t int_shadow;         /* 1 STI, 2 MOV SS: the next instruction runs with interrupts held off */
    uint8_t nmi_pending, nmi_blocked;
    uint8_t smi_pending;
    uint8_t halted;             /* in HLT */
    uint8_t mp_state;           /* enum x86_mp_state */
    uint8_t sipi_vector;
    uint8_t init_pending, sipi_pending;
};
enum x86_mp_state { MP_RUNNABLE, MP_WAIT_SIPI /* an AP after reset or INIT */, MP_HALTED, N_MP_STATES };

/*
 * Local APIC registers; offsets as in SDM vol. 3A table 10-1. Timer deadlines are in VM-clock ns and TSC counts. `id` is the
 * plain APIC id in either mode (xAPIC shows it shifted to bit 24); the other registers are as the guest reads them.
 */
struct x86_lapic {
    uint64_t base_msr;          /* IA32_APIC_BASE */
    uint32_t id, version, tpr, ldr, dfr, svr, esr, esr_pending;
    uint32_t isr[8], tmr[8], irr[8];
    uint64_t icr;
    uint32_t lvt_timer, lvt_thermal, lvt_perf, lvt_lint0, lvt_lint1, lvt_error, lvt_cmci;
    uint32_t timer_initial, timer_divide;
    uint64_t timer_start_ns;    /* VM clock when the running count was loaded (one-shot, periodic) */
    uint64_t tsc_deadline;      /* guest TSC; 0 off */
    uint8_t extint;             /* level of LINT0 from the 8259 */
};

enum { XSAVE_AREA_SIZE = 4096, N_MTRR_VAR = 8, N_MTRR_FIXED = 11 };

struct x86_state {
    uint64_t gpr[N_GPRS];
    uint64_t rip, rflags;
    struct x86_seg seg[6];      /* ES CS SS DS FS GS */
    struct x86_seg ldt, tr;
    struct x86_dtable gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8;   /* cr8 mirrors lapic.tpr >> 4 */
    uint64_t xcr0;
    uint64_t dr[4], dr6, dr7;
    uint64_t pdpte[4];          /* PAE page-directory pointers as loaded by MOV CR3 */
    /* MSRs */
    uint64_t efer, star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t tsc_offset;        /* guest TSC = VM TSC + this (wraps); VM TSC = x86_tsc of the VM clock */
    uint64_t tsc_adjust, tsc_aux;
    uint64_t pat, misc_enable, spec_ctrl, debugctl, feature_control, mcg_status, xss, pkru;
    uint64_t mtrr_def, mtrr_fixed[N_MTRR_FIXED], mtrr_var[2 * N_MTRR_VAR];
    uint64_t kvm_system_time, kvm_wall_clock, kvm_pv_eoi, kvm_steal_time, kvm_poll_control, kvm_async_pf;
    /* x87, SSE, AVX: the standard (non-compacted) XSAVE image; legacy region first, XSTATE_BV kept true */
    uint8_t xsave[XSAVE_AREA_SIZE] __attribute__((aligned(64)));
    struct x86_events ev;
    struct x86_lapic lapic;
};

extern const struct state_field x86_state_fields[];
enum { X86_STATE_VERSION = 1 };

/*
 * Power-on state of CPU `apic_id`; BSP runs from the reset vector F000:FFF0 (base FFFF0000), APs wait for SIPI. DX says
 * family 6; whoever knows the CPU model puts its signature there.
 */
void x86_state_reset(struct x86_state *st, uint32_t apic_id, bool bsp);
/* State after INIT: as reset, but memory-type, TSC, APIC id, x87/SSE and machine-check registers are kept. SDM table 9-1. */
void x86_state_init_ipi(struct x86_state *st, bool bsp);
/* Refuses what no CPU can be in (reserved CR bits, EFER.LMA without paging, non-canonical RIP, ...): loaded states. */
bool x86_state_valid(const struct x86_state *st, struct err *err);

/* RFLAGS */
enum { X86_CF = 1 << 0, X86_F1 = 1 << 1, X86_PF = 1 << 2, X86_AF = 1 << 4, X86_ZF = 1 << 6, X86_SF = 1 << 7, X86_TF = 1 << 8, X86_IF = 1 << 9, X86_DF = 1 << 10,
       X86_OF = 1 << 11, X86_IOPL = 3 << 12, X86_NT = 1 << 14, X86_RF = 1 << 16, X86_VM = 1 << 17, X86_AC = 1 << 18, X86_VIF = 1 << 19, X86_VIP = 1 << 20, X86_ID = 1 << 21 };
enum { X86_ARITH = X86_CF | X86_PF | X86_AF | X86_ZF | X86_SF | X86_OF };
/* CR0, CR4, EFER */
#define CR0_PE (1ull << 0)
#define CR0_MP (1ull << 1)
#define CR0_EM (1ull << 2)
#define CR0_TS (1ull << 3)
#define CR0_ET (1ull << 4)
#define CR0_NE (1ull << 5)
#define CR0_WP (1ull << 16)
#define CR0_AM (1ull << 18)
#define CR0_NW (1ull << 29)
#define CR0_CD (1ull << 30)
#define CR0_PG (1ull << 31)
#define CR4_VME (1ull << 0)
#define CR4_PVI (1ull << 1)
#define CR4_TSD (1ull << 2)
#define CR4_DE (1ull << 3)
#define CR4_PSE (1ull << 4)
#define CR4_PAE (1ull << 5)
#define CR4_MCE (1ull << 6)
#define CR4_PGE (1ull << 7)
#define CR4_PCE (1ull << 8)
#define CR4_OSFXSR (1ull << 9)
#define CR4_OSXMMEXCPT (1ull << 10)
#define CR4_UMIP (1ull << 11)
#define CR4_LA57 (1ull << 12)
#define CR4_FSGSBASE (1ull << 16)
#define CR4_PCIDE (1ull << 17)
#define CR4_OSXSAVE (1ull << 18)
#define CR4_SMEP (1ull << 20)
#define CR4_SMAP (1ull << 21)
#define CR4_PKE (1ull << 22)
#define EFER_SCE (1ull << 0)
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)
#define EFER_NXE (1ull << 11)
#define EFER_FFXSR (1ull << 14)     /* AMD */
#define EFER_AUTOIBRS (1ull << 21)  /* AMD */
/* Exception vectors */
enum { EXC_DE, EXC_DB, EXC_NMI, EXC_BP, EXC_OF, EXC_BR, EXC_UD, EXC_NM, EXC_DF, EXC_TS = 10, EXC_NP, EXC_SS, EXC_GP, EXC_PF, EXC_MF = 16, EXC_AC, EXC_MC, EXC_XM };
/* #PF error code */
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16, PF_PK = 32 };
/* MSR numbers: x86/msr.h. CPUID models: x86/cpuid.h. Page-table bits: x86/paging.h. */

#endif
