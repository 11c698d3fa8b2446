/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The boards pc-1 and micro-1. pc is a Q35-class PC; micro is the same without the chips that a paravirtual Linux does
 * not need. What is where: docs/machine.md.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/uuid.h"
#include "dev/pc/pc.h"
#include "dev/pci/pci.h"
#include "dev/virtio/virtio.h"
#include "machine/acpi.h"
#include "machine/machine-int.h"

void board_map_init(struct board_map *map, uint64_t ram, unsigned phys_bits)
{
    const uint64_t ecam = 0xb0000000, split = 0x80000000;
    memset(map, 0, sizeof(*map));
    map->low_ram = ram > ecam ? split : ram;
    map->high_ram = ram - map->low_ram;
    map->ecam = ecam;
    map->ecam_size = 256 * (uint64_t)MIB;
    map->pci32 = ecam + map->ecam_size;
    map->pci32_end = 0xfec00000;
    /* 64-bit window: 32 GiB above RAM, on a GiB, if the CPU can address it */
    gpa_t top = (BOARD_4G + map->high_ram + GIB - 1) & ~(gpa_t)(GIB - 1);
    if (top + (32ull << 30) <= 1ull << phys_bits) {
        map->pci64 = top;
        map->pci64_end = top + (32ull << 30);
    }
}

static bool rtc_base(const char *text, struct rtc_props *p, struct err *err)
{
    static const enum rtc_base base[] = { [VM_RTC_UTC] = RTC_UTC, [VM_RTC_LOCALTIME] = RTC_LOCALTIME, [VM_RTC_AT] = RTC_AT };
    enum vm_rtc kind;
    if (!vm_rtc_parse(text, &kind, &p->at, err)) {
        return false;
    }
    p->base = base[kind];
    return true;
}

static bool create_legacy(struct machine *m, struct err *err)
{
    struct dev_env *env = &m->env;
    struct uuid uuid;
    struct rtc_props rtc = { .ram_below_4g = m->map.low_ram, .ram_above_4g = m->map.high_ram, .n_cpus = m->topo.cpus };
    struct fw_cfg_props fw = { .ram_size = m->cfg->memory, .n_cpus = (uint16_t)m->topo.cpus, .max_cpus = (uint16_t)m->topo.cpus };
    if (uuid_parse(m->cfg->uuid, &uuid)) {
        memcpy(fw.uuid, uuid.b, sizeof(fw.uuid));
    }
    return rtc_base(m->cfg->rtc, &rtc, err) && pit_create(env, "pit", err) && rtc_create(env, "rtc", &rtc, err) && dma8237_create(env, "dma", err) &&
           i8042_create(env, "i8042", err) && port80_create(env, "port80", err) && debugcon_create(env, "debugcon", &(struct debugcon_props){ 0 }, err) &&
           fw_cfg_create(env, "fw-cfg", &fw, err) && pvpanic_create(env, "pvpanic", err);
}

static bool create_chipset(struct machine *m, struct err *err)
{
    struct dev_env *env = &m->env;
    struct q35_props q35 = { .ecam_base = m->map.ecam };
    struct acpi_pm_props pm = { .base = BOARD_PM_BASE };
    struct ioapic_props ioapic = { 0 };
    struct serial_props serial = { .chr = m->console };
    if (!q35_host_create(env, "q35-host", &q35, err) || (m->legacy && !pic_create(env, "pic", err)) || !ioapic_create(env, "ioapic", &ioapic, err)) {
        return false;
    }
    m->pm = acpi_pm_create(env, "acpi-pm", &pm, err);
    struct lpc_props lpc = { .pm = m->pm };
    return m->pm && lpc_create(env, "lpc", &lpc, err) && serial_create(env, "serial0", &serial, err) && (!m->legacy || create_legacy(m, err)) &&
           debug_exit_create(env, "debug-exit", &(struct debug_exit_props){ 0 }, err) && (!m->cfg->testdev || pc_testdev_create(env, "testdev", err));
}

/* Port 0 is a console that nobody is at; the channels are the ports behind it. */
static bool create_channels(struct machine *m, struct err *err)
{
    struct virtio_console_config cfg = { .n_ports = m->cfg->n_channels + 1 };
    for (unsigned i = 0; i < m->cfg->n_channels; i++) {
        cfg.port[i + 1] = (struct virtio_console_port_config){ .chr = m->channels[i], .name = m->cfg->channels[i].name };
    }
    return !m->cfg->n_channels || virtio_console_create(&m->env, "console0", SLOT_CONSOLE, &cfg, err);
}

static bool create_disks(struct machine *m, struct err *err)
{
    for (unsigned i = 0; i < m->cfg->n_disks; i++) {
        const struct vm_disk_config *d = &m->cfg->disks[i];
        char id[16];
        snprintf(id, sizeof(id), "disk%u", i);
        struct virtio_blk_config cfg = { .node = m->disks[i], .serial = d->serial, .n_queues = m->topo.cpus };
        if (!virtio_blk_create(&m->env, id, (uint8_t)(SLOT_DISKS + i), &cfg, err)) {
            return err_prefix(err, "disk '%s': ", d->file);
        }
    }
    return true;
}

