/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside dev/virtio/: the core that every virtio device embeds, and its queues. Source: virtio 1.2.
 * All of it is under the device's lock: register handlers hold it, and so do the loop's callbacks.
 */
#ifndef LODGE_DEV_VIRTIO_VIRTIO_INT_H
#define LODGE_DEV_VIRTIO_VIRTIO_INT_H

#include <sys/uio.h>

#include "dev/pci/pci.h"
#include "dev/virtio/virtio.h"

enum { VIRTIO_MAX_QUEUES = 18, VQ_MAX_SIZE = 256, VQ_MAX_IOV = VQ_MAX_SIZE + 64, VIRTIO_CONFIG_MAX = 0x60 };
enum { VIRTIO_NO_VECTOR = 0xffff };

/* Device status, section 2.1 */
enum {
    VIRTIO_S_ACKNOWLEDGE = 1, VIRTIO_S_DRIVER = 2, VIRTIO_S_DRIVER_OK = 4, VIRTIO_S_FEATURES_OK = 8,
    VIRTIO_S_NEEDS_RESET = 0x40, VIRTIO_S_FAILED = 0x80,
};

/* Feature bits above the devices', section 6 */
enum { VIRTIO_F_INDIRECT_DESC = 28, VIRTIO_F_EVENT_IDX = 29, VIRTIO_F_VERSION_1 = 32 };

struct virtio_dev;

struct virtqueue {
    /* what the driver set, and where we are in it: the field table's */
    uint16_t size;              /* entries; a power of two, at most max_size */
    uint16_t vector;            /* MSI-X vector or VIRTIO_NO_VECTOR */
    bool enabled;
    uint64_t desc, avail, used; /* GPAs */
    uint16_t last_avail;        /* next available entry to take */
    uint16_t used_idx;          /* what used.idx says */

    /* what follows from it, or is fixed at realize */
    struct virtio_dev *vd;
    uint16_t index, max_size;
    void (*handler)(struct virtqueue *vq);      /* the driver kicked, or there may be something: take until empty */
    bool mapped;                /* the three below are valid */
    const volatile uint8_t *desc_hva;
    volatile uint8_t *avail_hva, *used_hva;
    uint16_t signalled;         /* used_idx when the driver was last interrupted */
    bool signalled_valid;
    int kick_fd;                /* eventfd: written by ioeventfd or the notify register */
    struct loop_fd watch;
    bool ioeventfd;             /* registered at vd->notify_at */
};

/* A descriptor chain: `out` pieces (device reads) first, then `in` pieces (device writes). Valid until its vq_push. */
struct vq_chain {
    uint16_t head;
    unsigned n_out, n_in;
    uint32_t out_len, in_len;           /* bytes */
    struct iovec iov[VQ_MAX_IOV];
    gpa_t gpa[VQ_MAX_IOV];              /* of each piece */
};
static inline const struct iovec *chain_in(const struct vq_chain *c)
{
    return c->iov + c->n_out;
}

struct virtio_class {
    uint16_t id;                /* device type, section 5 */
    uint32_t class_code;        /* PCI */
    uint16_t config_size;       /* bytes of device configuration, at most VIRTIO_CONFIG_MAX */
    const struct state_field *fields;   /* the device's own guest-made state: reset by the driver too; may be NULL */
    void (*get_config)(struct virtio_dev *vd, uint8_t *cfg);            /* fills config_size zeroed bytes */
    void (*set_config)(struct virtio_dev *vd, uint64_t off, uint64_t val, unsigned width);      /* optional */
    void (*start)(struct virtio_dev *vd);       /* optional: DRIVER_OK, or after load with it set */
    void (*stop)(struct virtio_dev *vd);        /* optional: the driver resets; forget what is pending, no new work */
    bool (*busy)(struct virtio_dev *vd);        /* optional: requests in flight; virtio_idle() when that ends */
    void (*drain)(struct virtio_dev *vd);       /* optional: waits for them. No lock held */
};

struct virtio_dev {
    struct pci_dev pci;         /* first */
    const struct virtio_class *cls;
    uint64_t host_features;     /* offered */
    unsigned n_queues;

    /* field table */
    uint64_t features;          /* what the driver took */
    uint32_t host_sel, driver_sel;
    uint8_t status, generation, isr;
    uint16_t config_vector, queue_sel;
    struct virtqueue vq[VIRTIO_MAX_QUEUES];

