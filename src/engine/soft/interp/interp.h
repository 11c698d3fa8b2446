/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Executes decoded blocks: picks the handler of each instruction. The slow, true one. */
#ifndef LODGE_SOFT_INTERP_INTERP_H
#define LODGE_SOFT_INTERP_INTERP_H

#include "engine/soft/cpu.h"

/*
 * Sets u->fn from u->i (fields already rewritten for the block, see struct uop) for code of mode `mode` (MODE_*).
 * Everything but the rows native/ makes; OP_ILLEGAL raises #UD when executed.
 */
void interp_prepare(struct uop *u, uint32_t mode);
/* Handlers for what the builder adds itself: fell off the block's end; the bytes raise `imm` = vector (#UD, #GP). */
uop_fn interp_block_end, interp_raise;

#endif
