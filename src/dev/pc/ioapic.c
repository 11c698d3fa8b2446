/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dev/pc/pc.h"

#include "dev/pc/pc-int.h"

/*
 * I/O APIC with 24 pins. Source: Intel 82093AA data sheet (290566-001); EOI register and version 0x20: ICH9 §13.5.
 * An entry is delivered as the message it spells (irq_msi). Level: delivered once, then remote IRR holds it back until
 * the EOI of its vector; if the pin is still high then, it is delivered again. Edge: delivered on the rise; a rise while
 * masked is lost, as on the chip.
 * Pins carry logical levels: high means asserted, whatever polarity an entry names. Linux programs active-low for PCI
 * pins it finds hard-wired and active-high for link devices, and QEMU and KVM accept both the same way.
 * Lines and EOIs come from any thread: the chip has a lock of its own, taken under every other device's.
 */
enum { N_PINS = 24 };
struct ioapic {
    struct dev dev;
    struct ioapic_props props;
    struct irq_sink sink;
    uint64_t redir[N_PINS];
    uint32_t in;                /* pin levels; kept over reset: others drive them */
    uint8_t select;
    uint8_t id;
};

enum { REG_SELECT = 0x00, REG_DATA = 0x10, REG_EOI = 0x40, IX_ID = 0, IX_VERSION = 1, IX_ARB = 2, IX_REDIR = 0x10 };
enum {
    MODE_FIXED = 0, MODE_LOWEST = 1, MODE_NMI = 4, MODE_INIT = 5, MODE_EXTINT = 7,
    R_LOGICAL = 1 << 11, R_PENDING = 1 << 12, R_REMOTE_IRR = 1 << 14, R_LEVEL = 1 << 15, R_MASK = 1 << 16,
    R_READ_ONLY = R_PENDING | R_REMOTE_IRR, R_LOW_BITS = 0x1ffff,
};

static unsigned mode(uint64_t e)
{
    return e >> 8 & 7;
}

/* Remote IRR exists for fixed and lowest-priority delivery only; NMI, INIT and ExtINT are edges whatever the entry says. */
static bool is_level(uint64_t e)
{
    return e & R_LEVEL && mode(e) <= MODE_LOWEST;
}

static bool send(struct ioapic *io, uint64_t e)
{
    uint64_t addr = 0xfee00000 | (e >> 56) << 12 | (e & R_LOGICAL ? 1 << 2 : 0) | (mode(e) == MODE_LOWEST ? 1 << 3 : 0);
    uint32_t data = (e & 0x7ff) | (is_level(e) ? 1 << 15 : 0) | 1 << 14;
    return irq_msi(io->dev.env->irq, addr, data);
}

static void deliver_level(struct ioapic *io, unsigned pin)
{
    uint64_t *e = &io->redir[pin];
    if (io->in >> pin & 1 && is_level(*e) && !(*e & (R_MASK | R_REMOTE_IRR)) && send(io, *e)) {
        *e |= R_REMOTE_IRR;
    }
}

static void ioapic_sink_set(struct irq_sink *sink, unsigned gsi, bool level)
{
    struct ioapic *io = container_of(sink, struct ioapic, sink);
    unsigned pin = gsi == 0 ? 2 : gsi;          /* the timer's override; nobody else drives GSI 2, the 8259 cascade */
    uint32_t before;
    if (gsi == 2 || pin >= N_PINS) {
        return;
    }
    pthread_mutex_lock(io->dev.lock);
    before = io->in;
    io->in = level ? io->in | 1u << pin : io->in & ~(1u << pin);
    if (is_level(io->redir[pin])) {
        deliver_level(io, pin);
    } else if (io->in & ~before && !(io->redir[pin] & R_MASK)) {
        send(io, io->redir[pin]);
    }
    pthread_mutex_unlock(io->dev.lock);
}

static void eoi_locked(struct ioapic *io, uint8_t vector)
{
    for (unsigned pin = 0; pin < N_PINS; pin++) {
        if (io->redir[pin] & R_REMOTE_IRR && (uint8_t)io->redir[pin] == vector) {
            io->redir[pin] &= ~(uint64_t)R_REMOTE_IRR;
            deliver_level(io, pin);
        }
    }
}

static void ioapic_eoi(void *ioapic, uint8_t vector)
{
    struct ioapic *io = ioapic;
    pthread_mutex_lock(io->dev.lock);
    eoi_locked(io, vector);
    pthread_mutex_unlock(io->dev.lock);
}

