/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside block/: the node, its workers, and what a raw descriptor can do. */
#ifndef LODGE_BLOCK_BLOCK_INT_H
#define LODGE_BLOCK_BLOCK_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "block/block.h"

enum { BLK_WORKERS = 4, BLK_SECTOR = 512, BLK_WORKER_STACK = 256 * KIB };

/* A raw image or block device. Bytes in [0, size) exist; [size, rounded) is the tail of an odd last sector. */
struct blk_raw {
    int fd;
    bool is_device;
    uint64_t size;
    _Atomic bool no_zero_range, no_punch;       /* the file system said so once */
};

struct blk_node {
    struct blk_raw raw;
    char *name;
    unsigned flags;
    uint64_t rounded;                   /* raw.size in whole sectors */
    uint8_t perm, unshared;             /* lock bytes held, see lock.c */
    _Atomic int flush_error;            /* -errno of the first fsync that failed; sticky */

    pthread_mutex_t lock;               /* guards what follows. Innermost: nothing is taken inside */
    pthread_cond_t work;                /* queue not empty, or stop */
    pthread_cond_t idle;                /* something was put on `finished`, or in_flight fell */
    struct list queue;                  /* struct blk_req, oldest first */
    struct list finished;               /* done to be called */
    unsigned in_flight;                 /* submitted, done has not returned */
    bool stop;
    struct loop *loop;
    struct loop_fd deliver;             /* an eventfd; calls done of what is on `finished` */
    pthread_t worker[BLK_WORKERS];
    unsigned n_workers;
};

/* Each moves exactly the range or fails: 0 or -errno. Worker threads. */
int blk_raw_read(struct blk_raw *r, uint64_t off, uint64_t len, const struct iovec *iov, unsigned n_iov);
int blk_raw_write(struct blk_raw *r, uint64_t off, uint64_t len, const struct iovec *iov, unsigned n_iov);
int blk_raw_flush(struct blk_raw *r);
int blk_raw_discard(struct blk_raw *r, uint64_t off, uint64_t len);
int blk_raw_zero(struct blk_raw *r, uint64_t off, uint64_t len, bool unmap);
/* Examines the descriptor: kind and size. */
bool blk_raw_init(struct blk_raw *r, int fd, bool writable, struct err *err);

/* QEMU-compatible locks on the node's descriptor. */
bool blk_lock(struct blk_node *n, struct err *err);
void blk_unlock(struct blk_node *n);

#endif
