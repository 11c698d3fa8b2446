/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A position in a scatter list. The list is borrowed and never changed; each call moves the position forward.
 * Calls that move `len` bytes return 0, or -EINVAL when fewer are left: nothing was moved then.
 */
#ifndef LODGE_BASE_IOV_H
#define LODGE_BASE_IOV_H

#include <sys/uio.h>

#include "base/base.h"

struct iov_iter {
    const struct iovec *iov;    /* current piece */
    unsigned n;                 /* pieces from `iov` on */
    size_t off;                 /* bytes of the current piece already passed */
    size_t left;                /* bytes from here to the end */
};

/* Bytes in all pieces; SIZE_MAX when the sum does not fit. */
size_t iov_total(const struct iovec *iov, unsigned n);

void iov_iter_init(struct iov_iter *it, const struct iovec *iov, unsigned n);
static inline size_t iov_left(const struct iov_iter *it)
{
    return it->left;
}

/* Memory -> list, list -> memory. */
int iov_copy_to(struct iov_iter *to, const void *from, size_t len);
int iov_copy_from(struct iov_iter *from, void *to, size_t len);
int iov_zero(struct iov_iter *to, size_t len);
int iov_discard(struct iov_iter *it, size_t len);
/* List -> list. The two must not overlap. */
int iov_copy(struct iov_iter *to, struct iov_iter *from, size_t len);
/*
 * The next pieces as an iovec array for preadv and the like: at most `max` pieces and `len` bytes. The position moves
 * past them. Returns the pieces written, 0 at the end; *bytes (may be NULL) is their sum.
 */
unsigned iov_take(struct iov_iter *it, size_t len, struct iovec *out, unsigned max, size_t *bytes);

#endif
