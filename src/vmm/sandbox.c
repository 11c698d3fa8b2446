/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The layers in their order. What one thread can do for all that follow is done in sandbox_enter; the filter of system calls
 * comes last, in sandbox_close, when nothing new is needed any more.
 */
#include "vmm/sandbox.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/sandbox-int.h"

/* A sanitizer's run time opens /proc/self/maps and starts a symbolizer when it has something to say. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool sanitized = true;
#else
static const bool sanitized = false;
#endif

static const char *const layer_names[N_SANDBOX_LAYERS] = {
    [LAYER_LIMITS] = "limits",
    [LAYER_NAMESPACES] = "namespaces",
    [LAYER_PRIVATE_ROOT] = "private-root",
    [LAYER_OWN_USER] = "own-user",
    [LAYER_USER_NAMESPACE] = "user-namespace",
    [LAYER_CAPABILITIES] = "no-capabilities",
    [LAYER_NO_NEW_PRIVS] = "no-new-privileges",
    [LAYER_UNDUMPABLE] = "not-dumpable",
    [LAYER_LANDLOCK] = "landlock",
    [LAYER_SECCOMP] = "seccomp",
};

/* One process, one sandbox: written by one thread before any other exists, or by sandbox_close. */
static struct {
    bool entered;
    char text[N_SANDBOX_LAYERS][160];
} state;

void sandbox_note(enum sandbox_layer layer, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(state.text[layer], sizeof(state.text[layer]), fmt, ap);
    va_end(ap);
    log_info("sandbox", "%s: %s", layer_names[layer], state.text[layer]);
}

bool sandbox_host_lacks(int en)
{
    return en == EPERM || en == EACCES || en == ENOSYS || en == EINVAL || en == ENOSPC || en == EOPNOTSUPP || en == EUSERS;
}

/* File sizes stay free: a raw disk may be of any size. */
bool sandbox_limits(struct err *err)
{
    enum { MAX_FDS = 1024 };
    struct rlimit files, none = { 0, 0 };
    if (getrlimit(RLIMIT_NOFILE, &files) < 0) {
        return err_set_errno(err, errno, "limits");
    }
    files.rlim_max = min_u64(files.rlim_max, MAX_FDS);
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) < 0 || setrlimit(RLIMIT_CORE, &none) < 0 || setrlimit(RLIMIT_MSGQUEUE, &none) < 0) {
        return err_set_errno(err, errno, "limits");
    }
    sandbox_note(LAYER_LIMITS, "on: %llu descriptors, no core dump", (unsigned long long)files.rlim_max);
    return true;
}

/* The kernel forgets the parent-death signal whenever credentials change. */
static bool keep_death_signal(int sig, pid_t parent, struct err *err)
{
    if (sig && prctl(PR_SET_PDEATHSIG, sig) < 0) {
        return err_set_errno(err, errno, "parent-death signal");
    }
    if (sig && getppid() != parent) {
        _exit(EXIT_FAILURE);            /* it died in between */
    }
    return true;
}

bool sandbox_enter(struct err *err)
{
    int death_signal = 0;
    pid_t parent = getppid();
    state.entered = true;
    if (sanitized) {
        for (int i = 0; i < N_SANDBOX_LAYERS; i++) {
            sandbox_note((enum sandbox_layer)i, "absent: built with a sanitizer");
        }
        return true;
    }
    if (prctl(PR_GET_PDEATHSIG, &death_signal) < 0 || !sandbox_limits(err) || !sandbox_namespaces(err) ||
        !keep_death_signal(death_signal, parent, err)) {
        return false;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        return err_set_errno(err, errno, "no new privileges");
    }
    sandbox_note(LAYER_NO_NEW_PRIVS, "on");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
        return err_set_errno(err, errno, "not dumpable");
    }
    sandbox_note(LAYER_UNDUMPABLE, "on");
    return sandbox_landlock(err);
}

bool sandbox_close(struct err *err)
{
    return sanitized || sandbox_seccomp(err);
}

struct json_object *sandbox_describe(void)
{
    struct json_object *o = json_object_new_object(), *layers = json_object_new_object();
    json_object_object_add(o, "on", json_object_new_boolean(state.entered));
    for (int i = 0; i < N_SANDBOX_LAYERS; i++) {
        const char *text = state.text[i][0] ? state.text[i] : state.entered ? "not yet" : "off";
        json_object_object_add(layers, layer_names[i], json_object_new_string(text));
    }
    json_object_object_add(o, "layers", layers);
    return o;
}
