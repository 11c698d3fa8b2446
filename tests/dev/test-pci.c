/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "dev/pc/pc.h"
#include "fixture.h"

/* A function with a port BAR, a 32-bit BAR, a 64-bit BAR and MSI-X. */
struct probe {
    struct pci_dev pci;
    uint64_t last;
};

static uint64_t probe_read(struct dev *dev, uint64_t off, unsigned width)
{
    return 0x5a00 + off;
}

/* A write raises or lowers INTx and fires vector 0, as a device's doorbell may. */
static void probe_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct probe *p = container_of(dev, struct probe, pci.dev);
    p->last = val;
    pci_intx_set(&p->pci, val & 1);
    pci_msix_fire(&p->pci, 0);
}

static const struct io_ops probe_io = { .read = probe_read, .write = probe_write };

static bool probe_realize(struct dev *dev, struct err *err)
{
    static const struct pci_ident id = {
        .vendor = 0x1af4, .device = 0x1042, .sub_vendor = 0x1af4, .sub_device = 0x40, .class_code = 0x010802,
        .revision = 1, .pin = 1,
    };
    struct pci_dev *pd = &container_of(dev, struct probe, pci.dev)->pci;
    return pci_dev_init(pd, &id, err) &&
           pci_bar_add(pd, 0, dev_add_region(dev, "io", MEM_PIO, &probe_io, 32), false, false, err) &&
           pci_bar_add(pd, 1, dev_add_region(dev, "mem", MEM_MMIO, &probe_io, 0x1000), false, false, err) &&
           pci_bar_add(pd, 2, dev_add_region(dev, "big", MEM_MMIO, &probe_io, 0x4000), true, true, err) &&
           pci_msix_add(pd, 3, 4, err);
}

static void probe_unrealize(struct dev *dev)
{
    pci_dev_fini(container_of(dev, struct pci_dev, dev));
}

static void probe_reset(struct dev *dev)
{
    pci_reset(container_of(dev, struct pci_dev, dev));
}

static void probe_settle(struct dev *dev)
{
    pci_settle(container_of(dev, struct pci_dev, dev));
}

static const struct state_field probe_fields[] = { STATE_PCI_DEV(struct probe, pci), STATE_END };
static const struct dev_type probe_type = {
    .name = "probe", .size = sizeof(struct probe), .version = 1, .fields = probe_fields, .realize = probe_realize,
    .unrealize = probe_unrealize, .reset = probe_reset, .settle = probe_settle,
};

enum { SLOT = 3, ECAM = 0x40000000 /* beyond nothing: any hole */ };

static struct pci_dev *setup_slot(struct fixture *f, unsigned slot, unsigned fn)
{
    char id[16];
    snprintf(id, sizeof(id), "probe%u.%u", slot, fn);
    struct pci_dev *pd = container_of(dev_create(&f->env, &probe_type, id), struct pci_dev, dev);
    pd->slot = slot;
    pd->fn = fn;
    return dev_realize(&pd->dev, NULL) ? pd : NULL;
}

static struct pci_dev *setup(struct fixture *f)
{
    fixture_init(f);
    assert_non_null(pci_bus_create(&f->env, ECAM, NULL));
    return setup_slot(f, SLOT, 0);
}

static uint32_t cfg32(struct fixture *f, unsigned off)
{
    return fix_cfg_read(f, SLOT, off, 4);
}

