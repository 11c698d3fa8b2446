/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "dev/pc/pc.h"

/*
 * i8042 keyboard controller with a keyboard and a wheel mouse. Sources: IBM PS/2 Technical Reference, Keyboard and
 * Auxiliary Device Controller; Microsoft's IntelliMouse protocol; what Linux's i8042, atkbd and psmouse drivers check.
 * Every command is answered at once, so no probe waits. Bytes from the devices wait in their queues; the controller takes
 * the next one when its output buffer is empty: its own replies first, then keyboard, then mouse, unless that interface
 * is off. Scan codes are queued in the form the guest wants when the key moves: set 1 under translation, set 2 without.
 */
enum { QUEUE_SIZE = 64, REPLIES = 4 };
struct ps2_queue {
    uint8_t data[QUEUE_SIZE];   /* oldest first */
    uint8_t n;
};

struct i8042 {
    struct dev dev;
    struct irq_line kbd_irq, aux_irq;   /* IRQ 1 and 12 */
    /* controller */
    uint8_t config;
    uint8_t outport;
    uint8_t command;            /* waiting for its data byte; 0 none */
    uint8_t out;                /* output buffer, port 60 */
    bool out_full, out_aux;
    bool last_command;          /* status bit 3: the last write went to port 64 */
    bool system;                /* status bit 2 */
    uint8_t reply[REPLIES], reply_aux[REPLIES], n_replies;
    /* keyboard */
    struct ps2_queue kbd;
    uint8_t kbd_command, kbd_set, kbd_leds, kbd_rate, kbd_last;
    bool kbd_on;
    /* mouse */
    struct ps2_queue mouse;
    uint8_t mouse_command, mouse_id, mouse_rate, mouse_resolution, mouse_buttons, mouse_sent_buttons;
    uint8_t mouse_rates[2];     /* the two before mouse_rate: the knock for the wheel */
    bool mouse_on, mouse_remote, mouse_wrap, mouse_double;
    int16_t dx, dy, dz;         /* not yet reported */
};

enum {
    STS_FULL = 0x01, STS_SYSTEM = 0x04, STS_COMMAND = 0x08, STS_UNLOCKED = 0x10, STS_AUX = 0x20,
    CFG_KBD_IRQ = 0x01, CFG_AUX_IRQ = 0x02, CFG_SYSTEM = 0x04, CFG_KBD_OFF = 0x10, CFG_AUX_OFF = 0x20, CFG_XLATE = 0x40,
    OUT_RUN = 0x01 /* 0 resets */, OUT_A20 = 0x02, OUT_AUX_FULL = 0x20, OUT_KBD_FULL = 0x10,
    PS2_ACK = 0xfa, PS2_RESEND = 0xfe, PS2_TEST_OK = 0xaa,
};

/* Set-2 make code of each set-1 make code. */
static const uint8_t set2_codes[128] = {
    0,   118, 22,  30,  38,  37,  46,  54,  61,  62,  70,  69,  78,  85,  102, 13,
    21,  29,  36,  45,  44,  53,  60,  67,  68,  77,  84,  91,  90,  20,  28,  27,
    35,  43,  52,  51,  59,  66,  75,  76,  82,  14,  18,  93,  26,  34,  33,  42,
    50,  49,  58,  65,  73,  74,  89,  124, 17,  41,  88,  5,   6,   4,   12,  3,
    11,  2,   10,  1,   9,   119, 126, 108, 117, 125, 123, 107, 115, 116, 121, 105,
    114, 122, 112, 113, 127, 96,  97,  120, 7,   15,  23,  31,  39,  47,  55,  63,
    71,  79,  86,  94,  8,   16,  24,  32,  40,  48,  56,  64,  72,  80,  87,  111,
    19,  25,  57,  81,  83,  92,  95,  98,  99,  100, 101, 103, 104, 106, 109, 110,
};

static bool queue_put(struct ps2_queue *q, const uint8_t *data, unsigned n)
{
    if (q->n + n > QUEUE_SIZE) {
        return false;
    }
    memcpy(q->data + q->n, data, n);
    q->n += n;
    return true;
}

static bool queue_take(struct ps2_queue *q, uint8_t *byte)
{
    if (!q->n) {
        return false;
    }
    *byte = q->data[0];
    memmove(q->data, q->data + 1, --q->n);
    return true;
}

