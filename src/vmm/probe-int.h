/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VMM_PROBE_INT_H
#define LODGE_VMM_PROBE_INT_H

#include "base/base.h"

/* In this order; the first that fails ends the probe. */
enum probe_step {
    PROBE_OPEN, PROBE_API, PROBE_VM, PROBE_MEMORY, PROBE_VCPU, PROBE_CPUID, PROBE_REAL, PROBE_PROTECTED, PROBE_LONG, PROBE_INTERRUPT, PROBE_USER,
    PROBE_SPEED, N_PROBE_STEPS
};

/* What the child writes to the pipe: one before a step, with begun set, and one after it. */
struct probe_report {
    uint32_t step;
    bool begun, ok;
    int32_t value;              /* PROBE_OPEN: errno; PROBE_API: the version */
    char why[200];
};

enum { PROBE_STEP_MS = 100 };   /* a step's own watch */

/* Runs all steps in this process, reporting to `out`. */
void probe_guest_run(int out);

#endif
