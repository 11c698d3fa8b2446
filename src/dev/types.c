/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dev/dev.h"
#include "dev/pci/pci.h"

/* Every device type there is, in alphabetical order in each group. A saved state names them; tests walk them. */
const struct dev_type *const dev_types[] = {
    &pci_bus_type,
    NULL,
};
