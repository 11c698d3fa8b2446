/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes a model (vendor, family and caches of the host; features of the table; topology as asked) and answers CPUID from it.
 * Sources: SDM vol. 2A CPUID; AMD APM vol. 3 appendix E; kernel Documentation/virt/kvm/x86/cpuid.rst.
 *
 * The guest must need no calibration: TSC and LAPIC-timer frequencies are in leaves 15h, 16h and 40000010h (both clocks are
 * known exactly: the LAPIC timer counts at 1 GHz). It must choose no needless mitigation: translated guest code shares its
 * process with nobody, so the bits that say "not affected" are set, in the form of each vendor.
 */
#include "x86/cpuid.h"

#include <sched.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/str.h"
#include "x86/cpuid-int.h"
#include "x86/msr.h"

enum { MAX_BASIC = 0x16, LAPIC_TIMER_HZ = 1000000000 };
#define HV_BASE 0x40000000u
#define HV_MAX 0x40000010u
#define EXT_BASE 0x80000000u
#define EXT_MAX_AMD 0x80000021u
#define EXT_MAX_INTEL 0x80000008u

/* CPUID traps when the host is itself a VM, at up to tens of microseconds: each leaf is asked once a thread. */
static void host_cpuid(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    static _Thread_local struct { uint32_t leaf, sub, v[4]; } cache[48];
    static _Thread_local unsigned n;
    for (unsigned i = 0; i < n; i++) {
        if (cache[i].leaf == leaf && cache[i].sub == sub) {
            memcpy(out, cache[i].v, sizeof(cache[i].v));
            return;
        }
    }
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "0"(leaf), "2"(sub));
    if (n < ARRAY_SIZE(cache)) {
        cache[n].leaf = leaf;
        cache[n].sub = sub;
        memcpy(cache[n++].v, out, sizeof(cache[0].v));
    }
}

static bool host_amd(void)
{
    uint32_t v[4];
    host_cpuid(0, 0, v);
    return v[1] == 0x68747541 /* "Auth" */ || v[1] == 0x6f677948 /* "Hygo" */;
}

/* --- how fast the host's TSC runs --- */

/* One reading of both clocks, the closest of a few. */
static void sample(uint64_t *tsc, uint64_t *ns)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 8; i++) {
        uint64_t before = __builtin_ia32_rdtsc(), now = host_clock_ns(), after = __builtin_ia32_rdtsc();
        if (after - before < best) {
            best = after - before;
            *tsc = before + best / 2;
            *ns = now;
        }
    }
}

static uint32_t measure_tsc_khz(void)
{
    uint64_t t0 = 0, n0 = 0, t1 = 0, n1 = 0;
    struct timespec wait = { .tv_nsec = 4 * NS_PER_MS };
    sample(&t0, &n0);
    nanosleep(&wait, NULL);
    sample(&t1, &n1);
    return (uint32_t)muldiv64(t1 - t0, 1000000, n1 - n0);
}

/* What the host or the hypervisor below it says; measured when neither does. */
static uint32_t host_tsc_khz(void)
{
    uint32_t v[4];
    host_cpuid(1, 0, v);
    bool virt = v[2] >> 31;
    if (virt) {
        host_cpuid(HV_BASE, 0, v);
        uint32_t max = v[0];
        if (max >= HV_MAX && max < HV_BASE + 0x10000) {
            host_cpuid(HV_MAX, 0, v);
            if (v[0] > 100000) {
                return v[0];
            }
        }
    }
    host_cpuid(0, 0, v);
    if (!virt && v[0] >= 0x15) {
        host_cpuid(0x15, 0, v);
        if (v[0] && v[1] && v[2]) {
            return (uint32_t)(muldiv64(v[2], v[1], v[0]) / 1000);
        }
    }
    return measure_tsc_khz();
}

/* --- leaves --- */

static struct cpuid_leaf *leaf_get(struct cpu_model *m, uint32_t leaf, uint32_t sub)
{
    for (unsigned i = 0; i < m->n_leaves; i++) {
        if (m->leaves[i].leaf == leaf && m->leaves[i].sub == sub) {
            return &m->leaves[i];
        }
    }
    return NULL;
}

