/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Network card. Source: virtio 1.2 section 5.1. Queue 0 receives, 1 sends, 2 controls. Every frame carries a 12-byte header that says what
 * offloads it needs; the port (net/net.h) speaks the same header.
 */
#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "dev/virtio/virtio-int.h"

enum {
    F_CSUM = 0, F_GUEST_CSUM = 1, F_MTU = 3, F_MAC = 5, F_GUEST_TSO4 = 7, F_GUEST_TSO6 = 8, F_HOST_TSO4 = 11, F_HOST_TSO6 = 12,
    F_MRG_RXBUF = 15, F_STATUS = 16, F_CTRL_VQ = 17, F_CTRL_RX = 18, F_CTRL_RX_EXTRA = 20, F_GUEST_ANNOUNCE = 21,
    F_CTRL_MAC_ADDR = 23,
};
enum { STATUS_LINK_UP = 1, STATUS_ANNOUNCE = 2, CONFIG_SIZE = 12 };
enum { CTRL_RX = 0, CTRL_MAC = 1, CTRL_ANNOUNCE = 3, CTRL_OK = 0, CTRL_ERR = 1, MAC_TABLE_SET = 0, MAC_ADDR_SET = 1 };
enum { RX_PROMISC = 0, RX_ALLMULTI, RX_ALLUNI, RX_NOMULTI, RX_NOUNI, RX_NOBCAST, N_RX_MODES };
enum { MAC_LEN = 6, HDR = sizeof(struct net_hdr), QUEUE_SIZE = 256, CTRL_SIZE = 64, FRAMES_A_ROUND = 128, MAX_MACS = 64, MAX_MERGED = 64 };
enum { RX, TX, CTRL };

struct mac_table {
    uint16_t n;
    bool overflow;              /* more than fit: let all of the kind pass */
    uint8_t mac[MAX_MACS * MAC_LEN];
};

struct virtio_net {
    struct virtio_dev vd;
    struct net_user user;
    struct net_port *port;
    uint16_t mtu;
    uint8_t hw_mac[MAC_LEN];    /* what a reset returns to */

    /* field table */
    uint8_t mac[MAC_LEN];
    bool rx_mode[N_RX_MODES];
    struct mac_table uni, multi;
    bool announce;              /* asked, not yet acknowledged */

    bool link_up;               /* the machine's, not the guest's */
    bool waiting;               /* the port holds a frame for us */
    uint8_t *bounce;            /* a frame whose checksum we fill in ourselves */
    struct vq_chain first;      /* keeps the first buffer's header while more are taken */
};

static struct virtio_net *net_of(struct virtio_dev *vd)
{
    return container_of(vd, struct virtio_net, vd);
}

static void net_get_config(struct virtio_dev *vd, uint8_t *c)
{
    const struct virtio_net *vn = net_of(vd);
    memcpy(c, vn->mac, MAC_LEN);
    store_le16(c + 6, (vn->link_up ? STATUS_LINK_UP : 0) | (vn->announce ? STATUS_ANNOUNCE : 0));
    store_le16(c + 8, 1);
    store_le16(c + 10, vn->mtu);
}

/* -- receiving -- */

static bool in_table(const struct mac_table *t, const uint8_t *mac)
{
    for (unsigned i = 0; i < t->n; i++) {
        if (!memcmp(t->mac + i * MAC_LEN, mac, MAC_LEN)) {
            return true;
        }
    }
    return t->overflow;
}

/* Section 5.1.6.5.1: the guest's filters. */
static bool wanted(const struct virtio_net *vn, const uint8_t *frame)
{
    static const uint8_t broadcast[MAC_LEN] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    if (vn->rx_mode[RX_PROMISC]) {
        return true;
    }
    if (frame[0] & 1) {
        if (!memcmp(frame, broadcast, MAC_LEN)) {
            return !vn->rx_mode[RX_NOBCAST];
        }
        return !vn->rx_mode[RX_NOMULTI] && (vn->rx_mode[RX_ALLMULTI] || in_table(&vn->multi, frame));
    }
    return !vn->rx_mode[RX_NOUNI] && (vn->rx_mode[RX_ALLUNI] || !memcmp(frame, vn->mac, MAC_LEN) || in_table(&vn->uni, frame));
}

