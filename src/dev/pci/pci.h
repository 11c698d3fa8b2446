/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PCI bus 0: configuration space by CF8/CFC and ECAM, BARs, capabilities, MSI-X, INTx.
 * Sources: PCI Local Bus 3.0 ch. 6, PCI Express Base 4.0 ch. 7.
 */
#ifndef LODGE_DEV_PCI_PCI_H
#define LODGE_DEV_PCI_PCI_H

#include "dev/dev.h"

enum { PCI_CFG_SIZE = 4096, PCI_N_BARS = 6, PCI_MAX_MSIX = 64 };

struct pci_dev;
struct pci_bar {
    uint64_t size;              /* power of two; 0: none */
    bool io, is64, prefetch;
    struct dev_region *region;
};

struct msix_entry {
    uint64_t addr;
    uint32_t data, ctrl;
};

/* Embedded as first member in a PCI device; its type's realize calls pci_dev_init first. */
struct pci_dev {
    struct dev dev;
    uint8_t slot, fn;           /* set before realize */
    uint8_t cfg[PCI_CFG_SIZE];
    uint8_t wmask[PCI_CFG_SIZE];        /* guest-writable bits */
    uint8_t w1c[PCI_CFG_SIZE];          /* write-1-to-clear bits */
    struct pci_bar bar[PCI_N_BARS];
    uint8_t next_cap;
    /* MSI-X */
    uint8_t msix_cap, msix_bar;
    uint16_t n_msix;
    struct msix_entry msix[PCI_MAX_MSIX];
    uint64_t msix_pba;
    bool intx_level;
    struct irq_line intx;
    /* optional hooks, domain lock held */
    void (*cfg_written)(struct pci_dev *pd, unsigned off, unsigned len);
    uint32_t (*cfg_read_hook)(struct pci_dev *pd, unsigned off, unsigned len, uint32_t val);
};

struct pci_ident {
    uint16_t vendor, device, sub_vendor, sub_device;
    uint32_t class_code;        /* 24 bits */
    uint8_t revision;
    uint8_t pin;                /* 0 none, 1 INTA */
};
bool pci_dev_init(struct pci_dev *pd, const struct pci_ident *id, struct err *err);
/* BAR `n` backed by a region made with dev_add_region. The bus maps it when the guest enables decoding. */
bool pci_bar_add(struct pci_dev *pd, unsigned n, struct dev_region *region, bool is64, bool prefetch, struct err *err);
/* Returns the capability's config offset; len includes the two header bytes. */
uint8_t pci_cap_add(struct pci_dev *pd, uint8_t cap_id, uint8_t len);
/* Table and PBA in BAR `bar` of its own (4 KiB). */
bool pci_msix_add(struct pci_dev *pd, unsigned n_vectors, unsigned bar, struct err *err);
/* Fires vector v, or remembers it in the PBA while masked. Any thread, device lock held. */
void pci_msix_fire(struct pci_dev *pd, unsigned v);
bool pci_msix_enabled(const struct pci_dev *pd);
void pci_intx_set(struct pci_dev *pd, bool level);
/* Field table of struct pci_dev for use by device types (config space, MSI-X). After load: pci_settle. */
extern const struct state_field pci_dev_fields[];
void pci_settle(struct pci_dev *pd);
void pci_reset(struct pci_dev *pd);

/* The bus (created by the host bridge). */
struct pci_bus *pci_bus_create(struct dev_env *env, gpa_t ecam_base, struct err *err);
void pci_bus_destroy(struct pci_bus *bus);
uint32_t pci_cfg_read(struct pci_bus *bus, unsigned bdf, unsigned off, unsigned len);
void pci_cfg_write(struct pci_bus *bus, unsigned bdf, unsigned off, uint32_t val, unsigned len);
struct pci_dev *pci_bus_dev(struct pci_bus *bus, unsigned slot, unsigned fn);
/* Places BARs of all devices in these windows and enables decoding: boots without firmware. */
bool pci_assign_all(struct pci_bus *bus, gpa_t mmio32, gpa_t mmio32_end, gpa_t mmio64, gpa_t mmio64_end, uint16_t io, uint32_t io_end, struct err *err);
/* GSI of INTA.. (pin 1..4) of a slot: Q35 routing (docs/dev-pci.md). */
unsigned pci_slot_gsi(unsigned slot, unsigned pin);

#endif
