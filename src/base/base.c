/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"

uint64_t host_clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

void auto_fd_fn(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static void *check_memory(void *p)
{
    if (!p) {
        static const char msg[] = "lodge: out of memory\n";
        (void)!write(STDERR_FILENO, msg, sizeof(msg) - 1);
        abort();
    }
    return p;
}

void *alloc0_array(size_t n, size_t size)
{
    /* calloc(0) may return NULL: a pointer that can be freed and compared is worth one byte. */
    return check_memory(n && size ? calloc(n, size) : calloc(1, 1));
}

void *alloc0(size_t size)
{
    return alloc0_array(1, size);
}

char *str_dup(const char *s)
{
    return check_memory(strdup(s));
}

char *str_fmt(const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    return check_memory(n < 0 ? NULL : s);
}

void *try_alloc(size_t n, size_t size, size_t limit, struct err *err)
{
    size_t total;
    if (__builtin_mul_overflow(n, size, &total) || total > limit) {
        err_set(err, ERR_LIMIT, "%zu times %zu bytes of memory asked for, at most %zu bytes are allowed", n, size, limit);
        return NULL;
    }
    void *p = calloc(1, total ? total : 1);
    if (!p) {
        err_set(err, ERR_NO_MEMORY, "out of memory for %zu bytes", total);
    }
    return p;
}
