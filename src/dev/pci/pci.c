/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dev/pci/pci.h"

#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "dev/pci/pci-int.h"

/*
 * One PCI function: its configuration space, BARs, capabilities and INTx pin.
 * Locks: configuration accesses come with the PCI lock and take the device's lock while they touch cfg; regions are
 * moved afterwards with the PCI lock alone, because unmapping waits for a handler that may be waiting for the device.
 * A device never takes the PCI lock.
 */

enum {
    COMMAND_WMASK = PCI_COMMAND_IO | PCI_COMMAND_MEM | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_OFF | 1 << 6 | 1 << 8,
    STATUS_W1C = 0xf900,        /* master data parity, aborts, system error, parity error */
    BAR_IO = 1 << 0, BAR_64 = 1 << 2, BAR_PREFETCH = 1 << 3,
    BAR_PRIORITY = -1,          /* below the chips at fixed addresses: a BAR put over the IOAPIC does not hide it */
};

static const struct state_field msix_fields[] = {
    STATE(struct msix_entry, addr),
    STATE(struct msix_entry, data),
    STATE(struct msix_entry, ctrl, .reset = 1, .max = 1),
    STATE_END
};

const struct state_field pci_dev_fields[] = {
    STATE_BYTES(struct pci_dev, cfg, .keep = true),     /* pci_reset restores it */
    STATE_STRUCTS(struct pci_dev, msix, msix_fields),
    STATE(struct pci_dev, msix_pba),
    STATE(struct pci_dev, intx_level),
    STATE_END
};

bool pci_dev_init(struct pci_dev *pd, const struct pci_ident *id, struct err *err)
{
    struct dev_env *env = pd->dev.env;
    if (!env->pci) {
        return err_set(err, ERR_STATE, "there is no PCI bus");
    }
    if (pd->slot >= 32 || pd->fn >= 8) {
        return err_set(err, ERR_INVALID, "there is no PCI slot %u.%u", pd->slot, pd->fn);
    }
    store_le16(pd->cfg + PCI_VENDOR, id->vendor);
    store_le16(pd->cfg + PCI_DEVICE, id->device);
    pd->cfg[PCI_REVISION] = id->revision;
    pd->cfg[PCI_CLASS] = id->class_code;
    store_le16(pd->cfg + PCI_CLASS + 1, id->class_code >> 8);
    store_le16(pd->cfg + PCI_SUB_VENDOR, id->sub_vendor);
    store_le16(pd->cfg + PCI_SUB_DEVICE, id->sub_device);
    pd->cfg[PCI_INT_PIN] = id->pin;
    store_le16(pd->wmask + PCI_COMMAND, COMMAND_WMASK);
    store_le16(pd->w1c + PCI_STATUS, STATUS_W1C);
    pd->wmask[0x0c] = 0xff;             /* cache line size: a latch for software */
    pd->wmask[PCI_INT_LINE] = 0xff;
    pd->next_cap = 0x40;
    irq_line_init(&pd->intx, env->irq, id->pin ? pci_slot_gsi(pd->slot, id->pin) : 0);
    return pci_bus_add(env->pci, pd, err);
}

void pci_dev_fini(struct pci_dev *pd)
{
    struct pci_bus *bus = pd->dev.env->pci;
    if (pd->intx.hub) {
        irq_set(&pd->intx, false);
    }
    if (bus) {
        pci_bus_del(bus, pd);
    }
}

static unsigned bar_off(unsigned n)
{
    return PCI_BAR0 + 4 * n;
}

bool pci_bar_add(struct pci_dev *pd, unsigned n, struct dev_region *region, bool is64, bool prefetch, struct err *err)
{
    uint64_t size = region->io.size;
    bool io = region->io.space == MEM_PIO;
    if (n >= PCI_N_BARS || (is64 && (io || n + 1 >= PCI_N_BARS)) || pd->bar[n].size || (n && pd->bar[n - 1].is64)) {
        return err_set(err, ERR_INVALID, "BAR %u cannot be added", n);
    }
    if (size & (size - 1) || size < (io ? 4 : 16) || (io && size > 256) || (!is64 && size > 1u << 31)) {
        return err_set(err, ERR_INVALID, "BAR %u cannot have %llu bytes", n, (unsigned long long)size);
    }
    pd->bar[n] = (struct pci_bar){ .size = size, .io = io, .is64 = is64, .prefetch = prefetch, .region = region };
    region->io.priority = BAR_PRIORITY;
    store_le32(pd->cfg + bar_off(n), (io ? BAR_IO : 0) | (is64 ? BAR_64 : 0) | (prefetch ? BAR_PREFETCH : 0));
    store_le32(pd->wmask + bar_off(n), (uint32_t)~(size - 1));
    if (is64) {
        store_le32(pd->wmask + bar_off(n) + 4, ~(size - 1) >> 32);
    }
    return true;
}

uint8_t pci_cap_add(struct pci_dev *pd, uint8_t cap_id, uint8_t len)
{
    unsigned off = pd->next_cap, end = (off + len + 3) & ~3u;
    if (!off || len < 2 || end > 0x100) {
        return 0;
    }
    pd->cfg[off] = cap_id;
    pd->cfg[off + 1] = pd->cfg[PCI_CAP_PTR];
    pd->cfg[PCI_CAP_PTR] = off;
    pd->cfg[PCI_STATUS] |= PCI_STATUS_CAPS;
    pd->next_cap = end;         /* wraps to 0 when the 256 bytes are used up */
    return off;
}

