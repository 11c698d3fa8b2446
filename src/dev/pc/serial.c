/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "chr/chr.h"
#include "dev/pc/pc.h"

/*
 * 16550A UART. Source: TI TL16C550C data sheet, and what Linux's 8250 driver probes.
 * The line is infinitely fast towards us: a byte written to THR has left before the write returns, so the transmit FIFO
 * needs no storage; only when the port's queue is full does the byte stay in THR until there is room. The receive side
 * keeps its 16-byte FIFO, its trigger level and the time-out of four characters below it. The interrupt is not gated
 * by OUT2, as on QEMU.
 */
enum { FIFO_SIZE = 16 };
struct serial {
    struct dev dev;
    struct serial_props props;
    struct irq_line irq;
    struct chr_user user;
    struct timer idle;          /* four character times after the last byte moved, while 0 < n_rx < trigger */
    uint8_t ier, fcr, lcr, mcr, scr;
    uint8_t dll, dlm;
    uint8_t lsr;                /* OE and BI only; the rest is computed */
    uint8_t msr_delta;          /* low half of MSR */
    bool thre;                  /* transmitter-empty interrupt wants to be seen in IIR */
    bool timeout;
    bool thr_full;              /* the port had no room for thr */
    uint8_t thr;
    uint8_t rx[FIFO_SIZE];      /* oldest first */
    uint8_t n_rx;
};

enum { RBR = 0, IER = 1, IIR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };
enum {
    IER_RDI = 1, IER_THRI = 2, IER_RLSI = 4, IER_MSI = 8,
    IIR_NONE = 1, IIR_MODEM = 0, IIR_THRE = 2, IIR_DATA = 4, IIR_LINE = 6, IIR_TIMEOUT = 0xc, IIR_FIFO = 0xc0,
    FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4,
    LCR_DLAB = 0x80, LCR_BREAK = 0x40,
    MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 0x10,
    LSR_DR = 1, LSR_OE = 2, LSR_BI = 0x10, LSR_THRE = 0x20, LSR_TEMT = 0x40, LSR_FIFO_ERR = 0x80,
    MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80, MSR_DCTS = 1, MSR_DDSR = 2, MSR_TERI = 4, MSR_DDCD = 8,
    UART_CLOCK = 115200,        /* divisor 1 */
};

static bool fifo_on(const struct serial *s)
{
    return s->fcr & FCR_ENABLE;
}

static unsigned rx_size(const struct serial *s)
{
    return fifo_on(s) ? FIFO_SIZE : 1;
}

static unsigned trigger(const struct serial *s)
{
    static const uint8_t levels[4] = { 1, 4, 8, 14 };
    return fifo_on(s) ? levels[s->fcr >> 6] : 1;
}

static uint8_t lsr(const struct serial *s)
{
    return s->lsr | (s->thr_full ? 0 : LSR_THRE | LSR_TEMT) | (s->n_rx ? LSR_DR : 0);
}

/* Modem inputs: in loopback they are our own outputs, otherwise somebody is there. */
static uint8_t modem_in(uint8_t mcr)
{
    if (!(mcr & MCR_LOOP)) {
        return MSR_CTS | MSR_DSR | MSR_DCD;
    }
    return (mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_DTR ? MSR_DSR : 0) | (mcr & MCR_OUT1 ? MSR_RI : 0) |
           (mcr & MCR_OUT2 ? MSR_DCD : 0);
}

/* The cause IIR shows: highest priority first. */
static uint8_t cause(const struct serial *s)
{
    if (s->ier & IER_RLSI && s->lsr & (LSR_OE | LSR_BI)) {
        return IIR_LINE;
    }
    if (s->ier & IER_RDI && s->n_rx >= trigger(s)) {
        return IIR_DATA;
    }
    if (s->ier & IER_RDI && s->timeout) {
        return IIR_TIMEOUT;
    }
    if (s->ier & IER_THRI && s->thre) {
        return IIR_THRE;
    }
    return s->ier & IER_MSI && s->msr_delta ? IIR_MODEM : IIR_NONE;
}

static void update(struct serial *s)
{
    irq_set(&s->irq, cause(s) != IIR_NONE);
}

static uint64_t char_time_ns(const struct serial *s)
{
    uint32_t divisor = s->dll | s->dlm << 8;
    return (uint64_t)NS_PER_SEC * 10 * (divisor ? divisor : 1) / UART_CLOCK;
}

