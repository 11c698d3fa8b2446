/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MMIO and port dispatch. A change builds a new struct io_map (regions cut into spans that do not overlap, sorted) and
 * publishes it by one pointer; readers take no lock and look it up by bisection. A guest can move BARs in a loop, so old
 * maps must go away while it runs. The rules:
 *
 * (1) A reader counts itself in readers[parity] before it loads the map and uncounts itself when it is done with it.
 *     What was unpublished may be freed once each of the two counts has been seen 0 since: whoever still reads it counted
 *     itself before. Two counts, because new readers then go to the other one and the old one must come to 0.
 *     A changer never waits for that (it may be a reader itself, in a handler), it looks again at the next change.
 * (2) Before a handler runs, the reader takes the region's lock (or counts itself in rec->running), and then looks
 *     whether its map is still the published one; if not it starts over. So once an unmap has published and then had
 *     the lock (or seen running 0), no handler of that region runs or will run.
 * (3) mem->lock is innermost: no device lock is taken under it.
 */
#include "mem/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mem/mem-int.h"

/* A mapped region, as long as it is: copies of what readers need, so that they never look into io_region before (2). */
struct io_rec {
    struct io_region *r;
    const struct io_handler *h;
    pthread_mutex_t *lock;
    uint64_t base, size;                /* for writers; readers take the span's base */
    int priority;
    uint8_t min_width, max_width;
    _Atomic uint32_t running;           /* handlers in progress, when there is no lock */
};

struct io_span {
    uint64_t first, last;               /* addresses, inclusive */
    uint64_t base;                      /* of the region, which may begin before the span */
    struct io_rec *rec;
};

struct io_event {
    uint64_t addr;
    unsigned width;
    int fd;
    _Atomic uint32_t running;
};

struct io_map {
    unsigned n_spans, n_events;
    struct io_event **events;           /* by address */
    struct io_span spans[];             /* by address */
};

struct io_retired {
    struct list node;
    void *p;
    unsigned seen;                      /* bit i: readers[i] was 0 since p was unpublished */
};

/* Handlers this thread is inside of, innermost first: an unmap must not wait for its own caller. */
struct io_frame {
    const struct io_rec *rec;
    struct io_frame *outer;
};
static _Thread_local struct io_frame *frames;

static void pause_briefly(void)
{
    struct timespec ts = { .tv_nsec = 50 * NS_PER_US };
    nanosleep(&ts, NULL);
}

/* Frees what rule (1) allows. Also turns new readers to the other count. */
static void reclaim_locked(struct io_space *sp)
{
    for (unsigned i = 0; i < 2; i++) {
        bool idle = atomic_load(&sp->readers[i]) == 0;
        list_for_each(it, &sp->retired, struct io_retired, node) {
            it->seen |= idle ? 1u << i : 0;
            if (it->seen == 3) {
                list_del(&it->node);
                free(it->p);
                free(it);
            }
        }
    }
    /*
     * Not while the other count is still busy: a handler may publish an even number of times, and turning there and back
     * would keep the count it is in itself current for ever.
     */
    unsigned other = 1 ^ atomic_load(&sp->parity);
    if (atomic_load(&sp->readers[other]) == 0) {
        atomic_store(&sp->parity, other);
    }
}

