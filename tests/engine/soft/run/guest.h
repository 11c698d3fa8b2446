/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tiny guests for the run loop: 8 MiB of RAM, a debug port, code from assembler text in the test file itself.
 * GUEST(name, bits, text) makes name[] .. name_end[]; the text is placed at GUEST_AT and may use GUEST_AT + (label - name).
 */
#ifndef LODGE_TEST_GUEST_H
#define LODGE_TEST_GUEST_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "engine/soft/run/run.h"
#include "engine/soft/sys/sys.h"

enum { GUEST_RAM = 8 * MIB, GUEST_AT = 0x8000, TABLES = 0x100000, IDT_AT = 0x110000, GDT_AT = 0x111000, STACK_AT = 0x180000,
       DATA_AT = 0x200000, DEBUG_PORT = 0xf4 };

#define GUEST(name, bits, text)                                                                                        \
    extern const uint8_t name[], name##_end[];                                                                         \
    __asm__(".pushsection .rodata\n.code" #bits "\n.globl " #name "\n" #name ":\n" text "\n.globl " #name "_end\n"      \
            #name "_end:\n.code64\n.popsection")

struct guest {
    struct mem *mem;
    struct irq_hub irq;
    struct vm_clock clock;
    struct cpu_model model;
    struct soft_vm *vm;
    struct io_region port;
    uint8_t *ram;
    _Atomic uint32_t exit_value;        /* last value written to the debug port */
    _Atomic unsigned n_exits;
    unsigned watchdog_s;
};

static struct guest g;

static void port_write(struct io_region *r, uint64_t off, uint64_t val, unsigned width)
{
    atomic_store(&g.exit_value, (uint32_t)val);
    atomic_fetch_add(&g.n_exits, 1);
    for (unsigned i = 0; i < g.vm->n_cpus; i++) {
        soft_kick(g.vm->cpus[i]);
    }
}

static uint64_t port_read(struct io_region *r, uint64_t off, unsigned width)
{
    return 0;
}

static const struct io_handler port_ops = { port_read, port_write, 1, 4 };

static void on_watchdog(int sig)
{
    static const char msg[] = "guest hangs\n";
    (void)!write(2, msg, sizeof(msg) - 1);
    for (unsigned i = 0; g.vm && i < g.vm->n_cpus; i++) {
        char line[128];
        const struct soft_cpu *c = g.vm->cpus[i];
        int n = snprintf(line, sizeof(line), "vCPU %u rip %#llx insns %llu pending %#x halted %u mp %u\n", i, (unsigned long long)c->rip,
                         (unsigned long long)c->insns, atomic_load(&c->pending), c->st.ev.halted, c->st.ev.mp_state);
        (void)!write(2, line, (size_t)n);
    }
    abort();
}

static void guest_create(unsigned n_cpus)
{
    struct err err = ERR_INIT;
    struct cpu_topology topo = { n_cpus, 1, n_cpus, 1 };
    memset(&g, 0, sizeof(g));
    g.mem = mem_create();
    irq_hub_init(&g.irq);
    vm_clock_init(&g.clock);
    if (!mem_ram_add(g.mem, 0, GUEST_RAM, &err) || !cpu_model_make(&g.model, "max", &topo, &err)) {
        fail_msg("%s", err.msg);
    }
    g.ram = mem_slot_find(g.mem, 0)->hva;
    g.vm = soft_vm_create(g.mem, &g.irq, &g.clock, &g.model, n_cpus, 0, &err);
    if (!g.vm) {
        fail_msg("%s", err.msg);
    }
    static pthread_mutex_t port_lock = PTHREAD_MUTEX_INITIALIZER;
    g.port = (struct io_region){ .name = "debug-exit", .space = MEM_PIO, .base = DEBUG_PORT, .size = 4, .h = &port_ops, .lock = &port_lock };
    assert_true(mem_io_map(g.mem, &g.port, &err));
    for (unsigned i = 0; i < n_cpus; i++) {
        struct x86_state *st = aligned_alloc(64, (sizeof(*st) + 63) & ~(size_t)63);
        x86_state_reset(st, cpu_topology_apic_id(&topo, i), i == 0);
        soft_cpu_import(g.vm->cpus[i], st);
        free(st);
    }
    vm_clock_start(&g.clock);
    sys_clock_started(g.vm);
    signal(SIGALRM, on_watchdog);
    alarm(20);
}

static void guest_destroy(void)
{
    alarm(0);
    soft_vm_destroy(g.vm);
    mem_io_unmap(g.mem, &g.port);
    vm_clock_fini(&g.clock);
    mem_destroy(g.mem);
    g.vm = NULL;
}

static inline void guest_put(uint64_t at, const void *from, size_t n)
{
    assert_true(mem_write(g.mem, at, from, n));
}

static inline void guest_put64(uint64_t at, uint64_t v)
{
    guest_put(at, &v, 8);
}

static inline uint64_t guest_get64(uint64_t at)
{
    uint64_t v;
    assert_true(mem_read(g.mem, at, &v, 8));
    return v;
}

#define guest_load(name) guest_put(GUEST_AT, name, (size_t)(name##_end - name))

static inline struct x86_seg seg_flat(uint16_t sel, uint16_t attr)
{
    return (struct x86_seg){ .sel = sel, .limit = 0xffffffff, .attr = attr };
}

/* 16-bit real mode at 0:GUEST_AT. */
static inline void guest_real(unsigned i)
{
    struct x86_state *st = &g.vm->cpus[i]->st;
    st->seg[SEG_CS].sel = 0;
    st->seg[SEG_CS].base = 0;
    st->gpr[R_SP] = 0x7000;
    st->rip = GUEST_AT;
    st->ev.mp_state = MP_RUNNABLE;
    soft_cpu_import(g.vm->cpus[i], st);
}

/* GDT: 0x08 64-bit code, 0x10 data, 0x18 user data (0x1b), 0x20 user code (0x23), 0x28 32-bit code, 0x30 TSS. 2 MiB identity pages. */
static inline void guest_tables(void)
{
    static const uint64_t gdt[8] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff,
                                     0x00cf9b000000ffff, 0x00008b1120000067 };
    guest_put(GDT_AT, gdt, sizeof(gdt));
    guest_put64(0x112000 + 4, STACK_AT + 0x8000);       /* RSP0 of the TSS */
    guest_put64(TABLES, (TABLES + 0x1000) | 7);
    guest_put64(TABLES + 0x1000, (TABLES + 0x2000) | 7);
    guest_put64(TABLES + 0x1018, (TABLES + 0x3000) | 7);        /* 3..4 GiB: the APIC */
    for (unsigned p = 0; p < 512; p++) {
        guest_put64(TABLES + 0x2000 + 8 * p, p * 0x200000ull | 0x87);
        guest_put64(TABLES + 0x3000 + 8 * p, (0xc0000000ull + p * 0x200000ull) | 0x87);
    }
}

