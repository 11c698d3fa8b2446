/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Console with several ports. Source: virtio 1.2 section 5.3. Queue 0 and 1 are port 0's in and out, 2 and 3 the control queues, port n > 0 has
 * 2n+2 and 2n+3. Output goes straight to a byte port (chr/chr.h); what that does not take stays in the ring. Input waits in a
 * small buffer until the guest gives room.
 */
#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "dev/virtio/virtio-int.h"

enum { F_SIZE = 0, F_MULTIPORT = 1, F_EMERG_WRITE = 2 };
enum { C_COLS = 0, C_ROWS = 2, C_MAX_PORTS = 4, C_EMERG = 8, CONFIG_SIZE = 12 };
enum { DEVICE_READY = 0, DEVICE_ADD = 1, PORT_READY = 3, CONSOLE_PORT = 4, RESIZE = 5, PORT_OPEN = 6, PORT_NAME = 7 };
enum { CTRL_HDR = 8, CTRL_MAX = CTRL_HDR + VIRTIO_CONSOLE_NAME_MAX, QUEUE_SIZE = 128, CTRL_QUEUE = 64 };
enum { CTRL_IN = 2, CTRL_OUT = 3, IN_SIZE = 4096, CHAINS_A_ROUND = 64, BYTES_A_ROUND = 256 * KIB };

/* Control messages a port owes the guest: sent in this order as room comes. */
enum { OWE_ADD = 1, OWE_CONSOLE = 2, OWE_NAME = 4, OWE_OPEN = 8, OWE_RESIZE = 16 };

struct console_port {
    struct virtio_console *con;
    struct chr_user user;
    struct chr *chr;
    char *name;                 /* NULL: a console */

    /* field table */
    bool guest_open;            /* a program in the guest has it open */
    bool ready;                 /* the driver knows it */
    uint8_t owes;               /* OWE_ bits */
    uint16_t in_len;
    uint8_t in[IN_SIZE];        /* from the chr, not yet in the guest */
    uint32_t out_done;          /* bytes of the next chain that the chr has taken already */
};

struct virtio_console {
    struct virtio_dev vd;
    unsigned n_ports;
    uint16_t cols, rows;
    struct console_port port[VIRTIO_CONSOLE_MAX_PORTS];
};

static struct virtio_console *con_of(struct virtio_dev *vd)
{
    return container_of(vd, struct virtio_console, vd);
}

static bool multiport(const struct virtio_console *con)
{
    return virtio_has(&con->vd, F_MULTIPORT);
}

static unsigned port_number(const struct console_port *p)
{
    return (unsigned)(p - p->con->port);
}

static struct virtqueue *in_queue(const struct console_port *p)
{
    unsigned n = port_number(p);
    return &p->con->vd.vq[n ? 2 * n + 2 : 0];
}

static struct virtqueue *out_queue(const struct console_port *p)
{
    return in_queue(p) + 1;
}

static struct console_port *port_of_queue(const struct virtqueue *vq)
{
    unsigned n = vq->index < 2 ? 0 : vq->index / 2 - 1;
    return &con_of(vq->vd)->port[n];
}

static void con_get_config(struct virtio_dev *vd, uint8_t *c)
{
    const struct virtio_console *con = con_of(vd);
    store_le16(c + C_COLS, con->cols);
    store_le16(c + C_ROWS, con->rows);
    store_le32(c + C_MAX_PORTS, con->n_ports);
}

/* Emergency write: works before any driver set-up, section 5.3.6.1. */
static void con_set_config(struct virtio_dev *vd, uint64_t off, uint64_t val, unsigned width)
{
    struct console_port *p = &con_of(vd)->port[0];
    uint8_t ch = (uint8_t)val;
    if (off == C_EMERG && p->chr) {
        chr_write(p->chr, &ch, 1);
    }
}

/* -- control messages -- */

/* The message for one owed bit. Bytes, or 0 when it does not apply. */
static size_t make_message(const struct console_port *p, unsigned owe, uint8_t *m)
{
    const struct virtio_console *con = p->con;
    uint16_t event = 0, value = 1;
    size_t len = CTRL_HDR;
    switch (owe) {
    case OWE_ADD:
        event = DEVICE_ADD;
        break;
    case OWE_CONSOLE:
        event = CONSOLE_PORT;
        break;
    case OWE_NAME:
        event = PORT_NAME;
        len += strlen(p->name);
        memcpy(m + CTRL_HDR, p->name, len - CTRL_HDR);
        break;
    case OWE_OPEN:
        event = PORT_OPEN;
        value = p->chr && chr_is_open(p->chr);
        break;
    default:
        /* Drivers, Linux among them, read rows before columns, whatever the text says. */
        event = RESIZE;
        store_le16(m + CTRL_HDR, con->rows);
        store_le16(m + CTRL_HDR + 2, con->cols);
        len += 4;
    }
    store_le32(m, port_number(p));
    store_le16(m + 4, event);
    store_le16(m + 6, value);
    return len;
}

