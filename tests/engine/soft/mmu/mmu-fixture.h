/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A vCPU with fake RAM and devices, and raises that land in the test. Included by one .c of each executable. */
#ifndef LODGE_TEST_MMU_FIXTURE_H
#define LODGE_TEST_MMU_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "engine/soft/mmu/mmu.h"
#include "engine/soft/sys/sys.h"

enum { RAM_SIZE = 4 * MIB, ROM_GPA = 0xf0000000, ROM_SIZE = 64 * KIB, DEV_GPA = 0xd0000000 };

struct fixture {
    struct soft_vm vm;
    struct soft_cpu *cpu[2];
    struct memslot slots[2];
    uint8_t *ram, *rom;
};

static struct fixture fx;
static jmp_buf raised_to;
static struct {
    int vector;                 /* -1: restart single */
    uint32_t error;
    uint64_t cr2;
} raised;
static struct {
    uint64_t addr, val;
    unsigned width;
    bool write;
} io_log[32];
static unsigned n_io;
static uint32_t lapic_last;

_Noreturn void cpu_raise_err(struct soft_cpu *c, unsigned vector, uint32_t error)
{
    raised.vector = (int)vector;
    raised.error = error;
    longjmp(raised_to, 1);
}

_Noreturn void cpu_raise_pf(struct soft_cpu *c, uint64_t cr2, uint32_t error)
{
    raised.cr2 = cr2;
    cpu_raise_err(c, EXC_PF, error);
}

_Noreturn void cpu_restart_single(struct soft_cpu *c)
{
    raised.vector = -1;
    longjmp(raised_to, 1);
}

uint32_t lapic_read(struct soft_cpu *c, unsigned off)
{
    return 0x01020300 + off;
}

void lapic_write(struct soft_cpu *c, unsigned off, uint32_t val)
{
    lapic_last = val ^ off;
}

uint64_t mem_io_read(struct mem *m, enum mem_space space, uint64_t addr, unsigned width)
{
    if (n_io < ARRAY_SIZE(io_log)) {
        io_log[n_io].addr = addr;
        io_log[n_io].width = width;
        io_log[n_io++].write = false;
    }
    uint64_t v = 0;
    for (unsigned i = 0; i < width; i++) {
        v |= (uint64_t)((addr + i) & 0xff) << (8 * i);
    }
    return v;
}

void mem_io_write(struct mem *m, enum mem_space space, uint64_t addr, uint64_t val, unsigned width)
{
    if (n_io < ARRAY_SIZE(io_log)) {
        io_log[n_io].addr = addr;
        io_log[n_io].width = width;
        io_log[n_io].val = val;
        io_log[n_io++].write = true;
    }
}

/* Runs the expression; true when it raised. */
#define RAISES(expr) (setjmp(raised_to) ? true : ((void)(expr), false))

static void fx_cpu_reset(struct soft_cpu *c)
{
    mmu_flush_all(c);
    memset(&c->st, 0, sizeof(c->st));
    c->st.lapic.base_msr = 0xfee00800;
    c->cpl = 0;
    c->single = false;
    c->n_smc = 0;
    c->u = NULL;
    mmu_select_context(c);
}

static int fx_setup(void **unused)
{
    static struct soft_cpu *cpus[2];
    memset(&fx, 0, sizeof(fx));
    fx.ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fx.rom = mmap(NULL, ROM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(fx.ram != MAP_FAILED && fx.rom != MAP_FAILED);
    fx.slots[0] = (struct memslot){ .id = 0, .gpa = 0, .size = RAM_SIZE, .hva = fx.ram, .fd = -1 };
    fx.slots[1] = (struct memslot){ .id = 1, .gpa = ROM_GPA, .size = ROM_SIZE, .hva = fx.rom, .fd = -1, .readonly = true };
    fx.vm.n_cpus = 2;
    fx.vm.cpus = cpus;
    fx.vm.model.phys_bits = 40;
    fx.vm.model.n_leaves = 2;
    fx.vm.model.leaves[0] = (struct cpuid_leaf){ .leaf = 1, .edx = 1u << 17 };
    fx.vm.model.leaves[1] = (struct cpuid_leaf){ .leaf = 0x80000001, .edx = 1u << 26 };
    struct err err = ERR_INIT;
    struct code_map *m = code_map_create(&fx.vm);
    for (unsigned i = 0; i < 2; i++) {
        fx.cpu[i] = cpus[i] = aligned_alloc(64, (sizeof(struct soft_cpu) + 63) & ~(size_t)63);
        memset(cpus[i], 0, sizeof(struct soft_cpu));
        cpus[i]->vm = &fx.vm;
        cpus[i]->model = &fx.vm.model;
        cpus[i]->index = i;
        mmu_cpu_init(cpus[i]);
    }
    assert_true(code_map_slot_set(m, &fx.slots[0], &err) && code_map_slot_set(m, &fx.slots[1], &err));
    fx_cpu_reset(fx.cpu[0]);
    fx_cpu_reset(fx.cpu[1]);
    n_io = 0;
    return 0;
}

static int fx_teardown(void **unused)
{
    code_map_destroy(fx.vm.code);
    free(fx.cpu[0]);
    free(fx.cpu[1]);
    munmap(fx.ram, RAM_SIZE);
    munmap(fx.rom, ROM_SIZE);
    return 0;
}

static inline void ram64(uint64_t at, uint64_t v)
{
    store_le64(fx.ram + at, v);
}

/* 4-level tables at 1 MiB: linear 0..2 MiB by 4 KiB pages onto themselves, 2..4 MiB by one large page. */
enum { PML4_AT = 0x100000, PDPT_AT = 0x101000, PD_AT = 0x102000, PT_AT = 0x103000 };
static inline void fx_long_mode(struct soft_cpu *c)
{
    ram64(PML4_AT, PDPT_AT | 7);
    ram64(PDPT_AT, PD_AT | 7);
    ram64(PD_AT, PT_AT | 7);
    ram64(PD_AT + 8, 0x200000 | 0x87);
    for (unsigned i = 0; i < 512; i++) {
        ram64(PT_AT + 8 * i, i * 4096ull | 7);
    }
    c->st.cr0 = CR0_PE | CR0_PG | CR0_WP;
    c->st.cr4 = CR4_PAE | CR4_PGE;
    c->st.efer = EFER_LME | EFER_LMA | EFER_NXE;
    c->st.cr3 = PML4_AT;
    c->mode = INSN_MODE_64 | MODE_FLAT | MODE_PROT;
    mmu_flush_all(c);
    mmu_select_context(c);
}

#endif
