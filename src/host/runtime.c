/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/runtime.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"

enum { STATUS_MAX = 256 * KIB };

static bool make_dir(const char *path, struct err *err)
{
    struct stat sb;
    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        return err_set_errno(err, errno, "cannot make %s", path);
    }
    if (lstat(path, &sb) < 0 || !S_ISDIR(sb.st_mode) || sb.st_uid != geteuid()) {
        return err_set(err, ERR_DENIED, "%s is not a directory of ours: remove it or set LODGE_RUNTIME_DIR", path);
    }
    return true;
}

char *runtime_dir(struct err *err)
{
    const char *set = getenv("LODGE_RUNTIME_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
    char *dir;
    if (set && *set) {
        dir = str_dup(set);
    } else if (geteuid() == 0) {
        dir = str_dup("/run/lodge");
    } else if (xdg && *xdg == '/') {
        dir = str_fmt("%s/lodge", xdg);
    } else {
        dir = str_fmt("/tmp/lodge-%u", (unsigned)geteuid());
    }
    if (!make_dir(dir, err)) {
        free(dir);
        return NULL;
    }
    return dir;
}

/* 1 locked by us now, 0 held by somebody, -1 errno. The lock goes with the open file description. */
static int try_lock(int fd)
{
    struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (fcntl(fd, F_OFD_SETLK, &fl) == 0) {
        return 1;
    }
    return errno == EAGAIN || errno == EACCES ? 0 : -1;
}

static void remove_files(const char *dir)
{
    static const char *const files[] = { "status", "status.tmp", "qmp", "lock" };
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        AUTO_FREE char *path = str_fmt("%s/%s", dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
}

/*
 * Opens and locks DIR/NAME/lock. Whoever holds the lock may remove the folder, so after locking we check that the file is
 * still the one at that path.
 */
static int lock_guest(const char *dir, bool create, bool *held_by_other, struct err *err)
{
    AUTO_FREE char *path = str_fmt("%s/lock", dir);
    *held_by_other = false;
    for (int tries = 0; tries < 100; tries++) {
        if (create && !make_dir(dir, err)) {
            return -1;
        }
        AUTO_FD int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600);
        if (fd < 0) {
            if (create && errno == ENOENT) {
                continue;       /* removed under our hands */
            }
            err_set_errno(err, errno, "%s", path);
            return -1;
        }
        int got = try_lock(fd);
        if (got == 0) {
            *held_by_other = true;
            return -1;
        }
        struct stat mine, there;
        if (got == 1 && fstat(fd, &mine) == 0 && stat(path, &there) == 0 && mine.st_ino == there.st_ino && mine.st_dev == there.st_dev) {
            return TAKE_FD(fd);
        }
    }
    err_set(err, ERR_BUSY, "%s keeps changing", path);
    return -1;
}

bool runtime_claim(struct runtime_guest *g, const char *name, struct err *err)
{
    bool other;
    AUTO_FREE char *root = runtime_dir(err);
    *g = (struct runtime_guest){ .lock_fd = -1 };
    if (!root) {
        return false;
    }
    AUTO_FREE char *dir = str_fmt("%s/%s", root, name);
    int fd = lock_guest(dir, true, &other, err);
    if (fd < 0) {
        return other ? err_set(err, ERR_EXISTS, "a guest named '%s' is running: choose another --name or stop it with 'lodge stop %s'", name, name) : false;
    }
    g->name = str_dup(name);
    g->dir = TAKE_PTR(dir);
    g->lock_fd = fd;
    return true;
}

bool runtime_set_status(struct runtime_guest *g, struct json_object *status, struct err *err)
{
    AUTO_FREE char *tmp = str_fmt("%s/status.tmp", g->dir), *path = str_fmt("%s/status", g->dir);
    const char *text = json_object_to_json_string_ext(status, JSON_C_TO_STRING_PLAIN);
    AUTO_FD int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || fd_write_full(fd, text, strlen(text)) < 0 || rename(tmp, path) < 0) {
        return err_set_errno(err, errno, "cannot write %s", path);
    }
    return true;
}

int runtime_listen(struct runtime_guest *g, struct err *err)
{
    AUTO_FREE char *path = str_fmt("%s/qmp", g->dir);
    unlink(path);
    return fd_listen_unix(path, err);
}

void runtime_release(struct runtime_guest *g)
{
    if (g->lock_fd >= 0) {
        remove_files(g->dir);
        close(g->lock_fd);
    }
    free(g->name);
    free(g->dir);
    *g = (struct runtime_guest){ .lock_fd = -1 };
}

/* Live: its status (or an empty object while it starts). Dead: cleans up, NULL without err. */
static struct json_object *guest_status(const char *root, const char *name, struct err *err)
{
    bool other;
    AUTO_FREE char *dir = str_fmt("%s/%s", root, name);
    int fd = lock_guest(dir, false, &other, NULL);
    if (fd >= 0) {
        remove_files(dir);
        close(fd);
        return NULL;
    }
    if (!other) {
        rmdir(dir);             /* a folder without a lock: its owner died between two calls */
        return NULL;
    }
    AUTO_FREE char *path = str_fmt("%s/status", dir);
    size_t len;
    AUTO_FREE char *text = file_read(path, STATUS_MAX, &len, NULL);
    struct json_object *o = text ? json_parse(text, len, err) : NULL;
    if (!o) {
        o = json_object_new_object();
        json_object_object_add(o, "name", json_object_new_string(name));
        json_object_object_add(o, "status", json_object_new_string("starting"));
    }
    return o;
}

struct json_object *runtime_status(const char *name, struct err *err)
{
    if (!str_name_ok(name)) {
        err_set(err, ERR_INVALID, "'%.64s' is not a guest's name", name);
        return NULL;
    }
    AUTO_FREE char *root = runtime_dir(err);
    struct json_object *o = root ? guest_status(root, name, err) : NULL;
    if (root && !o) {
        err_set(err, ERR_NOT_FOUND, "no guest named '%s' is running: 'lodge ps' lists them", name);
    }
    return o;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct json_object *runtime_list(struct err *err)
{
    AUTO_FREE char *root = runtime_dir(err);
    DIR *d = root ? opendir(root) : NULL;
    if (!d) {
        return NULL;
    }
    char **names = NULL;
    size_t n = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (str_name_ok(e->d_name)) {
            char **more = reallocarray(names, n + 1, sizeof(*names));
            if (!more) {
                break;
            }
            names = more;
            names[n++] = str_dup(e->d_name);
        }
    }
    closedir(d);
    if (n) {
        qsort(names, n, sizeof(*names), by_name);
    }
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < n; i++) {
        struct json_object *o = guest_status(root, names[i], NULL);
        if (o) {
            json_object_array_add(list, o);
        }
        free(names[i]);
    }
    free(names);
    return list;
}

bool runtime_alive(const char *name)
{
    struct json_object *o = runtime_status(name, NULL);
    if (o) {
        json_object_put(o);
    }
    return o != NULL;
}
