/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

/* Where each program lies in a build tree, relative to the folder of `lodge` (build/). */
static const char *const build_dirs[] = { "", "src/vmm/", "src/helpers/slirp/", "src/cli/", NULL };

char *launch_find(const char *program, struct err *err)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n > 0) {
        self[n] = '\0';
        char *slash = strrchr(self, '/');
        slash[1] = '\0';
        for (unsigned up = 0; up < 2; up++) {
            for (unsigned i = 0; build_dirs[i]; i++) {
                char *path = str_fmt("%s%s%s%s", self, up ? "../../" : "", build_dirs[i], program);
                if (access(path, X_OK) == 0) {
                    return path;
                }
                free(path);
            }
        }
    }
    char *path = str_fmt("%s/%s", LODGE_LIBEXECDIR, program);
    if (access(path, X_OK) == 0) {
        return path;
    }
    err_set(err, ERR_NOT_FOUND, "program %s is neither beside lodge nor at %s: the installation is incomplete", program, path);
    free(path);
    return NULL;
}

/* Closes everything above stderr that is not in keep (sorted here). */
static void close_others(const int *keep, size_t n_keep)
{
    unsigned from = 3;
    for (;;) {
        unsigned next = UINT_MAX;
        for (size_t i = 0; i < n_keep; i++) {
            if (keep[i] >= 0 && (unsigned)keep[i] >= from && (unsigned)keep[i] < next) {
                next = (unsigned)keep[i];
            }
        }
        if (next > from) {
            syscall(SYS_close_range, from, next == UINT_MAX ? UINT_MAX : next - 1, 0);
        }
        if (next == UINT_MAX) {
            return;
        }
        fd_set_cloexec((int)next, false);
        from = next + 1;
    }
}

/* What a program of ours gets of our environment; the rest is nobody's business. At most `max` entries and a NULL. */
static void fill_environment(char **out, size_t max)
{
    static const char *const kept[] = { "LODGE_", "TZ=", "PATH=", "HOME=", "ASAN_OPTIONS=", "UBSAN_OPTIONS=", "LSAN_OPTIONS=", "TSAN_OPTIONS=" };
    size_t n = 0;
    for (char **e = environ; *e && n < max; e++) {
        for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
            if (strncmp(*e, kept[i], strlen(kept[i])) == 0) {
                out[n++] = *e;
                break;
            }
        }
    }
    out[n] = NULL;
}

static _Noreturn void child(const char *path, char *const argv[], const int *keep, size_t n_keep, bool own_group, pid_t parent)
{
    enum { MAX_ENV = 64 };
    char *env[MAX_ENV + 1];
    sigset_t none;
    sigemptyset(&none);
    for (int s = 1; s < NSIG; s++) {
        signal(s, SIG_DFL);
    }
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (own_group) {
        setpgid(0, 0);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(127);                     /* died before the line above */
    }
    close_others(keep, n_keep);
    fill_environment(env, MAX_ENV);
    execve(path, argv, env);
    fprintf(stderr, "error: cannot execute %s: %s\n", path, strerror(errno));
    _exit(127);
}

pid_t launch(const char *path, char *const argv[], const int *keep, size_t n_keep, bool own_group, struct err *err)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0) {
        err_set_errno(err, errno, "cannot start %s", path);
        return -1;
    }
    if (pid == 0) {
        child(path, argv, keep, n_keep, own_group, parent);
    }
    return pid;
}

/* Reads until end of file or the deadline; true at end of file. */
static bool collect(int fd, uint64_t deadline_ns, size_t limit, char *out, size_t *len)
{
    for (;;) {
        uint64_t now = host_clock_ns();
        struct pollfd p = { .fd = fd, .events = POLLIN };
        if (now >= deadline_ns || poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1) <= 0) {
            return false;
        }
        char drop[512];
        bool full = *len == limit;
        ssize_t n = read(fd, full ? drop : out + *len, full ? sizeof(drop) : limit - *len);
        if (n <= 0) {
            return n == 0;
        }
        *len += full ? 0 : (size_t)n;
    }
}

bool launch_output(const char *path, char *const argv[], unsigned timeout_ms, size_t limit, char **out, int *status, struct err *err)
{
    int pipefd[2];
    if (pipe2(pipefd, O_CLOEXEC) < 0) {
        return err_set_errno(err, errno, "pipe");
    }
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        dup2(pipefd[1], STDOUT_FILENO);
        child(path, argv, NULL, 0, true, parent);
    }
    close(pipefd[1]);
    if (pid < 0) {
        close(pipefd[0]);
        return err_set_errno(err, errno, "cannot start %s", path);
    }
    char *text = alloc0(limit + 1);
    size_t len = 0;
    bool ended = collect(pipefd[0], host_clock_ns() + (uint64_t)timeout_ms * NS_PER_MS, limit, text, &len);
    close(pipefd[0]);
    if (!ended) {
        kill(-pid, SIGKILL);
        kill(pid, SIGKILL);
    }
    while (waitpid(pid, status, 0) < 0 && errno == EINTR) {
    }
    if (!ended) {
        free(text);
        return err_set(err, ERR_TIMEOUT, "%s did not answer within %u ms", path, timeout_ms);
    }
    *out = text;
    return true;
}
