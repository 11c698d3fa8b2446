/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Model-specific register numbers and the bits of theirs that we know. Names are the SDM's without IA32_, or KVM's.
 * Sources: SDM vol. 4 ch. 2; AMD APM vol. 2 appendix A; kernel Documentation/virt/kvm/x86/msr.rst.
 */
#ifndef LODGE_X86_MSR_H
#define LODGE_X86_MSR_H

#define MSR_P5_MC_ADDR              0x00000000u
#define MSR_P5_MC_TYPE              0x00000001u
#define MSR_TSC                     0x00000010u
#define MSR_PLATFORM_ID             0x00000017u
#define MSR_APIC_BASE               0x0000001bu
#define MSR_EBL_CR_POWERON          0x0000002au
#define MSR_SMI_COUNT               0x00000034u
#define MSR_FEATURE_CONTROL         0x0000003au
#define MSR_TSC_ADJUST              0x0000003bu
#define MSR_SPEC_CTRL               0x00000048u
#define MSR_PRED_CMD                0x00000049u
#define MSR_PPIN_CTL                0x0000004eu
#define MSR_UCODE_WRITE             0x00000079u
#define MSR_UCODE_REV               0x0000008bu
#define MSR_SMM_MONITOR_CTL         0x0000009bu
#define MSR_SMBASE                  0x0000009eu
#define MSR_PMC0                    0x000000c1u
#define MSR_FSB_FREQ                0x000000cdu
#define MSR_PLATFORM_INFO           0x000000ceu
#define MSR_UMWAIT_CONTROL          0x000000e1u
#define MSR_PKG_CST_CONFIG          0x000000e2u
#define MSR_MPERF                   0x000000e7u
#define MSR_APERF                   0x000000e8u
#define MSR_MTRR_CAP                0x000000feu
#define MSR_ARCH_CAPABILITIES       0x0000010au
#define MSR_FLUSH_CMD               0x0000010bu
#define MSR_BBL_CR_CTL3             0x0000011eu
#define MSR_TSX_CTRL                0x00000122u
#define MSR_MISC_FEATURES_ENABLES   0x00000140u
#define MSR_SYSENTER_CS             0x00000174u
#define MSR_SYSENTER_ESP            0x00000175u
#define MSR_SYSENTER_EIP            0x00000176u
#define MSR_MCG_CAP                 0x00000179u
#define MSR_MCG_STATUS              0x0000017au
#define MSR_MCG_CTL                 0x0000017bu
#define MSR_PERFEVTSEL0             0x00000186u
#define MSR_PERF_STATUS             0x00000198u
#define MSR_PERF_CTL                0x00000199u
#define MSR_CLOCK_MODULATION        0x0000019au
#define MSR_THERM_INTERRUPT         0x0000019bu
#define MSR_THERM_STATUS            0x0000019cu
#define MSR_MISC_ENABLE             0x000001a0u
#define MSR_TEMPERATURE_TARGET      0x000001a2u
#define MSR_OFFCORE_RSP0            0x000001a6u
#define MSR_MISC_PWR_MGMT           0x000001aau
#define MSR_ENERGY_PERF_BIAS        0x000001b0u
#define MSR_PACKAGE_THERM_STATUS    0x000001b1u
#define MSR_DEBUGCTL                0x000001d9u
#define MSR_LASTBRANCH_FROM         0x000001dbu
#define MSR_LASTBRANCH_TO           0x000001dcu
#define MSR_LASTINT_FROM            0x000001ddu
#define MSR_LASTINT_TO              0x000001deu
#define MSR_MTRR_VAR0               0x00000200u     /* base and mask of variable range n at 2n, 2n + 1 */
#define MSR_MTRR_FIX64K             0x00000250u
#define MSR_MTRR_FIX16K_80000       0x00000258u
#define MSR_MTRR_FIX16K_A0000       0x00000259u
#define MSR_MTRR_FIX4K              0x00000268u     /* 8 of them, to F8000 at 26f */
#define MSR_PAT                     0x00000277u
#define MSR_MC0_CTL2                0x00000280u
#define MSR_MTRR_DEF                0x000002ffu
#define MSR_FIXED_CTR0              0x00000309u
#define MSR_PERF_CAPABILITIES       0x00000345u
#define MSR_FIXED_CTR_CTRL          0x0000038du
#define MSR_PERF_GLOBAL_STATUS      0x0000038eu
#define MSR_PERF_GLOBAL_CTRL        0x0000038fu
#define MSR_PERF_GLOBAL_OVF_CTRL    0x00000390u
#define MSR_PEBS_ENABLE             0x000003f1u
#define MSR_MC0_CTL                 0x00000400u     /* CTL, STATUS, ADDR, MISC of bank n at 4n */
#define MSR_VMX_BASIC               0x00000480u
#define MSR_RAPL_POWER_UNIT         0x00000606u
#define MSR_PKG_ENERGY_STATUS       0x00000611u
#define MSR_TSC_DEADLINE            0x000006e0u
#define MSR_PM_ENABLE               0x00000770u
#define MSR_X2APIC                  0x00000800u     /* xAPIC register at offset 16 * n */
#define MSR_X2APIC_END              0x000008ffu
#define MSR_XSS                     0x00000da0u

#define MSR_EFER                    0xc0000080u
#define MSR_STAR                    0xc0000081u
#define MSR_LSTAR                   0xc0000082u
#define MSR_CSTAR                   0xc0000083u
#define MSR_SFMASK                  0xc0000084u
#define MSR_FS_BASE                 0xc0000100u
#define MSR_GS_BASE                 0xc0000101u
#define MSR_KERNEL_GS_BASE          0xc0000102u
#define MSR_TSC_AUX                 0xc0000103u

