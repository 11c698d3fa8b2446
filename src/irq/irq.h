/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupt wiring. Devices raise lines and send MSIs; they know neither the chips nor the engine. One hub a VM.
 * Chips (8259, IOAPIC) attach as GSI sinks, the engine attaches as the deliverer of messages to local APICs.
 * Any thread; implementations take their own lock. Lock order: device domain -> chip lock -> engine.
 */
#ifndef LODGE_IRQ_IRQ_H
#define LODGE_IRQ_IRQ_H

#include "base/err.h"

enum { N_GSIS = 24 };

struct irq_hub;

/* A wire. Level changes are passed on; setting the level it has does nothing. */
struct irq_line {
    struct irq_hub *hub;
    unsigned gsi;               /* 0..23, or a private handler: */
    void (*set)(struct irq_line *l, bool level);        /* NULL: goes to the hub's GSI */
    _Atomic bool level;
};
void irq_set(struct irq_line *l, bool level);
void irq_pulse(struct irq_line *l);
/* A line ORed from several sources onto one GSI (level-triggered PCI pins share). */

/* What takes GSI levels: the 8259 pair and the IOAPIC. */
struct irq_sink {
    void (*set)(struct irq_sink *s, unsigned gsi, bool level);
    struct irq_sink *next;
};

/* What the engine gives the hub. */
struct irq_engine_ops {
    /* Delivers a message (MSI format, address FEExxxxx) to the local APICs it names. False when none took it. */
    bool (*msi)(void *engine, uint64_t addr, uint32_t data);
    /* INTR pin of the 8259 changed: ExtINT on LINT0 of the boot CPU. */
    void (*extint)(void *engine, bool level);
    /* NMI button. */
    void (*nmi)(void *engine);
};

struct irq_hub {
    const struct irq_engine_ops *eops;
    void *engine;
    struct irq_sink *sinks;
    /* chips' side, called by the engine */
    int (*pic_ack)(void *pic);                  /* INTA cycle: vector */
    void *pic;
    void (*eoi)(void *ioapic, uint8_t vector);  /* LAPIC EOI broadcast of a level-triggered vector */
    void *ioapic;
    _Atomic uint32_t gsi_count[N_GSIS];         /* how many lines hold it up */
};

void irq_hub_init(struct irq_hub *hub);
void irq_hub_add_sink(struct irq_hub *hub, struct irq_sink *s);
void irq_line_init(struct irq_line *l, struct irq_hub *hub, unsigned gsi);
bool irq_msi(struct irq_hub *hub, uint64_t addr, uint32_t data);

#endif
