/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What this host offers a hypervisor, as facts with advice. */
#ifndef LODGE_HOST_CAPS_H
#define LODGE_HOST_CAPS_H

#include "base/json.h"

/*
 * A JSON array of {"check", "result": "pass"|"warn"|"fail", "value", "detail", "advice"?}; `advice` says what to do about anything
 * that is not a pass. probe: run lodge-vmm --probe for /dev/kvm. The caller owns it.
 */
struct json_object *host_checks(bool probe);
/*
 * Answer of lodge-vmm --probe: {"kvm": {"present", "permitted", "usable", "reason"?, ...}}. NULL with err. Bounded by 5 s.
 */
struct json_object *host_probe(struct err *err);

#endif
