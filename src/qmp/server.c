/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Listening sockets, events to all clients, the end. */
#include <errno.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "qmp/qmp-int.h"

static void emit(struct qmp_server *s, const char *name, struct json_object *data)
{
    struct timespec now;
    AUTO_JSON struct json_object *o = json_object_new_object();
    struct json_object *stamp = json_object_new_object();
    clock_gettime(CLOCK_REALTIME, &now);
    json_object_object_add(stamp, "seconds", json_object_new_int64(now.tv_sec));
    json_object_object_add(stamp, "microseconds", json_object_new_int64(now.tv_nsec / NS_PER_US));
    json_object_object_add(o, "timestamp", stamp);
    json_object_object_add(o, "event", json_object_new_string(name));
    if (data) {
        json_object_object_add(o, "data", data);
    }
    list_for_each(c, &s->clients, struct qmp_client, node)
    {
        if (c->negotiated) {
            qmp_client_send(c, o);
        }
    }
}

static struct json_object *cause(bool by_guest, const char *reason)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "guest", json_object_new_boolean(by_guest));
    json_object_object_add(o, "reason", json_object_new_string(reason));
    return o;
}

static const char *shutdown_reason(const struct qmp_server *s)
{
    switch (machine_end(s->cfg.machine)->why) {
    case END_RESET:
    case END_TRIPLE_FAULT:
        return "guest-reset";
    case END_PANIC:
        return "guest-panic";
    case END_ERROR:
        return "host-error";
    case END_QUIT:
        return s->quit_asked ? "host-qmp-quit" : "host-signal";
    case END_SHUTDOWN:
    case END_DEBUG_EXIT:
        break;
    }
    return "guest-shutdown";
}

static void on_event(struct machine_listener *l, enum machine_event ev, bool by_guest, const char *msg)
{
    struct qmp_server *s = container_of(l, struct qmp_server, listener);
    struct json_object *o;
    switch (ev) {
    case MACHINE_EV_STOP:
        emit(s, "STOP", NULL);
        break;
    case MACHINE_EV_RESUME:
        emit(s, "RESUME", NULL);
        break;
    case MACHINE_EV_RESET:
        emit(s, "RESET", cause(by_guest, by_guest ? "guest-reset" : "host-qmp-system-reset"));
        break;
    case MACHINE_EV_POWERDOWN:
        emit(s, "POWERDOWN", NULL);
        break;
    case MACHINE_EV_SHUTDOWN:
    case MACHINE_EV_ERROR:
        emit(s, "SHUTDOWN", cause(by_guest && ev != MACHINE_EV_ERROR, shutdown_reason(s)));
        break;
    case MACHINE_EV_PANICKED:
        o = json_object_new_object();
        json_object_object_add(o, "action", json_object_new_string("poweroff"));
        emit(s, "GUEST_PANICKED", o);
        break;
    }
}

static void on_listen(struct loop_fd *w, uint32_t events)
{
    struct qmp_server *s = container_of(w, struct qmp_listen, watch)->server;
    int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE) {
            LOG_LIMITED(LOG_WARN, "qmp", "no descriptor left for another client");
        }
        return;
    }
    if (s->n_clients >= QMP_MAX_CLIENTS) {
        LOG_LIMITED(LOG_WARN, "qmp", "more than %d clients: refused one", QMP_MAX_CLIENTS);
        close(fd);
        return;
    }
    qmp_client_create(s, fd);
}

static void on_quit(struct loop_call *call)
{
    struct qmp_server *s = container_of(call, struct qmp_server, quit_call);
    s->cfg.quit(s->cfg.arg);
}

struct qmp_server *qmp_server_create(const struct qmp_config *cfg, struct err *err)
{
    struct qmp_server *s = new0(struct qmp_server);
    bool ok = true;
    s->cfg = *cfg;
    list_init(&s->clients);
    list_init(&s->quit_call.node);
    s->quit_call.fn = on_quit;
    s->listener.event = on_event;
    machine_listen(cfg->machine, &s->listener);
    for (unsigned i = 0; i < ARRAY_SIZE(s->listen); i++) {
        struct qmp_listen *l = &s->listen[i];
        *l = (struct qmp_listen){ .server = s, .watch = { .fd = cfg->listen_fds[i], .fn = on_listen } };
        ok = ok && (l->watch.fd < 0 || loop_fd_add(cfg->loop, &l->watch, EPOLLIN, err));
    }
    if (!ok) {
        qmp_server_destroy(s, 0);
        return NULL;
    }
    return s;
}

void qmp_server_destroy(struct qmp_server *s, int timeout_ms)
{
    if (!s) {
        return;
    }
    uint64_t deadline = host_clock_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    machine_unlisten(s->cfg.machine, &s->listener);
    for (unsigned i = 0; i < ARRAY_SIZE(s->listen); i++) {
        loop_fd_del(&s->listen[i].watch);
        if (s->listen[i].watch.fd >= 0) {
            close(s->listen[i].watch.fd);
        }
    }
    list_for_each(c, &s->clients, struct qmp_client, node)
    {
        qmp_client_drain(c, deadline);
        qmp_client_destroy(c);
    }
    qmp_fds_fini(&s->fds);
    free(s);
}
