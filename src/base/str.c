/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/str.h"

#include <string.h>
#include <strings.h>

enum { NAME_MAX_LEN = 128, DISTANCE_MAX_LEN = 64 };

static int digit_of(char c, unsigned radix)
{
    int d = c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : 99;
    return d < (int)radix ? d : -1;
}

/* Digits at *s; moves *s past them. False when there are none or the value does not fit. */
static bool take_number(const char **s, unsigned radix, uint64_t *out)
{
    uint64_t v = 0;
    const char *p = *s;
    for (int d; (d = digit_of(*p, radix)) >= 0; p++) {
        if (__builtin_mul_overflow(v, radix, &v) || __builtin_add_overflow(v, (uint64_t)d, &v)) {
            return false;
        }
    }
    if (p == *s) {
        return false;
    }
    *s = p;
    *out = v;
    return true;
}

bool str_parse_u64(const char *s, uint64_t *out)
{
    uint64_t v;
    bool hex = s[0] == '0' && (s[1] | 0x20) == 'x';
    s += hex ? 2 : 0;
    if (!take_number(&s, hex ? 16 : 10, &v) || *s) {
        return false;
    }
    *out = v;
    return true;
}

bool str_parse_size(const char *s, uint64_t unit, uint64_t *out, struct err *err)
{
    static const char suffixes[] = "KMGTPE";
    const char *p = s;
    uint64_t v;
    if (digit_of(*p, 10) < 0) {
        return err_set(err, ERR_INVALID, "'%.64s' is not a size (examples: 512M, 2G)", s);
    }
    if (!take_number(&p, 10, &v)) {
        return err_set(err, ERR_INVALID, "size '%.64s' is too large", s);
    }
    const char *suffix = *p >= 'A' ? strchr(suffixes, *p & ~0x20) : NULL;
    if (suffix) {
        unit = 1ull << (10 * (suffix - suffixes + 1));
        p += p[1] == 'i' && p[2] == 'B' ? 3 : 1;
    } else if (*p == 'B') {
        unit = 1;
        p++;
    }
    if (*p) {
        return err_set(err, ERR_INVALID, "'%.64s' is not a size (examples: 512M, 2G)", s);
    }
    if (__builtin_mul_overflow(v, unit, &v)) {
        return err_set(err, ERR_INVALID, "size '%.64s' is too large", s);
    }
    *out = v;
    return true;
}

unsigned str_distance(const char *a, const char *b)
{
    /* Optimal string alignment; three rows are enough, as a swap looks two back. */
    unsigned rows[3][DISTANCE_MAX_LEN + 1];
    size_t na = strnlen(a, DISTANCE_MAX_LEN), nb = strnlen(b, DISTANCE_MAX_LEN);
    for (size_t j = 0; j <= nb; j++) {
        rows[0][j] = (unsigned)j;
    }
    for (size_t i = 1; i <= na; i++) {
        unsigned *row = rows[i % 3], *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= nb; j++) {
            unsigned best = up[j - 1] + (a[i - 1] != b[j - 1]);
            best = min_u64(best, up[j] + 1);
            best = min_u64(best, row[j - 1] + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                best = min_u64(best, up2[j - 2] + 1);
            }
            row[j] = best;
        }
    }
    return rows[na % 3][nb];
}

const char *str_nearest(const char *word, const char *const *list)
{
    /* A third of the word may be wrong; more than that is another word. */
    size_t limit = max_u64(1, strlen(word) / 3);
    const char *best = NULL;
    for (; *list; list++) {
        if (strcasecmp(word, *list) == 0) {
            return *list;
        }
        unsigned d = str_distance(word, *list);
        if (d < limit || (d == limit && !best)) {
            best = *list;
            limit = d;
        }
    }
    return best;
}

bool str_name_ok(const char *s)
{
    size_t n = strnlen(s, NAME_MAX_LEN + 1);
    if (n == 0 || n > NAME_MAX_LEN) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!alnum && (i == 0 || !strchr("_.+:@-", c))) {
            return false;
        }
    }
    return true;
}

const char *str_after(const char *s, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(s, prefix, n) == 0 ? s + n : NULL;
}

/* Length of the UTF-8 sequence at s and its code point; 0 when it is broken, overlong, a surrogate or too large. */
static unsigned utf8_at(const uint8_t *s, size_t len, uint32_t *cp)
{
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    if (s[0] < 0x80) {
        *cp = s[0];
        return 1;
    }
    unsigned n = s[0] >= 0xf0 && s[0] < 0xf8 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc0 ? 2 : 0;
    if (n == 0 || s[0] >= 0xf8 || n > len) {
        return 0;
    }
    uint32_t c = s[0] & (0x7f >> n);
    for (unsigned i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
        c = c << 6 | (s[i] & 0x3f);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        return 0;
    }
    *cp = c;
    return n;
}

static bool printable(uint32_t cp)
{
    bool control = cp < 0x20 || (cp >= 0x7f && cp < 0xa0);
    bool bidi = cp == 0x200e || cp == 0x200f || (cp >= 0x2028 && cp <= 0x202e) || (cp >= 0x2066 && cp <= 0x2069);
    return !control && !bidi;
}

void str_escape(struct buf *out, const char *s, size_t len)
{
    const uint8_t *p = (const uint8_t *)s;
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0;
        unsigned n = utf8_at(p + i, len - i, &cp);
        if (n && printable(cp)) {
            buf_add(out, p + i, n);
            i += n;
            continue;
        }
        for (unsigned k = 0; k < (n ? n : 1); k++, i++) {
            buf_printf(out, "\\x%02x", p[i]);
        }
    }
}
