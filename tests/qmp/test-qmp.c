/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "qmp/qmp-int.h"
#include "qmp/fake-machine.h"

struct fixture {
    struct machine m;
    struct loop *loop;
    struct qmp_server *server;
    struct sockaddr_un sa;
    socklen_t sa_len;
    int fds_before;
};

struct peer {
    struct fixture *f;
    int fd;
    struct buf in;
};

static int count_fds(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d)) {
        n++;
    }
    closedir(d);
    return n;
}

static void on_quit(void *arg)
{
    machine_quit(arg);
}

static struct json_object *describe(void)
{
    return json_object_new_object();
}

static int setup(void **state)
{
    struct fixture *f = new0(struct fixture);
    f->fds_before = count_fds();
    log_threshold = LOG_ERROR;
    fake_machine_init(&f->m);
    f->loop = loop_create(NULL);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    f->sa.sun_family = AF_UNIX;
    assert_int_equal(bind(fd, (struct sockaddr *)&f->sa, sizeof(sa_family_t)), 0);      /* the kernel picks an abstract name */
    f->sa_len = sizeof(f->sa);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&f->sa, &f->sa_len), 0);
    assert_int_equal(listen(fd, 32), 0);
    struct qmp_config cfg = { .machine = &f->m, .loop = f->loop, .listen_fds = { fd, -1 }, .describe_sandbox = describe, .quit = on_quit, .arg = &f->m };
    f->server = qmp_server_create(&cfg, NULL);
    assert_non_null(f->server);
    *state = f;
    return 0;
}

/* Whatever happened, nothing is left open. */
static int teardown(void **state)
{
    struct fixture *f = *state;
    qmp_server_destroy(f->server, 100);
    loop_destroy(f->loop);
    int left = count_fds();
    bool leak = left != f->fds_before;
    free(f);
    return leak ? -1 : 0;
}

static void turn(struct fixture *f)
{
    while (loop_once(f->loop, 0) > 0) {
    }
}

static struct peer connect_raw(struct fixture *f)
{
    struct peer p = { .f = f, .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) };
    assert_int_equal(connect(p.fd, (struct sockaddr *)&f->sa, f->sa_len), 0);
    fd_set_nonblock(p.fd, true);
    turn(f);
    return p;
}

static void hang_up(struct peer *p)
{
    close(p->fd);
    buf_fini(&p->in);
    turn(p->f);
}

static void say(struct peer *p, const char *text)
{
    assert_int_equal(fd_write_full(p->fd, text, strlen(text)), 0);
    turn(p->f);
}

/* The next line; NULL when there is none. The caller puts it. */
static struct json_object *hear(struct peer *p)
{
    for (;;) {
        uint8_t *end = p->in.len ? memchr(p->in.data, '\n', p->in.len) : NULL;
        if (end) {
            size_t len = (size_t)(end - p->in.data) + 1;
            assert_int_equal(end[-1], '\r');
            struct json_object *o = json_parse((char *)p->in.data, len, NULL);
            assert_non_null(o);
            buf_consume(&p->in, len);
            return o;
        }
        turn(p->f);
        ssize_t n = read(p->fd, buf_reserve(&p->in, 65536), 65536);
        if (n <= 0) {
            return NULL;
        }
        p->in.len += (size_t)n;
    }
}

static bool peer_is_gone(struct peer *p)
{
    char c[4096];
    ssize_t n;
    turn(p->f);
    while ((n = read(p->fd, c, sizeof(c))) > 0) {
        turn(p->f);
    }
    return n == 0 || errno == ECONNRESET;
}

static void hear_text(struct peer *p, const char *want)
{
    AUTO_JSON struct json_object *o = hear(p);
    assert_non_null(o);
    json_object_object_del(o, "timestamp");
    assert_string_equal(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE), want);
}

static void expect_silence(struct peer *p)
{
    AUTO_JSON struct json_object *o = hear(p);
    assert_null(o);
}

