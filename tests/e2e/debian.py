# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole Debian 12 with systemd on a virtio disk."""
import os
import shutil

from harness import CACHE, Guest, check, lodge, tmp


def debian_boots_to_a_login_and_powers_off():
    disk = tmp("debian.img")
    shutil.copyfile(os.path.join(CACHE, "debian-root.img"), disk)
    with Guest("--memory", "1G", "--cpus", "2", "--disk", disk, "--net", "user", "--rng", name="debian",
               append="quiet lodge.mode=root lodge.root=/dev/vda") as g:
        g.expect("login:", 900)
        g.send("root\n")
        g.expect(r"root@lodge.*[#]", 300)
        g.send("systemctl is-system-running --wait | sed 's/^/state: /'; ip -4 -o addr show scope global | sed 's/^/addr: /'\n")
        g.expect(r"addr: .*10\.0\.2\.15", 300)
        status, _, err = lodge("stop", "--timeout", "300", "debian", timeout=400)
        check(status == 0, err)
        check(g.wait(60) == 0, "status")


ALL = [debian_boots_to_a_login_and_powers_off]
