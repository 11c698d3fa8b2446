/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RAM slots and access by guest-physical address. A slot lives in a table that is only appended to, so its address is
 * stable and readers need one acquire of the count. Each RAM block is a memfd, sealed so that nobody who is handed the
 * descriptor can shrink it under us, mapped between inaccessible pages.
 */
#include "mem/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mem/mem-int.h"

enum { HUGE_SIZE = 2 * MIB };

struct mem *mem_create(void)
{
    struct mem *m = new0(struct mem);
    pthread_mutex_init(&m->lock, NULL);
    io_space_init(&m->io[MEM_MMIO]);
    io_space_init(&m->io[MEM_PIO]);
    return m;
}

void mem_destroy(struct mem *m)
{
    if (!m) {
        return;
    }
    for (unsigned i = 0; i < m->n_slots; i++) {
        if (m->backing[i].base) {
            munmap(m->backing[i].base, m->backing[i].size);
        }
        auto_fd_fn(&m->slots[i].fd);
        free((void *)m->backing[i].bitmap);
    }
    io_space_fini(&m->io[MEM_MMIO]);
    io_space_fini(&m->io[MEM_PIO]);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static bool slot_check_locked(const struct mem *m, gpa_t gpa, uint64_t size, struct err *err)
{
    if (size == 0 || size % PAGE_SIZE || gpa % PAGE_SIZE || !range_ok(gpa, size, UINT64_MAX)) {
        return err_set(err, ERR_INVALID, "memory of %" PRIu64 " bytes cannot lie at %#" PRIx64, size, gpa);
    }
    if (m->n_slots == MEM_MAX_SLOTS) {
        return err_set(err, ERR_LIMIT, "at most %d memory slots are possible", (int)MEM_MAX_SLOTS);
    }
    for (unsigned i = 0; i < m->n_slots; i++) {
        const struct memslot *s = &m->slots[i];
        if (gpa < s->gpa + s->size && s->gpa < gpa + size) {
            return err_set(err, ERR_EXISTS, "memory at %#" PRIx64 " overlaps slot %u", gpa, s->id);
        }
    }
    return true;
}

static _Atomic uint64_t *bitmap_of(const struct memslot *s)
{
    return alloc0_array((s->size / PAGE_SIZE + 63) / 64, sizeof(uint64_t));
}

/* Tells the listeners, then publishes. On failure nobody knows the slot and m->backing of it is untouched. */
static bool slot_publish_locked(struct mem *m, const struct memslot *slot, struct err *err)
{
    unsigned id = m->n_slots;
    struct memslot *s = &m->slots[id];
    *s = *slot;
    s->id = id;
    for (unsigned i = 0; i < MEM_MAX_LISTENERS; i++) {
        struct mem_listener *l = m->listeners[i];
        if (!l || !l->slot_set || l->slot_set(l, s, err)) {
            continue;
        }
        s->size = 0;
        while (i-- > 0) {
            l = m->listeners[i];
            if (l && l->slot_set) {
                l->slot_set(l, s, NULL);
            }
        }
        return false;
    }
    if (m->logging) {
        m->backing[id].bitmap = bitmap_of(s);
        s->dirty = m->backing[id].bitmap;
    }
    atomic_store_explicit(&m->n_slots, id + 1, memory_order_release);
    return true;
}

/* Address space for `size` bytes at a huge-page boundary with an inaccessible page or more on either side. */
static bool reserve(size_t size, struct mem_backing *b, uint8_t **hva, struct err *err)
{
    size_t total;
    if (__builtin_add_overflow(size, (size_t)2 * HUGE_SIZE, &total)) {
        return err_set(err, ERR_INVALID, "%zu bytes of memory are more than the host can address", size);
    }
    void *p = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        return err_set_errno(err, errno, "cannot reserve %zu bytes of address space", total);
    }
    uintptr_t start = ((uintptr_t)p + PAGE_SIZE + HUGE_SIZE - 1) & ~(uintptr_t)(HUGE_SIZE - 1);
    *b = (struct mem_backing){ .base = p, .size = total };
    *hva = (uint8_t *)start;
    return true;
}