static struct cpuid_leaf *leaf_add(struct cpu_model *m, uint32_t leaf, uint32_t sub, bool has_sub)
{
    struct cpuid_leaf *l = leaf_get(m, leaf, sub);
    if (!l) {
        l = &m->leaves[m->n_leaves++];          /* the leaves made here are fewer than CPUID_MAX_LEAVES */
        *l = (struct cpuid_leaf){ .leaf = leaf, .sub = sub };
    }
    l->has_sub = has_sub;
    return l;
}

static void leaf_set(struct cpu_model *m, uint32_t leaf, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    struct cpuid_leaf *l = leaf_add(m, leaf, 0, false);
    l->eax = a;
    l->ebx = b;
    l->ecx = c;
    l->edx = d;
}

static void leaf_copy(struct cpu_model *m, uint32_t leaf)
{
    uint32_t v[4];
    host_cpuid(leaf, 0, v);
    leaf_set(m, leaf, v[0], v[1], v[2], v[3]);
}

static uint32_t *leaf_reg(struct cpuid_leaf *l, unsigned reg)
{
    uint32_t *regs[] = { &l->eax, &l->ebx, &l->ecx, &l->edx };
    return regs[reg];
}

static unsigned bits_for(unsigned n)
{
    return n <= 1 ? 0 : 32 - (unsigned)__builtin_clz(n - 1);
}

uint32_t cpu_topology_apic_id(const struct cpu_topology *t, unsigned i)
{
    unsigned threads = t->threads ? t->threads : 1, cores = t->cores ? t->cores : 1;
    unsigned thread = i % threads, core = i / threads % cores, socket = i / threads / cores;
    return socket << (bits_for(threads) + bits_for(cores)) | core << bits_for(threads) | thread;
}

/* --- features --- */

static bool host_has(const struct cpu_feature *f)
{
    uint32_t v[4], max[4];
    host_cpuid(f->leaf & EXT_BASE, 0, max);
    if (f->leaf > max[0]) {
        return false;
    }
    host_cpuid(f->leaf, f->sub, v);
    return v[f->reg] >> f->bit & 1;
}

static bool available(const struct cpu_feature *f, bool amd)
{
    switch (f->kind) {
    case F_HOST: return host_has(f);
    case F_AMD: return amd;
    case F_INTEL: return !amd;
    default: return true;
    }
}

static void add_named(const struct cpu_named *n, bool want[])
{
    if (n->base) {
        add_named(cpu_named_find(n->base, strlen(n->base)), want);
    }
    for (const char *p = n->features; *p;) {
        size_t len = strcspn(p, " ");
        int f = cpu_feature_find(p, len);
        if (f >= 0) {
            want[f] = true;
        }
        p += len + (p[len] == ' ');
    }
}

static bool unknown_word(const char *what, const char *word, const char *const *list, struct err *err)
{
    const char *near = str_nearest(word, list);
    if (near) {
        return err_set(err, ERR_INVALID, "unknown CPU %s '%s'; did you mean '%s'?", what, word, near);
    }
    struct buf all = { 0 };
    for (unsigned i = 0; list[i]; i++) {
        buf_printf(&all, "%s%s", i ? " " : "", list[i]);
    }
    err_set(err, ERR_INVALID, "unknown CPU %s '%s'; there are: %s", what, word, buf_str(&all));
    buf_fini(&all);
    return false;
}