static void test_both_mechanisms_show_the_same_space_at_any_width(void **unused)
{
    struct fixture f;
    setup(&f);
    gpa_t at = ECAM + (SLOT << 15);
    assert_int_equal(cfg32(&f, 0), 0x10421af4);
    assert_int_equal(fix_in(&f, 0xcf8, 4), 0x80000000 | SLOT << 11);
    assert_int_equal(fix_cfg_read(&f, SLOT, 2, 2), 0x1042);
    assert_int_equal(fix_cfg_read(&f, SLOT, 3, 1), 0x10);
    assert_int_equal(cfg32(&f, 8), 0x01080201);
    assert_int_equal(fix_read(&f, at, 4), 0x10421af4);
    assert_int_equal(fix_read(&f, at + 0x2e, 2), 0x40);
    assert_int_equal(fix_read(&f, at, 8), 0x10421af4 | (uint64_t)fix_read(&f, at + 4, 4) << 32);
    assert_int_equal(fix_read(&f, ECAM + (4 << 15), 4), 0xffffffff);        /* nobody */
    assert_int_equal(fix_read(&f, ECAM + (1 << 20), 4), 0xffffffff);        /* no bus 1 */
    fix_out(&f, 0xcf8, SLOT << 11, 4);                                      /* enable bit clear */
    assert_int_equal(fix_in(&f, 0xcfc, 4), 0xffffffff);
    fixture_fini(&f);
}

static void test_identity_cannot_be_written(void **unused)
{
    struct fixture f;
    setup(&f);
    uint32_t before[64];
    for (unsigned i = 0; i < 64; i++) {
        before[i] = cfg32(&f, 4 * i);
    }
    for (unsigned i = 0; i < 64; i++) {
        if (i != 1 && !(i >= 4 && i < 10)) {
            fix_cfg_write(&f, SLOT, 4 * i, 0xffffffff, 4);
        }
    }
    for (unsigned i = 0; i < 16; i++) {
        if (i != 1 && i != 3 && i != 15) {
            assert_int_equal(cfg32(&f, 4 * i), before[i]);
        }
    }
    assert_int_equal(fix_cfg_read(&f, SLOT, 0x3c, 1), 0xff);        /* the interrupt line is software's */
    assert_int_equal(fix_cfg_read(&f, SLOT, 0x3d, 1), 1);
    fixture_fini(&f);
}

static void test_bars_answer_sizing_and_move_live(void **unused)
{
    struct fixture f;
    setup(&f);
    for (unsigned off = 0x10; off < 0x28; off += 4) {
        fix_cfg_write(&f, SLOT, off, 0xffffffff, 4);
    }
    assert_int_equal(cfg32(&f, 0x10), 0xffffffe1);
    assert_int_equal(cfg32(&f, 0x14), 0xfffff000);
    assert_int_equal(cfg32(&f, 0x18), 0xffffc00c);
    assert_int_equal(cfg32(&f, 0x1c), 0xffffffff);
    assert_int_equal(cfg32(&f, 0x20), 0xfffff000);          /* MSI-X */
    assert_int_equal(cfg32(&f, 0x24), 0);
    fix_cfg_write(&f, SLOT, 0x10, 0xc000, 4);
    fix_cfg_write(&f, SLOT, 0x14, 0xe0000000, 4);
    fix_cfg_write(&f, SLOT, 0x18, 0x00008000, 4);
    fix_cfg_write(&f, SLOT, 0x1c, 0x20, 4);
    assert_int_equal(fix_read(&f, 0xe0000010, 4), 0xffffffff);      /* not decoded yet */
    fix_cfg_write(&f, SLOT, PCI_COMMAND, 3, 2);
    assert_int_equal(fix_read(&f, 0xe0000010, 4), 0x5a10);
    assert_int_equal(fix_read(&f, 0x2000008008, 4), 0x5a08);
    assert_int_equal(fix_in(&f, 0xc004, 2), 0x5a04);
    fix_cfg_write(&f, SLOT, 0x14, 0xe1000000, 4);
    assert_int_equal(fix_read(&f, 0xe0000010, 4), 0xffffffff);
    assert_int_equal(fix_read(&f, 0xe1000010, 4), 0x5a10);
    fix_cfg_write(&f, SLOT, 0x1d, 0x01, 1);                 /* a byte of the upper half: 0x0120 */
    assert_int_equal(fix_read(&f, 0x12000008008, 4), 0x5a08);
    fix_cfg_write(&f, SLOT, PCI_COMMAND, 2, 2);
    assert_int_equal(fix_in(&f, 0xc004, 2), 0xffff);
    fix_cfg_write(&f, SLOT, PCI_COMMAND, 0, 2);
    assert_int_equal(fix_read(&f, 0xe1000010, 4), 0xffffffff);
    fixture_fini(&f);
}