/* A mouse report: buttons, signs and overflows, then the movement; the wheel in a fourth byte for ids 3 and 4. */
static void mouse_packet(struct i8042 *k)
{
    int dx = k->dx, dy = k->dy, dz = k->dz;
    unsigned n = k->mouse_id ? 4 : 3;
    uint8_t p[4];
    dx = dx > 255 ? 255 : dx < -256 ? -256 : dx;
    dy = dy > 255 ? 255 : dy < -256 ? -256 : dy;
    dz = dz > 7 ? 7 : dz < -8 ? -8 : dz;
    p[0] = 0x08 | (k->mouse_buttons & 7) | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0);
    p[1] = dx;
    p[2] = dy;
    p[3] = k->mouse_id == 4 ? dz & 15 : dz;
    if (queue_put(&k->mouse, p, n)) {
        k->dx -= dx;
        k->dy -= dy;
        k->dz -= k->mouse_id ? dz : k->dz;
        k->mouse_sent_buttons = k->mouse_buttons;
    }
}

static bool mouse_moved(const struct i8042 *k)
{
    return k->dx || k->dy || (k->dz && k->mouse_id) || k->mouse_buttons != k->mouse_sent_buttons;
}

/* Fills an empty output buffer and lets the lines follow it. Runs after everything that changes anything. */
static void update(struct i8042 *k)
{
    if (!k->mouse.n && k->mouse_on && !k->mouse_remote && !k->mouse_wrap && mouse_moved(k)) {
        mouse_packet(k);
    }
    if (!k->out_full && k->n_replies) {
        k->out = k->reply[0];
        k->out_aux = k->reply_aux[0];
        k->n_replies--;
        memmove(k->reply, k->reply + 1, k->n_replies);
        memmove(k->reply_aux, k->reply_aux + 1, k->n_replies);
        k->out_full = true;
    } else if (!k->out_full && !(k->config & CFG_KBD_OFF) && queue_take(&k->kbd, &k->out)) {
        k->kbd_last = k->out;
        k->out_full = true;
        k->out_aux = false;
    } else if (!k->out_full && !(k->config & CFG_AUX_OFF) && queue_take(&k->mouse, &k->out)) {
        k->out_full = k->out_aux = true;
    }
    irq_set(&k->kbd_irq, k->out_full && !k->out_aux && k->config & CFG_KBD_IRQ);
    irq_set(&k->aux_irq, k->out_full && k->out_aux && k->config & CFG_AUX_IRQ);
}

static void reply(struct i8042 *k, uint8_t byte, bool aux)
{
    if (k->n_replies < REPLIES) {
        k->reply[k->n_replies] = byte;
        k->reply_aux[k->n_replies++] = aux;
    }
}

/* Keyboard */

static void kbd_send(struct i8042 *k, uint8_t byte)
{
    queue_put(&k->kbd, &byte, 1);
}

static void kbd_defaults(struct i8042 *k)
{
    k->kbd_set = 2;
    k->kbd_rate = 0x2b;
    k->kbd_leds = 0;
    k->kbd_command = 0;
    k->kbd_on = true;
}

/* The argument of a command that takes one. */
static void kbd_argument(struct i8042 *k, uint8_t val)
{
    uint8_t cmd = k->kbd_command;
    k->kbd_command = 0;
    if (cmd == 0xf0 && val > 2) {
        kbd_send(k, PS2_RESEND);        /* there is no set 3 */
        return;
    }
    kbd_send(k, PS2_ACK);
    if (cmd == 0xed) {
        k->kbd_leds = val & 7;
    } else if (cmd == 0xf3) {
        k->kbd_rate = val & 0x7f;
    } else if (cmd == 0xf0 && val) {
        k->kbd_set = val;
    } else if (cmd == 0xf0) {
        kbd_send(k, k->kbd_set);
    }
}

