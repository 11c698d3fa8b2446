/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "driver.h"

#include <stdatomic.h>

static unsigned find_cap(struct drv *d, uint8_t type)
{
    for (unsigned off = fix_cfg_read(&d->f, FIX_SLOT, 0x34, 1); off; off = fix_cfg_read(&d->f, FIX_SLOT, off + 1, 1)) {
        if (fix_cfg_read(&d->f, FIX_SLOT, off, 1) == 9 && fix_cfg_read(&d->f, FIX_SLOT, off + 3, 1) == type) {
            return off;
        }
    }
    return 0;
}

static void test_identity_and_capabilities_are_those_of_a_modern_device(void **unused)
{
    static const struct { const struct dev_type *type; uint16_t id; uint32_t class; unsigned queues; } all[] = {
        { &virtio_net_type, 0x1041, 0x0200, 3 }, { &virtio_blk_type, 0x1042, 0x0100, 2 }, { &virtio_console_type, 0x1043, 0x0780, 6 },
        { &virtio_rng_type, 0x1044, 0x00ff, 1 }, { &virtio_balloon_type, 0x1045, 0x00ff, 4 },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        struct drv d;
        drv_init(&d, all[i].type);
        assert_int_equal(fix_cfg_read(&d.f, FIX_SLOT, 0, 4), 0x1af4 | (uint32_t)all[i].id << 16);
        assert_int_equal(fix_cfg_read(&d.f, FIX_SLOT, 8, 1), 1);
        assert_int_equal(fix_cfg_read(&d.f, FIX_SLOT, 10, 2), all[i].class);
        assert_int_equal(fix_read(&d.f, d.bar + 0x12, 2), all[i].queues);
        assert_true(drv_offered(&d) >> 32 & 1);
        for (uint8_t t = 1; t <= 5; t++) {
            unsigned cap = find_cap(&d, t);
            assert_true(cap != 0 || (t == 4 && all[i].type == &virtio_rng_type));
            if (cap && t < 5) {
                assert_int_equal(fix_cfg_read(&d.f, FIX_SLOT, cap + 4, 1), 4);
            }
        }
        assert_int_equal(fix_cfg_read(&d.f, FIX_SLOT, find_cap(&d, 2) + 16, 4), 4);
        drv_fini(&d);
    }
}

static void test_features_that_were_not_offered_are_refused(void **unused)
{
    struct drv d;
    drv_init(&d, &virtio_rng_type);
    struct fixture *f = &d.f;
    fix_write(f, d.bar + 0x14, ST_ACK | ST_DRIVER, 1);
    fix_write(f, d.bar + 8, 0, 4);
    fix_write(f, d.bar + 12, 1, 4);             /* bit 0 */
    fix_write(f, d.bar + 8, 1, 4);
    fix_write(f, d.bar + 12, 1, 4);             /* version 1 */
    fix_write(f, d.bar + 0x14, ST_ACK | ST_DRIVER | ST_FEATURES_OK, 1);
    assert_int_equal(drv_status(&d), ST_ACK | ST_DRIVER);
    /* nor does it work without version 1, or with DRIVER_OK alone */
    fix_write(f, d.bar + 12, 0, 4);
    fix_write(f, d.bar + 8, 0, 4);
    fix_write(f, d.bar + 12, 0, 4);
    fix_write(f, d.bar + 0x14, ST_ACK | ST_DRIVER | ST_FEATURES_OK | ST_DRIVER_OK, 1);
    assert_int_equal(drv_status(&d), ST_ACK | ST_DRIVER);
    fix_write(f, d.bar + 8, 1, 4);
    fix_write(f, d.bar + 12, 1, 4);
    fix_write(f, d.bar + 0x14, ST_ACK | ST_DRIVER | ST_FEATURES_OK, 1);
    assert_int_equal(drv_status(&d), ST_ACK | ST_DRIVER | ST_FEATURES_OK);
    /* they are fixed now */
    fix_write(f, d.bar + 12, 0, 4);
    assert_int_equal(fix_read(f, d.bar + 12, 4), 1);
    drv_fini(&d);
}

