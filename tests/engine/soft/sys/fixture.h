/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vCPUs on 4 MiB of flat memory, with tables where the tests put descriptors. CATCH runs a statement and gives the vector
 * it raised, or -1. No guest code runs: c->rip stands for the current instruction and the next one alike.
 */
#ifndef LODGE_TEST_SYS_FIXTURE_H
#define LODGE_TEST_SYS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/run/run.h"
#include "engine/soft/sys/sys.h"
#include "x86/msr.h"

enum { RAM = 4 * MIB, GDT = 0x1000, IDT = 0x2000, TSS = 0x3000, LDT = 0x4000, TSS2 = 0x5000, STACK0 = 0x8000, STACK3 = 0x9000, IST1 = 0xa000,
       PML4 = 0x10000, PDPT = 0x11000, PD = 0x12000, DATA = 0x20000, CODE = 0x30000 };

struct fixture {
    struct mem *mem;
    struct irq_hub irq;
    struct vm_clock clock;
    struct cpu_model model;
    struct soft_vm *vm;
    struct soft_cpu *c;         /* CPU 0 */
    uint8_t *ram;
};
static struct fixture f;

#define CATCH(stmt)                                                                                                    \
    ({                                                                                                                 \
        int raised_;                                                                                                   \
        if (__builtin_setjmp(f.c->jb) == 0) {                                                                          \
            stmt;                                                                                                      \
            raised_ = -1;                                                                                              \
        } else {                                                                                                       \
            raised_ = cpu_unwind_reason == UNWIND_EXCEPTION ? f.c->exc_vector : 100 + (int)cpu_unwind_reason;          \
        }                                                                                                              \
        raised_;                                                                                                       \
    })
#define assert_raises(vec, err, stmt)                                                                                  \
    do {                                                                                                               \
        assert_int_equal(CATCH(stmt), (vec));                                                                          \
        assert_int_equal(f.c->exc_has_error ? f.c->exc_error : 0, (err));                                              \
    } while (0)
#define assert_runs(stmt) assert_int_equal(CATCH(stmt), -1)

static inline void setup_cpus(unsigned n)
{
    struct err err = ERR_INIT;
    struct cpu_topology topo = { n, 1, n, 1 };
    memset(&f, 0, sizeof(f));
    f.mem = mem_create();
    irq_hub_init(&f.irq);
    vm_clock_init(&f.clock);
    if (!mem_ram_add(f.mem, 0, RAM, &err) || !cpu_model_make(&f.model, "max", &topo, &err)) {
        fail_msg("%s", err.msg);
    }
    f.ram = mem_slot_find(f.mem, 0)->hva;
    f.vm = soft_vm_create(f.mem, &f.irq, &f.clock, &f.model, n, 0, &err);
    if (!f.vm) {
        fail_msg("%s", err.msg);
    }
    for (unsigned i = 0; i < n; i++) {
        struct x86_state *st = aligned_alloc(64, (sizeof(*st) + 63) & ~(size_t)63);
        x86_state_reset(st, cpu_topology_apic_id(&topo, i), i == 0);
        soft_cpu_import(f.vm->cpus[i], st);
        free(st);
    }
    vm_clock_start(&f.clock);
    sys_clock_started(f.vm);
    f.c = f.vm->cpus[0];
}

static inline void teardown(void)
{
    soft_vm_destroy(f.vm);
    vm_clock_fini(&f.clock);
    mem_destroy(f.mem);
}

static inline uint64_t peek(uint64_t at, unsigned size)
{
    uint64_t v = 0;
    memcpy(&v, f.ram + at, size);
    return v;
}

static inline void poke(uint64_t at, unsigned size, uint64_t v)
{
    memcpy(f.ram + at, &v, size);
}

