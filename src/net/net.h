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
    /* Sends one frame (copied before return), its hdr checked by net_hdr_ok. Frames over a full queue are dropped, as on a wire. */
    void (*send)(struct net_port *p, const struct net_hdr *hdr, const struct iovec *iov, unsigned n_iov);
    void (*resume)(struct net_port *p);
    void (*attached)(struct net_port *p);       /* user or user_lock changed */
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
/* Frames begin to come. u == NULL: they stop. On the port's loop, or before it runs, or when it no longer does; so is close. */
void net_port_attach(struct net_port *p, struct net_user *u, pthread_mutex_t *lock);
/* NULL is fine. */
void net_port_close(struct net_port *p);
/* Room for a few of the largest frames on the way out; both ends of a user port do this. */
void net_socket_buffers(int sock);
static inline void net_port_send(struct net_port *p, const struct net_hdr *hdr, const struct iovec *iov, unsigned n_iov)
{
    p->ops->send(p, hdr, iov, n_iov);
}
/* The user has room again: with its lock. receive is called from the loop, not from here. */
static inline void net_port_resume(struct net_port *p)
{
    p->ops->resume(p);
}

enum { NET_HDR_NEEDS_CSUM = 1, NET_HDR_DATA_VALID = 2 };
enum { NET_GSO_NONE = 0, NET_GSO_TCPV4 = 1, NET_GSO_TCPV6 = 4, NET_GSO_ECN = 0x80 };
/* Is hdr consistent in itself and with a frame of `len` bytes, and asks for nothing but `offloads` (NET_OFF_)? */
bool net_hdr_ok(const struct net_hdr *hdr, size_t len, uint32_t offloads);
/* Fills in the checksum that hdr asks for. frame is changed in place; bounds are checked. */
bool net_csum_fill(const struct net_hdr *hdr, uint8_t *frame, size_t len);
/*
 * For a receiver that takes TCP segments of any size but does not know the header: makes the whole frame one correct segment
 * (lengths and both checksums, from the packet itself). False when it is not the TCP frame that hdr says.
 */
bool net_tso_whole(const struct net_hdr *hdr, uint8_t *frame, size_t len);
/*
 * Cuts a TCP frame into segments of gso_size bytes of payload and calls emit for each; `frame` is only read. Source: RFC 9293
 * section 3.1 (sequence numbers, flags), RFC 791 (identification).
 */
bool net_tso_cut(const struct net_hdr *hdr, const uint8_t *frame, size_t len, void (*emit)(void *arg, const uint8_t *frame, size_t len), void *arg);

#endif
