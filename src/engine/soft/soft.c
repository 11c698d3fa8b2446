/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The software CPU as an engine: no host feature needed. What it is made of is in docs/engine-soft.md. */
#include "engine/engine.h"
#include "engine/soft/native/native.h"
#include "engine/soft/run/run.h"
#include "engine/soft/sys/sys.h"

struct soft_engine {
    struct engine e;
    struct soft_vm *vm;
};

static struct soft_engine *soft_of(struct engine *e)
{
    return container_of(e, struct soft_engine, e);
}

static bool irq_to_lapics(void *engine, uint64_t addr, uint32_t data)
{
    return lapic_msi(soft_of(engine)->vm, addr, data);
}

static void irq_extint(void *engine, bool level)
{
    lapic_set_extint(soft_of(engine)->vm->cpus[0], level);
}

static void irq_nmi(void *engine)
{
    struct soft_vm *vm = soft_of(engine)->vm;
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        lapic_nmi(vm->cpus[i]);
    }
}

static const struct irq_engine_ops soft_irq_ops = { .msi = irq_to_lapics, .extint = irq_extint, .nmi = irq_nmi };

static struct engine *soft_create(const struct engine_config *cfg, struct err *err)
{
    struct soft_engine *s = new0(struct soft_engine);
    s->vm = soft_vm_create(cfg->mem, cfg->irq, cfg->clock, cfg->model, cfg->topo.cpus, cfg->code_size, err);
    if (!s->vm) {
        free(s);
        return NULL;
    }
    cfg->irq->engine = &s->e;
    cfg->irq->eops = &soft_irq_ops;
    return &s->e;
}

static void soft_destroy(struct engine *e)
{
    struct soft_engine *s = soft_of(e);
    if (e->cfg.irq->engine == e) {
        e->cfg.irq->eops = NULL;
        e->cfg.irq->engine = NULL;
    }
    soft_vm_destroy(s->vm);
    free(s);
}

static bool soft_vcpu_init(struct vcpu *v, struct err *err)
{
    v->priv = soft_of(v->engine)->vm->cpus[v->index];
    return true;
}

static void soft_vcpu_fini(struct vcpu *v)
{
    v->priv = NULL;             /* the VM owns it */
}

static bool soft_vcpu_thread_init(struct vcpu *v, struct err *err)
{
    return soft_thread_init(v->priv, err);
}

static void soft_resuming(struct engine *e)
{
    sys_clock_started(soft_of(e)->vm);
}

static bool soft_memslot_set(struct engine *e, const struct memslot *s, struct err *err)
{
    return code_map_slot_set(soft_of(e)->vm->code, s, err);
}

static enum vcpu_exit soft_vcpu_run(struct vcpu *v, struct vcpu_exit_info *info)
{
    return soft_run(v->priv) == SOFT_EXIT_SHUTDOWN ? VCPU_EXIT_SHUTDOWN : VCPU_EXIT_KICKED;
}

static void soft_vcpu_kick(struct vcpu *v)
{
    soft_kick(v->priv);
}

static void soft_get(struct vcpu *v, struct x86_state *st)
{
    soft_cpu_export(v->priv, st);
}

static bool soft_set(struct vcpu *v, const struct x86_state *st, struct err *err)
{
    if (!x86_state_valid(st, err)) {
        return false;
    }
    soft_cpu_import(v->priv, st);
    v->stopped = false;
    return true;
}

static void soft_ram_written(struct engine *e, gpa_t gpa, uint64_t len)
{
    code_written(soft_of(e)->vm, gpa, len);
}

static void add_count(struct json_object *o, const char *name, uint64_t n)
{
    json_object_object_add(o, name, json_object_new_uint64(n));
}

/* Counters as the vCPU threads have them: each is whole, together they are of slightly different moments. */
static void soft_inspect(struct engine *e, struct json_object *into)
{
    struct soft_vm *vm = soft_of(e)->vm;
    struct json_object *cpus = json_object_new_array();
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        const struct soft_cpu *c = vm->cpus[i];
        const struct soft_stats *s = &c->stats;
        struct json_object *o = json_object_new_object();
        add_count(o, "insns", READ_ONCE(c->insns));
        add_count(o, "blocks-run", READ_ONCE(s->blocks_run));
        add_count(o, "blocks-built", READ_ONCE(s->blocks_built));
        add_count(o, "tlb-misses", READ_ONCE(s->tlb_misses));
        add_count(o, "tlb-flushes", READ_ONCE(s->tlb_flushes));
        add_count(o, "code-writes", READ_ONCE(s->smc_hits));
        add_count(o, "interrupts", READ_ONCE(s->irqs));
        add_count(o, "exceptions", READ_ONCE(s->exceptions));
        add_count(o, "pio", READ_ONCE(s->pio));
        add_count(o, "mmio", READ_ONCE(s->mmio));
        add_count(o, "halts", READ_ONCE(s->hlt));
        json_object_array_add(cpus, o);
    }
    json_object_object_add(into, "cpus", cpus);
    add_count(into, "host-code-bytes", code_buf_used(vm->code_buf));
}

const struct engine_ops engine_soft = {
    .name = "soft",
    .create = soft_create,
    .destroy = soft_destroy,
    .vcpu_init = soft_vcpu_init,
    .vcpu_fini = soft_vcpu_fini,
    .thread_init = soft_vcpu_thread_init,
    .resuming = soft_resuming,
    .memslot_set = soft_memslot_set,
    .run = soft_vcpu_run,
    .kick = soft_vcpu_kick,
    .get = soft_get,
    .set = soft_set,
    .ram_written = soft_ram_written,
    .inspect = soft_inspect,
};
