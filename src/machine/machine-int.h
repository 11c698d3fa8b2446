/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MACHINE_MACHINE_INT_H
#define LODGE_MACHINE_MACHINE_INT_H

#include "block/block.h"
#include "chr/chr.h"
#include "machine/boot.h"
#include "machine/machine.h"
#include "net/net.h"

/* The board's memory map, from the RAM size alone. Source: docs/machine.md. */
struct board_map {
    uint64_t low_ram, high_ram;         /* bytes from 0 and from 4 GiB */
    gpa_t ecam, ecam_size;
    gpa_t pci32, pci32_end, pci64, pci64_end;
};
enum {
    BOARD_PM_BASE = 0x600,
    BOARD_ACPI = 0xe0000, BOARD_ACPI_ROOM = 0x10000,
    BOARD_SMBIOS = 0xf0000, BOARD_SMBIOS_ROOM = 0x10000,
    /* PCI slots, the same in every guest of this machine version: 00 host bridge, 1F LPC */
    SLOT_RNG = 1, SLOT_BALLOON = 2, SLOT_CONSOLE = 3, SLOT_DISKS = 4, SLOT_NETS = 20, SLOT_LPC = 31,
};
#define BOARD_4G (1ull << 32)

struct machine {
    const struct vm_config *cfg;
    struct loop *main_loop, *io_loop;
    struct dev_env env;
    struct irq_hub irq;
    struct vm_clock clock;
    struct mem *mem;
    struct cpu_model model;
    struct cpu_topology topo;
    struct engine *engine;
    struct board_map map;
    bool legacy;                        /* machine pc: the chips a PC always had */
    struct dev *pm;                     /* acpi-pm */
    struct chr *console;
    struct chr *channels[VM_MAX_CHANNELS];
    struct blk_node *disks[VM_MAX_DISKS];
    struct net_port *nets[VM_MAX_NETS];
    int kernel_fd, initrd_fd;
    enum machine_status status;
    struct machine_end end;
    struct list listeners;
    /* from any thread to the main loop */
    pthread_mutex_t req_lock;
    struct loop_call req_call;
    unsigned req_bits;                  /* bit an enum guest_request, and those below */
    uint32_t req_code;
    char req_msg[256];
};
enum { REQ_TRIPLE_FAULT = 16, REQ_ENGINE_ERROR = 17 };

void board_map_init(struct board_map *map, uint64_t ram, unsigned phys_bits);
/* Buses, chips, virtio devices, in the order their sections have in a saved state. */
bool board_create(struct machine *m, struct err *err);
/* PCI resources, tables, kernel; the boot CPU's registers. After every reset. */
bool board_boot(struct machine *m, struct err *err);

#endif
