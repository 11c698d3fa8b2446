/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine without CPUs for device tests: memory, loop, VM clock, hub; what the devices say upwards is recorded. */
#ifndef LODGE_TESTS_DEV_FIXTURE_H
#define LODGE_TESTS_DEV_FIXTURE_H

#include "dev/dev.h"
#include "dev/pci/pci.h"
#include "dev/virtio/virtio.h"

enum { FIX_RAM = 4 * MIB, FIX_MSGS = 64, FIX_DISK = 1 * MIB, FIX_SLOT = 3 };

struct fixture {
    struct dev_env env;
    struct irq_hub hub;
    struct vm_clock clock;
    /* what came out */
    struct { uint64_t addr; uint32_t data; } msgs[FIX_MSGS];
    _Atomic unsigned n_msgs;
    bool refuse_msi;
    bool extint;
    enum guest_request request;
    uint32_t request_code;
    unsigned n_requests;
    /* what devices are connected to; closed after them */
    struct blk_node *node;
    struct net_port *port;
    struct chr *chr;
    int peer;                   /* other end of port and chr; 0: none */
};

void fixture_init(struct fixture *f);
void fixture_fini(struct fixture *f);

/*
 * A device of `type` with what it needs around it, or NULL with err. Types that want more than zeroed properties have a row
 * in fixture.c.
 */
struct dev *fixture_make(struct fixture *f, const struct dev_type *type, struct err *err);

uint64_t fix_in(struct fixture *f, uint16_t port, unsigned width);
void fix_out(struct fixture *f, uint16_t port, uint64_t val, unsigned width);
uint64_t fix_read(struct fixture *f, gpa_t gpa, unsigned width);
void fix_write(struct fixture *f, gpa_t gpa, uint64_t val, unsigned width);
static inline uint8_t inb(struct fixture *f, uint16_t port)
{
    return fix_in(f, port, 1);
}
static inline void outb(struct fixture *f, uint16_t port, uint8_t val)
{
    fix_out(f, port, val, 1);
}
/* Configuration space by CF8/CFC. */
uint32_t fix_cfg_read(struct fixture *f, unsigned slot, unsigned off, unsigned width);
void fix_cfg_write(struct fixture *f, unsigned slot, unsigned off, uint32_t val, unsigned width);

/* Sets the VM clock to `ns` and runs what is due. It stands still otherwise. */
void fix_time(struct fixture *f, uint64_t ns);

#endif
