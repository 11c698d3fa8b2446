/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Entropy device. Source: virtio 1.2 section 5.4. One queue of buffers to fill from the host's getrandom, which never runs dry; a
 * token bucket in host time keeps a guest from spending the host's processor on random numbers.
 */
#include <string.h>
#include <sys/random.h>

#include "base/iov.h"
#include "dev/virtio/virtio-int.h"

enum { QUEUE_SIZE = 64, BUCKET = 64 * KIB, CHUNK = 4 * KIB, DEFAULT_RATE = 1 * MIB };

struct virtio_rng {
    struct virtio_dev vd;
    uint64_t rate;              /* bytes a second */
    uint64_t tokens;            /* bytes that may be given now */
    uint64_t filled_ns;         /* host time up to which tokens are accounted */
    struct timer refill;
};

static struct virtio_rng *rng_of(struct virtio_dev *vd)
{
    return container_of(vd, struct virtio_rng, vd);
}

static void account(struct virtio_rng *rng)
{
    uint64_t now = host_clock_ns(), gain = muldiv64(min_u64(now - rng->filled_ns, NS_PER_SEC), rng->rate, NS_PER_SEC);
    if (gain) {
        rng->tokens = min_u64(rng->tokens + gain, BUCKET);
        rng->filled_ns = now;
    }
}

/* Fills up to `want` bytes of the chain. */
static uint32_t fill(const struct vq_chain *c, uint64_t want)
{
    uint8_t bytes[CHUNK];
    struct iov_iter in;
    uint32_t done = 0, most = (uint32_t)min_u64(c->in_len, want);
    iov_iter_init(&in, chain_in(c), c->n_in);
    while (done < most) {
        size_t n = (size_t)min_u64(most - done, sizeof(bytes));
        ssize_t got = getrandom(bytes, n, 0);
        if (got <= 0) {
            break;
        }
        iov_copy_to(&in, bytes, (size_t)got);
        done += (uint32_t)got;
    }
    explicit_bzero(bytes, sizeof(bytes));
    return done;
}

static void on_queue(struct virtqueue *vq)
{
    struct virtio_rng *rng = rng_of(vq->vd);
    struct vq_chain *c = &vq->vd->chain;
    uint16_t used = vq->used_idx;
    account(rng);
    do {
        while (rng->tokens && vq_pop(vq, c)) {
            if (c->n_out || !c->n_in) {
                virtio_broken(vq->vd, "an entropy buffer that is not to be written");
                return;
            }
            uint32_t n = fill(c, rng->tokens);
            rng->tokens -= n;
            vq_written(vq, c, n);
            vq_push(vq, c->head, n);
        }
    } while (rng->tokens && vq_want_kicks(vq));
    if (vq->used_idx != used) {
        vq_signal(vq);
    }
    if (!rng->tokens) {
        timer_arm(&rng->refill, host_clock_ns() + muldiv64(CHUNK, NS_PER_SEC, rng->rate));
    }
}

static void on_refill(struct timer *t)
{
    struct virtio_rng *rng = container_of(t, struct virtio_rng, refill);
    vq_kick(&rng->vd.vq[0]);
}

static void rng_stop(struct virtio_dev *vd)
{
    timer_disarm(&rng_of(vd)->refill);
}

static const struct virtio_class rng_class = { .id = 4, .class_code = 0x00ff00, .stop = rng_stop };

static bool rng_realize(struct dev *dev, struct err *err)
{
    struct virtio_rng *rng = rng_of(virtio_of(dev));
    rng->vd.cls = &rng_class;
    rng->filled_ns = host_clock_ns();
    rng->tokens = BUCKET;
    timer_init(&rng->refill, dev->env->io_loop, NULL, on_refill);
    rng->refill.lock = dev->lock;
    virtio_queue_add(&rng->vd, QUEUE_SIZE, on_queue);
    return virtio_realize(&rng->vd, err);
}

static void rng_unrealize(struct dev *dev)
{
    pthread_mutex_lock(dev->lock);
    timer_disarm(&rng_of(virtio_of(dev))->refill);
    pthread_mutex_unlock(dev->lock);
    virtio_unrealize(virtio_of(dev));
}

static const struct state_field rng_own[] = { STATE_END };
static const struct state_field rng_fields[] = VIRTIO_FIELDS(struct virtio_rng, "rng", rng_own);
const struct dev_type virtio_rng_type = {
    .name = "virtio-rng", .size = sizeof(struct virtio_rng), .version = 1, .fields = rng_fields,
    .realize = rng_realize, .unrealize = rng_unrealize, .reset = virtio_dev_reset, .settle = virtio_dev_settle,
    .validate = virtio_dev_validate, .quiesce = virtio_dev_quiesce, .resume = virtio_dev_resume,
};

struct dev *virtio_rng_create(struct dev_env *env, const char *id, uint8_t slot, const struct virtio_rng_config *cfg, struct err *err)
{
    struct dev *dev = dev_create(env, &virtio_rng_type, id);
    struct virtio_rng *rng = rng_of(virtio_of(dev));
    rng->vd.pci.slot = slot;
    rng->rate = cfg && cfg->bytes_per_second ? cfg->bytes_per_second : DEFAULT_RATE;
    return dev_realize(dev, err) ? dev : NULL;
}
