/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "loop/loop.h"

static int order[64], n_order;

struct mark {
    struct timer t;
    int id;
    uint64_t fired_ns;
    int rearm;                  /* times it arms itself again in the past */
};

static void on_mark(struct timer *t)
{
    struct mark *m = container_of(t, struct mark, t);
    order[n_order++] = m->id;
    m->fired_ns = host_clock_ns();
    if (m->rearm > 0) {
        m->rearm--;
        timer_arm(t, 0);
    }
}

static void init_mark(struct mark *m, struct loop *loop, struct vm_clock *clock, int id)
{
    *m = (struct mark){ .id = id };
    timer_init(&m->t, loop, clock, on_mark);
}

static void test_timers_fire_in_order_and_not_early(void **unused)
{
    struct loop *loop = loop_create(NULL);
    struct mark m[40];
    uint64_t start = host_clock_ns() + NS_PER_MS;
    n_order = 0;
    for (int i = 0; i < 40; i++) {
        int id = i * 17 % 40;                   /* armed in scattered order, 100 us apart */
        init_mark(&m[id], loop, NULL, id);
        timer_arm(&m[id].t, start + (uint64_t)id * 100 * NS_PER_US);
    }
    timer_disarm(&m[5].t);
    timer_disarm(&m[39].t);
    timer_disarm(&m[39].t);
    timer_arm(&m[0].t, start + 20 * NS_PER_MS);  /* moved to the end */
    while (n_order < 38) {
        loop_once(loop, -1);
    }
    for (int i = 0; i < 38; i++) {
        int id = order[i];
        assert_true(id != 5 && id != 39);
        assert_true(i == 37 ? id == 0 : i == 0 || id > order[i - 1]);
        assert_true(m[id].fired_ns >= m[id].t.expire_ns);
    }
    assert_int_equal(loop_once(loop, 0), 0);
    loop_destroy(loop);
}

static void test_a_timer_in_the_past_fires_once_a_round(void **unused)
{
    struct loop *loop = loop_create(NULL);
    struct mark m;
    init_mark(&m, loop, NULL, 1);
    m.rearm = 2;
    timer_arm(&m.t, 0);
    assert_int_equal(loop_once(loop, 0), 1);
    assert_int_equal(loop_once(loop, -1), 1);
    assert_int_equal(loop_once(loop, -1), 1);
    assert_int_equal(loop_once(loop, 5), 0);
    timer_arm(&m.t, UINT64_MAX);
    assert_int_equal(loop_once(loop, 1), 0);
    timer_disarm(&m.t);
    loop_destroy(loop);
    struct timer never = { 0 };
    timer_disarm(&never);
}

static void test_vm_time_stands_still_while_paused(void **unused)
{
    struct vm_clock c;
    vm_clock_init(&c);
    assert_int_equal(vm_clock_ns(&c), 0);
    vm_clock_start(&c);
    vm_clock_start(&c);
    usleep(2000);
    assert_true(vm_clock_ns(&c) >= 2 * NS_PER_MS);
    vm_clock_stop(&c);
    uint64_t t = vm_clock_ns(&c);
    usleep(2000);
    assert_int_equal(vm_clock_ns(&c), t);
    vm_clock_start(&c);
    assert_true(vm_clock_ns(&c) - t < NS_PER_SEC);
    vm_clock_stop(&c);
    vm_clock_set(&c, UINT64_MAX / 2);           /* a saved guest that is older than this host */
    vm_clock_start(&c);
    assert_true(vm_clock_ns(&c) - UINT64_MAX / 2 < NS_PER_SEC);
    vm_clock_fini(&c);
}

static void test_vm_timers_wait_for_the_clock_to_run(void **unused)
{
    struct loop *loop = loop_create(NULL);
    struct vm_clock c;
    vm_clock_init(&c);
    struct mark a, b;
    n_order = 0;
    init_mark(&a, loop, &c, 1);
    init_mark(&b, loop, &c, 2);
    vm_clock_set(&c, 500 * (uint64_t)NS_PER_SEC);
    timer_arm(&a.t, 0);                                                 /* long past, but the VM is paused */
    timer_arm(&b.t, 500 * (uint64_t)NS_PER_SEC + 3 * NS_PER_MS);
    assert_int_equal(loop_once(loop, 5), 0);
    vm_clock_start(&c);
    assert_int_equal(loop_once(loop, -1), 1);
    vm_clock_stop(&c);
    assert_int_equal(loop_once(loop, 10), 0);
    uint64_t before = vm_clock_ns(&c);
    vm_clock_start(&c);
    while (n_order < 2) {
        loop_once(loop, -1);
    }
    assert_true(vm_clock_ns(&c) >= b.t.expire_ns && before < b.t.expire_ns);
    /* A jump of the clock makes due what lies before it. */
    timer_arm(&b.t, 1000 * (uint64_t)NS_PER_SEC);
    vm_clock_stop(&c);
    vm_clock_set(&c, 2000 * (uint64_t)NS_PER_SEC);
    vm_clock_start(&c);
    assert_int_equal(loop_once(loop, -1), 1);
    vm_clock_fini(&c);
    loop_destroy(loop);
}