/* False: no room in the control queue. */
static bool send_message(struct virtio_console *con, const uint8_t *m, size_t len)
{
    struct virtqueue *vq = &con->vd.vq[CTRL_IN];
    struct vq_chain *c = &con->vd.chain;
    struct iov_iter in;
    if (!vq_pop(vq, c) && (!vq_want_kicks(vq) || !vq_pop(vq, c))) {
        return false;
    }
    if (c->n_out || c->in_len < CTRL_HDR) {
        virtio_broken(&con->vd, "a control buffer without room for a message");
        return false;
    }
    len = (size_t)min_u64(len, c->in_len);
    iov_iter_init(&in, chain_in(c), c->n_in);
    iov_copy_to(&in, m, len);
    vq_written(vq, c, (uint32_t)len);
    vq_push(vq, c->head, (uint32_t)len);
    return true;
}

static void pay(struct virtio_console *con)
{
    uint16_t used = con->vd.vq[CTRL_IN].used_idx;
    bool room = multiport(con);
    for (unsigned i = 0; room && i < con->n_ports; i++) {
        struct console_port *p = &con->port[i];
        for (unsigned owe = OWE_ADD; room && owe <= OWE_RESIZE; owe <<= 1) {
            uint8_t m[CTRL_MAX];
            if (owe == OWE_NAME && !p->name) {
                p->owes &= ~OWE_NAME;           /* a saved state may claim it */
            }
            if (p->owes & owe) {
                room = send_message(con, m, make_message(p, owe, m));
                p->owes &= (uint8_t)~(room ? owe : 0);
            }
        }
    }
    if (con->vd.vq[CTRL_IN].used_idx != used) {
        vq_signal(&con->vd.vq[CTRL_IN]);
    }
}

static void on_ctrl_in(struct virtqueue *vq)
{
    pay(con_of(vq->vd));
}

static void port_became_ready(struct console_port *p)
{
    p->ready = true;
    p->owes |= p->name ? OWE_NAME : OWE_CONSOLE;
    if (!p->name && p->con->cols) {
        p->owes |= OWE_RESIZE;
    }
    if (p->chr && chr_is_open(p->chr)) {
        p->owes |= OWE_OPEN;
    }
}

static void on_message(struct virtio_console *con, uint32_t id, uint16_t event, uint16_t value)
{
    if (event == DEVICE_READY) {
        for (unsigned i = 0; value && i < con->n_ports; i++) {
            con->port[i].owes |= OWE_ADD;
        }
        return;
    }
    if (id >= con->n_ports) {
        return;
    }
    struct console_port *p = &con->port[id];
    if (event == PORT_READY && value) {
        port_became_ready(p);
    } else if (event == PORT_OPEN) {
        p->guest_open = value != 0;
        if (p->chr && p->guest_open) {
            chr_accept(p->chr);
        }
    }
}

static void on_ctrl_out(struct virtqueue *vq)
{
    struct virtio_console *con = con_of(vq->vd);
    struct vq_chain *c = &vq->vd->chain;
    uint16_t used = vq->used_idx;
    unsigned n = 0;
    do {
        while (n < CHAINS_A_ROUND && vq_pop(vq, c)) {
            uint8_t m[CTRL_HDR];
            struct iov_iter out;
            iov_iter_init(&out, c->iov, c->n_out);
            if (iov_copy_from(&out, m, CTRL_HDR) < 0) {
                virtio_broken(vq->vd, "a control message that is too short");
                return;
            }
            vq_push(vq, c->head, 0);
            on_message(con, load_le32(m), load_le16(m + 4), load_le16(m + 6));
            n++;
        }
    } while (n < CHAINS_A_ROUND && vq_want_kicks(vq));
    if (n >= CHAINS_A_ROUND) {
        vq_kick(vq);
    }
    if (vq->used_idx != used) {
        vq_signal(vq);
    }
    pay(con);
}

/* -- bytes -- */

static void push_input(struct console_port *p)
{
    struct virtqueue *vq = in_queue(p);
    struct vq_chain *c = &p->con->vd.chain;
    uint16_t used = vq->used_idx;
    while (p->in_len && (vq_pop(vq, c) || (vq_want_kicks(vq) && vq_pop(vq, c)))) {
        struct iov_iter in;
        if (c->n_out || !c->in_len) {
            virtio_broken(&p->con->vd, "a console input buffer that is not to be written");
            return;
        }
        uint32_t n = (uint32_t)min_u64(p->in_len, c->in_len);
        iov_iter_init(&in, chain_in(c), c->n_in);
        iov_copy_to(&in, p->in, n);
        memmove(p->in, p->in + n, p->in_len - n);
        p->in_len -= (uint16_t)n;
        vq_written(vq, c, n);
        vq_push(vq, c->head, n);
    }
    if (vq->used_idx != used) {
        vq_signal(vq);
    }
}

