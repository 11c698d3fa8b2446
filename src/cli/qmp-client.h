/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A small blocking QMP client for the command line. */
#ifndef LODGE_CLI_QMP_CLIENT_H
#define LODGE_CLI_QMP_CLIENT_H

#include "base/buf.h"
#include "base/json.h"

struct qmp_client {
    int fd;
    struct buf in;
    uint64_t deadline_ns;
};

/* Connects, reads the greeting, negotiates. Everything until qmp_close is bounded by timeout_ms. */
bool qmp_connect(struct qmp_client *q, const char *path, unsigned timeout_ms, struct err *err);
/* Runs a command without arguments and drops its answer; events that come meanwhile are skipped. */
bool qmp_command(struct qmp_client *q, const char *name, struct err *err);
void qmp_close(struct qmp_client *q);

#endif
