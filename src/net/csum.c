/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checksums and TCP segmentation in software. Source: RFC 1071, RFC 791, RFC 8200 section 8.1, RFC 9293; virtio 1.2 section 5.1.6.2. */
#include "net/net.h"

#include <string.h>

#include "base/bytes.h"

enum { ETH_LEN = 14, IP4_LEN = 20, IP6_LEN = 40, TCP_LEN = 20, ETH_IP4 = 0x0800, ETH_IP6 = 0x86dd, PROTO_TCP = 6 };
enum { TCP_FIN = 1, TCP_PSH = 8, TCP_CWR = 0x80 };

/* Sum of big-endian 16-bit words, in host order; a last odd byte counts as the high one. */
static uint64_t sum_words(const uint8_t *p, size_t n)
{
    uint64_t sum = 0;
    for (; n >= 4; p += 4, n -= 4) {
        sum += load_be32(p);
    }
    if (n >= 2) {
        sum += load_be16(p);
        p += 2;
        n -= 2;
    }
    return n ? sum + (uint64_t)(p[0] << 8) : sum;
}

static uint16_t fold(uint64_t sum)
{
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)~sum;
}

bool net_hdr_ok(const struct net_hdr *hdr, size_t len, uint32_t offloads)
{
    if (len < ETH_LEN || len > NET_MAX_FRAME - sizeof(*hdr)) {
        return false;
    }
    bool csum = hdr->flags & NET_HDR_NEEDS_CSUM;
    if (csum && (!(offloads & NET_OFF_CSUM) || !range_ok((uint64_t)hdr->csum_start + hdr->csum_offset, 2, len))) {
        return false;
    }
    switch (hdr->gso_type) {
    case NET_GSO_NONE:
        return true;
    case NET_GSO_TCPV4:
        return csum && hdr->gso_size && offloads & NET_OFF_TSO4;
    case NET_GSO_TCPV6:
        return csum && hdr->gso_size && offloads & NET_OFF_TSO6;
    default:
        return false;
    }
}

bool net_csum_fill(const struct net_hdr *hdr, uint8_t *frame, size_t len)
{
    if (!(hdr->flags & NET_HDR_NEEDS_CSUM)) {
        return true;
    }
    uint64_t at = (uint64_t)hdr->csum_start + hdr->csum_offset;
    if (!range_ok(at, 2, len)) {
        return false;
    }
    uint16_t sum = fold(sum_words(frame + hdr->csum_start, len - hdr->csum_start));
    /* UDP sends all ones for zero; to TCP both are the same. */
    store_be16(frame + at, sum ? sum : 0xffff);
    return true;
}

/* Where things are in a TCP frame. */
struct tcp_frame {
    bool v6;
    size_t ip, tcp, data;       /* offsets */
    size_t end;                 /* of the packet; padding may follow */
};

static bool parse_tcp(const struct net_hdr *hdr, const uint8_t *frame, size_t len, struct tcp_frame *f)
{
    f->v6 = hdr->gso_type == NET_GSO_TCPV6;
    f->ip = ETH_LEN;
    f->end = len;
    if (len < ETH_LEN + (f->v6 ? IP6_LEN : IP4_LEN) || load_be16(frame + 12) != (f->v6 ? ETH_IP6 : ETH_IP4)) {
        return false;
    }
    const uint8_t *ip = frame + f->ip;
    if (f->v6) {
        /* Extension headers are nothing that a large sender uses: such frames are not ours to cut. */
        if (ip[0] >> 4 != 6 || ip[6] != PROTO_TCP) {
            return false;
        }
        f->tcp = f->ip + IP6_LEN;
    } else {
        size_t ihl = (size_t)(ip[0] & 15) * 4;
        if (ip[0] >> 4 != 4 || ip[9] != PROTO_TCP || ihl < IP4_LEN || load_be16(ip + 6) & 0x3fff) {
            return false;
        }
        f->tcp = f->ip + ihl;
    }
    if (!range_ok(f->tcp, TCP_LEN, len)) {
        return false;
    }
    size_t thl = (size_t)(frame[f->tcp + 12] >> 4) * 4;
    f->data = f->tcp + thl;
    return thl >= TCP_LEN && f->data <= len && len - f->ip <= 65535;
}

/* Lengths and checksums of a frame whose packet ends at f->end. */
static void finish_tcp(uint8_t *frame, const struct tcp_frame *f)
{
    uint8_t *ip = frame + f->ip, *tcp = frame + f->tcp;
    size_t seg = f->end - f->tcp;
    uint64_t pseudo = PROTO_TCP + seg;
    if (f->v6) {
        store_be16(ip + 4, (uint16_t)(f->end - f->ip - IP6_LEN));
        pseudo += sum_words(ip + 8, 32);
    } else {
        store_be16(ip + 2, (uint16_t)(f->end - f->ip));
        store_be16(ip + 10, 0);
        store_be16(ip + 10, fold(sum_words(ip, f->tcp - f->ip)));
        pseudo += sum_words(ip + 12, 8);
    }
    store_be16(tcp + 16, 0);
    store_be16(tcp + 16, fold(pseudo + sum_words(tcp, seg)));
}

bool net_tso_whole(const struct net_hdr *hdr, uint8_t *frame, size_t len)
{
    struct tcp_frame f;
    if (!parse_tcp(hdr, frame, len, &f)) {
        return false;
    }
    finish_tcp(frame, &f);
    return true;
}

bool net_tso_cut(const struct net_hdr *hdr, const uint8_t *frame, size_t len, void (*emit)(void *arg, const uint8_t *frame, size_t len),
                 void *arg)
{
    struct tcp_frame f;
    uint8_t out[NET_MTU_FRAME + 60];
    if (!parse_tcp(hdr, frame, len, &f) || f.data + 1 > sizeof(out) || hdr->gso_size == 0) {
        return false;
    }
    size_t most = (size_t)min_u64(hdr->gso_size, sizeof(out) - f.data), left = len - f.data, done = 0;
    uint32_t seq = load_be32(frame + f.tcp + 4);
    uint16_t id = f.v6 ? 0 : load_be16(frame + f.ip + 4);
    do {
        size_t n = (size_t)min_u64(left - done, most);
        bool last = done + n == left;
        memcpy(out, frame, f.data);
        memcpy(out + f.data, frame + f.data + done, n);
        store_be32(out + f.tcp + 4, seq + (uint32_t)done);
        if (!last) {
            out[f.tcp + 13] &= (uint8_t)~(TCP_FIN | TCP_PSH);
        }
        if (done) {
            out[f.tcp + 13] &= (uint8_t)~TCP_CWR;
        }
        if (!f.v6) {
            store_be16(out + f.ip + 4, id++);
        }
        struct tcp_frame piece = f;
        piece.end = f.data + n;
        finish_tcp(out, &piece);
        emit(arg, out, piece.end);
        done += n;
    } while (done < left);
    return true;
}
