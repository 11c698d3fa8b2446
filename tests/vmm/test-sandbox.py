#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the sandbox lets through and what ends the process, as the user we are, without privileges, and where the host lacks layers."""
import errno
import json
import os
import signal
import subprocess
import sys

PROGRAM = sys.argv[1]
SKIPPED = 77
ALLOWED = ["nothing", "write", "memory", "other:nothing", "other:write", "vcpu:memory"]
FORBIDDEN = ["open", "openat", "execve", "ptrace", "socket", "mprotect-exec", "mmap-exec", "fork", "unshare", "kill", "prctl", "bpf", "io-uring", "ioctl",
             "process-vm-readv", "thread", "other:open", "other:execve", "other:mprotect-exec", "vcpu:write", "vcpu:open"]
# Ways to start it: (what it shows, command before the program). Some take layers away from it.
NO_NAMESPACES = ["unshare", "-Ur", "sh", "-c", "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"", "sh", "setpriv", "--inh-caps=-all"]
WAYS = [("as we are", [])]
if os.geteuid() == 0:
    WAYS += [
        ("as a user without rights", ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]),
        ("as root in a user namespace with one ID", ["unshare", "-Ur"]),
        ("as root without CAP_SYS_ADMIN", ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]),
        ("as root where no namespace is granted", [*NO_NAMESPACES, "--bounding-set=-sys_admin"]),
        ("as a user where no namespace is granted", [*NO_NAMESPACES, "--bounding-set=-all"]),
    ]
failures = 0


def check(ok, what):
    global failures
    if not ok:
        failures += 1
        print(f"FAILED: {what}")


def run(before, deed, env=None):
    return subprocess.run(before + [PROGRAM, deed], capture_output=True, text=True, timeout=20, env={**os.environ, **(env or {})})


def layers(before):
    r = run(before, "describe")
    check(r.returncode == 0, f"describe: {r.returncode} {r.stdout} {r.stderr}")
    return json.loads(r.stdout.splitlines()[0])["layers"] if r.stdout.startswith("{") else {}


def works(before):
    """The way itself may be forbidden here (no setpriv, no user namespaces)."""
    try:
        return subprocess.run(before + ["true"], capture_output=True, timeout=20).returncode == 0 if before else True
    except FileNotFoundError:
        return False


first = layers([])
if "sanitizer" in first.get("seccomp", ""):
    print("built with a sanitizer: the sandbox is off")
    sys.exit(SKIPPED)

for name, before in WAYS:
    if not works(before):
        print(f"skipped: {name}")
        continue
    got = layers(before)
    print(f"{name}:")
    for layer, state in got.items():
        print(f"  {layer}: {state}")
        check(state == "on" or state.startswith(("on: ", "absent: ")), f"{name}: {layer} is '{state}'")
    for always in ("limits", "no-capabilities", "no-new-privileges", "not-dumpable", "seccomp"):
        check(got.get(always, "").startswith("on"), f"{name}: {always} is '{got.get(always)}'")
    for deed in ALLOWED:
        r = run(before, deed)
        check(r.returncode == 0 and r.stdout == "done\n", f"{name}: {deed}: {r.returncode} {r.stdout}{r.stderr}")
    for deed in FORBIDDEN:
        r = run(before, deed)
        check(r.returncode == -signal.SIGSYS, f"{name}: {deed} did not end the process: {r.returncode} {r.stdout}{r.stderr}")
    r = run(before, "root")
    print(f"  root: {r.stdout.strip()}")
    facts = dict(word.split("=") for word in r.stdout.split())
    check(facts.get("nnp") == "1" and facts.get("core") == "0" and facts.get("dumpable") == "0", f"{name}: {r.stdout}{r.stderr}")
    if got.get("private-root", "").startswith("on") or got.get("landlock", "").startswith("on"):
        check(int(facts["etc"]) in (errno.ENOENT, errno.EACCES), f"{name}: /etc/passwd can be opened: {facts}")
        check(int(facts["mkdir"]) != 0, f"{name}: a directory can be made: {facts}")
    if got.get("namespaces", "").startswith("on"):
        check(int(facts["connect"]) in (errno.ENETUNREACH, errno.EACCES), f"{name}: loopback is there: {facts}")
    if got.get("own-user", "").startswith("on"):
        check(facts["uid"] not in ("0", str(os.getuid())), f"{name}: still user {facts['uid']}")

r = run([], "socket", {"LODGE_SECCOMP": "trap"})
check(r.returncode == 128 + signal.SIGSYS and "system call 41" in r.stderr, f"trap: {r.returncode} {r.stderr}")
r = run([], "vcpu:write", {"LODGE_SECCOMP": "trap"})
check("(pwrite64) is forbidden" in r.stderr, f"trap on a vCPU thread: {r.stderr}")
sys.exit(1 if failures else 0)
