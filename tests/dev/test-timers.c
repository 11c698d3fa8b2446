/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PIT, RTC, ACPI PM: what tells the time. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "dev/pc/pc.h"
#include "fixture.h"

enum { MS = NS_PER_MS };
static unsigned rises[N_GSIS];
static bool levels[N_GSIS];

static void count_rise(struct irq_sink *s, unsigned gsi, bool level)
{
    rises[gsi] += level;
    levels[gsi] = level;
}

static struct irq_sink sink = { .set = count_rise };

static void setup(struct fixture *f)
{
    fixture_init(f);
    memset(rises, 0, sizeof(rises));
    memset(levels, 0, sizeof(levels));
    irq_hub_add_sink(&f->hub, &sink);
}

/* PIT */

static void pit_setup(struct fixture *f)
{
    setup(f);
    assert_non_null(pit_create(&f->env, "pit", NULL));
}

static uint16_t pit_count(struct fixture *f, unsigned ch)
{
    outb(f, 0x43, ch << 6);
    uint8_t lo = inb(f, 0x40 + ch);
    return lo | inb(f, 0x40 + ch) << 8;
}

static void pit_set(struct fixture *f, unsigned ch, unsigned mode, uint16_t count)
{
    outb(f, 0x43, ch << 6 | 0x30 | mode << 1);
    outb(f, 0x40 + ch, count & 0xff);
    outb(f, 0x40 + ch, count >> 8);
}

static void test_pit_rate_generator_ticks(void **unused)
{
    struct fixture f;
    pit_setup(&f);
    pit_set(&f, 0, 2, 11932);                   /* 10 ms */
    for (unsigned i = 1; i <= 20; i++) {
        fix_time(&f, i * 10 * MS + MS / 2);
        assert_int_equal(rises[0], i);
    }
    fixture_fini(&f);
}

static void test_pit_makes_up_for_lost_ticks_within_a_bound(void **unused)
{
    struct fixture f;
    pit_setup(&f);
    pit_set(&f, 0, 2, 11932);
    fix_time(&f, 100 * MS + MS / 2);            /* 10 due, one delivered, the rest owed at twice the rate */
    assert_int_equal(rises[0], 1);
    for (unsigned t = 106; t <= 250; t += 6) {
        fix_time(&f, t * MS + MS / 2);
    }
    assert_in_range(rises[0], 24, 25);
    fix_time(&f, 3600ull * NS_PER_SEC);
    unsigned before = rises[0];
    for (unsigned t = 0; t < 3000; t += 6) {
        fix_time(&f, 3600ull * NS_PER_SEC + t * MS);
    }
    assert_in_range(rises[0] - before, 399, 402);       /* its own 300 and at most a second's worth more */
    fixture_fini(&f);
}

static void test_pit_one_shot_fires_once(void **unused)
{
    struct fixture f;
    pit_setup(&f);
    pit_set(&f, 0, 0, 1193);
    assert_false(levels[0]);
    fix_time(&f, MS / 2);
    assert_int_equal(rises[0], 0);
    fix_time(&f, MS + MS / 10);
    assert_int_equal(rises[0], 1);
    assert_true(levels[0]);
    fix_time(&f, 100 * MS);
    assert_int_equal(rises[0], 1);
    pit_set(&f, 0, 4, 1193);                    /* Linux's one-shot */
    fix_time(&f, 102 * MS);
    assert_int_equal(rises[0], 2);
    outb(&f, 0x43, 0x30);                       /* a control word alone stops it */
    fix_time(&f, 500 * MS);
    assert_int_equal(rises[0], 2);
    fixture_fini(&f);
}

