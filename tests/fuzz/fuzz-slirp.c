/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Frames from a hostile guest into the network helper's stack. Input: messages of {u16 length, bytes}, bytes being struct
 * net_hdr and frame, as on the socket. It runs in a network namespace of its own, with nothing but a loopback in it; where that cannot
 * be had the stack is restricted. So nothing leaves this machine.
 */
#include <getopt.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "helpers/slirp/slirp-int.h"
#include "net/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool alone(void)
{
    static int known;           /* 0 not yet, 1 alone, 2 not */
    if (!known) {
        known = unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 ? 1 : 2;
        int fd = known == 1 ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
        struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
        if (fd >= 0) {
            ioctl(fd, SIOCSIFFLAGS, &lo);
            close(fd);
        }
    }
    return known == 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t msg[NET_MAX_FRAME];
    char *argv[] = { "lodge-slirp", "--fd=0", "--hostname=fuzz", alone() ? NULL : "--restrict", NULL };
    struct options o;
    struct err err = ERR_INIT;
    int sv[2];
    optind = 0;
    if (!options_parse(argv[3] ? 4 : 3, argv, &o, &err) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) < 0) {
        abort();
    }
    o.fd = sv[0];
    struct stack *s = stack_create(&o, &err);
    if (!s) {
        abort();
    }
    for (unsigned n = 0; size >= 2 && n < 200; n++) {
        size_t len = min_u64(load_le16(data), min_u64(size - 2, sizeof(msg)));
        memcpy(msg, data + 2, len);
        stack_input(s, msg, len);
        data += 2 + len;
        size -= 2 + len;
        stack_once(s, 0);
        while (recv(sv[1], msg, sizeof(msg), 0) > 0) {
        }
    }
    close(sv[1]);
    stack_run(s);               /* one round: the other end is gone */
    stack_destroy(s);
    close(sv[0]);
    return 0;
}
