/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Option tables: one row drives parsing, --help, completion and the man-page check. */
#ifndef LODGE_CLI_OPTS_H
#define LODGE_CLI_OPTS_H

#include "base/err.h"

struct cli_opt {
    const char *name;           /* without the dashes */
    const char *arg;            /* what --help calls its value; NULL: takes none */
    const char *help;
    bool (*set)(void *ctx, const char *value, struct err *err);
};

struct cli_command {
    const char *name;
    const char *synopsis;       /* after the name: "[OPTION...] NAME" */
    const char *summary;
    const struct cli_opt *opts; /* ends with a row without a name; --help is added */
    int (*run)(int argc, char **argv);
};
extern const struct cli_command *const cli_commands[];

/*
 * Parses argv[1..]: "--name value" and "--name=value", "--" ends options. Operands are moved to the front of argv + 1;
 * *n_operands says how many. False with err: exit status 2. *help: --help was given and printed to stdout.
 */
bool cli_parse(const struct cli_command *cmd, int argc, char **argv, void *ctx, int *n_operands, bool *help, struct err *err);
void cli_print_help(const struct cli_command *cmd);
/* "error: ..." to stderr; returns status. */
int cli_fail(int status, const struct err *err);
/* Exit statuses. Source: docs/cli.md. */
enum { EXIT_USAGE = 2, EXIT_NOT_FOUND = 3, EXIT_CONFLICT = 4, EXIT_DENIED = 5, EXIT_TIMEOUT = 124, EXIT_OWN_FAILURE = 125 };
int cli_status_of(const struct err *err);
/* Bash completion script to stdout. */
void cli_print_completion(void);

extern const struct cli_command cli_run, cli_ps, cli_stop, cli_host, cli_completion;

#endif
