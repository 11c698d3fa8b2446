/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Private to cpuid*.c: the feature table and the models. */
#ifndef LODGE_X86_CPUID_INT_H
#define LODGE_X86_CPUID_INT_H

#include "x86/cpuid.h"

enum cpuid_reg { REG_EAX, REG_EBX, REG_ECX, REG_EDX };
enum feature_kind {
    F_HOST,     /* an instruction: offered when the host CPU has it, as guest code of its kind runs natively */
    F_OURS,     /* the engine makes it, whatever the host has */
    F_AMD,      /* as F_OURS, for AMD's vendor only */
    F_INTEL,
    F_PV,       /* KVM paravirtual interface */
    F_ASKED,    /* only with +name, and then as F_OURS */
};

struct cpu_feature {
    const char *name;           /* QEMU's spelling; '_' and '.' may be written for '-' */
    uint32_t leaf;
    uint8_t sub, reg, bit;
    uint8_t kind;               /* enum feature_kind */
    const char *needs;          /* feature without which this one is dropped; NULL */
};
extern const struct cpu_feature cpu_features[];
extern const unsigned n_cpu_features;
enum { MAX_CPU_FEATURES = 128 };

/* A named model: the F_HOST features it has, blank-separated, on top of those of `base`. Everything else is as in "host". */
struct cpu_named {
    const char *name, *base, *features;
};
extern const struct cpu_named cpu_named[];      /* ends with a NULL name */

/* Index of the feature, or -1. */
int cpu_feature_find(const char *name, size_t len);
const struct cpu_named *cpu_named_find(const char *name, size_t len);

#endif
