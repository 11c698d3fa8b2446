/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm/filter.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define ALL (FILTER_ALL | FILTER_MAIN | FILTER_IO | FILTER_VCPU)
#define CALL(c) #c, SYS_##c
#define IS(n, v) .arg = (n), .mask = UINT32_MAX, .value = (v)
#define WITHOUT(n, bits) .arg = (n), .mask = (bits), .value = 0
#define WITH(n, bits) .arg = (n), .mask = (bits), .value = (bits)

/*
 * No thread starts after the sandbox has closed (block workers, the I/O thread and the vCPUs are there by then), no path is
 * opened, no socket made, no page made executable. Conditions look at the low half of an argument: all that these calls read.
 */
const struct filter_rule filter_rules[] = {
    /* waiting, waking, time */
    { CALL(futex), ALL },
    { CALL(epoll_wait), FILTER_ALL | FILTER_MAIN | FILTER_IO },
    { CALL(epoll_pwait), FILTER_ALL | FILTER_MAIN | FILTER_IO },
    { CALL(epoll_ctl), ALL },
    { CALL(poll), ALL },
    { CALL(timerfd_settime), ALL },
    { CALL(timer_settime), FILTER_ALL | FILTER_VCPU },
    { CALL(timer_delete), FILTER_ALL | FILTER_MAIN | FILTER_VCPU },
    { CALL(clock_gettime), ALL },
    { CALL(gettimeofday), ALL },
    { CALL(clock_nanosleep), ALL },
    { CALL(sched_yield), ALL },
    { CALL(membarrier), ALL },
    { CALL(restart_syscall), ALL },
    /* what was handed to us: disks, sockets, consoles */
    { CALL(read), ALL },
    { CALL(write), ALL },
    { CALL(readv), ALL },
    { CALL(writev), ALL },
    { CALL(pread64), FILTER_ALL | FILTER_MAIN | FILTER_IO },
    { CALL(preadv), FILTER_ALL | FILTER_MAIN | FILTER_IO },
    { CALL(pwrite64), FILTER_ALL },
    { CALL(pwritev), FILTER_ALL },
    { CALL(fdatasync), FILTER_ALL },
    { CALL(fallocate), FILTER_ALL | FILTER_IO },
    { CALL(lseek), FILTER_ALL },
    { CALL(fstat), ALL },
    { CALL(newfstatat), ALL, WITH(3, AT_EMPTY_PATH) },
    { CALL(close), FILTER_ALL | FILTER_MAIN | FILTER_IO },
    { CALL(recvfrom), FILTER_ALL | FILTER_MAIN | FILTER_IO },
    { CALL(recvmsg), FILTER_ALL | FILTER_MAIN | FILTER_IO },
    { CALL(sendto), ALL },
    { CALL(sendmsg), ALL },
    { CALL(accept4), FILTER_ALL | FILTER_MAIN | FILTER_IO },
    { CALL(shutdown), ALL },
    { CALL(fcntl), FILTER_ALL | FILTER_MAIN, IS(1, F_GETFL) },
    { CALL(fcntl), FILTER_ALL | FILTER_MAIN, IS(1, F_SETFL) },
    { CALL(fcntl), FILTER_ALL | FILTER_MAIN | FILTER_IO, IS(1, F_DUPFD_CLOEXEC) },
    { CALL(fcntl), FILTER_ALL | FILTER_MAIN, IS(1, F_OFD_SETLK) },
    /* memory, never executable */
    { CALL(mmap), ALL, WITHOUT(2, PROT_EXEC) },
    { CALL(mprotect), ALL, WITHOUT(2, PROT_EXEC) },
    { CALL(munmap), ALL },
    { CALL(mremap), ALL },
    { CALL(brk), ALL },
    { CALL(madvise), ALL, IS(2, MADV_DONTNEED) },
    { CALL(madvise), FILTER_ALL | FILTER_IO, IS(2, MADV_REMOVE) },
    { CALL(getrandom), ALL },
    /* ourselves */
    { CALL(getpid), ALL },
    { CALL(gettid), ALL },
    { CALL(tgkill), ALL, IS(0, FILTER_SELF) },
    { CALL(rt_sigprocmask), ALL },
    { CALL(rt_sigaction), FILTER_ALL | FILTER_MAIN },
    { CALL(rt_sigreturn), ALL },
    { CALL(sigaltstack), ALL },
    { CALL(exit), ALL },
    { CALL(exit_group), ALL },
    /* the first steps of a thread that was made just before */
    { CALL(rseq), FILTER_ALL },
    { CALL(set_robust_list), FILTER_ALL },
    { CALL(prctl), FILTER_ALL, IS(0, PR_SET_NAME) },
    /* a thread may narrow what it may do; each kind then gives that up */
    { CALL(seccomp), FILTER_ALL, IS(0, SECCOMP_SET_MODE_FILTER) },
};
const size_t n_filter_rules = ARRAY_SIZE(filter_rules);

struct builder {
    struct sock_filter *out;
    size_t n;
};

static void emit(struct builder *b, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
    if (b->n < FILTER_MAX) {
        b->out[b->n] = (struct sock_filter){ code, jt, jf, k };
    }
    b->n++;
}

static void load(struct builder *b, size_t off)
{
    emit(b, BPF_LD | BPF_W | BPF_ABS, (uint32_t)off, 0, 0);
}

static void ret(struct builder *b, uint32_t what)
{
    emit(b, BPF_RET | BPF_K, what, 0, 0);
}

/* The rows from i on that are of one call: jump over them unless it is this one; the first row that fits allows. */
static size_t build_call(struct builder *b, enum filter_kind kind, size_t i, uint32_t deny, uint32_t self)
{
    uint32_t nr = filter_rules[i].nr;
    size_t jump = b->n;
    bool any = false, always = false;
    emit(b, BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 0);
    for (; i < n_filter_rules && filter_rules[i].nr == nr; i++) {
        const struct filter_rule *r = &filter_rules[i];
        if (!(r->kinds & kind)) {
            continue;
        }
        any = true;
        always |= !r->mask;
        if (r->mask) {
            load(b, offsetof(struct seccomp_data, args) + r->arg * sizeof(uint64_t));
            if (r->mask != UINT32_MAX) {
                emit(b, BPF_ALU | BPF_AND | BPF_K, r->mask, 0, 0);
            }
            emit(b, BPF_JMP | BPF_JEQ | BPF_K, r->value == FILTER_SELF ? self : r->value, 0, 1);
        }
        ret(b, SECCOMP_RET_ALLOW);
    }
    if (!any) {
        b->n = jump;            /* not for this kind */
        return i;
    }
    if (!always) {
        ret(b, deny);
    }
    if (jump < FILTER_MAX) {
        b->out[jump].jf = (uint8_t)(b->n - jump - 1);
    }
    return i;
}

size_t filter_build(enum filter_kind kind, uint32_t deny, uint32_t self, struct sock_filter out[FILTER_MAX])
{
    enum { X32_BIT = 0x40000000 };
    struct builder b = { out, 0 };
    load(&b, offsetof(struct seccomp_data, arch));
    emit(&b, BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    ret(&b, SECCOMP_RET_KILL_PROCESS);
    load(&b, offsetof(struct seccomp_data, nr));
    emit(&b, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
    ret(&b, SECCOMP_RET_KILL_PROCESS);
    for (size_t i = 0; i < n_filter_rules;) {
        i = build_call(&b, kind, i, deny, self);
    }
    ret(&b, deny);
    return b.n;
}
