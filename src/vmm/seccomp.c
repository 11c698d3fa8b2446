/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What lodge-vmm may still ask of the kernel once its guest's bytes are parsed. Everything else ends the process. One filter
 * on all threads, those that come later included; docs/security.md says what each group is for. A row that allows a call
 * with conditions on its arguments names them; several rows of one call are alternatives.
 * LODGE_SECCOMP=trap names the forbidden call on stderr before the process ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/sandbox-int.h"

#define ANY { 0 }
#define EQUAL(n, value) { 1, { .arg = (n), .op = SCMP_CMP_MASKED_EQ, .datum_a = 0xffffffff, .datum_b = (value) } }
#define WITHOUT(n, bits) { 1, { .arg = (n), .op = SCMP_CMP_MASKED_EQ, .datum_a = (bits), .datum_b = 0 } }
#define WITH(n, bits) { 1, { .arg = (n), .op = SCMP_CMP_MASKED_EQ, .datum_a = (bits), .datum_b = (bits) } }
#define SELF UINT32_MAX         /* stands for our own pid */

/* What pthread_create asks for, and nothing else. */
enum { THREAD_FLAGS = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID };

static const struct rule {
    int call;
    struct {
        unsigned n;
        struct scmp_arg_cmp cmp;
    } when;
} rules[] = {
    /* waiting, waking, time */
    { SCMP_SYS(futex), ANY },
    { SCMP_SYS(epoll_wait), ANY },
    { SCMP_SYS(epoll_pwait), ANY },
    { SCMP_SYS(epoll_ctl), ANY },
    { SCMP_SYS(poll), ANY },
    { SCMP_SYS(eventfd2), ANY },
    { SCMP_SYS(timerfd_settime), ANY },
    { SCMP_SYS(timer_create), ANY },
    { SCMP_SYS(timer_settime), ANY },
    { SCMP_SYS(timer_delete), ANY },
    { SCMP_SYS(clock_gettime), ANY },
    { SCMP_SYS(gettimeofday), ANY },
    { SCMP_SYS(clock_nanosleep), ANY },
    { SCMP_SYS(sched_yield), ANY },
    { SCMP_SYS(membarrier), ANY },
    { SCMP_SYS(restart_syscall), ANY },
    /* what was handed to us: disks, sockets, consoles */
    { SCMP_SYS(read), ANY },
    { SCMP_SYS(write), ANY },
    { SCMP_SYS(readv), ANY },
    { SCMP_SYS(writev), ANY },
    { SCMP_SYS(pread64), ANY },
    { SCMP_SYS(preadv), ANY },
    { SCMP_SYS(pwrite64), ANY },
    { SCMP_SYS(pwritev), ANY },
    { SCMP_SYS(fdatasync), ANY },
    { SCMP_SYS(fallocate), ANY },
    { SCMP_SYS(lseek), ANY },
    { SCMP_SYS(fstat), ANY },
    { SCMP_SYS(newfstatat), WITH(3, AT_EMPTY_PATH) },
    { SCMP_SYS(close), ANY },
    { SCMP_SYS(recvfrom), ANY },
    { SCMP_SYS(recvmsg), ANY },
    { SCMP_SYS(sendto), ANY },
    { SCMP_SYS(sendmsg), ANY },
    { SCMP_SYS(accept4), ANY },
    { SCMP_SYS(shutdown), ANY },
    { SCMP_SYS(fcntl), EQUAL(1, F_GETFL) },
    { SCMP_SYS(fcntl), EQUAL(1, F_SETFL) },
    { SCMP_SYS(fcntl), EQUAL(1, F_GETFD) },
    { SCMP_SYS(fcntl), EQUAL(1, F_DUPFD_CLOEXEC) },
    { SCMP_SYS(fcntl), EQUAL(1, F_OFD_SETLK) },
    /* memory: never executable */
    { SCMP_SYS(mmap), WITHOUT(2, PROT_EXEC) },
    { SCMP_SYS(mprotect), WITHOUT(2, PROT_EXEC) },
    { SCMP_SYS(munmap), ANY },
    { SCMP_SYS(mremap), ANY },
    { SCMP_SYS(brk), ANY },
    { SCMP_SYS(madvise), EQUAL(2, MADV_DONTNEED) },
    { SCMP_SYS(madvise), EQUAL(2, MADV_FREE) },
    { SCMP_SYS(madvise), EQUAL(2, MADV_REMOVE) },
    { SCMP_SYS(madvise), EQUAL(2, MADV_DONTDUMP) },
    { SCMP_SYS(madvise), EQUAL(2, MADV_HUGEPAGE) },
    /* threads of our own */
    { SCMP_SYS(clone), EQUAL(0, THREAD_FLAGS) },
    { SCMP_SYS(set_robust_list), ANY },
    { SCMP_SYS(rseq), ANY },
    { SCMP_SYS(gettid), ANY },
    { SCMP_SYS(getpid), ANY },
    { SCMP_SYS(sched_getaffinity), ANY },
    { SCMP_SYS(prctl), EQUAL(0, PR_SET_NAME) },
    { SCMP_SYS(tgkill), EQUAL(0, SELF) },
    { SCMP_SYS(rt_sigprocmask), ANY },
    { SCMP_SYS(rt_sigaction), ANY },
    { SCMP_SYS(rt_sigreturn), ANY },
    { SCMP_SYS(sigaltstack), ANY },
    { SCMP_SYS(exit), ANY },
    { SCMP_SYS(exit_group), ANY },
    { SCMP_SYS(getrandom), ANY },
    { SCMP_SYS(sysinfo), ANY },
};