/* 64-bit kernel code at GUEST_AT. */
static inline void guest_long(unsigned i)
{
    struct soft_cpu *c = g.vm->cpus[i];
    struct x86_state *st = &c->st;
    guest_tables();
    st->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_WP;
    st->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    st->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
    st->cr3 = TABLES;
    for (unsigned s = 0; s < N_SEGS; s++) {
        st->seg[s] = s == SEG_CS ? seg_flat(8, 0xa09b) : seg_flat(0x10, 0xc093);
    }
    st->tr = (struct x86_seg){ .sel = 0x30, .base = 0x112000, .limit = 0x67, .attr = 0x8b };
    st->gdt = (struct x86_dtable){ GDT_AT, 63 };
    st->idt = (struct x86_dtable){ IDT_AT, 0xfff };
    st->gpr[R_SP] = STACK_AT + 0x10000 * i;
    st->rflags = X86_F1;
    st->rip = GUEST_AT;
    st->ev.mp_state = MP_RUNNABLE;
    soft_cpu_import(c, st);
}

/* A 64-bit interrupt gate at a label's distance from the guest's start. */
static inline void guest_gate(unsigned vector, uint64_t off, unsigned dpl)
{
    uint64_t to = GUEST_AT + off;
    guest_put64(IDT_AT + 16 * vector, (to & 0xffff) | 8 << 16 | (uint64_t)(0x8e00 | dpl << 13) << 32 | (to >> 16 & 0xffff) << 48);
    guest_put64(IDT_AT + 16 * vector + 8, to >> 32);
}

/* Runs vCPU 0 until the guest writes the debug port or shuts down. */
static inline enum soft_exit guest_run(void)
{
    return soft_run(g.vm->cpus[0]);
}

static inline void *cpu_thread(void *arg)
{
    struct soft_cpu *c = arg;
    return (void *)(uintptr_t)soft_run(c);
}

#endif
