/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A soft_cpu with a little RAM and without paging, mmu/, sys/ or run/: linear address = host address, below 2 GiB. Pages
 * 0..5 are in the TLB, 6 and 7 always take the slow paths. What interp/ calls of the other parts is played here.
 */
#ifndef LODGE_TESTS_SOFT_INTERP_FIXTURE_H
#define LODGE_TESTS_SOFT_INTERP_FIXTURE_H

#include <setjmp.h>

#include "engine/soft/interp/interp.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/sys/sys.h"

enum { RAM_PAGES = 8, RAM_SIZE = RAM_PAGES * PAGE_SIZE, RAM_FAST_PAGES = 6 };
#define RAM_AT 0x20000000ull
#define CODE_AT 0x30000200ull           /* host-executable page of the native side; also the guest's RIP */

extern uint8_t *const ram;
extern struct soft_cpu *cpu;
extern unsigned exclusive_calls, sys_calls;
extern bool sys_answer;                 /* what sys_insn returns */
extern uint64_t sys_lin;                /* what it was given */

void fixture_init(void);                /* once */
void fixture_reset(uint32_t mode);      /* registers, segments, RAM to zero */
/* Decodes and runs the one instruction at CODE_AT in cpu->mode. False: it raised cpu->exc_*. c->rip is set either way. */
bool fixture_run(const uint8_t *bytes, size_t n);

#endif
