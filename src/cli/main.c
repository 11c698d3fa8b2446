/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lodge: the command line. Each subcommand is one file. */
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/str.h"
#include "cli/opts.h"

const struct cli_command *const cli_commands[] = { &cli_run, &cli_ps, &cli_stop, &cli_host, &cli_completion, NULL };

static int completion_run(int argc, char **argv)
{
    struct err err = ERR_INIT;
    int n;
    bool help;
    if (!cli_parse(&cli_completion, argc, argv, NULL, &n, &help, &err)) {
        return cli_fail(EXIT_USAGE, &err);
    }
    if (!help) {
        cli_print_completion();
    }
    return EXIT_SUCCESS;
}

const struct cli_command cli_completion = {
    .name = "completion", .synopsis = "", .summary = "Prints a completion script for bash.", .run = completion_run,
};

static void print_usage(FILE *to)
{
    fprintf(to, "usage: lodge COMMAND [OPTION...]\n\ncommands:\n");
    for (unsigned i = 0; cli_commands[i]; i++) {
        fprintf(to, "  %-12s %s\n", cli_commands[i]->name, cli_commands[i]->summary);
    }
    fprintf(to, "\n'lodge COMMAND --help' explains one; 'lodge --version' prints the version.\n");
}

static int unknown_command(const char *word)
{
    const char *names[ARRAY_SIZE(cli_commands)];
    for (unsigned i = 0; i < ARRAY_SIZE(cli_commands); i++) {
        names[i] = cli_commands[i] ? cli_commands[i]->name : NULL;
    }
    const char *near = str_nearest(word, names);
    if (near) {
        fprintf(stderr, "error: unknown command '%.64s'; did you mean '%s'?\n", word, near);
    } else {
        fprintf(stderr, "error: unknown command '%.64s'; 'lodge --help' lists them\n", word);
    }
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    fd_open_std();
    setlocale(LC_CTYPE, "");
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return EXIT_SUCCESS;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("lodge %s\n", LODGE_VERSION);
        return EXIT_SUCCESS;
    }
    for (unsigned i = 0; cli_commands[i]; i++) {
        if (strcmp(argv[1], cli_commands[i]->name) == 0) {
            return cli_commands[i]->run(argc - 1, argv + 1);
        }
    }
    return unknown_command(argv[1]);
}
