/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lodge-slirp: user-mode networking beside one guest. Frames on an inherited seqpacket socket (net/net.h), libslirp on the host's side. No guest
 * memory is mapped here: hostile packets are parsed in a process with nothing to steal. Starts, says "ok" or "error: ..." on
 * --ready-fd, and runs until the other end closes.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "helpers/slirp/slirp-int.h"
#include "net/net.h"

static void say(const struct options *o, const char *line)
{
    if (o->ready_fd >= 0) {
        fd_write_full(o->ready_fd, line, strlen(line));
        close(o->ready_fd);
    }
}

static bool check_socket(int fd, struct err *err)
{
    int type = 0;
    socklen_t len = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET) {
        return err_set(err, ERR_INVALID, "descriptor %d is not a seqpacket socket", fd);
    }
    net_socket_buffers(fd);
    return fd_set_cloexec(fd, true);
}

int main(int argc, char **argv)
{
    struct options o;
    struct err err = ERR_INIT;
    struct stack *s = NULL;
    signal(SIGPIPE, SIG_IGN);
    bool ok = options_parse(argc, argv, &o, &err) && check_socket(o.fd, &err) && (s = stack_create(&o, &err)) &&
              (!o.sandbox || sandbox_enter(&err));
    if (!ok) {
        AUTO_FREE char *line = str_fmt("error: %s\n", err.msg);
        if (o.ready_fd < 0) {
            fprintf(stderr, "lodge-slirp: %s\n", err.msg);
        }
        say(&o, line);
        return err.code == ERR_INVALID ? 2 : 1;
    }
    say(&o, "ok\n");
    int status = stack_run(s);
    stack_destroy(s);
    _exit(status);              /* exit handlers, a leak checker's among them, want what the filter forbids */
}
