/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Installing the filters. First the one for all threads at once; then main, the I/O thread and each vCPU put their own on
 * top. Block workers keep the first. LODGE_SECCOMP=trap names a forbidden call on stderr before the process ends.
 */
#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/filter.h"
#include "vmm/sandbox-int.h"

static struct {
    bool closed;
    uint32_t deny, self;
} seccomp;

static bool install(enum filter_kind kind, unsigned flags, struct err *err)
{
    struct sock_filter code[FILTER_MAX];
    size_t n = filter_build(kind, seccomp.deny, seccomp.self, code);
    struct sock_fprog prog = { (unsigned short)n, code };
    if (n > FILTER_MAX) {
        return err_set(err, ERR_LIMIT, "seccomp: a filter of %zu steps is too long", n);
    }
    long rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
    return rc == 0 || err_set_errno(err, rc > 0 ? EBUSY : errno, "seccomp");
}

/* Not async-signal-safe, and need not be: the process is over, this only says why. */
static void on_sigsys(int sig, siginfo_t *si, void *uc)
{
    static char line[256];
    const char *name = "?";
    for (size_t i = 0; i < n_filter_rules; i++) {
        name = filter_rules[i].nr == (uint32_t)si->si_syscall ? filter_rules[i].name : name;
    }
    char thread[16] = "";
    if (gettid() != getpid()) {
        snprintf(thread, sizeof(thread), " (thread %d)", gettid() - getpid());
    }
    int n = snprintf(line, sizeof(line), "error: sandbox: system call %d (%s) is forbidden%s\n", si->si_syscall, name, thread);
    _exit(write(STDERR_FILENO, line, (size_t)n) < 0 ? EXIT_FAILURE : 128 + SIGSYS);
}

/* A blocked signal would end the process without a word. */
static void unblock_trap(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGSYS);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

bool sandbox_seccomp(struct err *err)
{
    const char *mode = getenv("LODGE_SECCOMP");
    bool trap = mode && strcmp(mode, "trap") == 0;
    seccomp.deny = trap ? SECCOMP_RET_TRAP : SECCOMP_RET_KILL_PROCESS;
    seccomp.self = (uint32_t)getpid();
    if (trap) {
        struct sigaction sa = { .sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO };
        sigaction(SIGSYS, &sa, NULL);
        unblock_trap();
    }
    if (!install(FILTER_ALL, SECCOMP_FILTER_FLAG_TSYNC, err)) {
        return false;
    }
    seccomp.closed = true;
    sandbox_note(LAYER_SECCOMP, "on: %zu rules%s", n_filter_rules, trap ? ", trapping" : "");
    return true;
}

void sandbox_thread(enum sandbox_thread kind)
{
    static const enum filter_kind kinds[] = { [SANDBOX_MAIN] = FILTER_MAIN, [SANDBOX_IO] = FILTER_IO, [SANDBOX_VCPU] = FILTER_VCPU };
    struct err err = ERR_INIT;
    if (!seccomp.closed) {
        return;
    }
    if (seccomp.deny == SECCOMP_RET_TRAP) {
        unblock_trap();
    }
    if (!install(kinds[kind], 0, &err)) {
        log_error("sandbox", "%s", err.msg);
        _exit(EXIT_FAILURE);            /* half a sandbox is none */
    }
}
