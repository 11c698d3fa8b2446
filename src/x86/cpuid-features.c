/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every CPUID feature bit a guest can be shown. What is not in this table is never shown: MONITOR, VMX, SVM, TSX, the PMU,
 * protection keys, LA57, CET, AMX, AVX-512, MPX, XSAVES, SMX, PT, SGX. Sources: SDM vol. 2A CPUID; AMD APM vol. 3 appendix E.
 */
#include <string.h>

#include "x86/cpuid-int.h"

#define L1C(bit, kind, name, needs) { name, 1, 0, REG_ECX, bit, kind, needs }
#define L1D(bit, kind, name, needs) { name, 1, 0, REG_EDX, bit, kind, needs }
#define L7B(bit, kind, name, needs) { name, 7, 0, REG_EBX, bit, kind, needs }
#define L7C(bit, kind, name, needs) { name, 7, 0, REG_ECX, bit, kind, needs }
#define L7D(bit, kind, name, needs) { name, 7, 0, REG_EDX, bit, kind, needs }
#define X1C(bit, kind, name, needs) { name, 0x80000001, 0, REG_ECX, bit, kind, needs }
#define X1D(bit, kind, name, needs) { name, 0x80000001, 0, REG_EDX, bit, kind, needs }
#define X8B(bit, kind, name) { name, 0x80000008, 0, REG_EBX, bit, kind, NULL }
#define X21A(bit, kind, name) { name, 0x80000021, 0, REG_EAX, bit, kind, NULL }
#define PV(bit, kind, name, needs) { name, 0x40000001, 0, REG_EAX, bit, kind, needs }

