/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small words used everywhere: container_of, array sizes, bounds, checked sums, cleanup attributes.
 */
#ifndef LODGE_BASE_BASE_H
#define LODGE_BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define container_of(ptr, type, member)                                                                 \
    ((type *)(void *)((char *)(1 ? (ptr) : &((type *)NULL)->member) - offsetof(type, member)))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))
#define READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))

enum { NS_PER_US = 1000, NS_PER_MS = 1000000, NS_PER_SEC = 1000000000 };
enum { KIB = 1 << 10, MIB = 1 << 20, GIB = 1 << 30 };

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* [off, off+len) lies in [0, size), with no wrap for any values. */
static inline bool range_ok(uint64_t off, uint64_t len, uint64_t size)
{
    return len <= size && off <= size - len;
}

/* a * b / c with a 128-bit product; c is not 0 and the quotient fits. */
static inline uint64_t muldiv64(uint64_t a, uint64_t b, uint64_t c)
{
    return (uint64_t)((unsigned __int128)a * b / c);
}

/* CLOCK_MONOTONIC in ns. Any thread. */
uint64_t host_clock_ns(void);

static inline void auto_free_fn(void *p)
{
    free(*(void **)p);
}

void auto_fd_fn(int *fd);

#define AUTO_FREE __attribute__((cleanup(auto_free_fn)))
#define AUTO_FD __attribute__((cleanup(auto_fd_fn), unused))      /* holding it open may be its only use */

/* Moves a pointer or descriptor out of an AUTO_ variable. */
#define TAKE_PTR(p) ({ __typeof__(p) taken_ = (p); (p) = NULL; taken_; })
#define TAKE_FD(fd) ({ int taken_ = (fd); (fd) = -1; taken_; })

/* Zeroed memory; abort on exhaustion: for sizes that are ours. */
void *alloc0(size_t size);
void *alloc0_array(size_t n, size_t size);
char *str_dup(const char *s);
char *str_fmt(const char *fmt, ...) PRINTF_LIKE(1, 2);
#define new0(type) ((type *)alloc0(sizeof(type)))
#define new0_array(type, n) ((type *)alloc0_array((n), sizeof(type)))

/* Zeroed memory of a size somebody else chose; NULL with err set when n * size > limit or memory is out. */
struct err;
void *try_alloc(size_t n, size_t size, size_t limit, struct err *err);

#endif