static void test_a_bar_never_hides_the_ioapic_and_sizing_patterns_map_nothing(void **unused)
{
    struct fixture f;
    setup(&f);
    assert_non_null(ioapic_create(&f.env, "ioapic", &(struct ioapic_props){ 0 }, NULL));
    fix_cfg_write(&f, SLOT, PCI_COMMAND, 3, 2);
    fix_cfg_write(&f, SLOT, 0x14, 0xfec00000, 4);
    fix_write(&f, 0xfec00000, 1, 4);
    assert_int_equal(fix_read(&f, 0xfec00010, 4), 0x00170020);
    fix_cfg_write(&f, SLOT, 0x14, 0xffffffff, 4);
    assert_int_equal(fix_read(&f, 0xfffff000, 4), 0xffffffff);
    fix_cfg_write(&f, SLOT, 0x10, 0xffffffff, 4);
    assert_int_equal(fix_in(&f, 0xffe0, 4), 0xffffffff);
    fix_cfg_write(&f, SLOT, 0x10, 0, 4);
    assert_int_equal(fix_in(&f, 0x0000, 4), 0xffffffff);
    fixture_fini(&f);
}

static void test_capabilities_form_a_list(void **unused)
{
    struct fixture f;
    struct pci_dev *pd = setup(&f);
    assert_int_equal(fix_cfg_read(&f, SLOT, PCI_STATUS, 2) & PCI_STATUS_CAPS, PCI_STATUS_CAPS);
    unsigned at = fix_cfg_read(&f, SLOT, PCI_CAP_PTR, 1);
    assert_int_equal(fix_cfg_read(&f, SLOT, at, 1), PCI_CAP_MSIX);
    assert_int_equal(fix_cfg_read(&f, SLOT, at + 2, 2), 2);         /* three vectors */
    assert_int_equal(fix_cfg_read(&f, SLOT, at + 4, 4), 4);         /* BAR 4, offset 0 */
    assert_int_equal(fix_cfg_read(&f, SLOT, at + 8, 4), 0x804);
    unsigned n = 0;
    while (pci_cap_add(pd, PCI_CAP_VENDOR, 20)) {
        n++;
    }
    assert_int_equal(n, (0x100 - 0x4c) / 20);
    assert_int_equal(pci_cap_add(pd, PCI_CAP_VENDOR, 1), 0);
    fixture_fini(&f);
}

static void msix_on(struct fixture *f)
{
    fix_cfg_write(f, SLOT, 0x20, 0xe2000000, 4);
    fix_cfg_write(f, SLOT, PCI_COMMAND, 6, 2);
    fix_cfg_write(f, SLOT, 0x42, 0x8000, 2);
    for (unsigned v = 0; v < 3; v++) {
        fix_write(f, 0xe2000000 + 16 * v, 0xfee01000, 4);
        fix_write(f, 0xe2000004 + 16 * v, 0, 4);
        fix_write(f, 0xe2000008 + 16 * v, 0x40 + v, 4);
    }
}

