/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ACPI and SMBIOS tables of a board, written into guest RAM. ACPI 6.5 ch. 5 (tables), 4 (fixed hardware);
 * PCI Firmware 3.3 (MCFG); SMBIOS 3.0.
 */
#ifndef LODGE_MACHINE_ACPI_H
#define LODGE_MACHINE_ACPI_H

#include "base/buf.h"
#include "mem/mem.h"

struct acpi_config {
    unsigned n_cpus;
    uint32_t apic_id[64];
    bool legacy;                /* 8259, PIT, i8042, RTC, fw_cfg, pvpanic are there (machine pc) */
    gpa_t ecam, ecam_size;
    gpa_t pci32, pci32_end;     /* windows, end exclusive */
    gpa_t pci64, pci64_end;
    uint16_t pm_base;
    unsigned (*slot_gsi)(unsigned slot, unsigned pin);
};

/* Tables from `at`, which has `room` bytes of RAM; RSDP first: *rsdp == at. */
bool acpi_write(struct mem *mem, const struct acpi_config *cfg, gpa_t at, uint64_t room, gpa_t *rsdp, struct err *err);

struct smbios_config {
    const uint8_t *uuid;        /* 16 bytes, network order */
    const char *name;           /* of the guest: product serial */
    unsigned n_cpus, cores, threads, sockets;
    uint64_t ram_size;
};
/* 3.0 entry point at `at` (16-byte aligned, in F0000-FFFFF), structures behind it. */
bool smbios_write(struct mem *mem, const struct smbios_config *cfg, gpa_t at, uint64_t room, struct err *err);

#endif
