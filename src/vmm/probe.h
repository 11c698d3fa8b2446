/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lodge-vmm --probe: what /dev/kvm can really do, found out by running code in it: real mode, protected mode, long mode with
 * paging, an I/O exit and an interrupt, each under a deadline. Prints one JSON object to stdout:
 * {"kvm": {"present", "permitted", "usable", "reason", "api", "real-mode", "protected-mode", "long-mode", "interrupt"}}.
 */
#ifndef LODGE_VMM_PROBE_H
#define LODGE_VMM_PROBE_H

/* Exit status for main: 0 whenever the question was answered. */
int probe_main(void);

#endif