static void test_clock_and_loop_may_go_in_either_order(void **unused)
{
    struct loop *loop = loop_create(NULL);
    struct vm_clock a, b;
    struct mark m;
    vm_clock_init(&a);
    vm_clock_init(&b);
    init_mark(&m, loop, &a, 1);
    init_mark(&m, loop, &b, 2);
    vm_clock_start(&a);
    vm_clock_fini(&a);
    loop_destroy(loop);
    vm_clock_start(&b);
    vm_clock_fini(&b);
}

static void *run_loop(void *arg)
{
    loop_run(arg);
    return NULL;
}

/*
 * Four threads play owners of a device: each arms, moves, disarms and frees timers under its lock while the loop fires
 * them. After a disarm under the lock the timer's memory is poisoned: a late callback would be seen.
 */
struct owned {
    struct timer t;
    pthread_mutex_t *lock;
    uint32_t magic;
};
enum { ALIVE = 0x600d600d };
static _Atomic int fired, bad;
static struct loop *shared_loop;
static struct vm_clock shared_clock;

static void on_owned(struct timer *t)
{
    struct owned *o = container_of(t, struct owned, t);
    if (o->magic != ALIVE || pthread_mutex_trylock(o->lock) == 0) {
        bad++;
    }
    fired++;
}

static void *owner(void *arg)
{
    pthread_mutex_t *lock = arg;
    for (int i = 0; i < 1500; i++) {
        struct owned *o = new0(struct owned);
        struct vm_clock *clock = i & 1 ? &shared_clock : NULL;
        timer_init(&o->t, shared_loop, clock, on_owned);
        o->t.lock = o->lock = lock;
        o->magic = ALIVE;
        for (int k = 0; k < 3; k++) {
            uint64_t now = clock ? vm_clock_ns(clock) : host_clock_ns();
            pthread_mutex_lock(lock);
            timer_arm(&o->t, now + (uint64_t)((i + k) % 5) * 10 * NS_PER_US);
            pthread_mutex_unlock(lock);
            if (i % 4 == 0) {
                sched_yield();
            }
        }
        pthread_mutex_lock(lock);
        timer_disarm(&o->t);
        o->magic = 0;
        free(o);
        pthread_mutex_unlock(lock);
    }
    return NULL;
}

static void test_timers_of_other_threads_never_fire_after_disarm(void **unused)
{
    pthread_t loop_thread, owners[4];
    pthread_mutex_t locks[4];
    shared_loop = loop_create(NULL);
    vm_clock_init(&shared_clock);
    vm_clock_start(&shared_clock);
    fired = bad = 0;
    pthread_create(&loop_thread, NULL, run_loop, shared_loop);
    for (int i = 0; i < 4; i++) {
        pthread_mutex_init(&locks[i], NULL);
        pthread_create(&owners[i], NULL, owner, &locks[i]);
    }
    for (int i = 0; i < 20; i++) {              /* pausing and running meanwhile */
        vm_clock_stop(&shared_clock);
        vm_clock_start(&shared_clock);
        usleep(500);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(owners[i], NULL);
    }
    loop_quit(shared_loop);
    pthread_join(loop_thread, NULL);
    loop_destroy(shared_loop);
    vm_clock_fini(&shared_clock);
    assert_int_equal(bad, 0);
    assert_true(fired > 0);
}

static _Atomic uint64_t late_ns;

static void on_late(struct timer *t)
{
    late_ns = host_clock_ns() - t->expire_ns;
    loop_quit(t->loop);
}

static void test_a_sleeping_loop_wakes_for_a_timer_armed_elsewhere(void **unused)
{
    struct loop *loop = loop_create(NULL);
    pthread_t th;
    struct timer far, soon;
    timer_init(&far, loop, NULL, on_late);
    timer_init(&soon, loop, NULL, on_late);
    timer_arm(&far, host_clock_ns() + 3600 * (uint64_t)NS_PER_SEC);
    pthread_create(&th, NULL, run_loop, loop);
    usleep(5000);
    timer_arm(&soon, host_clock_ns() + NS_PER_MS);
    pthread_join(th, NULL);
    assert_true(late_ns < NS_PER_SEC);
    timer_disarm(&far);
    loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers_fire_in_order_and_not_early),
        cmocka_unit_test(test_a_timer_in_the_past_fires_once_a_round),
        cmocka_unit_test(test_vm_time_stands_still_while_paused),
        cmocka_unit_test(test_vm_timers_wait_for_the_clock_to_run),
        cmocka_unit_test(test_clock_and_loop_may_go_in_either_order),
        cmocka_unit_test(test_timers_of_other_threads_never_fire_after_disarm),
        cmocka_unit_test(test_a_sleeping_loop_wakes_for_a_timer_armed_elsewhere),
    };
    return cmocka_run_group_tests_name("loop-timers", tests, NULL, NULL);
}
