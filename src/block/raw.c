/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Raw bytes over a regular file or a block device. Blocking calls, made by the node's workers.
 * Crash rule: there is no metadata of ours; (1) a flush returns after fdatasync of all writes that returned before it began.
 */
#include "block/block-int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/iov.h"

enum { RAW_IOV = 128, ZERO_CHUNK = 64 * KIB };

bool blk_raw_init(struct blk_raw *r, int fd, bool writable, struct err *err)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &st) < 0) {
        return err_set_errno(err, errno, "cannot examine it");
    }
    if ((flags & O_ACCMODE) == O_WRONLY || (writable && (flags & O_ACCMODE) != O_RDWR)) {
        return err_set(err, ERR_DENIED, "its descriptor is not open for %s", writable ? "reading and writing" : "reading");
    }
    if (flags & O_DIRECT && fcntl(fd, F_SETFL, flags & ~O_DIRECT) < 0) {
        return err_set_errno(err, errno, "cannot turn off direct I/O");
    }
    r->fd = fd;
    if (S_ISREG(st.st_mode)) {
        r->size = (uint64_t)st.st_size;
    } else if (S_ISBLK(st.st_mode)) {
        r->is_device = true;
        if (ioctl(fd, BLKGETSIZE64, &r->size) < 0) {
            return err_set_errno(err, errno, "cannot read the device's size");
        }
    } else {
        return err_set(err, ERR_INVALID, "neither a regular file nor a block device");
    }
    if (r->size > INT64_MAX - BLK_SECTOR) {
        return err_set(err, ERR_LIMIT, "too large");
    }
    return true;
}

int blk_raw_read(struct blk_raw *r, uint64_t off, uint64_t len, const struct iovec *iov, unsigned n_iov)
{
    struct iov_iter at;
    iov_iter_init(&at, iov, n_iov);
    while (len) {
        struct iov_iter probe = at;
        struct iovec part[RAW_IOV];
        size_t bytes;
        unsigned n = iov_take(&probe, (size_t)min_u64(len, 1 << 30), part, RAW_IOV, &bytes);
        ssize_t got = preadv(r->fd, part, (int)n, (off_t)off);
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        if (got == 0) {
            return iov_zero(&at, (size_t)len);          /* past the end of a file: the tail of the last sector */
        }
        iov_discard(&at, (size_t)got);
        off += (uint64_t)got;
        len -= (uint64_t)got;
    }
    return 0;
}

int blk_raw_write(struct blk_raw *r, uint64_t off, uint64_t len, const struct iovec *iov, unsigned n_iov)
{
    struct iov_iter at;
    iov_iter_init(&at, iov, n_iov);
    while (len) {
        struct iov_iter probe = at;
        struct iovec part[RAW_IOV];
        size_t bytes;
        unsigned n = iov_take(&probe, (size_t)min_u64(len, 1 << 30), part, RAW_IOV, &bytes);
        ssize_t put = pwritev(r->fd, part, (int)n, (off_t)off);
        if (put < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        if (put == 0) {
            return -EIO;
        }
        iov_discard(&at, (size_t)put);
        off += (uint64_t)put;
        len -= (uint64_t)put;
    }
    return 0;
}

int blk_raw_flush(struct blk_raw *r)
{
    int ret;
    do {
        ret = fdatasync(r->fd);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

static int try_fallocate(struct blk_raw *r, int mode, uint64_t off, uint64_t len)
{
    int ret;
    do {
        ret = fallocate(r->fd, mode, (off_t)off, (off_t)len);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

static bool unsupported(int ret)
{
    return ret == -EOPNOTSUPP || ret == -ENOSYS || ret == -ENODEV;
}

static int punch(struct blk_raw *r, uint64_t off, uint64_t len)
{
    if (r->no_punch) {
        return -EOPNOTSUPP;
    }
    int ret = try_fallocate(r, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
    if (unsupported(ret)) {
        r->no_punch = true;
        return -EOPNOTSUPP;
    }
    return ret;
}

/* Advice: a host that cannot give blocks back has done nothing wrong. */
int blk_raw_discard(struct blk_raw *r, uint64_t off, uint64_t len)
{
    int ret = len ? punch(r, off, len) : 0;
    return ret == -EOPNOTSUPP ? 0 : ret;
}

static int write_zeros(struct blk_raw *r, uint64_t off, uint64_t len)
{
    static const uint8_t zeros[ZERO_CHUNK];
    while (len) {
        struct iovec iov[16];
        unsigned n = 0;
        uint64_t bytes = 0;
        for (; n < ARRAY_SIZE(iov) && bytes < len; n++) {
            iov[n].iov_base = (void *)zeros;
            iov[n].iov_len = (size_t)min_u64(len - bytes, ZERO_CHUNK);
            bytes += iov[n].iov_len;
        }
        int ret = blk_raw_write(r, off, bytes, iov, n);
        if (ret < 0) {
            return ret;
        }
        off += bytes;
        len -= bytes;
    }
    return 0;
}

int blk_raw_zero(struct blk_raw *r, uint64_t off, uint64_t len, bool unmap)
{
    if (len == 0) {
        return 0;
    }
    if (unmap) {
        int ret = punch(r, off, len);
        if (ret != -EOPNOTSUPP) {
            return ret;
        }
    }
    if (!r->no_zero_range) {
        int ret = try_fallocate(r, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off, len);
        if (!unsupported(ret)) {
            return ret;
        }
        r->no_zero_range = true;
    }
    return write_zeros(r, off, len);
}
