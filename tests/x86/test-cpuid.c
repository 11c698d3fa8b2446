/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "x86/cpuid.h"
#include "x86/x86_state.h"

static const struct cpu_topology one = { 1, 1, 1, 1 }, eight = { 8, 2, 2, 2 };

static void make(struct cpu_model *m, const char *spec, const struct cpu_topology *t)
{
    struct err err = ERR_INIT;
    if (!cpu_model_make(m, spec, t, &err)) {
        fail_msg("%s: %s", spec, err.msg);
    }
}

static void ask(const struct cpu_model *m, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    cpu_model_cpuid(m, 0, 0, 1, leaf, sub, out);
}

static bool amd(const struct cpu_model *m)
{
    uint32_t v[4];
    ask(m, 0, 0, v);
    return v[1] == 0x68747541 || v[1] == 0x6f677948;
}

static void test_max_shows_what_linux_needs_to_skip_calibration(void **unused)
{
    struct cpu_model m;
    uint32_t v[4], host[4];
    make(&m, "max", &one);
    ask(&m, 0, 0, v);
    __asm__("cpuid" : "=a"(host[0]), "=b"(host[1]), "=c"(host[2]), "=d"(host[3]) : "0"(0), "2"(0));
    assert_memory_equal(v + 1, host + 1, 12);
    static const char *const need[] = {
        "tsc-deadline", "x2apic", "arat", "tsc-adjust", "invtsc", "pcid", "invpcid", "fsgsbase", "erms", "fsrm", "smep", "smap", "umip",
        "nx", "pdpe1gb", "rdtscp", "rdpid", "hypervisor", "kvmclock", "kvmclock-stable-bit", "kvm-pv-eoi", "kvm-pv-ipi",
    };
    for (size_t i = 0; i < ARRAY_SIZE(need); i++) {
        if (!cpu_model_has(&m, need[i])) {
            fail_msg("no %s", need[i]);
        }
    }
    ask(&m, 0x15, 0, v);
    assert_int_equal((uint64_t)v[2] * v[1] / v[0] / 1000, m.tsc_khz);
    assert_int_equal(v[2], 1000000000);
    ask(&m, 0x40000000, 0, v);
    assert_memory_equal(v + 1, "KVMKVMKVM\0\0\0", 12);
    assert_true(v[0] >= 0x40000010);
    ask(&m, 0x40000010, 0, v);
    assert_int_equal(v[0], m.tsc_khz);
    assert_true(m.tsc_khz > 100000 && m.tsc_khz < 20000000);
}

static void test_nothing_unimplemented_is_shown(void **unused)
{
    struct cpu_model m;
    uint32_t v[4];
    make(&m, "host", &one);
    ask(&m, 1, 0, v);
    assert_int_equal(v[2] & (1 << 3 | 1 << 5 | 1 << 6 | 1 << 15), 0);   /* MONITOR, VMX, SMX, PDCM */
    ask(&m, 7, 0, v);
    assert_int_equal(v[1] & (1u << 4 | 1 << 11 | 1 << 14 | 1 << 16 | 1 << 25 | 1u << 31), 0);   /* HLE RTM MPX AVX-512 PT */
    assert_int_equal(v[2] & (1 << 3 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 16), 0);                   /* PKU WAITPKG CET LA57 */
    assert_int_equal(v[3] & (1 << 20 | 1 << 24), 0);                                             /* IBT, AMX */
    ask(&m, 0xd, 1, v);
    assert_int_equal(v[0] & ~3u, 0);                                    /* no XSAVES, no XGETBV(1) */
    ask(&m, 0xa, 0, v);
    assert_int_equal(v[0], 0);
    ask(&m, 0x80000001, 0, v);
    assert_int_equal(v[2] & 4, 0);                                      /* SVM */
    ask(&m, 0x12345678, 0, v);
    if (amd(&m)) {
        assert_int_equal(v[0] | v[1] | v[2] | v[3], 0);
    }
}

static void test_mitigations_have_nothing_to_do(void **unused)
{
    struct cpu_model m;
    make(&m, "max", &one);
    if (amd(&m)) {
        assert_true(cpu_model_has(&m, "auto-ibrs") && cpu_model_has(&m, "btc-no") && cpu_model_has(&m, "srso-no") &&
                    cpu_model_has(&m, "amd-no-ssb") && cpu_model_has(&m, "tsa-sq-no"));
        assert_false(cpu_model_has(&m, "arch-capabilities"));
    } else {
        assert_true(cpu_model_has(&m, "arch-capabilities") && (m.arch_caps & 3) == 3);
    }
}

