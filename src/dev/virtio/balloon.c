/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory balloon. Source: virtio 1.2 section 5.5. Pages the guest puts in, and free pages it reports, are given back to the host; what
 * the guest reads there later is zeros. The guest alone decides which pages: it can only harm itself.
 */
#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "dev/virtio/virtio-int.h"

enum { F_STATS_VQ = 1, F_DEFLATE_ON_OOM = 2, F_REPORTING = 5 };
enum { CONFIG_TARGET = 0, CONFIG_ACTUAL = 4, CONFIG_SIZE = 8, QUEUE_SIZE = 128, CHAINS_A_ROUND = 64 };
enum { MAX_LIST = 64 * KIB };           /* bytes of page numbers in one request; Linux sends 1 KiB */
enum { STAT_RECORD = 10, N_STATS = 10, MAX_STAT_BYTES = 64 * STAT_RECORD };
enum { Q_INFLATE = 0, Q_DEFLATE = 1, Q_STATS = 2 };

struct virtio_balloon {
    struct virtio_dev vd;

    /* field table */
    uint32_t target, actual;    /* pages of 4 KiB */
    bool stats_held;            /* the driver's statistics buffer is with us; giving it back asks for new ones */
    uint16_t stats_head;

    uint64_t stats[N_STATS];
    uint64_t stats_ns;
};

static struct virtio_balloon *balloon_of(struct virtio_dev *vd)
{
    return container_of(vd, struct virtio_balloon, vd);
}

static void balloon_get_config(struct virtio_dev *vd, uint8_t *c)
{
    store_le32(c + CONFIG_TARGET, balloon_of(vd)->target);
    store_le32(c + CONFIG_ACTUAL, balloon_of(vd)->actual);
}

static void balloon_set_config(struct virtio_dev *vd, uint64_t off, uint64_t val, unsigned width)
{
    if (off == CONFIG_ACTUAL && width == 4) {
        balloon_of(vd)->actual = (uint32_t)val;
    } else {
        dev_bad_write(virtio_to_dev(vd), off, val, width);
    }
}

/* Page numbers of one inflate request; neighbours go in one call. */
static void discard_pages(struct virtio_balloon *b, const struct vq_chain *c)
{
    uint8_t raw[4 * 256];
    struct iov_iter it;
    gpa_t start = 0, end = 0;
    if (c->out_len > MAX_LIST) {
        virtio_broken(&b->vd, "a list of more pages than one request may name");
        return;
    }
    iov_iter_init(&it, c->iov, c->n_out);
    while (iov_left(&it) >= 4) {
        size_t n = (size_t)min_u64(iov_left(&it) / 4 * 4, sizeof(raw));
        iov_copy_from(&it, raw, n);
        for (size_t i = 0; i < n; i += 4) {
            gpa_t page = (gpa_t)load_le32(raw + i) << PAGE_SHIFT;
            if (page != end) {
                mem_discard(virtio_mem(&b->vd), start, end - start);
                start = page;
            }
            end = page + PAGE_SIZE;
        }
    }
    mem_discard(virtio_mem(&b->vd), start, end - start);
}

/* Takes chains with `one` until none is left; answers each with no bytes written. */
static void serve(struct virtqueue *vq, void (*one)(struct virtio_balloon *b, const struct vq_chain *c))
{
    struct vq_chain *c = &vq->vd->chain;
    unsigned n = 0;
    vq_no_kicks(vq);
    do {
        while (n < CHAINS_A_ROUND && vq_pop(vq, c)) {
            if (one) {
                one(balloon_of(vq->vd), c);
            }
            vq_push(vq, c->head, 0);
            n++;
        }
    } while (n < CHAINS_A_ROUND && vq_want_kicks(vq));
    if (n >= CHAINS_A_ROUND) {
        vq_kick(vq);
    }
    if (n) {
        vq_signal(vq);
    }
}

/* Free page reporting: the buffers are the pages. They read as zeros from here on, whatever they held. */
static void discard_buffers(struct virtio_balloon *b, const struct vq_chain *c)
{
    for (unsigned i = c->n_out; i < c->n_out + c->n_in; i++) {
        mem_discard(virtio_mem(&b->vd), c->gpa[i], c->iov[i].iov_len);
    }
}

static void read_stats(struct virtio_balloon *b, const struct vq_chain *c)
{
    uint8_t raw[STAT_RECORD];
    struct iov_iter it;
    unsigned n = 0;
    iov_iter_init(&it, c->iov, c->n_out);
    memset(b->stats, 0xff, sizeof(b->stats));
    while (n++ < MAX_STAT_BYTES / STAT_RECORD && iov_copy_from(&it, raw, STAT_RECORD) == 0) {
        uint16_t tag = load_le16(raw);
        if (tag < N_STATS) {
            b->stats[tag] = load_le64(raw + 2);
        }
    }
    b->stats_ns = host_clock_ns();
}