static uint32_t indexed_read(const struct ioapic *io)
{
    unsigned n = (io->select - IX_REDIR) / 2;
    switch (io->select) {
    case IX_ID:
    case IX_ARB:     return (uint32_t)io->id << 24;
    case IX_VERSION: return (N_PINS - 1) << 16 | 0x20;
    default:         break;
    }
    if (io->select < IX_REDIR || n >= N_PINS) {
        return 0;
    }
    return io->select & 1 ? io->redir[n] >> 32 : io->redir[n];
}

static void indexed_write(struct ioapic *io, uint32_t val)
{
    unsigned n = (io->select - IX_REDIR) / 2;
    uint64_t *e;
    if (io->select == IX_ID) {
        io->id = val >> 24 & 0x0f;
    }
    if (io->select < IX_REDIR || n >= N_PINS) {
        return;
    }
    e = &io->redir[n];
    if (io->select & 1) {
        *e = (*e & 0xffffffff) | (uint64_t)(val & 0xff000000) << 32;
        return;
    }
    *e = (*e & (~0xffffffffull | R_READ_ONLY)) | (val & R_LOW_BITS & ~R_READ_ONLY);
    if (!is_level(*e)) {
        *e &= ~(uint64_t)R_REMOTE_IRR;          /* Linux ends a level interrupt this way on chips without EOI register */
    }
    deliver_level(io, n);
}

static uint64_t ioapic_read(struct dev *dev, uint64_t off, unsigned width)
{
    struct ioapic *io = container_of(dev, struct ioapic, dev);
    switch (off) {
    case REG_SELECT: return io->select;
    case REG_DATA:   return indexed_read(io);
    default:         return 0;
    }
}

static void ioapic_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct ioapic *io = container_of(dev, struct ioapic, dev);
    switch (off) {
    case REG_SELECT: io->select = val; break;
    case REG_DATA:   indexed_write(io, val); break;
    case REG_EOI:    eoi_locked(io, val); break;
    default:         dev_bad_write(dev, off, val, width); break;
    }
}

static const struct io_ops ioapic_io = { .read = ioapic_read, .write = ioapic_write, .width = 4 };

static bool ioapic_realize(struct dev *dev, struct err *err)
{
    struct ioapic *io = container_of(dev, struct ioapic, dev);
    struct irq_hub *hub = dev->env->irq;
    if (hub->ioapic) {
        return err_set(err, ERR_EXISTS, "there is an I/O APIC already");
    }
    if (!dev_map_mmio(dev, "ioapic", &ioapic_io, io->props.base ? io->props.base : 0xfec00000, 0x1000, err)) {
        return false;
    }
    io->sink.set = ioapic_sink_set;
    hub->ioapic = io;
    hub->eoi = ioapic_eoi;
    irq_hub_add_sink(hub, &io->sink);
    return true;
}

static void ioapic_unrealize(struct dev *dev)
{
    struct ioapic *io = container_of(dev, struct ioapic, dev);
    struct irq_hub *hub = dev->env->irq;
    if (hub->ioapic == io) {
        hub->ioapic = NULL;
        hub->eoi = NULL;
        pc_sink_del(hub, &io->sink);
    }
}

static void ioapic_reset(struct dev *dev)
{
    struct ioapic *io = container_of(dev, struct ioapic, dev);
    io->id = io->props.apic_id & 0x0f;
}

/* A loaded entry may hold bits no guest can write. Level pins that wait are delivered by whoever changes next. */
static void ioapic_settle(struct dev *dev)
{
    struct ioapic *io = container_of(dev, struct ioapic, dev);
    for (unsigned pin = 0; pin < N_PINS; pin++) {
        io->redir[pin] &= 0xff00000000000000ull | R_LOW_BITS;
        io->redir[pin] &= ~(uint64_t)R_PENDING;
        if (!is_level(io->redir[pin])) {
            io->redir[pin] &= ~(uint64_t)R_REMOTE_IRR;
        }
    }
}

static const struct state_field ioapic_fields[] = {
    STATE_ARRAY(struct ioapic, redir, .reset = R_MASK),
    STATE(struct ioapic, in, .keep = true),
    STATE(struct ioapic, select),
    STATE(struct ioapic, id),
    STATE_END
};

const struct dev_type ioapic_type = {
    .name = "ioapic", .size = sizeof(struct ioapic), .version = 1, .fields = ioapic_fields, .realize = ioapic_realize,
    .unrealize = ioapic_unrealize, .reset = ioapic_reset, .settle = ioapic_settle,
};

struct dev *ioapic_create(struct dev_env *env, const char *id, const struct ioapic_props *props, struct err *err)
{
    struct ioapic *io = container_of(dev_create(env, &ioapic_type, id), struct ioapic, dev);
    io->props = *props;
    return dev_realize(&io->dev, err) ? &io->dev : NULL;
}