static struct peer connect_peer(struct fixture *f)
{
    struct peer p = connect_raw(f);
    AUTO_JSON struct json_object *greeting = hear(&p);
    assert_non_null(json_object_object_get(greeting, "QMP"));
    say(&p, "{\"execute\":\"qmp_capabilities\"}");
    hear_text(&p, "{\"return\":{}}");
    return p;
}

static void test_a_client_is_greeted_and_must_negotiate(void **state)
{
    struct peer p = connect_raw(*state);
    hear_text(&p, "{\"QMP\":{\"version\":{\"qemu\":{\"micro\":0,\"minor\":2,\"major\":7},\"package\":\"lodge-" LODGE_VERSION "\"},\"capabilities\":[]}}");
    say(&p, "{\"execute\":\"query-status\"}");
    hear_text(&p, "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"Expecting capabilities negotiation with 'qmp_capabilities'\"}}");
    say(&p, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}");
    hear_text(&p, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"Capability oob is not available\"}}");
    say(&p, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[7]}}");
    hear_text(&p, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"Invalid parameter type for 'enable[0]', expected: string\"}}");
    say(&p, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[]}}");
    hear_text(&p, "{\"return\":{}}");
    say(&p, "{\"execute\":\"qmp_capabilities\"}");
    hear_text(&p, "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"Capabilities negotiation is already complete, command ignored\"}}");
    say(&p, "{\"execute\":\"query-status\"}");
    hear_text(&p, "{\"return\":{\"status\":\"prelaunch\",\"singlestep\":false,\"running\":false}}");
    hang_up(&p);
}

/* --- the tables --- */

static const struct qmp_type *find_type(const char *name)
{
    for (const struct qmp_type *t = qmp_types; t->name; t++) {
        if (strcmp(t->name, name) == 0) {
            return t;
        }
    }
    return NULL;
}

static void assert_fits(const char *type, struct json_object *v);

static void assert_members_fit(const struct qmp_member *members, struct json_object *v)
{
    int known = 0;
    for (const struct qmp_member *m = members; m && m->name; m++) {
        struct json_object *o;
        bool there = json_object_object_get_ex(v, m->name, &o);
        if (!there && !m->optional) {
            fail_msg("member '%s' is missing in %s", m->name, json_object_to_json_string(v));
        }
        if (there) {
            known++;
            assert_fits(m->type, o);
        }
    }
    assert_int_equal(json_object_object_length(v), known);
}

static void assert_fits(const char *type, struct json_object *v)
{
    if (type[0] == '[') {
        AUTO_FREE char *element = str_fmt("%.*s", (int)strlen(type) - 2, type + 1);
        assert_true(json_object_is_type(v, json_type_array));
        for (size_t i = 0; i < json_object_array_length(v); i++) {
            assert_fits(element, json_object_array_get_idx(v, i));
        }
    } else if (strcmp(type, "str") == 0) {
        assert_true(json_object_is_type(v, json_type_string));
    } else if (strcmp(type, "int") == 0) {
        assert_true(json_object_is_type(v, json_type_int));
    } else if (strcmp(type, "bool") == 0) {
        assert_true(json_object_is_type(v, json_type_boolean));
    } else if (strcmp(type, "any") != 0) {
        const struct qmp_type *t = find_type(type);
        bool found = t && t->members;
        if (!t) {
            fail_msg("type '%s' is not in the schema", type);
        }
        for (unsigned i = 0; !t->members && t->values[i]; i++) {
            found |= strcmp(t->values[i], json_object_get_string(v)) == 0;
        }
        assert_true(found);
        if (t->members) {
            assert_members_fit(t->members, v);
        }
    }
}

static void test_every_command_has_a_handler_and_every_handler_a_command(void **state)
{
    for (const struct qmp_command *c = qmp_commands; c->name; c++) {
        assert_non_null(qmp_handler_find(c->name));
    }
    for (size_t i = 0; qmp_handler_name(i); i++) {
        assert_non_null(qmp_command_find(qmp_handler_name(i)));
    }
}

