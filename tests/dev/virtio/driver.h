/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A virtio driver made by hand: registers through the BARs, rings written into guest RAM byte by byte. */
#ifndef LODGE_TESTS_DEV_VIRTIO_DRIVER_H
#define LODGE_TESTS_DEV_VIRTIO_DRIVER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "fixture.h"

enum { D_NEXT = 1, D_WRITE = 2, D_INDIRECT = 4, DRV_QUEUES = 8, DATA = 0x200000 };
enum { ST_ACK = 1, ST_DRIVER = 2, ST_DRIVER_OK = 4, ST_FEATURES_OK = 8, ST_NEEDS_RESET = 0x40 };

struct drv_queue {
    gpa_t desc, avail, used;
    uint16_t size, avail_idx, seen, next;       /* next: free descriptor to use */
};
struct drv {
    struct fixture f;
    struct dev *dev;
    gpa_t bar, msix;
    uint64_t features;
    struct drv_queue q[DRV_QUEUES];
};
struct piece {
    gpa_t gpa;
    uint32_t len;
    bool write;
};

/* The device in its slot with BARs placed; driver not started. */
void drv_init(struct drv *d, const struct dev_type *type);
void drv_fini(struct drv *d);
/* Reset to DRIVER_OK with what is both offered and in `want`, MSI-X on (vector 0 configuration, q + 1 queue q). */
void drv_start(struct drv *d, uint64_t want);
uint8_t drv_status(struct drv *d);
uint64_t drv_offered(struct drv *d);
void drv_setup_queue(struct drv *d, unsigned q);
void drv_desc(struct drv *d, unsigned q, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next);
/* Puts head in the available ring. */
void drv_offer(struct drv *d, unsigned q, uint16_t head);
/* A chain in fresh descriptors, offered. Returns its head. */
uint16_t drv_chain(struct drv *d, unsigned q, const struct piece *p, unsigned n);
void drv_kick(struct drv *d, unsigned q);
/* Runs the loop until nothing happens for a moment. */
void drv_run(struct drv *d);
/* Next used entry, waited for a second. */
bool drv_used(struct drv *d, unsigned q, uint32_t *id, uint32_t *len);
static inline void poke(struct drv *d, gpa_t gpa, const void *p, size_t n)
{
    assert_true(mem_write(d->f.env.mem, gpa, p, n));
}
static inline void peek(struct drv *d, gpa_t gpa, void *p, size_t n)
{
    assert_true(mem_read(d->f.env.mem, gpa, p, n));
}
/* Messages sent by vector v since the start. */
unsigned drv_msgs(struct drv *d, unsigned v);

#endif
