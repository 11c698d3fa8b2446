/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest-physical space: RAM slots, MMIO and port regions, ioeventfd hooks, dirty bitmaps.
 * Code outside mem and the engines never forms a host address: mem_read, mem_write, typed loads, or mem_map for the
 * time of one request. Every access is range-checked with one checked add; MMIO, holes and wrap-around are refused.
 * Slots are only added. Regions and ioeventfds come, go and move at any time from any thread, a vCPU's in the middle of a
 * handler included. Changes take the writer lock; readers take none.
 */
#ifndef LODGE_MEM_MEM_H
#define LODGE_MEM_MEM_H

#include <pthread.h>
#include <sys/uio.h>

#include "base/err.h"

typedef uint64_t gpa_t;

enum { PAGE_SIZE = 4096, PAGE_SHIFT = 12, MEM_MAX_SLOTS = 16 };

struct memslot {
    unsigned id;
    gpa_t gpa;
    uint64_t size;              /* bytes, page multiple; 0: free */
    uint8_t *hva;
    int fd;                     /* memfd; -1 when it is not one */
    uint64_t fd_off;
    bool readonly;              /* ROM: guest writes are ignored, DMA writes refused */
    _Atomic uint64_t *dirty;    /* bit a page, set by mem_write/mem_unmap while logging; NULL when off */
};

struct mem;

struct mem *mem_create(void);
void mem_destroy(struct mem *m);

/* RAM from a fresh memfd. */
bool mem_ram_add(struct mem *m, gpa_t gpa, uint64_t size, struct err *err);
/* ROM, or a second view of RAM; hva stays the caller's. */
bool mem_slot_add(struct mem *m, gpa_t gpa, uint64_t size, void *hva, bool readonly, struct err *err);
const struct memslot *mem_slots(const struct mem *m, unsigned *n);
/* Slot that holds gpa, or NULL. Lock-free, any thread. */
const struct memslot *mem_slot_find(const struct mem *m, gpa_t gpa);
uint64_t mem_ram_size(const struct mem *m);

/*
 * Copies. False when any byte is outside RAM (nothing was copied then). The guest may write meanwhile; an aligned typed
 * access is single, a load acquires and a store releases.
 */
bool mem_read(struct mem *m, gpa_t gpa, void *buf, size_t len);
bool mem_write(struct mem *m, gpa_t gpa, const void *buf, size_t len);
bool mem_zero(struct mem *m, gpa_t gpa, size_t len);
bool mem_read_le16(struct mem *m, gpa_t gpa, uint16_t *v);
bool mem_read_le32(struct mem *m, gpa_t gpa, uint32_t *v);
bool mem_read_le64(struct mem *m, gpa_t gpa, uint64_t *v);
bool mem_write_le16(struct mem *m, gpa_t gpa, uint16_t v);
bool mem_write_le32(struct mem *m, gpa_t gpa, uint32_t v);
bool mem_write_le64(struct mem *m, gpa_t gpa, uint64_t v);

/*
 * Gives the whole pages of a range back to the host: they read as zeros from here on. Only RAM of mem_ram_add; false, and nothing
 * happens, when part of the range is something else. A host that cannot do it leaves the bytes: true.
 */
bool mem_discard(struct mem *m, gpa_t gpa, uint64_t len);

/* A GPA range as host pieces for one request. write: the device will store into it (dirties and tells the engine on unmap). */
enum { MEM_MAP_MAX_IOV = 4 };
struct mem_map {
    struct mem *mem;
    gpa_t gpa;
    uint64_t len;
    bool write;
    struct iovec iov[MEM_MAP_MAX_IOV];
    unsigned n_iov;
};
bool mem_map(struct mem *m, gpa_t gpa, uint64_t len, bool write, struct mem_map *out);
void mem_unmap(struct mem_map *map);
/* After stores through an iovec that came from mem_map and outlived the map struct. */
void mem_written(struct mem *m, gpa_t gpa, uint64_t len);

/* Told of what happens to memory: the engine (TLBs, code caches). */
struct mem_listener {
    bool (*slot_set)(struct mem_listener *l, const struct memslot *s, struct err *err);  /* size 0: removed */
    void (*ram_written)(struct mem_listener *l, gpa_t gpa, uint64_t len);                /* a device wrote RAM; any thread */
};
bool mem_listener_add(struct mem *m, struct mem_listener *l, struct err *err);  /* replays slot_set for what is there */
void mem_listener_del(struct mem *m, struct mem_listener *l);                   /* while no device writes RAM */

/* Dirty logging of device writes; the engine logs its own. start clears. fetch ORs a slot's bits into `bits` and clears them. */
void mem_dirty_start(struct mem *m);
void mem_dirty_stop(struct mem *m);
void mem_dirty_fetch(struct mem *m, const struct memslot *s, uint64_t *bits);

/* MMIO and port dispatch. */
enum mem_space { MEM_MMIO, MEM_PIO };
struct io_region;
struct io_handler {
    uint64_t (*read)(struct io_region *r, uint64_t off, unsigned width);
    void (*write)(struct io_region *r, uint64_t off, uint64_t val, unsigned width);
    /*
     * Bytes; 0: 1 and 8. Dispatch splits and merges other widths, so that a handler sees only these, at offsets that are a
     * multiple of the width, inside the region. A narrower write comes as its bytes in an otherwise zero word.
     */
    uint8_t min_width, max_width;
};
struct io_region {
    const char *name;
    enum mem_space space;
    uint64_t base, size;
    const struct io_handler *h;
    pthread_mutex_t *lock;              /* held around the handler; NULL: handler is thread-safe */
    bool mapped;
    int priority;                       /* higher wins where two overlap; of equals the one mapped or moved last */
};
bool mem_io_map(struct mem *m, struct io_region *r, struct err *err);
/*
 * Harmless when not mapped. Waits for handlers of r in progress, so r may be freed, but r->lock must live until
 * mem_io_quiesce. The caller does not hold r->lock, unless it is inside a handler that was called with it.
 */
void mem_io_unmap(struct mem *m, struct io_region *r);
/* Does not wait: a handler in progress ends with the offset it began with. On failure r stays where it was. */
bool mem_io_move(struct mem *m, struct io_region *r, uint64_t base, struct err *err);
/* Waits until every access that is in progress has ended. Not from a handler, no device lock held. */
void mem_io_quiesce(struct mem *m);
/* Guest accesses, width 1, 2, 4, 8. Nobody there: reads give all ones, writes vanish. Any thread, no lock held. */
uint64_t mem_io_read(struct mem *m, enum mem_space space, uint64_t addr, unsigned width);
void mem_io_write(struct mem *m, enum mem_space space, uint64_t addr, uint64_t val, unsigned width);
/* Writes of `width` (0: any) to addr add 1 to the eventfd instead of reaching the region. After del the fd may be closed. */
bool mem_ioeventfd_add(struct mem *m, enum mem_space space, uint64_t addr, unsigned width, int fd, struct err *err);
void mem_ioeventfd_del(struct mem *m, enum mem_space space, uint64_t addr, int fd);
/* Dispatch tables that wait until nobody can be reading them: for tests. */
unsigned mem_io_retired(struct mem *m, enum mem_space space);
/* Regions as JSON-less text for x-inspect and tests: called for each region in order of base. */
void mem_io_walk(struct mem *m, enum mem_space space, void (*fn)(const struct io_region *r, void *arg), void *arg);

#endif
