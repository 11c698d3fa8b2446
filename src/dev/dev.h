/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a device is: plain struct with `struct dev` embedded, a type with a field table and verbs. A device sees memory,
 * interrupt lines, its loop and the fronts of block, net, chr; never an engine or another device's struct.
 * Device code is written single-threaded: its lock domain is held around register handlers, loop callbacks and timers.
 */
#ifndef LODGE_DEV_DEV_H
#define LODGE_DEV_DEV_H

#include <pthread.h>

#include "irq/irq.h"
#include "loop/loop.h"
#include "mem/mem.h"
#include "state/state.h"

struct dev;
struct pci_bus;

/* What the guest asked of the machine. Posted from any thread; the machine acts on its main loop. */
enum guest_request {
    GUEST_SHUTDOWN,             /* S5 or equivalent */
    GUEST_RESET,                /* CF9, port 92, 8042, reset register */
    GUEST_SUSPEND,
    GUEST_PANIC,
    GUEST_EXIT,                 /* debug-exit: code = value written */
};

/* One a VM: what devices are attached to. Owned by the machine; filled before the first dev_create. */
struct dev_env {
    struct mem *mem;
    struct irq_hub *irq;
    struct loop *main_loop;     /* legacy chips, configuration */
    struct loop *io_loop;       /* virtio data paths; may equal main_loop */
    struct vm_clock *clock;
    pthread_mutex_t legacy_lock;        /* lock domain shared by the legacy PC chips */
    pthread_mutex_t pci_lock;           /* lock domain of PCI configuration space */
    struct pci_bus *pci;
    struct list devs;           /* struct dev, in order of realize: the order of sections in a saved state */
    void (*request)(struct dev_env *env, enum guest_request what, uint32_t code);
    void *owner;
};
void dev_env_init(struct dev_env *env);
void dev_env_fini(struct dev_env *env);         /* destroys devices, last realized first */

/* Register block of a device. Offsets are from the block's start; dispatch makes accesses of `width` (0: any of 1, 2, 4, 8). */
struct io_ops {
    uint64_t (*read)(struct dev *dev, uint64_t off, unsigned width);
    void (*write)(struct dev *dev, uint64_t off, uint64_t val, unsigned width);
    unsigned width;
};

struct dev_type {
    const char *name;           /* "acpi-pm"; part of the saved state */
    size_t size;
    uint32_t version;
    const struct state_field *fields;   /* may be NULL: no state of its own */
    bool (*realize)(struct dev *dev, struct err *err);
    void (*unrealize)(struct dev *dev);         /* optional; regions and timers made through dev_* go by themselves */
    void (*reset)(struct dev *dev);             /* optional: what the field table's reset values cannot say */
    void (*settle)(struct dev *dev);            /* optional: recompute what follows from the fields; after reset and load */
    bool (*validate)(struct dev *dev, struct err *err);         /* optional: cross-field checks after load, before settle */
    void (*quiesce)(struct dev *dev);           /* optional: drain requests in flight; VM is pausing. No lock held. */
    void (*resume)(struct dev *dev);            /* optional */
};

struct dev {
    const struct dev_type *type;
    struct dev_env *env;
    char id[64];                /* unique in the VM: "serial0", "pci:02.0" */
    pthread_mutex_t *lock;      /* domain; own_lock unless set before realize */
    pthread_mutex_t own_lock;
    struct loop *loop;          /* where its callbacks run; main_loop unless set before realize */
    struct list node;           /* env->devs */
    struct list regions;        /* struct dev_region made by dev_map_* */
    bool realized;
    uint32_t bad_accesses;      /* counted, never fatal */
};

/* Allocates type->size, zeroed, with type, env and id set. The caller fills properties in its own struct, then realizes. */
struct dev *dev_create(struct dev_env *env, const struct dev_type *type, const char *id);
/* Realize, then reset. On failure the device is destroyed. */
bool dev_realize(struct dev *dev, struct err *err);
void dev_destroy(struct dev *dev);
void dev_reset(struct dev *dev);                /* fields' reset values, ->reset, ->settle. VM parked. */
void dev_reset_all(struct dev_env *env);
struct dev *dev_find(struct dev_env *env, const char *id);

/* Regions. Each gets the device's lock. `name` is for inspection. */
struct dev_region {
    struct io_region io;
    struct dev *dev;
    const struct io_ops *ops;
    struct list node;
};
struct dev_region *dev_map_pio(struct dev *dev, const char *name, const struct io_ops *ops, uint16_t base, uint16_t size, struct err *err);
struct dev_region *dev_map_mmio(struct dev *dev, const char *name, const struct io_ops *ops, gpa_t base, uint64_t size, struct err *err);
/* Not mapped yet: for BARs. Moved with dev_region_place, hidden with dev_region_hide. */
struct dev_region *dev_add_region(struct dev *dev, const char *name, enum mem_space space, const struct io_ops *ops, uint64_t size);
bool dev_region_place(struct dev_region *r, uint64_t base, struct err *err);
void dev_region_hide(struct dev_region *r);

/* A register nobody has: counted, logged with a limit. */
void dev_bad_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width);
uint64_t dev_bad_read(struct dev *dev, uint64_t off, unsigned width);   /* all ones */

static inline void dev_guest_request(struct dev *dev, enum guest_request what, uint32_t code)
{
    dev->env->request(dev->env, what, code);
}

/* Saved state: one section a device. load: validates, then settles. */
void dev_save(struct dev *dev, struct buf *out);
bool dev_load(struct dev *dev, uint32_t version, const uint8_t *data, size_t len, struct err *err);
struct json_object *dev_inspect(struct dev *dev);

/* Every type there is, by hand: dev/types.c. NULL-terminated. */
extern const struct dev_type *const dev_types[];

#endif
