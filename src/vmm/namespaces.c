/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Namespaces, an empty root, a user of its own, no capabilities. Two ways lead there. With CAP_SYS_ADMIN the namespaces are
 * ours to make, and a user ID that nobody else has is taken afterwards. Without it, a user namespace comes first and brings
 * the capabilities, over itself alone, that the rest needs.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "vmm/sandbox-int.h"

enum {
    NAMESPACES = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
    OVERFLOW_ID = 65534,        /* what we are called inside a user namespace */
    /* User and group of a guest started by root: this plus its pid; the pid is below 2^22. Nobody else hands out IDs here. */
    OWN_ID_BASE = 0x7e000000,
};

static bool caps_get(struct __user_cap_data_struct data[2])
{
    struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
    return syscall(SYS_capget, &h, data) == 0;
}

static bool have_cap(unsigned cap)
{
    struct __user_cap_data_struct data[2];
    return caps_get(data) && (data[cap / 32].effective & 1u << cap % 32);
}

/* Harmless without CAP_SETPCAP: then nothing in the set can be had anyway, no new privileges being granted. */
static void drop_bounding_set(void)
{
    for (unsigned cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++) {
    }
}

static bool drop_caps(struct err *err)
{
    struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { { 0 } };
    drop_bounding_set();
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capset, &h, data) < 0 || !caps_get(data)) {
        return err_set_errno(err, errno, "dropping capabilities");
    }
    if (data[0].permitted | data[1].permitted | data[0].effective | data[1].effective) {
        return err_set(err, ERR_GENERIC, "capabilities are still held after they were dropped");
    }
    sandbox_note(LAYER_CAPABILITIES, "on");
    return true;
}

static bool write_proc(const char *path, const char *text)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && fd_write_full(fd, text, strlen(text)) == 0;
}

static bool map_ids(uid_t uid, gid_t gid)
{
    char text[64];
    snprintf(text, sizeof(text), "%u %u 1\n", OVERFLOW_ID, uid);
    if (!write_proc("/proc/self/setgroups", "deny") || !write_proc("/proc/self/uid_map", text)) {
        return false;
    }
    snprintf(text, sizeof(text), "%u %u 1\n", OVERFLOW_ID, gid);
    return write_proc("/proc/self/gid_map", text);
}

/* An empty read-only tmpfs on top of everything, then everything below taken away. False: errno. */
static bool pivot_to_nothing(void)
{
    enum { FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC };
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount("lodge", "/tmp", "tmpfs", FLAGS, "size=4k,nr_inodes=1,mode=0") == 0 &&
           chdir("/tmp") == 0 && syscall(SYS_pivot_root, ".", ".") == 0 && umount2(".", MNT_DETACH) == 0 && chdir("/") == 0 &&
           mount(NULL, "/", NULL, FLAGS | MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0;
}

/* A directory that no longer has a name: nothing is in it and nothing can be made in it. */
static bool chroot_to_nothing(void)
{
    char dir[] = "/tmp/lodge-root.XXXXXX";
    if (!mkdtemp(dir)) {
        return false;
    }
    bool in = chdir(dir) == 0;
    rmdir(dir);
    return in && chroot(".") == 0 && chdir("/") == 0;
}

static bool private_root(bool own_mounts, struct err *err)
{
    if (own_mounts && pivot_to_nothing()) {
        sandbox_note(LAYER_PRIVATE_ROOT, "on: an empty tmpfs");
        return true;
    }
    int why = own_mounts ? errno : EPERM;
    if (!sandbox_host_lacks(why)) {
        return err_set_errno(err, why, "private root");
    }
    if (have_cap(CAP_SYS_CHROOT) && chroot_to_nothing()) {
        sandbox_note(LAYER_PRIVATE_ROOT, "on: chroot to an empty directory");
        return true;
    }
    sandbox_note(LAYER_PRIVATE_ROOT, "absent: neither mounts nor chroot are permitted (%s)", strerror(why));
    return true;
}

static bool own_user(struct err *err)
{
    uint32_t id = OWN_ID_BASE + (uint32_t)getpid();
    if (!have_cap(CAP_SETUID) || !have_cap(CAP_SETGID)) {
        sandbox_note(LAYER_OWN_USER, "absent: runs as user %u, that of its starter", geteuid());
        return true;
    }
    if (setresgid(id, id, id) < 0) {
        if (!sandbox_host_lacks(errno)) {
            return err_set_errno(err, errno, "own group");
        }
        sandbox_note(LAYER_OWN_USER, "absent: this container has no user %u (%s)", id, strerror(errno));
        return true;
    }
    if (setgroups(0, NULL) < 0 && errno != EPERM) {
        return err_set_errno(err, errno, "supplementary groups");
    }
    drop_bounding_set();                /* CAP_SETPCAP goes with the user */
    if (setresuid(id, id, id) < 0) {
        return err_set_errno(err, errno, "own user");
    }
    sandbox_note(LAYER_OWN_USER, "on: %u", id);
    return true;
}

/* Root's way. A user namespace on top, without a name in it: what the kernel grants there is dropped at once. */
static bool enter_as_root(struct err *err)
{
    if (!private_root(true, err) || !own_user(err)) {
        return false;
    }
    if (unshare(CLONE_NEWUSER) < 0) {
        sandbox_note(LAYER_USER_NAMESPACE, "absent: %s", strerror(errno));
    } else {
        sandbox_note(LAYER_USER_NAMESPACE, "on");
    }
    return drop_caps(err);
}

/* Would a user namespace be granted? Asked in a child, where it costs us nothing: root may have only one try (see below). */
static bool user_namespace_granted(void)
{
    int status = 1;
    pid_t pid = fork();
    if (pid == 0) {
        _exit(unshare(CLONE_NEWUSER | NAMESPACES) == 0 ? 0 : 1);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return pid > 0 && status == 0;
}

/* The way of those who may not administer: a user namespace first, and what it grants. */
static bool enter_as_user(struct err *err)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* a change of user ends it, and with it the right to write our own maps */
    if (unshare(CLONE_NEWUSER | NAMESPACES) < 0) {
        return err_set_errno(err, errno, "namespaces");
    }
    bool mapped = map_ids(uid, gid);
    sandbox_note(LAYER_NAMESPACES, "on: mount, network, ipc, uts");
    sandbox_note(LAYER_USER_NAMESPACE, mapped ? "on" : "on: without a name in it");
    return private_root(true, err) && drop_caps(err);
}

/*
 * Root without CAP_SYS_ADMIN, as containers have it: its own user must come before the user namespace (afterwards only one ID
 * is there), but a chroot before its own user, and in a chroot no user namespace is granted. So it is asked for beforehand.
 */
bool sandbox_namespaces(struct err *err)
{
    if (have_cap(CAP_SYS_ADMIN) && unshare(NAMESPACES) == 0) {
        sandbox_note(LAYER_NAMESPACES, "on: mount, network, ipc, uts");
        return enter_as_root(err);
    }
    if (user_namespace_granted()) {
        return own_user(err) && enter_as_user(err);
    }
    sandbox_note(LAYER_NAMESPACES, "absent: not permitted here");
    sandbox_note(LAYER_USER_NAMESPACE, "absent: not permitted here");
    return private_root(false, err) && own_user(err) && drop_caps(err);
}
