/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "base/bytes.h"
#include "dev/pc/pc.h"
#include "dev/pci/pci.h"

/*
 * Q35 memory controller hub, 8086:29C0 at 00.0. Source: Intel 3 Series Express Chipset Family data sheet (316966) §5.1.
 * PCIEXBAR moves ECAM. PAM and SMRAM are latches: RAM below 1 MiB is always readable and writable, and there is no SMM.
 */
struct q35_host {
    struct pci_dev pci;
    struct q35_props props;
    struct pci_bus *bus;        /* when it made it itself */
};

enum { PCIEXBAR = 0x60, PAM0 = 0x90, SMRAM = 0x9d, ESMRAMC = 0x9e, PCIEXBAR_ON = 1 };

static void host_place_ecam(struct pci_dev *pd)
{
    uint64_t v = load_le64(pd->cfg + PCIEXBAR), size = 256ull * MIB >> (v >> 1 & 3);
    bool on = v & PCIEXBAR_ON && (v >> 1 & 3) != 3;
    pci_bus_set_ecam(pd->dev.env->pci, v & 0xfffffffffull & ~(size - 1), on ? size : 0);
}

static void host_cfg_moved(struct pci_dev *pd, unsigned off, unsigned len)
{
    if (off < PCIEXBAR + 8 && off + len > PCIEXBAR) {
        host_place_ecam(pd);
    }
}

static void host_cfg_written(struct pci_dev *pd, unsigned off, unsigned len)
{
    if (pd->cfg[SMRAM] & 0x10) {                /* D_LCK: the rest of SMRAM can no longer be opened */
        pd->cfg[SMRAM] &= ~0x40;
        pd->wmask[SMRAM] = 0x20;
        pd->wmask[ESMRAMC] = 0;
    }
}

static bool host_realize(struct dev *dev, struct err *err)
{
    static const struct pci_ident ident = { .vendor = 0x8086, .device = 0x29c0, .class_code = 0x060000, .revision = 2 };
    struct q35_host *h = container_of(dev, struct q35_host, pci.dev);
    struct pci_dev *pd = &h->pci;
    uint64_t base = h->props.ecam_base ? h->props.ecam_base : 0xb0000000;
    if (base & (256 * MIB - 1)) {
        return err_set(err, ERR_INVALID, "ECAM base 0x%llx is not a multiple of 256 MiB", (unsigned long long)base);
    }
    if (!dev->env->pci) {
        h->bus = pci_bus_create(dev->env, 0, err);
        if (!h->bus) {
            return false;
        }
    }
    if (!pci_dev_init(pd, &ident, err)) {
        return false;
    }
    store_le64(pd->cfg + PCIEXBAR, h->props.ecam_off ? 0 : base | PCIEXBAR_ON);
    store_le64(pd->wmask + PCIEXBAR, 0xff0000007ull | 0xf0000000 | 0x0c000000);
    memset(pd->wmask + PAM0, 0x33, 7);
    pd->cfg[SMRAM] = 0x02;
    pd->wmask[SMRAM] = 0x78;
    pd->wmask[ESMRAMC] = 0x87;
    pd->cfg_written = host_cfg_written;
    pd->cfg_moved = host_cfg_moved;
    return true;
}

static void host_unrealize(struct dev *dev)
{
    pci_dev_fini(container_of(dev, struct pci_dev, dev));
}

static void host_reset(struct dev *dev)
{
    struct pci_dev *pd = container_of(dev, struct pci_dev, dev);
    pci_reset(pd);
    pd->wmask[SMRAM] = 0x78;
    pd->wmask[ESMRAMC] = 0x87;
}

static void host_settle(struct dev *dev)
{
    struct pci_dev *pd = container_of(dev, struct pci_dev, dev);
    pci_settle(pd);
    host_cfg_written(pd, 0, PCI_CFG_SIZE);
    host_place_ecam(pd);
}

static const struct state_field host_fields[] = { STATE_PCI_DEV(struct q35_host, pci), STATE_END };

const struct dev_type q35_host_type = {
    .name = "q35-host", .size = sizeof(struct q35_host), .version = 1, .fields = host_fields, .realize = host_realize,
    .unrealize = host_unrealize, .reset = host_reset, .settle = host_settle,
};

struct dev *q35_host_create(struct dev_env *env, const char *id, const struct q35_props *props, struct err *err)
{
    struct q35_host *h = container_of(dev_create(env, &q35_host_type, id), struct q35_host, pci.dev);
    h->props = *props;
    return dev_realize(&h->pci.dev, err) ? &h->pci.dev : NULL;
}
