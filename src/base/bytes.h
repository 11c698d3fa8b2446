/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Little- and big-endian loads and stores at any alignment. */
#ifndef LODGE_BASE_BYTES_H
#define LODGE_BASE_BYTES_H

#include <endian.h>
#include <string.h>

#include "base/base.h"

#define BYTES_RW(name, type, from, to)                                                                  \
    static inline type load_##name(const void *p)                                                       \
    {                                                                                                   \
        type v;                                                                                         \
        memcpy(&v, p, sizeof(v));                                                                       \
        return from(v);                                                                                 \
    }                                                                                                   \
    static inline void store_##name(void *p, type v)                                                    \
    {                                                                                                   \
        v = to(v);                                                                                      \
        memcpy(p, &v, sizeof(v));                                                                       \
    }

BYTES_RW(le16, uint16_t, le16toh, htole16)
BYTES_RW(le32, uint32_t, le32toh, htole32)
BYTES_RW(le64, uint64_t, le64toh, htole64)
BYTES_RW(be16, uint16_t, be16toh, htobe16)
BYTES_RW(be32, uint32_t, be32toh, htobe32)
BYTES_RW(be64, uint64_t, be64toh, htobe64)
#undef BYTES_RW

#endif
