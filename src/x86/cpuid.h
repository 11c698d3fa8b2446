/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CPU models: what a guest's CPUID answers. One table a VM, made once from --cpu, the host's CPUID (soft runs vector
 * code natively, so a guest's features are a subset of the host's) and the topology; shared by both engines.
 * Sources: SDM vol. 2A CPUID; AMD APM vol. 3 appendix E; KVM leaves: kernel Documentation/virt/kvm/x86/cpuid.rst.
 */
#ifndef LODGE_X86_CPUID_H
#define LODGE_X86_CPUID_H

#include "base/err.h"

struct cpuid_leaf {
    uint32_t leaf, sub;
    bool has_sub;
    uint32_t eax, ebx, ecx, edx;
};
enum { CPUID_MAX_LEAVES = 96 };

struct cpu_topology {
    unsigned cpus, sockets, cores, threads;     /* cpus == sockets * cores * threads */
};

struct cpu_model {
    char name[48];
    struct cpuid_leaf leaves[CPUID_MAX_LEAVES];
    unsigned n_leaves;
    uint64_t insn_feats;        /* bit per decode/insn.h enum insn_feat; filled by engine/soft */
    uint64_t arch_caps;         /* IA32_ARCH_CAPABILITIES */
    uint64_t xcr0_mask;         /* bits XSETBV accepts */
    uint32_t tsc_khz;
    uint8_t phys_bits, lin_bits;
    bool kvm_pv;                /* KVM leaves offered */
};

/* spec: "host", "max" or a model name, then ",+feature" and ",-feature"; unknown words are refused with the nearest one. */
bool cpu_model_make(struct cpu_model *m, const char *spec, const struct cpu_topology *topo, struct err *err);
/* Names for `--cpu help` and completion; NULL-terminated. */
const char *const *cpu_model_names(void);
const char *const *cpu_feature_names(void);
/*
 * CPUID as CPU `apic_id` sees it: per-CPU fields (initial APIC id, x2APIC id) and CR4-dependent ones (OSXSAVE, OSPKE;
 * XSAVE size by xcr0) filled in. Leaves out of range answer as the vendor does.
 */
void cpu_model_cpuid(const struct cpu_model *m, uint32_t apic_id, uint64_t cr4, uint64_t xcr0, uint32_t leaf, uint32_t sub, uint32_t out[4]);
bool cpu_model_has(const struct cpu_model *m, const char *feature);
/* APIC id of CPU index i in this topology (powers of two a level). */
uint32_t cpu_topology_apic_id(const struct cpu_topology *t, unsigned i);

#endif
