/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages to stderr (or a descriptor given with log_to_fd). Any thread. Text from guests and files is escaped.
 * A source that a guest can trigger uses LOG_LIMITED: 10 lines a second, then a count of what was dropped.
 */
#ifndef LODGE_BASE_LOG_H
#define LODGE_BASE_LOG_H

#include <stdatomic.h>

#include "base/base.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };

extern _Atomic int log_threshold;       /* enum log_level; default LOG_WARN */

void log_to_fd(int fd);                 /* borrowed; -1 back to stderr */
bool log_level_parse(const char *s, enum log_level *out);
void log_write(enum log_level level, const char *module, const char *fmt, ...) PRINTF_LIKE(3, 4);

struct log_limit {
    _Atomic uint64_t window_ns;
    _Atomic uint32_t n, dropped;
};
/* True when a line may be written now. */
bool log_limit_ok(struct log_limit *l, const char *module);

#define log_at(level, module, ...)                                                                      \
    do {                                                                                                \
        if ((int)(level) <= atomic_load_explicit(&log_threshold, memory_order_relaxed)) {               \
            log_write((level), (module), __VA_ARGS__);                                                  \
        }                                                                                               \
    } while (0)
#define log_error(module, ...) log_at(LOG_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...) log_at(LOG_WARN, module, __VA_ARGS__)
#define log_info(module, ...) log_at(LOG_INFO, module, __VA_ARGS__)
#define log_debug(module, ...) log_at(LOG_DEBUG, module, __VA_ARGS__)
#define LOG_LIMITED(level, module, ...)                                                                 \
    do {                                                                                                \
        static struct log_limit limit_;                                                                 \
        if ((int)(level) <= atomic_load_explicit(&log_threshold, memory_order_relaxed) &&               \
            log_limit_ok(&limit_, (module))) {                                                          \
            log_write((level), (module), __VA_ARGS__);                                                  \
        }                                                                                               \
    } while (0)

#endif
