/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One client: bytes in, messages, answers out. A message is taken only while few answers wait, so a client that asks and
 * does not read costs a bounded buffer and then waits; a message that is too long ends the conversation.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "qmp/qmp-int.h"

enum { CHUNK = 16384 };

static void flush(struct qmp_client *c)
{
    while (c->out.len && !c->dead) {
        ssize_t n = send(c->watch.fd, c->out.data, c->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            c->dead |= errno != EAGAIN && errno != EINTR;
            return;
        }
        buf_consume(&c->out, (size_t)n);
    }
}

static bool backlogged(const struct qmp_client *c)
{
    return c->out.len >= QMP_MAX_OUT;
}

/* A dead one is hung up, so that its callback comes and frees it. */
static void set_events(struct qmp_client *c)
{
    if (c->dead) {
        shutdown(c->watch.fd, SHUT_RDWR);
    }
    loop_fd_mod(&c->watch, (backlogged(c) && !c->dead ? 0 : EPOLLIN) | (c->out.len ? EPOLLOUT : 0));
}

/* Events have no flow control: beyond twice the bound the client is dropped. */
static void queue(struct qmp_client *c, struct json_object *o)
{
    const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    size_t len = strlen(text);
    if (c->out.len + len > 2 * (size_t)QMP_MAX_OUT) {
        c->dead = true;
    } else if (!c->dead) {
        buf_add(&c->out, text, len);
        buf_add(&c->out, "\r\n", 2);
    }
}

void qmp_client_send(struct qmp_client *c, struct json_object *o)
{
    queue(c, o);
    flush(c);
    set_events(c);
}

void qmp_client_drain(struct qmp_client *c, uint64_t deadline_ns)
{
    for (;;) {
        flush(c);
        uint64_t now = host_clock_ns();
        struct pollfd p = { .fd = c->watch.fd, .events = POLLOUT };
        if (!c->out.len || c->dead || now >= deadline_ns || poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1) <= 0) {
            return;
        }
    }
}

static const char *error_class(const struct err *err)
{
    return err->code == ERR_UNSUPPORTED ? "CommandNotFound" : err->code == ERR_NOT_FOUND ? "DeviceNotFound" : "GenericError";
}

/* Takes over `ret`. `msg` may be NULL; its id, null included, is sent back. */
static void answer(struct qmp_client *c, struct json_object *ret, const struct err *err, struct json_object *msg)
{
    AUTO_JSON struct json_object *o = json_object_new_object();
    struct json_object *id;
    if (ret) {
        json_object_object_add(o, "return", ret);
    } else {
        struct json_object *e = json_object_new_object();
        json_object_object_add(e, "class", json_object_new_string(error_class(err)));
        json_object_object_add(e, "desc", json_object_new_string(err->msg));
        json_object_object_add(o, "error", e);
    }
    if (msg && json_object_object_get_ex(msg, "id", &id)) {
        json_object_object_add(o, "id", json_object_get(id));
    }
    queue(c, o);
}

static bool check_message(struct json_object *o, struct err *err)
{
    json_object_object_foreach(o, key, v)
    {
        bool exec = strcmp(key, "execute") == 0, args = strcmp(key, "arguments") == 0;
        if (!exec && !args && strcmp(key, "id") != 0) {
            return err_set(err, ERR_INVALID, "QMP input member '%.64s' is unexpected", key);
        }
        if (exec && !json_object_is_type(v, json_type_string)) {
            return err_set(err, ERR_INVALID, "QMP input member 'execute' must be a string");
        }
        if (args && !json_object_is_type(v, json_type_object)) {
            return err_set(err, ERR_INVALID, "QMP input member 'arguments' must be an object");
        }
    }
    return json_object_object_get_ex(o, "execute", NULL) || err_set(err, ERR_INVALID, "QMP input lacks member 'execute'");
}

static struct json_object *execute(struct qmp_client *c, struct json_object *o, struct err *err)
{
    if (!check_message(o, err)) {
        return NULL;
    }
    const char *name = json_object_get_string(json_object_object_get(o, "execute"));
    struct qmp_call call = { .server = c->server, .client = c, .args = json_object_object_get(o, "arguments") };
    const struct qmp_command *cmd = qmp_command_find(name);
    qmp_handler *fn = cmd ? qmp_handler_find(name) : NULL;
    if (!c->negotiated && !(cmd && cmd->before_caps)) {
        err_set(err, ERR_UNSUPPORTED, "Expecting capabilities negotiation with 'qmp_capabilities'");
    } else if (!fn) {
        err_set(err, ERR_UNSUPPORTED, "The command %.64s has not been found", name);
    } else if (c->negotiated && cmd->before_caps) {
        err_set(err, ERR_UNSUPPORTED, "Capabilities negotiation is already complete, command ignored");
    } else if (qmp_args_check(cmd, call.args, err)) {
        return fn(&call, err);
    }
    return NULL;
}

