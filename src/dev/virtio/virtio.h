/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio devices for the machine: each create function makes, fills and realizes one device in PCI slot `slot`. What it is
 * given (node, port, byte ports) must outlive it and stays the caller's to close. NULL with err on failure. Callbacks
 * run on env->io_loop. Source: virtio 1.2.
 */
#ifndef LODGE_DEV_VIRTIO_VIRTIO_H
#define LODGE_DEV_VIRTIO_VIRTIO_H

#include "block/block.h"
#include "chr/chr.h"
#include "dev/dev.h"
#include "net/net.h"

enum {
    VIRTIO_BLK_MAX_QUEUES = 8, VIRTIO_BLK_SERIAL_MAX = 20, VIRTIO_CONSOLE_MAX_PORTS = 8, VIRTIO_CONSOLE_NAME_MAX = 63,
};

struct virtio_blk_config {
    struct blk_node *node;      /* opened on env->io_loop; read-only if it is not writable */
    const char *serial;         /* at most 20 bytes; NULL: none */
    unsigned n_queues;          /* 1 to 8; 0: 1 */
};
struct dev *virtio_blk_create(struct dev_env *env, const char *id, uint8_t slot, const struct virtio_blk_config *cfg, struct err *err);
/* The node has another size now. */
void virtio_blk_resized(struct dev *dev);

struct virtio_net_config {
    struct net_port *port;      /* on env->io_loop; NULL: a cable that goes nowhere, link down */
    uint8_t mac[6];
    uint16_t mtu;               /* 0: not stated */
};
struct dev *virtio_net_create(struct dev_env *env, const char *id, uint8_t slot, const struct virtio_net_config *cfg, struct err *err);
/* Pulls the cable, or puts it back. Takes the device's lock. */
void virtio_net_set_link(struct dev *dev, bool up);
/* Asks the guest to announce itself: after a move to another host. Takes the device's lock. */
void virtio_net_announce(struct dev *dev);

struct virtio_console_port_config {
    struct chr *chr;            /* on env->io_loop; NULL: nobody there */
    const char *name;           /* NULL for a console; a guest's agent finds its channel by it */
};
struct virtio_console_config {
    struct virtio_console_port_config port[VIRTIO_CONSOLE_MAX_PORTS];   /* port 0 is the console */
    unsigned n_ports;           /* 1 to 8 */
    uint16_t cols, rows;        /* 0: not known */
};
struct dev *virtio_console_create(struct dev_env *env, const char *id, uint8_t slot, const struct virtio_console_config *cfg, struct err *err);
void virtio_console_resize(struct dev *dev, uint16_t cols, uint16_t rows);

struct virtio_rng_config {
    uint64_t bytes_per_second;  /* 0: the default, 1 MiB */
};
struct dev *virtio_rng_create(struct dev_env *env, const char *id, uint8_t slot, const struct virtio_rng_config *cfg, struct err *err);

/* What the guest said about its memory, in bytes or counts; UINT64_MAX: it did not say. */
struct virtio_balloon_stats {
    uint64_t swap_in, swap_out, major_faults, minor_faults, free, total, available, caches, huge_ok, huge_fail;
    uint64_t updated_ns;        /* host_clock_ns; 0: never */
};
struct dev *virtio_balloon_create(struct dev_env *env, const char *id, uint8_t slot, struct err *err);
/* What the guest shall give back, in bytes. Takes the device's lock. */
void virtio_balloon_set_target(struct dev *dev, uint64_t bytes);
/* What it has given back, in bytes. */
uint64_t virtio_balloon_actual(struct dev *dev);
/* The newest statistics, and a request for newer ones. False: the driver gives none. */
bool virtio_balloon_get_stats(struct dev *dev, struct virtio_balloon_stats *out);

extern const struct dev_type virtio_blk_type, virtio_net_type, virtio_console_type, virtio_rng_type, virtio_balloon_type;

#endif
