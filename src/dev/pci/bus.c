/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdlib.h>

#include "base/bytes.h"
#include "dev/pci/pci-int.h"

/*
 * Bus 0 and the two ways into its configuration space: ports CF8/CFC (PCI 3.0 §3.2.2.3.2) and ECAM (PCI Express 4.0
 * §7.2.2). Port CF9, the reset control register of Intel chipsets, lies between them and is served here too.
 * Everything is under the PCI lock.
 */
struct pci_bus {
    struct dev dev;
    struct pci_dev *fns[32][8];
    struct dev_region *ecam;
    uint32_t cf8;
    uint8_t rst_cnt;            /* CF9: what reads back */
};

enum {
    CF8 = 0, CF9 = 1, CFC = 4,
    RST_SYS = 1 << 1, RST_CPU = 1 << 2, RST_FULL = 1 << 3,      /* CF9: a 1 in RST_CPU triggers */
    PCIEXBAR_SIZE = 256 * MIB,
};

struct pci_dev *pci_bus_dev(struct pci_bus *bus, unsigned slot, unsigned fn)
{
    return slot < 32 && fn < 8 ? bus->fns[slot][fn] : NULL;
}

/* A function other than 0 shows in function 0's header type, whichever comes first. */
bool pci_bus_add(struct pci_bus *bus, struct pci_dev *pd, struct err *err)
{
    struct pci_dev **slot = bus->fns[pd->slot];
    if (slot[pd->fn]) {
        return err_set(err, ERR_EXISTS, "PCI slot %u.%u is taken by '%s'", pd->slot, pd->fn, slot[pd->fn]->dev.id);
    }
    slot[pd->fn] = pd;
    for (unsigned fn = 1; fn < 8 && slot[0]; fn++) {
        if (slot[fn]) {
            slot[0]->cfg[PCI_HEADER_TYPE] |= 0x80;
            slot[0]->cfg_init[PCI_HEADER_TYPE] |= 0x80;
        }
    }
    return true;
}

void pci_bus_del(struct pci_bus *bus, struct pci_dev *pd)
{
    if (pci_bus_dev(bus, pd->slot, pd->fn) == pd) {
        bus->fns[pd->slot][pd->fn] = NULL;
    }
}

static struct pci_dev *by_bdf(struct pci_bus *bus, unsigned bdf)
{
    return bdf < 0x100 ? bus->fns[bdf >> 3][bdf & 7] : NULL;
}

uint32_t pci_cfg_read(struct pci_bus *bus, unsigned bdf, unsigned off, unsigned len)
{
    struct pci_dev *pd = by_bdf(bus, bdf);
    return pd ? pci_dev_cfg_read(pd, off, len) : ~0u;
}

void pci_cfg_write(struct pci_bus *bus, unsigned bdf, unsigned off, uint32_t val, unsigned len)
{
    struct pci_dev *pd = by_bdf(bus, bdf);
    if (pd) {
        pci_dev_cfg_write(pd, off, val, len);
    }
}

static uint64_t ports_read(struct dev *dev, uint64_t off, unsigned width)
{
    struct pci_bus *bus = container_of(dev, struct pci_bus, dev);
    if (off >= CFC) {
        return bus->cf8 >> 31 ? pci_cfg_read(bus, bus->cf8 >> 8 & 0xffff, (bus->cf8 & 0xfc) + (off & 3), width) : ~0u;
    }
    if (off == CF8 && width == 4) {
        return bus->cf8;
    }
    return off == CF9 && width == 1 ? bus->rst_cnt : ~0u;
}

static void ports_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct pci_bus *bus = container_of(dev, struct pci_bus, dev);
    if (off >= CFC) {
        if (bus->cf8 >> 31) {
            pci_cfg_write(bus, bus->cf8 >> 8 & 0xffff, (bus->cf8 & 0xfc) + (off & 3), val, width);
        }
    } else if (off == CF8 && width == 4) {
        bus->cf8 = val;
    } else if (off == CF9 && width == 1) {
        bus->rst_cnt = val & (RST_SYS | RST_FULL);
        if (val & RST_CPU) {
            dev_guest_request(dev, GUEST_RESET, 0);
        }
    }
}

