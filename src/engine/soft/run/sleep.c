/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sleep, wake, kick, and the timer. c->pending is the futex word: whoever has news sets a bit and then looks at `sleeping`;
 * the sleeper sets `sleeping` and then lets the kernel compare the word. So no wake-up is lost, also not one from a signal.
 *
 * The LAPIC timer is a POSIX timer a vCPU that signals the vCPU's own thread: it interrupts guest code on the host CPU it
 * runs on, with no other thread in between, and ends a sleep. It is only set again when the next deadline is earlier than
 * what it stands at; one that comes too early is looked at and set again.
 */
#include "engine/soft/run/run-int.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/soft/sys/sys.h"

/* What does not end a sleep by itself. */
enum { NOT_WAKING = PEND_SHADOW | PEND_STOP_WORLD | PEND_REQUEST };

static _Thread_local struct soft_cpu *timer_cpu;        /* the vCPU this thread runs */

static int timer_signal(void)
{
    return SIGRTMIN + 4;
}

static void on_timer(int sig)
{
    struct soft_cpu *c = timer_cpu;
    if (c) {
        cpu_pend(c, PEND_TIMER);
    }
}

static void install_handler(void)
{
    struct sigaction sa = { .sa_handler = on_timer, .sa_flags = SA_RESTART | SA_ONSTACK };
    sigemptyset(&sa.sa_mask);
    sigaction(timer_signal(), &sa, NULL);
}

bool soft_thread_init(struct soft_cpu *c, struct err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct soft_run *r = c->run;
    timer_cpu = c;
    if (likely(r->tid == gettid())) {
        return true;
    }
    pthread_once(&once, install_handler);
    timer_fini(c);
    struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = timer_signal() };
    ev._sigev_un._tid = gettid();
    if (timer_create(CLOCK_MONOTONIC, &ev, &r->timer) != 0) {
        return err_set_errno(err, errno, "timer of vCPU %u", c->index);
    }
    r->tid = gettid();
    r->armed_ns = 0;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, timer_signal());
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return true;
}

void timer_fini(struct soft_cpu *c)
{
    if (c->run->tid) {
        timer_delete(c->run->timer);
        c->run->tid = 0;
    }
}

void timer_rearm(struct soft_cpu *c)
{
    struct soft_run *r = c->run;
    uint64_t deadline = lapic_next_deadline(c);
    if (deadline == UINT64_MAX || !r->tid) {
        return;
    }
    uint64_t now = vm_clock_ns(c->vm->clock), host = host_clock_ns();
    if (deadline <= now) {
        cpu_pend(c, PEND_TIMER);
        return;
    }
    uint64_t at = host + (deadline - now);
    if (at < host || at > INT64_MAX) {
        at = INT64_MAX;
    }
    if (r->armed_ns > host && r->armed_ns <= at) {
        return;
    }
    struct itimerspec t = { .it_value = { .tv_sec = (time_t)(at / NS_PER_SEC), .tv_nsec = (long)(at % NS_PER_SEC) } };
    timer_settime(r->timer, TIMER_ABSTIME, &t, NULL);
    r->armed_ns = at;
}

void sleep_wait(struct soft_cpu *c)
{
    struct soft_run *r = c->run;
    sys_sleep_begin(c);
    for (;;) {
        atomic_store(&r->sleeping, 1);
        uint32_t p = atomic_load(&c->pending);
        if (p & ~(uint32_t)NOT_WAKING) {
            break;
        }
        syscall(SYS_futex, &c->pending, FUTEX_WAIT_PRIVATE, p, NULL, NULL, 0);
    }
    atomic_store_explicit(&r->sleeping, 0, memory_order_relaxed);
    sys_sleep_end(c);
}

void cpu_wake(struct soft_cpu *c)
{
    if (c->run && atomic_load(&c->run->sleeping)) {
        syscall(SYS_futex, &c->pending, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }
}

void soft_kick(struct soft_cpu *c)
{
    int saved = errno;
    cpu_pend(c, PEND_KICK);
    cpu_wake(c);
    errno = saved;
}