/* Word by word: model, then +f and -f. asked[] marks what was named with +. */
static bool parse_spec(const char *spec, bool amd, bool want[], bool asked[], char *name, size_t name_size, struct err *err)
{
    size_t len = strcspn(spec, ",");
    char word[64];
    if (len >= sizeof(word) || len >= name_size || len == 0) {
        return err_set(err, ERR_INVALID, "malformed CPU model '%.40s'", spec);
    }
    memcpy(word, spec, len);
    word[len] = 0;
    bool all = strcmp(word, "host") == 0 || strcmp(word, "max") == 0;
    const struct cpu_named *n = all ? NULL : cpu_named_find(word, len);
    if (!all && !n) {
        return unknown_word("model", word, cpu_model_names(), err);
    }
    memcpy(name, word, len + 1);
    for (unsigned i = 0; i < n_cpu_features; i++) {
        const struct cpu_feature *f = &cpu_features[i];
        want[i] = f->kind != F_ASKED && (f->kind != F_HOST || all) && available(f, amd);
    }
    if (n) {
        add_named(n, want);
    }
    for (const char *p = spec + len; *p; p += len) {
        p++;
        len = strcspn(p, ",");
        if (len < 2 || len >= sizeof(word) || (p[0] != '+' && p[0] != '-')) {
            return err_set(err, ERR_INVALID, "CPU features are written +name or -name, not '%.*s'", (int)min_u64(len, 40), p);
        }
        memcpy(word, p + 1, len - 1);
        word[len - 1] = 0;
        int f = cpu_feature_find(word, len - 1);
        if (f < 0) {
            return unknown_word("feature", word, cpu_feature_names(), err);
        }
        want[f] = asked[f] = p[0] == '+';
    }
    return true;
}

/* Drops what the host lacks and what stands on something dropped; refuses when that was asked for by name. */
static bool settle_features(bool amd, bool want[], const bool asked[], struct err *err)
{
    for (unsigned i = 0; i < n_cpu_features; i++) {
        const struct cpu_feature *f = &cpu_features[i];
        if (want[i] && !available(f, amd)) {
            if (asked[i]) {
                return err_set(err, ERR_UNSUPPORTED, "this host's CPU has no '%s'", f->name);
            }
            want[i] = false;
        }
    }
    for (bool again = true; again;) {
        again = false;
        for (unsigned i = 0; i < n_cpu_features; i++) {
            const struct cpu_feature *f = &cpu_features[i];
            int need = f->needs && want[i] ? cpu_feature_find(f->needs, strlen(f->needs)) : -1;
            if (need < 0 || want[need]) {
                continue;
            }
            if (asked[i]) {
                return err_set(err, ERR_INVALID, "CPU feature '%s' needs '%s'", f->name, f->needs);
            }
            want[i] = false;
            again = true;
        }
    }
    return true;
}

/* A named model is a promise to the guest, also after migration: all of it or an error. */
static bool check_named(const char *name, bool amd, struct err *err)
{
    const struct cpu_named *n = cpu_named_find(name, strlen(name));
    bool want[MAX_CPU_FEATURES] = { 0 };
    static const char *const amd_only[] = { "sse4a", "mmxext", "clzero", "xsaveerptr" };
    if (!n) {
        return true;
    }
    add_named(n, want);
    for (unsigned i = 0; i < n_cpu_features; i++) {
        bool skip = available(&cpu_features[i], amd);
        for (unsigned k = 0; !amd && k < ARRAY_SIZE(amd_only); k++) {
            skip |= strcmp(cpu_features[i].name, amd_only[k]) == 0;
        }
        if (want[i] && !skip) {
            return err_set(err, ERR_UNSUPPORTED, "CPU model '%s' needs '%s', which this host's CPU has not", name, cpu_features[i].name);
        }
    }
    return true;
}

/* --- the rest of the leaves --- */

static void put_identity(struct cpu_model *m, bool amd)
{
    uint32_t v[4];
    host_cpuid(0, 0, v);
    leaf_set(m, 0, MAX_BASIC, v[1], v[2], v[3]);
    host_cpuid(1, 0, v);
    struct cpuid_leaf *l = leaf_add(m, 1, 0, false);
    l->eax = v[0];
    l->ebx |= 8 << 8;                   /* CLFLUSH line: 64 bytes */
    host_cpuid(0, 0, v);
    leaf_set(m, EXT_BASE, amd ? EXT_MAX_AMD : EXT_MAX_INTEL, amd ? v[1] : 0, amd ? v[2] : 0, amd ? v[3] : 0);
    for (uint32_t i = 0x80000002; i <= 0x80000004; i++) {
        leaf_copy(m, i);
    }
    struct cpuid_leaf *x = leaf_add(m, 0x80000001, 0, false);
    if (amd) {
        x->eax = leaf_get(m, 1, 0)->eax;
        x->edx |= leaf_get(m, 1, 0)->edx & 0x0183f3ff;      /* AMD repeats these bits of leaf 1 */
    }
}