static void on_message(struct qmp_client *c, const uint8_t *data, size_t len)
{
    struct err err = ERR_INIT;
    AUTO_JSON struct json_object *o = json_parse((const char *)data, len, &err);
    struct json_object *ret = o ? execute(c, o, &err) : NULL;
    answer(c, ret, &err, o);
}

/* A line that does not begin with a brace. */
static void on_junk(struct qmp_client *c, const uint8_t *data, size_t len)
{
    struct err err = ERR_INIT;
    AUTO_JSON struct json_object *o = json_parse((const char *)data, len, NULL);
    err_set(&err, ERR_INVALID, o ? "QMP input must be a JSON object" : "JSON parse error, expecting value");
    answer(c, NULL, &err, NULL);
}

static void on_input(struct qmp_client *c)
{
    size_t len;
    while (!c->dead && !backlogged(c)) {
        enum qmp_frame f = qmp_frame_next(&c->framer, c->in.data, c->in.len, &len);
        if (f == QMP_FRAME_MORE) {
            break;
        }
        if (f == QMP_FRAME_DONE) {
            on_message(c, c->in.data, len);
        } else if (f == QMP_FRAME_JUNK) {
            on_junk(c, c->in.data, len);
        }
        buf_consume(&c->in, len);
    }
    if (c->in.len > QMP_MAX_IN && !backlogged(c)) {
        struct err err = ERR_INIT;
        err_set(&err, ERR_LIMIT, "JSON parse error, message is longer than %d bytes", QMP_MAX_IN);
        answer(c, NULL, &err, NULL);
        flush(c);
        c->dead = true;
    }
}

static void take_fds(struct qmp_client *c, const int *fds, size_t n)
{
    if (n && c->pending_fd >= 0) {
        close(c->pending_fd);
        c->pending_fd = -1;
    }
    for (size_t i = 0; i < n; i++) {
        if (c->pending_fd < 0) {
            c->pending_fd = fds[i];
        } else {
            close(fds[i]);
        }
    }
}

static void receive(struct qmp_client *c)
{
    int fds[16];
    size_t n_fds = ARRAY_SIZE(fds);
    ssize_t n = fd_recv(c->watch.fd, buf_reserve(&c->in, CHUNK), CHUNK, fds, &n_fds);
    take_fds(c, fds, n_fds);
    if (n > 0) {
        c->in.len += (size_t)n;
    } else {
        c->dead |= n == 0 || (n != -EAGAIN && n != -EINTR);
    }
}

static void on_client(struct loop_fd *w, uint32_t events)
{
    struct qmp_client *c = container_of(w, struct qmp_client, watch);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !c->dead) {
        receive(c);
    }
    if (!c->dead) {
        flush(c);
        on_input(c);
        flush(c);
    }
    if (c->dead) {
        qmp_client_destroy(c);
    } else {
        set_events(c);
    }
}

static void greet(struct qmp_client *c)
{
    struct qmp_call call = { .server = c->server, .client = c };
    AUTO_JSON struct json_object *o = json_object_new_object();
    struct json_object *q = json_object_new_object();
    json_object_object_add(q, "version", qmp_handler_find("query-version")(&call, NULL));
    json_object_object_add(q, "capabilities", json_object_new_array());
    json_object_object_add(o, "QMP", q);
    qmp_client_send(c, o);
}

bool qmp_client_create(struct qmp_server *s, int fd)
{
    struct qmp_client *c = new0(struct qmp_client);
    c->server = s;
    c->pending_fd = -1;
    c->watch.fd = fd;
    c->watch.fn = on_client;
    list_add_tail(&s->clients, &c->node);
    s->n_clients++;
    if (!loop_fd_add(s->cfg.loop, &c->watch, EPOLLIN, NULL)) {
        qmp_client_destroy(c);
        return false;
    }
    greet(c);
    return true;
}

void qmp_client_destroy(struct qmp_client *c)
{
    loop_fd_del(&c->watch);
    close(c->watch.fd);
    if (c->pending_fd >= 0) {
        close(c->pending_fd);
    }
    buf_fini(&c->in);
    buf_fini(&c->out);
    list_del(&c->node);
    c->server->n_clients--;
    free(c);
}
