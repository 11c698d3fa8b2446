/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a CPU engine owes the machine. KVM and soft implement it; nothing above engine/ knows which one runs.
 * Guest CPU state always crosses as struct x86_state, so a VM saved under one engine resumes under the other.
 */
#ifndef LODGE_ENGINE_ENGINE_H
#define LODGE_ENGINE_ENGINE_H

#include <pthread.h>

#include "base/json.h"
#include "irq/irq.h"
#include "loop/loop.h"
#include "mem/mem.h"
#include "x86/cpuid.h"
#include "x86/x86_state.h"

struct engine;
struct vcpu;

enum vcpu_exit {
    VCPU_EXIT_KICKED,           /* asked to leave */
    VCPU_EXIT_SHUTDOWN,         /* triple fault */
    VCPU_EXIT_ERROR,            /* the engine cannot go on: info->msg says why; the guest is stopped, not aborted */
};
struct vcpu_exit_info {
    char msg[256];
};

struct engine_config {
    struct mem *mem;
    struct irq_hub *irq;
    struct vm_clock *clock;
    const struct cpu_model *model;
    struct cpu_topology topo;
    size_t code_size;           /* soft: bytes of host code; 0: default */
    int kvm_fd;                 /* kvm: /dev/kvm, opened by the broker; -1 */
};

struct engine_ops {
    const char *name;
    struct engine *(*create)(const struct engine_config *cfg, struct err *err);
    void (*destroy)(struct engine *e);
    bool (*vcpu_init)(struct vcpu *vcpu, struct err *err);
    void (*vcpu_fini)(struct vcpu *vcpu);
    bool (*thread_init)(struct vcpu *vcpu, struct err *err);    /* optional: on the vCPU's thread, before the sandbox closes */
    void (*resuming)(struct engine *e);     /* optional: all parked, about to run; the VM clock may have been started or set */
    bool (*memslot_set)(struct engine *e, const struct memslot *slot, struct err *err);     /* size 0 removes */
    /* ORs into `bits` the pages of `slot` dirtied since the last call, one bit per 4 KiB. Any thread. NULL: no logging yet. */
    bool (*dirty_fetch)(struct engine *e, const struct memslot *slot, uint64_t *bits, struct err *err);
    /* Runs guest code until something needs the VMM. vCPU thread only, no lock held. */
    enum vcpu_exit (*run)(struct vcpu *vcpu, struct vcpu_exit_info *info);
    void (*kick)(struct vcpu *vcpu);        /* run() soon returns VCPU_EXIT_KICKED. Any thread, async-signal-safe. */
    void (*get)(struct vcpu *vcpu, struct x86_state *st);                                   /* vCPU parked */
    bool (*set)(struct vcpu *vcpu, const struct x86_state *st, struct err *err);            /* vCPU parked */
    bool (*irqfd)(struct engine *e, int eventfd, unsigned gsi, struct err *err);    /* optional: NULL, core does it */
    void (*ram_written)(struct engine *e, gpa_t gpa, uint64_t len);     /* optional: a device wrote RAM (DMA into code) */
    void (*inspect)(struct engine *e, struct json_object *into);        /* counters for x-inspect; optional */
};

extern const struct engine_ops engine_soft;
/* By hand, in order of preference; NULL-terminated. */
extern const struct engine_ops *const engines[];

struct engine {
    const struct engine_ops *ops;
    struct engine_config cfg;
    struct cpu_model model;     /* copy that cfg.model points at */
    struct mem_listener listener;
    struct vcpu *vcpus;         /* topo.cpus of them */
    /* Called on a vCPU thread when the guest shut itself down or the engine failed; the vCPU then parks. */
    void (*on_exit)(struct engine *e, struct vcpu *vcpu, enum vcpu_exit why, const struct vcpu_exit_info *info);
    /* Optional: called on each vCPU's thread once, before it first runs guest code (the VMM narrows what it may ask of the kernel). */
    void (*on_thread)(struct engine *e, struct vcpu *vcpu);
    void *owner;                /* the machine */
    /* parking lot, engine/vcpu.c */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool run_wanted, quit;
    unsigned n_running;
};

struct vcpu {
    struct engine *engine;
    unsigned index;
    uint32_t apic_id;
    pthread_t thread;
    bool thread_live;
    pid_t tid;                  /* query-cpus-fast */
    bool parked, stopped /* shut down; needs set() before it runs again */;
    void *priv;                 /* the engine's */
};

/* Creates engine and vCPUs (threads parked), attaches to mem and irq, resets every vCPU to power-on state. */
struct engine *engine_create(const struct engine_ops *ops, const struct engine_config *cfg, struct err *err);
void engine_destroy(struct engine *e);
/* Starts the threads (parked). Before the sandbox closes. */
bool engine_start_threads(struct engine *e, struct err *err);
/* All vCPUs run / all vCPUs are parked when this returns. Not from a vCPU thread. The VM clock is the caller's: started before resume. */
void engine_resume(struct engine *e);
void engine_pause(struct engine *e);
bool engine_running(const struct engine *e);
/* Power-on state for all. Parked. */
void engine_reset(struct engine *e);

#endif