static void test_msix_fires_and_remembers_while_masked(void **unused)
{
    struct fixture f;
    struct pci_dev *pd = setup(&f);
    pci_msix_fire(pd, 0);
    assert_int_equal(f.n_msgs, 0);              /* not enabled: nobody remembers */
    msix_on(&f);
    assert_true(pci_msix_enabled(pd));
    assert_int_equal(fix_read(&f, 0xe200000c, 4), 1);       /* masked after reset */
    pci_msix_fire(pd, 1);
    pci_msix_fire(pd, 1);
    assert_int_equal(f.n_msgs, 0);
    assert_int_equal(fix_read(&f, 0xe2000800, 8), 2);
    fix_write(&f, 0xe200001c, 0, 4);
    assert_int_equal(f.n_msgs, 1);              /* once */
    assert_int_equal(f.msgs[0].addr, 0xfee01000);
    assert_int_equal(f.msgs[0].data, 0x41);
    assert_int_equal(fix_read(&f, 0xe2000800, 4), 0);
    fix_cfg_write(&f, SLOT, 0x42, 0xc000, 2);   /* function mask */
    pci_msix_fire(pd, 1);
    assert_int_equal(f.n_msgs, 1);
    fix_cfg_write(&f, SLOT, 0x42, 0x8000, 2);
    assert_int_equal(f.n_msgs, 2);
    fix_cfg_write(&f, SLOT, PCI_COMMAND, 2, 2); /* a message is a bus-master write */
    pci_msix_fire(pd, 1);
    assert_int_equal(f.n_msgs, 2);
    fix_cfg_write(&f, SLOT, PCI_COMMAND, 6, 2);
    assert_int_equal(f.n_msgs, 3);
    pci_msix_fire(pd, 3);                       /* no such vector */
    pci_msix_fire(pd, 9999);
    fix_write(&f, 0xe2000800, ~0ull, 8);        /* pending bits are read-only */
    assert_int_equal(fix_read(&f, 0xe2000800, 8), 0);
    fix_write(&f, 0xe200000c, 0, 1);            /* part of a dword: ignored */
    assert_int_equal(fix_read(&f, 0xe200000c, 4), 1);
    fixture_fini(&f);
}

static void test_intx_follows_level_command_and_msix(void **unused)
{
    struct fixture f;
    struct pci_dev *pd = setup(&f);
    unsigned gsi = pci_slot_gsi(SLOT, 1);
    pci_intx_set(pd, true);
    assert_int_equal(f.hub.gsi_count[gsi], 1);
    assert_int_equal(fix_cfg_read(&f, SLOT, PCI_STATUS, 2) & PCI_STATUS_INTX, PCI_STATUS_INTX);
    fix_cfg_write(&f, SLOT, PCI_COMMAND, PCI_COMMAND_INTX_OFF, 2);
    assert_int_equal(f.hub.gsi_count[gsi], 0);
    assert_int_equal(fix_cfg_read(&f, SLOT, PCI_STATUS, 2) & PCI_STATUS_INTX, PCI_STATUS_INTX);
    fix_cfg_write(&f, SLOT, PCI_COMMAND, 0, 2);
    assert_int_equal(f.hub.gsi_count[gsi], 1);
    fix_cfg_write(&f, SLOT, 0x42, 0x8000, 2);
    assert_int_equal(f.hub.gsi_count[gsi], 0);
    fix_cfg_write(&f, SLOT, 0x42, 0, 2);
    struct pci_dev *other = setup_slot(&f, SLOT + 4, 0);            /* shares the wire */
    pci_intx_set(other, true);
    assert_int_equal(f.hub.gsi_count[gsi], 2);
    dev_reset_all(&f.env);
    assert_int_equal(f.hub.gsi_count[gsi], 0);
    fixture_fini(&f);
}

static void test_slots_swizzle_as_on_q35(void **unused)
{
    assert_int_equal(pci_slot_gsi(0, 1), 20);
    assert_int_equal(pci_slot_gsi(1, 1), 21);
    assert_int_equal(pci_slot_gsi(3, 2), 20);
    assert_int_equal(pci_slot_gsi(24, 4), 23);
    assert_int_equal(pci_slot_gsi(25, 1), 16);
    assert_int_equal(pci_slot_gsi(31, 4), 19);
    assert_int_equal(pci_slot_gsi(30, 1), 20);
}