static void test_pit_counter_runs_in_guest_time(void **unused)
{
    struct fixture f;
    pit_setup(&f);
    pit_set(&f, 2, 0, 0xffff);
    outb(&f, 0x61, 1);
    uint16_t a = pit_count(&f, 2);
    fix_time(&f, MS);
    uint16_t b = pit_count(&f, 2);
    assert_in_range(a - b, 1192, 1194);
    fix_time(&f, 2 * MS);
    outb(&f, 0x42 + 1, 0x80);                   /* latch, then time passes */
    fix_time(&f, 3 * MS);
    uint16_t c = inb(&f, 0x42);
    c |= inb(&f, 0x42) << 8;
    assert_in_range(a - c, 2385, 2388);
    fixture_fini(&f);
}

/* Linux's quick and slow calibration: gate on, mode 0, wait for OUT2 in port 61. */
static void test_pit_channel_2_gate_and_output(void **unused)
{
    struct fixture f;
    pit_setup(&f);
    outb(&f, 0x61, (inb(&f, 0x61) & ~2) | 1);
    pit_set(&f, 2, 0, 11932);
    assert_int_equal(inb(&f, 0x61) & 0x20, 0);
    fix_time(&f, 9 * MS);
    assert_int_equal(inb(&f, 0x61) & 0x21, 1);
    outb(&f, 0x61, 0);                          /* gate low holds the count */
    uint16_t held = pit_count(&f, 2);
    fix_time(&f, 50 * MS);
    assert_int_equal(pit_count(&f, 2), held);
    assert_int_equal(inb(&f, 0x61) & 0x20, 0);
    outb(&f, 0x61, 1);
    fix_time(&f, 52 * MS);
    assert_int_equal(inb(&f, 0x61) & 0x20, 0x20);
    uint8_t refresh = 0;
    for (unsigned i = 0; i < 4; i++) {
        fix_time(&f, 60 * MS + i * 15085);
        refresh |= 1 << (inb(&f, 0x61) >> 4 & 1);
    }
    assert_int_equal(refresh, 3);
    fixture_fini(&f);
}

static void test_pit_read_back(void **unused)
{
    struct fixture f;
    pit_setup(&f);
    pit_set(&f, 0, 2, 0x1234);
    outb(&f, 0x43, 0xe2);                       /* status of channel 0 */
    assert_int_equal(inb(&f, 0x40) & 0x7f, 0x34);
    outb(&f, 0x43, 0xc2);                       /* status and count */
    assert_int_equal(inb(&f, 0x40) & 0x7f, 0x34);
    uint16_t v = inb(&f, 0x40);
    v |= inb(&f, 0x40) << 8;
    assert_in_range(v, 0x1230, 0x1234);
    outb(&f, 0x43, 0x34);
    outb(&f, 0x43, 0xe2);
    assert_int_equal(inb(&f, 0x40) & 0x40, 0x40);           /* null count: none loaded yet */
    outb(&f, 0x43, 0x15);                       /* low byte only, mode 2, BCD */
    outb(&f, 0x40, 0x99);
    outb(&f, 0x43, 0x00);
    assert_int_equal(inb(&f, 0x40), 0x99);
    fixture_fini(&f);
}

static void test_pit_modes_1_and_5_wait_for_the_gate(void **unused)
{
    struct fixture f;
    pit_setup(&f);
    pit_set(&f, 2, 1, 1193);
    fix_time(&f, 5 * MS);
    assert_int_equal(inb(&f, 0x61) & 0x20, 0x20);
    outb(&f, 0x61, 1);
    assert_int_equal(inb(&f, 0x61) & 0x20, 0);
    fix_time(&f, 7 * MS);
    assert_int_equal(inb(&f, 0x61) & 0x20, 0x20);
    outb(&f, 0x61, 0);
    outb(&f, 0x61, 1);                          /* retriggers */
    assert_int_equal(inb(&f, 0x61) & 0x20, 0);
    pit_set(&f, 2, 3, 1193);                    /* square wave: half the time up */
    unsigned up = 0;
    for (unsigned i = 0; i < 100; i++) {
        fix_time(&f, 10 * MS + i * MS / 100);
        up += inb(&f, 0x61) >> 5 & 1;
    }
    assert_in_range(up, 45, 55);
    fixture_fini(&f);
}

/* RTC */

