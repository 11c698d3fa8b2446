/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lodge run: the broker. It resolves the definition, opens every path, starts the helpers and lodge-vmm with nothing but
 * descriptors, and stays: it relays the terminal, turns signals into requests, and cleans up. It parses nothing that a guest
 * or an image wrote.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "cli/run-int.h"
#include "host/launch.h"

static int64_t keep(struct run *r, int fd)
{
    r->keep[r->n_keep++] = fd;
    return fd;
}

static bool open_file(struct run *r, const char *what, const char *path, int flags, int64_t *slot, struct err *err)
{
    struct stat sb;
    /* O_NONBLOCK: a FIFO must not hang us; it means nothing to files and disks. */
    int fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
    if (fd < 0) {
        return err_set_errno(err, errno, "cannot open %s %s", what, path);
    }
    if (fstat(fd, &sb) < 0 || !(S_ISREG(sb.st_mode) || S_ISBLK(sb.st_mode) || (S_ISCHR(sb.st_mode) && (flags & O_CREAT)))) {
        close(fd);
        return err_set(err, ERR_INVALID, "%s %s is not a regular file%s", what, path, flags & O_CREAT ? "" : " or block device");
    }
    *slot = keep(r, fd);
    return true;
}

/* A socket nobody listens at is what a dead program left. */
static void remove_dead_socket(const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct stat sb;
    if (strlen(path) >= sizeof(sa.sun_path) || lstat(path, &sb) < 0 || !S_ISSOCK(sb.st_mode)) {
        return;
    }
    memcpy(sa.sun_path, path, strlen(path));
    AUTO_FD int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(probe, (struct sockaddr *)&sa, sizeof(sa)) < 0 && errno == ECONNREFUSED) {
        unlink(path);
    }
}

/* Listening socket at a path of the user's; removed at the end. */
static bool listen_at(struct run *r, const char *path, int64_t *slot, struct err *err)
{
    remove_dead_socket(path);
    int fd = fd_listen_unix(path, err);
    if (fd < 0) {
        return false;
    }
    r->unix_paths[r->n_unix_paths++] = str_dup(path);
    *slot = keep(r, fd);
    return true;
}

static bool open_console(struct run *r, struct err *err)
{
    struct vm_config *c = r->cfg;
    int pair[2];
    switch (c->console) {
    case VM_CONSOLE_STDIO:
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
            return err_set_errno(err, errno, "socketpair");
        }
        r->console_fd = pair[0];
        c->console_in_fd = c->console_out_fd = keep(r, pair[1]);
        return true;
    case VM_CONSOLE_UNIX:
        return listen_at(r, c->console_path, &c->console_in_fd, err) || err_prefix(err, "console: ");
    case VM_CONSOLE_FILE:
        return open_file(r, "console", c->console_path, O_WRONLY | O_CREAT | O_TRUNC, &c->console_out_fd, err);
    default:
        return true;
    }
}

static bool open_log(struct run *r, struct err *err)
{
    enum log_level level;
    if (!r->cfg->log || log_level_parse(r->cfg->log, &level)) {
        return true;
    }
    return open_file(r, "log", r->cfg->log, O_WRONLY | O_CREAT | O_APPEND, &r->cfg->log_fd, err);
}

bool run_open_all(struct run *r, struct err *err)
{
    struct vm_config *c = r->cfg;
    if (!c->kernel) {
        return err_set(err, ERR_INVALID, "nothing to boot: give a --kernel (booting from a disk's own loader needs firmware, which this version does not have)");
    }
    if (!open_file(r, "kernel", c->kernel, O_RDONLY, &c->kernel_fd, err) ||
        (c->initrd && !open_file(r, "initrd", c->initrd, O_RDONLY, &c->initrd_fd, err))) {
        return false;
    }
    for (unsigned i = 0; i < c->n_disks; i++) {
        if (!open_file(r, "disk", c->disks[i].file, c->disks[i].readonly ? O_RDONLY : O_RDWR, &c->disks[i].fd, err)) {
            return false;
        }
    }
    for (unsigned i = 0; i < c->n_nets; i++) {
        if (c->nets[i].type == VM_NET_USER && !run_start_helper(r, &c->nets[i], err)) {
            return false;
        }
    }
    for (unsigned i = 0; i < c->n_channels; i++) {
        if (!listen_at(r, c->channels[i].path, &c->channels[i].fd, err)) {
            return err_prefix(err, "channel '%s': ", c->channels[i].name);
        }
    }
    int qmp = runtime_listen(&r->guest, err);
    if (qmp < 0) {
        return false;
    }
    c->qmp_fd = keep(r, qmp);
    keep(r, dup(r->guest.lock_fd));     /* the VMM holds the lock, too: the registration lives as long as either */
    fcntl(r->keep[r->n_keep - 1], F_SETFD, FD_CLOEXEC);
    return (!c->qmp || listen_at(r, c->qmp, &c->qmp_user_fd, err)) && open_console(r, err) && open_log(r, err);
}