/* What the guest agreed to take, as NET_OFF_ bits. */
static uint32_t guest_takes(const struct virtio_dev *vd)
{
    return (virtio_has(vd, F_GUEST_CSUM) ? NET_OFF_CSUM : 0) | (virtio_has(vd, F_GUEST_TSO4) ? NET_OFF_TSO4 : 0) |
           (virtio_has(vd, F_GUEST_TSO6) ? NET_OFF_TSO6 : 0);
}

/* One frame into one or several buffers. False: not enough of them, nothing taken. */
static bool put_frame(struct virtio_net *vn, struct net_hdr *hdr, const uint8_t *frame, size_t len)
{
    struct virtqueue *vq = &vn->vd.vq[RX];
    struct vq_chain *c = &vn->first;
    struct iov_iter at, head = { 0 };
    bool merge = virtio_has(&vn->vd, F_MRG_RXBUF);
    size_t done = 0;
    uint16_t n = 0;
    for (; n == 0 || done < len; n++, c = &vn->vd.chain) {
        if (n == MAX_MERGED) {
            vq_unpop(vq, n);
            return true;        /* buffers too small to be meant: the frame is lost */
        }
        if (!vq_pop(vq, c)) {
            vq_unpop(vq, n);
            return false;
        }
        if (c->n_out || c->in_len < (n ? 1 : HDR)) {
            virtio_broken(&vn->vd, "a receive buffer that has no room or is not to be written");
            return true;
        }
        iov_iter_init(&at, chain_in(c), c->n_in);
        if (n == 0) {
            head = at;
            iov_discard(&at, HDR);
            if (!merge && iov_left(&at) < len) {
                vq_unpop(vq, 1);
                return true;
            }
        }
        size_t part = (size_t)min_u64(iov_left(&at), len - done);
        iov_copy_to(&at, frame + done, part);
        uint32_t bytes = (uint32_t)part + (n ? 0 : HDR);
        vq_written(vq, c, bytes);
        vq_fill(vq, n, c->head, bytes);
        done += part;
    }
    hdr->num_buffers = n;
    iov_copy_to(&head, hdr, HDR);
    vq_publish(vq, n);
    vq_signal(vq);
    return true;
}

static bool net_receive(struct net_user *u, const struct net_hdr *from, const uint8_t *frame, size_t len)
{
    struct virtio_net *vn = container_of(u, struct virtio_net, user);
    struct virtio_dev *vd = &vn->vd;
    struct virtqueue *vq = &vd->vq[RX];
    struct net_hdr hdr = *from;
    if (vd->quiesced) {
        vn->waiting = true;
        return false;
    }
    if (!virtio_ready(vd) || !vq->enabled || !vn->link_up || !wanted(vn, frame)) {
        return true;            /* no one there: as on a wire */
    }
    uint32_t takes = guest_takes(vd);
    if (!(takes & NET_OFF_CSUM)) {
        if (hdr.gso_type || len > NET_MAX_FRAME) {
            return true;        /* the port was told what we take */
        }
        if (hdr.flags & NET_HDR_NEEDS_CSUM) {
            memcpy(vn->bounce, frame, len);
            if (!net_csum_fill(&hdr, vn->bounce, len)) {
                return true;
            }
            frame = vn->bounce;
        }
        hdr = (struct net_hdr){ 0 };
    } else if (!net_hdr_ok(&hdr, len, takes)) {
        return true;
    }
    vn->waiting = false;
    if (put_frame(vn, &hdr, frame, len)) {
        return true;
    }
    /* Ask for a kick, then look once more: buffers may have come meanwhile. */
    vq_want_kicks(vq);
    vn->waiting = !put_frame(vn, &hdr, frame, len) && virtio_ready(vd);
    if (!vn->waiting) {
        vq_no_kicks(vq);
    }
    return !vn->waiting;
}

