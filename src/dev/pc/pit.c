/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dev/pc/pc.h"

/*
 * 8254 programmable interval timer and port 61. Source: Intel 82C54 data sheet (231244-006); ICH9 §13.7.1 (NMI_SC).
 * A counter is never stored: it is the VM clock since its load, in ticks of 1.193182 MHz. Only channel 0's output has a
 * timer, since it drives IRQ 0; channel 2's output is looked at through port 61. Gates of channels 0 and 1 are tied high.
 * Periodic ticks that the host was late for are made up for at twice the rate, up to one second's worth; what is older is
 * dropped. The IRQ never comes more often than every 50 us.
 */
enum { CLOCK_HZ = 1193182, MIN_TICK_NS = 50 * NS_PER_US, MAX_BACKLOG_NS = NS_PER_SEC, REFRESH_NS = 15085 };

struct pit_channel {
    uint64_t start_ns;          /* when the count was loaded, or the gate restarted it */
    uint64_t held_ns;           /* modes 0 and 4 with the gate low: how long it had counted when the gate fell */
    uint32_t count;             /* 1..65536 (10000 in BCD), valid when loaded */
    uint16_t latched;
    uint8_t control;            /* low 6 bits of the control word: access, mode, BCD */
    uint8_t status;             /* latched by read-back */
    uint8_t low;                /* first byte of a two-byte write */
    uint8_t n_latched;          /* bytes of `latched` still to be read */
    bool loaded;                /* counting; else waiting for a count or, in modes 1 and 5, a trigger */
    bool null_count;            /* status bit 6: control written, count not yet */
    bool write_high, read_high; /* next byte of a two-byte access */
    bool has_status;
    bool gate;                  /* follows port 61 */
};

struct pit {
    struct dev dev;
    struct irq_line irq;
    struct timer tick;
    bool out;                   /* level of IRQ 0 */
    uint64_t due_ns;            /* when channel 0's output rises next, by its programming */
    struct pit_channel ch[3];
    uint8_t port61;             /* bits 0-3 */
};

enum {
    ACCESS_LATCH = 0, ACCESS_LOW = 1, ACCESS_HIGH = 2, ACCESS_BOTH = 3,
    READ_BACK = 0xc0, READ_BACK_NO_COUNT = 0x20, READ_BACK_NO_STATUS = 0x10,
    P61_GATE2 = 1, P61_REFRESH = 0x10, P61_OUT2 = 0x20,
};

static uint64_t now(const struct pit *p)
{
    return vm_clock_ns(p->dev.env->clock);
}

static unsigned mode(const struct pit_channel *c)
{
    unsigned m = c->control >> 1 & 7;
    return m > 5 ? m - 4 : m;
}

static unsigned access(const struct pit_channel *c)
{
    return c->control >> 4 & 3;
}

static bool bcd(const struct pit_channel *c)
{
    return c->control & 1;
}

static bool periodic(const struct pit_channel *c)
{
    return mode(c) == 2 || mode(c) == 3;
}

static uint64_t ticks_to_ns(uint64_t ticks)
{
    return muldiv64(ticks, NS_PER_SEC, CLOCK_HZ) + 1;
}

/* In these modes a low gate stops the count; in the others it only restarts it on its rise. */
static bool gate_holds(const struct pit_channel *c)
{
    return mode(c) == 0 || mode(c) == 4;
}

static uint64_t elapsed(const struct pit_channel *c, uint64_t t)
{
    uint64_t ns = gate_holds(c) && !c->gate ? c->held_ns : t - min_u64(t, c->start_ns);
    return muldiv64(ns, CLOCK_HZ, NS_PER_SEC);
}

static uint16_t to_bcd(uint32_t v)
{
    return v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12;
}

