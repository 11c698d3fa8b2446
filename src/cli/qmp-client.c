/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/qmp-client.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"

/* Next line as JSON; NULL with err. */
static struct json_object *read_message(struct qmp_client *q, struct err *err)
{
    for (;;) {
        uint8_t *end = q->in.len ? memchr(q->in.data, '\n', q->in.len) : NULL;
        if (end) {
            size_t len = (size_t)(end - q->in.data);
            struct json_object *o = json_parse((const char *)q->in.data, len, err);
            buf_consume(&q->in, len + 1);
            return o;
        }
        uint64_t now = host_clock_ns();
        struct pollfd p = { .fd = q->fd, .events = POLLIN };
        if (now >= q->deadline_ns || q->in.len > JSON_MAX_TEXT || poll(&p, 1, (int)((q->deadline_ns - now) / NS_PER_MS) + 1) <= 0) {
            err_set(err, ERR_TIMEOUT, "the guest's control socket does not answer");
            return NULL;
        }
        ssize_t n = read(q->fd, buf_reserve(&q->in, 4096), 4096);
        if (n <= 0) {
            err_set(err, ERR_IO, "the guest's control socket was closed");
            return NULL;
        }
        q->in.len += (size_t)n;
    }
}

bool qmp_command(struct qmp_client *q, const char *name, struct err *err)
{
    AUTO_FREE char *text = str_fmt("{\"execute\":\"%s\"}\n", name);
    if (fd_write_full(q->fd, text, strlen(text)) < 0) {
        return err_set_errno(err, errno, "the guest's control socket");
    }
    for (;;) {
        AUTO_JSON struct json_object *o = read_message(q, err);
        struct json_object *e = NULL;
        const char *desc = "command failed";
        if (!o || !json_get_obj(o, "error", &e, err)) {
            return false;
        }
        if (e) {
            json_get_str(e, "desc", &desc, NULL);
            return err_set(err, ERR_GENERIC, "%s: %s", name, desc);
        }
        if (json_object_object_get(o, "return")) {
            return true;
        }
    }
}

bool qmp_connect(struct qmp_client *q, const char *path, unsigned timeout_ms, struct err *err)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    *q = (struct qmp_client){ .fd = -1, .deadline_ns = host_clock_ns() + (uint64_t)timeout_ms * NS_PER_MS };
    if (strlen(path) >= sizeof(sa.sun_path)) {
        return err_set(err, ERR_LIMIT, "socket path %s is too long", path);
    }
    memcpy(sa.sun_path, path, strlen(path));
    q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (q->fd < 0 || connect(q->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        err_set_errno(err, errno, "cannot connect to %s", path);
        qmp_close(q);
        return false;
    }
    AUTO_JSON struct json_object *greeting = read_message(q, err);
    if (!greeting || !qmp_command(q, "qmp_capabilities", err)) {
        qmp_close(q);
        return false;
    }
    return true;
}

void qmp_close(struct qmp_client *q)
{
    if (q->fd >= 0) {
        close(q->fd);
    }
    q->fd = -1;
    buf_fini(&q->in);
}