static void test_a_queue_with_impossible_parameters_does_not_come_up(void **unused)
{
    static const struct { uint64_t desc, avail, used; } bad[] = {
        { 0x10008, 0x11000, 0x12000 }, { 0x10000, 0x11001, 0x12000 }, { 0x10000, 0x11000, 0x12002 },
        { FIX_RAM - 16, 0x11000, 0x12000 }, { 0x10000, FIX_RAM, 0x12000 }, { 0x10000, 0x11000, UINT64_MAX - 3 },
        { UINT64_MAX - 15, 0x11000, 0x12000 }, { 0x10000, 0x11000, 0xc0000000 },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct drv d;
        drv_init(&d, &virtio_rng_type);
        drv_start(&d, 0);
        fix_write(&d.f, d.bar + 0x14, 0, 1);
        fix_write(&d.f, d.bar + 0x14, ST_ACK | ST_DRIVER, 1);
        fix_write(&d.f, d.bar + 8, 1, 4);
        fix_write(&d.f, d.bar + 12, 1, 4);
        fix_write(&d.f, d.bar + 0x14, ST_ACK | ST_DRIVER | ST_FEATURES_OK, 1);
        fix_write(&d.f, d.bar + 0x16, 0, 2);
        fix_write(&d.f, d.bar + 0x18, 3, 2);            /* not a power of two */
        assert_int_equal(fix_read(&d.f, d.bar + 0x18, 2), 64);
        fix_write(&d.f, d.bar + 0x18, 32768, 2);
        assert_int_equal(fix_read(&d.f, d.bar + 0x18, 2), 64);
        fix_write(&d.f, d.bar + 0x18, 32, 2);
        assert_int_equal(fix_read(&d.f, d.bar + 0x18, 2), 32);
        fix_write(&d.f, d.bar + 0x20, bad[i].desc, 8);
        fix_write(&d.f, d.bar + 0x28, bad[i].avail, 8);
        fix_write(&d.f, d.bar + 0x30, bad[i].used, 8);
        fix_write(&d.f, d.bar + 0x1c, 1, 2);
        assert_int_equal(fix_read(&d.f, d.bar + 0x1c, 2), 0);
        assert_true(drv_status(&d) & ST_NEEDS_RESET);
        drv_start(&d, 0);                               /* a reset heals it */
        assert_false(drv_status(&d) & ST_NEEDS_RESET);
        drv_fini(&d);
    }
}

static void test_vectors_beyond_the_table_read_back_as_none(void **unused)
{
    struct drv d;
    drv_init(&d, &virtio_rng_type);
    fix_write(&d.f, d.bar + 0x10, 2, 2);                /* one queue: vectors 0 and 1 */
    assert_int_equal(fix_read(&d.f, d.bar + 0x10, 2), 0xffff);
    fix_write(&d.f, d.bar + 0x10, 1, 2);
    assert_int_equal(fix_read(&d.f, d.bar + 0x10, 2), 1);
    fix_write(&d.f, d.bar + 0x1a, 999, 2);
    assert_int_equal(fix_read(&d.f, d.bar + 0x1a, 2), 0xffff);
    fix_write(&d.f, d.bar + 0x16, 77, 2);               /* no such queue */
    assert_int_equal(fix_read(&d.f, d.bar + 0x18, 2), 0);
    drv_fini(&d);
}

static void test_without_msix_the_isr_says_why_and_reading_clears_the_line(void **unused)
{
    struct drv d;
    uint32_t id, len;
    drv_init(&d, &virtio_rng_type);
    drv_start(&d, 0);
    for (unsigned off = fix_cfg_read(&d.f, FIX_SLOT, 0x34, 1); off; off = fix_cfg_read(&d.f, FIX_SLOT, off + 1, 1)) {
        if (fix_cfg_read(&d.f, FIX_SLOT, off, 1) == PCI_CAP_MSIX) {
            fix_cfg_write(&d.f, FIX_SLOT, off + 2, 0, 2);
        }
    }
    unsigned gsi = pci_slot_gsi(FIX_SLOT, 1);
    drv_chain(&d, 0, (struct piece[]){ { DATA, 16, true } }, 1);
    drv_kick(&d, 0);
    assert_true(drv_used(&d, 0, &id, &len));
    assert_int_equal(atomic_load(&d.f.hub.gsi_count[gsi]), 1);
    assert_int_equal(fix_read(&d.f, d.bar + 0x1000, 1), 1);
    assert_int_equal(atomic_load(&d.f.hub.gsi_count[gsi]), 0);
    assert_int_equal(fix_read(&d.f, d.bar + 0x1000, 1), 0);
    drv_fini(&d);
}

