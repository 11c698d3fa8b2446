/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dev/pc/pc.h"

#include "dev/pc/pc-int.h"

/*
 * Two 8259A interrupt controllers in cascade, with the ICH9's edge/level registers at 4D0/4D1. Source: Intel 8259A data
 * sheet (231468-003); ICH9 §13.4.
 * Lines come from any thread, so the pair has a lock of its own: it is taken under every other device's. INTR goes to the
 * engine, which fetches the vector with an INTA cycle (pic_ack) from a vCPU thread.
 */
struct pic_chip {
    uint8_t irr, imr, isr;
    uint8_t elcr;
    uint8_t base;               /* ICW2 */
    uint8_t icw;                /* which ICW comes next: 0 none (initialized), 2..4 */
    uint8_t lowest;             /* IRQ of lowest priority: 7 unless rotated */
    bool want_icw4, read_isr, poll, special_mask, rotate_aeoi, aeoi, sfnm;
};

struct pic {
    struct dev dev;
    struct irq_sink sink;
    struct pic_chip chip[2];    /* master, slave */
    uint16_t gsi_in, pirq_in;   /* levels of the inputs by source; kept over reset: others drive them */
    bool intr;
};

enum { CASCADE = 2, N_INPUTS = 16 };
enum {
    ICW1 = 0x10, ICW1_NEED4 = 1, ICW4_AEOI = 2, ICW4_SFNM = 0x10,
    OCW3 = 0x08, OCW3_POLL = 4,
    ELCR_MASTER = 0xf8, ELCR_SLAVE = 0xde,      /* IRQ 0-2, 8, 13 are always edge */
};

static uint16_t inputs(const struct pic *p)
{
    return p->gsi_in | p->pirq_in;
}

static uint8_t chip_inputs(const struct pic *p, unsigned n)
{
    return inputs(p) >> 8 * n;
}

/* Priority of the most urgent bit in `mask`: 0 highest, 8 none. */
static unsigned priority(const struct pic_chip *c, uint8_t mask)
{
    unsigned prio = 0;
    while (prio < 8 && !(mask >> ((prio + c->lowest + 1) & 7) & 1)) {
        prio++;
    }
    return prio;
}

/* The IRQ the chip asks for, or -1. */
static int pending(const struct pic *p, unsigned n)
{
    const struct pic_chip *c = &p->chip[n];
    uint8_t mask = c->irr & ~c->imr, served = c->isr;
    unsigned prio = priority(c, mask);
    if (prio == 8) {
        return -1;
    }
    if (c->special_mask) {
        served &= ~c->imr;
    }
    if (c->sfnm && n == 0) {
        served &= ~(1 << CASCADE);      /* a more urgent one of the slave's may nest */
    }
    return prio < priority(c, served) ? (int)((prio + c->lowest + 1) & 7) : -1;
}

/* Carries the slave's request to the master's input 2 and the master's to INTR. Lock held. */
static void update(struct pic *p)
{
    struct irq_hub *hub = p->dev.env->irq;
    uint8_t cascade = 1 << CASCADE;
    bool level;
    p->chip[0].irr = pending(p, 1) >= 0 ? p->chip[0].irr | cascade : p->chip[0].irr & ~cascade;
    level = pending(p, 0) >= 0;
    if (level != p->intr) {
        p->intr = level;
        if (hub->eops && hub->eops->extint) {
            hub->eops->extint(hub->engine, level);
        }
    }
}

/* The inputs changed from `before`. Edge: latched on the rise, dropped on the fall; level: follows. */
static void inputs_changed(struct pic *p, uint16_t before)
{
    for (unsigned n = 0; n < 2; n++) {
        struct pic_chip *c = &p->chip[n];
        uint8_t old = before >> 8 * n, now = chip_inputs(p, n);
        c->irr = (c->irr | (now & ~old)) & ~(old & ~now);
        c->irr |= now & c->elcr;
    }
    update(p);
}

static void set_input(struct pic *p, uint16_t *source, unsigned irq, bool level)
{
    uint16_t before;
    pthread_mutex_lock(p->dev.lock);
    before = inputs(p);
    *source = level ? *source | 1u << irq : *source & ~(1u << irq);
    if (before != inputs(p)) {
        inputs_changed(p, before);
    }
    pthread_mutex_unlock(p->dev.lock);
}

static void pic_sink_set(struct irq_sink *sink, unsigned gsi, bool level)
{
    struct pic *p = container_of(sink, struct pic, sink);
    if (gsi < N_INPUTS && gsi != CASCADE) {
        set_input(p, &p->gsi_in, gsi, level);
    }
}

