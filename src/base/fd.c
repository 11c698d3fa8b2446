/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { FD_MSG_MAX = 16 };

ssize_t fd_read_full(int fd, void *buf, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = read(fd, (char *)buf + done, len - done);
        if (n == 0) {
            break;
        }
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -1;
        }
        done += (size_t)n;
    }
    return (ssize_t)done;
}

ssize_t fd_pread_full(int fd, void *buf, size_t len, uint64_t off)
{
    size_t done = 0;
    if (off > INT64_MAX || len > INT64_MAX - off) {
        errno = EINVAL;
        return -1;
    }
    while (done < len) {
        ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(off + done));
        if (n == 0) {
            break;
        }
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -1;
        }
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int fd_write_full(int fd, const void *buf, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = write(fd, (const char *)buf + done, len - done);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -1;
        }
        done += (size_t)n;
    }
    return 0;
}

static bool set_flag(int fd, int get, int set, int flag, bool on)
{
    int flags = fcntl(fd, get);
    return flags >= 0 && fcntl(fd, set, on ? flags | flag : flags & ~flag) == 0;
}

void fd_open_std(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= 2);
    if (fd > 2) {
        close(fd);
    }
}

bool fd_set_nonblock(int fd, bool on)
{
    return set_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

bool fd_set_cloexec(int fd, bool on)
{
    return set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

/* One sendmsg, EINTR retried. Bytes taken or -errno. */
static ssize_t send_once(int sock, const void *buf, size_t len, const int *fds, size_t n)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FD_MSG_MAX * sizeof(int))];
    } ctl;
    struct iovec iov = { (void *)buf, len };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    if (n) {
        memset(&ctl, 0, sizeof(ctl));
        msg.msg_control = ctl.bytes;
        msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n * sizeof(int));
    }
    ssize_t r;
    do {
        r = sendmsg(sock, &msg, MSG_NOSIGNAL);
    } while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

int fd_send(int sock, const void *buf, size_t len, const int *fds, size_t n)
{
    if (len == 0 || n > FD_MSG_MAX) {
        return -EINVAL;
    }
    size_t done = 0;
    while (done < len) {
        ssize_t r = send_once(sock, (const char *)buf + done, len - done, fds, done ? 0 : n);
        if (r == -EAGAIN && done) {
            /* Half a message is out: it must be finished, or the peer loses the boundary. */
            struct pollfd p = { .fd = sock, .events = POLLOUT };
            if (poll(&p, 1, -1) < 0 && errno != EINTR) {
                return -errno;
            }
            continue;
        }
        if (r < 0) {
            return (int)r;
        }
        done += (size_t)r;
    }
    return 0;
}

ssize_t fd_recv(int sock, void *buf, size_t len, int *fds, size_t *n)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FD_MSG_MAX * sizeof(int))];
    } ctl;
    size_t room = n ? *n : 0, got = 0;
    struct iovec iov = { buf, len };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.bytes, .msg_controllen = sizeof(ctl.bytes) };
    ssize_t r;
    do {
        r = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    } while (r < 0 && errno == EINTR);
    if (n) {
        *n = 0;
    }
    if (r < 0) {
        return -errno;
    }
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (got < room) {
                fds[got++] = fd;
            } else {
                close(fd);
            }
        }
    }
    if (n) {
        *n = got;
    }
    return r;
}

char *fd_read_file(int fd, size_t limit, size_t *len, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        err_set_errno(err, errno, "cannot examine the file");
        return NULL;
    }
    if (!S_ISREG(st.st_mode)) {
        err_set(err, ERR_INVALID, "not a regular file");
        return NULL;
    }
    if ((uint64_t)st.st_size > limit) {
        err_set(err, ERR_LIMIT, "file has %llu bytes, at most %zu are accepted", (unsigned long long)st.st_size, limit);
        return NULL;
    }
    /* Files of /proc and /sys say 0 or a page: the size is only the first guess. */
    size_t cap = st.st_size ? (size_t)st.st_size + 1 : 4096, have = 0;
    AUTO_FREE char *data = malloc(cap + 1);
    while (data) {
        ssize_t n = fd_pread_full(fd, data + have, cap - have, have);
        if (n < 0) {
            err_set_errno(err, errno, "cannot read");
            return NULL;
        }
        have += (size_t)n;
        if (have > limit) {
            err_set(err, ERR_LIMIT, "file is larger than %zu bytes", limit);
            return NULL;
        }
        if (have < cap) {
            data[have] = 0;
            if (len) {
                *len = have;
            }
            return TAKE_PTR(data);
        }
        cap *= 2;
        char *more = realloc(data, cap + 1);
        if (!more) {
            break;
        }
        data = more;
    }
    err_set(err, ERR_NO_MEMORY, "out of memory for a file of %zu bytes", cap);
    return NULL;
}

char *file_read(const char *path, size_t limit, size_t *len, struct err *err)
{
    /* O_NONBLOCK: a FIFO must not hang us before fd_read_file refuses it. */
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        err_set_errno(err, errno, "cannot open '%s'", path);
        return NULL;
    }
    char *data = fd_read_file(fd, limit, len, err);
    if (!data) {
        err_prefix(err, "'%s': ", path);
    }
    return data;
}

int fd_listen_unix(const char *path, struct err *err)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof(sa.sun_path)) {
        err_set(err, ERR_LIMIT, "socket path %s is longer than %zu bytes", path, sizeof(sa.sun_path) - 1);
        return -1;
    }
    memcpy(sa.sun_path, path, strlen(path));
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* fchmod before bind: the socket never stands there with other rights */
    if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        err_set_errno(err, errno, "cannot listen at %s", path);
        return -1;
    }
    if (listen(fd, 16) < 0) {
        err_set_errno(err, errno, "cannot listen at %s", path);
        unlink(path);
        return -1;
    }
    return TAKE_FD(fd);
}
