/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Our decoder and Zydis side by side on the same bytes; differences are counted by mnemonic and kind. */
#ifndef LODGE_TEST_DECODE_ORACLE_H
#define LODGE_TEST_DECODE_ORACLE_H

#include "engine/soft/decode/insn.h"

/* Decodes with both and compares everything; returns the length to step by (at least 1). */
unsigned oracle_compare(const uint8_t *bytes, size_t n, enum insn_mode mode);

/* Number of differences seen so far; the first of each kind goes to stderr once, with its bytes. */
unsigned long oracle_differences(void);
/* How many both accepted, both refused, and how many were excused by the table of hidden features. */
struct oracle_counts {
    unsigned long accepted, refused, excused;
};
struct oracle_counts oracle_counts(void);

#endif
