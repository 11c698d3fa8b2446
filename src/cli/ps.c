/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "cli/opts.h"
#include "host/runtime.h"

struct ps {
    bool json, quiet;
};

static bool set_json(void *ctx, const char *value, struct err *err)
{
    ((struct ps *)ctx)->json = true;
    return true;
}

static bool set_quiet(void *ctx, const char *value, struct err *err)
{
    ((struct ps *)ctx)->quiet = true;
    return true;
}

static const struct cli_opt opts[] = {
    { "json", NULL, "print a JSON array", set_json },
    { "quiet", NULL, "print names only", set_quiet },
    { NULL }
};

static void print_row(struct json_object *g)
{
    const char *name = "-", *engine = "-", *machine = "-";
    uint64_t pid = 0, memory = 0, cpus = 0, started = 0;
    json_get_str(g, "name", &name, NULL);
    json_get_str(g, "engine", &engine, NULL);
    json_get_str(g, "machine", &machine, NULL);
    json_get_u64(g, "pid", &pid, NULL);
    json_get_u64(g, "memory", &memory, NULL);
    json_get_u64(g, "cpus", &cpus, NULL);
    json_get_u64(g, "started", &started, NULL);
    uint64_t up = started ? (uint64_t)time(NULL) - started : 0;
    printf("%-24s %8" PRIu64 "  %-7s %-9s %4" PRIu64 " %8" PRIu64 "M  %" PRIu64 ":%02" PRIu64 ":%02" PRIu64 "\n", name, pid, engine, machine, cpus,
           memory / MIB, up / 3600, up / 60 % 60, up % 60);
}

static int ps_run(int argc, char **argv)
{
    struct ps ps = { 0 };
    struct err err = ERR_INIT;
    int n;
    bool help;
    if (!cli_parse(&cli_ps, argc, argv, &ps, &n, &help, &err)) {
        return cli_fail(EXIT_USAGE, &err);
    }
    if (help) {
        return EXIT_SUCCESS;
    }
    if (n) {
        err_set(&err, ERR_INVALID, "ps takes no operand");
        return cli_fail(EXIT_USAGE, &err);
    }
    AUTO_JSON struct json_object *list = runtime_list(&err);
    if (!list) {
        return cli_fail(cli_status_of(&err), &err);
    }
    if (ps.json) {
        printf("%s\n", json_object_to_json_string_ext(list, JSON_C_TO_STRING_PRETTY));
        return EXIT_SUCCESS;
    }
    if (!ps.quiet) {
        printf("%-24s %8s  %-7s %-9s %4s %9s  %s\n", "NAME", "PID", "ENGINE", "MACHINE", "CPUS", "MEMORY", "UP");
    }
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *g = json_object_array_get_idx(list, i);
        if (ps.quiet) {
            printf("%s\n", json_object_get_string(json_object_object_get(g, "name")));
        } else {
            print_row(g);
        }
    }
    return EXIT_SUCCESS;
}

const struct cli_command cli_ps = {
    .name = "ps", .synopsis = "[OPTION...]", .summary = "Lists running guests.", .opts = opts, .run = ps_run,
};
