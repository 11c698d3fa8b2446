/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block layer, front door: a node with asynchronous requests. The caller sees offsets, lengths and iovecs, never a GPA.
 * Requests complete on the loop the node was opened with, in any order, unless they say otherwise; data path errors are -errno.
 */
#ifndef LODGE_BLOCK_BLOCK_H
#define LODGE_BLOCK_BLOCK_H

#include <sys/uio.h>

#include "loop/loop.h"

struct blk_node;

enum blk_open_flags { BLK_WRITE = 1, BLK_DISCARD = 2 /* pass discards down */ };
enum blk_op { BLK_READ, BLK_WRITEV, BLK_FLUSH, BLK_DISCARD_OP, BLK_ZERO, BLK_ZERO_UNMAP };

struct blk_req {
    enum blk_op op;
    uint64_t off, len;          /* bytes */
    const struct iovec *iov;    /* caller's, alive until done */
    unsigned n_iov;
    void (*done)(struct blk_req *r, int ret);   /* 0 or -errno; on the node's loop */
    struct list node;           /* the block layer's while in flight */
    int ret;
};

/*
 * Opens a raw image or block device from a descriptor that the broker opened (taken over). Locks it against other writers with
 * byte-range locks compatible with QEMU's (OFD locks), so that neither Lodge nor QEMU opens it twice: ERR_BUSY.
 * format: "raw". Formats are never guessed. name: for the log; the caller
 * puts it before an error.
 */
struct blk_node *blk_open_fd(struct loop *loop, int take_fd, const char *format, const char *name, unsigned flags, struct err *err);
/* Finishes requests in flight, done and all. On the node's loop, or when that no longer runs. NULL is fine. */
void blk_close(struct blk_node *n);
/* Bytes, rounded up to whole 512-byte sectors: what a file has not in its last one reads as zeros. */
uint64_t blk_size(const struct blk_node *n);
bool blk_writable(const struct blk_node *n);
bool blk_can_discard(const struct blk_node *n);
/*
 * Starts a request. Loop thread or any other. done never runs inside. Off and len outside the node are -EINVAL, as is an iov
 * whose sum is not len; flush takes neither. A flush that failed once fails for good: the page cache may have dropped the data.
 */
void blk_submit(struct blk_node *n, struct blk_req *r);
/*
 * Waits until nothing is in flight and every done has run. Any thread while the loop runs; not from a done callback, and no
 * lock held that a done takes.
 */
void blk_drain(struct blk_node *n);
/* As blk_drain where the node's loop does not run any more, or on its thread: done callbacks are called from here. */
void blk_finish(struct blk_node *n);
/* Moves a node to another loop. Nothing is in flight, and neither loop runs or the caller is on the old one. */
bool blk_set_loop(struct blk_node *n, struct loop *loop, struct err *err);

#endif
