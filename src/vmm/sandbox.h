/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Confinement of lodge-vmm, in the order of docs/security.md. sandbox_enter runs first in main, while there is one thread:
 * limits, namespaces, an empty root, an ID of its own, no capabilities, no new privileges, not dumpable, Landlock.
 * sandbox_close runs when every descriptor and thread is there and before the first untrusted byte is parsed: a filter of
 * system calls on all threads. Then each thread that has a filter of its own puts it on top with sandbox_thread. A layer that the host lacks is logged and shows in sandbox_describe; a layer that the host has and that fails is an error.
 */
#ifndef LODGE_VMM_SANDBOX_H
#define LODGE_VMM_SANDBOX_H

#include "base/json.h"

bool sandbox_enter(struct err *err);
bool sandbox_close(struct err *err);
enum sandbox_thread { SANDBOX_MAIN, SANDBOX_IO, SANDBOX_VCPU };
/* On the thread in question, once, after sandbox_close; does nothing when the sandbox is off. Ends the process on failure. */
void sandbox_thread(enum sandbox_thread kind);
/* {"on": true, "layers": {"user-namespace": "on"|"absent: why", ...}} for x-inspect. The caller owns it. */
struct json_object *sandbox_describe(void);

#endif
