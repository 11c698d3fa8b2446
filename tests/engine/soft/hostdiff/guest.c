/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The software CPU's side: one vCPU at CPL 3 in long mode, 64-bit or compatibility code, the arena and the code page
 * mapped onto themselves by real page tables. A case is decoded, prepared and run as one block, without run/.
 */
#include "hostdiff.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/soft/interp/interp.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/native/native.h"
#include "engine/soft/sys/sys.h"

static struct soft_vm vm;
static struct soft_cpu *cpu;
static uint8_t *tables, *arena, *code;
static struct uop uops[MAX_SEQ + 1];
static uint64_t offs[MAX_SEQ + 1];
static uint64_t entry /* offset in CS */, cs_base, feats;

/* --- what run/ would answer --- */
uint64_t cpu_insn_rip(const struct soft_cpu *c)
{
    return entry + offs[c->u - uops];
}
uint64_t cpu_next_rip(const struct soft_cpu *c)
{
    return entry + offs[c->u - uops + 1];
}
void cpu_wake(struct soft_cpu *c)
{
}

static const struct uop *end_of_case(struct soft_cpu *c, const struct uop *u)
{
    c->rip = entry + offs[u - uops];
    return NULL;
}

/* --- features: what this host has --- */
static uint32_t cpuid_reg(unsigned leaf, unsigned sub, unsigned reg)
{
    uint32_t v[4] = {0};
    __get_cpuid_count(leaf, sub, &v[0], &v[1], &v[2], &v[3]);
    return v[reg];
}

uint64_t host_feats(void)
{
    enum { A, B, C, D };
    static const struct {
        uint8_t feat;
        uint32_t leaf;
        uint8_t sub, reg, bit;
    } map[] = {
        {FEAT_SSE3, 1, 0, C, 0}, {FEAT_PCLMUL, 1, 0, C, 1}, {FEAT_SSSE3, 1, 0, C, 9}, {FEAT_FMA, 1, 0, C, 12},
        {FEAT_CX16, 1, 0, C, 13}, {FEAT_SSE41, 1, 0, C, 19}, {FEAT_SSE42, 1, 0, C, 20}, {FEAT_MOVBE, 1, 0, C, 22},
        {FEAT_POPCNT, 1, 0, C, 23}, {FEAT_AES, 1, 0, C, 25}, {FEAT_XSAVE, 1, 0, C, 26}, {FEAT_AVX, 1, 0, C, 28},
        {FEAT_F16C, 1, 0, C, 29}, {FEAT_FSGSBASE, 7, 0, B, 0}, {FEAT_BMI1, 7, 0, B, 3}, {FEAT_AVX2, 7, 0, B, 5},
        {FEAT_BMI2, 7, 0, B, 8}, {FEAT_ADX, 7, 0, B, 19}, {FEAT_CLFLUSHOPT, 7, 0, B, 23}, {FEAT_CLWB, 7, 0, B, 24},
        {FEAT_SHA, 7, 0, B, 29}, {FEAT_GFNI, 7, 0, C, 8}, {FEAT_VAES, 7, 0, C, 9}, {FEAT_VPCLMUL, 7, 0, C, 10},
        {FEAT_MOVDIRI, 7, 0, C, 27}, {FEAT_LAHF64, 0x80000001, 0, C, 0}, {FEAT_LZCNT, 0x80000001, 0, C, 5},
        {FEAT_SSE4A, 0x80000001, 0, C, 6}, {FEAT_PREFETCHW, 0x80000001, 0, C, 8}, {FEAT_XSAVEOPT, 0xd, 1, A, 0},
        {FEAT_XSAVEC, 0xd, 1, A, 1}, {FEAT_XSAVES, 0xd, 1, A, 3}, {FEAT_CLZERO, 0x80000008, 0, B, 0},
    };
    uint64_t f = ~0ull;
    for (unsigned i = 0; i < ARRAY_SIZE(map); i++) {
        if (!(cpuid_reg(map[i].leaf, map[i].sub, map[i].reg) >> map[i].bit & 1)) {
            f &= ~(1ull << map[i].feat);
        }
    }
    return f;
}

/* --- memory --- */
static uint8_t *ram(size_t size)
{
    uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        abort();
    }
    return p;
}

static void pte(unsigned table, unsigned i, uint64_t v)
{
    store_le64(tables + table * PG + 8 * i, v);
}

