/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A growing byte buffer; also the string builder (buf_str is always NUL-terminated). */
#ifndef LODGE_BASE_BUF_H
#define LODGE_BASE_BUF_H

#include "base/base.h"

struct buf {
    uint8_t *data;
    size_t len, cap;
};

void buf_fini(struct buf *b);
void buf_clear(struct buf *b);
/* Room for n more bytes at data + len; the caller adds to len. */
uint8_t *buf_reserve(struct buf *b, size_t n);
void buf_add(struct buf *b, const void *p, size_t n);
void buf_add_zero(struct buf *b, size_t n);
void buf_add_u8(struct buf *b, uint8_t v);
void buf_add_le16(struct buf *b, uint16_t v);
void buf_add_le32(struct buf *b, uint32_t v);
void buf_add_le64(struct buf *b, uint64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Drops the first n bytes. */
void buf_consume(struct buf *b, size_t n);
const char *buf_str(struct buf *b);

#define AUTO_BUF __attribute__((cleanup(buf_fini)))

#endif
