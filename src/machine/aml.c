/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/aml.h"

#include <string.h>

enum {
    OP_NAME = 0x08, OP_BYTE = 0x0a, OP_WORD = 0x0b, OP_DWORD = 0x0c, OP_STRING = 0x0d, OP_QWORD = 0x0e, OP_SCOPE = 0x10,
    OP_BUFFER = 0x11, OP_PACKAGE = 0x12, OP_METHOD = 0x14, OP_DUAL_NAME = 0x2e, OP_MULTI_NAME = 0x2f, OP_EXT = 0x5b,
    OP_DEVICE = 0x82, OP_IF = 0xa0, OP_RETURN = 0xa4,
};

size_t aml_open(const struct buf *b)
{
    return b->len;
}

/* Puts op, PkgLength and head before what was written since `at`. PkgLength counts itself: section 20.2.4. */
static void close_term(struct buf *b, size_t at, const uint8_t *op, size_t op_len, const struct buf *head)
{
    size_t body = b->len - at + (head ? head->len : 0);
    uint8_t pkg[4];
    size_t n;
    if (body + 1 < 0x40) {
        n = 1;
        pkg[0] = (uint8_t)(body + 1);
    } else {
        n = body + 2 < 0x1000 ? 2 : 3;
        size_t total = body + n;
        pkg[0] = (uint8_t)(((n - 1) << 6) | (total & 0xf));
        pkg[1] = (uint8_t)(total >> 4);
        pkg[2] = (uint8_t)(total >> 12);
    }
    size_t before = op_len + n + (head ? head->len : 0), tail = b->len - at;
    buf_add_zero(b, before);
    uint8_t *p = b->data + at;
    memmove(p + before, p, tail);
    memcpy(p, op, op_len);
    memcpy(p + op_len, pkg, n);
    if (head && head->len) {
        memcpy(p + op_len + n, head->data, head->len);
    }
}

static void name_seg(struct buf *b, const char *s, size_t len)
{
    for (size_t i = 0; i < 4; i++) {
        buf_add_u8(b, i < len ? (uint8_t)s[i] : '_');
    }
}

void aml_path(struct buf *b, const char *path)
{
    if (*path == '\\') {
        buf_add_u8(b, '\\');
        path++;
    }
    unsigned n = 1;
    for (const char *p = path; *p; p++) {
        n += *p == '.';
    }
    if (n == 2) {
        buf_add_u8(b, OP_DUAL_NAME);
    } else if (n > 2) {
        buf_add_u8(b, OP_MULTI_NAME);
        buf_add_u8(b, (uint8_t)n);
    }
    for (;;) {
        size_t len = strcspn(path, ".");
        name_seg(b, path, len);
        if (!path[len]) {
            return;
        }
        path += len + 1;
    }
}

void aml_close_scope(struct buf *b, size_t at, const char *name)
{
    AUTO_BUF struct buf head = { 0 };
    aml_path(&head, name);
    close_term(b, at, (const uint8_t[]){ OP_SCOPE }, 1, &head);
}

void aml_close_device(struct buf *b, size_t at, const char *name)
{
    AUTO_BUF struct buf head = { 0 };
    aml_path(&head, name);
    close_term(b, at, (const uint8_t[]){ OP_EXT, OP_DEVICE }, 2, &head);
}

void aml_close_method(struct buf *b, size_t at, const char *name, unsigned n_args)
{
    AUTO_BUF struct buf head = { 0 };
    aml_path(&head, name);
    buf_add_u8(&head, (uint8_t)n_args);
    close_term(b, at, (const uint8_t[]){ OP_METHOD }, 1, &head);
}

void aml_close_package(struct buf *b, size_t at, unsigned n)
{
    AUTO_BUF struct buf head = { 0 };
    buf_add_u8(&head, (uint8_t)n);
    close_term(b, at, (const uint8_t[]){ OP_PACKAGE }, 1, &head);
}

void aml_close_if(struct buf *b, size_t at)
{
    close_term(b, at, (const uint8_t[]){ OP_IF }, 1, NULL);
}

void aml_close_buffer(struct buf *b, size_t at)
{
    AUTO_BUF struct buf head = { 0 };
    aml_int(&head, b->len - at);
    close_term(b, at, (const uint8_t[]){ OP_BUFFER }, 1, &head);
}

void aml_name(struct buf *b, const char *name)
{
    buf_add_u8(b, OP_NAME);
    aml_path(b, name);
}