/* Offset in ECAM: bus << 20 | device << 15 | function << 12 | register. */
static uint64_t ecam_read(struct dev *dev, uint64_t off, unsigned width)
{
    struct pci_bus *bus = container_of(dev, struct pci_bus, dev);
    if (width == 8) {
        return ecam_read(dev, off, 4) | ecam_read(dev, off + 4, 4) << 32;
    }
    return pci_cfg_read(bus, off >> 12, off & 0xfff, width);
}

static void ecam_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct pci_bus *bus = container_of(dev, struct pci_bus, dev);
    if (width == 8) {
        ecam_write(dev, off, val & 0xffffffff, 4);
        ecam_write(dev, off + 4, val >> 32, 4);
        return;
    }
    pci_cfg_write(bus, off >> 12, off & 0xfff, val, width);
}

static const struct io_ops ports_io = { .read = ports_read, .write = ports_write };
static const struct io_ops ecam_io = { .read = ecam_read, .write = ecam_write };

static bool bus_realize(struct dev *dev, struct err *err)
{
    struct pci_bus *bus = container_of(dev, struct pci_bus, dev);
    if (dev->env->pci) {
        return err_set(err, ERR_EXISTS, "there is a PCI bus already");
    }
    dev->lock = &dev->env->pci_lock;
    bus->ecam = dev_add_region(dev, "ecam", MEM_MMIO, &ecam_io, PCIEXBAR_SIZE);
    if (!dev_map_pio(dev, "pci-config", &ports_io, 0xcf8, 8, err)) {
        return false;
    }
    dev->env->pci = bus;
    return true;
}

static void bus_unrealize(struct dev *dev)
{
    struct pci_bus *bus = container_of(dev, struct pci_bus, dev);
    if (dev->env->pci == bus) {
        dev->env->pci = NULL;
    }
}

static const struct state_field bus_fields[] = {
    STATE(struct pci_bus, cf8),
    STATE(struct pci_bus, rst_cnt, .max = RST_SYS | RST_FULL),
    STATE_END
};

const struct dev_type pci_bus_type = {
    .name = "pci-bus", .size = sizeof(struct pci_bus), .version = 1, .fields = bus_fields,
    .realize = bus_realize, .unrealize = bus_unrealize,
};

struct pci_bus *pci_bus_create(struct dev_env *env, gpa_t ecam_base, struct err *err)
{
    struct pci_bus *bus = container_of(dev_create(env, &pci_bus_type, "pci.0"), struct pci_bus, dev);
    if (!dev_realize(&bus->dev, err)) {
        return NULL;
    }
    if (ecam_base && !dev_region_place(bus->ecam, ecam_base, err)) {
        pci_bus_destroy(bus);
        return NULL;
    }
    return bus;
}

void pci_bus_destroy(struct pci_bus *bus)
{
    if (bus) {
        dev_destroy(&bus->dev);
    }
}

void pci_bus_set_ecam(struct pci_bus *bus, gpa_t base, uint64_t size)
{
    struct dev_region *r = bus->ecam;
    if (size && r->io.mapped && r->io.base == base && r->io.size == size) {
        return;
    }
    dev_region_hide(r);
    if (size && base + size > base) {
        r->io.size = size;
        dev_region_place(r, base, NULL);
    }
}

/*
 * ICH9: PIRQ A-H are GSI 16-23. Slots 0-24 and 30 swizzle over E-H; 25-29 and 31, the chipset's own, have A-D for INTA-INTD
 * (the reset value of its route registers).
 */
unsigned pci_slot_gsi(unsigned slot, unsigned pin)
{
    unsigned p = (pin - 1) & 3;
    if (slot < 25) {
        return 20 + ((slot + p) & 3);
    }
    return slot == 30 ? 20 + p : 16 + p;
}

/* Assignment without firmware */

struct window {
    uint64_t at, end;
};

struct want {
    struct pci_dev *pd;
    unsigned n;
};

/* 32-bit BARs before those that may go high, then larger ones first, so that alignment leaves no gaps. */
static int placing_order(const void *a, const void *b)
{
    const struct want *x = a, *y = b;
    uint64_t sx = x->pd->bar[x->n].size, sy = y->pd->bar[y->n].size;
    if (x->pd->bar[x->n].is64 != y->pd->bar[y->n].is64) {
        return x->pd->bar[x->n].is64 ? 1 : -1;
    }
    if (sx != sy) {
        return sx < sy ? 1 : -1;
    }
    if (x->pd != y->pd) {
        return x->pd->slot * 8 + x->pd->fn < y->pd->slot * 8 + y->pd->fn ? -1 : 1;
    }
    return x->n < y->n ? -1 : 1;
}

