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

/*
 * Embedded as first member in a PCI device. Its type's realize calls pci_dev_init first; its .reset calls pci_reset
 * before anything else, its .settle calls pci_settle, its .unrealize pci_dev_fini; its field table starts with
 * STATE_PCI_DEV(struct x, pci).
 */
struct pci_dev {
    struct dev dev;
    uint8_t slot, fn;           /* set before realize */
    uint8_t cfg[PCI_CFG_SIZE];
    uint8_t wmask[PCI_CFG_SIZE];        /* guest-writable bits */
    uint8_t cfg_init[PCI_CFG_SIZE];     /* cfg as realize left it: what reset restores and what a load may not change */
    bool sealed;                        /* cfg_init is taken: at the first pci_reset */
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
    /* optional hooks; PCI lock and device lock held */
    void (*cfg_written)(struct pci_dev *pd, unsigned off, unsigned len);
    uint32_t (*cfg_read_hook)(struct pci_dev *pd, unsigned off, unsigned len, uint32_t val);
    /* as cfg_written, after it, with only the PCI lock held: the place to move regions that are not BARs */
    void (*cfg_moved)(struct pci_dev *pd, unsigned off, unsigned len);
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
#define STATE_PCI_DEV(type, member) STATE_STRUCT(type, member, pci_dev_fields)
/* Leaves the bus and lets go of INTx. Harmless when pci_dev_init did not get there. */
void pci_dev_fini(struct pci_dev *pd);
void pci_settle(struct pci_dev *pd);
void pci_reset(struct pci_dev *pd);

/* Offsets in configuration space that several files use. */
enum {
    PCI_VENDOR = 0x00, PCI_DEVICE = 0x02, PCI_COMMAND = 0x04, PCI_STATUS = 0x06, PCI_REVISION = 0x08, PCI_CLASS = 0x09,
    PCI_HEADER_TYPE = 0x0e, PCI_BAR0 = 0x10, PCI_SUB_VENDOR = 0x2c, PCI_SUB_DEVICE = 0x2e, PCI_CAP_PTR = 0x34,
    PCI_INT_LINE = 0x3c, PCI_INT_PIN = 0x3d,
    PCI_COMMAND_IO = 1 << 0, PCI_COMMAND_MEM = 1 << 1, PCI_COMMAND_MASTER = 1 << 2, PCI_COMMAND_INTX_OFF = 1 << 10,
    PCI_STATUS_INTX = 1 << 3, PCI_STATUS_CAPS = 1 << 4,
    PCI_CAP_VENDOR = 0x09, PCI_CAP_MSIX = 0x11,
};

/* The bus (created by the host bridge). */
struct pci_bus *pci_bus_create(struct dev_env *env, gpa_t ecam_base, struct err *err);  /* ecam_base 0: hidden */
void pci_bus_destroy(struct pci_bus *bus);
/* Moves ECAM (256, 128 or 64 MiB), or hides it when size is 0. PCI lock held, or VM parked. */
void pci_bus_set_ecam(struct pci_bus *bus, gpa_t base, uint64_t size);
/* Configuration accesses of 1, 2 or 4 bytes. PCI lock held, or VM parked. Nobody there: all ones. */
uint32_t pci_cfg_read(struct pci_bus *bus, unsigned bdf, unsigned off, unsigned len);
void pci_cfg_write(struct pci_bus *bus, unsigned bdf, unsigned off, uint32_t val, unsigned len);
struct pci_dev *pci_bus_dev(struct pci_bus *bus, unsigned slot, unsigned fn);
/* Places BARs of all devices in these windows and enables decoding: boots without firmware. */
bool pci_assign_all(struct pci_bus *bus, gpa_t mmio32, gpa_t mmio32_end, gpa_t mmio64, gpa_t mmio64_end, uint16_t io, uint32_t io_end, struct err *err);
/* The type of the bus's own latches: CF8, CF9 */
extern const struct dev_type pci_bus_type;
/* GSI of INTA.. (pin 1..4) of a slot: Q35 routing (docs/dev-pci.md). */
unsigned pci_slot_gsi(unsigned slot, unsigned pin);

#endif