static uint8_t cmos(struct fixture *f, uint8_t ix)
{
    outb(f, 0x70, ix);
    return inb(f, 0x71);
}

static void cmos_set(struct fixture *f, uint8_t ix, uint8_t v)
{
    outb(f, 0x70, ix);
    outb(f, 0x71, v);
}

enum { START = 1709251140 /* Thursday 2024-02-29 23:59:00 UTC */ };

static struct dev *rtc_setup(struct fixture *f)
{
    setup(f);
    struct rtc_props props = {
        .base = RTC_AT, .at = START, .ram_below_4g = 3ull * GIB, .ram_above_4g = 5ull * GIB, .n_cpus = 4,
    };
    return rtc_create(&f->env, "rtc", &props, NULL);
}

static void test_rtc_tells_the_time_in_both_codes(void **unused)
{
    struct fixture f;
    rtc_setup(&f);
    assert_int_equal(cmos(&f, 0), 0x00);
    assert_int_equal(cmos(&f, 2), 0x59);
    assert_int_equal(cmos(&f, 4), 0x23);
    assert_int_equal(cmos(&f, 6), 5);
    assert_int_equal(cmos(&f, 7), 0x29);
    assert_int_equal(cmos(&f, 8), 0x02);
    assert_int_equal(cmos(&f, 9), 0x24);
    assert_int_equal(cmos(&f, 0x32), 0x20);
    assert_int_equal(cmos(&f, 13), 0x80);
    cmos_set(&f, 11, 0x06);
    assert_int_equal(cmos(&f, 2), 59);
    assert_int_equal(cmos(&f, 9), 24);
    cmos_set(&f, 11, 0x00);                     /* 12 hours */
    assert_int_equal(cmos(&f, 4), 0x91);
    fix_time(&f, 60ull * NS_PER_SEC);
    assert_int_equal(cmos(&f, 4), 0x12);        /* midnight is 12 AM */
    assert_int_equal(cmos(&f, 7), 0x01);
    assert_int_equal(cmos(&f, 8), 0x03);
    fixture_fini(&f);
}

static void test_rtc_shows_update_in_progress_before_each_second(void **unused)
{
    struct fixture f;
    rtc_setup(&f);
    assert_int_equal(cmos(&f, 10), 0x26);
    fix_time(&f, NS_PER_SEC - 100 * NS_PER_US);
    assert_int_equal(cmos(&f, 10), 0xa6);
    assert_int_equal(cmos(&f, 0), 0x00);
    fix_time(&f, NS_PER_SEC);
    assert_int_equal(cmos(&f, 10), 0x26);
    assert_int_equal(cmos(&f, 0), 0x01);
    fixture_fini(&f);
}

static void test_rtc_can_be_set(void **unused)
{
    struct fixture f;
    rtc_setup(&f);
    cmos_set(&f, 11, 0x82);
    fix_time(&f, 10ull * NS_PER_SEC);
    assert_int_equal(cmos(&f, 2), 0x59);        /* stands still */
    cmos_set(&f, 0, 0x30);
    cmos_set(&f, 2, 0x15);
    cmos_set(&f, 4, 0x08);
    cmos_set(&f, 9, 0x99);
    cmos_set(&f, 0x32, 0x19);
    cmos_set(&f, 11, 0x02);
    fix_time(&f, 12ull * NS_PER_SEC);
    assert_int_equal(cmos(&f, 0), 0x32);
    assert_int_equal(cmos(&f, 2), 0x15);
    assert_int_equal(cmos(&f, 9), 0x99);
    assert_int_equal(cmos(&f, 7), 0x01);        /* 1999 had no 29 February */
    assert_int_equal(cmos(&f, 8), 0x03);
    fixture_fini(&f);
}

