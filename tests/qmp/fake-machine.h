/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine that does nothing but remember what was asked of it, for the control socket's tests and fuzz target. */
#ifndef LODGE_TESTS_QMP_FAKE_MACHINE_H
#define LODGE_TESTS_QMP_FAKE_MACHINE_H

#include "machine/machine.h"

struct machine {
    struct vm_config cfg;
    struct engine engine;
    struct vcpu vcpus[4];
    enum machine_status status;
    struct machine_end end;
    struct list listeners;
    unsigned resets, powerdowns;
};

void fake_machine_init(struct machine *m);
void fake_machine_tell(struct machine *m, enum machine_event ev, bool by_guest);
/* The guest ends: `why` is one of END_*. */
void fake_machine_end(struct machine *m, int why, bool by_guest);

#endif
