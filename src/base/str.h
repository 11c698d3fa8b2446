/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Words that people and peers type: numbers, sizes, names, and what they may have meant. */
#ifndef LODGE_BASE_STR_H
#define LODGE_BASE_STR_H

#include "base/buf.h"
#include "base/err.h"

/* Decimal or 0x hexadecimal, the whole string, no sign, no blanks. False (and *out untouched) also when it does not fit. */
bool str_parse_u64(const char *s, uint64_t *out);
/*
 * A size in bytes: digits, then K M G T P or E in either case (powers of 1024, "iB" may follow), or B, or nothing: then
 * the number counts `unit` bytes. Fails on overflow. "512M", "2GiB", "1048576".
 */
bool str_parse_size(const char *s, uint64_t unit, uint64_t *out, struct err *err);
/* The word of the NULL-terminated list that `word` is most likely a slip of; NULL when none is near. Borrowed from the list. */
const char *str_nearest(const char *word, const char *const *list);
/* Edits (insert, delete, replace, swap of neighbours) from a to b; both are looked at up to 64 bytes. */
unsigned str_distance(const char *a, const char *b);
/* A name of a guest, disk or device: [A-Za-z0-9][A-Za-z0-9_.+:@-]{0,127}. Safe as a file name. */
bool str_name_ok(const char *s);
/* What follows `prefix` in `s`, or NULL when s does not begin with it. */
const char *str_after(const char *s, const char *prefix);
/* Appends text of unknown origin for a terminal or log: control and bidirectional characters and broken UTF-8 become \xNN. */
void str_escape(struct buf *out, const char *s, size_t len);

#endif