void pic_set_pirq(struct dev *dev, unsigned irq, bool level)
{
    struct pic *p = container_of(dev, struct pic, dev);
    if (irq < N_INPUTS && irq != CASCADE) {
        set_input(p, &p->pirq_in, irq, level);
    }
}

/* The CPU takes `irq`: into service, out of IRR unless its level is still there. */
static void take(struct pic *p, unsigned n, unsigned irq)
{
    struct pic_chip *c = &p->chip[n];
    if (c->aeoi) {
        c->lowest = c->rotate_aeoi ? irq : c->lowest;
    } else {
        c->isr |= 1 << irq;
    }
    if (!(c->elcr >> irq & 1)) {
        c->irr &= ~(1 << irq);
    }
}

/* INTA cycle. A request that went away meanwhile is answered as IRQ 7 of the chip concerned, without service. */
static int ack_locked(struct pic *p)
{
    int irq = pending(p, 0), slave;
    int vector;
    if (irq < 0) {
        return p->chip[0].base + 7;
    }
    if (irq != CASCADE) {
        take(p, 0, irq);
        return p->chip[0].base + irq;
    }
    slave = pending(p, 1);
    vector = p->chip[1].base + (slave < 0 ? 7 : slave);
    if (slave >= 0) {
        take(p, 1, slave);
    }
    take(p, 0, CASCADE);
    return vector;
}

static int pic_ack(void *pic)
{
    struct pic *p = pic;
    int vector;
    pthread_mutex_lock(p->dev.lock);
    vector = ack_locked(p);
    update(p);
    pthread_mutex_unlock(p->dev.lock);
    return vector;
}

static void init_chip(struct pic *p, unsigned n, uint8_t icw1)
{
    struct pic_chip *c = &p->chip[n];
    *c = (struct pic_chip){ .elcr = c->elcr, .base = c->base, .lowest = 7, .icw = 2, .want_icw4 = icw1 & ICW1_NEED4 };
    c->irr = chip_inputs(p, n) & c->elcr;       /* edges seen so far are forgotten */
}

static void end_of_interrupt(struct pic_chip *c, uint8_t ocw2)
{
    bool rotate = ocw2 & 0x80, specific = ocw2 & 0x40, eoi = ocw2 & 0x20;
    unsigned irq = ocw2 & 7;
    if (!eoi && !specific) {
        c->rotate_aeoi = rotate;
        return;
    }
    if (eoi && !specific) {
        uint8_t served = c->special_mask ? c->isr & ~c->imr : c->isr;
        unsigned prio = priority(c, served);
        if (prio == 8) {
            return;
        }
        irq = (prio + c->lowest + 1) & 7;
    }
    if (eoi) {
        c->isr &= ~(1 << irq);
    }
    if (rotate) {
        c->lowest = irq;
    }
}

static void command_write(struct pic *p, unsigned n, uint8_t val)
{
    struct pic_chip *c = &p->chip[n];
    if (val & ICW1) {
        init_chip(p, n, val);
    } else if (val & OCW3) {
        c->poll = val & OCW3_POLL;
        if (val & 2) {
            c->read_isr = val & 1;
        }
        if (val & 0x40) {
            c->special_mask = val & 0x20;
        }
    } else {
        end_of_interrupt(c, val);
    }
}

static void data_write(struct pic *p, unsigned n, uint8_t val)
{
    struct pic_chip *c = &p->chip[n];
    switch (c->icw) {
    case 0:
        c->imr = val;
        break;
    case 2:
        c->base = val & 0xf8;
        c->icw = 3;
        break;
    case 3:                     /* the wiring of the cascade is fixed */
        c->icw = c->want_icw4 ? 4 : 0;
        break;
    default:
        c->aeoi = val & ICW4_AEOI;
        c->sfnm = val & ICW4_SFNM;
        c->icw = 0;
        break;
    }
}

/* A read after OCW3 with the poll bit is an INTA cycle: bit 7 and the IRQ, or 0. */
static uint8_t poll_read(struct pic *p, unsigned n)
{
    int irq = pending(p, n);
    p->chip[n].poll = false;
    if (irq < 0) {
        return 0;
    }
    take(p, n, irq);
    return 0x80 | irq;
}

static uint64_t pic_read(struct dev *dev, uint64_t off, unsigned n)
{
    struct pic *p = container_of(dev, struct pic, dev);
    struct pic_chip *c = &p->chip[n];
    uint8_t val;
    if (c->poll) {
        val = poll_read(p, n);
        update(p);
        return val;
    }
    if (off) {
        return c->imr;
    }
    return c->read_isr ? c->isr : c->irr;
}

