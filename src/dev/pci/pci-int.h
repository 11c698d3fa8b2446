/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of dev/pci share. */
#ifndef LODGE_DEV_PCI_PCI_INT_H
#define LODGE_DEV_PCI_PCI_INT_H

#include "dev/pci/pci.h"

bool pci_bus_add(struct pci_bus *bus, struct pci_dev *pd, struct err *err);
void pci_bus_del(struct pci_bus *bus, struct pci_dev *pd);

uint32_t pci_dev_cfg_read(struct pci_dev *pd, unsigned off, unsigned len);
void pci_dev_cfg_write(struct pci_dev *pd, unsigned off, uint32_t val, unsigned len);

/* Sends what is pending and no longer masked. Device lock held. */
void pci_msix_update(struct pci_dev *pd);

#endif