static uint16_t command(const struct pci_dev *pd)
{
    return load_le16(pd->cfg + PCI_COMMAND);
}

/* Where BAR n is decoded now, or ~0 when it is not: decoding off, never assigned, half-way through sizing, wrapping. */
static uint64_t bar_addr(const struct pci_dev *pd, unsigned n)
{
    const struct pci_bar *bar = &pd->bar[n];
    uint64_t addr = load_le32(pd->cfg + bar_off(n)), last;
    if (!(command(pd) & (bar->io ? PCI_COMMAND_IO : PCI_COMMAND_MEM))) {
        return ~0ull;
    }
    if (bar->is64) {
        addr |= (uint64_t)load_le32(pd->cfg + bar_off(n) + 4) << 32;
    }
    addr &= ~(bar->size - 1);
    last = addr + bar->size - 1;
    if (!addr || last < addr || last == ~0ull || (!bar->is64 && last >= (bar->io ? 0xffff : 0xffffffff))) {
        return ~0ull;
    }
    return addr;
}

/* Makes the regions follow BARs and command register. PCI lock held, or VM parked; device lock not held. */
static void update_bars(struct pci_dev *pd)
{
    for (unsigned n = 0; n < PCI_N_BARS; n++) {
        struct dev_region *r = pd->bar[n].region;
        struct err err = ERR_INIT;
        if (!r) {
            continue;
        }
        uint64_t addr = bar_addr(pd, n);
        if (addr == ~0ull) {
            dev_region_hide(r);
        } else if (!dev_region_place(r, addr, &err)) {
            dev_region_hide(r);
            LOG_LIMITED(LOG_WARN, "pci", "%s: BAR %u: %s", pd->dev.id, n, err.msg);
        }
    }
}

/* INTx follows level, command register and MSI-X. Device lock held. */
static void update_intx(struct pci_dev *pd)
{
    if (!pd->cfg[PCI_INT_PIN]) {
        return;
    }
    pd->cfg[PCI_STATUS] = (pd->cfg[PCI_STATUS] & ~PCI_STATUS_INTX) | (pd->intx_level ? PCI_STATUS_INTX : 0);
    irq_set(&pd->intx, pd->intx_level && !(command(pd) & PCI_COMMAND_INTX_OFF) && !pci_msix_enabled(pd));
}

void pci_intx_set(struct pci_dev *pd, bool level)
{
    if (pd->intx_level != level) {
        pd->intx_level = level;
        update_intx(pd);
    }
}

static bool overlaps(unsigned off, unsigned len, unsigned at, unsigned n)
{
    return off < at + n && at < off + len;
}

uint32_t pci_dev_cfg_read(struct pci_dev *pd, unsigned off, unsigned len)
{
    uint32_t val = 0;
    if (!range_ok(off, len, PCI_CFG_SIZE) || len > 4) {
        return ~0u;
    }
    pthread_mutex_lock(pd->dev.lock);
    for (unsigned i = 0; i < len; i++) {
        val |= (uint32_t)pd->cfg[off + i] << 8 * i;
    }
    if (pd->cfg_read_hook) {
        val = pd->cfg_read_hook(pd, off, len, val);
    }
    pthread_mutex_unlock(pd->dev.lock);
    return val;
}

void pci_dev_cfg_write(struct pci_dev *pd, unsigned off, uint32_t val, unsigned len)
{
    if (!range_ok(off, len, PCI_CFG_SIZE) || len > 4) {
        return;
    }
    pthread_mutex_lock(pd->dev.lock);
    for (unsigned i = 0; i < len; i++) {
        uint8_t *c = pd->cfg + off + i, m = pd->wmask[off + i], v = val >> 8 * i;
        *c = ((*c & ~m) | (v & m)) & ~(v & pd->w1c[off + i]);
    }
    if (overlaps(off, len, PCI_COMMAND, 2) || (pd->msix_cap && overlaps(off, len, pd->msix_cap + 2, 2))) {
        update_intx(pd);
        pci_msix_update(pd);
    }
    if (pd->cfg_written) {
        pd->cfg_written(pd, off, len);
    }
    pthread_mutex_unlock(pd->dev.lock);
    if (overlaps(off, len, PCI_COMMAND, 2) || overlaps(off, len, PCI_BAR0, 4 * PCI_N_BARS)) {
        update_bars(pd);
    }
    if (pd->cfg_moved) {
        pd->cfg_moved(pd, off, len);
    }
}

void pci_reset(struct pci_dev *pd)
{
    if (!pd->sealed) {
        memcpy(pd->cfg_init, pd->cfg, PCI_CFG_SIZE);
        pd->sealed = true;
    }
    memcpy(pd->cfg, pd->cfg_init, PCI_CFG_SIZE);
}

/* A loaded cfg is only believed in the bits a guest could have written. */
void pci_settle(struct pci_dev *pd)
{
    for (unsigned i = 0; i < PCI_CFG_SIZE; i++) {
        uint8_t guest = pd->wmask[i] | pd->w1c[i];
        pd->cfg[i] = (pd->cfg[i] & guest) | (pd->cfg_init[i] & ~guest);
    }
    update_intx(pd);
    update_bars(pd);
    pci_msix_update(pd);
}
