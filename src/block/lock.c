/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Image locks that QEMU understands. Each permission has a byte at LOCK_PERM: a shared lock there says "I use it"; and one at
 * LOCK_UNSHARED: a shared lock there says "nobody else may". Both are taken first and the opposite bytes looked at afterwards, so
 * that of two that come at the same time at least one sees the other. Open-file-description locks: they go with the last
 * copy of the descriptor, not with any close in the process, and they hold between two VMs of one process too.
 * Source: behaviour of QEMU 7.2's raw driver, as qemu-img and qemu-io show it (tests/block/test-lock.c).
 */
#include "block/block-int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/log.h"

enum { LOCK_PERM = 100, LOCK_UNSHARED = 200 };
enum { PERM_READ = 1 << 0, PERM_WRITE = 1 << 1, PERM_WRITE_SAME = 1 << 2, PERM_RESIZE = 1 << 3, N_PERMS = 4 };

static int lock_byte(int fd, int cmd, short type, off_t at, struct flock *out)
{
    struct flock fl = { .l_whence = SEEK_SET, .l_start = at, .l_len = 1, .l_type = type };
    int r;
    do {
        r = fcntl(fd, cmd, &fl);
    } while (r < 0 && errno == EINTR);
    if (out) {
        *out = fl;
    }
    return r < 0 ? -errno : 0;
}

static int take_bytes(int fd, off_t base, unsigned bits)
{
    for (unsigned i = 0; i < N_PERMS; i++) {
        if (bits & 1u << i) {
            int r = lock_byte(fd, F_OFD_SETLK, F_RDLCK, base + i, NULL);
            if (r < 0) {
                return r;
            }
        }
    }
    return 0;
}

/* 1: somebody else holds one of them. */
static int bytes_held(int fd, off_t base, unsigned bits)
{
    for (unsigned i = 0; i < N_PERMS; i++) {
        struct flock fl;
        if (bits & 1u << i) {
            int r = lock_byte(fd, F_OFD_GETLK, F_WRLCK, base + i, &fl);
            if (r < 0) {
                return r;
            }
            if (fl.l_type != F_UNLCK) {
                return 1;
            }
        }
    }
    return 0;
}

bool blk_lock(struct blk_node *n, struct err *err)
{
    int fd = n->raw.fd, r;
    unsigned perm = PERM_READ | (n->flags & BLK_WRITE ? PERM_WRITE | PERM_RESIZE : 0);
    unsigned unshared = PERM_WRITE | PERM_RESIZE;
    n->perm = (uint8_t)perm;
    n->unshared = (uint8_t)unshared;
    if ((r = take_bytes(fd, LOCK_PERM, perm)) == 0 && (r = take_bytes(fd, LOCK_UNSHARED, unshared)) == 0 &&
        (r = bytes_held(fd, LOCK_PERM, unshared)) == 0 && (r = bytes_held(fd, LOCK_UNSHARED, perm)) == 0) {
        return true;
    }
    blk_unlock(n);
    if (r == 1 || r == -EAGAIN || r == -EACCES) {
        return err_set(err, ERR_BUSY, "in use: another guest or program holds the image's lock");
    }
    if (r == -ENOLCK || r == -EINVAL || r == -EOPNOTSUPP || r == -ENOSYS) {
        log_warn("block", "'%s': its file system has no locks; nothing keeps a second user out", n->name);
        return true;
    }
    return err_set_errno(err, -r, "cannot lock the image");
}

void blk_unlock(struct blk_node *n)
{
    for (unsigned i = 0; i < N_PERMS; i++) {
        if (n->perm & 1u << i) {
            lock_byte(n->raw.fd, F_OFD_SETLK, F_UNLCK, LOCK_PERM + i, NULL);
        }
        if (n->unshared & 1u << i) {
            lock_byte(n->raw.fd, F_OFD_SETLK, F_UNLCK, LOCK_UNSHARED + i, NULL);
        }
    }
    n->perm = n->unshared = 0;
}
