# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole Debian 12 with systemd on a virtio disk."""
import os
import shutil
import subprocess

from harness import CACHE, ENV, ROOT, Guest, check, lodge, tmp


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


def quickstart_debian_introduces_itself():
    """As a user without a terminal calls it."""
    r = subprocess.run([os.path.join(ROOT, "quickstart"), "--debian", "--", "--name", "qs-debian"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, timeout=1200, env=ENV)
    check(r.returncode == 0 and "Debian GNU/Linux 12" in r.stdout and "address: 10.0.2.15" in r.stdout, f"status {r.returncode}:\n{r.stdout[-2000:]}")


ALL = [debian_boots_to_a_login_and_powers_off, quickstart_debian_introduces_itself]
