/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/bytes.h"
#include "dev/pci/pci-int.h"

/*
 * MSI-X. Source: PCI Local Bus 3.0 §6.8.2. Table at 0, pending bits at 0x800 of a BAR of their own.
 * A vector that fires while it or the function is masked, or while bus mastering is off, sets its pending bit and goes
 * out when that ends. Table, pending bits and the capability's enable bits are all under the device's lock.
 */

enum { MSIX_PBA = 0x800, MSIX_REGION = 0x1000, MSIX_ENABLE = 0x80, MSIX_MASK_ALL = 0x40 /* high byte of control */ };

static uint8_t control(const struct pci_dev *pd)
{
    return pd->msix_cap ? pd->cfg[pd->msix_cap + 3] : 0;
}

bool pci_msix_enabled(const struct pci_dev *pd)
{
    return control(pd) & MSIX_ENABLE;
}

static bool open_for(const struct pci_dev *pd, unsigned v)
{
    return (control(pd) & (MSIX_ENABLE | MSIX_MASK_ALL)) == MSIX_ENABLE && pd->cfg[PCI_COMMAND] & PCI_COMMAND_MASTER &&
           !(pd->msix[v].ctrl & 1);
}

void pci_msix_fire(struct pci_dev *pd, unsigned v)
{
    if (v >= pd->n_msix || !pci_msix_enabled(pd)) {
        return;
    }
    if (open_for(pd, v)) {
        irq_msi(pd->dev.env->irq, pd->msix[v].addr, pd->msix[v].data);
    } else {
        pd->msix_pba |= 1ull << v;
    }
}

void pci_msix_update(struct pci_dev *pd)
{
    if (!pd->msix_pba) {
        return;
    }
    if (pd->n_msix < 64) {
        pd->msix_pba &= (1ull << pd->n_msix) - 1;
    }
    for (unsigned v = 0; v < pd->n_msix; v++) {
        if (pd->msix_pba >> v & 1 && open_for(pd, v)) {
            pd->msix_pba &= ~(1ull << v);
            pci_msix_fire(pd, v);
        }
    }
}

static uint32_t table_word(const struct pci_dev *pd, uint64_t off)
{
    const struct msix_entry *e;
    if (off >= MSIX_PBA) {
        uint64_t pba = off < MSIX_PBA + 8 ? pd->msix_pba : 0;
        return off & 4 ? pba >> 32 : pba;
    }
    if (off / 16 >= pd->n_msix) {
        return 0;
    }
    e = &pd->msix[off / 16];
    switch (off & 12) {
    case 0:  return e->addr;
    case 4:  return e->addr >> 32;
    case 8:  return e->data;
    default: return e->ctrl;
    }
}

static void table_word_write(struct pci_dev *pd, uint64_t off, uint32_t val)
{
    struct msix_entry *e;
    if (off / 16 >= pd->n_msix) {
        return;                 /* the pending bits are read-only */
    }
    e = &pd->msix[off / 16];
    switch (off & 12) {
    case 0:  e->addr = (e->addr & ~0xffffffffull) | (val & ~3u); break;
    case 4:  e->addr = (e->addr & 0xffffffff) | (uint64_t)val << 32; break;
    case 8:  e->data = val; break;
    default: e->ctrl = val & 1; break;
    }
}

static uint64_t msix_read(struct dev *dev, uint64_t off, unsigned width)
{
    struct pci_dev *pd = container_of(dev, struct pci_dev, dev);
    uint64_t two = table_word(pd, off & ~3ull);
    if ((off & 3) + width > 4) {
        two |= (uint64_t)table_word(pd, ((off & ~3ull) + 4) & (MSIX_REGION - 1)) << 32;
    }
    return two >> 8 * (off & 3);        /* dispatch cuts it to width */
}

/* Software must write whole dwords or qwords; anything else has no effect here. */
static void msix_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct pci_dev *pd = container_of(dev, struct pci_dev, dev);
    if (width < 4 || off & 3) {
        dev_bad_write(dev, off, val, width);
        return;
    }
    table_word_write(pd, off, val);
    if (width == 8) {
        table_word_write(pd, off + 4, val >> 32);
    }
    pci_msix_update(pd);
}

static const struct io_ops msix_io = { .read = msix_read, .write = msix_write };

bool pci_msix_add(struct pci_dev *pd, unsigned n_vectors, unsigned bar, struct err *err)
{
    struct dev_region *r;
    uint8_t cap;
    if (!n_vectors || n_vectors > PCI_MAX_MSIX || pd->msix_cap) {
        return err_set(err, ERR_INVALID, "%u MSI-X vectors cannot be offered", n_vectors);
    }
    cap = pci_cap_add(pd, PCI_CAP_MSIX, 12);
    if (!cap) {
        return err_set(err, ERR_LIMIT, "no room for the MSI-X capability");
    }
    r = dev_add_region(&pd->dev, "msix", MEM_MMIO, &msix_io, MSIX_REGION);
    if (!pci_bar_add(pd, bar, r, false, false, err)) {
        return false;
    }
    store_le16(pd->cfg + cap + 2, n_vectors - 1);
    pd->wmask[cap + 3] = MSIX_ENABLE | MSIX_MASK_ALL;
    store_le32(pd->cfg + cap + 4, bar);
    store_le32(pd->cfg + cap + 8, bar | MSIX_PBA);
    pd->msix_cap = cap;
    pd->msix_bar = bar;
    pd->n_msix = n_vectors;
    return true;
}
