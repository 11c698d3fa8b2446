#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes seeds for fuzz-dev that bring each virtio device up and give it work: gen-virtio.py DIR. Operations are fuzz-dev.c's."""
import struct
import sys

COMMON, CONFIG, NOTIFY = 0, 0x2000, 0x3000
BAR, MSIX = 2, 3                # regions in order: ECAM, ports, then the device's
RING, STEP = 0x8000, 0x1000
QUEUES = {"virtio-blk": 2, "virtio-net": 3, "virtio-console": 6, "virtio-rng": 1, "virtio-balloon": 4}


def name_hash(name):
    h = 5381
    for c in name.encode():
        h = (h * 33 + c) & 0xFFFF
    return h


def write(region, off, value, width):
    how = {1: 0, 2: 1, 4: 2, 8: 3}[width]
    return bytes([0, region, how]) + struct.pack("<H", off) + value.to_bytes(width, "little")


def read(region, off, width):
    return bytes([4, region, {1: 0, 2: 1, 4: 2, 8: 3}[width]]) + struct.pack("<H", off)


def poke(gpa, data):
    """Operation 14 copies what follows it into RAM without consuming it: the copy must be harmless as operations."""
    return bytes([14]) + struct.pack("<HB", gpa // 4, len(data)) + data


def desc(addr, length, flags, nxt):
    return struct.pack("<QIHH", addr, length, flags, nxt)


def bring_up(features):
    out = write(BAR, COMMON + 0x14, 0, 1) + write(BAR, COMMON + 0x14, 3, 1)
    for i in range(2):
        out += write(BAR, COMMON + 8, i, 4) + write(BAR, COMMON + 12, features >> (32 * i) & 0xFFFFFFFF, 4)
    return out + write(BAR, COMMON + 0x14, 11, 1)


def queue(q):
    at = RING + q * STEP
    return (write(BAR, 0x16, q, 2) + write(BAR, 0x18, 16, 2) + write(BAR, 0x1A, q + 1, 2) + write(BAR, 0x20, at, 8) +
            write(BAR, 0x28, at + 0x400, 8) + write(BAR, 0x30, at + 0x800, 8) + write(BAR, 0x1C, 1, 2))


def work(q, chain):
    at = RING + q * STEP
    out = b""
    for i, (addr, length, w) in enumerate(chain):
        last = i + 1 == len(chain)
        out += poke(at + 16 * i, desc(addr, length, (2 if w else 0) | (0 if last else 1), i + 1))
    return out + poke(at + 0x400, struct.pack("<HHH", 0, 1, 0)) + write(BAR, NOTIFY + 4 * q, q, 2) + bytes([10, 10])


def master():
    return bytes([6, 3 << 3, 4, 1]) + struct.pack("<H", 7)


CHAINS = {
    "virtio-blk": [(0, [(0x100, 16, 0), (0x4000, 512, 1), (0x5000, 1, 1)]), (1, [(0x200, 16, 0), (0x4000, 512, 0), (0x5000, 1, 1)])],
    "virtio-net": [(0, [(0x4000, 2000, 1)]), (1, [(0x300, 12, 0), (0x4000, 100, 0)]), (2, [(0x40, 2, 0), (0x50, 20, 0), (0x5000, 1, 1)])],
    "virtio-console": [(2, [(0x4000, 100, 1)]), (3, [(0x80, 8, 0)]), (1, [(0x4000, 50, 0)]), (0, [(0x4000, 100, 1)])],
    "virtio-rng": [(0, [(0x4000, 64, 1), (0x4800, 9, 1)])],
    "virtio-balloon": [(0, [(0x4000, 64, 0)]), (2, [(0x4000, 30, 0)]), (3, [(0x6000, 0x2000, 1)])],
}


def main():
    for name, n in QUEUES.items():
        for tag, features in (("all", 0xFFFFFFFFFFFFFFFF), ("plain", 1 << 32)):
            offered = features
            body = master() + bring_up(offered if tag == "plain" else OFFERED[name])
            for q in range(n):
                body += queue(q)
            body += write(BAR, COMMON + 0x14, 15, 1)
            for q, chain in CHAINS[name]:
                body += work(q, chain)
            body += bytes([11]) + read(BAR, CONFIG, 8) + read(BAR, 0x1000, 1) + write(MSIX, 0, 0xFEE00000, 4) + bytes([12, 3, 9, 9, 9, 15])
            with open(f"{sys.argv[1]}/{name}-{tag}", "wb") as out:
                out.write(struct.pack("<H", name_hash(name)) + body)


RINGS = 1 << 32 | 1 << 28 | 1 << 29
OFFERED = {
    "virtio-blk": RINGS | 1 << 1 | 1 << 2 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 14,
    "virtio-net": RINGS | 1 << 0 | 1 << 1 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 20 | 1 << 21 | 1 << 23,
    "virtio-console": RINGS | 7,
    "virtio-rng": RINGS,
    "virtio-balloon": RINGS | 1 << 1 | 1 << 2 | 1 << 5,
}
main()