    bool resetting;             /* status 0 was written while requests are in flight */
    bool quiesced;              /* the VM is paused: queues rest */
    uint32_t epoch;             /* counts resets: a request of an earlier one answers nobody */
    struct dev_region *bar;
    gpa_t notify_at;            /* where the ioeventfds are registered; 0: nowhere */
    uint8_t window;             /* offset of the configuration access capability */
    struct vq_chain chain;      /* scratch of whichever handler runs */
};

static inline struct virtio_dev *virtio_of(struct dev *dev)
{
    return container_of(container_of(dev, struct pci_dev, dev), struct virtio_dev, pci);
}
static inline struct dev *virtio_to_dev(struct virtio_dev *vd)
{
    return &vd->pci.dev;
}
static inline bool virtio_has(const struct virtio_dev *vd, unsigned bit)
{
    return vd->features >> bit & 1;
}
static inline struct mem *virtio_mem(const struct virtio_dev *vd)
{
    return vd->pci.dev.env->mem;
}

/* -- transport.c: what a device's type needs. realize sets cls, host_features and queues, then calls virtio_realize. */
void virtio_queue_add(struct virtio_dev *vd, uint16_t size, void (*handler)(struct virtqueue *vq));
bool virtio_realize(struct virtio_dev *vd, struct err *err);
void virtio_unrealize(struct virtio_dev *vd);
/* As members of a dev_type. */
void virtio_dev_reset(struct dev *dev);
void virtio_dev_settle(struct dev *dev);
bool virtio_dev_validate(struct dev *dev, struct err *err);
void virtio_dev_quiesce(struct dev *dev);
void virtio_dev_resume(struct dev *dev);
extern const struct state_field virtio_fields[];
bool virtio_always(const void *obj);
/* The whole table of a device type: PCI, transport, and the class's own fields. */
#define VIRTIO_FIELDS(type, own_name, own)                                                              \
    {                                                                                                   \
        STATE_PCI_DEV(type, vd.pci),                                                                    \
        { .name = "virtio", .kind = STATE_K_STRUCT, .offset = offsetof(type, vd),                       \
          .size = sizeof(struct virtio_dev), .count = 1, .sub = virtio_fields },                        \
        STATE_SECTION(own_name, own, virtio_always),                                                    \
        STATE_END                                                                                       \
    }

/* The driver is at work: queues may be used. */
bool virtio_ready(const struct virtio_dev *vd);
/* Marks the device broken until the driver resets it: the guest did what no driver may. One log line a change. */
void virtio_broken(struct virtio_dev *vd, const char *why);
/* Device configuration changed: generation and interrupt. */
void virtio_config_changed(struct virtio_dev *vd);
/* Requests in flight have ended: lets a waiting reset finish. */
void virtio_idle(struct virtio_dev *vd);
void virtio_interrupt(struct virtio_dev *vd, uint16_t vector, uint8_t isr_bit);
/* Runs the queue's handler soon, from the loop. */
void vq_kick(struct virtqueue *vq);

/* -- vring.c */
/* Maps the rings at the GPAs the driver gave. False: not RAM, or misaligned. */
bool vq_map(struct virtqueue *vq);
void vq_unmap(struct virtqueue *vq);
/*
 * Takes the next available chain. Fills `c` with HVAs valid until vq_push; lengths in bytes. False when the ring is empty, and
 * also after marking the device broken because the guest wrote a loop or a GPA outside RAM. Section 2.7.5, 2.7.6, 2.7.5.3.
 */
bool vq_pop(struct virtqueue *vq, struct vq_chain *c);
/* Gives the last n popped chains back, as if they had not been taken. */
void vq_unpop(struct virtqueue *vq, uint16_t n);
bool vq_empty(struct virtqueue *vq);
/* Writes used entry number `ahead` from the end without showing it; vq_publish shows n of them. Section 2.7.8. */
void vq_fill(struct virtqueue *vq, uint16_t ahead, uint16_t head, uint32_t len);
void vq_publish(struct virtqueue *vq, uint16_t n);
/* Returns one chain, `len` bytes of which the device wrote. */
void vq_push(struct virtqueue *vq, uint16_t head, uint32_t len);
/* Interrupts the driver if it wants to hear of what was published since. Section 2.7.7. */
void vq_signal(struct virtqueue *vq);
/* Asks the driver for kicks, or not. After true look at the ring once more: vq_want_kicks says whether it has filled meanwhile. */
void vq_no_kicks(struct virtqueue *vq);
bool vq_want_kicks(struct virtqueue *vq);
/* The device stored `len` bytes into the `in` part of a chain. */
void vq_written(struct virtqueue *vq, const struct vq_chain *c, uint32_t len);

#endif
