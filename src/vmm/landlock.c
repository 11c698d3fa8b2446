/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Landlock with no rule at all: whatever the running kernel's version can refuse, is refused. The numbers stand here
 * because the kernel that runs is often newer than the headers we were built with.
 * Source: Linux Documentation/userspace-api/landlock.rst, include/uapi/linux/landlock.h.
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "vmm/sandbox-int.h"

enum { SYS_LANDLOCK_CREATE = 444, SYS_LANDLOCK_RESTRICT = 446, CREATE_VERSION = 1 << 0 };

struct ruleset_attr {
    uint64_t handled_access_fs;
    uint64_t handled_access_net;    /* version 4 */
    uint64_t scoped;                /* version 6 */
};

/* All that version `abi` knows; returns the size of the attribute in that version. */
static size_t fill(struct ruleset_attr *a, long abi)
{
    unsigned fs_bits = abi >= 5 ? 16 : abi >= 3 ? 15 : abi == 2 ? 14 : 13;
    a->handled_access_fs = (1u << fs_bits) - 1;
    a->handled_access_net = abi >= 4 ? 3 : 0;   /* bind and connect of TCP */
    a->scoped = abi >= 6 ? 3 : 0;               /* abstract unix sockets, signals to processes outside */
    return abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
}

bool sandbox_landlock(struct err *err)
{
    struct ruleset_attr attr;
    long abi = syscall(SYS_LANDLOCK_CREATE, NULL, 0, CREATE_VERSION);
    if (abi < 1) {
        sandbox_note(LAYER_LANDLOCK, "absent: the kernel has none (%s)", strerror(errno));
        return true;
    }
    size_t size = fill(&attr, abi);
    AUTO_FD int fd = (int)syscall(SYS_LANDLOCK_CREATE, &attr, size, 0);
    if (fd < 0 || syscall(SYS_LANDLOCK_RESTRICT, fd, 0) < 0) {
        return err_set_errno(err, errno, "Landlock (version %ld)", abi);
    }
    sandbox_note(LAYER_LANDLOCK, "on: version %ld, nothing allowed", abi);
    return true;
}
