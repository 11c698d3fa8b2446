/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block device. Source: virtio 1.2 section 5.2. A request is {type u32, reserved u32, sector u64}, data, status u8, in any split
 * into descriptors; status is the last writable byte. Requests complete in any order, on the loop.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "dev/virtio/virtio-int.h"

enum {
    F_SIZE_MAX = 1, F_SEG_MAX = 2, F_RO = 5, F_BLK_SIZE = 6, F_FLUSH = 9, F_TOPOLOGY = 10, F_MQ = 12, F_DISCARD = 13, F_WRITE_ZEROES = 14,
};
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
enum {
    SECTOR = 512, HEADER = 16, RANGE = 16, ZERO_UNMAP = 1, QUEUE_SIZE = 256, REQUESTS_A_ROUND = 128,
    MAX_RANGE_SECTORS = 1 << 22,        /* 2 GiB a discard or zeroing, so that one cannot occupy a worker for long */
    MAX_SEGMENT = 1 * MIB, MAX_REQUEST = 256 * MIB,     /* stated and enforced: pausing waits for requests in flight */
    CONFIG_SIZE = 0x3c,
};

struct virtio_blk {
    struct virtio_dev vd;
    struct blk_node *node;
    char serial[VIRTIO_BLK_SERIAL_MAX];
    unsigned in_flight;
    uint16_t queued[VIRTIO_BLK_MAX_QUEUES];     /* of these, from each queue: never more than its size */
};

/* One request that has gone to the node. Owned by it until done. */
struct blk_io {
    struct blk_req r;
    struct virtio_blk *vb;
    struct virtqueue *vq;
    uint32_t epoch;
    uint16_t head;
    uint32_t in_len;            /* of the whole chain: what used.len says */
    uint8_t *status;
    gpa_t status_gpa;
    bool read;                  /* the data pieces were written into */
    unsigned n_iov;
    gpa_t *gpa;                 /* of each data piece, when read */
    struct iovec iov[];
};

static struct virtio_blk *blk_of(struct virtio_dev *vd)
{
    return container_of(vd, struct virtio_blk, vd);
}

static void blk_get_config(struct virtio_dev *vd, uint8_t *c)
{
    const struct virtio_blk *vb = blk_of(vd);
    store_le64(c + 0x00, blk_size(vb->node) / SECTOR);
    store_le32(c + 0x08, MAX_SEGMENT);
    store_le32(c + 0x0c, QUEUE_SIZE - 2);
    store_le32(c + 0x14, SECTOR);
    c[0x18] = 3;                                /* 4 KiB physical blocks: what files and disks like */
    store_le32(c + 0x1c, 0);
    c[0x20] = 1;                                /* write-back, always */
    store_le16(c + 0x22, (uint16_t)vd->n_queues);
    store_le32(c + 0x24, MAX_RANGE_SECTORS);
    store_le32(c + 0x28, 1);
    store_le32(c + 0x2c, 8);
    store_le32(c + 0x30, MAX_RANGE_SECTORS);
    store_le32(c + 0x34, 1);
    c[0x38] = blk_can_discard(vb->node);
}

static void store_status(struct virtio_blk *vb, uint8_t *hva, gpa_t gpa, uint8_t status)
{
    *(volatile uint8_t *)hva = status;
    mem_written(virtio_mem(&vb->vd), gpa, 1);
}

static void on_done(struct blk_req *r, int ret)
{
    struct blk_io *io = container_of(r, struct blk_io, r);
    struct virtio_blk *vb = io->vb;
    struct virtio_dev *vd = &vb->vd;
    pthread_mutex_lock(virtio_to_dev(vd)->lock);
    vb->in_flight--;
    vb->queued[io->vq - vd->vq]--;
    for (unsigned i = 0; io->read && i < io->n_iov; i++) {
        mem_written(virtio_mem(vd), io->gpa[i], io->iov[i].iov_len);
    }
    if (io->epoch == vd->epoch) {
        store_status(vb, io->status, io->status_gpa, ret < 0 ? S_IOERR : S_OK);
        vq_push(io->vq, io->head, io->in_len);
        vq_signal(io->vq);
    }
    free(io);
    virtio_idle(vd);
    pthread_mutex_unlock(virtio_to_dev(vd)->lock);
}