static void on_in(struct virtqueue *vq)
{
    struct console_port *p = port_of_queue(vq);
    push_input(p);
    if (p->chr && p->in_len < IN_SIZE) {
        chr_accept(p->chr);
    }
}

enum out_result { OUT_DONE, OUT_BLOCKED /* until the chr says writable */, OUT_LATER /* enough for one round */ };

/* Bytes of the chain from out_done on, at most *budget. */
static enum out_result write_chain(struct console_port *p, const struct vq_chain *c, size_t *budget)
{
    struct iov_iter it;
    iov_iter_init(&it, c->iov, c->n_out);
    if (iov_discard(&it, p->out_done) < 0) {
        p->out_done = c->out_len;       /* loaded from a stream that says more than there is */
    }
    while (p->chr && p->out_done < c->out_len) {
        uint8_t bytes[4096];
        size_t n = (size_t)min_u64(iov_left(&it), sizeof(bytes));
        if (*budget < n) {
            return OUT_LATER;
        }
        iov_copy_from(&it, bytes, n);           /* our copy: the guest may change its own */
        size_t took = chr_write(p->chr, bytes, n);
        p->out_done += (uint32_t)took;
        *budget -= took;
        if (took < n) {
            return OUT_BLOCKED;
        }
    }
    p->out_done = 0;
    return OUT_DONE;
}

static void on_out(struct virtqueue *vq)
{
    struct console_port *p = port_of_queue(vq);
    struct vq_chain *c = &vq->vd->chain;
    uint16_t used = vq->used_idx;
    size_t budget = BYTES_A_ROUND;
    unsigned n = 0;
    enum out_result res = OUT_DONE;
    vq_no_kicks(vq);
    do {
        while (res == OUT_DONE && n < CHAINS_A_ROUND && vq_pop(vq, c)) {
            res = write_chain(p, c, &budget);
            if (res == OUT_DONE) {
                vq_push(vq, c->head, 0);
            } else {
                vq_unpop(vq, 1);
            }
            n++;
        }
    } while (res == OUT_DONE && n < CHAINS_A_ROUND && vq_want_kicks(vq));
    if (res == OUT_LATER || n >= CHAINS_A_ROUND) {
        vq_kick(vq);
    }
    if (vq->used_idx != used) {
        vq_signal(vq);
    }
}

static size_t chr_room(struct chr_user *u)
{
    struct console_port *p = container_of(u, struct console_port, user);
    struct virtio_dev *vd = &p->con->vd;
    bool open = !multiport(p->con) || (p->ready && p->guest_open);
    return open && virtio_ready(vd) && !vd->quiesced ? IN_SIZE - p->in_len : 0;
}

static void chr_bytes(struct chr_user *u, const uint8_t *data, size_t len)
{
    struct console_port *p = container_of(u, struct console_port, user);
    memcpy(p->in + p->in_len, data, len);
    p->in_len += (uint16_t)len;
    push_input(p);
}

static void chr_event(struct chr_user *u, bool open)
{
    struct console_port *p = container_of(u, struct console_port, user);
    if (p->ready && virtio_ready(&p->con->vd)) {
        p->owes |= OWE_OPEN;
        if (!p->con->vd.quiesced) {
            pay(p->con);
        }
    }
}

static void chr_writable(struct chr_user *u)
{
    vq_kick(out_queue(container_of(u, struct console_port, user)));
}

/* -- life -- */

static void con_start(struct virtio_dev *vd)
{
    struct virtio_console *con = con_of(vd);
    for (unsigned i = 0; i < con->n_ports; i++) {
        if (con->port[i].chr) {
            chr_accept(con->port[i].chr);
        }
    }
}

static const struct state_field port_fields[] = {
    STATE(struct console_port, guest_open),
    STATE(struct console_port, ready),
    STATE(struct console_port, owes, .max = 31),
    STATE(struct console_port, in_len, .max = IN_SIZE),
    STATE_BYTES(struct console_port, in),
    STATE(struct console_port, out_done),
    STATE_END
};

static const struct state_field con_own[] = {
    STATE_STRUCTS(struct virtio_console, port, port_fields),
    STATE_END
};

static const struct virtio_class con_class = {
    .id = 3, .class_code = 0x078000, .config_size = CONFIG_SIZE, .fields = con_own,
    .get_config = con_get_config, .set_config = con_set_config, .start = con_start,
};

