/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/iov.h"

#include <errno.h>
#include <string.h>

size_t iov_total(const struct iovec *iov, unsigned n)
{
    size_t sum = 0;
    for (unsigned i = 0; i < n; i++) {
        if (__builtin_add_overflow(sum, iov[i].iov_len, &sum)) {
            return SIZE_MAX;
        }
    }
    return sum;
}

void iov_iter_init(struct iov_iter *it, const struct iovec *iov, unsigned n)
{
    *it = (struct iov_iter){ .iov = iov, .n = n, .left = iov_total(iov, n) };
}

/* The contiguous bytes at the position, at most len; 0 only when len is. The caller has checked len <= left. */
static size_t piece(struct iov_iter *it, size_t len, void **p)
{
    while (it->n && it->off == it->iov->iov_len) {
        it->iov++;
        it->n--;
        it->off = 0;
    }
    if (!it->n || !len) {
        return 0;
    }
    *p = (char *)it->iov->iov_base + it->off;
    return min_u64(len, it->iov->iov_len - it->off);
}

static void advance(struct iov_iter *it, size_t n)
{
    it->off += n;
    it->left -= n;
}

int iov_copy_to(struct iov_iter *to, const void *from, size_t len)
{
    if (len > to->left) {
        return -EINVAL;
    }
    void *p;
    for (size_t n; (n = piece(to, len, &p)) > 0; len -= n) {
        memcpy(p, from, n);
        from = (const char *)from + n;
        advance(to, n);
    }
    return 0;
}

int iov_copy_from(struct iov_iter *from, void *to, size_t len)
{
    if (len > from->left) {
        return -EINVAL;
    }
    void *p;
    for (size_t n; (n = piece(from, len, &p)) > 0; len -= n) {
        memcpy(to, p, n);
        to = (char *)to + n;
        advance(from, n);
    }
    return 0;
}

int iov_zero(struct iov_iter *to, size_t len)
{
    if (len > to->left) {
        return -EINVAL;
    }
    void *p;
    for (size_t n; (n = piece(to, len, &p)) > 0; len -= n) {
        memset(p, 0, n);
        advance(to, n);
    }
    return 0;
}

int iov_discard(struct iov_iter *it, size_t len)
{
    if (len > it->left) {
        return -EINVAL;
    }
    void *p;
    for (size_t n; (n = piece(it, len, &p)) > 0; len -= n) {
        advance(it, n);
    }
    return 0;
}

int iov_copy(struct iov_iter *to, struct iov_iter *from, size_t len)
{
    if (len > to->left || len > from->left) {
        return -EINVAL;
    }
    void *p;
    for (size_t n; (n = piece(from, len, &p)) > 0; len -= n) {
        iov_copy_to(to, p, n);
        advance(from, n);
    }
    return 0;
}

unsigned iov_take(struct iov_iter *it, size_t len, struct iovec *out, unsigned max, size_t *bytes)
{
    unsigned count = 0;
    size_t sum = 0;
    void *p;
    len = min_u64(len, it->left);
    for (size_t n; count < max && (n = piece(it, len, &p)) > 0; len -= n) {
        out[count++] = (struct iovec){ p, n };
        sum += n;
        advance(it, n);
    }
    if (bytes) {
        *bytes = sum;
    }
    return count;
}
