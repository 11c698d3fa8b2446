/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "irq/irq.h"

#include <stdatomic.h>
#include <string.h>

void irq_hub_init(struct irq_hub *hub)
{
    memset(hub, 0, sizeof(*hub));
    pthread_mutex_init(&hub->lock, NULL);
}

void irq_hub_add_sink(struct irq_hub *hub, struct irq_sink *s)
{
    pthread_mutex_lock(&hub->lock);
    struct irq_sink **at = &hub->sinks;
    while (*at) {
        at = &(*at)->next;
    }
    s->next = NULL;
    *at = s;
    for (unsigned gsi = 0; gsi < N_GSIS; gsi++) {
        if (atomic_load_explicit(&hub->gsi_count[gsi], memory_order_relaxed)) {
            s->set(s, gsi, true);
        }
    }
    pthread_mutex_unlock(&hub->lock);
}

void irq_line_init(struct irq_line *l, struct irq_hub *hub, unsigned gsi)
{
    *l = (struct irq_line){ .hub = hub, .gsi = gsi };
}

/* One more or one fewer line holds `gsi` up; the sinks hear of the first and the last. */
static void gsi_change(struct irq_hub *hub, unsigned gsi, bool level)
{
    pthread_mutex_lock(&hub->lock);
    uint32_t before = atomic_load_explicit(&hub->gsi_count[gsi], memory_order_relaxed);
    uint32_t after = level ? before + 1 : before - 1;
    atomic_store_explicit(&hub->gsi_count[gsi], after, memory_order_relaxed);
    if (!before != !after) {
        for (struct irq_sink *s = hub->sinks; s; s = s->next) {
            s->set(s, gsi, level);
        }
    }
    pthread_mutex_unlock(&hub->lock);
}

void irq_set(struct irq_line *l, bool level)
{
    if (atomic_exchange(&l->level, level) == level) {
        return;
    }
    if (l->set) {
        l->set(l, level);
    } else if (l->hub && l->gsi < N_GSIS) {
        gsi_change(l->hub, l->gsi, level);
    }
}

void irq_pulse(struct irq_line *l)
{
    irq_set(l, true);
    irq_set(l, false);
}

bool irq_msi(struct irq_hub *hub, uint64_t addr, uint32_t data)
{
    /* The guest programs any address into a device; only the APIC's megabyte is an interrupt. SDM vol. 3A §10.11.1. */
    return addr >> 20 == 0xfee && hub->eops && hub->eops->msi && hub->eops->msi(hub->engine, addr, data);
}
