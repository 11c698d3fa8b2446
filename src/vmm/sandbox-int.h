/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VMM_SANDBOX_INT_H
#define LODGE_VMM_SANDBOX_INT_H

#include "vmm/sandbox.h"

enum sandbox_layer {
    LAYER_LIMITS, LAYER_NAMESPACES, LAYER_PRIVATE_ROOT, LAYER_OWN_USER, LAYER_USER_NAMESPACE, LAYER_CAPABILITIES,
    LAYER_NO_NEW_PRIVS, LAYER_UNDUMPABLE, LAYER_LANDLOCK, LAYER_SECCOMP, N_SANDBOX_LAYERS
};
/* What became of a layer: "on", "on: detail", or "absent: why"; absences are logged at info. */
void sandbox_note(enum sandbox_layer layer, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* errno values by which a host says that it does not offer this to us, as opposed to a failure. */
bool sandbox_host_lacks(int en);

/* Each notes its layers; false with err when a layer that the host has failed. One thread, in this order. */
bool sandbox_limits(struct err *err);
bool sandbox_namespaces(struct err *err);       /* namespaces, private root, own user, capabilities */
bool sandbox_landlock(struct err *err);
bool sandbox_seccomp(struct err *err);          /* all threads */

#endif