static void kbd_write(struct i8042 *k, uint8_t val)
{
    uint8_t last = k->kbd_last;
    k->config &= ~CFG_KBD_OFF;          /* talking to the keyboard turns its interface on */
    k->kbd.n = 0;                       /* and makes it forget what it was about to say */
    if (k->kbd_command && val < 0xed) {
        kbd_argument(k, val);
        return;
    }
    k->kbd_command = 0;
    switch (val) {
    case 0xed: case 0xf0: case 0xf3:
        k->kbd_command = val;
        kbd_send(k, PS2_ACK);
        break;
    case 0xee:
        kbd_send(k, 0xee);
        break;
    case 0xf2:
        kbd_send(k, PS2_ACK);
        kbd_send(k, 0xab);
        kbd_send(k, k->config & CFG_XLATE ? 0x41 : 0x83);
        break;
    case 0xf4:
        k->kbd_on = true;
        kbd_send(k, PS2_ACK);
        break;
    case 0xf5: case 0xf6:
        kbd_defaults(k);
        k->kbd_on = val == 0xf6;
        kbd_send(k, PS2_ACK);
        break;
    case 0xf7: case 0xf8: case 0xf9: case 0xfa:
        kbd_send(k, PS2_ACK);
        break;
    case 0xfe:
        kbd_send(k, last);
        break;
    case 0xff:
        kbd_defaults(k);
        kbd_send(k, PS2_ACK);
        kbd_send(k, PS2_TEST_OK);
        break;
    default:
        kbd_send(k, PS2_RESEND);
        break;
    }
}

void i8042_key(struct dev *dev, uint16_t code, bool down)
{
    struct i8042 *k = container_of(dev, struct i8042, dev);
    uint8_t bytes[3], n = 0, make = code & 0x7f;
    pthread_mutex_lock(dev->lock);
    if (code >> 8 == 0xe0) {
        bytes[n++] = 0xe0;
    }
    if (k->config & CFG_XLATE || k->kbd_set == 1) {
        bytes[n++] = make | (down ? 0 : 0x80);
    } else {
        if (!down) {
            bytes[n++] = 0xf0;
        }
        bytes[n++] = set2_codes[make];
    }
    if (k->kbd_on && make) {
        queue_put(&k->kbd, bytes, n);   /* whole or not at all: a full queue loses keys, as a keyboard does */
        update(k);
    }
    pthread_mutex_unlock(dev->lock);
}

/* Mouse */

static void mouse_send(struct i8042 *k, uint8_t byte)
{
    queue_put(&k->mouse, &byte, 1);
}

static void mouse_defaults(struct i8042 *k)
{
    k->mouse_rate = 100;
    k->mouse_resolution = 2;
    k->mouse_command = 0;
    k->mouse_on = k->mouse_remote = k->mouse_wrap = k->mouse_double = false;
    k->dx = k->dy = k->dz = 0;
    k->mouse_sent_buttons = k->mouse_buttons;
}

/* Rates 200, 100, 80 in a row ask for the wheel, 200, 200, 80 then for five buttons. */
static void mouse_set_rate(struct i8042 *k, uint8_t rate)
{
    if (k->mouse_rates[0] == 200 && rate == 80) {
        k->mouse_id = k->mouse_rates[1] == 100 ? 3 : k->mouse_rates[1] == 200 && k->mouse_id ? 4 : k->mouse_id;
    }
    k->mouse_rates[0] = k->mouse_rates[1];
    k->mouse_rates[1] = rate;
    k->mouse_rate = rate;
}

static void mouse_status(struct i8042 *k)
{
    uint8_t b = k->mouse_buttons;
    mouse_send(k, (b & 1) << 2 | (b & 4) >> 1 | (b & 2) >> 1 | k->mouse_double << 4 | k->mouse_on << 5 |
                      k->mouse_remote << 6);
    mouse_send(k, k->mouse_resolution);
    mouse_send(k, k->mouse_rate);
}

static bool mouse_simple_command(struct i8042 *k, uint8_t val)
{
    switch (val) {
    case 0xe6: k->mouse_double = false; return true;
    case 0xe7: k->mouse_double = true; return true;
    case 0xe8:
    case 0xf3: k->mouse_command = val; return true;
    case 0xea: k->mouse_remote = false; return true;
    case 0xec: k->mouse_wrap = false; return true;
    case 0xee: k->mouse_wrap = true; return true;
    case 0xf0: k->mouse_remote = true; return true;
    case 0xf4: k->mouse_on = true; return true;
    case 0xf5: k->mouse_on = false; return true;
    case 0xf6: mouse_defaults(k); return true;
    default:   return false;
    }
}