static void test_reset_takes_bars_away_and_masks_vectors(void **unused)
{
    struct fixture f;
    struct pci_dev *pd = setup(&f);
    msix_on(&f);
    fix_write(&f, 0xe200000c, 0, 4);
    dev_reset(&pd->dev);
    assert_int_equal(fix_read(&f, 0xe2000000, 4), 0xffffffff);
    assert_int_equal(cfg32(&f, 0x20), 0);
    assert_int_equal(pd->msix[0].ctrl, 1);
    assert_false(pci_msix_enabled(pd));
    fixture_fini(&f);
}

static void test_a_loaded_space_keeps_this_devices_identity(void **unused)
{
    struct fixture f;
    struct pci_dev *pd = setup(&f);
    AUTO_BUF struct buf s = { 0 };
    memset(pd->cfg, 0xff, PCI_CFG_SIZE);
    dev_save(&pd->dev, &s);
    dev_reset(&pd->dev);
    assert_true(dev_load(&pd->dev, 1, s.data, s.len, NULL));
    assert_int_equal(cfg32(&f, 0), 0x10421af4);
    assert_int_equal(fix_cfg_read(&f, SLOT, 0x42, 2), 0xc002);
    assert_int_equal(fix_cfg_read(&f, SLOT, PCI_COMMAND, 2), 0x0547);
    fixture_fini(&f);
}

static void test_functions_share_a_slot_and_a_function_only_once(void **unused)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(fix_cfg_read(&f, SLOT, PCI_HEADER_TYPE, 1), 0);
    struct pci_dev *second = setup_slot(&f, SLOT, 1);
    assert_non_null(second);
    assert_int_equal(fix_cfg_read(&f, SLOT, PCI_HEADER_TYPE, 1), 0x80);
    dev_reset_all(&f.env);
    assert_int_equal(fix_cfg_read(&f, SLOT, PCI_HEADER_TYPE, 1), 0x80);
    struct err err = ERR_INIT;
    struct pci_dev *third = container_of(dev_create(&f.env, &probe_type, "third"), struct pci_dev, dev);
    third->slot = SLOT;
    assert_false(dev_realize(&third->dev, &err));
    assert_int_equal(err.code, ERR_EXISTS);
    assert_int_equal(cfg32(&f, 0), 0x10421af4);         /* the first one is still there */
    dev_destroy(&second->dev);
    assert_int_equal(pci_cfg_read(f.env.pci, SLOT << 3 | 1, 0, 4), 0xffffffff);
    fixture_fini(&f);
}

static void test_bars_are_placed_without_firmware(void **unused)
{
    struct fixture f;
    struct err err = ERR_INIT;
    struct pci_dev *a = setup(&f), *b = setup_slot(&f, 9, 0);
    assert_true(pci_assign_all(f.env.pci, 0xc0000000, 0xc0010000, 0x1000000000, 0x1000100000, 0xc000, 0x10000, &err));
    for (unsigned n = 0; n < PCI_N_BARS; n++) {
        if (a->bar[n].size) {
            assert_true(a->bar[n].region->io.mapped && b->bar[n].region->io.mapped);
            assert_int_equal(a->bar[n].region->io.base % a->bar[n].size, 0);
            assert_int_not_equal(a->bar[n].region->io.base, b->bar[n].region->io.base);
        }
    }
    assert_int_equal(fix_cfg_read(&f, SLOT, PCI_COMMAND, 2), 3);
    assert_int_equal(fix_cfg_read(&f, SLOT, PCI_INT_LINE, 1), pci_slot_gsi(SLOT, 1));
    assert_true(a->bar[2].region->io.base < 1ull << 32);
    /* too small a low window: the 64-bit BARs go high, then there is an error that names the device */
    assert_true(pci_assign_all(f.env.pci, 0xc0000000, 0xc0004000, 0x1000000000, 0x1000100000, 0xc000, 0x10000, &err));
    assert_false(pci_assign_all(f.env.pci, 0xc0000000, 0xc0000800, 0, 0, 0xc000, 0x10000, &err));
    assert_int_equal(err.code, ERR_LIMIT);
    fixture_fini(&f);
}