static bool create_nets(struct machine *m, struct err *err)
{
    for (unsigned i = 0; i < m->cfg->n_nets; i++) {
        const struct vm_net_config *n = &m->cfg->nets[i];
        char id[16];
        if (n->type == VM_NET_NONE) {
            continue;
        }
        snprintf(id, sizeof(id), "net%u", i);
        struct virtio_net_config cfg = { .port = m->nets[i] };
        for (unsigned b = 0; b < 6; b++) {
            cfg.mac[b] = (uint8_t)strtoul((char[]){ n->mac[3 * b], n->mac[3 * b + 1], 0 }, NULL, 16);
        }
        if (!virtio_net_create(&m->env, id, (uint8_t)(SLOT_NETS + i), &cfg, err)) {
            return err_prefix(err, "network %u: ", i);
        }
    }
    return true;
}

bool board_create(struct machine *m, struct err *err)
{
    return create_chipset(m, err) && (!m->cfg->rng || virtio_rng_create(&m->env, "rng0", SLOT_RNG, &(struct virtio_rng_config){ 0 }, err)) &&
           (!m->cfg->balloon || virtio_balloon_create(&m->env, "balloon0", SLOT_BALLOON, err)) &&
           create_channels(m, err) && create_disks(m, err) && create_nets(m, err);
}

static void fill_e820(const struct machine *m, struct boot_config *b)
{
    const struct board_map *map = &m->map;
    struct e820_entry *e = b->e820;
    unsigned n = 0;
    e[n++] = (struct e820_entry){ 0, BOOT_LOW_END, E820_RAM };
    e[n++] = (struct e820_entry){ BOOT_LOW_END, BOOT_HIGH_START - BOOT_LOW_END, E820_RESERVED };
    if (map->low_ram > BOOT_HIGH_START) {
        e[n++] = (struct e820_entry){ BOOT_HIGH_START, map->low_ram - BOOT_HIGH_START, E820_RAM };
    }
    e[n++] = (struct e820_entry){ map->ecam, map->ecam_size, E820_RESERVED };
    if (map->high_ram) {
        e[n++] = (struct e820_entry){ BOARD_4G, map->high_ram, E820_RAM };
    }
    b->n_e820 = n;
}

static bool write_tables(struct machine *m, gpa_t *rsdp, struct err *err)
{
    struct acpi_config acpi = {
        .n_cpus = m->topo.cpus, .legacy = m->legacy, .ecam = m->map.ecam, .ecam_size = m->map.ecam_size, .pci32 = m->map.pci32,
        .pci32_end = m->map.pci32_end, .pci64 = m->map.pci64, .pci64_end = m->map.pci64_end, .pm_base = BOARD_PM_BASE, .slot_gsi = pci_slot_gsi,
    };
    struct uuid uuid = { { 0 } };
    uuid_parse(m->cfg->uuid, &uuid);
    struct smbios_config smbios = { .uuid = uuid.b, .name = m->cfg->name, .n_cpus = m->topo.cpus, .cores = m->topo.cores, .threads = m->topo.threads,
                                    .sockets = m->topo.sockets, .ram_size = m->cfg->memory };
    for (unsigned i = 0; i < m->topo.cpus; i++) {
        acpi.apic_id[i] = cpu_topology_apic_id(&m->topo, i);
    }
    return acpi_write(m->mem, &acpi, BOARD_ACPI, BOARD_ACPI_ROOM, rsdp, err) && smbios_write(m->mem, &smbios, BOARD_SMBIOS, BOARD_SMBIOS_ROOM, err);
}

/* As firmware leaves it: memory is write-back unless a register says otherwise. Without this Linux does without PAT. */
static bool enable_mtrrs(struct machine *m, struct err *err)
{
    enum { MTRR_ENABLE = 1 << 11, MTRR_FIXED_ENABLE = 1 << 10, WRITE_BACK = 6 };
    AUTO_FREE struct x86_state *st = new0(struct x86_state);
    for (unsigned i = 0; i < m->topo.cpus; i++) {
        m->engine->ops->get(&m->engine->vcpus[i], st);
        st->mtrr_def = MTRR_ENABLE | MTRR_FIXED_ENABLE | WRITE_BACK;
        for (unsigned r = 0; r < N_MTRR_FIXED; r++) {
            st->mtrr_fixed[r] = r != 2 ? 0x0606060606060606 : 0;        /* A0000-BFFFF stays uncached */
        }
        if (!m->engine->ops->set(&m->engine->vcpus[i], st, err)) {
            return false;
        }
    }
    return true;
}

bool board_boot(struct machine *m, struct err *err)
{
    struct boot_config b = { .mem = m->mem, .kernel_fd = m->kernel_fd, .initrd_fd = m->initrd_fd, .append = m->cfg->append, .low_ram = m->map.low_ram };
    const char *how;
    AUTO_FREE struct x86_state *bsp = new0(struct x86_state);
    if (m->map.low_ram <= BOOT_HIGH_START) {
        return err_set(err, ERR_INVALID, "direct kernel boot needs more than 1 MiB: give the guest more --memory");
    }
    fill_e820(m, &b);
    if (!pci_assign_all(m->env.pci, m->map.pci32, m->map.pci32_end, m->map.pci64, m->map.pci64_end, 0xc000, 0x10000, err) || !write_tables(m, &b.rsdp, err)) {
        return false;
    }
    struct vcpu *boot = &m->engine->vcpus[0];
    m->engine->ops->get(boot, bsp);
    if (!boot_load(&b, bsp, &how, err)) {
        return false;
    }
    log_info("machine", "kernel loaded by the %s protocol", how);
    return m->engine->ops->set(boot, bsp, err) && enable_mtrrs(m, err);
}
