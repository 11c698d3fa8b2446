/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Standing still together. A vCPU is "in the world" while it may hold host pointers or run blocks; it steps out at block
 * edges and in HLT. Whoever needs all others to stand still stops the world, waits until nobody is in it, and starts it
 * again. A vCPU that waits here counts as outside, so two callers take turns instead of waiting for each other. Hence: no
 * host pointer survives mmu_exclusive_begin or code_track.
 */
#include "engine/soft/mmu/mmu-int.h"

static void kick_others(struct code_map *m, const struct soft_cpu *self)
{
    for (unsigned i = 0; m->vm->cpus && i < m->vm->n_cpus; i++) {
        struct soft_cpu *c = m->vm->cpus[i];
        if (c && c != self && m->cpus[i].in_world) {
            cpu_pend(c, PEND_STOP_WORLD);
        }
    }
}

static void stop_locked(struct code_map *m, const struct soft_cpu *self)
{
    while (m->world_stopped) {
        pthread_cond_wait(&m->world_cond, &m->world_lock);
    }
    m->world_stopped = true;
    kick_others(m, self);
    while (m->n_in_world) {
        pthread_cond_wait(&m->world_cond, &m->world_lock);
    }
}

static void leave_locked(struct code_map *m, struct mmu_cpu *mc)
{
    mc->in_world = false;
    if (--m->n_in_world == 0) {
        pthread_cond_broadcast(&m->world_cond);
    }
}

void mmu_world_enter(struct soft_cpu *c)
{
    struct code_map *m = c->vm->code;
    pthread_mutex_lock(&m->world_lock);
    while (m->world_stopped) {
        pthread_cond_wait(&m->world_cond, &m->world_lock);
    }
    mmu_of(c)->in_world = true;
    m->n_in_world++;
    pthread_mutex_unlock(&m->world_lock);
}

void mmu_world_leave(struct soft_cpu *c)
{
    struct code_map *m = c->vm->code;
    pthread_mutex_lock(&m->world_lock);
    leave_locked(m, mmu_of(c));
    pthread_mutex_unlock(&m->world_lock);
}

void mmu_world_stop(struct soft_vm *vm)
{
    struct code_map *m = vm->code;
    pthread_mutex_lock(&m->world_lock);
    stop_locked(m, NULL);
    pthread_mutex_unlock(&m->world_lock);
}

void mmu_world_start(struct soft_vm *vm)
{
    struct code_map *m = vm->code;
    pthread_mutex_lock(&m->world_lock);
    m->world_stopped = false;
    pthread_cond_broadcast(&m->world_cond);
    pthread_mutex_unlock(&m->world_lock);
}

void mmu_exclusive_begin(struct soft_cpu *c)
{
    struct code_map *m = c->vm->code;
    struct mmu_cpu *mc = mmu_of(c);
    pthread_mutex_lock(&m->world_lock);
    bool was_in = mc->in_world;
    uint32_t drops = m->drops;
    if (was_in) {
        leave_locked(m, mc);
    }
    stop_locked(m, c);
    if (was_in) {
        mc->in_world = true;    /* counted again when it ends */
    }
    mc->exclusive = true;
    bool dropped = m->drops != drops;
    pthread_mutex_unlock(&m->world_lock);
    if (unlikely(dropped) && c->u && !c->single) {
        mmu_exclusive_end(c);
        cpu_restart_single(c);
    }
}

void mmu_code_dropped(struct soft_vm *vm)
{
    pthread_mutex_lock(&vm->code->world_lock);
    vm->code->drops++;
    pthread_mutex_unlock(&vm->code->world_lock);
}

void mmu_exclusive_end(struct soft_cpu *c)
{
    struct code_map *m = c->vm->code;
    struct mmu_cpu *mc = mmu_of(c);
    pthread_mutex_lock(&m->world_lock);
    mc->exclusive = false;
    m->world_stopped = false;
    if (mc->in_world) {
        m->n_in_world++;
    }
    pthread_cond_broadcast(&m->world_cond);
    pthread_mutex_unlock(&m->world_lock);
}

void mmu_exclusive_abort(struct soft_cpu *c)
{
    if (unlikely(mmu_of(c)->exclusive)) {
        mmu_exclusive_end(c);
    }
}