/* The guest has put buffers there. */
static void on_rx(struct virtqueue *vq)
{
    struct virtio_net *vn = net_of(vq->vd);
    if (vn->waiting && vn->port) {
        vn->waiting = false;
        net_port_resume(vn->port);
    }
}

static void net_link(struct net_user *u, bool up)
{
    struct virtio_net *vn = container_of(u, struct virtio_net, user);
    if (vn->link_up != up) {
        vn->link_up = up;
        virtio_config_changed(&vn->vd);
    }
}

/* -- sending -- */

static uint32_t guest_may_ask(const struct virtio_dev *vd)
{
    return (virtio_has(vd, F_CSUM) ? NET_OFF_CSUM : 0) | (virtio_has(vd, F_HOST_TSO4) ? NET_OFF_TSO4 : 0) |
           (virtio_has(vd, F_HOST_TSO6) ? NET_OFF_TSO6 : 0);
}

/* A frame the guest got wrong is lost; only a chain that is none breaks the device. */
static bool send_chain(struct virtio_net *vn, const struct vq_chain *c)
{
    struct iov_iter it;
    struct iovec iov[VQ_MAX_IOV];
    struct net_hdr hdr;
    if (c->n_in || c->out_len < HDR) {
        virtio_broken(&vn->vd, "a frame to send without a header");
        return false;
    }
    iov_iter_init(&it, c->iov, c->n_out);
    iov_copy_from(&it, &hdr, HDR);
    size_t len = iov_left(&it);
    hdr.num_buffers = 0;
    hdr.flags &= NET_HDR_NEEDS_CSUM;
    if (vn->port && vn->link_up && net_hdr_ok(&hdr, len, guest_may_ask(&vn->vd))) {
        unsigned n = iov_take(&it, len, iov, VQ_MAX_IOV, NULL);
        net_port_send(vn->port, &hdr, iov, n);
    }
    return true;
}

static void on_tx(struct virtqueue *vq)
{
    struct virtio_net *vn = net_of(vq->vd);
    struct vq_chain *c = &vq->vd->chain;
    unsigned n = 0;
    vq_no_kicks(vq);
    do {
        while (n < FRAMES_A_ROUND && vq_pop(vq, c)) {
            if (!send_chain(vn, c)) {
                return;
            }
            vq_push(vq, c->head, 0);
            n++;
        }
    } while (n < FRAMES_A_ROUND && vq_want_kicks(vq));
    if (n >= FRAMES_A_ROUND) {
        vq_kick(vq);            /* others have their turn first */
    }
    if (n) {
        vq_signal(vq);
    }
}

/* -- control queue, section 5.1.6.5 -- */

static bool read_table(struct iov_iter *it, struct mac_table *t)
{
    uint8_t count[4];
    if (iov_copy_from(it, count, 4) < 0) {
        return false;
    }
    uint32_t n = load_le32(count);
    if (n > iov_left(it) / MAC_LEN) {
        return false;
    }
    *t = (struct mac_table){ .overflow = n > MAX_MACS, .n = n > MAX_MACS ? 0 : (uint16_t)n };
    iov_copy_from(it, t->mac, (size_t)t->n * MAC_LEN);
    return iov_discard(it, (size_t)(n - t->n) * MAC_LEN) == 0;
}

static uint8_t ctrl_mac(struct virtio_net *vn, uint8_t cmd, struct iov_iter *it)
{
    if (cmd == MAC_ADDR_SET && virtio_has(&vn->vd, F_CTRL_MAC_ADDR) && iov_left(it) == MAC_LEN) {
        iov_copy_from(it, vn->mac, MAC_LEN);
        return CTRL_OK;
    }
    if (cmd == MAC_TABLE_SET && virtio_has(&vn->vd, F_CTRL_RX)) {
        struct mac_table uni, multi;
        if (read_table(it, &uni) && read_table(it, &multi) && iov_left(it) == 0) {
            vn->uni = uni;
            vn->multi = multi;
            return CTRL_OK;
        }
    }
    return CTRL_ERR;
}

