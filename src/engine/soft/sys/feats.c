/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The CPU model as the decoder asks for it: one bit per enum insn_feat. */
#include "engine/soft/sys/sys-int.h"

static const struct {
    uint8_t feat;
    const char *name;
} map[] = {
    { FEAT_FPU, "fpu" }, { FEAT_TSC, "tsc" }, { FEAT_MSR, "msr" }, { FEAT_CX8, "cx8" }, { FEAT_SEP, "sep" }, { FEAT_CMOV, "cmov" },
    { FEAT_CLFSH, "clflush" }, { FEAT_MMX, "mmx" }, { FEAT_FXSR, "fxsr" }, { FEAT_SSE, "sse" }, { FEAT_SSE2, "sse2" },
    { FEAT_SSE3, "sse3" }, { FEAT_PCLMUL, "pclmulqdq" }, { FEAT_SSSE3, "ssse3" }, { FEAT_FMA, "fma" }, { FEAT_CX16, "cx16" },
    { FEAT_SSE41, "sse4.1" }, { FEAT_SSE42, "sse4.2" }, { FEAT_MOVBE, "movbe" }, { FEAT_POPCNT, "popcnt" }, { FEAT_AES, "aes" },
    { FEAT_XSAVE, "xsave" }, { FEAT_AVX, "avx" }, { FEAT_F16C, "f16c" }, { FEAT_RDRAND, "rdrand" }, { FEAT_FSGSBASE, "fsgsbase" },
    { FEAT_BMI1, "bmi1" }, { FEAT_AVX2, "avx2" }, { FEAT_SMEP, "smep" }, { FEAT_BMI2, "bmi2" }, { FEAT_INVPCID, "invpcid" },
    { FEAT_RDSEED, "rdseed" }, { FEAT_ADX, "adx" }, { FEAT_SMAP, "smap" }, { FEAT_CLFLUSHOPT, "clflushopt" }, { FEAT_CLWB, "clwb" },
    { FEAT_SHA, "sha-ni" }, { FEAT_UMIP, "umip" }, { FEAT_RDPID, "rdpid" }, { FEAT_GFNI, "gfni" }, { FEAT_VAES, "vaes" },
    { FEAT_VPCLMUL, "vpclmulqdq" }, { FEAT_SYSCALL, "syscall" }, { FEAT_RDTSCP, "rdtscp" }, { FEAT_LM, "lm" }, { FEAT_LAHF64, "lahf-lm" },
    { FEAT_LZCNT, "abm" }, { FEAT_SSE4A, "sse4a" }, { FEAT_PREFETCHW, "3dnowprefetch" }, { FEAT_XSAVEOPT, "xsaveopt" },
    { FEAT_XSAVEC, "xsavec" }, { FEAT_MOVDIRI, "movdiri" }, { FEAT_CLZERO, "clzero" },
};

uint64_t sys_model_feats(const struct cpu_model *m)
{
    /* NOPL has no CPUID bit: every family 6 and later CPU has it. MONITOR, PKU, XSAVES are in no model. */
    uint64_t bits = 1ull << FEAT_BASE | 1ull << FEAT_NOPL;
    _Static_assert(N_FEATS <= 64, "one bit a feature");
    for (size_t i = 0; i < ARRAY_SIZE(map); i++) {
        bits |= cpu_model_has(m, map[i].name) ? 1ull << map[i].feat : 0;
    }
    return bits;
}