static struct json_object *ask(struct peer *p, const char *command)
{
    AUTO_FREE char *text = str_fmt("{\"execute\":\"%s\"}", command);
    say(p, text);
    for (;;) {
        AUTO_JSON struct json_object *o = hear(p);
        struct json_object *ret;
        assert_non_null(o);
        if (json_object_object_get_ex(o, "return", &ret)) {
            return json_object_get(ret);
        }
        assert_non_null(json_object_object_get(o, "event"));
    }
}

static void test_every_answer_is_of_the_type_that_the_schema_says(void **state)
{
    struct peer p = connect_peer(*state);
    for (const struct qmp_command *c = qmp_commands; c->name; c++) {
        bool needs_args = false;
        for (const struct qmp_member *m = c->args; m && m->name; m++) {
            needs_args |= !m->optional;
        }
        if (c->before_caps || needs_args || strcmp(c->name, "quit") == 0 || strcmp(c->name, "add-fd") == 0) {
            continue;
        }
        AUTO_JSON struct json_object *ret = ask(&p, c->name);
        if (c->returns) {
            assert_fits(c->returns, ret);
        } else {
            assert_int_equal(json_object_object_length(ret), 0);
        }
    }
    hang_up(&p);
}

/* Every type that the introspection names is described in it, once. */
static void test_the_introspection_is_closed(void **state)
{
    AUTO_JSON struct json_object *list = qmp_introspect();
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *o = json_object_array_get_idx(list, i), *members = NULL;
        static const char *const refs[] = { "arg-type", "ret-type", "element-type" };
        const char *wanted[40];
        size_t n = 0;
        for (size_t r = 0; r < ARRAY_SIZE(refs); r++) {
            const char *name = NULL;
            json_get_str(o, refs[r], &name, NULL);
            if (name) {
                wanted[n++] = name;
            }
        }
        const char *meta = json_object_get_string(json_object_object_get(o, "meta-type"));
        if (strcmp(meta, "object") == 0 && json_get_array(o, "members", &members, NULL) && members) {
            for (size_t k = 0; k < json_object_array_length(members); k++) {
                wanted[n++] = json_object_get_string(json_object_object_get(json_object_array_get_idx(members, k), "type"));
            }
        }
        for (size_t w = 0; w < n; w++) {
            unsigned found = 0;
            for (size_t k = 0; k < json_object_array_length(list); k++) {
                struct json_object *t = json_object_array_get_idx(list, k);
                const char *kind = json_object_get_string(json_object_object_get(t, "meta-type"));
                found += strcmp(json_object_get_string(json_object_object_get(t, "name")), wanted[w]) == 0 && strcmp(kind, "command") != 0 && strcmp(kind, "event") != 0;
            }
            if (found != 1) {
                fail_msg("type '%s' is described %u times", wanted[w], found);
            }
        }
    }
}

/* --- messages --- */

static void test_ids_come_back_whatever_they_are(void **state)
{
    struct peer p = connect_peer(*state);
    say(&p, "{\"execute\":\"query-name\",\"id\":{\"a\":[1,\"x\"]}}{\"id\":null,\"execute\":\"query-name\"}\n{\"execute\":\"nope\",\"id\":-7}");
    hear_text(&p, "{\"return\":{\"name\":\"web1\"},\"id\":{\"a\":[1,\"x\"]}}");
    hear_text(&p, "{\"return\":{\"name\":\"web1\"},\"id\":null}");
    hear_text(&p, "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"The command nope has not been found\"},\"id\":-7}");
    hang_up(&p);
}

static void test_messages_may_come_byte_by_byte_and_hold_braces_in_strings(void **state)
{
    static const char text[] = "  \r\n{ \"execute\" : \"query-name\" , \"id\" : \"}{\\\"]\\\\\" }\n\n";
    struct peer p = connect_peer(*state);
    for (size_t i = 0; text[i]; i++) {
        char c[2] = { text[i], 0 };
        say(&p, c);
    }
    hear_text(&p, "{\"return\":{\"name\":\"web1\"},\"id\":\"}{\\\"]\\\\\"}");
    expect_silence(&p);
    hang_up(&p);
}

