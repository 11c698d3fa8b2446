/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/opts.h"

#include <stdio.h>
#include <string.h>

#include "base/str.h"

enum { MAX_OPTS = 64 };

int cli_fail(int status, const struct err *err)
{
    fprintf(stderr, "error: %s\n", err->msg);
    return status;
}

int cli_status_of(const struct err *err)
{
    switch (err->code) {
    case ERR_INVALID: return EXIT_USAGE;
    case ERR_NOT_FOUND: return EXIT_NOT_FOUND;
    case ERR_EXISTS:
    case ERR_BUSY:
    case ERR_STATE: return EXIT_CONFLICT;
    case ERR_DENIED: return EXIT_DENIED;
    case ERR_TIMEOUT: return EXIT_TIMEOUT;
    default: return EXIT_FAILURE;
    }
}

static const struct cli_opt *find(const struct cli_command *cmd, const char *name, size_t len)
{
    for (const struct cli_opt *o = cmd->opts; o && o->name; o++) {
        if (strlen(o->name) == len && strncmp(o->name, name, len) == 0) {
            return o;
        }
    }
    return NULL;
}

static bool unknown_option(const struct cli_command *cmd, const char *arg, size_t len, struct err *err)
{
    const char *names[MAX_OPTS + 2];
    unsigned n = 0;
    for (const struct cli_opt *o = cmd->opts; o && o->name && n < MAX_OPTS; o++) {
        names[n++] = o->name;
    }
    names[n++] = "help";
    names[n] = NULL;
    AUTO_FREE char *word = str_fmt("%.*s", (int)min_u64(len, 64), arg);
    const char *near = str_nearest(word, names);
    if (near) {
        return err_set(err, ERR_INVALID, "unknown option '--%s'; did you mean '--%s'?", word, near);
    }
    return err_set(err, ERR_INVALID, "unknown option '--%s'; 'lodge %s --help' lists them", word, cmd->name);
}

bool cli_parse(const struct cli_command *cmd, int argc, char **argv, void *ctx, int *n_operands, bool *help, struct err *err)
{
    *n_operands = 0;
    *help = false;
    for (int i = 1; i < argc; i++) {
        char *arg = argv[i];
        if (strcmp(arg, "--") == 0) {
            while (++i < argc) {
                argv[++*n_operands] = argv[i];
            }
            return true;
        }
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            cli_print_help(cmd);
            *help = true;
            return true;
        }
        if (arg[0] != '-' || arg[1] == '\0') {
            argv[++*n_operands] = arg;
            continue;
        }
        if (arg[1] != '-') {
            return err_set(err, ERR_INVALID, "unknown option '%.16s': options begin with two dashes", arg);
        }
        size_t len = strcspn(arg + 2, "=");
        const struct cli_opt *o = find(cmd, arg + 2, len);
        const char *value = arg[2 + len] == '=' ? arg + 2 + len + 1 : NULL;
        if (!o) {
            return unknown_option(cmd, arg + 2, len, err);
        }
        if (!o->arg && value) {
            return err_set(err, ERR_INVALID, "option '--%s' takes no value", o->name);
        }
        if (o->arg && !value) {
            if (++i == argc) {
                return err_set(err, ERR_INVALID, "option '--%s' needs a value: %s", o->name, o->arg);
            }
            value = argv[i];
        }
        if (!o->set(ctx, value, err)) {
            return err_prefix(err, "--%s: ", o->name);
        }
    }
    return true;
}

void cli_print_help(const struct cli_command *cmd)
{
    printf("usage: lodge %s %s\n%s\n", cmd->name, cmd->synopsis, cmd->summary);
    if (cmd->opts && cmd->opts->name) {
        printf("\noptions:\n");
    }
    for (const struct cli_opt *o = cmd->opts; o && o->name; o++) {
        AUTO_FREE char *left = str_fmt("--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        printf(strlen(left) > 28 ? "  %s\n                                %s\n" : "  %-28s  %s\n", left, o->help);
    }
}

void cli_print_completion(void)
{
    printf("# bash completion for lodge; made by 'lodge completion'\n_lodge()\n{\n    local words\n    case ${COMP_WORDS[1]:-} in\n");
    for (unsigned i = 0; cli_commands[i]; i++) {
        printf("    %s) words=\"", cli_commands[i]->name);
        for (const struct cli_opt *o = cli_commands[i]->opts; o && o->name; o++) {
            printf("--%s ", o->name);
        }
        printf("--help\" ;;\n");
    }
    printf("    *) words=\"");
    for (unsigned i = 0; cli_commands[i]; i++) {
        printf("%s ", cli_commands[i]->name);
    }
    printf("\" ;;\n    esac\n    if [ \"$COMP_CWORD\" = 1 ]; then words=\"");
    for (unsigned i = 0; cli_commands[i]; i++) {
        printf("%s ", cli_commands[i]->name);
    }
    printf("--help --version\"; fi\n    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\")\n}\n"
           "complete -o default -F _lodge lodge\n");
}
