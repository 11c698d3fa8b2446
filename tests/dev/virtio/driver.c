/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "driver.h"

#include <time.h>

enum { RINGS = 0x10000, RING_STEP = 0x4000 };

void drv_init(struct drv *d, const struct dev_type *type)
{
    struct err err = ERR_INIT;
    memset(d, 0, sizeof(*d));
    fixture_init(&d->f);
    d->dev = fixture_make(&d->f, type, &err);
    if (!d->dev || !pci_assign_all(d->f.env.pci, 0xc0000000, 0xd0000000, 0x800000000, 0x900000000, 0xc000, 0xd000, &err)) {
        fail_msg("%s", err.msg);
    }
    d->bar = fix_cfg_read(&d->f, FIX_SLOT, 0x20, 4) & ~15u;
    d->bar |= (uint64_t)fix_cfg_read(&d->f, FIX_SLOT, 0x24, 4) << 32;
    d->msix = fix_cfg_read(&d->f, FIX_SLOT, 0x14, 4) & ~15u;
    fix_cfg_write(&d->f, FIX_SLOT, PCI_COMMAND, 7, 2);
}

void drv_fini(struct drv *d)
{
    fixture_fini(&d->f);
}

uint8_t drv_status(struct drv *d)
{
    return (uint8_t)fix_read(&d->f, d->bar + 0x14, 1);
}

uint64_t drv_offered(struct drv *d)
{
    fix_write(&d->f, d->bar, 0, 4);
    uint64_t lo = fix_read(&d->f, d->bar + 4, 4);
    fix_write(&d->f, d->bar, 1, 4);
    return lo | fix_read(&d->f, d->bar + 4, 4) << 32;
}

static void msix_on(struct drv *d)
{
    for (unsigned v = 0; v < DRV_QUEUES + 1; v++) {
        fix_write(&d->f, d->msix + 16 * v, 0xfee00000, 8);
        fix_write(&d->f, d->msix + 16 * v + 8, v, 8);
    }
    for (unsigned off = fix_cfg_read(&d->f, FIX_SLOT, 0x34, 1); off; off = fix_cfg_read(&d->f, FIX_SLOT, off + 1, 1)) {
        if (fix_cfg_read(&d->f, FIX_SLOT, off, 1) == PCI_CAP_MSIX) {
            fix_cfg_write(&d->f, FIX_SLOT, off + 2, 0x8000, 2);
        }
    }
}

void drv_setup_queue(struct drv *d, unsigned q)
{
    struct drv_queue *dq = &d->q[q];
    struct fixture *f = &d->f;
    fix_write(f, d->bar + 0x16, q, 2);
    dq->size = (uint16_t)fix_read(f, d->bar + 0x18, 2);
    dq->desc = RINGS + q * RING_STEP;
    dq->avail = dq->desc + 0x1000;
    dq->used = dq->desc + 0x2000;
    dq->avail_idx = dq->seen = dq->next = 0;
    mem_zero(f->env.mem, dq->desc, RING_STEP);
    fix_write(f, d->bar + 0x1a, q + 1, 2);
    fix_write(f, d->bar + 0x20, dq->desc, 4);
    fix_write(f, d->bar + 0x24, 0, 4);
    fix_write(f, d->bar + 0x28, dq->avail, 8);
    fix_write(f, d->bar + 0x30, dq->used, 4);
    fix_write(f, d->bar + 0x34, 0, 4);
    fix_write(f, d->bar + 0x1c, 1, 2);
}

void drv_start(struct drv *d, uint64_t want)
{
    struct fixture *f = &d->f;
    fix_write(f, d->bar + 0x14, 0, 1);
    for (int i = 0; i < 1000 && drv_status(d); i++) {
        drv_run(d);
    }
    assert_int_equal(drv_status(d), 0);
    msix_on(d);
    fix_write(f, d->bar + 0x14, ST_ACK | ST_DRIVER, 1);
    d->features = drv_offered(d) & (want | 1ull << 32);
    for (unsigned i = 0; i < 2; i++) {
        fix_write(f, d->bar + 8, i, 4);
        fix_write(f, d->bar + 12, (uint32_t)(d->features >> 32 * i), 4);
    }
    fix_write(f, d->bar + 0x14, ST_ACK | ST_DRIVER | ST_FEATURES_OK, 1);
    assert_true(drv_status(d) & ST_FEATURES_OK);
    fix_write(f, d->bar + 0x10, 0, 2);
    unsigned n = (unsigned)fix_read(f, d->bar + 0x12, 2);
    for (unsigned q = 0; q < n && q < DRV_QUEUES; q++) {
        drv_setup_queue(d, q);
    }
    fix_write(f, d->bar + 0x14, ST_ACK | ST_DRIVER | ST_FEATURES_OK | ST_DRIVER_OK, 1);
    drv_run(d);
    f->n_msgs = 0;
}

void drv_desc(struct drv *d, unsigned q, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    uint8_t raw[16];
    store_le64(raw, addr);
    store_le32(raw + 8, len);
    store_le16(raw + 12, flags);
    store_le16(raw + 14, next);
    poke(d, d->q[q].desc + 16 * (gpa_t)i, raw, sizeof(raw));
}

void drv_offer(struct drv *d, unsigned q, uint16_t head)
{
    struct drv_queue *dq = &d->q[q];
    mem_write_le16(d->f.env.mem, dq->avail + 4 + 2 * (gpa_t)(dq->avail_idx % dq->size), head);
    mem_write_le16(d->f.env.mem, dq->avail + 2, ++dq->avail_idx);
}

uint16_t drv_chain(struct drv *d, unsigned q, const struct piece *p, unsigned n)
{
    struct drv_queue *dq = &d->q[q];
    uint16_t head = dq->next;
    for (unsigned i = 0; i < n; i++) {
        uint16_t at = dq->next, next = (uint16_t)((at + 1) % dq->size);
        drv_desc(d, q, at, p[i].gpa, p[i].len, (uint16_t)((p[i].write ? D_WRITE : 0) | (i + 1 < n ? D_NEXT : 0)), next);
        dq->next = next;
    }
    drv_offer(d, q, head);
    return head;
}

void drv_kick(struct drv *d, unsigned q)
{
    fix_write(&d->f, d->bar + 0x3000 + 4 * q, q, 2);
    drv_run(d);
}

void drv_run(struct drv *d)
{
    for (int i = 0; i < 1000 && loop_once(d->f.env.io_loop, 1) > 0; i++) {
    }
}

bool drv_used(struct drv *d, unsigned q, uint32_t *id, uint32_t *len)
{
    struct drv_queue *dq = &d->q[q];
    uint64_t end = host_clock_ns() + NS_PER_SEC;
    uint16_t idx;
    while (mem_read_le16(d->f.env.mem, dq->used + 2, &idx) && idx == dq->seen) {
        if (host_clock_ns() > end || drv_status(d) & ST_NEEDS_RESET) {
            return false;
        }
        loop_once(d->f.env.io_loop, 10);
    }
    gpa_t e = dq->used + 4 + 8 * (gpa_t)(dq->seen++ % dq->size);
    mem_read_le32(d->f.env.mem, e, id);
    return mem_read_le32(d->f.env.mem, e + 4, len);
}

unsigned drv_msgs(struct drv *d, unsigned v)
{
    unsigned n = 0;
    for (unsigned i = 0; i < d->f.n_msgs && i < FIX_MSGS; i++) {
        n += d->f.msgs[i].data == v;
    }
    return n;
}