/* Starts the time-out again after a byte came or went. */
static void rx_moved(struct serial *s)
{
    s->timeout = false;
    if (s->n_rx && s->n_rx < trigger(s)) {
        timer_arm(&s->idle, vm_clock_ns(s->dev.env->clock) + 4 * char_time_ns(s));
    } else {
        timer_disarm(&s->idle);
    }
}

static void on_idle(struct timer *t)
{
    struct serial *s = container_of(t, struct serial, idle);
    s->timeout = s->n_rx != 0;
    update(s);
}

static void rx_push(struct serial *s, uint8_t byte)
{
    if (s->n_rx < rx_size(s)) {
        s->rx[s->n_rx++] = byte;
    } else {
        s->lsr |= LSR_OE;
        if (!fifo_on(s)) {
            s->rx[0] = byte;
        }
    }
    rx_moved(s);
}

static uint8_t rx_pop(struct serial *s)
{
    uint8_t byte = s->rx[0];
    if (s->n_rx) {
        memmove(s->rx, s->rx + 1, --s->n_rx);
        rx_moved(s);
        if (s->props.chr) {
            chr_accept(s->props.chr);
        }
    }
    return byte;
}

static void rx_clear(struct serial *s)
{
    s->n_rx = 0;
    s->rx[0] = 0;
    rx_moved(s);
    if (s->props.chr) {
        chr_accept(s->props.chr);
    }
}

/* Hands THR to the port. */
static void tx_drain(struct serial *s)
{
    s->thr_full = s->props.chr && chr_write(s->props.chr, &s->thr, 1) == 0;
    if (!s->thr_full) {
        s->thre = true;
    }
}

static void tx(struct serial *s, uint8_t byte)
{
    s->thre = false;
    update(s);                  /* the line falls even though THR is empty again at once: edge for the IOAPIC */
    if (s->mcr & MCR_LOOP) {
        rx_push(s, byte);
        s->thre = true;
    } else {
        s->thr = byte;          /* overwrites what could not leave, as writing without a look at THRE does */
        tx_drain(s);
    }
}

static uint8_t iir_read(struct serial *s)
{
    uint8_t c = cause(s);
    if (c == IIR_THRE) {
        s->thre = false;
    }
    return c | (fifo_on(s) ? IIR_FIFO : 0);
}

static uint64_t serial_read(struct dev *dev, uint64_t off, unsigned width)
{
    struct serial *s = container_of(dev, struct serial, dev);
    uint8_t val;
    switch (off) {
    case RBR: val = s->lcr & LCR_DLAB ? s->dll : rx_pop(s); break;
    case IER: val = s->lcr & LCR_DLAB ? s->dlm : s->ier; break;
    case IIR: val = iir_read(s); break;
    case LCR: val = s->lcr; break;
    case MCR: val = s->mcr; break;
    case LSR:
        val = lsr(s);
        s->lsr = 0;
        break;
    case MSR:
        val = modem_in(s->mcr) | s->msr_delta;
        s->msr_delta = 0;
        break;
    default: val = s->scr; break;
    }
    update(s);
    return val;
}

static void fcr_write(struct serial *s, uint8_t val)
{
    bool toggled = (val ^ s->fcr) & FCR_ENABLE;
    s->fcr = val & FCR_ENABLE ? val & 0xc9 : 0;
    if (toggled || val & FCR_CLEAR_RX) {
        rx_clear(s);
    }
    if (toggled || val & FCR_CLEAR_TX) {
        s->thr_full = false;
        s->thre = true;
    }
}

static void mcr_write(struct serial *s, uint8_t val)
{
    uint8_t before = modem_in(s->mcr), after = modem_in(val & 0x1f), changed = before ^ after;
    s->mcr = val & 0x1f;
    s->msr_delta |= (changed & MSR_CTS ? MSR_DCTS : 0) | (changed & MSR_DSR ? MSR_DDSR : 0) |
                    (changed & MSR_DCD ? MSR_DDCD : 0) | (changed & before & MSR_RI ? MSR_TERI : 0);
}

/* Enabling the interrupt while THR is empty raises it: Linux probes for exactly this. */
static void ier_write(struct serial *s, uint8_t val)
{
    if (val & ~s->ier & IER_THRI && !s->thr_full) {
        s->thre = true;
    }
    s->ier = val & 0x0f;
}

static void lcr_write(struct serial *s, uint8_t val)
{
    if (val & ~s->lcr & LCR_BREAK && s->mcr & MCR_LOOP) {
        rx_push(s, 0);
        s->lsr |= LSR_BI;
    }
    s->lcr = val;
}