void aml_int(struct buf *b, uint64_t v)
{
    if (v <= 1) {
        buf_add_u8(b, (uint8_t)v);      /* ZeroOp, OneOp */
    } else if (v <= 0xff) {
        buf_add_u8(b, OP_BYTE);
        buf_add_u8(b, (uint8_t)v);
    } else if (v <= 0xffff) {
        buf_add_u8(b, OP_WORD);
        buf_add_le16(b, (uint16_t)v);
    } else if (v <= 0xffffffff) {
        buf_add_u8(b, OP_DWORD);
        buf_add_le32(b, (uint32_t)v);
    } else {
        buf_add_u8(b, OP_QWORD);
        buf_add_le64(b, v);
    }
}

void aml_string(struct buf *b, const char *s)
{
    buf_add_u8(b, OP_STRING);
    buf_add(b, s, strlen(s) + 1);
}

static uint32_t hex_digit(char c)
{
    return (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

void aml_eisaid(struct buf *b, const char *id)
{
    uint32_t v = (uint32_t)(id[0] - 0x40) << 26 | (uint32_t)(id[1] - 0x40) << 21 | (uint32_t)(id[2] - 0x40) << 16 |
                 hex_digit(id[3]) << 12 | hex_digit(id[4]) << 8 | hex_digit(id[5]) << 4 | hex_digit(id[6]);
    buf_add_u8(b, OP_DWORD);
    buf_add_le32(b, __builtin_bswap32(v));
}

void aml_return(struct buf *b)
{
    buf_add_u8(b, OP_RETURN);
}

size_t aml_res_begin(const struct buf *b)
{
    return b->len;
}

void aml_res_end(struct buf *b, size_t at)
{
    buf_add_u8(b, 0x79);        /* end tag; checksum 0: not checked */
    buf_add_u8(b, 0);
    aml_close_buffer(b, at);
}

void aml_res_io(struct buf *b, uint16_t base, uint8_t len)
{
    buf_add_u8(b, 0x47);        /* I/O port descriptor, 16-bit decode */
    buf_add_u8(b, 1);
    buf_add_le16(b, base);
    buf_add_le16(b, base);
    buf_add_u8(b, 1);
    buf_add_u8(b, len);
}

void aml_res_irq(struct buf *b, unsigned irq)
{
    buf_add_u8(b, 0x22);        /* IRQ descriptor without flags: edge, high */
    buf_add_le16(b, (uint16_t)(1u << irq));
}

void aml_res_mem32(struct buf *b, uint32_t base, uint32_t len)
{
    buf_add_u8(b, 0x86);        /* 32-bit fixed memory */
    buf_add_le16(b, 9);
    buf_add_u8(b, 1);
    buf_add_le32(b, base);
    buf_add_le32(b, len);
}

/* Word address space: kind 1 I/O, 2 bus numbers. */
static void res_word(struct buf *b, uint8_t kind, uint8_t flags, uint16_t first, uint16_t last)
{
    buf_add_u8(b, 0x88);
    buf_add_le16(b, 13);
    buf_add_u8(b, kind);
    buf_add_u8(b, 0x0c);        /* minimum and maximum fixed, positive decode */
    buf_add_u8(b, flags);
    buf_add_le16(b, 0);
    buf_add_le16(b, first);
    buf_add_le16(b, last);
    buf_add_le16(b, 0);
    buf_add_le16(b, (uint16_t)(last - first + 1));
}

void aml_res_bus(struct buf *b, uint16_t first, uint16_t last)
{
    res_word(b, 2, 0, first, last);
}

void aml_res_io_window(struct buf *b, uint16_t first, uint16_t last)
{
    res_word(b, 1, 3, first, last);     /* the whole range, ISA and not */
}

void aml_res_mem32_window(struct buf *b, uint32_t first, uint32_t last, bool cacheable)
{
    buf_add_u8(b, 0x87);
    buf_add_le16(b, 23);
    buf_add_u8(b, 0);
    buf_add_u8(b, 0x0c);
    buf_add_u8(b, cacheable ? 3 : 1);   /* read-write */
    buf_add_le32(b, 0);
    buf_add_le32(b, first);
    buf_add_le32(b, last);
    buf_add_le32(b, 0);
    buf_add_le32(b, last - first + 1);
}

void aml_res_mem64_window(struct buf *b, uint64_t first, uint64_t last)
{
    buf_add_u8(b, 0x8a);
    buf_add_le16(b, 43);
    buf_add_u8(b, 0);
    buf_add_u8(b, 0x0c);
    buf_add_u8(b, 3);
    buf_add_le64(b, 0);
    buf_add_le64(b, first);
    buf_add_le64(b, last);
    buf_add_le64(b, 0);
    buf_add_le64(b, last - first + 1);
}