static void test_dynamic_fields_follow_the_cpu(void **unused)
{
    struct cpu_model m;
    uint32_t v[4];
    make(&m, "max", &eight);
    assert_int_equal(cpu_topology_apic_id(&eight, 5), 5);
    cpu_model_cpuid(&m, 5, 0, 1, 1, 0, v);
    assert_int_equal(v[1] >> 24, 5);
    assert_int_equal(v[2] >> 27 & 1, 0);
    assert_int_equal(v[3] >> 28 & 1, 1);
    cpu_model_cpuid(&m, 5, CR4_OSXSAVE, 1, 1, 0, v);
    assert_int_equal(v[2] >> 27 & 1, cpu_model_has(&m, "xsave"));
    cpu_model_cpuid(&m, 5, 0, 1, 0xb, 0, v);
    assert_int_equal(v[0], 1);
    assert_int_equal(v[1], 2);
    assert_int_equal(v[3], 5);
    cpu_model_cpuid(&m, 5, 0, 1, 0xb, 1, v);
    assert_int_equal(v[0], 2);
    assert_int_equal(v[1], 4);
    cpu_model_cpuid(&m, 5, 0, 1, 0xb, 2, v);
    assert_int_equal(v[1], 0);
    assert_int_equal(v[2], 2);
    if (cpu_model_has(&m, "avx")) {
        cpu_model_cpuid(&m, 0, CR4_OSXSAVE, 3, 0xd, 0, v);
        assert_int_equal(v[1], 576);
        cpu_model_cpuid(&m, 0, CR4_OSXSAVE, 7, 0xd, 0, v);
        assert_int_equal(v[1], v[2]);
        assert_int_equal(v[0], 7);
    }
    if (amd(&m)) {
        cpu_model_cpuid(&m, 7, 0, 1, 0x8000001e, 0, v);
        assert_int_equal(v[0], 7);
        assert_int_equal(v[1], 1 << 8 | 1);             /* 2 threads a core, core 1 */
        assert_int_equal(v[2], 1);
        cpu_model_cpuid(&m, 7, 0, 1, 0x80000008, 0, v);
        assert_int_equal(v[2], 2 << 12 | 3);
    }
}

static void test_apic_ids_leave_room_for_odd_counts(void **unused)
{
    struct cpu_topology t = { 6, 2, 3, 1 };
    static const uint32_t want[] = { 0, 1, 2, 4, 5, 6 };
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(cpu_topology_apic_id(&t, i), want[i]);
    }
}

static void test_words_add_and_take_away(void **unused)
{
    struct cpu_model m;
    make(&m, "x86-64-v1", &one);
    assert_true(cpu_model_has(&m, "sse2") && cpu_model_has(&m, "lm"));
    assert_false(cpu_model_has(&m, "sse3") || cpu_model_has(&m, "avx"));
    make(&m, "x86-64-v2,-sse4.1", &one);
    assert_false(cpu_model_has(&m, "sse4.1") || cpu_model_has(&m, "sse4_2"));       /* 4.2 stands on 4.1 */
    assert_true(cpu_model_has(&m, "popcnt"));
    make(&m, "max,-xsave", &one);
    assert_false(cpu_model_has(&m, "avx") || cpu_model_has(&m, "fma") || cpu_model_has(&m, "vaes"));
    assert_int_equal(m.xcr0_mask, 0);
    make(&m, "max,-hypervisor", &one);
    assert_false(m.kvm_pv && cpu_model_has(&m, "kvmclock"));
    make(&m, "x86-64-v1,+POPCNT", &one);
    assert_true(cpu_model_has(&m, "popcnt"));
}

static void expect_refusal(const char *spec, const char *text)
{
    struct cpu_model m = { .name = "untouched" };
    struct err err = ERR_INIT;
    assert_false(cpu_model_make(&m, spec, &one, &err));
    if (!strstr(err.msg, text)) {
        fail_msg("'%s' says: %s", spec, err.msg);
    }
    assert_string_equal(m.name, "untouched");
}

static void test_wrong_words_get_a_suggestion(void **unused)
{
    expect_refusal("Haswel", "'Haswell'");
    expect_refusal("max,+avx22", "'avx2'");
    expect_refusal("max,avx2", "+name or -name");
    expect_refusal("max,+avx2,-avx", "needs 'avx'");
    expect_refusal("", "malformed");
    expect_refusal("max,", "+name or -name");
    expect_refusal("max,+aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "+name or -name");
}

static void test_every_listed_name_is_known(void **unused)
{
    struct cpu_model m;
    struct err err = ERR_INIT;
    unsigned n = 0;
    for (const char *const *p = cpu_model_names(); *p; p++, n++) {
        if (!cpu_model_make(&m, *p, &one, &err)) {
            assert_int_equal(err.code, ERR_UNSUPPORTED);        /* this host lacks something of it */
        }
    }
    assert_true(n > 5);
    make(&m, "max", &one);
    assert_true(m.n_leaves <= CPUID_MAX_LEAVES);
    for (const char *const *p = cpu_feature_names(); *p; p++) {
        char spec[64];
        snprintf(spec, sizeof(spec), "max,-%s", *p);
        make(&m, spec, &one);
        assert_false(cpu_model_has(&m, *p));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_max_shows_what_linux_needs_to_skip_calibration),
        cmocka_unit_test(test_nothing_unimplemented_is_shown),
        cmocka_unit_test(test_mitigations_have_nothing_to_do),
        cmocka_unit_test(test_dynamic_fields_follow_the_cpu),
        cmocka_unit_test(test_apic_ids_leave_room_for_odd_counts),
        cmocka_unit_test(test_words_add_and_take_away),
        cmocka_unit_test(test_wrong_words_get_a_suggestion),
        cmocka_unit_test(test_every_listed_name_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
