/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Engines in general: creation, reset, what memory and interrupts tell them. The threads are in vcpu.c. */
#include "engine/engine.h"

#include "engine/vcpu-int.h"

const struct engine_ops *const engines[] = { &engine_soft, NULL };

enum { MAX_CPUS = 255 };

static bool on_slot_set(struct mem_listener *l, const struct memslot *s, struct err *err)
{
    struct engine *e = container_of(l, struct engine, listener);
    return e->ops->memslot_set(e, s, err);
}

static void on_ram_written(struct mem_listener *l, gpa_t gpa, uint64_t len)
{
    struct engine *e = container_of(l, struct engine, listener);
    e->ops->ram_written(e, gpa, len);
}

static bool vcpus_init(struct engine *e, struct err *err)
{
    unsigned n = e->cfg.topo.cpus;
    e->vcpus = new0_array(struct vcpu, n);
    for (unsigned i = 0; i < n; i++) {
        struct vcpu *v = &e->vcpus[i];
        v->engine = e;
        v->index = i;
        v->apic_id = cpu_topology_apic_id(&e->cfg.topo, i);
        v->parked = true;
        if (!e->ops->vcpu_init(v, err)) {
            return false;
        }
    }
    return true;
}

struct engine *engine_create(const struct engine_ops *ops, const struct engine_config *cfg, struct err *err)
{
    if (cfg->topo.cpus == 0 || cfg->topo.cpus > MAX_CPUS) {
        err_set(err, ERR_INVALID, "%u CPUs: 1 to %d are possible", cfg->topo.cpus, (int)MAX_CPUS);
        return NULL;
    }
    struct engine *e = ops->create(cfg, err);
    if (!e) {
        return NULL;
    }
    e->ops = ops;
    e->cfg = *cfg;
    e->model = *cfg->model;
    e->cfg.model = &e->model;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->cond, NULL);
    e->listener.slot_set = ops->memslot_set ? on_slot_set : NULL;
    e->listener.ram_written = ops->ram_written ? on_ram_written : NULL;
    if (!vcpus_init(e, err) || !mem_listener_add(cfg->mem, &e->listener, err)) {
        engine_destroy(e);
        return NULL;
    }
    engine_reset(e);
    return e;
}

void engine_destroy(struct engine *e)
{
    if (!e) {
        return;
    }
    engine_stop_threads(e);
    mem_listener_del(e->cfg.mem, &e->listener);
    for (unsigned i = 0; e->vcpus && i < e->cfg.topo.cpus; i++) {
        if (e->vcpus[i].engine) {
            e->ops->vcpu_fini(&e->vcpus[i]);
        }
    }
    free(e->vcpus);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->cond);
    e->ops->destroy(e);
}

void engine_reset(struct engine *e)
{
    struct x86_state *st = aligned_alloc(64, (sizeof(*st) + 63) & ~(size_t)63);
    if (!st) {
        abort();
    }
    for (unsigned i = 0; i < e->cfg.topo.cpus; i++) {
        struct vcpu *v = &e->vcpus[i];
        x86_state_reset(st, v->apic_id, i == 0);
        e->ops->set(v, st, NULL);
        v->stopped = false;
    }
    free(st);
}
