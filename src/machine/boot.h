/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Direct kernel boot: puts a kernel, an initrd and what the protocol wants beside them into guest RAM and sets the boot
 * CPU's registers. Kernels are hostile files: every offset and size is checked against file and RAM before a byte moves.
 * Protocols: Linux/x86 2.x by the 64-bit or 32-bit entry (bzImage), PVH (ELF with Xen note 18), ELF64 vmlinux by the Linux
 * 64-bit state, multiboot 1. Sources: Linux Documentation/x86/boot.rst and zero-page.rst; Xen docs/misc/pvh.pandoc;
 * Multiboot specification 0.6.96.
 */
#ifndef LODGE_MACHINE_BOOT_H
#define LODGE_MACHINE_BOOT_H

#include "mem/mem.h"
#include "x86/x86_state.h"

enum { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3, E820_NVS = 4, BOOT_MAX_E820 = 16 };

struct e820_entry {
    uint64_t addr, size;
    uint32_t type;
};

struct boot_config {
    struct mem *mem;
    int kernel_fd, initrd_fd;           /* borrowed; initrd_fd may be -1 */
    const char *append;                 /* may be NULL */
    gpa_t rsdp;                         /* 0: none */
    uint64_t low_ram;                   /* bytes of RAM from 0, below the hole under 4 GiB */
    struct e820_entry e820[BOOT_MAX_E820];
    unsigned n_e820;
};

/* Fixed places below 1 MiB; RAM, outside the kernel's own image. */
enum {
    BOOT_GDT = 0x500,
    BOOT_START_INFO = 0x6000,           /* PVH start info or multiboot info, with their tables behind */
    BOOT_ZERO_PAGE = 0x7000,
    BOOT_SETUP_DATA = 0x8000,
    BOOT_PAGE_TABLES = 0x9000,          /* PML4, PDPT, four page directories: 4 GiB identity-mapped */
    BOOT_CMDLINE = 0x20000,
    BOOT_CMDLINE_MAX = 0x10000,
    BOOT_STACK = 0x8ff0,
    BOOT_LOW_END = 0x9fc00,
    BOOT_HIGH_START = 0x100000,
};

/* Name of the protocol used in *how. On failure RAM may hold parts of the files; the guest must not run. */
bool boot_load(const struct boot_config *cfg, struct x86_state *bsp, const char **how, struct err *err);

#endif
