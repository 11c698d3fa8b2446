/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "dev/pc/pc.h"
#include "fixture.h"

static struct irq_line lines[N_GSIS];

static void setup(struct fixture *f)
{
    fixture_init(f);
    assert_non_null(pic_create(&f->env, "pic", NULL));
    assert_non_null(ioapic_create(&f->env, "ioapic", &(struct ioapic_props){ .apic_id = 1 }, NULL));
    for (unsigned i = 0; i < N_GSIS; i++) {
        irq_line_init(&lines[i], &f->hub, i);
    }
}

static int ack(struct fixture *f)
{
    return f->hub.pic_ack(f->hub.pic);
}

/* As Linux's init_8259A: vectors 30-37 and 38-3F. */
static void pic_init(struct fixture *f, uint8_t icw4)
{
    outb(f, 0x21, 0xff);
    outb(f, 0x20, 0x11);
    outb(f, 0x21, 0x30);
    outb(f, 0x21, 0x04);
    outb(f, 0x21, icw4);
    outb(f, 0xa0, 0x11);
    outb(f, 0xa1, 0x38);
    outb(f, 0xa1, 0x02);
    outb(f, 0xa1, 0x01);
    outb(f, 0x21, 0x00);
    outb(f, 0xa1, 0x00);
}

static void test_pic_mask_probe_holds(void **unused)
{
    struct fixture f;
    setup(&f);
    outb(&f, 0xa1, 0xff);
    outb(&f, 0x21, 0xfb);
    assert_int_equal(inb(&f, 0x21), 0xfb);
    fixture_fini(&f);
}

static void test_pic_delivers_in_priority_and_waits_for_eoi(void **unused)
{
    struct fixture f;
    setup(&f);
    pic_init(&f, 0x01);
    assert_false(f.extint);
    irq_set(&lines[4], true);
    assert_true(f.extint);
    irq_set(&lines[1], true);
    assert_int_equal(ack(&f), 0x31);            /* IRQ 1 before 4 */
    assert_false(f.extint);                     /* 4 is less urgent than what is served */
    outb(&f, 0x20, 0x20);
    assert_true(f.extint);
    assert_int_equal(ack(&f), 0x34);
    outb(&f, 0x20, 0x64);
    assert_false(f.extint);                     /* edge: still high, does not come again */
    irq_set(&lines[4], false);
    irq_set(&lines[4], true);
    assert_true(f.extint);
    irq_set(&lines[4], false);                  /* an edge that went away before the INTA: spurious */
    irq_set(&lines[1], false);
    assert_int_equal(ack(&f), 0x37);
    outb(&f, 0x20, 0x0b);
    assert_int_equal(inb(&f, 0x20), 0);         /* nothing in service */
    fixture_fini(&f);
}

static void test_pic_cascades(void **unused)
{
    struct fixture f;
    setup(&f);
    pic_init(&f, 0x01);
    irq_set(&lines[12], true);
    assert_true(f.extint);
    assert_int_equal(ack(&f), 0x3c);
    outb(&f, 0x20, 0x0b);
    assert_int_equal(inb(&f, 0x20), 0x04);
    outb(&f, 0xa0, 0x0b);
    assert_int_equal(inb(&f, 0xa0), 0x10);
    irq_set(&lines[8], true);                   /* more urgent on the slave, but the master serves input 2 */
    assert_false(f.extint);
    outb(&f, 0xa0, 0x20);
    outb(&f, 0x20, 0x20);
    assert_true(f.extint);
    assert_int_equal(ack(&f), 0x38);
    fixture_fini(&f);
}

static void test_pic_fully_nested_master_lets_the_slave_nest(void **unused)
{
    struct fixture f;
    setup(&f);
    pic_init(&f, 0x11);
    irq_set(&lines[12], true);
    assert_int_equal(ack(&f), 0x3c);
    irq_set(&lines[8], true);
    assert_true(f.extint);
    assert_int_equal(ack(&f), 0x38);
    fixture_fini(&f);
}

static void test_pic_slave_spurious_keeps_master_in_service(void **unused)
{
    struct fixture f;
    setup(&f);
    pic_init(&f, 0x01);
    irq_set(&lines[10], true);
    assert_true(f.extint);
    outb(&f, 0xa1, 0xff);
    assert_false(f.extint);
    outb(&f, 0xa1, 0x00);
    assert_true(f.extint);
    assert_int_equal(ack(&f), 0x3a);
    fixture_fini(&f);
}

