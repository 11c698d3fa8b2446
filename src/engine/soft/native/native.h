/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * x87, MMX, SSE and AVX instructions as native copies: for each decoded one a thunk is generated that loads the named
 * guest registers, runs the instruction itself with its memory operand rewritten to a host pointer, and stores the results.
 * The code buffer is one memfd mapped twice, RW and RX at different addresses: never writable and executable at once.
 */
#ifndef LODGE_SOFT_NATIVE_NATIVE_H
#define LODGE_SOFT_NATIVE_NATIVE_H

#include "engine/soft/cpu.h"

struct code_buf;
/* size bytes of host code. The mappings are made here, before the sandbox closes; nothing maps executable pages later. */
struct code_buf *code_buf_create(size_t size, struct err *err);
void code_buf_destroy(struct code_buf *b);
size_t code_buf_used(const struct code_buf *b);
/* Forgets every thunk. All vCPUs stand at block edges, and no uop made by native_prepare is run after this. */
void native_flush(struct code_buf *b);

/* Host FPU environment and scratch of a vCPU. */
bool native_cpu_init(struct soft_cpu *c, struct err *err);
void native_cpu_fini(struct soft_cpu *c);

/*
 * Makes u->fn and u->imm for a OP_X87, OP_MMX, OP_VEC, or hand-run FPU/vector row (OP_FXSAVE ... OP_GATHER). bytes: the
 * instruction's u->i.len bytes. Any number of vCPUs may call it at once. Thunks are shared by equal instructions. False when the
 * code buffer is full (the caller flushes its blocks, calls native_flush when all vCPUs agree, and tries again).
 */
bool native_prepare(struct soft_cpu *c, struct uop *u, const uint8_t *bytes);

/* Handlers for instructions that move FPU/vector state by hand: FXSAVE, XSAVE*, XRSTOR*, LDMXCSR, MASKMOV, gathers, ... set by native_prepare. */

#endif