static void retire_locked(struct io_space *sp, void *p)
{
    struct io_retired *it = new0(struct io_retired);
    it->p = p;
    list_add_tail(&sp->retired, &it->node);
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Who answers at addr: the highest priority, of equals the latest. */
static struct io_rec *winner_at(const struct io_space *sp, uint64_t addr)
{
    struct io_rec *best = NULL;
    for (unsigned i = 0; i < sp->n_recs; i++) {
        struct io_rec *rec = sp->recs[i];
        if (addr - rec->base < rec->size && (!best || rec->priority >= best->priority)) {
            best = rec;
        }
    }
    return best;
}

static struct io_map *map_build(const struct io_space *sp)
{
    unsigned n_edges = 2 * sp->n_recs;
    AUTO_FREE uint64_t *edges = new0_array(uint64_t, n_edges);
    for (unsigned i = 0; i < sp->n_recs; i++) {
        edges[2 * i] = sp->recs[i]->base;
        edges[2 * i + 1] = sp->recs[i]->base + sp->recs[i]->size;
    }
    qsort(edges, n_edges, sizeof(*edges), compare_u64);
    struct io_map *map = alloc0(sizeof(*map) + n_edges * sizeof(struct io_span) + sp->n_events * sizeof(struct io_event *));
    for (unsigned i = 0; i + 1 < n_edges; i++) {
        struct io_rec *rec = edges[i] < edges[i + 1] ? winner_at(sp, edges[i]) : NULL;
        if (!rec) {
            continue;
        }
        struct io_span *prev = map->n_spans ? &map->spans[map->n_spans - 1] : NULL;
        if (prev && prev->rec == rec && prev->last + 1 == edges[i]) {
            prev->last = edges[i + 1] - 1;
        } else {
            map->spans[map->n_spans++] = (struct io_span){ edges[i], edges[i + 1] - 1, rec->base, rec };
        }
    }
    map->events = (struct io_event **)(void *)&map->spans[n_edges];
    map->n_events = sp->n_events;
    if (sp->n_events) {
        memcpy(map->events, sp->events, sp->n_events * sizeof(struct io_event *));
    }
    return map;
}

static void publish_locked(struct io_space *sp)
{
    struct io_map *old = atomic_exchange(&sp->map, map_build(sp));
    if (old) {
        retire_locked(sp, old);
    }
    reclaim_locked(sp);
}

void io_space_init(struct io_space *sp)
{
    list_init(&sp->retired);
    publish_locked(sp);
}

void io_space_fini(struct io_space *sp)
{
    list_for_each(it, &sp->retired, struct io_retired, node) {
        free(it->p);
        free(it);
    }
    for (unsigned i = 0; i < sp->n_recs; i++) {
        sp->recs[i]->r->mapped = false;
        free(sp->recs[i]);
    }
    for (unsigned i = 0; i < sp->n_events; i++) {
        free(sp->events[i]);
    }
    free(sp->recs);
    free(sp->events);
    free(atomic_load(&sp->map));
}

/* Appends to an array of pointers that grows by one: changes are rare. */
static void *array_insert(void *array, unsigned *n, unsigned at, void *p)
{
    void **a = realloc(array, (*n + 1) * sizeof(void *));
    if (!a) {
        abort();
    }
    memmove(a + at + 1, a + at, (*n - at) * sizeof(void *));
    a[at] = p;
    ++*n;
    return a;
}

static void array_remove(void *array, unsigned *n, unsigned at)
{
    void **a = array;
    memmove(a + at, a + at + 1, (*n - at - 1) * sizeof(void *));
    --*n;
}

static bool place_ok(const struct io_region *r, uint64_t base, struct err *err)
{
    uint64_t end = r->space == MEM_PIO ? 0x10000 : UINT64_MAX;
    if (r->size == 0 || !range_ok(base, r->size, end)) {
        return err_set(err, ERR_INVALID, "region '%s' of %" PRIu64 " bytes does not fit at %#" PRIx64, r->name, r->size, base);
    }
    return true;
}

static bool rec_init(struct io_rec *rec, struct io_region *r, struct err *err)
{
    unsigned min = r->h->min_width ? r->h->min_width : 1, max = r->h->max_width ? r->h->max_width : 8;
    if ((min & (min - 1)) || (max & (max - 1)) || min > max || max > 8 || r->size % min) {
        return err_set(err, ERR_INVALID, "region '%s' has impossible access widths", r->name);
    }
    *rec = (struct io_rec){
        .r = r, .h = r->h, .lock = r->lock, .base = r->base, .size = r->size, .priority = r->priority,
        .min_width = (uint8_t)min, .max_width = (uint8_t)max,
    };
    return true;
}

static unsigned rec_index_locked(const struct io_space *sp, const struct io_region *r)
{
    unsigned i = 0;
    while (i < sp->n_recs && sp->recs[i]->r != r) {
        i++;
    }
    return i;
}

bool mem_io_map(struct mem *m, struct io_region *r, struct err *err)
{
    struct io_space *sp = &m->io[r->space];
    AUTO_FREE struct io_rec *rec = new0(struct io_rec);
    if (!place_ok(r, r->base, err) || !rec_init(rec, r, err)) {
        return false;
    }
    pthread_mutex_lock(&m->lock);
    bool ok = rec_index_locked(sp, r) == sp->n_recs ||
              err_set(err, ERR_STATE, "region '%s' is already mapped", r->name);
    if (ok) {
        sp->recs = array_insert(sp->recs, &sp->n_recs, sp->n_recs, TAKE_PTR(rec));
        r->mapped = true;
        publish_locked(sp);
    }
    pthread_mutex_unlock(&m->lock);
    return ok;
}

/* Rule (2), the unmapping side. */
static void wait_for_handlers(struct io_rec *rec)
{
    uint32_t own = 0;
    for (struct io_frame *f = frames; f; f = f->outer) {
        if (rec->lock && f->rec->lock == rec->lock) {
            return;             /* our caller holds it: nobody else is inside, and whoever comes looks again */
        }
        own += f->rec == rec;
    }
    if (rec->lock) {
        pthread_mutex_lock(rec->lock);
        pthread_mutex_unlock(rec->lock);
        return;
    }
    while (atomic_load(&rec->running) > own) {
        pause_briefly();
    }
}

void mem_io_unmap(struct mem *m, struct io_region *r)
{
    struct io_space *sp = &m->io[r->space];
    pthread_mutex_lock(&m->lock);
    unsigned i = rec_index_locked(sp, r);
    struct io_rec *rec = i < sp->n_recs ? sp->recs[i] : NULL;
    if (rec) {
        array_remove(sp->recs, &sp->n_recs, i);
        r->mapped = false;
        publish_locked(sp);
    }
    pthread_mutex_unlock(&m->lock);
    if (!rec) {
        return;
    }
    wait_for_handlers(rec);
    /* Retired only now: wait_for_handlers read it, and another thread's change could have freed it. */
    pthread_mutex_lock(&m->lock);
    retire_locked(sp, rec);
    pthread_mutex_unlock(&m->lock);
}

bool mem_io_move(struct mem *m, struct io_region *r, uint64_t base, struct err *err)
{
    struct io_space *sp = &m->io[r->space];
    if (!place_ok(r, base, err)) {
        return false;
    }
    pthread_mutex_lock(&m->lock);
    unsigned i = rec_index_locked(sp, r);
    r->base = base;
    if (i < sp->n_recs) {
        struct io_rec *rec = sp->recs[i];
        rec->base = base;
        array_remove(sp->recs, &sp->n_recs, i);
        sp->recs = array_insert(sp->recs, &sp->n_recs, sp->n_recs, rec);
        publish_locked(sp);
    }
    pthread_mutex_unlock(&m->lock);
    return true;
}

static void space_quiesce(struct mem *m, struct io_space *sp)
{
    unsigned seen = 0;
    for (;;) {
        pthread_mutex_lock(&m->lock);
        for (unsigned i = 0; i < 2; i++) {
            seen |= atomic_load(&sp->readers[i]) == 0 ? 1u << i : 0;
        }
        reclaim_locked(sp);
        pthread_mutex_unlock(&m->lock);
        if (seen == 3) {
            return;
        }
        pause_briefly();
    }
}

void mem_io_quiesce(struct mem *m)
{
    space_quiesce(m, &m->io[MEM_MMIO]);
    space_quiesce(m, &m->io[MEM_PIO]);
}

static unsigned reader_enter(struct io_space *sp)
{
    unsigned parity = atomic_load(&sp->parity) & 1;
    atomic_fetch_add(&sp->readers[parity], 1);
    return parity;
}

static void reader_leave(struct io_space *sp, unsigned parity)
{
    atomic_fetch_sub(&sp->readers[parity], 1);
}

/* The span that holds addr, or NULL. */
static const struct io_span *span_find(const struct io_map *map, uint64_t addr)
{
    unsigned lo = 0, hi = map->n_spans;
    while (lo < hi) {
        unsigned mid = lo + (hi - lo) / 2;
        const struct io_span *s = &map->spans[mid];
        if (addr < s->first) {
            hi = mid;
        } else if (addr > s->last) {
            lo = mid + 1;
        } else {
            return s;
        }
    }
    return NULL;
}

/* Rule (2), the reading side. False: the map changed, look again. */
static bool rec_enter(struct io_space *sp, const struct io_map *map, struct io_rec *rec, struct io_frame *frame)
{
    if (rec->lock) {
        pthread_mutex_lock(rec->lock);
    } else {
        atomic_fetch_add(&rec->running, 1);
    }
    if (atomic_load(&sp->map) != map) {
        if (rec->lock) {
            pthread_mutex_unlock(rec->lock);
        } else {
            atomic_fetch_sub(&rec->running, 1);
        }
        return false;
    }
    *frame = (struct io_frame){ rec, frames };
    frames = frame;
    return true;
}

static void rec_leave(struct io_rec *rec, struct io_frame *frame)
{
    frames = frame->outer;
    if (rec->lock) {
        pthread_mutex_unlock(rec->lock);
    } else {
        atomic_fetch_sub(&rec->running, 1);
    }
}

/*
 * One step of an access: `width` bytes at addr, or as many of them as one handler call can take. `write` tells which way
 * *val goes. Returns the bytes done.
 */
struct io_step {
    uint64_t addr;
    unsigned left;
    bool write;
    uint64_t val;               /* in: value for the next bytes; out: what they read */
};

static uint64_t mask_of(unsigned bytes)
{
    return bytes >= 8 ? UINT64_MAX : (1ull << 8 * bytes) - 1;
}

static unsigned call_handler(const struct io_span *s, struct io_step *st)
{
    const struct io_rec *rec = s->rec;
    uint64_t off = st->addr - s->base;
    uint64_t room = min_u64(st->left, s->last - st->addr + 1);
    unsigned n = rec->max_width;
    while (n > 1 && (n > room || off % n)) {
        n /= 2;
    }
    unsigned width = n < rec->min_width ? rec->min_width : n;
    unsigned lane = (unsigned)(off % width);
    if (st->write) {
        if (rec->h->write) {
            rec->h->write(rec->r, off - lane, (st->val & mask_of(n)) << 8 * lane, width);
        }
    } else {
        uint64_t v = rec->h->read ? rec->h->read(rec->r, off - lane, width) : UINT64_MAX;
        st->val = v >> 8 * lane & mask_of(n);
    }
    return n;
}

static unsigned io_step(struct io_space *sp, struct io_step *st)
{
    for (;;) {
        const struct io_map *map = atomic_load(&sp->map);
        const struct io_span *s = span_find(map, st->addr);
        struct io_frame frame;
        if (!s) {
            st->val = 0xff;
            return 1;
        }
        if (rec_enter(sp, map, s->rec, &frame)) {
            unsigned n = call_handler(s, st);
            rec_leave(s->rec, &frame);
            return n;
        }
    }
}

uint64_t mem_io_read(struct mem *m, enum mem_space space, uint64_t addr, unsigned width)
{
    struct io_space *sp = &m->io[space];
    uint64_t val = 0;
    unsigned parity = reader_enter(sp);
    for (unsigned done = 0; done < width;) {
        struct io_step st = { .addr = addr + done, .left = width - done };
        unsigned n = io_step(sp, &st);
        val |= st.val << 8 * done;
        done += n;
    }
    reader_leave(sp, parity);
    return val;
}

/* Index of the first event at or after addr. */
static unsigned event_lower(struct io_event *const *events, unsigned n, uint64_t addr)
{
    unsigned lo = 0, hi = n;
    while (lo < hi) {
        unsigned mid = lo + (hi - lo) / 2;
        if (events[mid]->addr < addr) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* True when an eventfd took the write. The same look-again as for handlers, so that del may be followed by close. */
static bool event_take(struct io_space *sp, uint64_t addr, unsigned width)
{
    static const uint64_t one = 1;
again:;
    const struct io_map *map = atomic_load(&sp->map);
    for (unsigned i = event_lower(map->events, map->n_events, addr); i < map->n_events && map->events[i]->addr == addr; i++) {
        struct io_event *e = map->events[i];
        if (e->width && e->width != width) {
            continue;
        }
        atomic_fetch_add(&e->running, 1);
        bool current = atomic_load(&sp->map) == map;
        if (current) {
            (void)!write(e->fd, &one, sizeof(one));     /* fails only when the count is full: the reader is awake */
        }
        atomic_fetch_sub(&e->running, 1);
        if (!current) {
            goto again;
        }
        return true;
    }
    return false;
}

void mem_io_write(struct mem *m, enum mem_space space, uint64_t addr, uint64_t val, unsigned width)
{
    struct io_space *sp = &m->io[space];
    unsigned parity = reader_enter(sp);
    for (unsigned done = event_take(sp, addr, width) ? width : 0; done < width;) {
        struct io_step st = { .addr = addr + done, .left = width - done, .write = true, .val = val >> 8 * done };
        done += io_step(sp, &st);
    }
    reader_leave(sp, parity);
}

bool mem_ioeventfd_add(struct mem *m, enum mem_space space, uint64_t addr, unsigned width, int fd, struct err *err)
{
    struct io_space *sp = &m->io[space];
    if (width & (width - 1) || width > 8) {
        return err_set(err, ERR_INVALID, "an ioeventfd cannot be %u bytes wide", width);
    }
    AUTO_FREE struct io_event *e = new0(struct io_event);
    *e = (struct io_event){ .addr = addr, .width = width, .fd = fd };
    pthread_mutex_lock(&m->lock);
    bool ok = true;
    unsigned at = event_lower(sp->events, sp->n_events, addr);
    for (unsigned i = at; i < sp->n_events && sp->events[i]->addr == addr; i++) {
        if (sp->events[i]->width == width) {
            ok = err_set(err, ERR_EXISTS, "an ioeventfd is already at %#" PRIx64, addr);
        }
    }
    if (ok) {
        sp->events = array_insert(sp->events, &sp->n_events, at, TAKE_PTR(e));
        publish_locked(sp);
    }
    pthread_mutex_unlock(&m->lock);
    return ok;
}

void mem_ioeventfd_del(struct mem *m, enum mem_space space, uint64_t addr, int fd)
{
    struct io_space *sp = &m->io[space];
    struct io_event *e = NULL;
    pthread_mutex_lock(&m->lock);
    for (unsigned i = event_lower(sp->events, sp->n_events, addr); i < sp->n_events && sp->events[i]->addr == addr; i++) {
        if (sp->events[i]->fd == fd) {
            e = sp->events[i];
            array_remove(sp->events, &sp->n_events, i);
            publish_locked(sp);
            break;
        }
    }
    pthread_mutex_unlock(&m->lock);
    if (!e) {
        return;
    }
    while (atomic_load(&e->running)) {
        sched_yield();          /* only for the time of one write to an eventfd */
    }
    pthread_mutex_lock(&m->lock);
    retire_locked(sp, e);
    pthread_mutex_unlock(&m->lock);
}

static int compare_regions(const void *a, const void *b)
{
    const struct io_rec *x = *(struct io_rec *const *)a, *y = *(struct io_rec *const *)b;
    return x->base != y->base ? (x->base < y->base ? -1 : 1) : y->priority - x->priority;
}

unsigned mem_io_retired(struct mem *m, enum mem_space space)
{
    unsigned n = 0;
    pthread_mutex_lock(&m->lock);
    list_for_each(it, &m->io[space].retired, struct io_retired, node) {
        n++;
    }
    pthread_mutex_unlock(&m->lock);
    return n;
}

void mem_io_walk(struct mem *m, enum mem_space space, void (*fn)(const struct io_region *r, void *arg), void *arg)
{
    struct io_space *sp = &m->io[space];
    pthread_mutex_lock(&m->lock);
    AUTO_FREE struct io_rec **sorted = new0_array(struct io_rec *, sp->n_recs);
    if (sp->n_recs) {
        memcpy(sorted, sp->recs, sp->n_recs * sizeof(*sorted));
        qsort(sorted, sp->n_recs, sizeof(*sorted), compare_regions);
    }
    for (unsigned i = 0; i < sp->n_recs; i++) {
        fn(sorted[i]->r, arg);
    }
    pthread_mutex_unlock(&m->lock);
}