static void mouse_write(struct i8042 *k, uint8_t val)
{
    k->config &= ~CFG_AUX_OFF;
    k->mouse.n = 0;
    if (k->mouse_wrap && val != 0xec && val != 0xff) {
        mouse_send(k, val);
        return;
    }
    if (k->mouse_command) {
        if (k->mouse_command == 0xf3) {
            mouse_set_rate(k, val);
        } else {
            k->mouse_resolution = val & 3;
        }
        k->mouse_command = 0;
        mouse_send(k, PS2_ACK);
        return;
    }
    if (mouse_simple_command(k, val)) {
        mouse_send(k, PS2_ACK);
        return;
    }
    mouse_send(k, val == 0xe9 || val == 0xeb || val == 0xf2 || val == 0xff ? PS2_ACK : PS2_RESEND);
    if (val == 0xe9) {
        mouse_status(k);
    } else if (val == 0xeb) {
        mouse_packet(k);
    } else if (val == 0xf2) {
        mouse_send(k, k->mouse_id);
    } else if (val == 0xff) {
        mouse_defaults(k);
        k->mouse_id = 0;
        mouse_send(k, PS2_TEST_OK);
        mouse_send(k, k->mouse_id);
    }
}

static int16_t add_clamped(int16_t a, int b)
{
    int64_t s = (int64_t)a + b;
    return s > 32000 ? 32000 : s < -32000 ? -32000 : s;
}

void i8042_mouse(struct dev *dev, int dx, int dy, int dz, unsigned buttons)
{
    struct i8042 *k = container_of(dev, struct i8042, dev);
    pthread_mutex_lock(dev->lock);
    k->dx = add_clamped(k->dx, dx);
    k->dy = add_clamped(k->dy, dy);
    k->dz = add_clamped(k->dz, dz);
    k->mouse_buttons = buttons & 7;
    update(k);
    pthread_mutex_unlock(dev->lock);
}

/* Controller */

static uint8_t outport(const struct i8042 *k)
{
    return k->outport | (k->out_full && !k->out_aux ? OUT_KBD_FULL : 0) | (k->out_full && k->out_aux ? OUT_AUX_FULL : 0);
}

static void outport_write(struct i8042 *k, uint8_t val)
{
    k->outport = (val & OUT_A20) | OUT_RUN;
    if (!(val & OUT_RUN)) {
        dev_guest_request(&k->dev, GUEST_RESET, 0);
    }
}

static void command_write(struct i8042 *k, uint8_t val)
{
    k->command = 0;
    switch (val) {
    case 0x20: reply(k, k->config, false); break;
    case 0x60: case 0xd1: case 0xd2: case 0xd3: case 0xd4: k->command = val; break;
    case 0xa7: k->config |= CFG_AUX_OFF; break;
    case 0xa8: k->config &= ~CFG_AUX_OFF; break;
    case 0xa9: reply(k, 0x00, false); break;
    case 0xaa:
        k->system = true;
        reply(k, 0x55, false);
        break;
    case 0xab: reply(k, 0x00, false); break;
    case 0xad: k->config |= CFG_KBD_OFF; break;
    case 0xae: k->config &= ~CFG_KBD_OFF; break;
    case 0xc0: reply(k, 0x80, false); break;            /* input port: not locked */
    case 0xd0: reply(k, outport(k), false); break;
    case 0xe0: reply(k, 0x00, false); break;            /* test inputs */
    default:
        if (val >= 0xf0 && !(val & 1)) {                /* pulse output bits: bit 0 is the CPU's reset */
            dev_guest_request(&k->dev, GUEST_RESET, 0);
        }
        break;
    }
}

static void data_write(struct i8042 *k, uint8_t val)
{
    uint8_t command = k->command;
    k->command = 0;
    switch (command) {
    case 0x60:
        k->config = val & 0x7f;
        k->system |= val & CFG_SYSTEM;
        break;
    case 0xd1: outport_write(k, val); break;
    case 0xd2: reply(k, val, false); break;
    case 0xd3: reply(k, val, true); break;
    case 0xd4: mouse_write(k, val); break;
    default:   kbd_write(k, val); break;
    }
}

static uint64_t data_read(struct dev *dev, uint64_t off, unsigned width)
{
    struct i8042 *k = container_of(dev, struct i8042, dev);
    uint8_t val = k->out;
    if (k->out_full) {
        k->out_full = false;
        irq_set(&k->kbd_irq, false);    /* an edge for each byte */
        irq_set(&k->aux_irq, false);
        update(k);
    }
    return val;
}

static uint64_t status_read(struct dev *dev, uint64_t off, unsigned width)
{
    struct i8042 *k = container_of(dev, struct i8042, dev);
    return STS_UNLOCKED | (k->out_full ? STS_FULL : 0) | (k->out_full && k->out_aux ? STS_AUX : 0) |
           (k->system ? STS_SYSTEM : 0) | (k->last_command ? STS_COMMAND : 0);
}

