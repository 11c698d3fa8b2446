/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The block cache and the run loop; who runs next; cross-vCPU requests; sleep and wake. */
#ifndef LODGE_SOFT_RUN_RUN_H
#define LODGE_SOFT_RUN_RUN_H

#include "engine/soft/cpu.h"
#include "engine/soft/mmu/mmu.h"

/* A decoded block: instructions of one page in a row, up to a control transfer. Owned by one vCPU's cache. */
struct soft_block {
    gpa_t gpa;                  /* of the first byte */
    uint32_t mode;
    uint16_t n;                 /* instructions; uops[n] is the end marker */
    uint16_t len;               /* bytes */
    uint32_t gen, gen2;         /* of page and, when an instruction crosses, page2 at decode time */
    struct code_page *page, *page2;
    struct soft_block *hash_next;
    uint16_t *offs;             /* byte offset of each uop from the block's start, n + 1 entries */
    struct uop uops[];
};

enum { BLOCK_MAX_INSNS = 64 };

struct soft_vm *soft_vm_create(struct mem *mem, struct irq_hub *irq, struct vm_clock *clock, const struct cpu_model *model, unsigned n_cpus, size_t code_size, struct err *err);
void soft_vm_destroy(struct soft_vm *vm);

enum soft_exit { SOFT_EXIT_KICKED, SOFT_EXIT_SHUTDOWN /* triple fault */ };
/* Runs until kicked or shut down; HLT sleeps inside. vCPU thread. */
enum soft_exit soft_run(struct soft_cpu *c);
/* soft_run returns soon. Any thread, async-signal-safe. */
void soft_kick(struct soft_cpu *c);
/* Executes at most n instructions, taking exceptions but no interrupts unless take_irqs; for tests and lockstep. Returns those executed. */
uint64_t soft_step(struct soft_cpu *c, uint64_t n, bool take_irqs);
/* Runs fn on every other vCPU's behalf while it stands at a block edge: sets bits, waits for all. Caller is vCPU c or (c == NULL) any other thread. */
void soft_flush_write_tags(struct soft_vm *vm, struct soft_cpu *c, gpa_t page);

#endif