static bool add_rules(scmp_filter_ctx ctx)
{
    /* The flags of clone3 lie in memory, where no filter looks: the C library then falls back to clone. */
    bool ok = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) == 0;
    for (size_t i = 0; ok && i < ARRAY_SIZE(rules); i++) {
        struct scmp_arg_cmp cmp = rules[i].when.cmp;
        if (cmp.datum_b == SELF) {
            cmp.datum_b = (scmp_datum_t)getpid();
        }
        ok = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, rules[i].call, rules[i].when.n, &cmp) == 0;
    }
    return ok;
}

/* Not async-signal-safe, and need not be: the process is over, this only says why. */
static void on_sigsys(int sig, siginfo_t *si, void *uc)
{
    static char line[256];
    char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, si->si_syscall);
    int n = snprintf(line, sizeof(line), "error: sandbox: system call %s (%d) is forbidden\n", name ? name : "?", si->si_syscall);
    if (write(STDERR_FILENO, line, (size_t)n) < 0) {
        _exit(128 + SIGSYS);
    }
    _exit(128 + SIGSYS);
}

bool sandbox_seccomp(struct err *err)
{
    const char *mode = getenv("LODGE_SECCOMP");
    bool trap = mode && strcmp(mode, "trap") == 0;
    if (trap) {
        struct sigaction sa = { .sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO };
        sigaction(SIGSYS, &sa, NULL);
    }
    scmp_filter_ctx ctx = seccomp_init(trap ? SCMP_ACT_TRAP : SCMP_ACT_KILL_PROCESS);
    if (!ctx) {
        return err_set(err, ERR_UNSUPPORTED, "seccomp: libseccomp does not know this machine");
    }
    bool ok = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1) == 0 && seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2) == 0 && add_rules(ctx);
    int rc = ok ? seccomp_load(ctx) : -EINVAL;
    seccomp_release(ctx);
    if (rc < 0) {
        return err_set_errno(err, -rc, "seccomp");
    }
    sandbox_note(LAYER_SECCOMP, "on: %zu rules%s", ARRAY_SIZE(rules), trap ? ", trapping" : "");
    return true;
}
