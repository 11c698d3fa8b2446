/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dev/dev.h"
#include "dev/pc/pc.h"
#include "dev/pci/pci.h"
#include "dev/virtio/virtio.h"

/* Every device type there is, in alphabetical order in each group. A saved state names them; tests walk them. */
const struct dev_type *const dev_types[] = {
    &acpi_pm_type,
    &debug_exit_type,
    &debugcon_type,
    &dma8237_type,
    &fw_cfg_type,
    &i8042_type,
    &ioapic_type,
    &lpc_type,
    &pc_testdev_type,
    &pci_bus_type,
    &pic_type,
    &pit_type,
    &port80_type,
    &pvpanic_type,
    &q35_host_type,
    &rtc_type,
    &serial_type,
    &virtio_balloon_type,
    &virtio_blk_type,
    &virtio_console_type,
    &virtio_net_type,
    &virtio_rng_type,
    NULL,
};