static uint8_t ctrl_command(struct virtio_net *vn, uint8_t class, uint8_t cmd, struct iov_iter *it)
{
    uint8_t on;
    switch (class) {
    case CTRL_RX:
        if (cmd >= N_RX_MODES || !virtio_has(&vn->vd, cmd > RX_ALLMULTI ? F_CTRL_RX_EXTRA : F_CTRL_RX) || iov_left(it) != 1) {
            return CTRL_ERR;
        }
        iov_copy_from(it, &on, 1);
        vn->rx_mode[cmd] = on != 0;
        return CTRL_OK;
    case CTRL_MAC:
        return ctrl_mac(vn, cmd, it);
    case CTRL_ANNOUNCE:
        if (cmd != 0 || !virtio_has(&vn->vd, F_GUEST_ANNOUNCE)) {
            return CTRL_ERR;
        }
        vn->announce = false;
        return CTRL_OK;
    default:
        return CTRL_ERR;
    }
}

static void on_ctrl(struct virtqueue *vq)
{
    struct virtio_net *vn = net_of(vq->vd);
    struct vq_chain *c = &vq->vd->chain;
    uint16_t used = vq->used_idx;
    unsigned n = 0;
    do {
        while (n < CTRL_SIZE && vq_pop(vq, c)) {
            struct iov_iter out, in;
            uint8_t head[2], ack;
            iov_iter_init(&out, c->iov, c->n_out);
            iov_iter_init(&in, chain_in(c), c->n_in);
            if (iov_copy_from(&out, head, 2) < 0 || !c->in_len) {
                virtio_broken(&vn->vd, "a control command without class or room for its answer");
                return;
            }
            ack = ctrl_command(vn, head[0], head[1], &out);
            iov_copy_to(&in, &ack, 1);
            vq_written(vq, c, 1);
            vq_push(vq, c->head, 1);
            n++;
        }
    } while (n < CTRL_SIZE && vq_want_kicks(vq));
    if (n >= CTRL_SIZE) {
        vq_kick(vq);
    }
    if (vq->used_idx != used) {
        vq_signal(vq);
    }
}

/* -- life -- */

static void net_stop(struct virtio_dev *vd)
{
    struct virtio_net *vn = net_of(vd);
    if (vn->waiting && vn->port) {
        vn->waiting = false;
        net_port_resume(vn->port);      /* its frame is dropped: nobody is there */
    }
}

static const struct state_field table_fields[] = {
    STATE(struct mac_table, n, .max = MAX_MACS),
    STATE(struct mac_table, overflow),
    STATE_BYTES(struct mac_table, mac),
    STATE_END
};

static const struct state_field net_own[] = {
    STATE_BYTES(struct virtio_net, mac, .keep = true),
    STATE_ARRAY(struct virtio_net, rx_mode),
    STATE_STRUCT(struct virtio_net, uni, table_fields),
    STATE_STRUCT(struct virtio_net, multi, table_fields),
    STATE(struct virtio_net, announce),
    STATE_END
};

static const struct virtio_class net_class = {
    .id = 1, .class_code = 0x020000, .config_size = CONFIG_SIZE, .fields = net_own,
    .get_config = net_get_config, .stop = net_stop,
};

