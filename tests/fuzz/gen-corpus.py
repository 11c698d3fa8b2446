#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes a seed for every device type named on the command line into DIR: gen-corpus.py DIR TYPE..."""
import random
import sys


def name_hash(name):
    h = 5381
    for c in name.encode():
        h = (h * 33 + c) & 0xFFFF
    return h


def main():
    directory, names = sys.argv[1], sys.argv[2:]
    for name in names:
        rng = random.Random(name)
        key = 0xFFFF if name == "pc" else name_hash(name)
        body = bytes(rng.randrange(256) for _ in range(1500))
        with open(f"{directory}/{name}", "wb") as out:
            out.write(key.to_bytes(2, "little") + body)


main()