static uint32_t from_bcd(uint16_t v)
{
    return (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 + (v >> 12) * 1000;
}

static uint16_t counter(const struct pit_channel *c, uint64_t t)
{
    uint64_t d = elapsed(c, t);
    uint32_t v;
    uint32_t wrap = bcd(c) ? 10000 : 65536;
    if (!c->loaded || (periodic(c) && !c->gate)) {
        v = c->count;
    } else if (mode(c) == 2) {
        v = c->count - d % c->count;
    } else if (mode(c) == 3) {
        v = c->count - 2 * d % c->count;
        v &= ~1u;
    } else {
        v = (c->count + wrap - d % wrap) % wrap;        /* runs on through zero */
    }
    v %= wrap;
    return bcd(c) ? to_bcd(v) : v;
}

static bool output(const struct pit_channel *c, uint64_t t)
{
    uint64_t d = elapsed(c, t);
    if (!c->loaded) {
        return mode(c) != 0;
    }
    switch (mode(c)) {
    case 0:
    case 1:  return d >= c->count;
    case 2:  return !c->gate || d % c->count != c->count - 1;
    case 3:  return !c->gate || d % c->count < (c->count + 1) / 2;
    default: return d != c->count;
    }
}

static void set_out(struct pit *p, bool level)
{
    p->out = level;
    irq_set(&p->irq, level);
}

/* Arms the timer for due_ns; sooner after the last tick than the period when some are owed. */
static void arm(struct pit *p)
{
    uint64_t t = now(p), half = ticks_to_ns(p->ch[0].count) / 2, soonest = t + max_u64(half, MIN_TICK_NS);
    if (t > MAX_BACKLOG_NS && p->due_ns < t - MAX_BACKLOG_NS) {
        p->due_ns = t - MAX_BACKLOG_NS;
    }
    timer_arm(&p->tick, max_u64(p->due_ns, soonest));
}

/* Channel 0 was programmed: its output falls, and rises when it has counted down. */
static void restart_irq(struct pit *p)
{
    struct pit_channel *c = &p->ch[0];
    timer_disarm(&p->tick);
    if (c->loaded || mode(c) == 0) {
        set_out(p, false);
    }
    if (c->loaded) {
        p->due_ns = c->start_ns + ticks_to_ns(c->count);
        arm(p);
    }
}

/* Output of channel 0 rises. In modes 2 and 3 it was low a moment before; in the others it stays up until the next count. */
static void on_tick(struct timer *timer)
{
    struct pit *p = container_of(timer, struct pit, tick);
    struct pit_channel *c = &p->ch[0];
    if (!c->loaded) {
        return;
    }
    set_out(p, false);
    set_out(p, true);
    if (periodic(c)) {
        p->due_ns += ticks_to_ns(c->count);
        arm(p);
    }
}

static void load(struct pit *p, unsigned n, uint16_t v)
{
    struct pit_channel *c = &p->ch[n];
    c->count = bcd(c) ? from_bcd(v) : v;
    if (!c->count) {
        c->count = bcd(c) ? 10000 : 65536;
    }
    c->null_count = false;
    c->start_ns = now(p);
    c->held_ns = 0;
    c->loaded = mode(c) != 1 && mode(c) != 5;   /* those two wait for a rising gate */
    if (n == 0) {
        restart_irq(p);
    }
}

static void latch_count(struct pit *p, struct pit_channel *c)
{
    if (!c->n_latched) {
        c->latched = counter(c, now(p));
        c->n_latched = access(c) == ACCESS_BOTH ? 2 : 1;
        if (access(c) == ACCESS_HIGH) {
            c->latched >>= 8;
        }
    }
}

static void read_back(struct pit *p, uint8_t val)
{
    for (unsigned n = 0; n < 3; n++) {
        struct pit_channel *c = &p->ch[n];
        if (!(val >> (n + 1) & 1)) {
            continue;
        }
        if (!(val & READ_BACK_NO_COUNT)) {
            latch_count(p, c);
        }
        if (!(val & READ_BACK_NO_STATUS) && !c->has_status) {
            c->status = output(c, now(p)) << 7 | c->null_count << 6 | c->control;
            c->has_status = true;
        }
    }
}

static void control_write(struct pit *p, uint8_t val)
{
    struct pit_channel *c = &p->ch[val >> 6 & 3];
    if ((val & READ_BACK) == READ_BACK) {
        read_back(p, val);
        return;
    }
    if ((val >> 4 & 3) == ACCESS_LATCH) {
        latch_count(p, c);
        return;
    }
    c->control = val & 0x3f;
    c->loaded = false;
    c->null_count = true;
    c->write_high = c->read_high = false;
    c->n_latched = 0;
    c->has_status = false;
    if (c == &p->ch[0]) {
        restart_irq(p);
    }
}

static void count_write(struct pit *p, unsigned n, uint8_t val)
{
    struct pit_channel *c = &p->ch[n];
    switch (access(c)) {
    case ACCESS_LOW:
        load(p, n, val);
        break;
    case ACCESS_HIGH:
        load(p, n, val << 8);
        break;
    case ACCESS_BOTH:
        if (!c->write_high) {
            c->low = val;
        } else {
            load(p, n, c->low | val << 8);
        }
        c->write_high = !c->write_high;
        break;
    default:
        break;
    }
}

static uint8_t count_read(struct pit *p, struct pit_channel *c)
{
    uint16_t v;
    if (c->has_status) {
        c->has_status = false;
        return c->status;
    }
    if (c->n_latched) {
        v = c->latched;
        c->latched >>= 8;
        c->n_latched--;
        return v;
    }
    v = counter(c, now(p));
    if (access(c) == ACCESS_HIGH) {
        return v >> 8;
    }
    if (access(c) == ACCESS_BOTH) {
        c->read_high = !c->read_high;
        return c->read_high ? v : v >> 8;
    }
    return v;
}

static uint64_t pit_read(struct dev *dev, uint64_t off, unsigned width)
{
    struct pit *p = container_of(dev, struct pit, dev);
    return off < 3 ? count_read(p, &p->ch[off]) : 0xff;         /* the control word cannot be read */
}

static void pit_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct pit *p = container_of(dev, struct pit, dev);
    if (off < 3) {
        count_write(p, off, val);
    } else {
        control_write(p, val);
    }
}