/* One table a level is enough: both areas lie in the first GiB, in two page tables. */
static void make_tables(void)
{
    enum { P = 1, W = 2, U = 4 };
    const uint64_t nx = 1ull << 63;
    const gpa_t at = TABLES_GPA;
    pte(0, 0, (at + PG) | P | W | U);
    pte(1, 0, (at + 2 * PG) | P | W | U);
    pte(2, AR >> 21 & 511, (at + 3 * PG) | P | W | U);
    pte(2, CODE >> 21 & 511, (at + 4 * PG) | P | W | U);
    for (unsigned i = 0; i < AR_PAGES; i++) {
        if (page_mapped(i)) {
            pte(3, (AR >> 12 & 511) + i, (AR + i * PG) | P | U | (page_writable(i) ? W : 0) | nx);
        }
    }
    pte(4, CODE >> 12 & 511, CODE | P | U);
}

uint8_t *guest_mem(void)
{
    return arena;
}

static void seg(unsigned n, uint16_t sel, uint16_t attr)
{
    cpu->st.seg[n] = (struct x86_seg){.limit = 0xffffffff, .sel = sel, .attr = attr};
}

void guest_init(uint64_t f)
{
    struct err err = ERR_INIT;
    feats = f;
    tables = ram(8 * PG);
    arena = ram(AR_PAGES * PG);
    code = ram(PG);
    memcpy(arena, pristine, AR_PAGES * PG);
    put_code_exit(code);
    vm.mem = mem_create();
    vm.n_cpus = 1;
    vm.model.phys_bits = 40;
    vm.model.lin_bits = 48;
    vm.model.xcr0_mask = 7;
    vm.model.n_leaves = 2;
    vm.model.leaves[0] = (struct cpuid_leaf){.leaf = 1, .edx = 1u << 17};
    vm.model.leaves[1] = (struct cpuid_leaf){.leaf = 0x80000001, .edx = 1u << 26 | 1u << 20};
    vm.model.insn_feats = f;
    cpu = aligned_alloc(64, (sizeof(*cpu) + 63) & ~(size_t)63);
    memset(cpu, 0, sizeof(*cpu));
    cpu->vm = &vm;
    cpu->model = &vm.model;
    pthread_mutex_init(&cpu->apic_lock, NULL);
    vm.cpus = &cpu;
    make_tables();
    if (!mem_slot_add(vm.mem, TABLES_GPA, 8 * PG, tables, false, &err) ||
        !mem_slot_add(vm.mem, AR, AR_PAGES * PG, arena, false, &err) || !mem_slot_add(vm.mem, CODE, PG, code, false, &err)) {
        fprintf(stderr, "hostdiff: %s\n", err.msg);
        exit(2);
    }
    struct code_map *m = code_map_create(&vm);
    mmu_cpu_init(cpu);
    vm.code_buf = code_buf_create(2 * MIB, &err);
    bool ok = vm.code_buf && native_cpu_init(cpu, &err);
    unsigned n_slots;
    const struct memslot *slots = mem_slots(vm.mem, &n_slots);
    for (unsigned i = 0; ok && i < n_slots; i++) {
        ok = !slots[i].size || code_map_slot_set(m, &slots[i], &err);
    }
    if (!ok) {
        fprintf(stderr, "hostdiff: %s\n", err.msg);
        exit(2);
    }
    cpu->st.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    cpu->st.cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE | CR4_PCE * 0;
    cpu->st.efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    cpu->st.cr3 = TABLES_GPA;
    cpu->st.xcr0 = 7;
    cpu->st.lapic.base_msr = 0xfee00800;
    seg(SEG_FS, 0, 0xc0f3);
    seg(SEG_GS, 0, 0xc0f3);
}

static void set_mode(const struct test_case *t)
{
    cs_base = t->bits == 16 ? CODE : 0;
    seg(SEG_CS, t->bits == 64 ? 0x33 : 0x23, t->bits == 64 ? 0xa0fb : 0xc0fb);
    if (t->bits == 16) {
        cpu->st.seg[SEG_CS] = (struct x86_seg){.base = CODE, .limit = 0xffff, .sel = SEL_CODE16, .attr = 0x00fb};
    }
    static const uint8_t data[] = {SEG_ES, SEG_SS, SEG_DS};
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
        seg(data[i], 0x2b, 0xc0f3);
        if (t->segs) {
            cpu->st.seg[data[i]] = (struct x86_seg){.base = AR, .limit = SEG_LIMIT, .sel = t->bits == 16 ? SEL_DATA16 : SEL_DATA32,
                                                    .attr = t->bits == 16 ? 0x00f3 : 0x40f3};
        }
    }
    cpu->st.seg[SEG_FS].base = t->in.fs;
    cpu->st.seg[SEG_GS].base = t->in.gs;
    cpu_update_mode(cpu);
}

