/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio over PCI, modern only. Source: virtio 1.2 section 4.1. BAR4 (16 KiB, 64-bit, prefetchable): common configuration at 0, ISR at
 * 0x1000, device configuration at 0x2000, notify at 0x3000 with multiplier 4. BAR1: MSI-X, one vector for configuration
 * and one a queue. A notification is an eventfd on the device's loop, so a vCPU never runs device code beyond a register.
 */
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "dev/virtio/virtio-int.h"

enum {
    BAR_SIZE = 0x4000, AREA = 0x1000, COMMON = 0, ISR = 1, CONFIG = 2, NOTIFY = 3, NOTIFY_STEP = 4, BAR = 4, MSIX_BAR = 1,
    CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_ISR = 3, CAP_DEVICE = 4, CAP_WINDOW = 5,
    WINDOW_BAR = 4, WINDOW_OFFSET = 8, WINDOW_LENGTH = 12, WINDOW_DATA = 16,
};

/* Common configuration, section 4.1.4.3 */
enum {
    C_HOST_SEL = 0x00, C_HOST = 0x04, C_DRIVER_SEL = 0x08, C_DRIVER = 0x0c, C_CONFIG_VECTOR = 0x10, C_NUM_QUEUES = 0x12,
    C_STATUS = 0x14, C_GENERATION = 0x15, C_QUEUE_SEL = 0x16, C_QUEUE_SIZE = 0x18, C_QUEUE_VECTOR = 0x1a,
    C_QUEUE_ENABLE = 0x1c, C_NOTIFY_OFF = 0x1e, C_DESC = 0x20, C_AVAIL = 0x28, C_USED = 0x30, C_SIZE = 0x38,
};

static const struct state_field vq_fields[] = {
    STATE(struct virtqueue, size, .keep = true),        /* queues_reset: never 0, not even for a moment */
    STATE(struct virtqueue, vector, .reset = VIRTIO_NO_VECTOR),
    STATE(struct virtqueue, enabled),
    STATE(struct virtqueue, desc),
    STATE(struct virtqueue, avail),
    STATE(struct virtqueue, used),
    STATE(struct virtqueue, last_avail),
    STATE(struct virtqueue, used_idx),
    STATE_END
};

const struct state_field virtio_fields[] = {
    STATE(struct virtio_dev, features),
    STATE(struct virtio_dev, host_sel),
    STATE(struct virtio_dev, driver_sel),
    STATE(struct virtio_dev, status),
    STATE(struct virtio_dev, generation),
    STATE(struct virtio_dev, isr),
    STATE(struct virtio_dev, config_vector, .reset = VIRTIO_NO_VECTOR),
    STATE(struct virtio_dev, queue_sel),
    STATE_STRUCTS(struct virtio_dev, vq, vq_fields),
    STATE_END
};

bool virtio_always(const void *obj)
{
    return true;
}

bool virtio_ready(const struct virtio_dev *vd)
{
    return (vd->status & (VIRTIO_S_DRIVER_OK | VIRTIO_S_NEEDS_RESET)) == VIRTIO_S_DRIVER_OK && !vd->resetting &&
           vd->pci.cfg[PCI_COMMAND] & PCI_COMMAND_MASTER;
}

void virtio_interrupt(struct virtio_dev *vd, uint16_t vector, uint8_t isr_bit)
{
    if (pci_msix_enabled(&vd->pci)) {
        pci_msix_fire(&vd->pci, vector);        /* VIRTIO_NO_VECTOR is beyond the table */
    } else {
        vd->isr |= isr_bit;
        pci_intx_set(&vd->pci, true);
    }
}

void virtio_config_changed(struct virtio_dev *vd)
{
    vd->generation++;
    if (vd->status & VIRTIO_S_DRIVER_OK) {
        virtio_interrupt(vd, vd->config_vector, 3);
    }
}

void virtio_broken(struct virtio_dev *vd, const char *why)
{
    if (vd->status & VIRTIO_S_NEEDS_RESET) {
        return;
    }
    LOG_LIMITED(LOG_WARN, "virtio", "%s: stopped until the guest resets it: %s", virtio_to_dev(vd)->id, why);
    vd->status |= VIRTIO_S_NEEDS_RESET;
    virtio_config_changed(vd);
}

