#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""meson install puts every program, page and completion where it belongs, and the installed lodge finds its helpers."""
import os
import shutil
import subprocess
import sys

from common import check, exits_with, failures, run, tmp

BUILD, PREFIX, LIBEXEC, MANDIR, DATADIR = sys.argv[1:6]
dest = tmp("dest")
r = subprocess.run(["meson", "install", "-C", BUILD, "--destdir", dest, "--no-rebuild"], capture_output=True, text=True, timeout=120)
check(r.returncode == 0, f"install: {r.stdout}{r.stderr}")
root = dest + PREFIX
wanted = ["bin/lodge", f"{LIBEXEC}/lodge/lodge-vmm", f"{DATADIR}/bash-completion/completions/lodge.bash"]
if shutil.which("scdoc"):
    wanted += [f"{MANDIR}/man1/{page}.1" for page in ("lodge", "lodge-run", "lodge-ps", "lodge-stop", "lodge-host", "lodge-completion", "lodge-vmm", "lodge-slirp")]
for path in wanted:
    full = os.path.join(root, path)
    check(os.path.isfile(full) and os.path.getsize(full) > 0, f"{full} is missing")
for directory, _, names in os.walk(dest):
    for name in names:
        path = os.path.join(directory, name)
        check(not os.stat(path).st_mode & 0o6022, f"{path} has mode {os.stat(path).st_mode:o}")
r = run(os.path.join(root, "bin/lodge"), "--version")
check(r.returncode == 0 and r.stdout.startswith("lodge "), f"{r}")
# Away from the build tree it looks in its libexec folder: where we may, that is put in place.
if os.geteuid() == 0 and not os.path.exists(os.path.join(PREFIX, LIBEXEC, "lodge")):
    inside = ["unshare", "-m", "sh", "-c", f"mount --bind {root} {PREFIX} && exec \"$@\"", "sh"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode == 0:
        kernel = exits_with(9)
        r = run(*inside, f"{PREFIX}/bin/lodge", "run", "--memory", "16M", "--kernel", kernel)
        check(r.returncode == 9 and r.stdout == "OK\n", f"the installed lodge: {r}")
sys.exit(1 if failures else 0)