static void test_rtc_interrupts(void **unused)
{
    struct fixture f;
    rtc_setup(&f);
    cmos(&f, 12);
    cmos_set(&f, 11, 0x12);                     /* update */
    fix_time(&f, 1500ull * MS);
    assert_int_equal(rises[8], 1);
    assert_true(levels[8]);
    fix_time(&f, 5ull * NS_PER_SEC);
    assert_int_equal(rises[8], 1);              /* until C is read */
    assert_int_equal(cmos(&f, 12) & 0xf0, 0xd0);            /* PF comes up by itself as well */
    assert_false(levels[8]);
    assert_int_equal(cmos(&f, 12), 0);
    cmos_set(&f, 11, 0x42);                     /* periodic, 1024 Hz */
    for (unsigned i = 1; i <= 10; i++) {
        fix_time(&f, 5ull * NS_PER_SEC + i * MS);
        cmos(&f, 12);
    }
    assert_in_range(rises[8], 10, 12);
    fixture_fini(&f);
}

static void test_rtc_alarm_with_wildcards(void **unused)
{
    struct fixture f;
    rtc_setup(&f);
    cmos_set(&f, 1, 0x20);
    cmos_set(&f, 3, 0xff);
    cmos_set(&f, 5, 0xff);
    cmos(&f, 12);
    cmos_set(&f, 11, 0x22);
    fix_time(&f, 19ull * NS_PER_SEC);
    assert_int_equal(rises[8], 0);
    fix_time(&f, 20ull * NS_PER_SEC + MS);
    assert_int_equal(rises[8], 1);
    assert_int_equal(cmos(&f, 12) & 0xa0, 0xa0);
    cmos_set(&f, 1, 0x00);                      /* 06:30:00 tomorrow */
    cmos_set(&f, 3, 0x30);
    cmos_set(&f, 5, 0x06);
    fix_time(&f, 6ull * 3600 * NS_PER_SEC);
    assert_int_equal(rises[8], 1);
    fix_time(&f, (6 * 3600 + 31 * 60ull) * NS_PER_SEC);
    assert_int_equal(rises[8], 2);
    cmos(&f, 12);
    cmos_set(&f, 5, 0x77);                      /* no such hour */
    fix_time(&f, 86400ull * 3 * NS_PER_SEC);
    assert_int_equal(rises[8], 2);
    fixture_fini(&f);
}

static void test_rtc_flags_are_seen_by_polling_too(void **unused)
{
    struct fixture f;
    rtc_setup(&f);
    cmos(&f, 12);
    fix_time(&f, NS_PER_SEC + MS);
    assert_int_equal(cmos(&f, 12) & 0x10, 0x10);
    assert_int_equal(cmos(&f, 12) & 0x10, 0);
    assert_int_equal(rises[8], 0);
    fixture_fini(&f);
}

static void test_cmos_tells_firmware_the_memory(void **unused)
{
    struct fixture f;
    rtc_setup(&f);
    assert_int_equal(cmos(&f, 0x15) | cmos(&f, 0x16) << 8, 640);
    assert_int_equal(cmos(&f, 0x17) | cmos(&f, 0x18) << 8, 63 * 1024);
    assert_int_equal(cmos(&f, 0x34) | cmos(&f, 0x35) << 8, (3 * 1024 - 16) * 16);
    assert_int_equal(cmos(&f, 0x5b) | cmos(&f, 0x5c) << 8 | cmos(&f, 0x5d) << 16, 5 * 1024 * 16);
    assert_int_equal(cmos(&f, 0x5f), 3);
    cmos_set(&f, 0x0f, 0x0a);
    assert_int_equal(cmos(&f, 0x0f), 0x0a);
    dev_reset_all(&f.env);
    assert_int_equal(cmos(&f, 0x0f), 0x0a);
    fixture_fini(&f);
}

/* ACPI PM */

static struct dev *pm_setup(struct fixture *f, bool acpi_on)
{
    setup(f);
    assert_non_null(q35_host_create(&f->env, "host", &(struct q35_props){ 0 }, NULL));
    struct dev *pm = acpi_pm_create(&f->env, "pm", &(struct acpi_pm_props){ .acpi_on = acpi_on }, NULL);
    assert_non_null(lpc_create(&f->env, "lpc", &(struct lpc_props){ .pm = pm }, NULL));
    return pm;
}