void vq_kick(struct virtqueue *vq)
{
    static const uint64_t one = 1;
    (void)!write(vq->kick_fd, &one, sizeof(one));
}

static void on_kick(struct loop_fd *w, uint32_t events)
{
    struct virtqueue *vq = container_of(w, struct virtqueue, watch);
    uint64_t count;
    (void)!read(w->fd, &count, sizeof(count));
    if (vq->mapped && virtio_ready(vq->vd) && !vq->vd->quiesced) {
        vq->handler(vq);
    }
}

static void kick_all(struct virtio_dev *vd)
{
    for (unsigned i = 0; i < vd->n_queues; i++) {
        if (vd->vq[i].mapped) {
            vq_kick(&vd->vq[i]);
        }
    }
}

/* -- reset -- */

static void queues_reset(struct virtio_dev *vd)
{
    for (unsigned i = 0; i < vd->n_queues; i++) {
        vq_unmap(&vd->vq[i]);
        vd->vq[i].size = vd->vq[i].max_size;
    }
}

/* What a driver's reset leaves: everything but PCI configuration and the MSI-X table. */
static void finish_reset(struct virtio_dev *vd)
{
    vd->resetting = false;
    state_reset(virtio_fields, vd);
    if (vd->cls->fields) {
        state_reset(vd->cls->fields, vd);
    }
    queues_reset(vd);
    pci_intx_set(&vd->pci, false);
}

/*
 * Section 2.4.2: status reads 0 only when nothing is in flight any more. The driver polls for that, so we need not wait here with
 * the lock held that the completions want.
 */
static void driver_reset(struct virtio_dev *vd)
{
    if (vd->resetting) {
        return;
    }
    vd->epoch++;
    vd->resetting = true;
    if (vd->cls->stop) {
        vd->cls->stop(vd);
    }
    virtio_idle(vd);
}

void virtio_idle(struct virtio_dev *vd)
{
    if (vd->resetting && !(vd->cls->busy && vd->cls->busy(vd))) {
        finish_reset(vd);
    }
}

void virtio_dev_reset(struct dev *dev)
{
    struct virtio_dev *vd = virtio_of(dev);
    pci_reset(&vd->pci);
    if (vd->cls->drain) {
        vd->cls->drain(vd);
    }
    pthread_mutex_lock(dev->lock);
    vd->epoch++;
    if (vd->cls->stop) {
        vd->cls->stop(vd);
    }
    finish_reset(vd);
    pthread_mutex_unlock(dev->lock);
}

/* -- notifications without a vCPU in device code -- */

static void unhook(struct virtio_dev *vd)
{
    struct mem *m = virtio_mem(vd);
    for (unsigned i = 0; i < vd->n_queues; i++) {
        if (vd->vq[i].ioeventfd) {
            mem_ioeventfd_del(m, MEM_MMIO, vd->notify_at + NOTIFY_STEP * i, vd->vq[i].kick_fd);
            vd->vq[i].ioeventfd = false;
        }
    }
    vd->notify_at = 0;
}

/* Makes the ioeventfds follow the BAR. PCI lock held, or VM parked. A place that is taken leaves the register, which does the same. */
static void hook(struct virtio_dev *vd)
{
    const struct io_region *io = &vd->bar->io;
    gpa_t at = io->mapped ? io->base + NOTIFY * AREA : 0;
    if (at == vd->notify_at) {
        return;
    }
    unhook(vd);
    vd->notify_at = at;
    for (unsigned i = 0; at && i < vd->n_queues; i++) {
        struct virtqueue *vq = &vd->vq[i];
        vq->ioeventfd = mem_ioeventfd_add(virtio_mem(vd), MEM_MMIO, at + NOTIFY_STEP * i, 0, vq->kick_fd, NULL);
    }
}

static void on_cfg_moved(struct pci_dev *pd, unsigned off, unsigned len)
{
    hook(container_of(pd, struct virtio_dev, pci));
}

/* -- common configuration -- */

