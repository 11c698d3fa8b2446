/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupt wiring. Devices raise lines and send MSIs; they know neither the chips nor the engine. One hub a VM.
 * Chips (8259, IOAPIC) attach as GSI sinks, the engine attaches as the deliverer of messages to local APICs.
 * Any thread; implementations take their own lock. Lock order: device domain -> hub -> chip lock -> engine. One line is
 * set by one thread at a time (its device's domain); lines that share a GSI may be set by different ones.
 */
#ifndef LODGE_IRQ_IRQ_H
#define LODGE_IRQ_IRQ_H

#include <pthread.h>

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
    _Atomic uint32_t gsi_count[N_GSIS];         /* how many lines hold it up; changed under lock, read without */
    pthread_mutex_t lock;                       /* keeps the sinks' view of a shared GSI in the order of its changes */
};

void irq_hub_init(struct irq_hub *hub);
/* Sinks are told in the order they came; a new one is told of the GSIs that are up. */
void irq_hub_add_sink(struct irq_hub *hub, struct irq_sink *s);
/* Low, without a private handler: set l->set afterwards for one. */
void irq_line_init(struct irq_line *l, struct irq_hub *hub, unsigned gsi);
/* False, and nothing happens, unless addr is FEExxxxx and a local APIC took the message. */
bool irq_msi(struct irq_hub *hub, uint64_t addr, uint32_t data);

#endif