static bool ram_alloc(struct memslot *s, struct mem_backing *b, struct err *err)
{
    AUTO_FD int fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return err_set_errno(err, errno, "cannot create guest memory");
    }
    if (s->size > INT64_MAX || ftruncate(fd, (off_t)s->size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        return err_set_errno(err, errno, "cannot size guest memory to %" PRIu64 " bytes", s->size);
    }
    if (!reserve(s->size, b, &s->hva, err)) {
        return false;
    }
    if (mmap(s->hva, s->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        err_set_errno(err, errno, "cannot map guest memory");
        munmap(b->base, b->size);
        return false;
    }
    /* Wishes: a host that grants neither still works. Guest memory has no place in a core dump. */
    madvise(s->hva, s->size, MADV_HUGEPAGE);
    madvise(s->hva, s->size, MADV_DONTDUMP);
    s->fd = TAKE_FD(fd);
    return true;
}

bool mem_ram_add(struct mem *m, gpa_t gpa, uint64_t size, struct err *err)
{
    struct memslot s = { .gpa = gpa, .size = size, .fd = -1 };
    struct mem_backing b = { 0 };
    pthread_mutex_lock(&m->lock);
    bool ok = slot_check_locked(m, gpa, size, err) && ram_alloc(&s, &b, err);
    if (ok) {
        unsigned id = m->n_slots;
        m->backing[id] = b;
        ok = slot_publish_locked(m, &s, err);
        if (!ok) {
            m->backing[id] = (struct mem_backing){ 0 };
            munmap(b.base, b.size);
            close(s.fd);
        }
    }
    pthread_mutex_unlock(&m->lock);
    return ok;
}

bool mem_slot_add(struct mem *m, gpa_t gpa, uint64_t size, void *hva, bool readonly, struct err *err)
{
    struct memslot s = { .gpa = gpa, .size = size, .hva = hva, .fd = -1, .readonly = readonly };
    pthread_mutex_lock(&m->lock);
    bool ok = slot_check_locked(m, gpa, size, err) && slot_publish_locked(m, &s, err);
    pthread_mutex_unlock(&m->lock);
    return ok;
}

const struct memslot *mem_slots(const struct mem *m, unsigned *n)
{
    *n = atomic_load_explicit(&m->n_slots, memory_order_acquire);
    return m->slots;
}

const struct memslot *mem_slot_find(const struct mem *m, gpa_t gpa)
{
    unsigned n = atomic_load_explicit(&m->n_slots, memory_order_acquire);
    for (unsigned i = 0; i < n; i++) {
        /* One compare: below the slot the difference wraps to something huge. */
        if (gpa - m->slots[i].gpa < m->slots[i].size) {
            return &m->slots[i];
        }
    }
    return NULL;
}

uint64_t mem_ram_size(const struct mem *m)
{
    unsigned n;
    uint64_t sum = 0;
    const struct memslot *s = mem_slots(m, &n);
    for (unsigned i = 0; i < n; i++) {
        sum += s[i].fd >= 0 ? s[i].size : 0;
    }
    return sum;
}

/* The slot at gpa and how many of `len` bytes lie in it from there; NULL outside RAM. */
static const struct memslot *piece_at(const struct mem *m, gpa_t gpa, uint64_t len, uint64_t *n)
{
    const struct memslot *s = mem_slot_find(m, gpa);
    if (s) {
        *n = min_u64(len, s->size - (gpa - s->gpa));
    }
    return s;
}

/* Every byte of the range is RAM, and writable if that is asked. No slot reaches UINT64_MAX, so a wrap ends at a hole. */
static bool range_is_ram(const struct mem *m, gpa_t gpa, uint64_t len, bool write)
{
    uint64_t n = 0;
    for (; len; gpa += n, len -= n) {
        const struct memslot *s = piece_at(m, gpa, len, &n);
        if (!s || (write && s->readonly)) {
            return false;
        }
    }
    return true;
}

static uint8_t *hva_of(const struct memslot *s, gpa_t gpa)
{
    return s->hva + (gpa - s->gpa);
}

static void slot_written(struct mem *m, const struct memslot *s, gpa_t gpa, uint64_t len)
{
    _Atomic uint64_t *dirty = __atomic_load_n(&s->dirty, __ATOMIC_ACQUIRE);
    if (dirty) {
        uint64_t last = (gpa - s->gpa + len - 1) >> PAGE_SHIFT;
        for (uint64_t page = (gpa - s->gpa) >> PAGE_SHIFT; page <= last; page++) {
            atomic_fetch_or_explicit(&dirty[page / 64], 1ull << page % 64, memory_order_release);
        }
    }
    for (unsigned i = 0; i < MEM_MAX_LISTENERS; i++) {
        struct mem_listener *l = atomic_load_explicit(&m->listeners[i], memory_order_acquire);
        if (l && l->ram_written) {
            l->ram_written(l, gpa, len);
        }
    }
}

void mem_written(struct mem *m, gpa_t gpa, uint64_t len)
{
    uint64_t n = 0;
    for (; len; gpa += n, len -= n) {
        const struct memslot *s = piece_at(m, gpa, len, &n);
        if (!s) {
            return;
        }
        slot_written(m, s, gpa, n);
    }
}

bool mem_read(struct mem *m, gpa_t gpa, void *buf, size_t len)
{
    if (!range_is_ram(m, gpa, len, false)) {
        return false;
    }
    uint64_t n = 0;
    for (uint8_t *to = buf; len; gpa += n, to += n, len -= n) {
        const struct memslot *s = piece_at(m, gpa, len, &n);
        memcpy(to, hva_of(s, gpa), n);
    }
    return true;
}

bool mem_write(struct mem *m, gpa_t gpa, const void *buf, size_t len)
{
    if (!range_is_ram(m, gpa, len, true)) {
        return false;
    }
    uint64_t n = 0;
    for (const uint8_t *from = buf; len; gpa += n, from += n, len -= n) {
        const struct memslot *s = piece_at(m, gpa, len, &n);
        memcpy(hva_of(s, gpa), from, n);
        slot_written(m, s, gpa, n);
    }
    return true;
}

bool mem_zero(struct mem *m, gpa_t gpa, size_t len)
{
    if (!range_is_ram(m, gpa, len, true)) {
        return false;
    }
    uint64_t n = 0;
    for (; len; gpa += n, len -= n) {
        const struct memslot *s = piece_at(m, gpa, len, &n);
        memset(hva_of(s, gpa), 0, n);
        slot_written(m, s, gpa, n);
    }
    return true;
}

bool mem_discard(struct mem *m, gpa_t gpa, uint64_t len)
{
    uint64_t n = 0, at = gpa, left = len;
    for (; left; at += n, left -= n) {
        const struct memslot *s = piece_at(m, at, left, &n);
        if (!s || s->fd < 0 || s->readonly) {
            return false;
        }
    }
    for (at = gpa, left = len; left; at += n, left -= n) {
        const struct memslot *s = piece_at(m, at, left, &n);
        uint64_t start = (at - s->gpa + PAGE_SIZE - 1) & ~(uint64_t)(PAGE_SIZE - 1);
        uint64_t end = (at - s->gpa + n) & ~(uint64_t)(PAGE_SIZE - 1);
        /* Shared memory goes back to the host only through its file; MADV_DONTNEED would drop our view of it, no more. */
        if (start < end && fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(s->fd_off + start),
                                     (off_t)(end - start)) == 0) {
            slot_written(m, s, s->gpa + start, end - start);
        }
    }
    return true;
}