static void add_queues(struct virtio_console *con)
{
    virtio_queue_add(&con->vd, QUEUE_SIZE, on_in);
    virtio_queue_add(&con->vd, QUEUE_SIZE, on_out);
    virtio_queue_add(&con->vd, CTRL_QUEUE, on_ctrl_in);
    virtio_queue_add(&con->vd, CTRL_QUEUE, on_ctrl_out);
    for (unsigned i = 1; i < con->n_ports; i++) {
        virtio_queue_add(&con->vd, QUEUE_SIZE, on_in);
        virtio_queue_add(&con->vd, QUEUE_SIZE, on_out);
    }
}

static bool con_realize(struct dev *dev, struct err *err)
{
    struct virtio_console *con = con_of(virtio_of(dev));
    con->vd.cls = &con_class;
    con->vd.host_features = 1ull << F_SIZE | 1ull << F_MULTIPORT | 1ull << F_EMERG_WRITE;
    add_queues(con);
    for (unsigned i = 0; i < con->n_ports; i++) {
        struct console_port *p = &con->port[i];
        p->con = con;
        p->user = (struct chr_user){ chr_room, chr_bytes, chr_event, chr_writable };
    }
    if (!virtio_realize(&con->vd, err)) {
        return false;
    }
    for (unsigned i = 0; i < con->n_ports; i++) {
        if (con->port[i].chr) {
            chr_attach(con->port[i].chr, &con->port[i].user, dev->lock);
        }
    }
    return true;
}

static void con_unrealize(struct dev *dev)
{
    struct virtio_console *con = con_of(virtio_of(dev));
    for (unsigned i = 0; i < con->n_ports; i++) {
        if (con->port[i].chr) {
            chr_attach(con->port[i].chr, NULL, NULL);
        }
        free(con->port[i].name);
    }
    virtio_unrealize(&con->vd);
}

static void con_resume(struct dev *dev)
{
    virtio_dev_resume(dev);
    pthread_mutex_lock(dev->lock);
    con_start(virtio_of(dev));
    pthread_mutex_unlock(dev->lock);
}

static const struct state_field con_fields[] = VIRTIO_FIELDS(struct virtio_console, "console", con_own);
const struct dev_type virtio_console_type = {
    .name = "virtio-console", .size = sizeof(struct virtio_console), .version = 1, .fields = con_fields,
    .realize = con_realize, .unrealize = con_unrealize, .reset = virtio_dev_reset, .settle = virtio_dev_settle,
    .validate = virtio_dev_validate, .quiesce = virtio_dev_quiesce, .resume = con_resume,
};

struct dev *virtio_console_create(struct dev_env *env, const char *id, uint8_t slot, const struct virtio_console_config *cfg,
                                  struct err *err)
{
    bool ok = cfg->n_ports >= 1 && cfg->n_ports <= VIRTIO_CONSOLE_MAX_PORTS;
    for (unsigned i = 0; ok && i < cfg->n_ports; i++) {
        const char *name = cfg->port[i].name;
        ok = !name || (name[0] && strlen(name) <= VIRTIO_CONSOLE_NAME_MAX);
    }
    if (!ok) {
        err_set(err, ERR_INVALID, "device '%s': a console has 1 to %d ports with names of 1 to %d bytes", id,
                (int)VIRTIO_CONSOLE_MAX_PORTS, (int)VIRTIO_CONSOLE_NAME_MAX);
        return NULL;
    }
    struct dev *dev = dev_create(env, &virtio_console_type, id);
    struct virtio_console *con = con_of(virtio_of(dev));
    con->vd.pci.slot = slot;
    con->n_ports = cfg->n_ports;
    con->cols = cfg->cols;
    con->rows = cfg->rows;
    for (unsigned i = 0; i < cfg->n_ports; i++) {
        con->port[i].chr = cfg->port[i].chr;
        con->port[i].name = cfg->port[i].name ? str_dup(cfg->port[i].name) : NULL;
    }
    return dev_realize(dev, err) ? dev : NULL;
}

void virtio_console_resize(struct dev *dev, uint16_t cols, uint16_t rows)
{
    struct virtio_console *con = con_of(virtio_of(dev));
    pthread_mutex_lock(dev->lock);
    con->cols = cols;
    con->rows = rows;
    virtio_config_changed(&con->vd);
    for (unsigned i = 0; i < con->n_ports; i++) {
        if (con->port[i].ready && !con->port[i].name) {
            con->port[i].owes |= OWE_RESIZE;
        }
    }
    vq_kick(&con->vd.vq[CTRL_IN]);
    pthread_mutex_unlock(dev->lock);
}
