/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IPv4 fragments from the guest, put together before libslirp sees them: version 4.7's own reassembly crashes on a last fragment that comes first
 * (tests/fuzz/corpus/slirp/frag-last-first). Only in order, as a guest's stack sends its own; anything else is lost, as on a wire. Source: RFC 791.
 */
#include <string.h>

#include "base/bytes.h"
#include "helpers/slirp/slirp-int.h"

enum { ETH_LEN = 14, IP_MIN = 20, IP_MAX = 65535, FLAG_RESERVED = 0x8000, FLAG_DF = 0x4000, FLAG_MF = 0x2000, OFFSET_MASK = 0x1fff };

/* Sum of the words of a header; 0xffff when its checksum is right. */
static uint16_t header_sum(const uint8_t *p, size_t n)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i += 2) {
        sum += load_be16(p + i);
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

/* What makes fragments one datagram's: identification, protocol, addresses. */
static void make_key(const uint8_t *ip, uint8_t key[REASS_KEY])
{
    memcpy(key, ip + 4, 2);
    key[2] = ip[9];
    memcpy(key + 3, ip + 12, 8);
}

static struct reass_slot *find(struct reass *r, const uint8_t *key)
{
    for (unsigned i = 0; i < REASS_SLOTS; i++) {
        if (r->slot[i].len && memcmp(r->slot[i].key, key, REASS_KEY) == 0) {
            return &r->slot[i];
        }
    }
    return NULL;
}

/* A slot that is free, or the one that has waited longest. */
static struct reass_slot *take_slot(struct reass *r)
{
    struct reass_slot *s = &r->slot[0];
    for (unsigned i = 1; i < REASS_SLOTS; i++) {
        if (s->len && (!r->slot[i].len || r->slot[i].stamp < s->stamp)) {
            s = &r->slot[i];
        }
    }
    return s;
}

static const uint8_t *finish(struct reass_slot *s, size_t *len)
{
    uint8_t *ip = s->frame + ETH_LEN;
    size_t ihl = (size_t)(ip[0] & 15) * 4;
    *len = s->len;
    store_be16(ip + 2, (uint16_t)(s->len - ETH_LEN));
    store_be16(ip + 6, 0);
    store_be16(ip + 10, 0);
    store_be16(ip + 10, (uint16_t)~header_sum(ip, ihl));
    s->len = 0;
    return s->frame;
}

const uint8_t *reass_input(struct reass *r, const uint8_t *frame, size_t *len)
{
    const uint8_t *ip = frame + ETH_LEN;
    if (*len < ETH_LEN + IP_MIN || load_be16(frame + 12) != 0x0800) {
        return frame;           /* not ours to judge */
    }
    uint16_t off = load_be16(ip + 6), total = load_be16(ip + 2);
    size_t ihl = (size_t)(ip[0] & 15) * 4;
    if (!(off & (FLAG_RESERVED | FLAG_MF | OFFSET_MASK))) {
        return frame;
    }
    if (off & (FLAG_RESERVED | FLAG_DF) || ip[0] >> 4 != 4 || ihl < IP_MIN || total <= ihl || total > *len - ETH_LEN ||
        header_sum(ip, ihl) != 0xffff) {
        return NULL;
    }
    uint8_t key[REASS_KEY];
    make_key(ip, key);
    struct reass_slot *s = find(r, key);
    size_t at = (size_t)(off & OFFSET_MASK) * 8, n = total - ihl;
    if (at == 0) {
        s = s ? s : take_slot(r);
        memcpy(s->key, key, REASS_KEY);
        memcpy(s->frame, frame, ETH_LEN + ihl);
        s->start = s->len = ETH_LEN + ihl;
    }
    if (!s || s->len - s->start != at || (off & FLAG_MF && n % 8) || s->len + n > ETH_LEN + IP_MAX) {
        if (s) {
            s->len = 0;
        }
        return NULL;
    }
    memcpy(s->frame + s->len, ip + ihl, n);
    s->len += n;
    s->stamp = ++r->clock;
    return off & FLAG_MF ? NULL : finish(s, len);
}
