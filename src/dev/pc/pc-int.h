/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the chips of dev/pc share. */
#ifndef LODGE_DEV_PC_PC_INT_H
#define LODGE_DEV_PC_PC_INT_H

#include "irq/irq.h"

/* Takes a chip's sink out of the hub again. VM parked. */
static inline void pc_sink_del(struct irq_hub *hub, struct irq_sink *sink)
{
    pthread_mutex_lock(&hub->lock);
    for (struct irq_sink **s = &hub->sinks; *s; s = &(*s)->next) {
        if (*s == sink) {
            *s = sink->next;
            break;
        }
    }
    pthread_mutex_unlock(&hub->lock);
}

#endif