static bool net_realize(struct dev *dev, struct err *err)
{
    struct virtio_dev *vd = virtio_of(dev);
    struct virtio_net *vn = net_of(vd);
    uint32_t off = vn->port ? vn->port->ops->offloads : 0;
    vd->cls = &net_class;
    vd->host_features |= 1ull << F_MAC | 1ull << F_STATUS | 1ull << F_MRG_RXBUF | 1ull << F_CTRL_VQ | 1ull << F_CTRL_RX |
                         1ull << F_CTRL_RX_EXTRA | 1ull << F_GUEST_ANNOUNCE | 1ull << F_CTRL_MAC_ADDR | 1ull << F_GUEST_CSUM |
                         1ull << F_GUEST_TSO4 | 1ull << F_GUEST_TSO6 | (vn->mtu ? 1ull << F_MTU : 0);
    vd->host_features |= (off & NET_OFF_CSUM ? 1ull << F_CSUM : 0) | (off & NET_OFF_TSO4 ? 1ull << F_HOST_TSO4 : 0) |
                         (off & NET_OFF_TSO6 ? 1ull << F_HOST_TSO6 : 0);
    vn->bounce = alloc0(NET_MAX_FRAME);
    vn->user = (struct net_user){ .receive = net_receive, .link = net_link };
    vn->link_up = vn->port != NULL;
    virtio_queue_add(vd, QUEUE_SIZE, on_rx);
    virtio_queue_add(vd, QUEUE_SIZE, on_tx);
    virtio_queue_add(vd, CTRL_SIZE, on_ctrl);
    if (!virtio_realize(vd, err)) {
        return false;
    }
    if (vn->port) {
        net_port_attach(vn->port, &vn->user, dev->lock);
    }
    return true;
}

static void net_unrealize(struct dev *dev)
{
    struct virtio_net *vn = net_of(virtio_of(dev));
    if (vn->port) {
        net_port_attach(vn->port, NULL, NULL);
    }
    virtio_unrealize(&vn->vd);
    free(vn->bounce);
}

static void net_reset(struct dev *dev)
{
    struct virtio_net *vn = net_of(virtio_of(dev));
    virtio_dev_reset(dev);
    memcpy(vn->mac, vn->hw_mac, MAC_LEN);
}

static void net_resume(struct dev *dev)
{
    virtio_dev_resume(dev);
    pthread_mutex_lock(dev->lock);
    net_stop(virtio_of(dev));           /* the port may try its frame again */
    pthread_mutex_unlock(dev->lock);
}

static const struct state_field net_fields[] = VIRTIO_FIELDS(struct virtio_net, "net", net_own);
const struct dev_type virtio_net_type = {
    .name = "virtio-net", .size = sizeof(struct virtio_net), .version = 1, .fields = net_fields,
    .realize = net_realize, .unrealize = net_unrealize, .reset = net_reset, .settle = virtio_dev_settle,
    .validate = virtio_dev_validate, .quiesce = virtio_dev_quiesce, .resume = net_resume,
};

struct dev *virtio_net_create(struct dev_env *env, const char *id, uint8_t slot, const struct virtio_net_config *cfg, struct err *err)
{
    if (cfg->mac[0] & 1 || (cfg->mtu && cfg->mtu < 68)) {
        err_set(err, ERR_INVALID, "device '%s': a card's address is no multicast address, and its MTU is 68 or more", id);
        return NULL;
    }
    struct dev *dev = dev_create(env, &virtio_net_type, id);
    struct virtio_net *vn = net_of(virtio_of(dev));
    vn->vd.pci.slot = slot;
    vn->port = cfg->port;
    vn->mtu = cfg->mtu;
    memcpy(vn->hw_mac, cfg->mac, MAC_LEN);
    return dev_realize(dev, err) ? dev : NULL;
}

void virtio_net_set_link(struct dev *dev, bool up)
{
    struct virtio_net *vn = net_of(virtio_of(dev));
    pthread_mutex_lock(dev->lock);
    net_link(&vn->user, up && vn->port);
    pthread_mutex_unlock(dev->lock);
}

void virtio_net_announce(struct dev *dev)
{
    struct virtio_net *vn = net_of(virtio_of(dev));
    pthread_mutex_lock(dev->lock);
    if (virtio_has(&vn->vd, F_GUEST_ANNOUNCE)) {
        vn->announce = true;
        virtio_config_changed(&vn->vd);
    }
    pthread_mutex_unlock(dev->lock);
}
