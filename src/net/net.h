/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Frame ports: two ends of a wire that carries Ethernet frames, each with a virtio-net header in front that says what
 * offloads a frame needs (struct net_hdr); a port that cannot do an offload does it in software before passing on.
 */
#ifndef LODGE_NET_NET_H
#define LODGE_NET_NET_H

#include <sys/uio.h>

#include "loop/loop.h"

enum { NET_MAX_FRAME = 65562 + 12, NET_MTU_FRAME = 1514 };

/* As virtio 1.2 section 5.1.6; little-endian fields in memory. */
struct net_hdr {
    uint8_t flags;              /* 1 needs checksum, 2 data valid */
    uint8_t gso_type;           /* 0 none, 1 TCPv4, 3 UDP, 4 TCPv6, 0x80 ECN */
    uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
_Static_assert(sizeof(struct net_hdr) == 12, "as on the ring");

struct net_port;
/* The side of whoever uses a port (a NIC). Called on the port's loop. */
struct net_user {
    /* A frame for the guest; false: no room now, the port holds it and stops reading until net_port_resume. */
    bool (*receive)(struct net_user *u, const struct net_hdr *hdr, const uint8_t *frame, size_t len);
    void (*link)(struct net_user *u, bool up);
};
struct net_port_ops {
    const char *name;
    /* Sends one frame (copied before return). Frames over a full queue are dropped, as on a wire. */
    void (*send)(struct net_port *p, const struct net_hdr *hdr, const struct iovec *iov, unsigned n_iov);
    void (*resume)(struct net_port *p);
    void (*close)(struct net_port *p);
    uint32_t offloads;          /* what the far side takes as is: bit per NET_OFF_ */
};
enum { NET_OFF_CSUM = 1, NET_OFF_TSO4 = 2, NET_OFF_TSO6 = 4 };
struct net_port {
    const struct net_port_ops *ops;
    struct net_user *user;
    struct loop *loop;
    pthread_mutex_t *user_lock;         /* the NIC's lock domain: held around user callbacks; set by net_port_attach */
};
/* `lodge-slirp` on the other end of a seqpacket socket (taken over): one message a frame, net_hdr in front. */
struct net_port *net_user_open(struct loop *loop, int take_sock, struct err *err);
void net_port_attach(struct net_port *p, struct net_user *u, pthread_mutex_t *lock);
void net_port_close(struct net_port *p);
/* Fills in the checksum that hdr asks for. frame is changed in place; bounds are checked. */
bool net_csum_fill(const struct net_hdr *hdr, uint8_t *frame, size_t len);

#endif
