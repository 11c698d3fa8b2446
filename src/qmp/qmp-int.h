/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_QMP_QMP_INT_H
#define LODGE_QMP_QMP_INT_H

#include "qmp/qmp.h"
#include "schema/qmp_schema.h"

enum {
    QMP_MAX_CLIENTS = 16,
    QMP_MAX_IN = JSON_MAX_TEXT,         /* one message */
    QMP_MAX_OUT = 4 * MIB,              /* unread answers: reading stops; unread events: the client is dropped */
    QMP_MAX_FDS = 64,
};

/* Finds where one JSON object ends in a stream; strings may hold braces. */
struct qmp_framer {
    size_t scanned;
    unsigned depth;
    bool in_string, escaped, started;
};
enum qmp_frame { QMP_FRAME_MORE, QMP_FRAME_DONE /* *len bytes are a message */, QMP_FRAME_JUNK /* drop *len bytes and say so */, QMP_FRAME_BLANK /* drop */ };
enum qmp_frame qmp_frame_next(struct qmp_framer *f, const uint8_t *data, size_t n, size_t *len);

/* Descriptors by name (getfd) and by set (add-fd). Whole server; bounded. */
struct qmp_fd {
    char *name;                         /* getfd; NULL: of a set */
    uint64_t set;
    char *opaque;
    int fd;
};
struct qmp_fds {
    struct qmp_fd all[QMP_MAX_FDS];
    unsigned n;
};
void qmp_fds_fini(struct qmp_fds *f);

struct qmp_server;
struct qmp_listen {
    struct loop_fd watch;
    struct qmp_server *server;
};

struct qmp_server {
    struct qmp_config cfg;
    struct qmp_listen listen[2];
    struct list clients;
    unsigned n_clients;
    struct machine_listener listener;
    struct qmp_fds fds;
    struct loop_call quit_call;
    bool quit_asked;                    /* by `quit`: SHUTDOWN says so */
};

struct qmp_client {
    struct qmp_server *server;
    struct loop_fd watch;
    struct list node;
    struct buf in, out;
    struct qmp_framer framer;
    bool negotiated, dead;
    int pending_fd;                     /* came with SCM_RIGHTS, for the next getfd or add-fd; -1 */
};

/* Takes over the descriptor and greets; false when it could not be watched (the descriptor is closed). */
bool qmp_client_create(struct qmp_server *s, int fd);
void qmp_client_destroy(struct qmp_client *c);
/* Queues and sends `o` (borrowed). The client may be dead afterwards, and is freed by its own callback. */
void qmp_client_send(struct qmp_client *c, struct json_object *o);
/* Waits until all is sent, the peer is gone or the deadline (host clock) is over. */
void qmp_client_drain(struct qmp_client *c, uint64_t deadline_ns);

/* One call: returns the answer (owned by the caller), or NULL with err. An empty answer is an empty object. */
struct qmp_call {
    struct qmp_server *server;
    struct qmp_client *client;
    struct json_object *args;           /* checked against the schema; may be NULL */
};
typedef struct json_object *qmp_handler(struct qmp_call *call, struct err *err);
/* The handler of a command of the schema; NULL: unknown. */
qmp_handler *qmp_handler_find(const char *name);
const char *qmp_handler_name(size_t i);     /* NULL after the last: the test compares both tables */

#endif