const struct cpu_feature cpu_features[] = {
    L1D(0, F_HOST, "fpu", NULL), L1D(1, F_OURS, "vme", NULL), L1D(2, F_OURS, "de", NULL), L1D(3, F_OURS, "pse", NULL),
    L1D(4, F_OURS, "tsc", NULL), L1D(5, F_OURS, "msr", NULL), L1D(6, F_OURS, "pae", NULL), L1D(7, F_OURS, "mce", NULL),
    L1D(8, F_HOST, "cx8", NULL), L1D(9, F_OURS, "apic", NULL), L1D(11, F_OURS, "sep", NULL), L1D(12, F_OURS, "mtrr", NULL),
    L1D(13, F_OURS, "pge", NULL), L1D(14, F_OURS, "mca", NULL), L1D(15, F_HOST, "cmov", NULL), L1D(16, F_OURS, "pat", NULL),
    L1D(17, F_OURS, "pse36", NULL), L1D(19, F_HOST, "clflush", NULL), L1D(23, F_HOST, "mmx", "fpu"), L1D(24, F_HOST, "fxsr", "fpu"),
    L1D(25, F_HOST, "sse", "fxsr"), L1D(26, F_HOST, "sse2", "sse"),
    L1C(0, F_HOST, "sse3", "sse2"), L1C(1, F_HOST, "pclmulqdq", "sse2"), L1C(9, F_HOST, "ssse3", "sse3"), L1C(12, F_HOST, "fma", "avx"),
    L1C(13, F_HOST, "cx16", NULL), L1C(17, F_OURS, "pcid", "lm"), L1C(19, F_HOST, "sse4.1", "ssse3"), L1C(20, F_HOST, "sse4.2", "sse4.1"),
    L1C(21, F_OURS, "x2apic", "apic"), L1C(22, F_HOST, "movbe", NULL), L1C(23, F_HOST, "popcnt", NULL),
    L1C(24, F_OURS, "tsc-deadline", "apic"), L1C(25, F_HOST, "aes", "sse2"), L1C(26, F_HOST, "xsave", "fxsr"), L1C(28, F_HOST, "avx", "xsave"),
    L1C(29, F_HOST, "f16c", "avx"), L1C(30, F_HOST, "rdrand", NULL), L1C(31, F_OURS, "hypervisor", NULL),
    { "arat", 6, 0, REG_EAX, 2, F_OURS, "apic" },
    L7B(0, F_OURS, "fsgsbase", "lm"), L7B(1, F_OURS, "tsc-adjust", "tsc"), L7B(3, F_HOST, "bmi1", NULL), L7B(5, F_HOST, "avx2", "avx"),
    L7B(6, F_OURS, "fdp-excptn-only", NULL), L7B(7, F_OURS, "smep", NULL), L7B(8, F_HOST, "bmi2", NULL), L7B(9, F_OURS, "erms", NULL),
    L7B(10, F_OURS, "invpcid", NULL), L7B(13, F_OURS, "zero-fcs-fds", NULL), L7B(18, F_HOST, "rdseed", NULL), L7B(19, F_HOST, "adx", NULL),
    L7B(20, F_OURS, "smap", NULL), L7B(23, F_HOST, "clflushopt", "clflush"), L7B(24, F_HOST, "clwb", "clflush"), L7B(29, F_HOST, "sha-ni", "sse2"),
    L7C(2, F_OURS, "umip", NULL), L7C(8, F_HOST, "gfni", "sse2"), L7C(9, F_HOST, "vaes", "avx2"), L7C(10, F_HOST, "vpclmulqdq", "avx2"),
    L7C(22, F_OURS, "rdpid", NULL), L7C(27, F_HOST, "movdiri", NULL),
    L7D(4, F_OURS, "fsrm", "erms"), L7D(26, F_INTEL, "spec-ctrl", NULL), L7D(27, F_INTEL, "stibp", NULL),
    L7D(29, F_INTEL, "arch-capabilities", NULL), L7D(31, F_INTEL, "ssbd", NULL),
    { "xsaveopt", 0xd, 1, REG_EAX, 0, F_HOST, "xsave" }, { "xsavec", 0xd, 1, REG_EAX, 1, F_HOST, "xsave" },
    X1C(0, F_OURS, "lahf-lm", "lm"), X1C(5, F_HOST, "abm", NULL), X1C(6, F_HOST, "sse4a", "sse3"), X1C(8, F_HOST, "3dnowprefetch", NULL),
    X1C(22, F_AMD, "topoext", NULL),
    X1D(11, F_OURS, "syscall", NULL), X1D(20, F_OURS, "nx", "pae"), X1D(22, F_HOST, "mmxext", "mmx"), X1D(26, F_OURS, "pdpe1gb", "lm"),
    X1D(27, F_OURS, "rdtscp", "tsc"), X1D(29, F_OURS, "lm", "pae"),
    { "invtsc", 0x80000007, 0, REG_EDX, 8, F_OURS, "tsc" },
    X8B(0, F_HOST, "clzero"), X8B(2, F_HOST, "xsaveerptr"), X8B(12, F_AMD, "ibpb"), X8B(14, F_AMD, "ibrs"), X8B(15, F_AMD, "amd-stibp"),
    X8B(17, F_AMD, "stibp-always-on"), X8B(24, F_AMD, "amd-ssbd"), X8B(26, F_AMD, "amd-no-ssb"), X8B(29, F_AMD, "btc-no"),
    X8B(30, F_AMD, "ibpb-ret"),
    X21A(0, F_AMD, "no-nested-data-bp"), X21A(2, F_AMD, "lfence-always-serializing"), X21A(6, F_AMD, "null-sel-clr-base"),
    X21A(8, F_AMD, "auto-ibrs"), X21A(27, F_AMD, "sbpb"), X21A(28, F_AMD, "ibpb-brtype"), X21A(29, F_AMD, "srso-no"),
    X21A(30, F_AMD, "srso-user-kernel-no"),
    { "tsa-sq-no", 0x80000021, 0, REG_ECX, 1, F_AMD, NULL }, { "tsa-l1-no", 0x80000021, 0, REG_ECX, 2, F_AMD, NULL },
    PV(3, F_PV, "kvmclock", "hypervisor"), PV(0, F_PV, "kvmclock-old", "kvmclock"), PV(1, F_PV, "kvm-nopiodelay", "hypervisor"),
    PV(5, F_PV, "kvm-steal-time", "hypervisor"), PV(6, F_PV, "kvm-pv-eoi", "apic"), PV(7, F_ASKED, "kvm-pv-unhalt", "apic"),
    PV(9, F_PV, "kvm-pv-tlb-flush", "kvm-steal-time"), PV(11, F_PV, "kvm-pv-ipi", "apic"), PV(12, F_PV, "kvm-poll-control", "hypervisor"),
    PV(13, F_PV, "kvm-pv-sched-yield", "kvm-steal-time"), PV(24, F_PV, "kvmclock-stable-bit", "kvmclock"),
};
const unsigned n_cpu_features = ARRAY_SIZE(cpu_features);
_Static_assert(ARRAY_SIZE(cpu_features) < MAX_CPU_FEATURES, "the name list has room");