static uint64_t port61_read(struct dev *dev, uint64_t off, unsigned width)
{
    struct pit *p = container_of(dev, struct pit, dev);
    uint64_t t = now(p);
    return p->port61 | (t / REFRESH_NS & 1 ? P61_REFRESH : 0) | (output(&p->ch[2], t) ? P61_OUT2 : 0);
}

/* A rise of channel 2's gate triggers modes 1 and 5, restarts 2 and 3 and lets 0 and 4 go on; a fall stops those two. */
static void set_gate2(struct pit *p, bool gate)
{
    struct pit_channel *c = &p->ch[2];
    uint64_t t = now(p);
    if (c->gate == gate) {
        return;
    }
    c->gate = gate;
    if (gate_holds(c)) {
        if (gate) {
            c->start_ns = t - min_u64(t, c->held_ns);
        } else {
            c->held_ns = t - min_u64(t, c->start_ns);
        }
    } else if (gate && !c->null_count) {
        c->start_ns = t;
        c->loaded = c->count != 0;
    }
}

static void port61_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct pit *p = container_of(dev, struct pit, dev);
    p->port61 = val & 0x0f;
    set_gate2(p, val & P61_GATE2);
}

static const struct io_ops pit_io = { .read = pit_read, .write = pit_write, .width = 1 };
static const struct io_ops port61_io = { .read = port61_read, .write = port61_write, .width = 1 };

static bool pit_realize(struct dev *dev, struct err *err)
{
    struct pit *p = container_of(dev, struct pit, dev);
    dev->lock = &dev->env->legacy_lock;
    irq_line_init(&p->irq, dev->env->irq, 0);
    timer_init(&p->tick, dev->loop, dev->env->clock, on_tick);
    p->tick.lock = dev->lock;
    return dev_map_pio(dev, "pit", &pit_io, 0x40, 4, err) && dev_map_pio(dev, "port61", &port61_io, 0x61, 1, err);
}

static void pit_unrealize(struct dev *dev)
{
    struct pit *p = container_of(dev, struct pit, dev);
    if (p->tick.loop) {
        timer_disarm(&p->tick);
        irq_set(&p->irq, false);
    }
}

static bool pit_validate(struct dev *dev, struct err *err)
{
    struct pit *p = container_of(dev, struct pit, dev);
    for (unsigned n = 0; n < 3; n++) {
        if (p->ch[n].loaded && !p->ch[n].count) {
            return err_set(err, ERR_INVALID, "channel %u counts from nothing", n);
        }
    }
    return true;
}

static void pit_settle(struct dev *dev)
{
    struct pit *p = container_of(dev, struct pit, dev);
    p->ch[0].gate = p->ch[1].gate = true;
    p->ch[2].gate = p->port61 & P61_GATE2;
    timer_disarm(&p->tick);
    irq_set(&p->irq, p->out);
    if (p->ch[0].loaded && (periodic(&p->ch[0]) || !p->out)) {
        arm(p);
    }
}

static const struct state_field channel_fields[] = {
    STATE(struct pit_channel, start_ns),
    STATE(struct pit_channel, held_ns),
    STATE(struct pit_channel, count, .max = 65536),
    STATE(struct pit_channel, latched),
    STATE(struct pit_channel, control, .max = 0x3f),
    STATE(struct pit_channel, status),
    STATE(struct pit_channel, low),
    STATE(struct pit_channel, n_latched, .max = 2),
    STATE(struct pit_channel, loaded, .max = 1),
    STATE(struct pit_channel, null_count, .reset = 1, .max = 1),
    STATE(struct pit_channel, write_high, .max = 1),
    STATE(struct pit_channel, read_high, .max = 1),
    STATE(struct pit_channel, has_status, .max = 1),
    STATE_END
};

static const struct state_field pit_fields[] = {
    STATE_STRUCTS(struct pit, ch, channel_fields),
    STATE(struct pit, due_ns),
    STATE(struct pit, out, .max = 1),
    STATE(struct pit, port61, .max = 0x0f),
    STATE_END
};

const struct dev_type pit_type = {
    .name = "pit", .size = sizeof(struct pit), .version = 1, .fields = pit_fields, .realize = pit_realize,
    .unrealize = pit_unrealize, .validate = pit_validate, .settle = pit_settle,
};

struct dev *pit_create(struct dev_env *env, const char *id, struct err *err)
{
    struct dev *dev = dev_create(env, &pit_type, id);
    return dev_realize(dev, err) ? dev : NULL;
}
