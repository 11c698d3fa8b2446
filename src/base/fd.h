/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptors: whole reads and writes, SCM_RIGHTS, flags. All descriptors here are O_CLOEXEC. */
#ifndef LODGE_BASE_FD_H
#define LODGE_BASE_FD_H

#include <sys/types.h>

#include "base/err.h"

/* Whole transfer or -1 with errno; read returns fewer bytes only at end of file. EINTR is retried. */
ssize_t fd_read_full(int fd, void *buf, size_t len);
ssize_t fd_pread_full(int fd, void *buf, size_t len, uint64_t off);
int fd_write_full(int fd, const void *buf, size_t len);
/* Opens /dev/null as any of stdin, stdout, stderr that is closed, so that no file of ours becomes one of them. First in main. */
void fd_open_std(void);
bool fd_set_nonblock(int fd, bool on);
bool fd_set_cloexec(int fd, bool on);
/* Sends len >= 1 bytes with n descriptors (n <= 16) as one message. 0 or -errno. */
int fd_send(int sock, const void *buf, size_t len, const int *fds, size_t n);
/* Receives one message; *n is room in, count out; surplus descriptors are closed. Bytes, 0 at end, or -errno. */
ssize_t fd_recv(int sock, void *buf, size_t len, int *fds, size_t *n);
/* Listening unix stream socket of mode 0600 at a path where nothing stands; non-blocking. -1 with err. */
int fd_listen_unix(const char *path, struct err *err);
/* Whole regular file of at most `limit` bytes, NUL added after the end. NULL with err. */
char *fd_read_file(int fd, size_t limit, size_t *len, struct err *err);
char *file_read(const char *path, size_t limit, size_t *len, struct err *err);

#endif
