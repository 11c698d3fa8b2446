/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Host code made at run time. One memfd, sealed, mapped twice: RW for the writer, RX for execution, so that no page is
 * ever both. Append-only until native_flush(); a thunk is complete before its address leaves the lock, and memory that
 * was executed is not written again before every vCPU stood still (and, where the kernel has it, ran a core barrier).
 */
#include "engine/soft/native/native.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/soft/native/native-int.h"

struct thunk_slot {
    uint64_t key;               /* struct thunk_spec; 0: free */
    uint32_t off;
};

struct code_buf {
    pthread_mutex_t lock;       /* guards all below but the mappings */
    uint8_t *rw;
    uint8_t *rx;
    size_t size, used;          /* bytes */
    struct thunk_slot *slots;   /* open addressing */
    size_t n_slots, n_used;     /* n_slots a power of two; at most three quarters are used */
};

enum { CODE_MIN = 64 * KIB, CODE_MAX = 64 * MIB, CODE_ALIGN = 16, BYTES_PER_SLOT = 64 };
#ifndef MFD_EXEC
#define MFD_EXEC 0x10U
#endif

static void put_ret(struct code_buf *b)
{
    memset(b->rw, 0xcc, CODE_ALIGN);
    b->rw[0] = 0xc3;
    b->used = CODE_ALIGN;
}

static bool map_twice(struct code_buf *b, struct err *err)
{
    /* MFD_EXEC is asked for where vm.memfd_noexec may forbid the default; kernels before 6.3 do not know it. */
    AUTO_FD int fd = memfd_create("lodge-code", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
    if (fd < 0 && errno == EINVAL) {
        fd = memfd_create("lodge-code", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    }
    if (fd < 0 || ftruncate(fd, (off_t)b->size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        return err_set_errno(err, errno, "memory for generated code");
    }
    void *rw = mmap(NULL, b->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    b->rw = rw == MAP_FAILED ? NULL : rw;
    void *rx = mmap(NULL, b->size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    b->rx = rx == MAP_FAILED ? NULL : rx;
    if (!b->rw || !b->rx) {
        return err_set_errno(err, errno, "mapping generated code (is executable shared memory forbidden here?)");
    }
    return true;
}

struct code_buf *code_buf_create(size_t size, struct err *err)
{
    if (size < CODE_MIN || size > CODE_MAX) {
        err_set(err, ERR_LIMIT, "code buffer of %zu bytes: must be %d to %d", size, CODE_MIN, CODE_MAX);
        return NULL;
    }
    struct code_buf *b = new0(struct code_buf);
    b->size = (size + 4095) & ~(size_t)4095;
    pthread_mutex_init(&b->lock, NULL);
    if (!map_twice(b, err)) {
        code_buf_destroy(b);
        return NULL;
    }
    b->n_slots = 1;
    while (b->n_slots < b->size / BYTES_PER_SLOT) {
        b->n_slots *= 2;
    }
    b->slots = new0_array(struct thunk_slot, b->n_slots);
    put_ret(b);
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);   /* best effort */
    return b;
}

void code_buf_destroy(struct code_buf *b)
{
    if (!b) {
        return;
    }
    if (b->rw) {
        munmap(b->rw, b->size);
    }
    if (b->rx) {
        munmap(b->rx, b->size);
    }
    pthread_mutex_destroy(&b->lock);
    free(b->slots);
    free(b);
}

size_t code_buf_used(const struct code_buf *b)
{
    struct code_buf *w = (struct code_buf *)b;  /* the lock is the only thing touched */
    pthread_mutex_lock(&w->lock);
    size_t n = b->used;
    pthread_mutex_unlock(&w->lock);
    return n;
}

bool code_buf_contains(const struct code_buf *b, uint64_t host)
{
    return host - (uintptr_t)b->rx < b->size;
}

uint64_t code_buf_ret(const struct code_buf *b)
{
    return (uintptr_t)b->rx;
}

void native_flush(struct code_buf *b)
{
    pthread_mutex_lock(&b->lock);
    memset(b->slots, 0, b->n_slots * sizeof(*b->slots));
    b->n_used = 0;
    /* Not put_ret: it stays as it is, and nothing that may be executing is touched before the barrier. */
    b->used = CODE_ALIGN;
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
    pthread_mutex_unlock(&b->lock);
}

static struct thunk_slot *find_slot_locked(struct code_buf *b, uint64_t key)
{
    size_t i = (key * 0x9e3779b97f4a7c15ull) >> 32 & (b->n_slots - 1);
    while (b->slots[i].key && b->slots[i].key != key) {
        i = (i + 1) & (b->n_slots - 1);
    }
    return &b->slots[i];
}

/* Appends a thunk; false when the buffer or the table is full. */
static bool add_locked(struct code_buf *b, struct thunk_slot *slot, uint64_t key, const struct emit *e)
{
    size_t room = (e->n + CODE_ALIGN - 1) & ~(size_t)(CODE_ALIGN - 1);
    if (room > b->size - b->used || b->n_used >= b->n_slots / 4 * 3) {
        return false;
    }
    memcpy(b->rw + b->used, e->b, e->n);
    memset(b->rw + b->used + e->n, 0xcc, room - e->n);
    *slot = (struct thunk_slot){.key = key, .off = (uint32_t)b->used};
    b->used += room;
    b->n_used++;
    return true;
}

uint64_t code_buf_thunk(struct code_buf *b, const struct thunk_spec *s)
{
    uint64_t key, addr = 0;
    memcpy(&key, s, sizeof(key));
    pthread_mutex_lock(&b->lock);
    struct thunk_slot *slot = find_slot_locked(b, key);
    bool have = slot->key == key;
    if (!have) {
        struct emit e = {.n = 0};
        thunk_emit(&e, s);
        have = add_locked(b, slot, key, &e);
    }
    if (have) {
        addr = (uintptr_t)b->rx + slot->off;
    }
    pthread_mutex_unlock(&b->lock);
    return addr;
}
