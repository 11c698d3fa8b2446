/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Finds the rows that an opcode could mean. Built once from insn_rows, read-only afterwards. */
#ifndef LODGE_SOFT_DECODE_INDEX_INT_H
#define LODGE_SOFT_DECODE_INDEX_INT_H

#include "engine/soft/decode/insn.h"

struct row_list {
    uint16_t first;             /* in row_index.rows */
    uint8_t n;
    uint8_t kind;               /* enum list_kind */
};
enum list_kind {
    LIST_MODRM = 1,             /* a ModRM byte follows the opcode, whichever row it is */
    LIST_GROUP = 2,             /* `first` is in row_index.groups: eight lists, by ModRM.reg */
};
enum { INDEX_VEX = 3 /* maps 0F, 0F38, 0F3A in VEX are lists 4, 5, 6 */, N_INDEX_MAPS = 7, MAX_INDEX_ROWS = 4096, MAX_GROUPS = 96 };

struct row_index {
    struct row_list map[N_INDEX_MAPS][256];
    struct row_list groups[MAX_GROUPS][8];
    uint16_t rows[MAX_INDEX_ROWS];
    unsigned n_rows, n_groups;
};

const struct row_index *row_index_get(void);

#endif
