/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <string.h>

#include "cli/opts.h"
#include "host/caps.h"

static bool set_json(void *ctx, const char *value, struct err *err)
{
    *(bool *)ctx = true;
    return true;
}

static const struct cli_opt opts[] = {
    { "json", NULL, "print a JSON array", set_json },
    { NULL }
};

static const char *member(struct json_object *o, const char *key)
{
    const char *s = NULL;
    json_get_str(o, key, &s, NULL);
    return s;
}

static int host_run(int argc, char **argv)
{
    bool json = false, help, failed = false;
    struct err err = ERR_INIT;
    int n;
    if (!cli_parse(&cli_host, argc, argv, &json, &n, &help, &err)) {
        return cli_fail(EXIT_USAGE, &err);
    }
    if (help) {
        return EXIT_SUCCESS;
    }
    if (n) {
        err_set(&err, ERR_INVALID, "host takes no operand");
        return cli_fail(EXIT_USAGE, &err);
    }
    AUTO_JSON struct json_object *list = host_checks(true);
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        const char *result = member(o, "result"), *advice = member(o, "advice");
        failed |= strcmp(result, "fail") == 0;
        if (!json) {
            printf("%-4s  %-22s %s\n", result, member(o, "check"), member(o, "detail"));
            if (advice) {
                printf("                              -> %s\n", advice);
            }
        }
    }
    if (json) {
        printf("%s\n", json_object_to_json_string_ext(list, JSON_C_TO_STRING_PRETTY));
    }
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

const struct cli_command cli_host = {
    .name = "host", .synopsis = "[OPTION...]", .summary = "Tells what this host offers guests and what to do about the rest.", .opts = opts, .run = host_run,
};
