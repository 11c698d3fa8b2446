/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "irq/irq.h"

struct chip {
    struct irq_sink sink;
    int level[N_GSIS];          /* not bool: a doubled change would show */
    int changes;
};

static void chip_set(struct irq_sink *s, unsigned gsi, bool level)
{
    struct chip *c = container_of(s, struct chip, sink);
    c->level[gsi] += level ? 1 : -1;
    c->changes++;
}

static void test_a_line_reaches_every_chip_once_a_change(void **unused)
{
    struct irq_hub hub;
    struct chip pic = { .sink.set = chip_set }, ioapic = { .sink.set = chip_set };
    struct irq_line l;
    irq_hub_init(&hub);
    irq_hub_add_sink(&hub, &pic.sink);
    irq_line_init(&l, &hub, 4);
    irq_set(&l, false);
    assert_int_equal(pic.changes, 0);
    irq_set(&l, true);
    irq_set(&l, true);
    assert_int_equal(pic.changes, 1);
    irq_hub_add_sink(&hub, &ioapic.sink);       /* comes later: told of what is up */
    assert_int_equal(ioapic.level[4], 1);
    irq_set(&l, false);
    assert_int_equal(pic.level[4] + ioapic.level[4], 0);
    irq_pulse(&l);
    assert_int_equal(pic.changes, 4);
    assert_int_equal(ioapic.changes, 4);
}

static void test_a_shared_line_is_up_while_anyone_holds_it(void **unused)
{
    struct irq_hub hub;
    struct chip c = { .sink.set = chip_set };
    struct irq_line a, b;
    irq_hub_init(&hub);
    irq_hub_add_sink(&hub, &c.sink);
    irq_line_init(&a, &hub, 16);
    irq_line_init(&b, &hub, 16);
    irq_set(&a, true);
    irq_set(&b, true);
    irq_set(&a, false);
    assert_int_equal(c.level[16], 1);
    assert_int_equal(c.changes, 1);
    irq_set(&b, false);
    assert_int_equal(c.level[16], 0);
}

static int private_calls;

static void private_set(struct irq_line *l, bool level)
{
    private_calls++;
}

static void test_a_private_handler_replaces_the_hub(void **unused)
{
    struct irq_line l, orphan;
    irq_line_init(&l, NULL, 99);
    l.set = private_set;
    irq_pulse(&l);
    assert_int_equal(private_calls, 2);
    irq_line_init(&orphan, NULL, 3);
    irq_pulse(&orphan);
}

static int msis;

static bool take_msi(void *engine, uint64_t addr, uint32_t data)
{
    msis++;
    return addr == 0xfee01000 && data == 0x41;
}

static void test_only_the_apic_window_is_a_message(void **unused)
{
    static const struct irq_engine_ops ops = { .msi = take_msi };
    struct irq_hub hub;
    irq_hub_init(&hub);
    assert_false(irq_msi(&hub, 0xfee01000, 0x41));
    hub.eops = &ops;
    assert_true(irq_msi(&hub, 0xfee01000, 0x41));
    assert_false(irq_msi(&hub, 0xfee02000, 0x41));
    assert_false(irq_msi(&hub, 0xfed01000, 0x41));
    assert_false(irq_msi(&hub, 0x1fee01000, 0x41));
    assert_false(irq_msi(&hub, 0, 0));
    assert_int_equal(msis, 2);
}

static struct irq_hub shared;

static void *toggler(void *arg)
{
    struct irq_line l;
    irq_line_init(&l, &shared, 5);
    for (int i = 0; i < 20000; i++) {
        irq_pulse(&l);
    }
    return NULL;
}

static void test_threads_sharing_a_gsi_leave_it_as_counted(void **unused)
{
    struct chip c = { .sink.set = chip_set };
    pthread_t th[4];
    irq_hub_init(&shared);
    irq_hub_add_sink(&shared, &c.sink);
    for (int i = 0; i < 4; i++) {
        pthread_create(&th[i], NULL, toggler, NULL);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(th[i], NULL);
    }
    assert_int_equal(c.level[5], 0);
    assert_int_equal(shared.gsi_count[5], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_line_reaches_every_chip_once_a_change),
        cmocka_unit_test(test_a_shared_line_is_up_while_anyone_holds_it),
        cmocka_unit_test(test_a_private_handler_replaces_the_hub),
        cmocka_unit_test(test_only_the_apic_window_is_a_message),
        cmocka_unit_test(test_threads_sharing_a_gsi_leave_it_as_counted),
    };
    return cmocka_run_group_tests_name("irq-lines", tests, NULL, NULL);
}