static void test_what_is_no_command_is_refused_in_qemus_words(void **state)
{
    static const struct {
        const char *say, *desc;
    } cases[] = {
        { "{\"foo\":1}", "QMP input member 'foo' is unexpected" },
        { "{}", "QMP input lacks member 'execute'" },
        { "{\"execute\":1}", "QMP input member 'execute' must be a string" },
        { "{\"execute\":\"stop\",\"arguments\":[]}", "QMP input member 'arguments' must be an object" },
        { "{\"execute\":\"stop\",\"arguments\":null}", "QMP input member 'arguments' must be an object" },
        { "{\"execute\":\"stop\",\"arguments\":{\"x\":1}}", "Parameter 'x' is unexpected" },
        { "{\"execute\":\"getfd\"}", "Parameter 'fdname' is missing" },
        { "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":5}}", "Invalid parameter type for 'fdname', expected: string" },
        { "[1]\n", "QMP input must be a JSON object" },
        { "12\n", "QMP input must be a JSON object" },
        { "junk\n", "JSON parse error, expecting value" },
        { "\x01\xff\n", "JSON parse error, expecting value" },
    };
    struct peer p = connect_peer(*state);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO_FREE char *want = str_fmt("{\"error\":{\"class\":\"GenericError\",\"desc\":\"%s\"}}", cases[i].desc);
        say(&p, cases[i].say);
        hear_text(&p, want);
    }
    static const char *const broken[] = { "{\"execute\"}", "{'a':1}", "{\"a\":1,\"a\":2}", "{]", "{\"execute\":\"stop\",}", "{\"id\":\"\xff\"}" };
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
        say(&p, broken[i]);
        AUTO_JSON struct json_object *o = hear(&p);
        assert_non_null(json_object_object_get(o, "error"));
    }
    hang_up(&p);
}

static void test_a_message_nested_too_deep_is_refused_and_the_next_understood(void **state)
{
    struct peer p = connect_peer(*state);
    char deep[2001];
    for (int i = 0; i < 1000; i++) {
        deep[i] = '{';
        deep[1000 + i] = '}';
    }
    deep[2000] = '\0';
    say(&p, deep);
    AUTO_JSON struct json_object *o = hear(&p);
    assert_non_null(json_object_object_get(o, "error"));
    say(&p, "{\"execute\":\"query-name\"}");
    hear_text(&p, "{\"return\":{\"name\":\"web1\"}}");
    hang_up(&p);
}

/* --- bounds --- */

static void test_a_message_without_end_ends_the_conversation_and_nobody_elses(void **state)
{
    struct peer bad = connect_peer(*state), good = connect_peer(*state);
    AUTO_FREE char *chunk = alloc0(65537);
    memset(chunk, 'x', 65536);
    say(&bad, "{\"execute\":\"");
    bool dropped = false;
    for (size_t sent = 0; sent < 2 * (size_t)QMP_MAX_IN && !dropped; sent += 65536) {
        ssize_t n = send(bad.fd, chunk, 65536, MSG_NOSIGNAL);
        dropped = n < 0 && errno != EAGAIN;
        turn(*state);
    }
    assert_true(dropped || peer_is_gone(&bad));
    say(&good, "{\"execute\":\"query-name\"}");
    hear_text(&good, "{\"return\":{\"name\":\"web1\"}}");
    hang_up(&bad);
    hang_up(&good);
}

static void test_a_client_that_asks_and_does_not_read_waits(void **state)
{
    struct fixture *f = *state;
    struct peer p = connect_peer(f), good = connect_peer(f);
    static const char cmd[] = "{\"execute\":\"query-qmp-schema\"}";
    size_t asked = 0, heard = 0;
    ssize_t n = 0;
    for (int i = 0; i < 20000 && n >= 0; i++) {
        n = send(p.fd, cmd, sizeof(cmd) - 1, MSG_NOSIGNAL);
        asked += n == sizeof(cmd) - 1;
        turn(f);
    }
    assert_true(n < 0 && errno == EAGAIN);      /* our socket is full: the server stopped reading */
    struct qmp_client *c = container_of(f->server->clients.next, struct qmp_client, node);
    assert_true(c->out.len < 2 * (size_t)QMP_MAX_OUT && c->in.len <= QMP_MAX_IN + 16384);
    say(&good, "{\"execute\":\"query-name\"}");
    hear_text(&good, "{\"return\":{\"name\":\"web1\"}}");
    for (struct json_object *o; (o = hear(&p)) != NULL; heard++) {
        json_object_put(o);
    }
    assert_int_equal(heard, asked);             /* and it goes on where it stopped: nothing is lost */
    hang_up(&p);
    hang_up(&good);
}