static void test_pm_timer_counts_and_its_event_raises_the_sci(void **unused)
{
    struct fixture f;
    pm_setup(&f, true);
    assert_int_equal(fix_in(&f, 0x608, 4), 0);
    fix_time(&f, NS_PER_SEC);
    assert_int_equal(fix_in(&f, 0x608, 4), 3579545);
    fix_time(&f, 5ull * NS_PER_SEC);
    assert_int_equal(fix_in(&f, 0x608, 4), 5 * 3579545 & 0xffffff);
    assert_int_equal(fix_in(&f, 0x600, 2) & 1, 1);
    fix_out(&f, 0x600, 1, 2);
    assert_int_equal(fix_in(&f, 0x600, 2) & 1, 0);
    fix_out(&f, 0x602, 1, 2);
    assert_int_equal(rises[9], 0);
    fix_time(&f, 8ull * NS_PER_SEC);
    assert_int_equal(rises[9], 1);
    fix_out(&f, 0x600, 1, 2);
    assert_false(levels[9]);
    fixture_fini(&f);
}

static void test_pm_power_button_and_acpi_enable(void **unused)
{
    struct fixture f;
    struct dev *pm = pm_setup(&f, false);
    fix_out(&f, 0x602, 0x100, 2);
    assert_int_equal(fix_in(&f, 0x604, 2) & 1, 0);
    outb(&f, 0xb2, ACPI_ENABLE);
    assert_int_equal(fix_in(&f, 0x604, 2) & 1, 1);
    acpi_pm_power_button(pm);
    assert_true(levels[9]);
    assert_int_equal(fix_in(&f, 0x600, 4), 0x01000100);
    fix_out(&f, 0x600, 0x100, 2);
    assert_false(levels[9]);
    acpi_pm_gpe(pm, 2);
    assert_int_equal(inb(&f, 0x620), 4);
    outb(&f, 0x628, 4);
    assert_true(levels[9]);
    outb(&f, 0x620, 4);
    assert_false(levels[9]);
    outb(&f, 0xb2, ACPI_DISABLE);
    assert_int_equal(fix_in(&f, 0x604, 2) & 1, 0);
    fixture_fini(&f);
}

static void test_pm_sleep_types(void **unused)
{
    struct fixture f;
    pm_setup(&f, true);
    fix_out(&f, 0x604, 0x0000, 2);
    assert_int_equal(f.n_requests, 0);
    assert_int_equal(fix_in(&f, 0x604, 2), 1);          /* SCI_EN cannot be cleared here */
    fix_out(&f, 0x604, 0x2001, 2);
    assert_int_equal(f.n_requests, 1);
    assert_int_equal(f.request, GUEST_SHUTDOWN);
    fix_out(&f, 0x604, 1 << 10 | 0x2000, 2);
    assert_int_equal(f.request, GUEST_SUSPEND);
    outb(&f, 0x604, 0x01);
    outb(&f, 0x605, 0x20);                              /* in bytes: type 0 */
    assert_int_equal(f.n_requests, 3);
    assert_int_equal(f.request, GUEST_SHUTDOWN);
    fixture_fini(&f);
}

