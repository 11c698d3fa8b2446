/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starting our own programs: found beside us or where they were installed, with an explicit list of descriptors. */
#ifndef LODGE_HOST_LAUNCH_H
#define LODGE_HOST_LAUNCH_H

#include <sys/types.h>

#include "base/err.h"

/* Path of one of our programs ("lodge-vmm"): in the build tree beside `lodge`, else LIBEXECDIR. The caller frees; NULL with err. */
char *launch_find(const char *program, struct err *err);
/*
 * Forks and executes path with argv. The child keeps stdin, stdout, stderr and `keep` (same numbers), nothing else; its
 * signal mask is empty, handlers default, and it dies with SIGKILL when the parent's thread dies. Returns the pid, -1 with err.
 */
pid_t launch(const char *path, char *const argv[], const int *keep, size_t n_keep, bool own_group, struct err *err);
/* Runs to the end and collects at most `limit` bytes of its stdout; kills it at the deadline. Wait status in *status. */
bool launch_output(const char *path, char *const argv[], unsigned timeout_ms, size_t limit, char **out, int *status, struct err *err);

#endif
