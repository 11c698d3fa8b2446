/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The block cache and the run loop; who runs next; sleep, wake and timer; the vCPUs of a VM. */
#ifndef LODGE_SOFT_RUN_RUN_H
#define LODGE_SOFT_RUN_RUN_H

#include "engine/soft/cpu.h"
#include "engine/soft/mmu/mmu.h"

/* A decoded block: instructions of one page in a row, up to a control transfer. Owned by one vCPU's cache. */
struct soft_block {
    gpa_t gpa;                  /* of the first byte */
    uint32_t mode;
    uint16_t n;                 /* instructions; uops[n] is the end marker */
    uint16_t len : 15;          /* bytes */
    uint16_t crosses : 1;       /* one instruction over the page's end: depends on page2 as well */
    uint32_t gen, gen2;         /* of page and page2 at decode time */
    struct code_page *page, *page2;     /* page2 == page when nothing crosses */
    struct soft_block *hash_next;
    int16_t *offs;              /* byte offset of each uop from R_BLOCK_RIP, n + 1 entries */
    uint64_t rip_bias;          /* R_BLOCK_RIP - RIP at entry: 0, but see block_single() */
    struct uop uops[];
};
_Static_assert(offsetof(struct soft_block, uops) == 64, "the head of a block is one cache line");

enum { BLOCK_MAX_INSNS = 64 };

/* code_size: bytes of host code, 0 for the default. Every vCPU exists and is zero: soft_cpu_import comes before soft_run. */
struct soft_vm *soft_vm_create(struct mem *mem, struct irq_hub *irq, struct vm_clock *clock, const struct cpu_model *model,
                               unsigned n_cpus, size_t code_size, struct err *err);
void soft_vm_destroy(struct soft_vm *vm);

enum soft_exit { SOFT_EXIT_KICKED, SOFT_EXIT_SHUTDOWN /* triple fault */ };
/*
 * What a vCPU needs of its thread: the timer and its signal. Before the sandbox closes; soft_run and soft_step do it themselves when
 * it was not done on this thread. False: the host has no timers left.
 */
bool soft_thread_init(struct soft_cpu *c, struct err *err);
/* Runs until kicked or shut down; HLT sleeps inside. vCPU thread. */
enum soft_exit soft_run(struct soft_cpu *c);
/* soft_run returns soon. Any thread, async-signal-safe. */
void soft_kick(struct soft_cpu *c);
/*
 * Executes at most n instructions one at a time, taking exceptions but no interrupts unless take_irqs; for tests and lockstep.
 * Returns those completed; fewer when it halts or shuts down.
 */
uint64_t soft_step(struct soft_cpu *c, uint64_t n, bool take_irqs);
/* Drops the blocks of a vCPU that stands still. */
void soft_drop_blocks(struct soft_cpu *c);

#endif
