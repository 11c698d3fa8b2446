/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Byte ports: what a serial line or a virtio console is connected to. All calls on the port's loop or with its lock. */
#ifndef LODGE_CHR_CHR_H
#define LODGE_CHR_CHR_H

#include "loop/loop.h"

struct chr;
/* The side of whoever uses the port. lock (may be NULL) is held around these. */
struct chr_user {
    size_t (*can_receive)(struct chr_user *u);          /* bytes it takes now; 0 stops reading until chr_accept */
    void (*receive)(struct chr_user *u, const uint8_t *data, size_t len);
    void (*event)(struct chr_user *u, bool open);       /* the other end came or went; optional */
    void (*writable)(struct chr_user *u);               /* chr_write took less than it was given: now there is room; optional */
};

enum { CHR_QUEUE_MAX = 1 * MIB, CHR_RING_SIZE = 64 * KIB };

/*
 * Two descriptors (may be equal, either may be -1), borrowed or taken. On a terminal escape handling is the CLI's, not ours.
 * The process ignores SIGPIPE. Call before the sandbox closes: a borrowed descriptor's file is opened once more where
 * that can be, so that O_NONBLOCK does not show to whoever shares it.
 */
struct chr *chr_fd_open(struct loop *loop, int in_fd, int out_fd, bool take, struct err *err);
/* Listening unix stream socket handed in by the broker; one client at a time, output without a client is kept in a 64 KiB ring and shown to the next. */
struct chr *chr_listen_open(struct loop *loop, int take_listen_fd, struct err *err);
/* Output only: a file, pipe or terminal open for writing. */
struct chr *chr_file_open(struct loop *loop, int take_fd, struct err *err);
struct chr *chr_null_open(void);
/* Drops what is queued. On the port's loop, or when that no longer runs; no lock held. NULL is fine. */
void chr_close(struct chr *c);
/* Reading begins here. lock is the user's lock domain; u == NULL detaches. */
void chr_attach(struct chr *c, struct chr_user *u, pthread_mutex_t *lock);
/*
 * Never blocks. Writes, then queues up to CHR_QUEUE_MAX; returns bytes taken, the rest waits for `writable`. With nobody at the
 * other end all is taken: a socket keeps the newest CHR_RING_SIZE, the others drop it. Any thread with the user's lock.
 */
size_t chr_write(struct chr *c, const uint8_t *data, size_t len);
/* Somebody is there. */
bool chr_is_open(const struct chr *c);
/* The user can take more: with its lock. receive is called from the loop, not from here. */
void chr_accept(struct chr *c);
/* Pushes what is queued out, at most timeout_ms: at shutdown. Takes the user's lock. */
void chr_flush(struct chr *c, int timeout_ms);

#endif