/* Guest and host are little-endian alike (the build refuses other hosts), so a typed access is a plain load or store. */
#define TYPED(bits)                                                                                     \
    bool mem_read_le##bits(struct mem *m, gpa_t gpa, uint##bits##_t *v)                                 \
    {                                                                                                   \
        const struct memslot *s = mem_slot_find(m, gpa);                                                \
        if (s && gpa % sizeof(*v) == 0) {                                                               \
            *v = __atomic_load_n((const uint##bits##_t *)(const void *)hva_of(s, gpa), __ATOMIC_ACQUIRE); \
            return true;                                                                                \
        }                                                                                               \
        return mem_read(m, gpa, v, sizeof(*v));                                                         \
    }                                                                                                   \
    bool mem_write_le##bits(struct mem *m, gpa_t gpa, uint##bits##_t v)                                 \
    {                                                                                                   \
        const struct memslot *s = mem_slot_find(m, gpa);                                                \
        if (s && gpa % sizeof(v) == 0 && !s->readonly) {                                                \
            __atomic_store_n((uint##bits##_t *)(void *)hva_of(s, gpa), v, __ATOMIC_RELEASE);            \
            slot_written(m, s, gpa, sizeof(v));                                                         \
            return true;                                                                                \
        }                                                                                               \
        return mem_write(m, gpa, &v, sizeof(v));                                                        \
    }
TYPED(16)
TYPED(32)
TYPED(64)
#undef TYPED

bool mem_map(struct mem *m, gpa_t gpa, uint64_t len, bool write, struct mem_map *out)
{
    struct mem_map map = { .mem = m, .gpa = gpa, .len = len, .write = write };
    uint64_t n = 0;
    for (; len; gpa += n, len -= n) {
        const struct memslot *s = piece_at(m, gpa, len, &n);
        if (!s || (write && s->readonly) || map.n_iov == MEM_MAP_MAX_IOV) {
            return false;
        }
        map.iov[map.n_iov++] = (struct iovec){ hva_of(s, gpa), n };
    }
    *out = map;
    return true;
}

void mem_unmap(struct mem_map *map)
{
    if (map->mem && map->write) {
        mem_written(map->mem, map->gpa, map->len);
    }
    *map = (struct mem_map){ 0 };
}

bool mem_listener_add(struct mem *m, struct mem_listener *l, struct err *err)
{
    bool ok = false;
    unsigned at = 0;
    pthread_mutex_lock(&m->lock);
    while (at < MEM_MAX_LISTENERS && m->listeners[at]) {
        at++;
    }
    if (at == MEM_MAX_LISTENERS) {
        err_set(err, ERR_LIMIT, "at most %d memory listeners are possible", (int)MEM_MAX_LISTENERS);
        goto out;
    }
    for (unsigned i = 0; l->slot_set && i < m->n_slots; i++) {
        if (!l->slot_set(l, &m->slots[i], err)) {
            goto out;
        }
    }
    atomic_store_explicit(&m->listeners[at], l, memory_order_release);
    ok = true;
out:
    pthread_mutex_unlock(&m->lock);
    return ok;
}

void mem_listener_del(struct mem *m, struct mem_listener *l)
{
    pthread_mutex_lock(&m->lock);
    for (unsigned i = 0; i < MEM_MAX_LISTENERS; i++) {
        if (m->listeners[i] == l) {
            atomic_store(&m->listeners[i], NULL);
        }
    }
    pthread_mutex_unlock(&m->lock);
}

static size_t bitmap_words(const struct memslot *s)
{
    return (s->size / PAGE_SIZE + 63) / 64;
}

void mem_dirty_start(struct mem *m)
{
    pthread_mutex_lock(&m->lock);
    m->logging = true;
    for (unsigned i = 0; i < m->n_slots; i++) {
        struct mem_backing *b = &m->backing[i];
        if (!b->bitmap) {
            b->bitmap = bitmap_of(&m->slots[i]);
        }
        for (size_t w = 0; w < bitmap_words(&m->slots[i]); w++) {
            atomic_store_explicit(&b->bitmap[w], 0, memory_order_relaxed);
        }
        __atomic_store_n(&m->slots[i].dirty, b->bitmap, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&m->lock);
}

void mem_dirty_stop(struct mem *m)
{
    pthread_mutex_lock(&m->lock);
    m->logging = false;
    for (unsigned i = 0; i < m->n_slots; i++) {
        __atomic_store_n(&m->slots[i].dirty, NULL, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&m->lock);
}

void mem_dirty_fetch(struct mem *m, const struct memslot *s, uint64_t *bits)
{
    _Atomic uint64_t *dirty = __atomic_load_n(&s->dirty, __ATOMIC_ACQUIRE);
    for (size_t w = 0; dirty && w < bitmap_words(s); w++) {
        bits[w] |= atomic_exchange_explicit(&dirty[w], 0, memory_order_acquire);
    }
}