static struct virtqueue *selected(struct virtio_dev *vd)
{
    return vd->queue_sel < vd->n_queues ? &vd->vq[vd->queue_sel] : NULL;
}

static uint32_t feature_word(uint64_t features, uint32_t sel)
{
    return sel < 2 ? (uint32_t)(features >> 32 * sel) : 0;
}

static uint64_t common_read(struct virtio_dev *vd, uint64_t off, unsigned width)
{
    uint8_t b[C_SIZE + 8] = { 0 };
    const struct virtqueue *vq = selected(vd);
    store_le32(b + C_HOST_SEL, vd->host_sel);
    store_le32(b + C_HOST, feature_word(vd->host_features, vd->host_sel));
    store_le32(b + C_DRIVER_SEL, vd->driver_sel);
    store_le32(b + C_DRIVER, feature_word(vd->features, vd->driver_sel));
    store_le16(b + C_CONFIG_VECTOR, vd->config_vector);
    store_le16(b + C_NUM_QUEUES, (uint16_t)vd->n_queues);
    b[C_STATUS] = vd->status;
    b[C_GENERATION] = vd->generation;
    store_le16(b + C_QUEUE_SEL, vd->queue_sel);
    if (vq) {
        store_le16(b + C_QUEUE_SIZE, vq->size);
        store_le16(b + C_QUEUE_VECTOR, vq->vector);
        store_le16(b + C_QUEUE_ENABLE, vq->enabled);
        store_le16(b + C_NOTIFY_OFF, vq->index);
        store_le64(b + C_DESC, vq->desc);
        store_le64(b + C_AVAIL, vq->avail);
        store_le64(b + C_USED, vq->used);
    }
    return off < C_SIZE ? load_le64(b + off) : dev_bad_read(virtio_to_dev(vd), off, width);
}

static uint16_t valid_vector(const struct virtio_dev *vd, uint64_t val)
{
    return val < vd->pci.n_msix ? (uint16_t)val : VIRTIO_NO_VECTOR;
}

static void write_features(struct virtio_dev *vd, uint32_t val)
{
    if (vd->driver_sel < 2 && !(vd->status & VIRTIO_S_FEATURES_OK)) {
        unsigned shift = 32 * vd->driver_sel;
        vd->features = (vd->features & ~(0xffffffffull << shift)) | (uint64_t)val << shift;
    }
}

static void write_status(struct virtio_dev *vd, uint8_t val)
{
    uint8_t old = vd->status;
    if (val == 0) {
        driver_reset(vd);
        return;
    }
    /* Section 2.2.2: what was not offered, or no version 1, is refused by not keeping FEATURES_OK. */
    bool agreed = !(vd->features & ~vd->host_features) && virtio_has(vd, VIRTIO_F_VERSION_1);
    if (!agreed) {
        val &= (uint8_t)~(VIRTIO_S_FEATURES_OK | VIRTIO_S_DRIVER_OK);
    }
    if (!(val & VIRTIO_S_FEATURES_OK)) {
        val &= (uint8_t)~VIRTIO_S_DRIVER_OK;
    }
    vd->status = val | (old & (VIRTIO_S_NEEDS_RESET | VIRTIO_S_FEATURES_OK | VIRTIO_S_DRIVER_OK));
    if (vd->status & ~old & VIRTIO_S_DRIVER_OK) {
        if (vd->cls->start) {
            vd->cls->start(vd);
        }
        kick_all(vd);
    }
}

static void enable_queue(struct virtio_dev *vd, struct virtqueue *vq)
{
    if (vq->enabled) {
        return;
    }
    if (!(vd->status & VIRTIO_S_FEATURES_OK)) {
        virtio_broken(vd, "a queue was enabled before features were agreed");
    } else if (!vq_map(vq)) {
        virtio_broken(vd, "a queue was enabled outside RAM or misaligned");
    } else {
        vq->enabled = true;
        vq_kick(vq);
    }
}

static void set_half(uint64_t *v, bool high, uint64_t val, unsigned width)
{
    if (width == 8) {
        *v = val;
    } else if (high) {
        *v = (*v & 0xffffffff) | val << 32;
    } else {
        *v = (*v & ~0xffffffffull) | (val & 0xffffffff);
    }
}