static void test_a_client_that_never_reads_events_is_dropped(void **state)
{
    struct fixture *f = *state;
    struct peer p = connect_peer(f);
    for (int i = 0; i < 200000 && f->server->n_clients; i++) {
        fake_machine_tell(&f->m, MACHINE_EV_RESET, true);
        if (i % 1000 == 0) {
            turn(f);
        }
    }
    turn(f);
    assert_int_equal(f->server->n_clients, 0);
    hang_up(&p);
}

static void test_the_seventeenth_client_is_refused(void **state)
{
    struct peer p[QMP_MAX_CLIENTS + 1];
    for (int i = 0; i < QMP_MAX_CLIENTS; i++) {
        p[i] = connect_peer(*state);
    }
    p[QMP_MAX_CLIENTS] = connect_raw(*state);
    assert_true(peer_is_gone(&p[QMP_MAX_CLIENTS]));
    hang_up(&p[0]);
    struct peer again = connect_peer(*state);
    hang_up(&again);
    for (int i = 1; i <= QMP_MAX_CLIENTS; i++) {
        hang_up(&p[i]);
    }
}

/* --- descriptors --- */

static void say_with_fds(struct peer *p, const char *text, const int *fds, size_t n)
{
    assert_int_equal(fd_send(p->fd, text, strlen(text), fds, n), 0);
    turn(p->f);
}