static void test_cf9_resets_and_reads_back(void **unused)
{
    struct fixture f;
    setup(&f);
    outb(&f, 0xcf9, 0x02);
    assert_int_equal(f.n_requests, 0);
    assert_int_equal(inb(&f, 0xcf9), 0x02);
    outb(&f, 0xcf9, 0x06);
    assert_int_equal(f.n_requests, 1);
    assert_int_equal(f.request, GUEST_RESET);
    outb(&f, 0xcf9, 0x0f);
    assert_int_equal(f.n_requests, 2);
    fix_out(&f, 0xcf8, 0x80001234, 4);          /* a dword there is the address, not a reset */
    assert_int_equal(f.n_requests, 2);
    assert_int_equal(fix_in(&f, 0xcf8, 4), 0x80001234);
    fix_out(&f, 0xcf8, 0xffff, 2);
    assert_int_equal(fix_in(&f, 0xcf8, 4), 0x80001234);
    fixture_fini(&f);
}

static void test_host_bridge_moves_ecam(void **unused)
{
    struct fixture f;
    fixture_init(&f);
    assert_non_null(q35_host_create(&f.env, "host", &(struct q35_props){ 0 }, NULL));
    assert_int_equal(fix_cfg_read(&f, 0, 0, 4), 0x29c08086);
    assert_int_equal(fix_cfg_read(&f, 0, 8, 4) >> 8, 0x060000);
    assert_int_equal(fix_read(&f, 0xb0000000, 4), 0x29c08086);
    fix_write(&f, 0xb0000060, 0xd0000001, 4);   /* through itself */
    assert_int_equal(fix_read(&f, 0xb0000000, 4), 0xffffffff);
    assert_int_equal(fix_read(&f, 0xd0000000, 4), 0x29c08086);
    fix_cfg_write(&f, 0, 0x60, 0xe0000005, 4);  /* 64 MiB */
    assert_int_equal(fix_read(&f, 0xe0000000, 4), 0x29c08086);
    fix_cfg_write(&f, 0, 0x60, 0, 4);
    assert_int_equal(fix_read(&f, 0xe0000000, 4), 0xffffffff);
    dev_reset_all(&f.env);
    assert_int_equal(fix_read(&f, 0xb0000000, 4), 0x29c08086);
    fix_cfg_write(&f, 0, 0x90, 0xff, 1);
    assert_int_equal(fix_cfg_read(&f, 0, 0x90, 1), 0x33);
    fix_cfg_write(&f, 0, 0x9d, 0x4a, 1);
    assert_int_equal(fix_cfg_read(&f, 0, 0x9d, 1), 0x4a);
    fix_cfg_write(&f, 0, 0x9d, 0x1a, 1);        /* locked */
    fix_cfg_write(&f, 0, 0x9d, 0x4a, 1);
    assert_int_equal(fix_cfg_read(&f, 0, 0x9d, 1) & 0x58, 0x18);
    dev_reset_all(&f.env);
    assert_int_equal(fix_cfg_read(&f, 0, 0x9d, 1), 0x02);
    fixture_fini(&f);
}

enum { RACE_ROUNDS = 20000 };

static void *race_config(void *arg)
{
    struct fixture *f = arg;
    gpa_t at = ECAM + (SLOT << 15);
    for (unsigned i = 0; i < RACE_ROUNDS; i++) {
        fix_write(f, at + 0x14, i & 1 ? 0xe0000000 : 0xe1000000, 4);
        fix_write(f, at + 0x20, i & 2 ? 0xe2000000 : 0xe2001000, 4);
        fix_write(f, at + PCI_COMMAND, i % 7 ? 6 : 4, 2);
        fix_write(f, at + 0x42, i % 5 ? 0x8000 : 0, 2);
        fix_write(f, ECAM + (31 << 15) + 0x40, i & 1 ? 0xb000 : 0x600, 2);
        fix_write(f, ECAM + (31 << 15) + 0x60, i & 1 ? 0x0a0b8005 : 0x80808080, 4);
    }
    return NULL;
}