static bool write_queue(struct virtio_dev *vd, uint64_t off, uint64_t val, unsigned width)
{
    struct virtqueue *vq = selected(vd);
    bool wide = width >= 4;
    if (!vq) {
        return true;            /* there is no such queue: nothing to set */
    }
    if (off == C_QUEUE_VECTOR && width == 2) {
        vq->vector = valid_vector(vd, val);
        return true;
    }
    if (vq->enabled) {
        return off >= C_QUEUE_SIZE && off < C_SIZE;     /* fixed until reset */
    }
    switch (off) {
    case C_QUEUE_SIZE:
        if (width == 2 && val && val <= vq->max_size && !(val & (val - 1))) {
            vq->size = (uint16_t)val;
            return true;
        }
        return false;
    case C_QUEUE_ENABLE:
        if (width == 2 && val == 1) {
            enable_queue(vd, vq);
            return true;
        }
        return false;
    case C_DESC: case C_DESC + 4:
        set_half(&vq->desc, off & 4, val, width);
        return wide;
    case C_AVAIL: case C_AVAIL + 4:
        set_half(&vq->avail, off & 4, val, width);
        return wide;
    case C_USED: case C_USED + 4:
        set_half(&vq->used, off & 4, val, width);
        return wide;
    default:
        return false;
    }
}

static void common_write(struct virtio_dev *vd, uint64_t off, uint64_t val, unsigned width)
{
    bool ok = true;
    if (off == C_HOST_SEL && width == 4) {
        vd->host_sel = (uint32_t)val;
    } else if (off == C_DRIVER_SEL && width == 4) {
        vd->driver_sel = (uint32_t)val;
    } else if (off == C_DRIVER && width == 4) {
        write_features(vd, (uint32_t)val);
    } else if (off == C_CONFIG_VECTOR && width == 2) {
        vd->config_vector = valid_vector(vd, val);
    } else if (off == C_STATUS && width == 1) {
        write_status(vd, (uint8_t)val);
    } else if (off == C_QUEUE_SEL && width == 2) {
        vd->queue_sel = (uint16_t)val;
    } else {
        ok = off >= C_QUEUE_SIZE && write_queue(vd, off, val, width);
    }
    if (!ok) {
        dev_bad_write(virtio_to_dev(vd), off, val, width);
    }
}

/* -- the BAR -- */

static uint64_t config_read(struct virtio_dev *vd, uint64_t off, unsigned width)
{
    uint8_t b[VIRTIO_CONFIG_MAX + 8] = { 0 };
    if (!range_ok(off, width, vd->cls->config_size)) {
        return dev_bad_read(virtio_to_dev(vd), off, width);
    }
    vd->cls->get_config(vd, b);
    return load_le64(b + off);
}

static uint64_t bar_read(struct dev *dev, uint64_t off, unsigned width)
{
    struct virtio_dev *vd = virtio_of(dev);
    switch (off / AREA) {
    case COMMON:
        return common_read(vd, off, width);
    case ISR: {
        uint8_t isr = vd->isr;
        if (off != ISR * AREA) {
            return dev_bad_read(dev, off, width);
        }
        vd->isr = 0;
        pci_intx_set(&vd->pci, false);
        return isr;
    }
    case CONFIG:
        return config_read(vd, off % AREA, width);
    default:
        return 0;               /* notify is write-only */
    }
}

static void bar_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct virtio_dev *vd = virtio_of(dev);
    uint64_t in = off % AREA;
    if (vd->resetting) {
        return;
    }
    switch (off / AREA) {
    case COMMON:
        common_write(vd, off, val, width);
        break;
    case CONFIG:
        if (vd->cls->set_config && range_ok(in, width, vd->cls->config_size)) {
            vd->cls->set_config(vd, in, val, width);
        } else {
            dev_bad_write(dev, off, val, width);
        }
        break;
    case NOTIFY:
        if (in / NOTIFY_STEP < vd->n_queues) {
            vq_kick(&vd->vq[in / NOTIFY_STEP]);
        }
        break;
    default:
        dev_bad_write(dev, off, val, width);
    }
}

