/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MEM_MEM_INT_H
#define LODGE_MEM_MEM_INT_H

#include "base/list.h"
#include "mem/mem.h"

enum { MEM_MAX_LISTENERS = 4 };

struct io_map;
struct io_rec;
struct io_event;

/* One address space of regions. All but `map`, `readers` and `parity` guarded by mem->lock. */
struct io_space {
    _Atomic(struct io_map *) map;       /* what readers see; replaced whole */
    _Atomic uint32_t readers[2];        /* accesses in progress, by the parity they began under */
    _Atomic uint32_t parity;
    struct io_rec **recs;               /* in the order they were mapped or moved */
    unsigned n_recs;
    struct io_event **events;           /* by address */
    unsigned n_events;
    struct list retired;                /* of struct io_retired: unpublished, maybe still read */
};

/* The host's side of a slot that mem allocated. */
struct mem_backing {
    void *base;                         /* guard pages included */
    size_t size;
    _Atomic uint64_t *bitmap;           /* kept from the first dirty_start to the end; slot.dirty points here while logging */
};

struct mem {
    pthread_mutex_t lock;               /* writers */
    struct memslot slots[MEM_MAX_SLOTS];        /* only ever appended; the release of n_slots publishes */
    _Atomic unsigned n_slots;
    struct mem_backing backing[MEM_MAX_SLOTS];
    bool logging;
    _Atomic(struct mem_listener *) listeners[MEM_MAX_LISTENERS];
    struct io_space io[2];              /* by enum mem_space */
};

void io_space_init(struct io_space *sp);
void io_space_fini(struct io_space *sp);

#endif