/* What a request says, once its header has been copied. */
struct parsed {
    uint32_t type;
    uint64_t sector;
    const struct iovec *status_piece;
    size_t status_off;
    gpa_t status_gpa;
    struct iov_iter out;        /* after the header */
    uint32_t in_data;           /* writable bytes before the status */
};

static bool parse(const struct vq_chain *c, struct parsed *p)
{
    uint8_t h[HEADER];
    if (c->out_len < HEADER || c->in_len < 1) {
        return false;
    }
    iov_iter_init(&p->out, c->iov, c->n_out);
    iov_copy_from(&p->out, h, HEADER);
    p->type = load_le32(h);
    p->sector = load_le64(h + 8);
    unsigned last = c->n_out + c->n_in - 1;
    p->status_piece = &c->iov[last];
    p->status_off = c->iov[last].iov_len - 1;
    p->status_gpa = c->gpa[last] + p->status_off;
    p->in_data = c->in_len - 1;
    return true;
}

static struct blk_io *io_new(struct virtio_blk *vb, struct virtqueue *vq, const struct vq_chain *c, const struct parsed *p,
                             unsigned max_iov)
{
    struct blk_io *io = alloc0(sizeof(*io) + max_iov * (sizeof(struct iovec) + sizeof(gpa_t)));
    io->vb = vb;
    io->vq = vq;
    io->epoch = vb->vd.epoch;
    io->head = c->head;
    io->in_len = c->in_len;
    io->status = (uint8_t *)p->status_piece->iov_base + p->status_off;
    io->status_gpa = p->status_gpa;
    io->gpa = (gpa_t *)(void *)(io->iov + max_iov);
    io->r.done = on_done;
    return io;
}

static void submit(struct virtio_blk *vb, struct blk_io *io, enum blk_op op, uint64_t off, uint64_t len)
{
    io->r.op = op;
    io->r.off = off;
    io->r.len = len;
    io->r.iov = io->iov;
    io->r.n_iov = io->n_iov;
    vb->in_flight++;
    vb->queued[io->vq - vb->vd.vq]++;
    blk_submit(vb->node, &io->r);
}

/* Sectors -> bytes, inside the disk. */
static bool sector_range(const struct virtio_blk *vb, uint64_t sector, uint64_t bytes, uint64_t *off)
{
    uint64_t size = blk_size(vb->node);
    if (sector > size / SECTOR || bytes % SECTOR || !range_ok(sector * SECTOR, bytes, size)) {
        return false;
    }
    *off = sector * SECTOR;
    return true;
}

static int do_read(struct virtio_blk *vb, struct virtqueue *vq, const struct vq_chain *c, struct parsed *p)
{
    uint64_t off;
    if (iov_left(&p->out) || !p->in_data || p->in_data > MAX_REQUEST || !sector_range(vb, p->sector, p->in_data, &off)) {
        return S_IOERR;
    }
    struct blk_io *io = io_new(vb, vq, c, p, c->n_in);
    uint32_t left = p->in_data;
    for (unsigned i = 0; left; i++) {
        const struct iovec *v = chain_in(c) + i;
        uint32_t n = (uint32_t)min_u64(left, v->iov_len);
        io->iov[io->n_iov] = (struct iovec){ v->iov_base, n };
        io->gpa[io->n_iov++] = c->gpa[c->n_out + i];
        left -= n;
    }
    io->read = true;
    submit(vb, io, BLK_READ, off, p->in_data);
    return -1;
}