static const struct io_ops bar_io = { .read = bar_read, .write = bar_write };

/* -- the window in configuration space, section 4.1.4.9: BAR accesses for firmware that cannot map BARs -- */

static bool window_access(const struct virtio_dev *vd, unsigned off, unsigned len, uint32_t *at)
{
    const uint8_t *cap = vd->pci.cfg + vd->window;
    *at = load_le32(cap + WINDOW_OFFSET);
    return off == vd->window + WINDOW_DATA && len == load_le32(cap + WINDOW_LENGTH) && cap[WINDOW_BAR] == BAR &&
           (len == 1 || len == 2 || len == 4) && range_ok(*at, len, BAR_SIZE) && *at % len == 0;
}

static void on_cfg_written(struct pci_dev *pd, unsigned off, unsigned len)
{
    struct virtio_dev *vd = container_of(pd, struct virtio_dev, pci);
    uint32_t at;
    if (window_access(vd, off, len, &at)) {
        uint64_t val = load_le32(pd->cfg + off) & (len == 4 ? 0xffffffff : (1u << 8 * len) - 1);
        bar_write(&pd->dev, at, val, len);
    } else if (off <= PCI_COMMAND && off + len > PCI_COMMAND && pd->cfg[PCI_COMMAND] & PCI_COMMAND_MASTER) {
        kick_all(vd);           /* what was kicked while DMA was forbidden */
    }
}

static uint32_t on_cfg_read(struct pci_dev *pd, unsigned off, unsigned len, uint32_t val)
{
    struct virtio_dev *vd = container_of(pd, struct virtio_dev, pci);
    uint32_t at;
    return window_access(vd, off, len, &at) ? (uint32_t)bar_read(&pd->dev, at, len) : val;
}

/* -- life -- */

void virtio_queue_add(struct virtio_dev *vd, uint16_t size, void (*handler)(struct virtqueue *vq))
{
    struct virtqueue *vq = &vd->vq[vd->n_queues];
    vq->vd = vd;
    vq->index = (uint16_t)vd->n_queues++;
    vq->max_size = vq->size = size;
    vq->handler = handler;
    vq->kick_fd = -1;
}

static uint8_t add_cap(struct virtio_dev *vd, uint8_t type, uint8_t len, unsigned area, uint32_t area_len)
{
    uint8_t off = pci_cap_add(&vd->pci, PCI_CAP_VENDOR, len), *cap = vd->pci.cfg + off;
    cap[2] = len;
    cap[3] = type;
    cap[WINDOW_BAR] = BAR;
    store_le32(cap + WINDOW_OFFSET, area * AREA);
    store_le32(cap + WINDOW_LENGTH, area_len);
    return off;
}

static void add_caps(struct virtio_dev *vd)
{
    struct pci_dev *pd = &vd->pci;
    add_cap(vd, CAP_COMMON, 16, COMMON, C_SIZE);
    add_cap(vd, CAP_ISR, 16, ISR, 1);
    if (vd->cls->config_size) {
        add_cap(vd, CAP_DEVICE, 16, CONFIG, vd->cls->config_size);
    }
    uint8_t notify = add_cap(vd, CAP_NOTIFY, 20, NOTIFY, NOTIFY_STEP * vd->n_queues);
    store_le32(pd->cfg + notify + 16, NOTIFY_STEP);
    vd->window = add_cap(vd, CAP_WINDOW, 20, 0, 0);
    pd->cfg[vd->window + WINDOW_BAR] = 0;
    pd->wmask[vd->window + WINDOW_BAR] = 0xff;
    memset(pd->wmask + vd->window + WINDOW_OFFSET, 0xff, 12);
}