/* AMD */
#define MSR_K7_EVNTSEL0             0xc0010000u
#define MSR_K7_PERFCTR0             0xc0010004u
#define MSR_AMD_SYSCFG              0xc0010010u
#define MSR_AMD_HWCR                0xc0010015u
#define MSR_AMD_IORR_BASE0          0xc0010016u
#define MSR_AMD_TOP_MEM             0xc001001au
#define MSR_AMD_TOP_MEM2            0xc001001du
#define MSR_AMD_NB_CFG              0xc001001fu
#define MSR_AMD_PATCH_LOADER        0xc0010020u
#define MSR_AMD_INT_PENDING         0xc0010055u
#define MSR_AMD_PSTATE_DEF0         0xc0010064u
#define MSR_AMD_VM_CR               0xc0010114u
#define MSR_AMD_VIRT_SPEC_CTRL      0xc001011fu
#define MSR_AMD_OSVW_ID_LENGTH      0xc0010140u
#define MSR_AMD_OSVW_STATUS         0xc0010141u
#define MSR_AMD_PERF_CTL0           0xc0010200u
#define MSR_AMD_CPUID_7             0xc0011002u
#define MSR_AMD_LS_CFG              0xc0011020u
#define MSR_AMD_IC_CFG              0xc0011021u
#define MSR_AMD_DC_CFG              0xc0011022u
#define MSR_AMD_BU_CFG2             0xc001102au
#define MSR_AMD_TW_CFG              0xc0011023u
#define MSR_AMD_DE_CFG              0xc0011029u

/* KVM paravirtual */
#define MSR_KVM_WALL_CLOCK          0x00000011u     /* CLOCKSOURCE, the first form */
#define MSR_KVM_SYSTEM_TIME         0x00000012u
#define MSR_KVM_WALL_CLOCK_NEW      0x4b564d00u
#define MSR_KVM_SYSTEM_TIME_NEW     0x4b564d01u
#define MSR_KVM_ASYNC_PF_EN         0x4b564d02u
#define MSR_KVM_STEAL_TIME          0x4b564d03u
#define MSR_KVM_PV_EOI_EN           0x4b564d04u
#define MSR_KVM_POLL_CONTROL        0x4b564d05u
#define MSR_KVM_ASYNC_PF_INT        0x4b564d06u
#define MSR_KVM_ASYNC_PF_ACK        0x4b564d07u
#define MSR_KVM_MIGRATION_CONTROL   0x4b564d08u

/* Bits */
#define APICBASE_BSP                (1ull << 8)
#define APICBASE_EXTD               (1ull << 10)    /* x2APIC mode */
#define APICBASE_EN                 (1ull << 11)
#define APICBASE_DEFAULT            0xfee00000ull
#define FEATURE_CONTROL_LOCK        (1ull << 0)
#define MISC_ENABLE_FAST_STRING     (1ull << 0)
#define MISC_ENABLE_BTS_UNAVAIL     (1ull << 11)
#define MISC_ENABLE_PEBS_UNAVAIL    (1ull << 12)
#define MISC_ENABLE_MWAIT           (1ull << 18)
#define MISC_ENABLE_LIMIT_CPUID     (1ull << 22)
#define MISC_ENABLE_XD_DISABLE      (1ull << 34)
#define MTRR_DEF_FE                 (1ull << 10)    /* fixed ranges enabled */
#define MTRR_DEF_E                  (1ull << 11)
#define SPEC_CTRL_IBRS              (1ull << 0)
#define SPEC_CTRL_STIBP             (1ull << 1)
#define SPEC_CTRL_SSBD              (1ull << 2)
#define ARCH_CAP_RDCL_NO            (1ull << 0)
#define ARCH_CAP_IBRS_ALL           (1ull << 1)
#define ARCH_CAP_RSBA               (1ull << 2)
#define ARCH_CAP_SKIP_L1DFL         (1ull << 3)
#define ARCH_CAP_SSB_NO             (1ull << 4)
#define ARCH_CAP_MDS_NO             (1ull << 5)
#define ARCH_CAP_PSCHANGE_MC_NO     (1ull << 6)
#define ARCH_CAP_TSX_CTRL           (1ull << 7)
#define ARCH_CAP_TAA_NO             (1ull << 8)
#define ARCH_CAP_SBDR_SSDP_NO       (1ull << 13)
#define ARCH_CAP_FBSDP_NO           (1ull << 14)
#define ARCH_CAP_PSDP_NO            (1ull << 15)
#define ARCH_CAP_FB_CLEAR           (1ull << 17)
#define ARCH_CAP_RRSBA              (1ull << 19)
#define ARCH_CAP_BHI_NO             (1ull << 20)
#define ARCH_CAP_PBRSB_NO           (1ull << 24)
#define ARCH_CAP_GDS_NO             (1ull << 26)
#define ARCH_CAP_RFDS_NO            (1ull << 27)
#define ARCH_CAP_ITS_NO             (1ull << 62)
#define HWCR_TSC_FREQ_SEL           (1ull << 24)    /* TSC counts at the P0 frequency */
#define DE_CFG_LFENCE_SERIALIZE     (1ull << 1)

/* Memory types, for PAT and MTRRs */
enum { MEMTYPE_UC = 0, MEMTYPE_WC = 1, MEMTYPE_WT = 4, MEMTYPE_WP = 5, MEMTYPE_WB = 6, MEMTYPE_UC_MINUS = 7 };
#define PAT_RESET                   0x0007040600070406ull

#endif