static int do_write(struct virtio_blk *vb, struct virtqueue *vq, const struct vq_chain *c, struct parsed *p)
{
    uint64_t off, len = iov_left(&p->out);
    if (!blk_writable(vb->node) || p->in_data || !len || len > MAX_REQUEST || !sector_range(vb, p->sector, len, &off)) {
        return S_IOERR;
    }
    struct blk_io *io = io_new(vb, vq, c, p, c->n_out);
    io->n_iov = iov_take(&p->out, len, io->iov, c->n_out, NULL);
    submit(vb, io, BLK_WRITEV, off, len);
    return -1;
}

/* One range; more were not offered. The data is {sector u64, count u32, flags u32}. */
static int do_range(struct virtio_blk *vb, struct virtqueue *vq, const struct vq_chain *c, struct parsed *p)
{
    bool zero = p->type == T_WRITE_ZEROES;
    uint8_t d[RANGE];
    uint64_t off;
    if (!virtio_has(&vb->vd, zero ? F_WRITE_ZEROES : F_DISCARD)) {
        return S_UNSUPP;
    }
    if (iov_left(&p->out) != RANGE || p->in_data) {
        return S_IOERR;
    }
    iov_copy_from(&p->out, d, RANGE);
    uint32_t n = load_le32(d + 8), flags = load_le32(d + 12);
    if (flags & ~(uint32_t)(zero ? ZERO_UNMAP : 0)) {
        return S_UNSUPP;
    }
    if (!blk_writable(vb->node) || n > MAX_RANGE_SECTORS || !sector_range(vb, load_le64(d), (uint64_t)n * SECTOR, &off)) {
        return S_IOERR;
    }
    struct blk_io *io = io_new(vb, vq, c, p, 0);
    submit(vb, io, !zero ? BLK_DISCARD_OP : flags & ZERO_UNMAP ? BLK_ZERO_UNMAP : BLK_ZERO, off, (uint64_t)n * SECTOR);
    return -1;
}

static int do_get_id(struct virtio_blk *vb, const struct vq_chain *c, const struct parsed *p)
{
    struct iov_iter in;
    if (p->in_data < VIRTIO_BLK_SERIAL_MAX) {
        return S_IOERR;
    }
    iov_iter_init(&in, chain_in(c), c->n_in);
    iov_copy_to(&in, vb->serial, sizeof(vb->serial));
    vq_written(&vb->vd.vq[0], c, VIRTIO_BLK_SERIAL_MAX);
    return S_OK;
}

/* Status at once, or -1 when the request is on its way. */
static int start_request(struct virtio_blk *vb, struct virtqueue *vq, const struct vq_chain *c, struct parsed *p)
{
    switch (p->type) {
    case T_IN:
        return do_read(vb, vq, c, p);
    case T_OUT:
        return do_write(vb, vq, c, p);
    case T_FLUSH:
        submit(vb, io_new(vb, vq, c, p, 0), BLK_FLUSH, 0, 0);
        return -1;
    case T_GET_ID:
        return do_get_id(vb, c, p);
    case T_DISCARD:
    case T_WRITE_ZEROES:
        return do_range(vb, vq, c, p);
    default:
        return S_UNSUPP;
    }
}

/* False: nothing more there now. */
static bool take_one(struct virtio_blk *vb, struct virtqueue *vq)
{
    struct vq_chain *c = &vb->vd.chain;
    struct parsed p;
    /* Each chain in flight holds a descriptor of its own, so a driver that is in order cannot have more of them. */
    if (vb->queued[vq - vb->vd.vq] >= vq->size && !vq_empty(vq)) {
        virtio_broken(&vb->vd, "more requests in flight than the queue holds");
        return false;
    }
    if (!vq_pop(vq, c)) {
        return false;
    }
    if (!parse(c, &p)) {
        virtio_broken(&vb->vd, "a block request without header or status");
        return false;
    }
    int status = start_request(vb, vq, c, &p);
    if (status >= 0) {
        store_status(vb, (uint8_t *)p.status_piece->iov_base + p.status_off, p.status_gpa, (uint8_t)status);
        vq_push(vq, c->head, c->in_len);
    }
    return true;
}

