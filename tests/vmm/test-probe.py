#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe answers within its time, in the promised form, and truthfully where the truth is known."""
import json
import os
import subprocess
import sys
import time

VMM = sys.argv[1]
STEPS = ["real-mode", "protected-mode", "long-mode", "interrupt", "user-mode", "speed"]


def probe(before=()):
    start = time.monotonic()
    r = subprocess.run([*before, VMM, "--probe"], capture_output=True, text=True, timeout=20)
    assert r.returncode == 0, r
    assert time.monotonic() - start < 5, "longer than lodge host waits"
    kvm = json.loads(r.stdout)["kvm"]
    assert all(isinstance(kvm[k], bool) for k in ["present", "permitted", "usable"] + STEPS), kvm
    assert kvm["usable"] == all(kvm[k] for k in STEPS), kvm
    assert kvm["usable"] or kvm["reason"], kvm
    return kvm


here = probe()
print(here)
assert here["present"] == os.path.exists("/dev/kvm") or here["permitted"]
if here["usable"]:
    assert here["api"] == 12
if os.geteuid() == 0 and here["present"]:
    without = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"]
    if os.stat("/dev/kvm").st_mode & 0o006 == 0 and subprocess.run([*without, "true"], capture_output=True).returncode == 0:
        kvm = probe(without)
        assert kvm["present"] and not kvm["permitted"] and "denied" in kvm["reason"], kvm
    hidden = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /dev && exec \"$@\"", "sh"]
    if subprocess.run([*hidden, "true"], capture_output=True).returncode == 0:
        kvm = probe(hidden)
        assert not kvm["present"] and not kvm["permitted"] and "No such file" in kvm["reason"], kvm
    empty = ["unshare", "-m", "sh", "-c", "mount --bind /dev/null /dev/kvm && exec \"$@\"", "sh"]
    if subprocess.run([*empty, "true"], capture_output=True).returncode == 0:
        kvm = probe(empty)
        assert kvm["permitted"] and not kvm["usable"] and kvm["reason"].startswith("the API version"), kvm
