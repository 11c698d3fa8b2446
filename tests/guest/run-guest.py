#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs one bare-metal guest and judges it.

run-guest.py LODGE GUEST [--cpus=N] [--status=N] [-- further arguments of `lodge run`]
run-guest.py --oracle GUEST [--cpus=N]      the same under QEMU's TCG, to check the guest itself

Without --status the guest must exit with 0, say "done:" with no failure, and print no FAIL line. Its output is shown either way.
"""
import os
import re
import subprocess
import sys
import tempfile

ORACLE = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "128", "-display", "none", "-nodefaults",
          "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-device", "pc-testdev", "-no-reboot"]
TIMEOUT = 50


def main(argv):
    program, guest = argv[0], argv[1]
    cpus, status, extra = 1, None, []
    for i, arg in enumerate(argv[2:], 2):
        if arg == "--":
            extra = argv[i + 1:]
            break
        key, _, value = arg.partition("=")
        if key == "--cpus":
            cpus = int(value)
        elif key == "--status":
            status = int(value)
        else:
            sys.exit(f"unknown argument {arg}")
    want = status or 0
    with tempfile.TemporaryDirectory(prefix="lodge-guest-") as runtime:
        if program == "--oracle":
            cmd = [*ORACLE, "-smp", str(cpus), "-append", f"cpus={cpus}", "-kernel", guest, *extra]
            want = want << 1 | 1
        else:
            cmd = [program, "run", "--kernel", guest, "--memory", "64M", "--cpus", str(cpus), "--append", f"cpus={cpus}",
                   "--machine", "pc", "--console", "stdio", "--testdev", "--no-reboot", *extra]
        try:
            p = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT,
                               env=dict(os.environ, LODGE_RUNTIME_DIR=runtime))
            text, got = p.stdout.decode("utf-8", "replace"), p.returncode
        except subprocess.TimeoutExpired as e:
            text, got = (e.stdout or b"").decode("utf-8", "replace"), f"none within {TIMEOUT} s"
    sys.stdout.write(text)
    if got != want:
        sys.exit(f"exit status {got}, expected {want}")
    if status is None and (not re.search(r"^done: \d+ checks, 0 failed", text, re.M) or re.search(r"^(FAIL|DIED)", text, re.M)):
        sys.exit("the guest did not say that everything passed")


if __name__ == "__main__":
    main(sys.argv[1:])
