/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/uuid.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool hyphen_at(size_t i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

bool uuid_parse(const char *s, struct uuid *out)
{
    struct uuid u = { { 0 } };
    size_t digits = 0;
    if (strlen(s) != UUID_STR_SIZE - 1) {
        return false;
    }
    for (size_t i = 0; i < UUID_STR_SIZE - 1; i++) {
        if (hyphen_at(i)) {
            if (s[i] != '-') {
                return false;
            }
            continue;
        }
        int d = hex_digit(s[i]);
        if (d < 0) {
            return false;
        }
        u.b[digits / 2] = (uint8_t)(u.b[digits / 2] << 4 | d);
        digits++;
    }
    *out = u;
    return true;
}

void uuid_format(const struct uuid *u, char out[UUID_STR_SIZE])
{
    static const char hex[] = "0123456789abcdef";
    size_t digits = 0;
    for (size_t i = 0; i < UUID_STR_SIZE - 1; i++) {
        if (hyphen_at(i)) {
            out[i] = '-';
        } else {
            out[i] = hex[digits % 2 ? u->b[digits / 2] & 15 : u->b[digits / 2] >> 4];
            digits++;
        }
    }
    out[UUID_STR_SIZE - 1] = 0;
}

void uuid_random(struct uuid *out)
{
    ssize_t n;
    do {
        n = getrandom(out->b, sizeof(out->b), 0);
    } while (n < 0 && errno == EINTR);
    if (n != sizeof(out->b)) {
        abort();                /* cannot happen for 16 bytes once the pool is up */
    }
    out->b[6] = (out->b[6] & 0x0f) | 0x40;
    out->b[8] = (out->b[8] & 0x3f) | 0x80;
}

bool uuid_is_null(const struct uuid *u)
{
    static const struct uuid null;
    return memcmp(u, &null, sizeof(null)) == 0;
}