/* The helper says "ok" or one line of error on its ready descriptor before the guest starts. */
bool run_start_helper(struct run *r, struct vm_net_config *net, struct err *err)
{
    int pair[2], ready[2];
    AUTO_FREE char *path = launch_find("lodge-slirp", err);
    if (!path) {
        return err_prefix(err, "user networking needs libslirp-dev at build time: ");
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 || pipe2(ready, O_CLOEXEC) < 0) {
        return err_set_errno(err, errno, "socketpair");
    }
    AUTO_FREE char *fd_arg = str_fmt("--fd=%d", pair[1]), *ready_arg = str_fmt("--ready-fd=%d", ready[1]);
    char *argv[8 + 2 * VM_MAX_FORWARDS];
    unsigned n = 0;
    argv[n++] = path;
    argv[n++] = fd_arg;
    argv[n++] = ready_arg;
    if (net->restricted) {
        argv[n++] = "--restrict";
    }
    if (!r->cfg->sandbox) {
        argv[n++] = "--sandbox=off";
    }
    char *forwards[VM_MAX_FORWARDS] = { 0 };
    for (unsigned i = 0; i < net->n_forwards; i++) {
        argv[n++] = forwards[i] = str_fmt("--forward=%s", net->forwards[i]);
    }
    argv[n] = NULL;
    pid_t pid = launch(path, argv, (int[]){ pair[1], ready[1] }, 2, true, err);
    for (unsigned i = 0; i < net->n_forwards; i++) {
        free(forwards[i]);
    }
    close(pair[1]);
    close(ready[1]);
    char line[512];
    ssize_t got = pid < 0 ? 0 : fd_read_full(ready[0], line, sizeof(line) - 1);
    close(ready[0]);
    if (pid > 0) {
        r->helpers[r->n_helpers++] = pid;
    }
    net->fd = keep(r, pair[0]);
    line[got > 0 ? got : 0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    if (pid < 0 || strcmp(line, "ok") == 0) {
        return pid > 0;
    }
    const char *why = strncmp(line, "error: ", 7) == 0 ? line + 7 : line;
    return err_set(err, ERR_GENERIC, "user networking: %s", *why ? why : "lodge-slirp did not start");
}

/* The config goes over as JSON on a memfd. */
bool run_start_vmm(struct run *r, struct err *err)
{
    int pair[2];
    AUTO_FREE char *path = launch_find("lodge-vmm", err);
    if (!path) {
        return false;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        return err_set_errno(err, errno, "socketpair");
    }
    r->broker_fd = pair[0];
    r->cfg->broker_fd = keep(r, pair[1]);
    AUTO_JSON struct json_object *o = vm_config_to_json(r->cfg, true);
    const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
    int config = memfd_create("lodge-config", MFD_CLOEXEC);
    if (config < 0 || fd_write_full(config, text, strlen(text)) < 0 || lseek(config, 0, SEEK_SET) < 0) {
        return err_set_errno(err, errno, "memfd");
    }
    keep(r, config);
    AUTO_FREE char *arg = str_fmt("--config-fd=%d", config);
    char *argv[] = { path, arg, NULL };
    r->vmm = launch(path, argv, r->keep, r->n_keep, true, err);
    if (r->vmm < 0) {
        return false;
    }
    r->vmm_pidfd = (int)syscall(SYS_pidfd_open, r->vmm, 0);
    if (r->vmm_pidfd < 0) {
        return err_set_errno(err, errno, "pidfd_open");
    }
    fd_set_cloexec(r->vmm_pidfd, true);
    for (unsigned i = 0; i < r->n_keep; i++) {
        close(r->keep[i]);
    }
    r->n_keep = 0;
    return true;
}

static bool set_status(struct run *r, struct err *err)
{
    AUTO_JSON struct json_object *o = json_object_new_object();
    AUTO_FREE char *qmp = str_fmt("%s/qmp", r->guest.dir);
    json_object_object_add(o, "name", json_object_new_string(r->cfg->name));
    json_object_object_add(o, "uuid", json_object_new_string(r->cfg->uuid));
    json_object_object_add(o, "pid", json_object_new_int64(r->vmm));
    json_object_object_add(o, "broker-pid", json_object_new_int64(getpid()));
    json_object_object_add(o, "engine", json_object_new_string(vm_engine_names[r->cfg->engine]));
    json_object_object_add(o, "machine", json_object_new_string(r->cfg->machine));
    json_object_object_add(o, "memory", json_object_new_uint64(r->cfg->memory));
    json_object_object_add(o, "cpus", json_object_new_uint64(r->cfg->cpu.count));
    json_object_object_add(o, "started", json_object_new_int64(time(NULL)));
    json_object_object_add(o, "qmp", json_object_new_string(qmp));
    return runtime_set_status(&r->guest, o, err);
}

static void run_fini(struct run *r)
{
    if (r->vmm > 0) {
        kill(r->vmm, SIGKILL);          /* reaped already in the usual case: then the pid is 0 */
        waitpid(r->vmm, NULL, 0);
    }
    for (unsigned i = 0; i < r->n_keep; i++) {
        close(r->keep[i]);
    }
    for (unsigned i = 0; i < r->n_helpers; i++) {
        kill(r->helpers[i], SIGTERM);   /* they leave by themselves when the VMM's end closes */
        waitpid(r->helpers[i], NULL, 0);
    }
    for (unsigned i = 0; i < r->n_unix_paths; i++) {
        unlink(r->unix_paths[i]);
        free(r->unix_paths[i]);
    }
    runtime_release(&r->guest);
}

/* The definition goes to the VMM as JSON: what cannot be said in it is refused here. */
static bool check_utf8(const struct vm_config *c, struct err *err)
{
    AUTO_JSON struct json_object *o = vm_config_to_json(c, false);
    const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
    AUTO_JSON struct json_object *again = json_parse(text, strlen(text), NULL);
    return again || err_set(err, ERR_INVALID, "a name, path or text among the options is not valid UTF-8");
}

/*
 * auto: KVM where this build has an engine for it and the probe says it is usable. This build has the soft engine only, so
 * the answer is known without asking; what /dev/kvm could do is told by `lodge host`.
 */
static bool choose_engine(struct vm_config *c, struct err *err)
{
    if (c->engine == VM_ENGINE_KVM) {
        return err_set(err, ERR_UNSUPPORTED, "this build has no kvm engine: use --engine soft (or auto)");
    }
    if (c->engine == VM_ENGINE_AUTO) {
        log_info("run", "engine: soft (this build has no kvm engine; 'lodge host' tells what /dev/kvm could do)");
        c->engine = VM_ENGINE_SOFT;
    }
    return true;
}

/* Whatever would end us comes to the relay instead, so that terminal, registration and sockets are put in order first. */
static void hold_signals(struct run *r)
{
    static const int ours[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGXCPU };
    sigemptyset(&r->signals);
    for (size_t i = 0; i < ARRAY_SIZE(ours); i++) {
        sigaddset(&r->signals, ours[i]);
    }
    sigprocmask(SIG_BLOCK, &r->signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
}

static int run_guest(struct vm_config *c, struct err *err)
{
    struct run r = { .cfg = c, .broker_fd = -1, .console_fd = -1, .vmm_pidfd = -1 };
    hold_signals(&r);
    if (!runtime_claim(&r.guest, c->name, err)) {
        return cli_fail(EXIT_OWN_FAILURE, err);
    }
    int status = EXIT_OWN_FAILURE;
    if (run_open_all(&r, err) && run_start_vmm(&r, err) && set_status(&r, err)) {
        status = run_relay(&r);
    } else {
        cli_fail(status, err);
    }
    run_fini(&r);
    return status;
}

static int run_run(int argc, char **argv)
{
    struct run_options o = { 0 };
    struct err err = ERR_INIT;
    enum log_level level;
    int n, status;
    bool help;
    vm_config_init(&o.cfg);
    if (!cli_parse(&cli_run, argc, argv, &o, &n, &help, &err)) {
        status = cli_fail(EXIT_USAGE, &err);
    } else if (help) {
        status = EXIT_SUCCESS;
    } else if (n) {
        err_set(&err, ERR_INVALID, "unexpected operand '%.64s': lodge run takes options only", argv[1]);
        status = cli_fail(EXIT_USAGE, &err);
    } else if (!vm_config_check(&o.cfg, &err) || !check_utf8(&o.cfg, &err)) {
        status = cli_fail(EXIT_USAGE, &err);
    } else {
        if (o.cfg.log && log_level_parse(o.cfg.log, &level)) {
            log_threshold = (int)level;
        }
        if (!choose_engine(&o.cfg, &err)) {
            status = cli_fail(EXIT_OWN_FAILURE, &err);
        } else if (o.dry_run) {
            AUTO_JSON struct json_object *j = vm_config_to_json(&o.cfg, false);
            printf("%s\n", json_object_to_json_string_ext(j, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
            status = EXIT_SUCCESS;
        } else {
            status = run_guest(&o.cfg, &err);
        }
    }
    vm_config_fini(&o.cfg);
    return status;
}

const struct cli_command cli_run = {
    .name = "run", .synopsis = "[OPTION...]", .summary = "Runs a guest in the foreground until it powers off.", .opts = run_opts, .run = run_run,
};
