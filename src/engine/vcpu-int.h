/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Private to engine/: what engine.c needs of vcpu.c. */
#ifndef LODGE_ENGINE_VCPU_INT_H
#define LODGE_ENGINE_VCPU_INT_H

#include "engine/engine.h"

/* Parks, ends and joins the threads that were started. */
void engine_stop_threads(struct engine *e);

#endif