static void *race_doorbell(void *arg)
{
    struct fixture *f = arg;
    for (unsigned i = 0; i < RACE_ROUNDS; i++) {
        fix_write(f, 0xe0000000, i, 4);
        fix_write(f, 0xe1000000, i, 4);
        fix_write(f, 0xe2000000, 0xfee00000, 4);
        fix_write(f, 0xe2001000, 0xfee00000, 4);
        fix_write(f, 0xe200000c, i & 1, 4);
        fix_out(f, 0x602, i & 0x101, 2);
        fix_out(f, 0xb002, i & 0x101, 2);
    }
    return NULL;
}

static void *race_chips(void *arg)
{
    struct fixture *f = arg;
    for (unsigned i = 0; i < RACE_ROUNDS; i++) {
        fix_write(f, 0xfec00000, 0x10 + 2 * pci_slot_gsi(SLOT, 1), 4);
        fix_write(f, 0xfec00010, i & 1 ? 0x8051 : 0x18051, 4);
        f->hub.eoi(f->hub.ioapic, 0x51);
        f->hub.pic_ack(f->hub.pic);
        outb(f, 0x20, 0x20);
        acpi_pm_power_button(dev_find(&f->env, "pm"));
    }
    return NULL;
}

/* Three vCPUs at once: one moves what the second uses, the third works the interrupt chips. Nobody waits for ever. */
static void test_everything_can_move_while_it_is_used(void **unused)
{
    struct fixture f;
    pthread_t t[3];
    void *(*const fn[3])(void *) = { race_config, race_doorbell, race_chips };
    setup(&f);
    struct dev *pm = acpi_pm_create(&f.env, "pm", &(struct acpi_pm_props){ .acpi_on = true }, NULL);
    assert_non_null(pm);
    assert_non_null(pic_create(&f.env, "pic", NULL));
    assert_non_null(ioapic_create(&f.env, "ioapic", &(struct ioapic_props){ 0 }, NULL));
    assert_non_null(lpc_create(&f.env, "lpc", &(struct lpc_props){ .pm = pm }, NULL));
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, fn[i], &f), 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
    }
    /* whether a doorbell met an enabled vector is the scheduler's business; that nothing is left up is ours */
    dev_reset_all(&f.env);
    for (unsigned gsi = 0; gsi < N_GSIS; gsi++) {
        assert_int_equal(f.hub.gsi_count[gsi], 0);
    }
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_mechanisms_show_the_same_space_at_any_width),
        cmocka_unit_test(test_identity_cannot_be_written),
        cmocka_unit_test(test_bars_answer_sizing_and_move_live),
        cmocka_unit_test(test_a_bar_never_hides_the_ioapic_and_sizing_patterns_map_nothing),
        cmocka_unit_test(test_capabilities_form_a_list),
        cmocka_unit_test(test_msix_fires_and_remembers_while_masked),
        cmocka_unit_test(test_intx_follows_level_command_and_msix),
        cmocka_unit_test(test_slots_swizzle_as_on_q35),
        cmocka_unit_test(test_reset_takes_bars_away_and_masks_vectors),
        cmocka_unit_test(test_a_loaded_space_keeps_this_devices_identity),
        cmocka_unit_test(test_functions_share_a_slot_and_a_function_only_once),
        cmocka_unit_test(test_bars_are_placed_without_firmware),
        cmocka_unit_test(test_cf9_resets_and_reads_back),
        cmocka_unit_test(test_host_bridge_moves_ecam),
        cmocka_unit_test(test_everything_can_move_while_it_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
