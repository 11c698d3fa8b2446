/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lodge-vmm: one guest. Everything it may touch comes as a descriptor in its config; the order of start is the one of
 * machine.h: create, close the sandbox, then parse what strangers wrote.
 */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "machine/machine.h"
#include "qmp/qmp.h"
#include "vmm/probe.h"
#include "vmm/sandbox.h"

enum { CONFIG_MAX = 1 * MIB, END_FLUSH_MS = 1000 };

struct vmm {
    struct vm_config cfg;
    struct loop *main_loop, *io_loop;
    pthread_t io_thread;
    bool io_started, reported;
    struct machine *machine;
    struct qmp_server *qmp;
    struct machine_listener listener;
    struct loop_fd broker;
};

static void send_broker(struct vmm *v, struct json_object *o)
{
    const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
    if (v->cfg.broker_fd >= 0) {
        send((int)v->cfg.broker_fd, text, strlen(text), MSG_NOSIGNAL);
    }
    json_object_put(o);
}

static void report_error(struct vmm *v, const char *msg)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "event", json_object_new_string("error"));
    json_object_object_add(o, "message", json_object_new_string(msg));
    send_broker(v, o);
    if (v->cfg.broker_fd < 0) {
        fprintf(stderr, "error: %s\n", msg);
    }
    v->reported = true;
}

static void report_end(struct vmm *v, const char *msg)
{
    static const char *const why[] = { "shutdown", "reset", "debug-exit", "triple-fault", "panic", "error", "quit" };
    const struct machine_end *end = machine_end(v->machine);
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "event", json_object_new_string("end"));
    json_object_object_add(o, "why", json_object_new_string(why[end->why]));
    json_object_object_add(o, "code", json_object_new_int64(end->code));
    if (msg) {
        json_object_object_add(o, "message", json_object_new_string(msg));
    }
    send_broker(v, o);
}

static void on_event(struct machine_listener *l, enum machine_event ev, bool by_guest, const char *msg)
{
    struct vmm *v = container_of(l, struct vmm, listener);
    if (machine_end(v->machine)->over && !v->reported) {
        report_end(v, msg);
        v->reported = true;
        loop_quit(v->main_loop);
    }
}

