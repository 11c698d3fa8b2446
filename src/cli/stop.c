/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <time.h>

#include "base/str.h"
#include "cli/opts.h"
#include "cli/qmp-client.h"
#include "host/runtime.h"

struct stop {
    bool force;
    uint64_t timeout_s;
};

static bool set_force(void *ctx, const char *value, struct err *err)
{
    ((struct stop *)ctx)->force = true;
    return true;
}

static bool set_timeout(void *ctx, const char *value, struct err *err)
{
    struct stop *s = ctx;
    return (str_parse_u64(value, &s->timeout_s) && s->timeout_s <= 86400) || err_set(err, ERR_INVALID, "seconds from 0 to 86400, not '%.32s'", value);
}

static const struct cli_opt opts[] = {
    { "force", NULL, "end the guest at once, without asking it", set_force },
    { "timeout", "SECONDS", "how long the guest may take to power off (60); then it is ended", set_timeout },
    { NULL }
};

/* True when the guest is gone before the deadline. */
static bool wait_gone(const char *name, uint64_t timeout_s)
{
    uint64_t deadline = host_clock_ns() + timeout_s * NS_PER_SEC;
    while (runtime_alive(name)) {
        if (host_clock_ns() >= deadline) {
            return false;
        }
        nanosleep(&(struct timespec){ .tv_nsec = 20 * NS_PER_MS }, NULL);
    }
    return true;
}

static bool send(const char *path, const char *command, struct err *err)
{
    struct qmp_client q;
    bool ok = qmp_connect(&q, path, 5000, err) && qmp_command(&q, command, err);
    qmp_close(&q);
    return ok;
}

static int stop_guest(const struct stop *s, const char *name, struct err *err)
{
    AUTO_JSON struct json_object *status = runtime_status(name, err);
    const char *qmp = NULL;
    if (!status) {
        return cli_fail(cli_status_of(err), err);
    }
    if (!json_get_str(status, "qmp", &qmp, err) || !qmp) {
        err_set(err, ERR_STATE, "guest '%s' is still starting: try again", name);
        return cli_fail(EXIT_CONFLICT, err);
    }
    if (!s->force) {
        if (!send(qmp, "system_powerdown", err)) {
            return runtime_alive(name) ? cli_fail(EXIT_FAILURE, err) : EXIT_SUCCESS;
        }
        if (wait_gone(name, s->timeout_s)) {
            return EXIT_SUCCESS;
        }
        fprintf(stderr, "warning: guest '%s' did not power off within %llu s; ending it\n", name, (unsigned long long)s->timeout_s);
    }
    send(qmp, "quit", NULL);
    if (!wait_gone(name, 10)) {
        err_set(err, ERR_TIMEOUT, "guest '%s' does not end", name);
        return cli_fail(EXIT_TIMEOUT, err);
    }
    return EXIT_SUCCESS;
}

static int stop_run(int argc, char **argv)
{
    struct stop s = { .timeout_s = 60 };
    struct err err = ERR_INIT;
    int n, status = EXIT_SUCCESS;
    bool help;
    if (!cli_parse(&cli_stop, argc, argv, &s, &n, &help, &err)) {
        return cli_fail(EXIT_USAGE, &err);
    }
    if (help) {
        return EXIT_SUCCESS;
    }
    if (n == 0) {
        err_set(&err, ERR_INVALID, "which guest? 'lodge ps' lists them");
        return cli_fail(EXIT_USAGE, &err);
    }
    for (int i = 1; i <= n; i++) {
        int one = stop_guest(&s, argv[i], &err);
        status = one ? one : status;
    }
    return status;
}

const struct cli_command cli_stop = {
    .name = "stop", .synopsis = "[OPTION...] NAME...", .summary = "Presses a guest's power button and waits for it to power off.",
    .opts = opts, .run = stop_run,
};