static void load_state(const struct test_case *t)
{
    memcpy(cpu->r, t->in.r, sizeof(t->in.r));
    cpu->r[R_ZERO] = 0;
    cpu->st.rflags = t->in.rflags;
    cpu->af = flags_pack(t->in.rflags);
    cpu->df_step = t->in.rflags & X86_DF ? -1 : 1;
    memcpy(cpu->st.xsave, t->in.xsave, XS_SIZE);
    memset(cpu->st.xsave + 512, 0, 64);
    cpu->st.xsave[512] = 7;
    cpu->single = false;
    cpu->n_smc = 0;
    atomic_store(&cpu->pending, 0);
    set_mode(t);
    entry = t->in.rip - cs_base;
    cpu->rip = cpu->r[R_BLOCK_RIP] = entry;
}

/* As the block builder does it: see struct uop. */
static bool build(const struct test_case *t)
{
    unsigned at = 0;
    for (unsigned k = 0; k < t->n; k++) {
        struct uop *u = &uops[k];
        struct insn *i = &u->i;
        *i = t->insn[k];
        offs[k] = at;
        at += i->len;
        const struct insn_row *r = insn_row(i);
        if (i->base == INSN_REG_RIP) {
            i->base = R_BLOCK_RIP;
            i->disp += (int32_t)at;
        } else if (i->base == INSN_REG_NONE) {
            i->base = R_ZERO;
        }
        if (i->index == INSN_REG_NONE) {
            i->index = R_ZERO;
        }
        if (i->form == F_J) {
            i->imm += at;
            i->disp = (int32_t)at;
        }
        if (r->op >= OP_FXSAVE) {
            if (!native_prepare(cpu, u, t->code + offs[k])) {
                native_flush(vm.code_buf);
                return false;
            }
        } else {
            interp_prepare(u, cpu->mode);
        }
    }
    offs[t->n] = at;
    uops[t->n] = (struct uop){.fn = end_of_case};
    return true;
}

static void execute(struct outcome *o)
{
    cpu->u = uops;
    if (__builtin_setjmp(cpu->jb)) {
        if (cpu_unwind_reason == UNWIND_EXCEPTION) {
            o->vector = cpu->exc_vector;
            o->error = cpu->exc_has_error ? cpu->exc_error : 0;
            o->cr2 = cpu->exc_vector == EXC_PF ? cpu->st.cr2 : 0;
            o->s.rip = cs_base + cpu_insn_rip(cpu);
            mmu_exclusive_abort(cpu);
            return;
        }
        if (cpu_unwind_reason == UNWIND_SINGLE) {
            cpu->single = true;
        }
    } else {
        o->vector = -1;
    }
    const struct uop *u = cpu->u;
    while (u) {
        cpu->u = u;
        u = u->fn(cpu, u);
    }
    o->s.rip = cs_base + cpu->rip;
    /* where it went must be fetchable, as the host found out */
    cpu->u = &uops[0];
    uint64_t went = cs_base + cpu->rip;
    if (went - CODE >= PG) {
        const uint8_t *p;
        offs[0] = cpu->rip - entry;
        mmu_fetch(cpu, went, &p);
    }
}

void guest_run(const struct test_case *t, struct outcome *o)
{
    memset(o, 0, sizeof(*o));
    load_state(t);
    unsigned n = put_code(t, code);
    while (!build(t)) {
    }
    execute(o);
    memset(code + (t->in.rip - CODE), 0xcc, n);
    memcpy(o->s.r, cpu->r, sizeof(o->s.r));
    o->s.rflags = cpu_rflags(cpu);
    o->s.fs = cpu->st.seg[SEG_FS].base;
    o->s.gs = cpu->st.seg[SEG_GS].base;
    memcpy(o->s.xsave, cpu->st.xsave, XS_SIZE);
}
