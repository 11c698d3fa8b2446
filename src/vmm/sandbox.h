/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Confinement of lodge-vmm, in the order of docs/security.md. sandbox_enter runs first in main, while there is one thread:
 * namespaces, an empty private root, no capabilities, resource limits. sandbox_close runs when every descriptor and thread
 * is there and before the first untrusted byte is parsed: no new privileges, not dumpable, Landlock, seccomp on all threads.
 * A layer that the host lacks is logged and shows in sandbox_describe; a layer that the host has and that fails is an error.
 */
#ifndef LODGE_VMM_SANDBOX_H
#define LODGE_VMM_SANDBOX_H

#include "base/json.h"

bool sandbox_enter(struct err *err);
bool sandbox_close(struct err *err);
/* {"on": true, "layers": {"user-namespace": "on"|"absent: why", ...}} for x-inspect. The caller owns it. */
struct json_object *sandbox_describe(void);

#endif
