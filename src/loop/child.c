/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "loop/loop.h"

#include <errno.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_exit_of_child(struct loop_fd *w, uint32_t events)
{
    struct loop_child *c = container_of(w, struct loop_child, watch);
    int status = 0;
    pid_t r;
    do {
        r = waitpid(c->pid, &status, WNOHANG);
    } while (r < 0 && errno == EINTR);
    if (r == 0) {
        return;
    }
    loop_child_del(c);
    c->fn(c, status);
}

bool loop_child_add(struct loop *loop, struct loop_child *c, struct err *err)
{
    /* By number: older libc has no wrapper. The descriptor is close-on-exec by itself. */
    int fd = (int)syscall(SYS_pidfd_open, c->pid, 0);
    if (fd < 0) {
        return err_set_errno(err, errno, "cannot watch process %d", (int)c->pid);
    }
    c->watch = (struct loop_fd){ .fd = fd, .fn = on_exit_of_child };
    if (!loop_fd_add(loop, &c->watch, EPOLLIN, err)) {
        close(fd);
        return false;
    }
    return true;
}

void loop_child_del(struct loop_child *c)
{
    if (c->watch.loop) {
        loop_fd_del(&c->watch);
        close(c->watch.fd);
        c->watch.fd = -1;
    }
}
