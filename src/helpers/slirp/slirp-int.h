/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside lodge-slirp: options, the stack with its poll loop, the sandbox. */
#ifndef LODGE_HELPERS_SLIRP_SLIRP_INT_H
#define LODGE_HELPERS_SLIRP_SLIRP_INT_H

#include <netinet/in.h>

#include "base/err.h"

/* Bounds of docs/security.md section 7. */
enum { MAX_FORWARDS = 64, MAX_FLOWS = 512, MAX_QUEUED = 4 * MIB, PAUSE_AT = 1 * MIB };

struct forward {
    bool udp;
    struct sockaddr_in host, guest;     /* guest address 0: the first DHCP address */
};

struct options {
    int fd, ready_fd;           /* -1: not given */
    bool restricted, host_loopback, ipv6, sandbox;
    const char *hostname;
    struct in_addr net, mask, host, dhcp, dns;
    struct forward forward[MAX_FORWARDS];
    unsigned n_forwards;
};

/* argv -> options; checked. */
bool options_parse(int argc, char **argv, struct options *o, struct err *err);
/* "tcp:[ADDR:]PORT:[ADDR:]PORT", "udp:..." */
bool forward_parse(const char *s, struct forward *f, struct err *err);

/* Fragments of IPv4 datagrams on their way in. */
enum { REASS_SLOTS = 8, REASS_KEY = 11 };
struct reass {
    uint64_t clock;
    struct reass_slot {
        uint64_t stamp;
        uint8_t key[REASS_KEY];
        size_t start, len;      /* of the first fragment's headers; of all so far. 0: free */
        uint8_t frame[14 + 65535];
    } slot[REASS_SLOTS];
};
/* The frame to pass on: `frame` itself, a datagram that it completes (valid until the next call), or NULL. *len follows. */
const uint8_t *reass_input(struct reass *r, const uint8_t *frame, size_t *len);

struct stack;
/* libslirp with its forwards bound. NULL with err: a port is taken. */
struct stack *stack_create(const struct options *o, struct err *err);
/* Frames until the other end closes. Returns the exit status. */
int stack_run(struct stack *s);
/* One round of that; false: it is over. */
bool stack_once(struct stack *s, int max_wait_ms);
/* One message from the guest's side, as stack_run takes them. */
void stack_input(struct stack *s, uint8_t *msg, size_t len);
void stack_destroy(struct stack *s);

/* No way back: limits, user, no new privileges, Landlock, system-call filter. */
bool sandbox_enter(struct err *err);

#endif
