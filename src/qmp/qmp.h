/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket: QEMU Machine Protocol. Names, arguments, errors and events are QEMU's wherever the meaning is the same.
 * Several clients at once; each line is bounded (docs/qmp.md). Main-loop thread only.
 */
#ifndef LODGE_QMP_QMP_H
#define LODGE_QMP_QMP_H

#include "machine/machine.h"

struct qmp_server;

struct qmp_config {
    struct machine *machine;
    struct loop *loop;
    /* listening unix stream sockets, taken over; -1: none */
    int listen_fds[2];
    struct json_object *(*describe_sandbox)(void);      /* for x-inspect; may be NULL */
    void (*quit)(void *arg);                            /* `quit` was asked for, after its reply went out */
    void *arg;
};
struct qmp_server *qmp_server_create(const struct qmp_config *cfg, struct err *err);
/* Sends what is queued (events of the end), at most timeout_ms, and closes all clients. */
void qmp_server_destroy(struct qmp_server *s, int timeout_ms);

#endif
