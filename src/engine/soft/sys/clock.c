/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's TSC. VM TSC = host TSC - delta while the VM clock runs, and stands still while it is paused; a vCPU adds its
 * own offset. delta follows the clock's offset: whenever (offset, running) is not what delta was made for, it is moved by the
 * nanoseconds the offset moved. So a pause, or a clock set after loading a state, needs no hook, and within one run the guest
 * reads the bare host TSC. Host TSC and host clock may drift apart by parts per million; vm_tsc_skew is that drift, and saved
 * states carry it in the vCPU's offset.
 *
 * Lock-free read: delta or frozen is stored before key (release), read after it (acquire). The clock changes only while
 * vCPUs are parked, so a reader never races a change of its own clock.
 */
#include "engine/soft/sys/sys-int.h"

static uint64_t khz(const struct soft_vm *vm)
{
    return vm->tsc_khz ? vm->tsc_khz : 1000000;
}

static uint64_t ns_to_tsc(const struct soft_vm *vm, uint64_t ns)
{
    return muldiv64(ns, khz(vm), 1000000);
}

uint64_t tsc_to_ns(const struct soft_vm *vm, uint64_t ticks)
{
    return muldiv64(ticks, 1000000, khz(vm));
}

static uint64_t clock_key(const struct soft_vm *vm)
{
    return atomic_load_explicit(&vm->clock->offset_ns, memory_order_relaxed) << 1 |
           atomic_load_explicit(&vm->clock->running, memory_order_relaxed);
}

/* Signed difference of two offsets, scaled. */
static uint64_t offset_to_tsc(const struct soft_vm *vm, uint64_t now, uint64_t then)
{
    int64_t d = (int64_t)(now - then);
    return d < 0 ? -ns_to_tsc(vm, (uint64_t)-d) : ns_to_tsc(vm, (uint64_t)d);
}

static void resync(struct soft_vm *vm)
{
    pthread_mutex_lock(&vm->tsc.lock);
    uint64_t key = clock_key(vm), old = atomic_load_explicit(&vm->tsc.key, memory_order_relaxed);
    uint64_t off = (uint64_t)((int64_t)key >> 1), old_off = (uint64_t)((int64_t)old >> 1);
    uint64_t tsc = __builtin_ia32_rdtsc(), host_ns = host_clock_ns();
    if (key & 1) {
        uint64_t delta;
        if (old & 1) {
            delta = atomic_load_explicit(&vm->tsc.delta, memory_order_relaxed) + offset_to_tsc(vm, off, old_off);
        } else {        /* it ran on from the frozen value for as long as the clock runs again */
            delta = tsc - atomic_load_explicit(&vm->tsc.frozen, memory_order_relaxed) - offset_to_tsc(vm, host_ns - off, old_off);
        }
        atomic_store_explicit(&vm->tsc.delta, delta, memory_order_relaxed);
    } else {
        uint64_t frozen = ns_to_tsc(vm, off);       /* the clock was set */
        if (old & 1) {                              /* it stopped at VM time `off`, which was host time off + old_off */
            frozen = tsc - atomic_load_explicit(&vm->tsc.delta, memory_order_relaxed) - offset_to_tsc(vm, host_ns, off + old_off);
        } else {
            vm->tsc.have_ref = false;
        }
        atomic_store_explicit(&vm->tsc.frozen, frozen, memory_order_relaxed);
    }
    atomic_store_explicit(&vm->tsc.key, key, memory_order_release);
    pthread_mutex_unlock(&vm->tsc.lock);
}

uint64_t vm_tsc(struct soft_vm *vm)
{
    uint64_t key = clock_key(vm);
    if (unlikely(atomic_load_explicit(&vm->tsc.key, memory_order_acquire) != key)) {
        resync(vm);
    }
    if (key & 1) {
        return __builtin_ia32_rdtsc() - atomic_load_explicit(&vm->tsc.delta, memory_order_relaxed);
    }
    return atomic_load_explicit(&vm->tsc.frozen, memory_order_relaxed);
}

uint64_t vm_tsc_skew(struct soft_vm *vm)
{
    return vm_tsc(vm) - ns_to_tsc(vm, vm_clock_ns(vm->clock));
}

uint64_t sys_read_tsc(struct soft_cpu *c)
{
    return vm_tsc(c->vm) + c->st.tsc_offset;
}

void sys_clock_started(struct soft_vm *vm)
{
    vm_tsc(vm);
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        pv_clock_write(vm->cpus[i]);
    }
}