/*
 * The x86-64 psABI's levels, and a few CPUs by their instructions. The vendor is always the host's: flag results and rounding
 * left undefined by the manuals come out as the host's too.
 */
#define V1 "fpu cx8 cmov clflush mmx fxsr sse sse2"
const struct cpu_named cpu_named[] = {
    { "x86-64-v1", NULL, V1 },
    { "x86-64-v2", "x86-64-v1", "sse3 ssse3 sse4.1 sse4.2 cx16 popcnt" },
    { "x86-64-v3", "x86-64-v2", "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave xsaveopt" },
    { "qemu64", "x86-64-v1", "sse3 cx16" },
    { "Nehalem", "x86-64-v2", "" },
    { "Westmere", "Nehalem", "aes pclmulqdq" },
    { "SandyBridge", "Westmere", "xsave xsaveopt avx" },
    { "IvyBridge", "SandyBridge", "f16c rdrand" },
    { "Haswell", "IvyBridge", "avx2 bmi1 bmi2 fma movbe abm" },
    { "Broadwell", "Haswell", "rdseed adx 3dnowprefetch" },
    { "Skylake-Client", "Broadwell", "clflushopt xsavec" },
    { "EPYC", "Haswell", "rdseed adx 3dnowprefetch clflushopt xsavec sse4a sha-ni mmxext" },
    { "EPYC-Rome", "EPYC", "clwb clzero xsaveerptr" },
    { "EPYC-Milan", "EPYC-Rome", "vaes vpclmulqdq" },
    { NULL, NULL, NULL },
};

static char fold(char ch)
{
    return ch == '_' || ch == '.' ? '-' : ch >= 'A' && ch <= 'Z' ? (char)(ch + 32) : ch;
}

static bool same(const char *name, const char *word, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!name[i] || fold(name[i]) != fold(word[i])) {
            return false;
        }
    }
    return !name[len];
}

int cpu_feature_find(const char *name, size_t len)
{
    static const struct { const char *alias, *name; } aliases[] = {
        { "lzcnt", "abm" }, { "pni", "sse3" }, { "constant-tsc", "invtsc" },
        { "nonstop-tsc", "invtsc" }, { "tsc-deadline-timer", "tsc-deadline" }, { "clfsh", "clflush" }, { "sha", "sha-ni" },
    };
    for (size_t i = 0; i < ARRAY_SIZE(aliases); i++) {
        if (same(aliases[i].alias, name, len)) {
            return cpu_feature_find(aliases[i].name, strlen(aliases[i].name));
        }
    }
    for (unsigned i = 0; i < n_cpu_features; i++) {
        if (same(cpu_features[i].name, name, len)) {
            return (int)i;
        }
    }
    return -1;
}

const struct cpu_named *cpu_named_find(const char *name, size_t len)
{
    for (const struct cpu_named *n = cpu_named; n->name; n++) {
        if (same(n->name, name, len)) {
            return n;
        }
    }
    return NULL;
}