static bool same_file(int a, int b)
{
    struct stat x, y;
    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

static void test_descriptors_are_held_by_name_and_replaced(void **state)
{
    struct fixture *f = *state;
    struct peer p = connect_peer(f);
    int pipe1[2], pipe2[2];
    assert_true(pipe(pipe1) == 0 && pipe(pipe2) == 0);
    say_with_fds(&p, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"tap\"}}", pipe1, 1);
    hear_text(&p, "{\"return\":{}}");
    assert_int_equal(f->server->fds.n, 1);
    assert_true(same_file(f->server->fds.all[0].fd, pipe1[0]));
    assert_true(fcntl(f->server->fds.all[0].fd, F_GETFD) & FD_CLOEXEC);
    say_with_fds(&p, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"tap\"}}", (int[]){ pipe2[0], pipe1[0], pipe1[1] }, 3);
    hear_text(&p, "{\"return\":{}}");
    assert_int_equal(f->server->fds.n, 1);
    assert_true(same_file(f->server->fds.all[0].fd, pipe2[0]));
    say_with_fds(&p, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"0x\"}}", pipe1, 1);
    hear_text(&p, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"Parameter 'fdname' expects a name not starting with a digit\"}}");
    say(&p, "{\"execute\":\"closefd\",\"arguments\":{\"fdname\":\"tap\"}}{\"execute\":\"closefd\",\"arguments\":{\"fdname\":\"tap\"}}");
    hear_text(&p, "{\"return\":{}}");
    hear_text(&p, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"File descriptor named 'tap' not found\"}}");
    assert_int_equal(f->server->fds.n, 0);
    hang_up(&p);
    for (int i = 0; i < 2; i++) {
        close(pipe1[i]);
        close(pipe2[i]);
    }
}

static void test_descriptor_sets_are_numbered_listed_and_removed(void **state)
{
    struct fixture *f = *state;
    struct peer p = connect_peer(f);
    AUTO_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    static const char *const adds[] = {
        "{\"execute\":\"add-fd\"}", "{\"execute\":\"add-fd\",\"arguments\":{\"fdset-id\":5,\"opaque\":\"rw:/disk\"}}",
        "{\"execute\":\"add-fd\",\"arguments\":{\"fdset-id\":5}}", "{\"execute\":\"add-fd\"}",
    };
    static const int sets[] = { 0, 5, 5, 1 };
    for (size_t i = 0; i < ARRAY_SIZE(adds); i++) {
        say_with_fds(&p, adds[i], &null, 1);
        AUTO_FREE char *want = str_fmt("{\"return\":{\"fd\":%d,\"fdset-id\":%d}}", f->server->fds.all[i].fd, sets[i]);
        hear_text(&p, want);
    }
    AUTO_JSON struct json_object *list = ask(&p, "query-fdsets");
    assert_fits("[FdsetInfo]", list);
    assert_int_equal(json_object_array_length(list), 3);
    AUTO_FREE char *remove_one = str_fmt("{\"execute\":\"remove-fd\",\"arguments\":{\"fdset-id\":5,\"fd\":%d}}", f->server->fds.all[1].fd);
    say(&p, remove_one);
    hear_text(&p, "{\"return\":{}}");
    assert_int_equal(f->server->fds.n, 3);
    say(&p, "{\"execute\":\"remove-fd\",\"arguments\":{\"fdset-id\":5}}{\"execute\":\"remove-fd\",\"arguments\":{\"fdset-id\":5}}");
    hear_text(&p, "{\"return\":{}}");
    hear_text(&p, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"File descriptor named 'fdset-id:5' not found\"}}");
    say(&p, "{\"execute\":\"add-fd\",\"arguments\":{\"fdset-id\":-1}}");
    hear_text(&p, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"Parameter 'fdset-id' expects a non-negative value\"}}");
    for (unsigned i = f->server->fds.n; i < QMP_MAX_FDS; i++) {
        say_with_fds(&p, adds[0], &null, 1);
        AUTO_JSON struct json_object *o = hear(&p);
        assert_non_null(json_object_object_get(o, "return"));
    }
    say_with_fds(&p, adds[0], &null, 1);
    hear_text(&p, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"At most 64 file descriptors can be held\"}}");
    hang_up(&p);
}

static void test_a_message_about_descriptors_without_one_is_refused(void **state)
{
    struct peer p = connect_peer(*state);
    say(&p, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"a\"}}{\"execute\":\"add-fd\"}");
    hear_text(&p, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"No file descriptor supplied via SCM_RIGHTS\"}}");
    hear_text(&p, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"No file descriptor supplied via SCM_RIGHTS\"}}");
    hang_up(&p);
}

/* --- events --- */

static void test_life_cycle_commands_act_and_tell_every_client(void **state)
{
    struct fixture *f = *state;
    struct peer a = connect_peer(f), b = connect_peer(f), deaf = connect_raw(f);
    json_object_put(hear(&deaf));
    say(&a, "{\"execute\":\"cont\"}{\"execute\":\"stop\"}{\"execute\":\"stop\"}{\"execute\":\"system_reset\"}{\"execute\":\"system_powerdown\"}");
    hear_text(&a, "{\"event\":\"RESUME\"}");
    hear_text(&a, "{\"return\":{}}");
    hear_text(&a, "{\"event\":\"STOP\"}");
    hear_text(&a, "{\"return\":{}}");
    hear_text(&a, "{\"return\":{}}");
    hear_text(&a, "{\"event\":\"RESET\",\"data\":{\"guest\":false,\"reason\":\"host-qmp-system-reset\"}}");
    hear_text(&a, "{\"return\":{}}");
    hear_text(&a, "{\"event\":\"POWERDOWN\"}");
    hear_text(&a, "{\"return\":{}}");
    AUTO_JSON struct json_object *o = hear(&b);
    struct json_object *stamp = json_object_object_get(o, "timestamp");
    assert_true(json_object_get_int64(json_object_object_get(stamp, "seconds")) > 1500000000);
    assert_true(json_object_get_int64(json_object_object_get(stamp, "microseconds")) < 1000000);
    hear_text(&b, "{\"event\":\"STOP\"}");
    fake_machine_tell(&f->m, MACHINE_EV_RESET, true);
    hear_text(&a, "{\"event\":\"RESET\",\"data\":{\"guest\":true,\"reason\":\"guest-reset\"}}");
    expect_silence(&deaf);
    hang_up(&a);
    hang_up(&b);
    hang_up(&deaf);
}

static void test_the_end_says_why(void **state)
{
    static const struct {
        int why;
        bool by_guest;
        const char *text;
    } ends[] = {
        { END_SHUTDOWN, true, "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-shutdown\"}}" },
        { END_RESET, true, "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-reset\"}}" },
        { END_TRIPLE_FAULT, true, "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-reset\"}}" },
        { END_DEBUG_EXIT, true, "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-shutdown\"}}" },
        { END_PANIC, true, "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-panic\"}}" },
        { END_ERROR, true, "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":false,\"reason\":\"host-error\"}}" },
        { END_QUIT, false, "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":false,\"reason\":\"host-signal\"}}" },
    };
    struct fixture *f = *state;
    struct peer p = connect_peer(f);
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        fake_machine_end(&f->m, ends[i].why, ends[i].by_guest);
        if (ends[i].why == END_PANIC) {
            hear_text(&p, "{\"event\":\"GUEST_PANICKED\",\"data\":{\"action\":\"poweroff\"}}");
        }
        hear_text(&p, ends[i].text);
    }
    say(&p, "{\"execute\":\"cont\"}");
    hear_text(&p, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"Resetting the Virtual Machine is required\"}}");
    say(&p, "{\"execute\":\"quit\"}");
    hear_text(&p, "{\"return\":{}}");
    hear_text(&p, "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":false,\"reason\":\"host-qmp-quit\"}}");
    hang_up(&p);
}