static void serial_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct serial *s = container_of(dev, struct serial, dev);
    switch (off) {
    case RBR:
        if (s->lcr & LCR_DLAB) {
            s->dll = val;
        } else {
            tx(s, val);
        }
        break;
    case IER:
        if (s->lcr & LCR_DLAB) {
            s->dlm = val;
        } else {
            ier_write(s, val);
        }
        break;
    case IIR: fcr_write(s, val); break;
    case LCR: lcr_write(s, val); break;
    case MCR: mcr_write(s, val); break;
    case SCR: s->scr = val; break;
    default: break;             /* LSR and MSR: factory test only */
    }
    update(s);
}

static size_t serial_can_receive(struct chr_user *u)
{
    struct serial *s = container_of(u, struct serial, user);
    return s->mcr & MCR_LOOP || s->n_rx >= rx_size(s) ? 0 : rx_size(s) - s->n_rx;
}

static void serial_receive(struct chr_user *u, const uint8_t *data, size_t len)
{
    struct serial *s = container_of(u, struct serial, user);
    for (size_t i = 0; i < len; i++) {
        rx_push(s, data[i]);
    }
    update(s);
}

static void serial_writable(struct chr_user *u)
{
    struct serial *s = container_of(u, struct serial, user);
    if (s->thr_full) {
        tx_drain(s);
        update(s);
    }
}

static const struct io_ops serial_io = { .read = serial_read, .write = serial_write, .width = 1 };

static bool serial_realize(struct dev *dev, struct err *err)
{
    struct serial *s = container_of(dev, struct serial, dev);
    uint16_t base = s->props.base ? s->props.base : 0x3f8;
    irq_line_init(&s->irq, dev->env->irq, s->props.irq ? s->props.irq : 4);
    timer_init(&s->idle, dev->loop, dev->env->clock, on_idle);
    s->idle.lock = dev->lock;
    s->user = (struct chr_user){ .can_receive = serial_can_receive, .receive = serial_receive,
                                 .writable = serial_writable };
    if (!dev_map_pio(dev, "uart", &serial_io, base, 8, err)) {
        return false;
    }
    if (s->props.chr) {
        chr_attach(s->props.chr, &s->user, dev->lock);
    }
    return true;
}

static void serial_unrealize(struct dev *dev)
{
    struct serial *s = container_of(dev, struct serial, dev);
    if (s->props.chr && s->user.receive) {
        chr_attach(s->props.chr, NULL, NULL);
    }
    if (s->idle.loop) {
        timer_disarm(&s->idle);
    }
    irq_set(&s->irq, false);
}

static bool serial_validate(struct dev *dev, struct err *err)
{
    struct serial *s = container_of(dev, struct serial, dev);
    return s->n_rx <= rx_size(s) || err_set(err, ERR_INVALID, "%u bytes in a receiver without FIFO", s->n_rx);
}

static void serial_settle(struct dev *dev)
{
    struct serial *s = container_of(dev, struct serial, dev);
    bool timeout = s->timeout;
    rx_moved(s);
    s->timeout = timeout;
    update(s);
    if (s->props.chr) {
        if (s->thr_full) {
            tx_drain(s);
            update(s);
        }
        chr_accept(s->props.chr);
    }
}

static const struct state_field serial_fields[] = {
    STATE(struct serial, ier, .max = 0x0f),
    STATE(struct serial, fcr),
    STATE(struct serial, lcr),
    STATE(struct serial, mcr, .reset = MCR_OUT2, .max = 0x1f),
    STATE(struct serial, scr),
    STATE(struct serial, dll, .reset = 12),             /* 9600 */
    STATE(struct serial, dlm),
    STATE(struct serial, lsr),
    STATE(struct serial, msr_delta, .max = 0x0f),
    STATE(struct serial, thre, .max = 1),
    STATE(struct serial, timeout, .max = 1),
    STATE(struct serial, thr_full, .max = 1),
    STATE(struct serial, thr),
    STATE_BYTES(struct serial, rx),
    STATE(struct serial, n_rx, .max = FIFO_SIZE),
    STATE_END
};

const struct dev_type serial_type = {
    .name = "serial", .size = sizeof(struct serial), .version = 1, .fields = serial_fields, .realize = serial_realize,
    .unrealize = serial_unrealize, .validate = serial_validate, .settle = serial_settle,
};

struct dev *serial_create(struct dev_env *env, const char *id, const struct serial_props *props, struct err *err)
{
    struct serial *s = container_of(dev_create(env, &serial_type, id), struct serial, dev);
    s->props = *props;
    return dev_realize(&s->dev, err) ? &s->dev : NULL;
}
