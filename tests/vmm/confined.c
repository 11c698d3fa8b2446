/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Confines itself as lodge-vmm does and then does one thing, named by its argument. What may be done prints "done" and exits
 * 0; the rest must end the process. "describe" prints the layers, "root" tries what the namespaces alone forbid.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/sandbox.h"

static void *page;
static int passed_fd;

static void do_nothing(void) {}
static void do_open(void) { open("/etc/passwd", O_RDONLY); }
static void do_openat(void) { syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY); }
static void do_execve(void) { execl("/bin/true", "true", (char *)NULL); }
static void do_ptrace(void) { ptrace(PTRACE_TRACEME, 0, NULL, NULL); }
static void do_socket(void) { socket(AF_INET, SOCK_STREAM, 0); }
static void do_mprotect_exec(void) { mprotect(page, 4096, PROT_READ | PROT_EXEC); }
static void do_mmap_exec(void) { mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static void do_fork(void) { syscall(SYS_fork); }
static void do_unshare(void) { unshare(CLONE_NEWUSER); }
static void do_kill_parent(void) { kill(getppid(), 0); }
static void do_prctl(void) { prctl(PR_SET_DUMPABLE, 1); }
static void do_bpf(void) { syscall(SYS_bpf, 0, NULL, 0); }
static void do_io_uring(void) { syscall(SYS_io_uring_setup, 1, NULL); }
static void do_ioctl(void) { syscall(SYS_ioctl, passed_fd, 0x5413 /* TIOCGWINSZ */, page); }
static void do_process_vm_readv(void)
{
    struct iovec v = { page, 16 };
    process_vm_readv(getpid(), &v, 1, &v, 1, 0);
}
static void *thread_main(void *arg)
{
    return arg;
}
static void do_thread(void)
{
    pthread_t t;
    pthread_create(&t, NULL, thread_main, NULL);
}
static void do_write(void)
{
    if (pwrite(passed_fd, "x", 1, 0) != 1) {
        printf("pwrite: %s\n", strerror(errno));
    }
}
static void do_memory(void)
{
    char *p = malloc(64 * MIB);
    memset(p, 1, 64 * MIB);
    p = realloc(p, 128 * MIB);
    free(p);
}

static const struct {
    const char *name;
    void (*fn)(void);
} deeds[] = {
    { "nothing", do_nothing }, { "write", do_write }, { "memory", do_memory }, { "open", do_open }, { "openat", do_openat }, { "execve", do_execve },
    { "ptrace", do_ptrace }, { "socket", do_socket }, { "mprotect-exec", do_mprotect_exec }, { "mmap-exec", do_mmap_exec }, { "fork", do_fork },
    { "unshare", do_unshare }, { "kill", do_kill_parent }, { "prctl", do_prctl }, { "bpf", do_bpf }, { "io-uring", do_io_uring }, { "ioctl", do_ioctl },
    { "process-vm-readv", do_process_vm_readv }, { "thread", do_thread },
};

static void deed(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(deeds); i++) {
        if (strcmp(deeds[i].name, name) == 0) {
            deeds[i].fn();
        }
    }
}

/* On another thread than the one that closed the sandbox; "vcpu:NAME" narrows it first. */
static void *other_thread(void *arg)
{
    int *go = arg;
    char c;
    const char *name = (const char *)(go + 1);
    if (read(*go, &c, 1) != 1) {
        return NULL;
    }
    if (strncmp(name, "vcpu:", 5) == 0) {
        sandbox_thread(SANDBOX_VCPU);
    }
    deed(strchr(name, ':') + 1);
    return NULL;
}

/* Before seccomp: what the other layers leave of the host. */
static void print_root(void)
{
    struct rlimit core;
    getrlimit(RLIMIT_CORE, &core);
    printf("etc=%d", open("/etc/passwd", O_RDONLY) < 0 ? errno : 0);
    bool made = mkdir("/lodge-test-root", 0700) == 0;
    printf(" mkdir=%d", made ? 0 : errno);
    if (made) {
        rmdir("/lodge-test-root");
    }
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr = { htonl(INADDR_LOOPBACK) } };
    printf(" connect=%d", connect(s, (struct sockaddr *)&to, sizeof(to)) < 0 ? errno : 0);
    printf(" uid=%u core=%llu dumpable=%d nnp=%d\n", getuid(), (unsigned long long)core.rlim_cur, prctl(PR_GET_DUMPABLE), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
}

int main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    int pipefd[2];
    pthread_t t;
    AUTO_FREE int *arg = NULL;
    if (argc != 2) {
        return 2;
    }
    bool other = strchr(argv[1], ':') != NULL;
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    passed_fd = memfd_create("disk", MFD_CLOEXEC);
    log_threshold = LOG_WARN;
    if (!sandbox_enter(&err)) {
        printf("enter: %s\n", err.msg);
        return 1;
    }
    if (strcmp(argv[1], "root") == 0) {
        print_root();
        return 0;
    }
    if (other) {
        if (pipe(pipefd) < 0) {
            return 1;
        }
        arg = alloc0(sizeof(int) + strlen(argv[1]) + 1);
        arg[0] = pipefd[0];
        memcpy(arg + 1, argv[1], strlen(argv[1]));
        if (pthread_create(&t, NULL, other_thread, arg) != 0) {
            return 1;
        }
    }
    if (!sandbox_close(&err)) {
        printf("close: %s\n", err.msg);
        return 1;
    }
    if (strcmp(argv[1], "describe") == 0) {
        AUTO_JSON struct json_object *o = sandbox_describe();
        printf("%s\n", json_object_to_json_string(o));
    } else if (other) {
        if (write(pipefd[1], "", 1) != 1) {
            return 1;
        }
        pthread_join(t, NULL);
    } else {
        deed(argv[1]);
    }
    printf("done\n");
    fflush(stdout);
    return 0;
}