/* The broker asks to quit, or is gone. */
static void on_broker(struct loop_fd *w, uint32_t events)
{
    struct vmm *v = container_of(w, struct vmm, broker);
    char msg[4096];
    ssize_t n = recv(w->fd, msg, sizeof(msg), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    AUTO_JSON struct json_object *o = n > 0 ? json_parse(msg, (size_t)n, NULL) : NULL;
    const char *command = NULL;
    if (o) {
        json_get_str(o, "command", &command, NULL);
    }
    if (n <= 0) {
        loop_fd_del(w);
    }
    if (n <= 0 || (command && strcmp(command, "quit") == 0)) {
        machine_quit(v->machine);
    }
}

static void on_qmp_quit(void *arg)
{
    machine_quit(((struct vmm *)arg)->machine);
}

static void *io_main(void *arg)
{
    pthread_setname_np(pthread_self(), "io");
    loop_run(arg);
    return NULL;
}

static bool read_config(struct vmm *v, int fd, struct err *err)
{
    size_t len;
    AUTO_FREE char *text = fd_read_file(fd, CONFIG_MAX, &len, err);
    AUTO_JSON struct json_object *o = text ? json_parse(text, len, err) : NULL;
    close(fd);
    return (o && vm_config_from_json(&v->cfg, o, true, err) && vm_config_check(&v->cfg, err)) || err_prefix(err, "config: ");
}

static void set_log(const struct vm_config *c)
{
    enum log_level level = LOG_INFO;
    if (c->log_fd >= 0) {
        log_to_fd((int)c->log_fd);
        log_threshold = LOG_INFO;
    } else if (c->log && log_level_parse(c->log, &level)) {
        log_threshold = (int)level;
    }
}

/* What the C library would do later by opening files: it reads the time zone now, and it keeps one heap. */
static void settle_libc(void)
{
    if (!getenv("TZ")) {
        setenv("TZ", ":/etc/localtime", 1);
    }
    tzset();
    mallopt(M_ARENA_MAX, 1);            /* shrinking a second one looks into /proc */
}

static void on_vcpu_thread(struct engine *e, struct vcpu *vcpu)
{
    sandbox_thread(SANDBOX_VCPU);
}

struct narrow_io {
    struct loop_call call;
    sem_t done;
};

static void on_io_thread(struct loop_call *call)
{
    sandbox_thread(SANDBOX_IO);
    sem_post(&container_of(call, struct narrow_io, call)->done);
}

/* Everything is there; after this the guest's bytes may be parsed. */
static bool close_sandbox(struct vmm *v, struct err *err)
{
    struct narrow_io io = { .call.fn = on_io_thread };
    list_init(&io.call.node);
    sem_init(&io.done, 0, 0);
    if (!sandbox_close(err)) {
        return err_prefix(err, "sandbox: ");
    }
    machine_engine(v->machine)->on_thread = on_vcpu_thread;
    loop_post(v->io_loop, &io.call);    /* not loop_run_sync: a loop that does not run yet would do it here */
    while (sem_wait(&io.done) < 0) {
    }
    sem_destroy(&io.done);
    sandbox_thread(SANDBOX_MAIN);
    return true;
}

static bool start(struct vmm *v, struct err *err)
{
    settle_libc();
    if (v->cfg.sandbox && !sandbox_enter(err)) {
        return err_prefix(err, "sandbox: ");
    }
    v->main_loop = loop_create(err);
    v->io_loop = v->main_loop ? loop_create(err) : NULL;
    v->machine = v->io_loop ? machine_create(&v->cfg, v->main_loop, v->io_loop, err) : NULL;
    if (!v->machine) {
        return false;
    }
    int rc = pthread_create(&v->io_thread, NULL, io_main, v->io_loop);
    if (rc != 0) {
        return err_set_errno(err, rc, "cannot start the I/O thread");
    }
    v->io_started = true;
    struct qmp_config qc = { .machine = v->machine, .loop = v->main_loop, .listen_fds = { (int)v->cfg.qmp_fd, (int)v->cfg.qmp_user_fd },
                             .describe_sandbox = sandbox_describe, .quit = on_qmp_quit, .arg = v };
    v->qmp = qmp_server_create(&qc, err);
    if (!v->qmp) {
        return false;
    }
    v->listener.event = on_event;
    machine_listen(v->machine, &v->listener);
    if (v->cfg.broker_fd >= 0) {
        v->broker.fd = (int)v->cfg.broker_fd;
        v->broker.fn = on_broker;
        if (!loop_fd_add(v->main_loop, &v->broker, EPOLLIN, err)) {
            return false;
        }
    }
    return (!v->cfg.sandbox || close_sandbox(v, err)) && machine_boot(v->machine, err);
}

static void stop(struct vmm *v)
{
    if (v->qmp) {
        qmp_server_destroy(v->qmp, END_FLUSH_MS);
    }
    if (v->io_started) {
        loop_quit(v->io_loop);
        pthread_join(v->io_thread, NULL);
    }
    loop_fd_del(&v->broker);
    machine_destroy(v->machine);
    loop_destroy(v->io_loop);
    loop_destroy(v->main_loop);
    vm_config_fini(&v->cfg);
}

static int run(int config_fd)
{
    struct vmm v = { .reported = false };
    struct err err = ERR_INIT;
    signal(SIGPIPE, SIG_IGN);
    vm_config_init(&v.cfg);
    list_init(&v.listener.node);
    bool ok = read_config(&v, config_fd, &err);
    if (ok) {
        set_log(&v.cfg);
        ok = start(&v, &err);
    }
    if (!ok) {
        report_error(&v, err.msg);
    } else {
        struct json_object *o = json_object_new_object();
        json_object_object_add(o, "event", json_object_new_string("ready"));
        send_broker(&v, o);
        if (!v.cfg.paused) {
            machine_start(v.machine);
        }
        loop_run(v.main_loop);
    }
    stop(&v);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    uint64_t fd;
    const char *value;
    if (argc == 2 && strcmp(argv[1], "--probe") == 0) {
        return probe_main();
    }
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("lodge-vmm %s\n", LODGE_VERSION);
        return EXIT_SUCCESS;
    }
    if (argc == 2 && (value = str_after(argv[1], "--config-fd=")) && str_parse_u64(value, &fd) && fd <= INT32_MAX) {
        return run((int)fd);
    }
    fprintf(stderr, "usage: lodge-vmm --config-fd=N | --probe | --version\nStarted by 'lodge run'; see lodge(1).\n");
    return 2;
}