static void test_the_window_in_configuration_space_reaches_the_bar(void **unused)
{
    struct drv d;
    drv_init(&d, &virtio_rng_type);
    unsigned cap = find_cap(&d, 5);
    fix_cfg_write(&d.f, FIX_SLOT, cap + 4, 4, 1);
    fix_cfg_write(&d.f, FIX_SLOT, cap + 8, 0x14, 4);
    fix_cfg_write(&d.f, FIX_SLOT, cap + 12, 1, 4);
    fix_cfg_write(&d.f, FIX_SLOT, cap + 16, ST_ACK, 1);
    assert_int_equal(drv_status(&d), ST_ACK);
    assert_int_equal(fix_cfg_read(&d.f, FIX_SLOT, cap + 16, 1), ST_ACK);
    fix_cfg_write(&d.f, FIX_SLOT, cap + 8, 0x12, 4);
    fix_cfg_write(&d.f, FIX_SLOT, cap + 12, 2, 4);
    assert_int_equal(fix_cfg_read(&d.f, FIX_SLOT, cap + 16, 2), 1);
    /* outside the BAR, odd, of no length */
    fix_cfg_write(&d.f, FIX_SLOT, cap + 8, 0x3fff, 4);
    fix_cfg_read(&d.f, FIX_SLOT, cap + 16, 2);
    fix_cfg_write(&d.f, FIX_SLOT, cap + 8, 0xfffffffe, 4);
    fix_cfg_read(&d.f, FIX_SLOT, cap + 16, 2);
    fix_cfg_write(&d.f, FIX_SLOT, cap + 12, 0, 4);
    fix_cfg_read(&d.f, FIX_SLOT, cap + 16, 4);
    drv_fini(&d);
}

static void test_notifications_follow_the_bar_and_bus_mastering(void **unused)
{
    struct drv d;
    uint32_t id, len;
    drv_init(&d, &virtio_rng_type);
    drv_start(&d, 0);
    gpa_t moved = d.bar + 0x100000;
    fix_cfg_write(&d.f, FIX_SLOT, 0x20, (uint32_t)moved, 4);
    d.bar = moved;
    drv_chain(&d, 0, (struct piece[]){ { DATA, 16, true } }, 1);
    drv_kick(&d, 0);
    assert_true(drv_used(&d, 0, &id, &len));
    /* no DMA while bus mastering is off; what was asked meanwhile is done when it is on again */
    fix_cfg_write(&d.f, FIX_SLOT, PCI_COMMAND, 3, 2);
    drv_chain(&d, 0, (struct piece[]){ { DATA, 16, true } }, 1);
    drv_kick(&d, 0);
    uint16_t idx;
    mem_read_le16(d.f.env.mem, d.q[0].used + 2, &idx);
    assert_int_equal(idx, 1);
    fix_cfg_write(&d.f, FIX_SLOT, PCI_COMMAND, 7, 2);
    assert_true(drv_used(&d, 0, &id, &len));
    drv_fini(&d);
}

static void test_a_paused_device_rests_and_a_saved_one_goes_on_elsewhere(void **unused)
{
    struct drv a, b;
    struct err err = ERR_INIT;
    AUTO_BUF struct buf first = { 0 }, second = { 0 };
    uint32_t id, len;
    drv_init(&a, &virtio_rng_type);
    drv_init(&b, &virtio_rng_type);
    drv_start(&a, ~0ull);
    drv_chain(&a, 0, (struct piece[]){ { DATA, 16, true } }, 1);
    drv_kick(&a, 0);
    assert_true(drv_used(&a, 0, &id, &len));
    a.dev->type->quiesce(a.dev);
    drv_chain(&a, 0, (struct piece[]){ { DATA + 64, 32, true } }, 1);
    drv_kick(&a, 0);
    dev_save(a.dev, &first);
    uint8_t *ram = alloc0(FIX_RAM);
    peek(&a, 0, ram, FIX_RAM);
    poke(&b, 0, ram, FIX_RAM);
    free(ram);
    assert_true(dev_load(b.dev, b.dev->type->version, first.data, first.len, &err));
    dev_save(b.dev, &second);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    b.q[0] = a.q[0];
    assert_true(drv_used(&b, 0, &id, &len));            /* what waited is served there */
    assert_int_equal(len, 32);
    /* and here too, when nothing came of it */
    uint16_t idx;
    mem_read_le16(a.f.env.mem, a.q[0].used + 2, &idx);
    assert_int_equal(idx, 1);
    a.dev->type->resume(a.dev);
    assert_true(drv_used(&a, 0, &id, &len));
    drv_fini(&a);
    drv_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity_and_capabilities_are_those_of_a_modern_device),
        cmocka_unit_test(test_features_that_were_not_offered_are_refused),
        cmocka_unit_test(test_a_queue_with_impossible_parameters_does_not_come_up),
        cmocka_unit_test(test_vectors_beyond_the_table_read_back_as_none),
        cmocka_unit_test(test_without_msix_the_isr_says_why_and_reading_clears_the_line),
        cmocka_unit_test(test_the_window_in_configuration_space_reaches_the_bar),
        cmocka_unit_test(test_notifications_follow_the_bar_and_bus_mastering),
        cmocka_unit_test(test_a_paused_device_rests_and_a_saved_one_goes_on_elsewhere),
    };
    return cmocka_run_group_tests_name("dev-virtio-transport", tests, NULL, NULL);
}