static void put_topology(struct cpu_model *m, const struct cpu_topology *t, bool amd)
{
    unsigned logical = t->cores * t->threads, smt = bits_for(t->threads), pkg = smt + bits_for(t->cores);
    struct cpuid_leaf *l = leaf_get(m, 1, 0);
    l->ebx |= (logical > 255 ? 255u : logical) << 16;
    if (logical > 1) {
        l->edx |= 1u << 28;             /* HTT: the count above is valid */
    }
    struct cpuid_leaf *b = leaf_add(m, 0xb, 0, true);
    *b = (struct cpuid_leaf){ .leaf = 0xb, .sub = 0, .has_sub = true, .eax = smt, .ebx = t->threads, .ecx = 1 << 8 };
    b = leaf_add(m, 0xb, 1, true);
    *b = (struct cpuid_leaf){ .leaf = 0xb, .sub = 1, .has_sub = true, .eax = pkg, .ebx = logical, .ecx = 2 << 8 | 1 };
    struct cpuid_leaf *x8 = leaf_add(m, 0x80000008, 0, false);
    x8->eax = m->phys_bits | (uint32_t)m->lin_bits << 8;
    if (!amd) {
        return;
    }
    x8->ecx = (logical - 1) | pkg << 12;
    if (logical > 1) {
        leaf_get(m, 0x80000001, 0)->ecx |= 1 << 1;          /* CmpLegacy */
    }
    leaf_set(m, 0x8000001e, 0, (t->threads - 1) << 8, 0, 0);        /* ids: per CPU */
}

/* Deterministic cache parameters of the host, with who shares a cache replaced by our topology. */
static void put_caches(struct cpu_model *m, const struct cpu_topology *t, bool amd)
{
    uint32_t leaf = amd ? 0x8000001d : 4, max[4];
    host_cpuid(leaf & EXT_BASE, 0, max);
    unsigned pkg = 1u << (bits_for(t->threads) + bits_for(t->cores));
    for (uint32_t sub = 0; leaf <= max[0] && sub < 4; sub++) {
        uint32_t v[4];
        host_cpuid(leaf, sub, v);
        if (!(v[0] & 31)) {
            break;
        }
        unsigned level = v[0] >> 5 & 7, sharing = level >= 3 ? pkg : 1u << bits_for(t->threads);
        struct cpuid_leaf *l = leaf_add(m, leaf, sub, true);
        l->eax = (v[0] & 0x3fff) | (sharing - 1) << 14 | (amd ? 0 : ((1u << bits_for(t->cores)) - 1) << 26);
        l->ebx = v[1];
        l->ecx = v[2];
        l->edx = v[3];
    }
    if (amd) {
        leaf_copy(m, 0x80000005);
    } else {
        leaf_copy(m, 2);
    }
    leaf_copy(m, 0x80000006);
}

static bool put_xsave(struct cpu_model *m, struct err *err)
{
    if (!cpu_model_has(m, "xsave")) {
        m->xcr0_mask = 0;
        return true;
    }
    uint32_t v[4];
    bool avx = cpu_model_has(m, "avx");
    m->xcr0_mask = avx ? 7 : 3;
    uint32_t size = 576;
    if (avx) {
        host_cpuid(0xd, 2, v);
        if (v[0] != 256 || v[1] < 576 || v[1] > 4096 - 256) {
            return err_set(err, ERR_UNSUPPORTED, "this host keeps AVX state at an unexpected place (offset %u, size %u)", v[1], v[0]);
        }
        struct cpuid_leaf *l = leaf_add(m, 0xd, 2, true);
        l->eax = v[0];
        l->ebx = v[1];
        size = v[1] + v[0];
    }
    struct cpuid_leaf *l = leaf_add(m, 0xd, 0, true);
    l->eax = (uint32_t)m->xcr0_mask;
    l->ecx = size;                      /* EBX: by XCR0, per call */
    leaf_add(m, 0xd, 1, true);
    return true;
}

