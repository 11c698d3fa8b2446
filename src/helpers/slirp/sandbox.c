/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * After this the process can talk to the network and to its one guest, read the host's resolver configuration, and nothing else. A
 * layer the host does not have is logged; one it has and that fails ends the start.
 */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/landlock.h>
#include <linux/sockios.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/mman.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "helpers/slirp/slirp-int.h"

enum { NOBODY = 65534, FIRST_ABI_RIGHTS = (1 << 13) - 1 };

static bool limit(int what, rlim_t n, struct err *err)
{
    struct rlimit now, want = { n, n };
    if (getrlimit((__rlimit_resource_t)what, &now) == 0 && now.rlim_max < n) {
        return true;            /* it is lower already */
    }
    return setrlimit((__rlimit_resource_t)what, &want) == 0 || err_set_errno(err, errno, "cannot set a resource limit");
}

static bool set_limits(struct err *err)
{
#ifndef __SANITIZE_ADDRESS__
    if (!limit(RLIMIT_AS, (rlim_t)512 * MIB, err)) {
        return false;
    }
#endif
    return limit(RLIMIT_NOFILE, MAX_FLOWS + MAX_FORWARDS + 32, err) && limit(RLIMIT_CORE, 0, err);
}

/* Root becomes nobody where that is possible: in some containers there is no such user. */
static bool drop_user(struct err *err)
{
    if (geteuid() != 0) {
        return true;
    }
    if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0) {
        log_info("slirp", "cannot give up root here: %s", strerror(errno));
        return geteuid() == 0 || err_set(err, ERR_GENERIC, "could give up root only by half");
    }
    return true;
}

/* The folder of the real resolv.conf, since hosts replace that file by renaming; as root only the file itself. */
static int resolver_path(void)
{
    char real[PATH_MAX];
    if (!realpath("/etc/resolv.conf", real)) {
        return -1;
    }
    char *slash = strrchr(real, '/');
    if (geteuid() != 0 && slash != real) {
        *slash = '\0';
    }
    return open(real, O_PATH | O_CLOEXEC);
}

static bool enter_landlock(struct err *err)
{
    struct landlock_ruleset_attr attr = { .handled_access_fs = FIRST_ABI_RIGHTS };
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 1) {
        log_info("slirp", "this host has no Landlock: files are protected by the system-call filter alone");
        return true;
    }
    AUTO_FD int set = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    AUTO_FD int path = resolver_path();
    struct landlock_path_beneath_attr rule = { .allowed_access = LANDLOCK_ACCESS_FS_READ_FILE, .parent_fd = path };
    if (set < 0 || (path >= 0 && syscall(SYS_landlock_add_rule, set, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0) ||
        syscall(SYS_landlock_restrict_self, set, 0) < 0) {
        return err_set_errno(err, errno, "cannot enter Landlock");
    }
    return true;
}

static const int plain[] = {
    SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(close),
    SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(sendto), SCMP_SYS(sendmsg), SCMP_SYS(connect), SCMP_SYS(bind),
    SCMP_SYS(listen), SCMP_SYS(accept), SCMP_SYS(accept4), SCMP_SYS(shutdown), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
    SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(lseek), SCMP_SYS(brk),
    SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(futex), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday),
    SCMP_SYS(time), SCMP_SYS(clock_nanosleep), SCMP_SYS(restart_syscall), SCMP_SYS(getrandom), SCMP_SYS(getpid), SCMP_SYS(gettid),
    SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction), SCMP_SYS(exit), SCMP_SYS(exit_group),
    SCMP_SYS(sigaltstack), SCMP_SYS(sched_yield),        /* the sanitizers; harmless */
};

static int add_plain(scmp_filter_ctx f)
{
    int r = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(plain) && r == 0; i++) {
        r = seccomp_rule_add(f, SCMP_ACT_ALLOW, plain[i], 0);
    }
    return r;
}

static int allow_ioctl(scmp_filter_ctx f, unsigned long request)
{
    return seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1_32(SCMP_CMP_EQ, (uint32_t)request));
}

static int allow_fcntl(scmp_filter_ctx f, int cmd)
{
    return seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1, SCMP_A1_32(SCMP_CMP_EQ, (uint32_t)cmd));
}

static int allow_family(scmp_filter_ctx f, int family)
{
    return seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0_32(SCMP_CMP_EQ, (uint32_t)family));
}

static int add_filtered(scmp_filter_ctx f)
{
    const uint32_t writing = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_TMPFILE;
    int r = allow_family(f, AF_INET);
    r = r ? r : allow_family(f, AF_INET6);
    /* if_nametoindex tries these first */
    r = r ? r : seccomp_rule_add(f, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1, SCMP_A0_32(SCMP_CMP_EQ, AF_UNIX));
    r = r ? r : allow_ioctl(f, FIONREAD);
    r = r ? r : allow_ioctl(f, FIONBIO);
    r = r ? r : allow_ioctl(f, SIOCGIFINDEX);
    r = r ? r : seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOTTY), SCMP_SYS(ioctl), 1, SCMP_A1_32(SCMP_CMP_EQ, TCGETS));
    r = r ? r : allow_fcntl(f, F_GETFL);
    r = r ? r : allow_fcntl(f, F_SETFL);
    r = r ? r : allow_fcntl(f, F_GETFD);
    r = r ? r : allow_fcntl(f, F_SETFD);
    r = r ? r : seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1, SCMP_A2_32(SCMP_CMP_MASKED_EQ, writing & ~(uint32_t)O_DIRECTORY, 0));
    r = r ? r : seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2_32(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    r = r ? r : seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2_32(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    /* abort() */
    r = r ? r : seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0_32(SCMP_CMP_EQ, (uint32_t)getpid()));
    return r;
}

static bool enter_seccomp(struct err *err)
{
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int r = f ? add_plain(f) : -ENOMEM;
    r = r ? r : add_filtered(f);
    r = r ? r : seccomp_load(f);
    seccomp_release(f);
    return r == 0 || err_set_errno(err, -r, "cannot load the system-call filter");
}

bool sandbox_enter(struct err *err)
{
    pid_t parent = getppid();
    if (!set_limits(err) || !drop_user(err)) {
        return false;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
        return err_set_errno(err, errno, "cannot give up privileges");
    }
    /* Changing the user clears this. The check closes the gap before it. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != parent) {
        return err_set(err, ERR_STATE, "whoever started us is gone");
    }
    return enter_landlock(err) && enter_seccomp(err);
}
