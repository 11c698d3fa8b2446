/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Split virtqueues. Source: virtio 1.2 section 2.7. The rings belong to the guest and may change under our eyes: each field is
 * fetched once, checked in its copy and used from there. A walk sees at most queue-size descriptors, whatever the guest wrote.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/bytes.h"
#include "dev/virtio/virtio-int.h"

enum { DESC_SIZE = 16, DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { AVAIL_IDX = 2, AVAIL_RING = 4, AVAIL_NO_INTERRUPT = 1, USED_IDX = 2, USED_RING = 4, USED_NO_NOTIFY = 1 };

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

/* One fetch of a shared field. Alignment was checked when the ring was mapped. */
static uint16_t get16(const volatile uint8_t *p)
{
    return *(const volatile uint16_t *)p;
}

static void put16(volatile uint8_t *p, uint16_t v)
{
    *(volatile uint16_t *)p = v;
}

static bool map_ring(struct virtqueue *vq, gpa_t gpa, uint64_t len, unsigned align, bool write, uint8_t **hva)
{
    struct mem_map map;
    if (gpa % align || !mem_map(virtio_mem(vq->vd), gpa, len, write, &map) || map.n_iov != 1) {
        return false;
    }
    /* Slots are never removed, so the address outlives the map; stores are reported with mem_written. */
    *hva = map.iov[0].iov_base;
    return true;
}

bool vq_map(struct virtqueue *vq)
{
    uint8_t *desc, *avail, *used;
    uint64_t n = vq->size;
    vq->mapped = map_ring(vq, vq->desc, n * DESC_SIZE, 16, false, &desc) &&
                 map_ring(vq, vq->avail, AVAIL_RING + 2 * n + 2, 2, false, &avail) &&
                 map_ring(vq, vq->used, USED_RING + 8 * n + 2, 4, true, &used);
    if (vq->mapped) {
        vq->desc_hva = desc;
        vq->avail_hva = avail;
        vq->used_hva = used;
    }
    vq->signalled_valid = false;
    return vq->mapped;
}

void vq_unmap(struct virtqueue *vq)
{
    vq->mapped = false;
    vq->desc_hva = NULL;
    vq->avail_hva = vq->used_hva = NULL;
}

static bool usable(const struct virtqueue *vq)
{
    return vq->mapped && virtio_ready(vq->vd);
}

bool vq_empty(struct virtqueue *vq)
{
    return !usable(vq) || get16(vq->avail_hva + AVAIL_IDX) == vq->last_avail;
}

static void fetch_desc(const volatile uint8_t *p, struct desc *d)
{
    const volatile uint64_t *q = (const volatile uint64_t *)p;
    uint64_t raw[2] = { q[0], q[1] };
    d->addr = raw[0];
    d->len = (uint32_t)raw[1];
    d->flags = (uint16_t)(raw[1] >> 32);
    d->next = (uint16_t)(raw[1] >> 48);
}

/* Adds the bytes of one descriptor to the chain. Returns what is wrong with it, or NULL. */
static const char *add_piece(struct virtqueue *vq, struct vq_chain *c, const struct desc *d)
{
    bool in = d->flags & DESC_WRITE;
    uint32_t *sum = in ? &c->in_len : &c->out_len;
    struct mem_map map;
    if (!in && c->n_in) {
        return "a readable descriptor after a writable one";
    }
    if (d->len == 0) {
        return "a descriptor of no length";
    }
    if (__builtin_add_overflow(*sum, d->len, sum)) {
        return "a chain of more than 4 GiB";
    }
    if (!mem_map(virtio_mem(vq->vd), d->addr, d->len, in, &map)) {
        return "a descriptor outside RAM";
    }
    unsigned n = c->n_out + c->n_in;
    if (map.n_iov > VQ_MAX_IOV - n) {
        return "a chain in too many pieces";
    }
    gpa_t gpa = d->addr;
    for (unsigned i = 0; i < map.n_iov; i++) {
        c->iov[n + i] = map.iov[i];
        c->gpa[n + i] = gpa;
        gpa += map.iov[i].iov_len;
    }
    *(in ? &c->n_in : &c->n_out) += map.n_iov;
    return NULL;
}

/* A descriptor table that `d` points at, walked from its first entry. `seen` counts over the whole chain. */
static const char *walk_indirect(struct virtqueue *vq, struct vq_chain *c, const struct desc *d, unsigned seen)
{
    struct desc e = { .next = 0, .flags = DESC_NEXT };
    unsigned n = d->len / DESC_SIZE;
    if (!virtio_has(vq->vd, VIRTIO_F_INDIRECT_DESC)) {
        return "an indirect descriptor that was not negotiated";
    }
    if (d->len == 0 || d->len % DESC_SIZE || d->flags & DESC_NEXT) {
        return "a malformed indirect descriptor";
    }
    while (e.flags & DESC_NEXT) {
        uint8_t raw[DESC_SIZE];
        uint64_t at;
        if (++seen > vq->size) {
            return "a chain longer than the queue";
        }
        if (e.next >= n || __builtin_add_overflow(d->addr, (uint64_t)e.next * DESC_SIZE, &at) ||
            !mem_read(virtio_mem(vq->vd), at, raw, sizeof(raw))) {
            return "an indirect table entry out of bounds";
        }
        e = (struct desc){ load_le64(raw), load_le32(raw + 8), load_le16(raw + 12), load_le16(raw + 14) };
        if (e.flags & DESC_INDIRECT) {
            return "an indirect descriptor in an indirect table";
        }
        const char *wrong = add_piece(vq, c, &e);
        if (wrong) {
            return wrong;
        }
    }
    return NULL;
}

static const char *walk(struct virtqueue *vq, struct vq_chain *c)
{
    struct desc d = { .next = c->head, .flags = DESC_NEXT };
    for (unsigned seen = 1; d.flags & DESC_NEXT; seen++) {
        if (seen > vq->size) {
            return "a chain longer than the queue";
        }
        if (d.next >= vq->size) {
            return "a descriptor index out of bounds";
        }
        fetch_desc(vq->desc_hva + (size_t)d.next * DESC_SIZE, &d);
        if (d.flags & DESC_INDIRECT) {
            return walk_indirect(vq, c, &d, seen - 1);  /* the descriptor that points at the table is not part of the chain */
        }
        const char *wrong = add_piece(vq, c, &d);
        if (wrong) {
            return wrong;
        }
    }
    return NULL;
}

bool vq_pop(struct virtqueue *vq, struct vq_chain *c)
{
    if (!usable(vq)) {
        return false;
    }
    uint16_t pending = (uint16_t)(get16(vq->avail_hva + AVAIL_IDX) - vq->last_avail);
    if (pending == 0) {
        return false;
    }
    if (pending > vq->size) {
        virtio_broken(vq->vd, "the available index jumped by more than the queue's size");
        return false;
    }
    /* Pairs with the driver's barrier before it moves idx, section 2.7.13.3. */
    atomic_thread_fence(memory_order_acquire);
    c->head = get16(vq->avail_hva + AVAIL_RING + 2 * (size_t)(vq->last_avail % vq->size));
    c->n_out = c->n_in = 0;
    c->out_len = c->in_len = 0;
    const char *wrong = walk(vq, c);
    if (wrong) {
        virtio_broken(vq->vd, wrong);
        return false;
    }
    vq->last_avail++;
    return true;
}

void vq_unpop(struct virtqueue *vq, uint16_t n)
{
    vq->last_avail -= n;
}

void vq_fill(struct virtqueue *vq, uint16_t ahead, uint16_t head, uint32_t len)
{
    if (usable(vq)) {
        volatile uint8_t *e = vq->used_hva + USED_RING + 8 * (size_t)((uint16_t)(vq->used_idx + ahead) % vq->size);
        *(volatile uint32_t *)e = head;
        *(volatile uint32_t *)(e + 4) = len;
    }
}

void vq_publish(struct virtqueue *vq, uint16_t n)
{
    if (usable(vq)) {
        /* Pairs with the driver's barrier after it read idx, section 2.7.8.2. */
        atomic_thread_fence(memory_order_release);
        vq->used_idx += n;
        put16(vq->used_hva + USED_IDX, vq->used_idx);
        mem_written(virtio_mem(vq->vd), vq->used, USED_RING + 8 * (uint64_t)vq->size);
    }
}

void vq_push(struct virtqueue *vq, uint16_t head, uint32_t len)
{
    vq_fill(vq, 0, head, len);
    vq_publish(vq, 1);
}

void vq_signal(struct virtqueue *vq)
{
    if (!usable(vq) || (vq->signalled_valid && vq->signalled == vq->used_idx)) {
        return;
    }
    uint16_t old = vq->signalled, now = vq->used_idx;
    bool known = vq->signalled_valid, wanted;
    /* Our idx before the driver's wish: pairs with its fence between the two, section 2.7.7.2. */
    atomic_thread_fence(memory_order_seq_cst);
    if (virtio_has(vq->vd, VIRTIO_F_EVENT_IDX)) {
        uint16_t event = get16(vq->avail_hva + AVAIL_RING + 2 * (size_t)vq->size);
        wanted = !known || (uint16_t)(now - event - 1) < (uint16_t)(now - old);
    } else {
        wanted = !(get16(vq->avail_hva) & AVAIL_NO_INTERRUPT);
    }
    vq->signalled = now;
    vq->signalled_valid = true;
    if (wanted) {
        virtio_interrupt(vq->vd, vq->vector, 1);
    }
}

/* With the event index nothing needs saying: the driver kicks only when it passes the index we last asked for. */
void vq_no_kicks(struct virtqueue *vq)
{
    if (usable(vq) && !virtio_has(vq->vd, VIRTIO_F_EVENT_IDX)) {
        put16(vq->used_hva, USED_NO_NOTIFY);
    }
}

bool vq_want_kicks(struct virtqueue *vq)
{
    if (!usable(vq)) {
        return false;
    }
    if (virtio_has(vq->vd, VIRTIO_F_EVENT_IDX)) {
        /* From here on, not from last_avail: who waits for more than there is wants to hear of the next one. */
        put16(vq->used_hva + USED_RING + 8 * (size_t)vq->size, get16(vq->avail_hva + AVAIL_IDX));
    } else {
        put16(vq->used_hva, 0);
    }
    /* Our wish before the driver's idx: pairs with its fence in section 2.7.13.4.1. */
    atomic_thread_fence(memory_order_seq_cst);
    return !vq_empty(vq);
}

void vq_written(struct virtqueue *vq, const struct vq_chain *c, uint32_t len)
{
    for (unsigned i = c->n_out; len && i < c->n_out + c->n_in; i++) {
        uint32_t n = (uint32_t)min_u64(len, c->iov[i].iov_len);
        mem_written(virtio_mem(vq->vd), c->gpa[i], n);
        len -= n;
    }
}