/* access: P DPL S type (bits 40..47 of a descriptor); flags: G DB L AVL in the upper nibble. */
static inline uint64_t descriptor(uint32_t base, uint32_t limit20, uint8_t access, uint8_t flags)
{
    return (limit20 & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 | (uint64_t)(limit20 >> 16 & 15) << 48 |
           (uint64_t)flags << 48 | (uint64_t)(base >> 24) << 56;
}

static inline uint64_t gate(uint16_t sel, uint32_t off, uint8_t access, uint8_t low)
{
    return (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)low << 32 | (uint64_t)access << 40 | (uint64_t)(off >> 16) << 48;
}

/* GDT of all tests. Selectors with their RPL. */
enum { CS32 = 0x08, DS32 = 0x10, CS32U = 0x1b, DS32U = 0x23, CS64 = 0x28, CS64U = 0x33, CS32C = 0x38 /* conforming */, NPDS = 0x40,
       CODE_XO = 0x48, DATA_RO = 0x50, TSSSEL = 0x58 /* 16 bytes in long mode */, LDTSEL = 0x68, GATE = 0x78 /* 16 bytes in long mode */,
       CS16 = 0x88, DS_DOWN = 0x90, TSSSEL2 = 0x98, GDT_SIZE = 0xa0 };

static inline void make_gdt(bool lma)
{
    memset(f.ram + GDT, 0, GDT_SIZE);
    poke(GDT + CS32, 8, descriptor(0, 0xfffff, 0x9a, 0xc0));
    poke(GDT + DS32, 8, descriptor(0, 0xfffff, 0x92, 0xc0));
    poke(GDT + (CS32U & ~7), 8, descriptor(0, 0xfffff, 0xfa, 0xc0));
    poke(GDT + (DS32U & ~7), 8, descriptor(0, 0xfffff, 0xf2, 0xc0));
    poke(GDT + CS64, 8, descriptor(0, 0xfffff, 0x9a, 0xa0));
    poke(GDT + (CS64U & ~7), 8, descriptor(0, 0xfffff, 0xfa, 0xa0));
    poke(GDT + CS32C, 8, descriptor(0, 0xfffff, 0x9e, 0xc0));
    poke(GDT + NPDS, 8, descriptor(0, 0xfffff, 0x12, 0xc0));
    poke(GDT + CODE_XO, 8, descriptor(0, 0xfffff, 0x98, 0xc0));
    poke(GDT + DATA_RO, 8, descriptor(0x1000, 0xfff, 0x90, 0x40));
    poke(GDT + TSSSEL, 8, descriptor(TSS, 0x100, 0x89, 0));
    poke(GDT + LDTSEL, 8, descriptor(LDT, 0x1f, 0x82, 0));
    poke(GDT + CS16, 8, descriptor(0, 0xffff, 0x9a, 0));
    poke(GDT + DS_DOWN, 8, descriptor(0, 0xf, 0x96, 0xc0));
    if (!lma) {
        poke(GDT + TSSSEL2, 8, descriptor(TSS2, 0x67, 0x89, 0));
    }
    f.c->st.gdt = (struct x86_dtable){ GDT, GDT_SIZE - 1 };
    f.c->st.idt = (struct x86_dtable){ IDT, 0xfff };
}

static inline struct x86_seg flat_seg(uint16_t sel, uint16_t attr)
{
    return (struct x86_seg){ .sel = sel, .limit = 0xffffffff, .attr = attr };
}

/* 32-bit protected mode at `cpl`, flat, no paging; TR loaded with a 32-bit TSS whose stack 0 is STACK0. */
static inline void enter_prot(unsigned cpl)
{
    struct x86_state *st = &f.c->st;
    uint16_t dpl = (uint16_t)(cpl << 5);
    st->cr0 = CR0_ET | CR0_PE;
    make_gdt(false);
    st->seg[SEG_CS] = flat_seg(cpl ? CS32U : CS32, 0xc09b | dpl);
    for (unsigned i = 0; i < N_SEGS; i++) {
        if (i != SEG_CS) {
            st->seg[i] = flat_seg(cpl ? DS32U : DS32, 0xc093 | dpl);
        }
    }
    st->tr = (struct x86_seg){ .sel = TSSSEL, .base = TSS, .limit = 0x100, .attr = 0x8b };
    poke(GDT + TSSSEL + 5, 1, 0x8b);
    poke(TSS + 4, 4, STACK0);
    poke(TSS + 8, 4, DS32);
    f.c->r[R_SP] = cpl ? STACK3 : STACK0;
    f.c->rip = CODE;
    cpu_update_mode(f.c);
}

/* 64-bit mode at `cpl`, first GiB mapped by user-writable 2 MiB pages, 64-bit TSS. */
static inline void enter_long(unsigned cpl)
{
    struct x86_state *st = &f.c->st;
    enter_prot(cpl);
    make_gdt(true);
    poke(GDT + TSSSEL + 5, 1, 0x8b);
    poke(PML4, 8, PDPT | 7);
    poke(PDPT, 8, PD | 7);
    for (unsigned i = 0; i < 512; i++) {
        poke(PD + 8 * i, 8, (uint64_t)i << 21 | 0x87);
    }
    st->cr3 = PML4;
    st->cr4 |= CR4_PAE;
    st->efer |= EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
    st->cr0 |= CR0_PG | CR0_WP;
    st->seg[SEG_CS] = flat_seg(cpl ? CS64U : CS64, (uint16_t)(0xa09b | cpl << 5));
    poke(TSS + 4, 8, STACK0);
    poke(TSS + 0x24, 8, IST1);
    mmu_flush_all(f.c);
    cpu_update_mode(f.c);
}

static inline void idt32(unsigned vector, uint16_t sel, uint32_t off, uint8_t access)
{
    poke(IDT + vector * 8, 8, gate(sel, off, access, 0));
}

static inline void idt64(unsigned vector, uint16_t sel, uint64_t off, uint8_t access, unsigned ist)
{
    poke(IDT + vector * 16, 8, gate(sel, (uint32_t)off, access, (uint8_t)ist));
    poke(IDT + vector * 16 + 8, 8, off >> 32);
}

static inline struct uop uop_of(enum insn_op op)
{
    struct uop u = { 0 };
    for (unsigned i = 0; i < n_insn_rows; i++) {
        if (insn_rows[i].op == op) {
            u.i.row = (uint16_t)i;
            u.i.len = 2;
            u.i.opsize = 2;
            u.i.asize = 2;
            return u;
        }
    }
    fail_msg("no row for operation %d", op);
    return u;
}

static inline bool deliver(unsigned vector, bool has_error, uint32_t error)
{
    f.c->exc_vector = (uint8_t)vector;
    f.c->exc_has_error = has_error;
    f.c->exc_error = error;
    f.c->exc_soft = false;
    return sys_deliver_exception(f.c);
}

#endif
