/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket against any client: framing, JSON, argument checks, handlers. The input is what a client sends, in
 * pieces whose lengths its bytes choose; 0xfe sends a descriptor along. What must hold: every answer is one JSON line,
 * nothing leaks, and afterwards another client is served.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "qmp/fake-machine.h"
#include "qmp/qmp-int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "qmp: %s\n", what);
        abort();
    }
}

static void turn(struct loop *loop)
{
    while (loop_once(loop, 0) > 0) {
    }
}

/* Reads what the server said; whole lines must be JSON. */
static void hear(int fd, struct buf *in)
{
    ssize_t n;
    while ((n = recv(fd, buf_reserve(in, 65536), 65536, MSG_DONTWAIT)) > 0) {
        in->len += (size_t)n;
    }
    uint8_t *end;
    while (in->len && (end = memchr(in->data, '\n', in->len)) != NULL) {
        size_t len = (size_t)(end - in->data) + 1;
        AUTO_JSON struct json_object *o = json_parse((char *)in->data, len, NULL);
        must(o != NULL, "an answer is no JSON");
        buf_consume(in, len);
    }
}

static void on_quit(void *arg) {}

static int connect_to(struct qmp_server *s)
{
    int pair[2];
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0, "socketpair");
    must(qmp_client_create(s, pair[0]), "no client");
    return pair[1];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct machine m;
    struct loop *loop = loop_create(NULL);
    AUTO_BUF struct buf in = { 0 };
    static const char hello[] = "{\"execute\":\"qmp_capabilities\"}";
    log_threshold = LOG_ERROR;
    fake_machine_init(&m);
    struct qmp_config cfg = { .machine = &m, .loop = loop, .listen_fds = { -1, -1 }, .quit = on_quit };
    struct qmp_server *s = qmp_server_create(&cfg, NULL);
    int fd = connect_to(s);
    while (size) {
        size_t len = (size_t)min_u64(*data, size - 1);
        bool with_fd = *data == 0xfe;
        if (len && fd_send(fd, data + 1, len, &fd, with_fd) < 0) {
            break;
        }
        data += 1 + len;
        size -= 1 + len;
        turn(loop);
        hear(fd, &in);
    }
    int other = connect_to(s);
    AUTO_BUF struct buf heard = { 0 };
    must(fd_send(other, hello, sizeof(hello) - 1, NULL, 0) == 0, "another client is not served");
    turn(loop);
    hear(other, &heard);
    must(s->n_clients >= 1, "another client was dropped");
    qmp_server_destroy(s, 0);
    close(fd);
    close(other);
    loop_destroy(loop);
    return 0;
}
