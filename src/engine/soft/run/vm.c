/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The vCPUs of a VM and what they share. */
#include "engine/soft/run/run-int.h"

#include "engine/soft/native/native.h"
#include "engine/soft/sys/sys.h"

/*
 * Bounds of private memory: the VMM has 24 MiB without guest RAM (docs/engine-soft-run.md). Blocks of all vCPUs together get
 * 12 MiB, and a vCPU never less than 1.5.
 */
enum { BLOCKS_SIZE = 12 * MIB, BLOCKS_MIN = 3 * MIB / 2, CODE_SIZE = 1 * MIB };

static struct soft_cpu *cpu_create(struct soft_vm *vm, unsigned index, struct err *err)
{
    struct soft_cpu *c = aligned_alloc(64, (sizeof(*c) + 63) & ~(size_t)63);
    if (!c) {
        err_set(err, ERR_NO_MEMORY, "no memory for vCPU %u", index);
        return NULL;
    }
    memset(c, 0, sizeof(*c));
    c->vm = vm;
    c->model = &vm->model;
    c->index = index;
    pthread_mutex_init(&c->apic_lock, NULL);
    mmu_cpu_init(c);
    c->run = new0(struct soft_run);
    vm->cpus[index] = c;
    size_t blocks = (size_t)max_u64(BLOCKS_SIZE / vm->n_cpus, BLOCKS_MIN);
    return block_cache_init(c, blocks, err) && native_cpu_init(c, err) ? c : NULL;
}

static void cpu_destroy(struct soft_cpu *c)
{
    if (!c) {
        return;
    }
    native_cpu_fini(c);
    timer_fini(c);
    block_cache_fini(c);
    pthread_mutex_destroy(&c->apic_lock);
    free(c->run);
    free(c);
}

struct soft_vm *soft_vm_create(struct mem *mem, struct irq_hub *irq, struct vm_clock *clock, const struct cpu_model *model,
                               unsigned n_cpus, size_t code_size, struct err *err)
{
    struct soft_vm *vm = new0(struct soft_vm);
    vm->mem = mem;
    vm->irq = irq;
    vm->clock = clock;
    vm->model = *model;
    vm->model.insn_feats = sys_model_feats(model);
    vm->n_cpus = n_cpus;
    vm->tsc_khz = model->tsc_khz;
    vm->cpus = new0_array(struct soft_cpu *, n_cpus);
    pthread_mutex_init(&vm->tsc.lock, NULL);
    code_map_create(vm);
    vm->code_buf = code_buf_create(code_size ? code_size : CODE_SIZE, err);
    bool ok = vm->code_buf != NULL;
    for (unsigned i = 0; ok && i < n_cpus; i++) {
        ok = cpu_create(vm, i, err) != NULL;
    }
    unsigned n_slots;
    const struct memslot *slots = mem_slots(mem, &n_slots);
    for (unsigned i = 0; ok && i < n_slots; i++) {
        ok = !slots[i].size || code_map_slot_set(vm->code, &slots[i], err);
    }
    if (!ok) {
        soft_vm_destroy(vm);
        return NULL;
    }
    return vm;
}

void soft_vm_destroy(struct soft_vm *vm)
{
    if (!vm) {
        return;
    }
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        cpu_destroy(vm->cpus[i]);
    }
    code_buf_destroy(vm->code_buf);
    code_map_destroy(vm->code);
    pthread_mutex_destroy(&vm->tsc.lock);
    free(vm->cpus);
    free(vm);
}
