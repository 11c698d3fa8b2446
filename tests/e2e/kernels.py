# SPDX-License-Identifier: GPL-2.0-or-later
"""Other kernels that Debian ships: slow to unpack on an interpreter, so part of `full`."""
import os
import re
import subprocess

from harness import ROOT, Guest, check


def fetch(metapackage, arch="amd64"):
    out = subprocess.run([os.path.join(ROOT, "tools/fetch-kernel"), metapackage, arch], stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    return out[0], out[1]


def introduces_itself(metapackage, pattern, arch="amd64", cpus="2"):
    kernel, initrd = fetch(metapackage, arch)
    with Guest("--memory", "512M", "--cpus", cpus, kernel=kernel, initrd=initrd, append="quiet lodge.mode=intro") as g:
        status = g.wait(1200)
        check(status == 0 and re.search(pattern, g.text) and f"cpus: {cpus}" in g.text, f"status {status}:\n{g.text[-2000:]}")


def the_generic_kernel_boots():
    introduces_itself("linux-image-amd64", r"guest: Linux 6\.\S+-amd64 ")


def the_rt_kernel_boots():
    introduces_itself("linux-image-rt-amd64", "guest: Linux .*PREEMPT_RT")


def the_32_bit_kernel_boots():
    introduces_itself("linux-image-686", r"guest: Linux 6\.\S+-686 ", "i386", "1")


def the_32_bit_pae_kernel_boots():
    introduces_itself("linux-image-686-pae", r"guest: Linux 6\.\S+-686-pae ", "i386")


def memtest_runs():
    path = subprocess.run([os.path.join(ROOT, "tools/fetch-file"), "memtest86+", "boot/memtest86+x64.bin"], stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
    with Guest("--memory", "64M", "--append", "console=ttyS0,115200", kernel=path, initrd=None, append=None) as g:
        g.expect(r"Memtest86\+", 300)
        g.expect(r"Pass\s+\d+%|Test\s+\d+%|Time:", 300)


FULL = [the_generic_kernel_boots, the_rt_kernel_boots, the_32_bit_kernel_boots, the_32_bit_pae_kernel_boots, memtest_runs]
