/* SPDX-License-Identifier: GPL-2.0-or-later */
/* UUIDs, RFC 9562 (variant 10x); bytes in network order as the text shows them. */
#ifndef LODGE_BASE_UUID_H
#define LODGE_BASE_UUID_H

#include "base/base.h"

enum { UUID_STR_SIZE = 37 };

struct uuid {
    uint8_t b[16];
};

/* 8-4-4-4-12 hexadecimal digits in either case, nothing before or after. False leaves *out untouched. */
bool uuid_parse(const char *s, struct uuid *out);
void uuid_format(const struct uuid *u, char out[UUID_STR_SIZE]);    /* lower case */
void uuid_random(struct uuid *out);                                 /* version 4 */
bool uuid_is_null(const struct uuid *u);

#endif
