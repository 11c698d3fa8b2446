/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parking lot: pause and resume, shutdown, reset, threads' names, and the counters, on the software CPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "engine/engine.h"

enum { CODE_AT = 0x8000 };

struct fixture {
    struct mem *mem;
    struct irq_hub irq;
    struct vm_clock clock;
    struct cpu_model model;
    struct engine *e;
    pthread_mutex_t lock;
    unsigned n_exits;
    enum vcpu_exit why;
};

static struct fixture fx;

static void on_exit_(struct engine *e, struct vcpu *v, enum vcpu_exit why, const struct vcpu_exit_info *info)
{
    pthread_mutex_lock(&fx.lock);
    fx.n_exits++;
    fx.why = why;
    pthread_mutex_unlock(&fx.lock);
}

static unsigned exits(void)
{
    pthread_mutex_lock(&fx.lock);
    unsigned n = fx.n_exits;
    pthread_mutex_unlock(&fx.lock);
    return n;
}

static void create(unsigned cpus)
{
    struct err err = ERR_INIT;
    memset(&fx, 0, sizeof(fx));
    pthread_mutex_init(&fx.lock, NULL);
    fx.mem = mem_create();
    irq_hub_init(&fx.irq);
    vm_clock_init(&fx.clock);
    struct engine_config cfg = { .mem = fx.mem, .irq = &fx.irq, .clock = &fx.clock, .model = &fx.model,
                                 .topo = { cpus, 1, cpus, 1 }, .kvm_fd = -1 };
    if (!mem_ram_add(fx.mem, 0, 1 * MIB, &err) || !cpu_model_make(&fx.model, "max", &cfg.topo, &err)) {
        fail_msg("%s", err.msg);
    }
    fx.e = engine_create(&engine_soft, &cfg, &err);
    if (!fx.e || !engine_start_threads(fx.e, &err)) {
        fail_msg("%s", err.msg);
    }
    fx.e->on_exit = on_exit_;
    vm_clock_start(&fx.clock);
    alarm(20);
}

static void destroy(void)
{
    engine_destroy(fx.e);
    vm_clock_fini(&fx.clock);
    mem_destroy(fx.mem);
    alarm(0);
}

/* Real-mode code at 0:CODE_AT on one vCPU. */
static void put_code(unsigned cpu, const void *code, size_t n, struct x86_state *st)
{
    assert_true(mem_write(fx.mem, CODE_AT + 0x100 * cpu, code, n));
    fx.e->ops->get(&fx.e->vcpus[cpu], st);
    st->seg[1].sel = 0;
    st->seg[1].base = 0;
    st->rip = CODE_AT + 0x100 * cpu;
    st->ev.mp_state = MP_RUNNABLE;
    assert_true(fx.e->ops->set(&fx.e->vcpus[cpu], st, NULL));
}

static const uint8_t count_forever[] = { 0x40, 0xeb, 0xfd };    /* inc ax; jmp */

static void test_pause_parks_all_and_resume_goes_on(void **unused)
{
    struct x86_state *st = aligned_alloc(64, (sizeof(*st) + 63) & ~(size_t)63);
    create(3);
    for (unsigned i = 0; i < 3; i++) {
        put_code(i, count_forever, sizeof(count_forever), st);
    }
    for (unsigned i = 0; i < 100; i++) {
        engine_resume(fx.e);
        assert_true(engine_running(fx.e));
        if (i % 10 == 0) {
            usleep(1000);
        }
        engine_pause(fx.e);
        assert_false(engine_running(fx.e));
        for (unsigned c = 0; c < 3; c++) {
            assert_true(fx.e->vcpus[c].parked);
        }
        fx.e->ops->get(&fx.e->vcpus[i % 3], st);
        assert_in_range(st->rip, CODE_AT, CODE_AT + 0x210);
    }
    struct json_object *o = json_object_new_object(), *cpus, *n;
    fx.e->ops->inspect(fx.e, o);
    assert_true(json_object_object_get_ex(o, "cpus", &cpus));
    assert_int_equal(json_object_array_length(cpus), 3);
    assert_true(json_object_object_get_ex(json_object_array_get_idx(cpus, 0), "insns", &n));
    assert_true(json_object_get_uint64(n) > 1000);
    json_object_put(o);
    destroy();
    free(st);
}

static void test_a_shutdown_is_reported_once_and_reset_revives(void **unused)
{
    static const uint8_t triple[] = { 0x0f, 0x01, 0x1e, 0x00, 0x90, 0xcc };     /* lidt [0x9000] (all zero); int3 */
    struct x86_state *st = aligned_alloc(64, (sizeof(*st) + 63) & ~(size_t)63);
    create(1);
    for (unsigned i = 1; i <= 3; i++) {
        put_code(0, triple, sizeof(triple), st);
        engine_resume(fx.e);
        while (exits() < i) {
            usleep(100);
        }
        engine_pause(fx.e);
        assert_int_equal(exits(), i);
        assert_int_equal(fx.why, VCPU_EXIT_SHUTDOWN);
        assert_true(fx.e->vcpus[0].stopped);
        engine_reset(fx.e);
        assert_false(fx.e->vcpus[0].stopped);
        fx.e->ops->get(&fx.e->vcpus[0], st);
        assert_int_equal(st->rip, 0xfff0);
    }
    destroy();
    free(st);
}

static void test_an_engine_that_never_ran_goes_away_quietly(void **unused)
{
    create(2);
    destroy();
}

static void test_nonsense_state_is_refused(void **unused)
{
    struct x86_state *st = aligned_alloc(64, (sizeof(*st) + 63) & ~(size_t)63);
    struct err err = ERR_INIT;
    create(1);
    fx.e->ops->get(&fx.e->vcpus[0], st);
    st->efer |= EFER_LMA;
    assert_false(fx.e->ops->set(&fx.e->vcpus[0], st, &err));
    assert_true(err.msg[0] != 0);
    destroy();
    free(st);
}

static void test_vcpu_threads_have_names(void **unused)
{
    char path[64], name[32] = "";
    create(2);
    snprintf(path, sizeof(path), "/proc/self/task/%d/comm", fx.e->vcpus[1].tid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(name, sizeof(name), f));
    fclose(f);
    assert_string_equal(name, "vcpu 1\n");
    destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pause_parks_all_and_resume_goes_on),
        cmocka_unit_test(test_a_shutdown_is_reported_once_and_reset_revives),
        cmocka_unit_test(test_an_engine_that_never_ran_goes_away_quietly),
        cmocka_unit_test(test_nonsense_state_is_refused),
        cmocka_unit_test(test_vcpu_threads_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