static void put_clocks(struct cpu_model *m)
{
    leaf_set(m, 0x15, LAPIC_TIMER_HZ / 1000, m->tsc_khz, LAPIC_TIMER_HZ, 0);
    leaf_set(m, 0x16, m->tsc_khz / 1000, m->tsc_khz / 1000, 100, 0);
    if (m->kvm_pv) {
        leaf_set(m, HV_BASE, HV_MAX, 0x4b4d564b /* "KVMKVMKVM" */, 0x564b4d56, 0x4d);
        leaf_set(m, HV_MAX, m->tsc_khz, LAPIC_TIMER_HZ / 1000, 0, 0);
    }
}

static uint8_t host_phys_bits(void)
{
    uint32_t v[4];
    host_cpuid(0x80000008, 0, v);
    unsigned bits = v[0] & 0xff;
    return (uint8_t)(bits < 36 ? 36 : bits > 52 ? 52 : bits);
}

/* PV spinlocks pay only when vCPUs can lose their host CPU to each other. */
static bool wants_unhalt(const struct cpu_topology *t)
{
    cpu_set_t set;
    return t->cpus > 1 && sched_getaffinity(0, sizeof(set), &set) == 0 && t->cpus > (unsigned)CPU_COUNT(&set);
}

bool cpu_model_make(struct cpu_model *m, const char *spec, const struct cpu_topology *topo, struct err *err)
{
    bool want[MAX_CPU_FEATURES] = { 0 }, asked[MAX_CPU_FEATURES] = { 0 }, amd = host_amd();
    struct cpu_model out = { .lin_bits = 48, .phys_bits = host_phys_bits() };
    struct cpu_topology t = *topo;
    t.cores = t.cores ? t.cores : 1;
    t.threads = t.threads ? t.threads : 1;
    if (!parse_spec(spec, amd, want, asked, out.name, sizeof(out.name), err) || !check_named(out.name, amd, err)) {
        return false;
    }
    int unhalt = cpu_feature_find("kvm-pv-unhalt", 13);
    want[unhalt] |= wants_unhalt(&t) && !strstr(spec, "-kvm-pv-unhalt");
    if (!settle_features(amd, want, asked, err)) {
        return false;
    }
    for (unsigned i = 0; i < n_cpu_features; i++) {
        const struct cpu_feature *f = &cpu_features[i];
        struct cpuid_leaf *l = leaf_add(&out, f->leaf, f->sub, f->leaf == 0xd || f->leaf == 7);
        if (want[i]) {
            *leaf_reg(l, f->reg) |= 1u << f->bit;
            out.kvm_pv |= f->leaf == HV_BASE + 1;
        }
    }
    out.tsc_khz = host_tsc_khz();
    put_identity(&out, amd);
    put_topology(&out, &t, amd);
    put_caches(&out, &t, amd);
    put_clocks(&out);
    if (!put_xsave(&out, err)) {
        return false;
    }
    if (!amd) {
        out.arch_caps = ARCH_CAP_RDCL_NO | ARCH_CAP_IBRS_ALL | ARCH_CAP_SKIP_L1DFL | ARCH_CAP_SSB_NO | ARCH_CAP_MDS_NO |
                        ARCH_CAP_PSCHANGE_MC_NO | ARCH_CAP_TAA_NO | ARCH_CAP_SBDR_SSDP_NO | ARCH_CAP_FBSDP_NO | ARCH_CAP_PSDP_NO |
                        ARCH_CAP_BHI_NO | ARCH_CAP_PBRSB_NO | ARCH_CAP_GDS_NO | ARCH_CAP_RFDS_NO | ARCH_CAP_ITS_NO;
    }
    *m = out;
    return true;
}

