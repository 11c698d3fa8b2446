/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A temporary image, a loop, and requests that wait for themselves. */
#ifndef LODGE_TESTS_BLOCK_FIXTURE_H
#define LODGE_TESTS_BLOCK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "block/block.h"

struct fixture {
    char path[64];
    struct loop *loop;
};

static inline struct fixture fixture_make(uint64_t size)
{
    struct fixture f = { .path = "/tmp/lodge-block-XXXXXX" };
    struct err err = ERR_INIT;
    int fd = mkstemp(f.path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
    f.loop = loop_create(&err);
    assert_non_null(f.loop);
    return f;
}

static inline void fixture_fini(struct fixture *f)
{
    loop_destroy(f->loop);
    unlink(f->path);
}

static inline struct blk_node *fixture_open(struct fixture *f, unsigned flags, struct err *err)
{
    int fd = open(f->path, (flags & BLK_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    assert_true(fd >= 0);
    return blk_open_fd(f->loop, fd, "raw", f->path, flags, err);
}

struct waiting {
    struct blk_req r;
    bool done;
    int ret;
};

static inline void waiting_done(struct blk_req *r, int ret)
{
    struct waiting *w = container_of(r, struct waiting, r);
    w->done = true;
    w->ret = ret;
}

static inline int do_req(struct fixture *f, struct blk_node *n, enum blk_op op, uint64_t off, void *buf, uint64_t len)
{
    struct iovec iov = { buf, len };
    struct waiting w = { .r = { .op = op, .off = off, .len = len, .iov = &iov, .n_iov = buf ? 1 : 0, .done = waiting_done } };
    blk_submit(n, &w.r);
    assert_false(w.done);
    while (!w.done) {
        loop_once(f->loop, 1000);
    }
    return w.ret;
}

#endif
