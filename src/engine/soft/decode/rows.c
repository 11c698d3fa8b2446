/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The opcode tables. Where several rows could match the same bytes, the first one listed wins: rows with a mandatory
 * prefix or a fixed ModRM.rm stand before the general ones.
 */
#include "engine/soft/decode/rows-int.h"

const struct insn_row insn_rows[] = {
    { .name = "(bad)", .op = OP_ILLEGAL, .ext = NO_EXT },       /* row of whatever does not decode; never looked up */
#define MAP 0
#include "engine/soft/decode/rows-onebyte.inc"
#include "engine/soft/decode/rows-x87.inc"
#undef MAP
#define MAP 1
#include "engine/soft/decode/rows-0f.inc"
#include "engine/soft/decode/rows-0f-simd.inc"
#include "engine/soft/decode/rows-vex-0f.inc"
#undef MAP
#define MAP 2
#include "engine/soft/decode/rows-0f38.inc"
#include "engine/soft/decode/rows-vex-0f38.inc"
#undef MAP
#define MAP 3
#include "engine/soft/decode/rows-0f3a.inc"
#include "engine/soft/decode/rows-vex-0f3a.inc"
#undef MAP
};
const unsigned n_insn_rows = ARRAY_SIZE(insn_rows);