static void test_x_inspect_names_devices_and_the_sandbox(void **state)
{
    struct peer p = connect_peer(*state);
    say(&p, "{\"execute\":\"x-inspect\"}{\"execute\":\"x-inspect\",\"arguments\":{\"device\":\"rtc\"}}{\"execute\":\"x-inspect\",\"arguments\":{\"device\":\"no\"}}");
    hear_text(&p, "{\"return\":{\"devices\":{},\"sandbox\":{}}}");
    hear_text(&p, "{\"return\":{\"cmos\":{}}}");
    hear_text(&p, "{\"error\":{\"class\":\"DeviceNotFound\",\"desc\":\"Device 'no' not found\"}}");
    hang_up(&p);
}

static void test_cpus_are_told_with_their_place_in_the_topology(void **state)
{
    struct peer p = connect_peer(*state);
    AUTO_JSON struct json_object *list = ask(&p, "query-cpus-fast");
    assert_int_equal(json_object_array_length(list), 4);
    assert_string_equal(json_object_to_json_string_ext(json_object_array_get_idx(list, 3), JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE),
                        "{\"thread-id\":1003,\"props\":{\"core-id\":1,\"thread-id\":1,\"socket-id\":0},\"qom-path\":\"/machine/unattached/device[3]\","
                        "\"cpu-index\":3,\"target\":\"x86_64\"}");
    hang_up(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_client_is_greeted_and_must_negotiate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_command_has_a_handler_and_every_handler_a_command, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_answer_is_of_the_type_that_the_schema_says, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_introspection_is_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ids_come_back_whatever_they_are, setup, teardown),
        cmocka_unit_test_setup_teardown(test_messages_may_come_byte_by_byte_and_hold_braces_in_strings, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_no_command_is_refused_in_qemus_words, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_message_nested_too_deep_is_refused_and_the_next_understood, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_message_without_end_ends_the_conversation_and_nobody_elses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_client_that_asks_and_does_not_read_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_client_that_never_reads_events_is_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_seventeenth_client_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptors_are_held_by_name_and_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptor_sets_are_numbered_listed_and_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_message_about_descriptors_without_one_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_life_cycle_commands_act_and_tell_every_client, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_end_says_why, setup, teardown),
        cmocka_unit_test_setup_teardown(test_x_inspect_names_devices_and_the_sandbox, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cpus_are_told_with_their_place_in_the_topology, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
