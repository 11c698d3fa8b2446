/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "engine/soft/decode/index-int.h"

#include <pthread.h>
#include <stdatomic.h>

/*
 * Filled at the first decode, under the once; readers take `ready` with acquire. It depends on nothing but insn_rows,
 * so one for the process is enough.
 */
static struct row_index the_index;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic bool ready;

static bool row_covers(const struct insn_row *r, unsigned map, unsigned opcode)
{
    unsigned at = r->map + (r->enc & RE_VEX ? INDEX_VEX : 0);
    unsigned span = r->enc & RE_OPREG ? 8 : r->enc & RE_CC ? 16 : 1;

    return r->op != OP_ILLEGAL && at == map && opcode >= r->opcode && opcode < r->opcode + span;
}

static bool row_in_group(const struct insn_row *r, unsigned reg)
{
    return r->ext == 0xff || r->ext == reg;
}

/* The tables are ours: one that does not fit is our mistake and stops the first decode of any test. */
static void list_fill(struct row_index *x, struct row_list *list, unsigned map, unsigned opcode, int reg)
{
    list->first = x->n_rows;
    for (unsigned i = 0; i < n_insn_rows; i++) {
        if (row_covers(&insn_rows[i], map, opcode) && (reg < 0 || row_in_group(&insn_rows[i], reg))) {
            if (x->n_rows == MAX_INDEX_ROWS) {
                abort();
            }
            x->rows[x->n_rows++] = i;
            list->n++;
            list->kind |= insn_rows[i].enc & RE_MODRM ? LIST_MODRM : 0;
        }
    }
}

static void list_build(struct row_index *x, unsigned map, unsigned opcode, bool is_group)
{
    struct row_list *list = &x->map[map][opcode];

    if (!is_group) {
        list_fill(x, list, map, opcode, -1);
        return;
    }
    if (x->n_groups == MAX_GROUPS) {
        abort();
    }
    list->first = x->n_groups++;
    list->kind = LIST_GROUP | LIST_MODRM;
    for (unsigned reg = 0; reg < 8; reg++) {
        list_fill(x, &x->groups[list->first][reg], map, opcode, reg);
    }
}

static void index_build(void)
{
    static bool used[N_INDEX_MAPS][256], grouped[N_INDEX_MAPS][256];

    for (unsigned i = 1; i < n_insn_rows; i++) {
        const struct insn_row *r = &insn_rows[i];
        for (unsigned op = r->opcode; op < 256 && row_covers(r, r->map + (r->enc & RE_VEX ? INDEX_VEX : 0), op); op++) {
            used[r->map + (r->enc & RE_VEX ? INDEX_VEX : 0)][op] = true;
            grouped[r->map + (r->enc & RE_VEX ? INDEX_VEX : 0)][op] |= r->ext != 0xff;
        }
    }
    for (unsigned map = 0; map < N_INDEX_MAPS; map++) {
        for (unsigned op = 0; op < 256; op++) {
            if (used[map][op]) {
                list_build(&the_index, map, op, grouped[map][op]);
            }
        }
    }
    atomic_store_explicit(&ready, true, memory_order_release);
}

const struct row_index *row_index_get(void)
{
    if (unlikely(!atomic_load_explicit(&ready, memory_order_acquire))) {
        pthread_once(&once, index_build);
    }
    return &the_index;
}