bool virtio_realize(struct virtio_dev *vd, struct err *err)
{
    struct dev *dev = virtio_to_dev(vd);
    struct pci_ident id = {
        .vendor = 0x1af4, .device = (uint16_t)(0x1040 + vd->cls->id), .sub_vendor = 0x1af4, .sub_device = 0x1100,
        .class_code = vd->cls->class_code, .revision = 1, .pin = 1,
    };
    dev->loop = dev->env->io_loop;
    vd->host_features |= 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_INDIRECT_DESC | 1ull << VIRTIO_F_EVENT_IDX;
    if (!pci_dev_init(&vd->pci, &id, err)) {
        return false;
    }
    vd->bar = dev_add_region(dev, "virtio", MEM_MMIO, &bar_io, BAR_SIZE);
    if (!pci_bar_add(&vd->pci, BAR, vd->bar, true, true, err) ||
        !pci_msix_add(&vd->pci, vd->n_queues + 1, MSIX_BAR, err)) {
        return false;
    }
    add_caps(vd);
    vd->pci.cfg_written = on_cfg_written;
    vd->pci.cfg_read_hook = on_cfg_read;
    vd->pci.cfg_moved = on_cfg_moved;
    for (unsigned i = 0; i < vd->n_queues; i++) {
        struct virtqueue *vq = &vd->vq[i];
        vq->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (vq->kick_fd < 0) {
            return err_set(err, ERR_LIMIT, "no descriptor left for a queue's notifications");
        }
        vq->watch = (struct loop_fd){ .fd = vq->kick_fd, .fn = on_kick, .lock = dev->lock };
        if (!loop_fd_add(dev->loop, &vq->watch, EPOLLIN, err)) {
            return false;
        }
    }
    return true;
}

void virtio_unrealize(struct virtio_dev *vd)
{
    struct dev *dev = virtio_to_dev(vd);
    unhook(vd);
    pthread_mutex_lock(dev->lock);
    for (unsigned i = 0; i < vd->n_queues; i++) {
        loop_fd_del(&vd->vq[i].watch);
        if (vd->vq[i].kick_fd >= 0) {
            close(vd->vq[i].kick_fd);
        }
    }
    vd->n_queues = 0;
    pthread_mutex_unlock(dev->lock);
    pci_dev_fini(&vd->pci);
}

bool virtio_dev_validate(struct dev *dev, struct err *err)
{
    const struct virtio_dev *vd = virtio_of(dev);
    if (vd->features & ~vd->host_features && vd->status & VIRTIO_S_FEATURES_OK) {
        return err_set(err, ERR_INVALID, "features %#llx are in use, %#llx are offered", (unsigned long long)vd->features,
                       (unsigned long long)vd->host_features);
    }
    for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++) {
        const struct virtqueue *vq = &vd->vq[i];
        if (i >= vd->n_queues ? vq->enabled : !vq->size || vq->size > vq->max_size || vq->size & (vq->size - 1)) {
            return err_set(err, ERR_INVALID, "queue %u has an impossible size or is not there", i);
        }
    }
    return true;
}

/* After reset and after load. Rings that are not in RAM stop the device, not the VM. */
void virtio_dev_settle(struct dev *dev)
{
    struct virtio_dev *vd = virtio_of(dev);
    pthread_mutex_lock(dev->lock);
    vd->resetting = false;
    for (unsigned i = 0; i < vd->n_queues; i++) {
        struct virtqueue *vq = &vd->vq[i];
        vq_unmap(vq);
        vq->vector = valid_vector(vd, vq->vector);
        if (vq->enabled && !vq_map(vq)) {
            virtio_broken(vd, "a loaded queue lies outside RAM");
        }
    }
    vd->config_vector = valid_vector(vd, vd->config_vector);
    if (vd->status & VIRTIO_S_DRIVER_OK && vd->cls->start) {
        vd->cls->start(vd);
    }
    pthread_mutex_unlock(dev->lock);
    pci_settle(&vd->pci);
    hook(vd);
    kick_all(vd);
}

void virtio_dev_quiesce(struct dev *dev)
{
    struct virtio_dev *vd = virtio_of(dev);
    pthread_mutex_lock(dev->lock);
    vd->quiesced = true;
    pthread_mutex_unlock(dev->lock);
    if (vd->cls->drain) {
        vd->cls->drain(vd);
    }
}

void virtio_dev_resume(struct dev *dev)
{
    struct virtio_dev *vd = virtio_of(dev);
    pthread_mutex_lock(dev->lock);
    vd->quiesced = false;
    kick_all(vd);
    pthread_mutex_unlock(dev->lock);
}