/* The driver hands over one buffer and waits for it: we keep it until somebody asks for news. */
static void on_stats(struct virtqueue *vq)
{
    struct virtio_balloon *b = balloon_of(vq->vd);
    struct vq_chain *c = &vq->vd->chain;
    uint16_t used = vq->used_idx;
    for (unsigned n = 0; n < CHAINS_A_ROUND && vq_pop(vq, c); n++) {
        if (b->stats_held) {
            vq_push(vq, b->stats_head, 0);
        }
        read_stats(b, c);
        b->stats_held = true;
        b->stats_head = c->head;
    }
    vq_want_kicks(vq);
    if (vq->used_idx != used) {
        vq_signal(vq);
    }
}

static void on_inflate(struct virtqueue *vq)
{
    serve(vq, discard_pages);
}

static void on_deflate(struct virtqueue *vq)
{
    serve(vq, NULL);            /* the guest takes pages back by touching them */
}

/* Queues are numbered without those the driver did not take: the third is statistics or reporting. */
static void on_third(struct virtqueue *vq)
{
    if (virtio_has(vq->vd, F_STATS_VQ)) {
        on_stats(vq);
    } else if (virtio_has(vq->vd, F_REPORTING)) {
        serve(vq, discard_buffers);
    }
}

static void on_fourth(struct virtqueue *vq)
{
    if (virtio_has(vq->vd, F_STATS_VQ) && virtio_has(vq->vd, F_REPORTING)) {
        serve(vq, discard_buffers);
    }
}

static const struct state_field balloon_own[] = {
    STATE(struct virtio_balloon, target, .keep = true),
    STATE(struct virtio_balloon, actual),
    STATE(struct virtio_balloon, stats_held),
    STATE(struct virtio_balloon, stats_head),
    STATE_END
};

static const struct virtio_class balloon_class = {
    .id = 5, .class_code = 0x00ff00, .config_size = CONFIG_SIZE, .fields = balloon_own,
    .get_config = balloon_get_config, .set_config = balloon_set_config,
};

static bool balloon_realize(struct dev *dev, struct err *err)
{
    struct virtio_dev *vd = virtio_of(dev);
    vd->cls = &balloon_class;
    vd->host_features = 1ull << F_STATS_VQ | 1ull << F_DEFLATE_ON_OOM | 1ull << F_REPORTING;
    virtio_queue_add(vd, QUEUE_SIZE, on_inflate);
    virtio_queue_add(vd, QUEUE_SIZE, on_deflate);
    virtio_queue_add(vd, QUEUE_SIZE, on_third);
    virtio_queue_add(vd, QUEUE_SIZE, on_fourth);
    return virtio_realize(vd, err);
}

static void balloon_unrealize(struct dev *dev)
{
    virtio_unrealize(virtio_of(dev));
}

static const struct state_field balloon_fields[] = VIRTIO_FIELDS(struct virtio_balloon, "balloon", balloon_own);
const struct dev_type virtio_balloon_type = {
    .name = "virtio-balloon", .size = sizeof(struct virtio_balloon), .version = 1, .fields = balloon_fields,
    .realize = balloon_realize, .unrealize = balloon_unrealize, .reset = virtio_dev_reset, .settle = virtio_dev_settle,
    .validate = virtio_dev_validate, .quiesce = virtio_dev_quiesce, .resume = virtio_dev_resume,
};

struct dev *virtio_balloon_create(struct dev_env *env, const char *id, uint8_t slot, struct err *err)
{
    struct dev *dev = dev_create(env, &virtio_balloon_type, id);
    virtio_of(dev)->pci.slot = slot;
    return dev_realize(dev, err) ? dev : NULL;
}

void virtio_balloon_set_target(struct dev *dev, uint64_t bytes)
{
    struct virtio_balloon *b = balloon_of(virtio_of(dev));
    pthread_mutex_lock(dev->lock);
    b->target = (uint32_t)min_u64(bytes >> PAGE_SHIFT, UINT32_MAX);
    virtio_config_changed(&b->vd);
    pthread_mutex_unlock(dev->lock);
}

uint64_t virtio_balloon_actual(struct dev *dev)
{
    struct virtio_balloon *b = balloon_of(virtio_of(dev));
    pthread_mutex_lock(dev->lock);
    uint64_t bytes = (uint64_t)b->actual << PAGE_SHIFT;
    pthread_mutex_unlock(dev->lock);
    return bytes;
}

bool virtio_balloon_get_stats(struct dev *dev, struct virtio_balloon_stats *out)
{
    struct virtio_balloon *b = balloon_of(virtio_of(dev));
    struct virtqueue *vq = &b->vd.vq[Q_STATS];
    pthread_mutex_lock(dev->lock);
    bool ok = virtio_ready(&b->vd) && virtio_has(&b->vd, F_STATS_VQ);
    const uint64_t *s = b->stats;
    *out = (struct virtio_balloon_stats){
        .swap_in = s[0], .swap_out = s[1], .major_faults = s[2], .minor_faults = s[3], .free = s[4], .total = s[5],
        .available = s[6], .caches = s[7], .huge_ok = s[8], .huge_fail = s[9], .updated_ns = b->stats_ns,
    };
    if (ok && b->stats_held && !b->vd.quiesced) {
        b->stats_held = false;
        vq_push(vq, b->stats_head, 0);
        vq_signal(vq);
    }
    pthread_mutex_unlock(dev->lock);
    return ok;
}
