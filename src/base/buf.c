/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

void buf_fini(struct buf *b)
{
    free(b->data);
    *b = (struct buf){ 0 };
}

void buf_clear(struct buf *b)
{
    b->len = 0;
}

uint8_t *buf_reserve(struct buf *b, size_t n)
{
    if (b->cap - b->len >= n && b->data) {
        return b->data + b->len;
    }
    size_t need, cap;
    if (__builtin_add_overflow(b->len, n, &need) || need > SIZE_MAX / 2) {
        abort();                /* what a peer sends is bounded long before it comes here */
    }
    cap = b->cap < 64 ? 64 : b->cap;
    while (cap < need) {
        cap += cap / 2;
    }
    uint8_t *p = realloc(b->data, cap);
    if (!p) {
        abort();
    }
    b->data = p;
    b->cap = cap;
    return p + b->len;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
    uint8_t *to = buf_reserve(b, n);
    if (n) {
        memcpy(to, p, n);
    }
    b->len += n;
}

void buf_add_zero(struct buf *b, size_t n)
{
    memset(buf_reserve(b, n), 0, n);
    b->len += n;
}

void buf_add_u8(struct buf *b, uint8_t v)
{
    *buf_reserve(b, 1) = v;
    b->len++;
}

void buf_add_le16(struct buf *b, uint16_t v)
{
    store_le16(buf_reserve(b, sizeof(v)), v);
    b->len += sizeof(v);
}

void buf_add_le32(struct buf *b, uint32_t v)
{
    store_le32(buf_reserve(b, sizeof(v)), v);
    b->len += sizeof(v);
}

void buf_add_le64(struct buf *b, uint64_t v)
{
    store_le64(buf_reserve(b, sizeof(v)), v);
    b->len += sizeof(v);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    size_t room = 128;          /* enough for most; the text itself says when it is not */
    for (;;) {
        va_list ap;
        char *to = (char *)buf_reserve(b, room);
        va_start(ap, fmt);
        int n = vsnprintf(to, room, fmt, ap);
        va_end(ap);
        if (n < 0) {
            abort();            /* only a malformed format of ours */
        }
        if ((size_t)n < room) {
            b->len += (size_t)n;
            return;
        }
        room = (size_t)n + 1;
    }
}

void buf_consume(struct buf *b, size_t n)
{
    if (n >= b->len) {
        b->len = 0;
        return;
    }
    memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
}

const char *buf_str(struct buf *b)
{
    *buf_reserve(b, 1) = 0;
    return (const char *)b->data;
}
