/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stands for seccomp.c in a build without libseccomp. */
#include "base/log.h"
#include "vmm/sandbox-int.h"

bool sandbox_seccomp(struct err *err)
{
    log_warn("sandbox", "system calls are not filtered: built without libseccomp");
    sandbox_note(LAYER_SECCOMP, "absent: built without libseccomp");
    return true;
}