static void test_lpc_moves_the_pm_block_and_routes_pirqs(void **unused)
{
    struct fixture f;
    pm_setup(&f, true);
    assert_int_equal(fix_cfg_read(&f, 31, 0, 4), 0x29188086);
    assert_int_equal(fix_cfg_read(&f, 31, 0x40, 4), 0x601);
    fix_cfg_write(&f, 31, 0x40, 0xb000, 4);
    assert_int_equal(fix_in(&f, 0x604, 2), 0xffff);
    assert_int_equal(fix_in(&f, 0xb004, 2), 1);
    fix_cfg_write(&f, 31, 0x44, 0, 1);
    assert_int_equal(fix_in(&f, 0xb004, 2), 0xffff);
    dev_reset_all(&f.env);
    assert_int_equal(fix_in(&f, 0x604, 2), 1);
    struct dev *pic = pic_create(&f.env, "pic", NULL);
    assert_non_null(pic);
    outb(&f, 0x4d1, 0x0c);
    outb(&f, 0x21, 0);
    outb(&f, 0xa1, 0);
    struct irq_line pirq_c;
    irq_line_init(&pirq_c, &f.hub, 18);
    irq_set(&pirq_c, true);
    assert_int_equal(inb(&f, 0xa0), 0);
    fix_cfg_write(&f, 31, 0x62, 0x0a, 1);               /* PIRQ C to IRQ 10 */
    assert_int_equal(inb(&f, 0xa0), 0x04);
    fix_cfg_write(&f, 31, 0x62, 0x8b, 1);
    assert_int_equal(inb(&f, 0xa0), 0);
    fix_cfg_write(&f, 31, 0x62, 0x0b, 1);
    assert_int_equal(inb(&f, 0xa0), 0x08);
    irq_set(&pirq_c, false);
    assert_int_equal(inb(&f, 0xa0), 0);
    fixture_fini(&f);
}

static void test_lpc_moves_the_sci_and_maps_its_root_complex_block(void **unused)
{
    struct fixture f;
    struct dev *pm = pm_setup(&f, true);
    fix_out(&f, 0x602, 0x100, 2);
    acpi_pm_power_button(pm);
    assert_true(levels[9]);
    fix_cfg_write(&f, 31, 0x44, 0x84, 1);
    assert_false(levels[9]);
    assert_true(levels[20]);
    fix_cfg_write(&f, 31, 0xf0, 0xfed1c001, 4);
    assert_int_equal(fix_read(&f, 0xfed1f140, 2), 0x3210);
    fix_write(&f, 0xfed1f1ff, 1, 1);
    assert_int_equal(fix_read(&f, 0xfed1f1ff, 1), 1);
    assert_int_equal(fix_read(&f, 0xfed1c000, 4), 0);
    fix_cfg_write(&f, 31, 0xf0, 0, 4);
    assert_int_equal(fix_read(&f, 0xfed1f140, 2), 0xffff);
    outb(&f, 0x92, 0x02);
    assert_int_equal(f.n_requests, 0);
    outb(&f, 0x92, 0x03);
    assert_int_equal(f.request, GUEST_RESET);
    assert_int_equal(f.n_requests, 1);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pit_rate_generator_ticks),
        cmocka_unit_test(test_pit_makes_up_for_lost_ticks_within_a_bound),
        cmocka_unit_test(test_pit_one_shot_fires_once),
        cmocka_unit_test(test_pit_counter_runs_in_guest_time),
        cmocka_unit_test(test_pit_channel_2_gate_and_output),
        cmocka_unit_test(test_pit_read_back),
        cmocka_unit_test(test_pit_modes_1_and_5_wait_for_the_gate),
        cmocka_unit_test(test_rtc_tells_the_time_in_both_codes),
        cmocka_unit_test(test_rtc_shows_update_in_progress_before_each_second),
        cmocka_unit_test(test_rtc_can_be_set),
        cmocka_unit_test(test_rtc_interrupts),
        cmocka_unit_test(test_rtc_alarm_with_wildcards),
        cmocka_unit_test(test_rtc_flags_are_seen_by_polling_too),
        cmocka_unit_test(test_cmos_tells_firmware_the_memory),
        cmocka_unit_test(test_pm_timer_counts_and_its_event_raises_the_sci),
        cmocka_unit_test(test_pm_power_button_and_acpi_enable),
        cmocka_unit_test(test_pm_sleep_types),
        cmocka_unit_test(test_lpc_moves_the_pm_block_and_routes_pirqs),
        cmocka_unit_test(test_lpc_moves_the_sci_and_maps_its_root_complex_block),
    };
    /* fix_time lets the clock run for a moment: nobody should come between, where the host allows us to say so. */
    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){ .sched_priority = 1 });
    return cmocka_run_group_tests(tests, NULL, NULL);
}
