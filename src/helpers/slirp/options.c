/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <arpa/inet.h>
#include <getopt.h>
#include <string.h>

#include "base/str.h"
#include "helpers/slirp/slirp-int.h"

static bool parse_int_fd(const char *s, const char *what, int *out, struct err *err)
{
    uint64_t v;
    if (!str_parse_u64(s, &v) || v > 1 << 20) {
        return err_set(err, ERR_INVALID, "%s: '%s' is not a descriptor", what, s);
    }
    *out = (int)v;
    return true;
}

static bool parse_on_off(const char *s, const char *what, bool *out, struct err *err)
{
    *out = strcmp(s, "on") == 0;
    return *out || strcmp(s, "off") == 0 || err_set(err, ERR_INVALID, "%s: '%s' is neither on nor off", what, s);
}

static bool parse_addr(const char *s, struct in_addr *out, struct err *err)
{
    return inet_pton(AF_INET, s, out) == 1 || err_set(err, ERR_INVALID, "'%s' is not an IPv4 address", s);
}

/* "10.0.2.0/24": gateway .2, name server .3, first guest .15, as everybody's user networking has it. */
static bool parse_network(const char *s, struct options *o, struct err *err)
{
    char addr[INET_ADDRSTRLEN];
    const char *slash = strchr(s, '/');
    uint64_t bits;
    if (!slash || (size_t)(slash - s) >= sizeof(addr) || !str_parse_u64(slash + 1, &bits) || bits < 8 || bits > 27) {
        return err_set(err, ERR_INVALID, "network '%s' is not of the form ADDRESS/LENGTH with a length of 8 to 27", s);
    }
    memcpy(addr, s, (size_t)(slash - s));
    addr[slash - s] = '\0';
    if (!parse_addr(addr, &o->net, err)) {
        return false;
    }
    uint32_t mask = ~0u << (32 - bits), net = ntohl(o->net.s_addr);
    if (net & ~mask) {
        return err_set(err, ERR_INVALID, "network '%s' has bits beyond its length", s);
    }
    o->mask.s_addr = htonl(mask);
    o->host.s_addr = htonl(net + 2);
    o->dns.s_addr = htonl(net + 3);
    o->dhcp.s_addr = htonl(net + 15);
    return true;
}

static bool parse_port(const char *s, in_port_t *out)
{
    uint64_t v;
    if (!str_parse_u64(s, &v) || v < 1 || v > 65535) {
        return false;
    }
    *out = htons((uint16_t)v);
    return true;
}

bool forward_parse(const char *s, struct forward *f, struct err *err)
{
    char copy[64], *part[5], *p = copy;
    unsigned n = 0;
    size_t len = strlen(s);
    *f = (struct forward){ .host = { .sin_family = AF_INET }, .guest = { .sin_family = AF_INET } };
    f->host.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (len >= sizeof(copy)) {
        goto bad;
    }
    memcpy(copy, s, len + 1);
    while (p && n < ARRAY_SIZE(part)) {
        part[n++] = strsep(&p, ":");
    }
    if (p || n < 3 || (strcmp(part[0], "tcp") != 0 && strcmp(part[0], "udp") != 0)) {
        goto bad;
    }
    f->udp = part[0][0] == 'u';
    /* With three numbers after the protocol the address is the one with dots. */
    bool host_addr = n == 5 || (n == 4 && strchr(part[1], '.')), guest_addr = n == 5 || (n == 4 && !host_addr);
    unsigned at = 1;
    if ((host_addr && inet_pton(AF_INET, part[at++], &f->host.sin_addr) != 1) || !parse_port(part[at++], &f->host.sin_port) ||
        (guest_addr && inet_pton(AF_INET, part[at++], &f->guest.sin_addr) != 1) || !parse_port(part[at], &f->guest.sin_port)) {
        goto bad;
    }
    return true;
bad:
    return err_set(err, ERR_INVALID, "forward '%s' is not of the form tcp|udp:[ADDRESS:]PORT:[GUEST-ADDRESS:]PORT", s);
}

static bool add_forward(const char *s, struct options *o, struct err *err)
{
    if (o->n_forwards == MAX_FORWARDS) {
        return err_set(err, ERR_LIMIT, "at most %d forwards are possible", (int)MAX_FORWARDS);
    }
    return forward_parse(s, &o->forward[o->n_forwards], err) && ++o->n_forwards;
}

enum { OPT_FD = 1000, OPT_READY, OPT_RESTRICT, OPT_FORWARD, OPT_HOSTNAME, OPT_DNS, OPT_NETWORK, OPT_LOOPBACK, OPT_IPV6, OPT_SANDBOX };

static const struct option longs[] = {
    { "fd", required_argument, NULL, OPT_FD },
    { "ready-fd", required_argument, NULL, OPT_READY },
    { "restrict", optional_argument, NULL, OPT_RESTRICT },
    { "forward", required_argument, NULL, OPT_FORWARD },
    { "hostname", required_argument, NULL, OPT_HOSTNAME },
    { "dns", required_argument, NULL, OPT_DNS },
    { "network", required_argument, NULL, OPT_NETWORK },
    { "host-loopback", required_argument, NULL, OPT_LOOPBACK },
    { "ipv6", required_argument, NULL, OPT_IPV6 },
    { "sandbox", required_argument, NULL, OPT_SANDBOX },
    { 0 },
};

static bool take_option(int c, const char *arg, struct options *o, const char **dns, struct err *err)
{
    switch (c) {
    case OPT_FD:       return parse_int_fd(arg, "--fd", &o->fd, err);
    case OPT_READY:    return parse_int_fd(arg, "--ready-fd", &o->ready_fd, err);
    case OPT_RESTRICT: return parse_on_off(arg ? arg : "on", "--restrict", &o->restricted, err);
    case OPT_FORWARD:  return add_forward(arg, o, err);
    case OPT_DNS:      *dns = arg; return true;
    case OPT_NETWORK:  return parse_network(arg, o, err);
    case OPT_LOOPBACK: return parse_on_off(arg, "--host-loopback", &o->host_loopback, err);
    case OPT_IPV6:     return parse_on_off(arg, "--ipv6", &o->ipv6, err);
    case OPT_SANDBOX:  return parse_on_off(arg, "--sandbox", &o->sandbox, err);
    case OPT_HOSTNAME:
        o->hostname = arg;
        return (strlen(arg) >= 1 && strlen(arg) <= 63) || err_set(err, ERR_INVALID, "a host name has 1 to 63 characters");
    default:
        return err_set(err, ERR_INVALID, "unknown option or missing value");
    }
}

bool options_parse(int argc, char **argv, struct options *o, struct err *err)
{
    const char *dns = NULL;
    *o = (struct options){ .fd = -1, .ready_fd = -1, .host_loopback = true, .ipv6 = true, .sandbox = true };
    parse_network("10.0.2.0/24", o, NULL);
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        if (!take_option(c, optarg, o, &dns, err)) {
            return false;
        }
    }
    if (optind < argc) {
        return err_set(err, ERR_INVALID, "unexpected argument '%s'", argv[optind]);
    }
    if (dns) {
        if (!parse_addr(dns, &o->dns, err)) {
            return false;
        }
        if ((o->dns.s_addr & o->mask.s_addr) != o->net.s_addr || o->dns.s_addr == o->host.s_addr) {
            return err_set(err, ERR_INVALID, "the guest's name server '%s' must lie in the guest's network, beside the gateway", dns);
        }
    }
    return o->fd >= 0 || err_set(err, ERR_INVALID, "--fd is missing: lodge-slirp is started by lodge");
}
