/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CLI_RUN_INT_H
#define LODGE_CLI_RUN_INT_H

#include <signal.h>
#include <sys/types.h>

#include "cli/opts.h"
#include "host/runtime.h"
#include "schema/vm_config.h"

struct run_options {
    struct vm_config cfg;
    bool dry_run;
};
extern const struct cli_opt run_opts[];

/* Descriptors a VMM inherits; closed here once it runs. */
enum { RUN_MAX_KEEP = 64, RUN_MAX_HELPERS = VM_MAX_NETS };
struct run {
    struct vm_config *cfg;
    struct runtime_guest guest;
    int keep[RUN_MAX_KEEP];
    unsigned n_keep;
    pid_t helpers[RUN_MAX_HELPERS];
    unsigned n_helpers;
    char *unix_paths[2 + VM_MAX_CHANNELS];        /* sockets we made: removed at the end */
    unsigned n_unix_paths;
    int broker_fd;              /* our end of the channel to the VMM */
    int console_fd;             /* our end of the console, when it is stdio */
    sigset_t signals;           /* blocked from the first file we make on; the relay reads them */
    pid_t vmm;
    int vmm_pidfd;
};

/* Opens everything the definition names and puts the descriptors into the config. */
bool run_open_all(struct run *r, struct err *err);
/* One network helper; its socket goes into the config. */
bool run_start_helper(struct run *r, struct vm_net_config *net, struct err *err);
bool run_start_vmm(struct run *r, struct err *err);
/* Relays console and signals until the VMM ended; returns the exit status. */
int run_relay(struct run *r);

#endif
