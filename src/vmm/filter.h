/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What each kind of thread may ask of the kernel, and the filter program made of it. We write the program ourselves: the
 * table below is small, a library takes milliseconds of a start that has fifteen, and a test can run what we made.
 */
#ifndef LODGE_VMM_FILTER_H
#define LODGE_VMM_FILTER_H

#include <linux/filter.h>

#include "base/base.h"

/* FILTER_ALL holds for every thread; the others are put on top of it, so that a thread may do what both allow. */
enum filter_kind { FILTER_ALL = 1 << 0, FILTER_MAIN = 1 << 1, FILTER_IO = 1 << 2, FILTER_VCPU = 1 << 3 };

/* A call that is allowed when (argument & mask) == value; mask 0: always. Rows of one call stand together. */
struct filter_rule {
    const char *name;
    uint32_t nr;
    uint8_t kinds;
    uint8_t arg;
    uint32_t mask, value;
};
extern const struct filter_rule filter_rules[];
extern const size_t n_filter_rules;
/* Value that stands for our own pid. */
#define FILTER_SELF UINT32_MAX

enum { FILTER_MAX = 512 };
/* Fills `out`; everything that no rule of `kind` allows ends in `deny` (SECCOMP_RET_*). Returns the program's length. */
size_t filter_build(enum filter_kind kind, uint32_t deny, uint32_t self, struct sock_filter out[FILTER_MAX]);

#endif