static void on_queue(struct virtqueue *vq)
{
    struct virtio_blk *vb = blk_of(vq->vd);
    uint16_t used = vq->used_idx;
    unsigned n = 0;
    vq_no_kicks(vq);
    do {
        while (n < REQUESTS_A_ROUND && take_one(vb, vq)) {
            n++;
        }
    } while (n < REQUESTS_A_ROUND && vq_want_kicks(vq));
    if (n >= REQUESTS_A_ROUND) {
        vq_kick(vq);            /* others have their turn first */
    }
    if (vq->used_idx != used) {
        vq_signal(vq);
    }
}

static bool blk_busy(struct virtio_dev *vd)
{
    return blk_of(vd)->in_flight > 0;
}

static void blk_drain_node(struct virtio_dev *vd)
{
    blk_drain(blk_of(vd)->node);
}

static const struct virtio_class blk_class = {
    .id = 2, .class_code = 0x010000, .config_size = CONFIG_SIZE,
    .get_config = blk_get_config, .busy = blk_busy, .drain = blk_drain_node,
};

static bool blk_realize(struct dev *dev, struct err *err)
{
    struct virtio_dev *vd = virtio_of(dev);
    struct virtio_blk *vb = blk_of(vd);
    vd->cls = &blk_class;
    vd->host_features |= 1ull << F_SIZE_MAX | 1ull << F_SEG_MAX | 1ull << F_BLK_SIZE | 1ull << F_FLUSH | 1ull << F_TOPOLOGY;
    if (!blk_writable(vb->node)) {
        vd->host_features |= 1ull << F_RO;
    } else {
        vd->host_features |= 1ull << F_WRITE_ZEROES | (blk_can_discard(vb->node) ? 1ull << F_DISCARD : 0);
    }
    return virtio_realize(vd, err);
}

static void blk_unrealize(struct dev *dev)
{
    virtio_unrealize(virtio_of(dev));
    blk_finish(blk_of(virtio_of(dev))->node);
}

static const struct state_field blk_own[] = { STATE_END };
static const struct state_field blk_fields[] = VIRTIO_FIELDS(struct virtio_blk, "blk", blk_own);
const struct dev_type virtio_blk_type = {
    .name = "virtio-blk", .size = sizeof(struct virtio_blk), .version = 1, .fields = blk_fields,
    .realize = blk_realize, .unrealize = blk_unrealize, .reset = virtio_dev_reset, .settle = virtio_dev_settle,
    .validate = virtio_dev_validate, .quiesce = virtio_dev_quiesce, .resume = virtio_dev_resume,
};

struct dev *virtio_blk_create(struct dev_env *env, const char *id, uint8_t slot, const struct virtio_blk_config *cfg, struct err *err)
{
    size_t len = cfg->serial ? strlen(cfg->serial) : 0;
    unsigned n = cfg->n_queues ? cfg->n_queues : 1;
    if (len > VIRTIO_BLK_SERIAL_MAX || n > VIRTIO_BLK_MAX_QUEUES) {
        err_set(err, ERR_INVALID, "device '%s': a serial has at most %d bytes, and there are at most %d queues", id,
                (int)VIRTIO_BLK_SERIAL_MAX, (int)VIRTIO_BLK_MAX_QUEUES);
        return NULL;
    }
    struct dev *dev = dev_create(env, &virtio_blk_type, id);
    struct virtio_blk *vb = blk_of(virtio_of(dev));
    vb->vd.pci.slot = slot;
    vb->node = cfg->node;
    if (len) {
        memcpy(vb->serial, cfg->serial, len);
    }
    for (unsigned i = 0; i < n; i++) {
        virtio_queue_add(&vb->vd, QUEUE_SIZE, on_queue);
    }
    vb->vd.host_features = n > 1 ? 1ull << F_MQ : 0;
    return dev_realize(dev, err) ? dev : NULL;
}

void virtio_blk_resized(struct dev *dev)
{
    pthread_mutex_lock(dev->lock);
    virtio_config_changed(virtio_of(dev));
    pthread_mutex_unlock(dev->lock);
}