static bool window_take(struct window *w, uint64_t size, uint64_t *addr)
{
    uint64_t at = (w->at + size - 1) & ~(size - 1);
    if (at < w->at || w->end < at || w->end - at < size) {
        return false;
    }
    *addr = at;
    w->at = at + size;
    return true;
}

static void bar_write(struct pci_bus *bus, const struct want *w, uint64_t addr)
{
    unsigned bdf = w->pd->slot << 3 | w->pd->fn, off = PCI_BAR0 + 4 * w->n;
    pci_cfg_write(bus, bdf, off, addr, 4);
    if (w->pd->bar[w->n].is64) {
        pci_cfg_write(bus, bdf, off + 4, addr >> 32, 4);
    }
}

/* Small 64-bit BARs stay low while there is room: a guest without PAE reaches them there. */
static bool place(struct pci_bus *bus, const struct want *w, struct window *io, struct window *low, struct window *high)
{
    const struct pci_bar *bar = &w->pd->bar[w->n];
    uint64_t addr;
    bool ok;
    if (bar->io) {
        ok = window_take(io, bar->size, &addr);
    } else if (bar->is64 && bar->size > 256 * MIB) {
        ok = window_take(high, bar->size, &addr) || window_take(low, bar->size, &addr);
    } else {
        ok = window_take(low, bar->size, &addr) || (bar->is64 && window_take(high, bar->size, &addr));
    }
    if (ok) {
        bar_write(bus, w, addr);
    }
    return ok;
}

static unsigned collect(struct pci_bus *bus, struct want *wants)
{
    unsigned n_wants = 0;
    for (unsigned bdf = 0; bdf < 0x100; bdf++) {
        struct pci_dev *pd = by_bdf(bus, bdf);
        for (unsigned n = 0; pd && n < PCI_N_BARS; n++) {
            if (pd->bar[n].size) {
                wants[n_wants++] = (struct want){ pd, n };
            }
        }
    }
    return n_wants;
}

static void enable(struct pci_bus *bus, struct pci_dev *pd)
{
    unsigned bdf = pd->slot << 3 | pd->fn, cmd = pci_cfg_read(bus, bdf, PCI_COMMAND, 2);
    for (unsigned n = 0; n < PCI_N_BARS; n++) {
        if (pd->bar[n].size) {
            cmd |= pd->bar[n].io ? PCI_COMMAND_IO : PCI_COMMAND_MEM;
        }
    }
    pci_cfg_write(bus, bdf, PCI_COMMAND, cmd, 2);
    if (pd->cfg[PCI_INT_PIN]) {
        pci_cfg_write(bus, bdf, PCI_INT_LINE, pci_slot_gsi(pd->slot, pd->cfg[PCI_INT_PIN]), 1);
    }
}

bool pci_assign_all(struct pci_bus *bus, gpa_t mmio32, gpa_t mmio32_end, gpa_t mmio64, gpa_t mmio64_end, uint16_t io,
                    uint32_t io_end, struct err *err)
{
    struct window w_io = { io, io_end }, low = { mmio32, mmio32_end }, high = { mmio64, mmio64_end };
    AUTO_FREE struct want *wants = new0_array(struct want, 0x100 * PCI_N_BARS);
    unsigned n_wants = collect(bus, wants);
    qsort(wants, n_wants, sizeof(*wants), placing_order);
    for (unsigned i = 0; i < n_wants; i++) {
        struct pci_dev *pd = wants[i].pd;
        pci_cfg_write(bus, pd->slot << 3 | pd->fn, PCI_COMMAND, 0, 2);
    }
    for (unsigned i = 0; i < n_wants; i++) {
        if (!place(bus, &wants[i], &w_io, &low, &high)) {
            return err_set(err, ERR_LIMIT, "no address space left for BAR %u (%llu bytes) of '%s'", wants[i].n,
                           (unsigned long long)wants[i].pd->bar[wants[i].n].size, wants[i].pd->dev.id);
        }
    }
    for (unsigned bdf = 0; bdf < 0x100; bdf++) {
        struct pci_dev *pd = by_bdf(bus, bdf);
        if (pd) {
            enable(bus, pd);
        }
    }
    return true;
}