static void test_pic_level_inputs_follow_elcr(void **unused)
{
    struct fixture f;
    setup(&f);
    pic_init(&f, 0x01);
    outb(&f, 0x4d0, 0xff);
    outb(&f, 0x4d1, 0xff);
    assert_int_equal(inb(&f, 0x4d0), 0xf8);
    assert_int_equal(inb(&f, 0x4d1), 0xde);
    irq_set(&lines[9], true);
    assert_int_equal(ack(&f), 0x39);
    outb(&f, 0xa0, 0x20);
    outb(&f, 0x20, 0x20);
    assert_true(f.extint);                      /* still up */
    irq_set(&lines[9], false);
    assert_false(f.extint);
    fixture_fini(&f);
}

static void test_pic_auto_eoi_poll_and_special_mask(void **unused)
{
    struct fixture f;
    setup(&f);
    pic_init(&f, 0x03);
    irq_set(&lines[3], true);
    assert_int_equal(ack(&f), 0x33);
    outb(&f, 0x20, 0x0b);
    assert_int_equal(inb(&f, 0x20), 0);
    irq_set(&lines[5], true);
    outb(&f, 0x20, 0x0c);
    assert_int_equal(inb(&f, 0x20), 0x85);
    assert_false(f.extint);
    outb(&f, 0x20, 0x0c);
    assert_int_equal(inb(&f, 0x20), 0x00);
    pic_init(&f, 0x01);
    irq_set(&lines[1], true);
    assert_int_equal(ack(&f), 0x31);
    irq_set(&lines[6], true);
    assert_false(f.extint);
    outb(&f, 0x21, 0x02);
    outb(&f, 0x20, 0x68);                       /* special mask: a masked one in service no longer blocks */
    assert_true(f.extint);
    assert_int_equal(ack(&f), 0x36);
    fixture_fini(&f);
}

static void test_pic_rotates(void **unused)
{
    struct fixture f;
    setup(&f);
    pic_init(&f, 0x01);
    irq_set(&lines[3], true);
    assert_int_equal(ack(&f), 0x33);
    outb(&f, 0x20, 0xa0);                       /* rotate on EOI: 3 is lowest now */
    irq_set(&lines[3], false);
    irq_set(&lines[3], true);
    irq_set(&lines[4], true);
    assert_int_equal(ack(&f), 0x34);
    outb(&f, 0x20, 0x20);
    outb(&f, 0x20, 0xc7);                       /* back */
    irq_set(&lines[1], true);
    assert_int_equal(ack(&f), 0x31);
    fixture_fini(&f);
}

/* IOAPIC */

static uint32_t io_reg(struct fixture *f, unsigned ix)
{
    fix_write(f, 0xfec00000, ix, 4);
    return fix_read(f, 0xfec00010, 4);
}

static void io_set(struct fixture *f, unsigned ix, uint32_t val)
{
    fix_write(f, 0xfec00000, ix, 4);
    fix_write(f, 0xfec00010, val, 4);
}

static void io_entry(struct fixture *f, unsigned pin, uint64_t e)
{
    io_set(f, 0x11 + 2 * pin, e >> 32);
    io_set(f, 0x10 + 2 * pin, e);
}

static void test_ioapic_identifies_itself(void **unused)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(io_reg(&f, 0), 1 << 24);
    assert_int_equal(io_reg(&f, 1), 0x00170020);
    io_set(&f, 0, 0x05000000);
    assert_int_equal(io_reg(&f, 0), 0x05000000);
    assert_int_equal(io_reg(&f, 2), 0x05000000);
    assert_int_equal(io_reg(&f, 0x10), 0x10000);
    assert_int_equal(io_reg(&f, 0x3f), 0);
    assert_int_equal(io_reg(&f, 0x40), 0);
    io_entry(&f, 23, ~0ull);
    assert_int_equal(io_reg(&f, 0x10 + 46), 0x1afff);       /* status and remote IRR are the chip's */
    assert_int_equal(io_reg(&f, 0x11 + 46), 0xff000000);
    fixture_fini(&f);
}

static void test_ioapic_edge_fires_on_each_rise(void **unused)
{
    struct fixture f;
    setup(&f);
    io_entry(&f, 4, 0x03ull << 56 | 0x41);
    irq_set(&lines[4], true);
    assert_int_equal(f.n_msgs, 1);
    assert_int_equal(f.msgs[0].addr, 0xfee03000);
    assert_int_equal(f.msgs[0].data & 0x87ff, 0x41);
    irq_set(&lines[4], false);
    irq_set(&lines[4], true);
    assert_int_equal(f.n_msgs, 2);
    io_set(&f, 0x18, 0x10041);
    irq_set(&lines[4], false);
    irq_set(&lines[4], true);
    assert_int_equal(f.n_msgs, 2);
    io_set(&f, 0x18, 0x41);
    assert_int_equal(f.n_msgs, 2);              /* a rise while masked is lost */
    fixture_fini(&f);
}