const char *const *cpu_model_names(void)
{
    static const char *names[32] = { "host", "max" };
    if (!names[2]) {
        for (unsigned i = 0; cpu_named[i].name && i + 3 < ARRAY_SIZE(names); i++) {
            names[2 + i] = cpu_named[i].name;
        }
    }
    return names;
}

const char *const *cpu_feature_names(void)
{
    static const char *names[MAX_CPU_FEATURES];
    if (!names[0]) {
        for (unsigned i = n_cpu_features; i-- > 0;) {
            names[i] = cpu_features[i].name;
        }
    }
    return names;
}

bool cpu_model_has(const struct cpu_model *m, const char *feature)
{
    int i = cpu_feature_find(feature, strlen(feature));
    if (i < 0) {
        return false;
    }
    const struct cpu_feature *f = &cpu_features[i];
    struct cpuid_leaf *l = leaf_get((struct cpu_model *)(uintptr_t)m, f->leaf, f->sub);
    return l && (*leaf_reg(l, f->reg) >> f->bit & 1);
}

/* --- answering --- */

static const struct cpuid_leaf *lookup(const struct cpu_model *m, uint32_t leaf, uint32_t sub)
{
    for (unsigned i = 0; i < m->n_leaves; i++) {
        const struct cpuid_leaf *l = &m->leaves[i];
        if (l->leaf == leaf && (!l->has_sub || l->sub == sub)) {
            return l;
        }
    }
    return NULL;
}

static void patch_1(uint32_t apic_id, uint64_t cr4, uint32_t out[4])
{
    out[1] |= (apic_id & 0xff) << 24;
    if (cr4 >> 18 & 1) {                /* CR4.OSXSAVE */
        out[2] |= 1u << 27;
    }
}

static void patch_d(const struct cpu_model *m, uint32_t sub, uint64_t xcr0, uint32_t out[4])
{
    const struct cpuid_leaf *avx = lookup(m, 0xd, 2);
    bool on = (xcr0 & 4) && avx;
    if (sub == 0) {
        out[1] = on ? avx->ebx + avx->eax : 576;
    } else if (sub == 1 && (out[0] & 2)) {
        out[1] = on ? 576 + avx->eax : 576;     /* compacted */
    }
}

static void patch_1e(const struct cpu_model *m, uint32_t apic_id, uint32_t out[4])
{
    const struct cpuid_leaf *smt = lookup(m, 0xb, 0), *pkg = lookup(m, 0xb, 1);
    unsigned s = smt ? smt->eax : 0, p = pkg ? pkg->eax : 0;
    out[0] = apic_id;
    out[1] |= (apic_id & ((1u << p) - 1)) >> s & 0xff;
    out[2] = apic_id >> p & 0xff;
}

void cpu_model_cpuid(const struct cpu_model *m, uint32_t apic_id, uint64_t cr4, uint64_t xcr0, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    const struct cpuid_leaf *ext = lookup(m, EXT_BASE, 0);
    bool hv = leaf >= HV_BASE && leaf <= HV_MAX && m->kvm_pv;
    bool in_ext = leaf >= EXT_BASE && ext && leaf <= ext->eax;
    if (leaf > MAX_BASIC && !hv && !in_ext) {
        if (ext && ext->ebx) {          /* AMD: zeros; Intel: the highest basic leaf */
            memset(out, 0, 4 * sizeof(out[0]));
            return;
        }
        leaf = MAX_BASIC;
    }
    const struct cpuid_leaf *l = lookup(m, leaf, sub);
    out[0] = l ? l->eax : 0;
    out[1] = l ? l->ebx : 0;
    out[2] = l ? l->ecx : 0;
    out[3] = l ? l->edx : 0;
    switch (leaf) {
    case 1: patch_1(apic_id, cr4, out); break;
    case 0xb:
        out[2] = l ? out[2] : sub & 0xff;
        out[3] = apic_id;
        break;
    case 0xd: patch_d(m, sub, xcr0, out); break;
    case 0x8000001e: patch_1e(m, apic_id, out); break;
    default: break;
    }
}