static void pic_write(struct dev *dev, uint64_t off, uint64_t val, unsigned n)
{
    struct pic *p = container_of(dev, struct pic, dev);
    if (off) {
        data_write(p, n, val);
    } else {
        command_write(p, n, val);
    }
    update(p);
}

static uint64_t master_read(struct dev *dev, uint64_t off, unsigned width)
{
    return pic_read(dev, off, 0);
}

static void master_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    pic_write(dev, off, val, 0);
}

static uint64_t slave_read(struct dev *dev, uint64_t off, unsigned width)
{
    return pic_read(dev, off, 1);
}

static void slave_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    pic_write(dev, off, val, 1);
}

static uint64_t elcr_read(struct dev *dev, uint64_t off, unsigned width)
{
    return container_of(dev, struct pic, dev)->chip[off & 1].elcr;
}

static void elcr_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct pic *p = container_of(dev, struct pic, dev);
    p->chip[off & 1].elcr = val & (off & 1 ? ELCR_SLAVE : ELCR_MASTER);
    inputs_changed(p, inputs(p));
}

static const struct io_ops master_io = { .read = master_read, .write = master_write, .width = 1 };
static const struct io_ops slave_io = { .read = slave_read, .write = slave_write, .width = 1 };
static const struct io_ops elcr_io = { .read = elcr_read, .write = elcr_write, .width = 1 };

static bool pic_realize(struct dev *dev, struct err *err)
{
    struct pic *p = container_of(dev, struct pic, dev);
    struct irq_hub *hub = dev->env->irq;
    if (hub->pic) {
        return err_set(err, ERR_EXISTS, "there are 8259s already");
    }
    if (!dev_map_pio(dev, "master", &master_io, 0x20, 2, err) || !dev_map_pio(dev, "slave", &slave_io, 0xa0, 2, err) ||
        !dev_map_pio(dev, "elcr", &elcr_io, 0x4d0, 2, err)) {
        return false;
    }
    p->sink.set = pic_sink_set;
    hub->pic = p;
    hub->pic_ack = pic_ack;
    irq_hub_add_sink(hub, &p->sink);
    return true;
}

static void pic_unrealize(struct dev *dev)
{
    struct pic *p = container_of(dev, struct pic, dev);
    struct irq_hub *hub = dev->env->irq;
    if (hub->pic == p) {
        hub->pic = NULL;
        hub->pic_ack = NULL;
        pc_sink_del(hub, &p->sink);
    }
}

static void pic_settle(struct dev *dev)
{
    struct pic *p = container_of(dev, struct pic, dev);
    p->intr = false;
    for (unsigned n = 0; n < 2; n++) {
        p->chip[n].irr |= chip_inputs(p, n) & p->chip[n].elcr;
    }
    if (dev->env->irq->eops && dev->env->irq->eops->extint) {
        dev->env->irq->eops->extint(dev->env->irq->engine, false);
    }
    update(p);
}

static const struct state_field chip_fields[] = {
    STATE(struct pic_chip, irr),
    STATE(struct pic_chip, imr),
    STATE(struct pic_chip, isr),
    STATE(struct pic_chip, elcr),
    STATE(struct pic_chip, base),
    STATE(struct pic_chip, icw, .max = 4),
    STATE(struct pic_chip, lowest, .reset = 7, .max = 7),
    STATE(struct pic_chip, want_icw4, .max = 1),
    STATE(struct pic_chip, read_isr, .max = 1),
    STATE(struct pic_chip, poll, .max = 1),
    STATE(struct pic_chip, special_mask, .max = 1),
    STATE(struct pic_chip, rotate_aeoi, .max = 1),
    STATE(struct pic_chip, aeoi, .max = 1),
    STATE(struct pic_chip, sfnm, .max = 1),
    STATE_END
};

static const struct state_field pic_fields[] = {
    STATE_STRUCTS(struct pic, chip, chip_fields),
    STATE(struct pic, gsi_in, .keep = true),
    STATE(struct pic, pirq_in, .keep = true),
    STATE_END
};

const struct dev_type pic_type = {
    .name = "pic", .size = sizeof(struct pic), .version = 1, .fields = pic_fields, .realize = pic_realize,
    .unrealize = pic_unrealize, .settle = pic_settle,
};

struct dev *pic_create(struct dev_env *env, const char *id, struct err *err)
{
    struct dev *dev = dev_create(env, &pic_type, id);
    return dev_realize(dev, err) ? dev : NULL;
}