static void port60_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct i8042 *k = container_of(dev, struct i8042, dev);
    k->last_command = false;
    data_write(k, val);
    update(k);
}

static void port64_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct i8042 *k = container_of(dev, struct i8042, dev);
    k->last_command = true;
    command_write(k, val);
    update(k);
}

static const struct io_ops data_io = { .read = data_read, .write = port60_write, .width = 1 };
static const struct io_ops command_io = { .read = status_read, .write = port64_write, .width = 1 };

static bool i8042_realize(struct dev *dev, struct err *err)
{
    struct i8042 *k = container_of(dev, struct i8042, dev);
    dev->lock = &dev->env->legacy_lock;
    irq_line_init(&k->kbd_irq, dev->env->irq, 1);
    irq_line_init(&k->aux_irq, dev->env->irq, 12);
    return dev_map_pio(dev, "data", &data_io, 0x60, 1, err) && dev_map_pio(dev, "command", &command_io, 0x64, 1, err);
}

static void i8042_unrealize(struct dev *dev)
{
    struct i8042 *k = container_of(dev, struct i8042, dev);
    irq_set(&k->kbd_irq, false);
    irq_set(&k->aux_irq, false);
}

/* As firmware leaves it: interrupts on, translating, tested. A kernel started without firmware expects no less. */
static void i8042_reset(struct dev *dev)
{
    struct i8042 *k = container_of(dev, struct i8042, dev);
    kbd_defaults(k);
    mouse_defaults(k);
}

static void i8042_settle(struct dev *dev)
{
    update(container_of(dev, struct i8042, dev));
}

static const struct state_field queue_fields[] = {
    STATE_BYTES(struct ps2_queue, data),
    STATE(struct ps2_queue, n, .max = QUEUE_SIZE),
    STATE_END
};

static const struct state_field i8042_fields[] = {
    STATE(struct i8042, config, .reset = CFG_KBD_IRQ | CFG_AUX_IRQ | CFG_SYSTEM | CFG_XLATE, .max = 0x7f),
    STATE(struct i8042, outport, .reset = OUT_RUN | OUT_A20, .max = OUT_RUN | OUT_A20),
    STATE(struct i8042, command),
    STATE(struct i8042, out),
    STATE(struct i8042, out_full, .max = 1),
    STATE(struct i8042, out_aux, .max = 1),
    STATE(struct i8042, last_command, .max = 1),
    STATE(struct i8042, system, .reset = 1, .max = 1),
    STATE_BYTES(struct i8042, reply),
    STATE_BYTES(struct i8042, reply_aux),
    STATE(struct i8042, n_replies, .max = REPLIES),
    STATE_STRUCT(struct i8042, kbd, queue_fields),
    STATE(struct i8042, kbd_command),
    STATE(struct i8042, kbd_set, .max = 2),
    STATE(struct i8042, kbd_leds),
    STATE(struct i8042, kbd_rate),
    STATE(struct i8042, kbd_last),
    STATE(struct i8042, kbd_on, .max = 1),
    STATE_STRUCT(struct i8042, mouse, queue_fields),
    STATE(struct i8042, mouse_command),
    STATE(struct i8042, mouse_id, .max = 4),
    STATE(struct i8042, mouse_rate),
    STATE(struct i8042, mouse_resolution),
    STATE(struct i8042, mouse_buttons, .max = 7),
    STATE(struct i8042, mouse_sent_buttons, .max = 7),
    STATE_BYTES(struct i8042, mouse_rates),
    STATE(struct i8042, mouse_on, .max = 1),
    STATE(struct i8042, mouse_remote, .max = 1),
    STATE(struct i8042, mouse_wrap, .max = 1),
    STATE(struct i8042, mouse_double, .max = 1),
    STATE(struct i8042, dx),
    STATE(struct i8042, dy),
    STATE(struct i8042, dz),
    STATE_END
};

const struct dev_type i8042_type = {
    .name = "i8042", .size = sizeof(struct i8042), .version = 1, .fields = i8042_fields, .realize = i8042_realize,
    .unrealize = i8042_unrealize, .reset = i8042_reset, .settle = i8042_settle,
};

struct dev *i8042_create(struct dev_env *env, const char *id, struct err *err)
{
    struct dev *dev = dev_create(env, &i8042_type, id);
    return dev_realize(dev, err) ? dev : NULL;
}
