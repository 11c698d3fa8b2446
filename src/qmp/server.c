/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "qmp/qmp-int.h"

static void client_free(struct qmp_client *c)
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

static void flush(struct qmp_client *c)
{
    while (c->out.len) {
        ssize_t n = send(c->watch.fd, c->out.data, c->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            c->dead |= errno != EAGAIN && errno != EINTR;
            break;
        }
        buf_consume(&c->out, (size_t)n);
    }
    /* a client that does not read gets no further commands done */
    loop_fd_mod(&c->watch, (c->out.len < QMP_MAX_OUT / 2 ? EPOLLIN : 0) | (c->out.len ? EPOLLOUT : 0));
}

static void queue(struct qmp_client *c, struct json_object *o)
{
    const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    size_t len = strlen(text);
    if (c->out.len + len > 2 * QMP_MAX_OUT) {
        c->dead = true;
    } else if (!c->dead) {
        buf_add(&c->out, text, len);
        buf_add(&c->out, "\r\n", 2);
    }
}

static const char *error_class(const struct err *err)
{
    return err->code == ERR_UNSUPPORTED ? "CommandNotFound" : err->code == ERR_NOT_FOUND ? "DeviceNotFound" : "GenericError";
}

/* Takes over `ret` and `id` (a new reference). */
static void answer(struct qmp_client *c, struct json_object *ret, const struct err *err, struct json_object *id)
{
    AUTO_JSON struct json_object *o = json_object_new_object();
    if (err) {
        struct json_object *e = json_object_new_object();
        json_object_object_add(e, "class", json_object_new_string(error_class(err)));
        json_object_object_add(e, "desc", json_object_new_string(err->msg));
        json_object_object_add(o, "error", e);
    } else {
        json_object_object_add(o, "return", ret ? ret : json_object_new_object());
    }
    if (id) {
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
        return NULL;
    }
    if (!fn || (c->negotiated && cmd->before_caps)) {
        err_set(err, ERR_UNSUPPORTED, fn ? "Capabilities negotiation is already complete, command ignored" : "The command %.64s has not been found", name);
        return NULL;
    }
    return qmp_args_check(cmd, call.args, err) ? fn(&call, err) : NULL;
}

static void on_message(struct qmp_client *c, const uint8_t *data, size_t len)
{
    struct err err = ERR_INIT;
    AUTO_JSON struct json_object *o = json_parse((const char *)data, len, &err);
    struct json_object *ret = o ? execute(c, o, &err) : NULL;
    answer(c, ret, ret ? NULL : &err, o ? json_object_object_get(o, "id") : NULL);
}

static void on_input(struct qmp_client *c)
{
    size_t len;
    for (;;) {
        enum qmp_frame f = qmp_frame_next(&c->framer, c->in.data, c->in.len, &len);
        if (f == QMP_FRAME_MORE) {
            break;
        }
        if (f == QMP_FRAME_DONE) {
            on_message(c, c->in.data, len);
        } else if (f == QMP_FRAME_JUNK) {
            answer(c, NULL, &(struct err){ ERR_INVALID, "JSON parse error, expecting value" }, NULL);
        }
        buf_consume(&c->in, len);
    }
    c->dead |= c->in.len > QMP_MAX_IN;
}

static void on_client(struct loop_fd *w, uint32_t events)
{
    struct qmp_client *c = container_of(w, struct qmp_client, watch);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        uint8_t chunk[16384];
        int fds[4];
        size_t n_fds = ARRAY_SIZE(fds);
        ssize_t n = fd_recv(w->fd, chunk, sizeof(chunk), fds, &n_fds);
        for (size_t i = 0; n > 0 && i < n_fds; i++) {
            if (c->pending_fd >= 0) {
                close(c->pending_fd);
            }
            c->pending_fd = fds[i];
        }
        if (n > 0) {
            buf_add(&c->in, chunk, (size_t)n);
            on_input(c);
        } else {
            c->dead |= n == 0 || (n != -EAGAIN && n != -EINTR);
        }
    }
    if (!c->dead) {
        flush(c);
    }
    if (c->dead) {
        client_free(c);
    }
}

static void greet(struct qmp_client *c)
{
    struct err err = ERR_INIT;
    struct qmp_call call = { .server = c->server, .client = c };
    AUTO_JSON struct json_object *o = json_object_new_object();
    struct json_object *q = json_object_new_object();
    json_object_object_add(q, "version", qmp_handler_find("query-version")(&call, &err));
    json_object_object_add(q, "capabilities", json_object_new_array());
    json_object_object_add(o, "QMP", q);
    queue(c, o);
    flush(c);
}

