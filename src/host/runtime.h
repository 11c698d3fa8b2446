/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The register of running guests: DIR/NAME/ holds `lock`, `status` (JSON) and `qmp` (socket). A guest is alive as long as
 * somebody holds the lock (an OFD lock that broker and VMM share); what a dead one left is removed by whoever meets it.
 * DIR: $LODGE_RUNTIME_DIR, else /run/lodge for root, else $XDG_RUNTIME_DIR/lodge, else /tmp/lodge-UID (0700, ours).
 */
#ifndef LODGE_HOST_RUNTIME_H
#define LODGE_HOST_RUNTIME_H

#include <sys/types.h>

#include "base/err.h"
#include "base/json.h"

struct runtime_guest {
    char *name;
    char *dir;                  /* DIR/NAME */
    int lock_fd;                /* holds the lock; the VMM inherits it */
};

char *runtime_dir(struct err *err);
/* Registers a name; ERR_EXISTS when a live guest has it. Cleans up after a dead one. */
bool runtime_claim(struct runtime_guest *g, const char *name, struct err *err);
/* Writes the status file (whole or not at all). */
bool runtime_set_status(struct runtime_guest *g, struct json_object *status, struct err *err);
/* Listening socket DIR/NAME/qmp; -1 with err. */
int runtime_listen(struct runtime_guest *g, struct err *err);
/* Removes the registration and everything in it. */
void runtime_release(struct runtime_guest *g);
/* Status of a live guest; NULL with ERR_NOT_FOUND. The caller owns it. */
struct json_object *runtime_status(const char *name, struct err *err);
/* A JSON array of the status of every live guest, by name; removes what dead ones left. */
struct json_object *runtime_list(struct err *err);
/* True as long as its lock is held. */
bool runtime_alive(const char *name);

#endif