static void test_ioapic_level_waits_for_eoi_of_its_vector(void **unused)
{
    struct fixture f;
    setup(&f);
    io_entry(&f, 20, 0xa000 | 0x51);            /* level, active low as Linux programs PCI pins */
    irq_set(&lines[20], true);
    assert_int_equal(f.n_msgs, 1);
    assert_int_equal(f.msgs[0].data & 0x8000, 0x8000);
    assert_int_equal(io_reg(&f, 0x10 + 40) & 0x4000, 0x4000);
    f.hub.eoi(f.hub.ioapic, 0x52);
    assert_int_equal(f.n_msgs, 1);
    f.hub.eoi(f.hub.ioapic, 0x51);
    assert_int_equal(f.n_msgs, 2);              /* still asserted */
    irq_set(&lines[20], false);
    fix_write(&f, 0xfec00040, 0x51, 4);         /* the EOI register does the same */
    assert_int_equal(f.n_msgs, 2);
    assert_int_equal(io_reg(&f, 0x10 + 40) & 0x4000, 0);
    irq_set(&lines[20], true);
    assert_int_equal(f.n_msgs, 3);
    io_set(&f, 0x10 + 40, 0x10051);             /* masked and edge: Linux's way to drop remote IRR */
    assert_int_equal(io_reg(&f, 0x10 + 40) & 0x4000, 0);
    io_set(&f, 0x10 + 40, 0xa051);
    assert_int_equal(f.n_msgs, 4);
    fixture_fini(&f);
}

static void test_ioapic_timer_override_and_delivery_modes(void **unused)
{
    struct fixture f;
    setup(&f);
    io_entry(&f, 2, 0x30);
    io_entry(&f, 0, 0x99);
    irq_set(&lines[0], true);                   /* the PIT's line comes in at pin 2 */
    assert_int_equal(f.n_msgs, 1);
    assert_int_equal(f.msgs[0].data & 0xff, 0x30);
    irq_set(&lines[0], false);
    io_entry(&f, 5, 0xffull << 56 | 0x0900 | 0x61);         /* lowest priority, logical */
    irq_set(&lines[5], true);
    assert_int_equal(f.msgs[1].addr, 0xfee0000c | 0xff << 12);
    assert_int_equal(f.msgs[1].data & 0x7ff, 0x161);
    io_entry(&f, 6, 0x8400);                    /* NMI is an edge whatever the trigger bit says */
    irq_set(&lines[6], true);
    assert_int_equal(f.msgs[2].data & 0x8700, 0x400);
    assert_int_equal(io_reg(&f, 0x1c) & 0x4000, 0);
    io_entry(&f, 7, 0x700);
    irq_set(&lines[7], true);
    assert_int_equal(f.msgs[3].data & 0x700, 0x700);
    fixture_fini(&f);
}

static void test_ioapic_level_nobody_took_is_not_lost(void **unused)
{
    struct fixture f;
    setup(&f);
    io_entry(&f, 21, 0x8000 | 0x70);
    f.refuse_msi = true;
    irq_set(&lines[21], true);
    assert_int_equal(io_reg(&f, 0x10 + 42) & 0x4000, 0);
    f.refuse_msi = false;
    io_set(&f, 0x10 + 42, 0x8070);
    assert_int_equal(f.n_msgs, 1);
    fixture_fini(&f);
}

static void test_chips_keep_levels_over_reset(void **unused)
{
    struct fixture f;
    setup(&f);
    irq_set(&lines[22], true);
    dev_reset_all(&f.env);
    io_entry(&f, 22, 0x8000 | 0x71);
    assert_int_equal(f.n_msgs, 1);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pic_mask_probe_holds),
        cmocka_unit_test(test_pic_delivers_in_priority_and_waits_for_eoi),
        cmocka_unit_test(test_pic_cascades),
        cmocka_unit_test(test_pic_fully_nested_master_lets_the_slave_nest),
        cmocka_unit_test(test_pic_slave_spurious_keeps_master_in_service),
        cmocka_unit_test(test_pic_level_inputs_follow_elcr),
        cmocka_unit_test(test_pic_auto_eoi_poll_and_special_mask),
        cmocka_unit_test(test_pic_rotates),
        cmocka_unit_test(test_ioapic_identifies_itself),
        cmocka_unit_test(test_ioapic_edge_fires_on_each_rise),
        cmocka_unit_test(test_ioapic_level_waits_for_eoi_of_its_vector),
        cmocka_unit_test(test_ioapic_timer_override_and_delivery_modes),
        cmocka_unit_test(test_ioapic_level_nobody_took_is_not_lost),
        cmocka_unit_test(test_chips_keep_levels_over_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
