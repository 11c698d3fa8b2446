/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One thread a vCPU, and the lot where they park. A vCPU is in ops->run, or parked; between the two it holds e->lock.
 * It runs while run_wanted is set and it is not stopped (shut down or failed: it needs a new state first).
 */
#include "engine/vcpu-int.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"

enum { STACK_SIZE = 2 * MIB };

struct start {
    struct vcpu *vcpu;
    struct err *err;
    bool done, ok;              /* under e->lock */
};

static void park_locked(struct vcpu *v)
{
    struct engine *e = v->engine;
    if (!v->parked) {
        v->parked = true;
        e->n_running--;
        pthread_cond_broadcast(&e->cond);
    }
}

/* False: the engine goes away. */
static bool wait_for_work_locked(struct vcpu *v)
{
    struct engine *e = v->engine;
    while (!e->quit && (!e->run_wanted || v->stopped)) {
        park_locked(v);
        pthread_cond_wait(&e->cond, &e->lock);
    }
    if (e->quit) {
        park_locked(v);
        return false;
    }
    if (v->parked) {
        v->parked = false;
        e->n_running++;
        pthread_cond_broadcast(&e->cond);
    }
    return true;
}

static void vcpu_loop(struct vcpu *v)
{
    struct engine *e = v->engine;
    bool first = true;
    pthread_mutex_lock(&e->lock);
    while (wait_for_work_locked(v)) {
        struct vcpu_exit_info info = { "" };
        pthread_mutex_unlock(&e->lock);
        if (first && e->on_thread) {
            e->on_thread(e, v);
        }
        first = false;
        enum vcpu_exit why = e->ops->run(v, &info);
        if (why == VCPU_EXIT_KICKED) {
            pthread_mutex_lock(&e->lock);
            continue;
        }
        pthread_mutex_lock(&e->lock);
        v->stopped = true;
        pthread_mutex_unlock(&e->lock);
        if (e->on_exit) {
            e->on_exit(e, v, why, &info);
        }
        pthread_mutex_lock(&e->lock);
    }
    pthread_mutex_unlock(&e->lock);
}

static void *vcpu_main(void *arg)
{
    struct start *s = arg;
    struct vcpu *v = s->vcpu;
    struct engine *e = v->engine;
    char name[16];
    snprintf(name, sizeof(name), "vcpu %u", v->index);
    pthread_setname_np(pthread_self(), name);
    bool ok = !e->ops->thread_init || e->ops->thread_init(v, s->err);
    pthread_mutex_lock(&e->lock);
    v->tid = gettid();
    s->ok = ok;
    s->done = true;             /* s is the starter's again */
    pthread_cond_broadcast(&e->cond);
    pthread_mutex_unlock(&e->lock);
    if (ok) {
        vcpu_loop(v);
    }
    return NULL;
}

/* Signals are the main thread's, but for those that an instruction of this thread raises. */
static void block_signals(sigset_t *old)
{
    sigset_t set;
    sigfillset(&set);
    sigdelset(&set, SIGSEGV);
    sigdelset(&set, SIGBUS);
    sigdelset(&set, SIGILL);
    sigdelset(&set, SIGFPE);
    sigdelset(&set, SIGTRAP);
    pthread_sigmask(SIG_SETMASK, &set, old);
}

static bool thread_start(struct vcpu *v, struct err *err)
{
    struct engine *e = v->engine;
    struct start s = { .vcpu = v, .err = err };
    pthread_attr_t attr;
    sigset_t old;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    block_signals(&old);
    int en = pthread_create(&v->thread, &attr, vcpu_main, &s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (en) {
        return err_set_errno(err, en, "cannot start the thread of vCPU %u", v->index);
    }
    pthread_mutex_lock(&e->lock);
    while (!s.done) {
        pthread_cond_wait(&e->cond, &e->lock);
    }
    v->thread_live = s.ok;
    pthread_mutex_unlock(&e->lock);
    if (!s.ok) {
        pthread_join(v->thread, NULL);
    }
    return s.ok;
}

bool engine_start_threads(struct engine *e, struct err *err)
{
    for (unsigned i = 0; i < e->cfg.topo.cpus; i++) {
        if (!e->vcpus[i].thread_live && !thread_start(&e->vcpus[i], err)) {
            return false;
        }
    }
    return true;
}

static bool all_started_locked(const struct engine *e)
{
    for (unsigned i = 0; i < e->cfg.topo.cpus; i++) {
        const struct vcpu *v = &e->vcpus[i];
        if (v->thread_live && v->parked && !v->stopped) {
            return false;
        }
    }
    return true;
}

void engine_resume(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    if (!e->run_wanted) {
        if (e->ops->resuming) {
            e->ops->resuming(e);
        }
        e->run_wanted = true;
        pthread_cond_broadcast(&e->cond);
        while (e->run_wanted && !all_started_locked(e)) {
            pthread_cond_wait(&e->cond, &e->lock);
        }
    }
    pthread_mutex_unlock(&e->lock);
}

static void pause_locked(struct engine *e)
{
    e->run_wanted = false;
    for (unsigned i = 0; i < e->cfg.topo.cpus; i++) {
        if (!e->vcpus[i].parked) {
            e->ops->kick(&e->vcpus[i]);
        }
    }
    while (e->n_running) {
        pthread_cond_wait(&e->cond, &e->lock);
    }
}

void engine_pause(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    pause_locked(e);
    pthread_mutex_unlock(&e->lock);
}

bool engine_running(const struct engine *e)
{
    struct engine *w = (struct engine *)e;      /* only its lock is touched */
    pthread_mutex_lock(&w->lock);
    bool running = e->run_wanted;
    pthread_mutex_unlock(&w->lock);
    return running;
}

void engine_stop_threads(struct engine *e)
{
    if (!e->vcpus) {
        return;
    }
    pthread_mutex_lock(&e->lock);
    pause_locked(e);
    e->quit = true;
    pthread_cond_broadcast(&e->cond);
    pthread_mutex_unlock(&e->lock);
    for (unsigned i = 0; i < e->cfg.topo.cpus; i++) {
        if (e->vcpus[i].thread_live) {
            pthread_join(e->vcpus[i].thread, NULL);
            e->vcpus[i].thread_live = false;
        }
    }
}
