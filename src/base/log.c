/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/str.h"

enum { LOG_LINE_MAX = 4096, LIMIT_LINES = 10 };

_Atomic int log_threshold = LOG_WARN;
static _Atomic int log_fd = STDERR_FILENO;

static const char *const level_names[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warning", [LOG_INFO] = "info", [LOG_DEBUG] = "debug", [LOG_TRACE] = "trace",
};

void log_to_fd(int fd)
{
    atomic_store(&log_fd, fd < 0 ? STDERR_FILENO : fd);
}

bool log_level_parse(const char *s, enum log_level *out)
{
    if (strcmp(s, "warn") == 0) {
        *out = LOG_WARN;
        return true;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(level_names); i++) {
        if (strcmp(s, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    }
    return false;
}

void log_write(enum log_level level, const char *module, const char *fmt, ...)
{
    int saved = errno;          /* a message must not change what the caller looks at next */
    char text[LOG_LINE_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : min_u64((uint64_t)n, sizeof(text) - 1);

    AUTO_BUF struct buf line = { 0 };
    if (atomic_load_explicit(&log_threshold, memory_order_relaxed) >= LOG_DEBUG) {
        uint64_t now = host_clock_ns();
        buf_printf(&line, "[%5u.%06u] ", (unsigned)(now / NS_PER_SEC), (unsigned)(now % NS_PER_SEC / NS_PER_US));
    }
    buf_printf(&line, "%s: %s: ", module, level_names[level]);
    str_escape(&line, text, len);
    buf_add_u8(&line, '\n');
    /* One write a line, so that threads do not mix; a full or closed log is not worth stopping for. */
    (void)!write(atomic_load(&log_fd), line.data, line.len);
    errno = saved;
}

bool log_limit_ok(struct log_limit *l, const char *module)
{
    uint64_t now = host_clock_ns(), start = atomic_load(&l->window_ns);
    if (start == 0 || now - start >= NS_PER_SEC) {
        if (atomic_compare_exchange_strong(&l->window_ns, &start, now)) {
            atomic_store(&l->n, 0);
            uint32_t dropped = atomic_exchange(&l->dropped, 0);
            if (dropped) {
                log_write(LOG_WARN, module, "%u similar messages were dropped", (unsigned)dropped);
            }
        }
    }
    if (atomic_fetch_add(&l->n, 1) < LIMIT_LINES) {
        return true;
    }
    atomic_fetch_add(&l->dropped, 1);
    return false;
}
