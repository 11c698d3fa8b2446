#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""lodge run, ps and stop with guests of a few bytes: exit statuses, registration, signals, the sandbox, nothing left behind."""
import json
import os
import signal
import subprocess
import sys
import time

from common import ENV, Qmp, check, exits_with, failures, multiboot, run, sleeps, tmp

LODGE = sys.argv[1]
RUNTIME = ENV["LODGE_RUNTIME_DIR"]


def start(name, *options):
    p = subprocess.Popen([LODGE, "run", "--name", name, "--memory", "16M", "--kernel", sleeps(), *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, env=ENV)
    check(p.stdout.readline() == "UP\n", f"{name} did not come up")
    return p


def ended(p, status, what):
    out, err = p.communicate(timeout=30)
    check(p.returncode == status, f"{what}: status {p.returncode}, not {status}: {out}{err}")
    check(not os.path.exists(RUNTIME) or os.listdir(RUNTIME) == [], f"{what}: left {os.listdir(RUNTIME)}")


def gone(pid, what):
    for _ in range(200):
        try:
            with open(f"/proc/{pid}/stat") as f:
                if f.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except FileNotFoundError:
            return
        time.sleep(0.02)
    check(False, f"{what}: process {pid} is still there")


# The guest's value is the exit status, its console our output.
for value in (0, 42, 255):
    for sandbox in ("on", "off"):
        r = run(LODGE, "run", "--memory", "16M", "--kernel", exits_with(value), "--sandbox", sandbox)
        check(r.returncode == value and r.stdout == "OK\n" and not r.stderr, f"exit {value}, sandbox {sandbox}: {r}")
r = run(LODGE, "run", "--memory", "16M", "--kernel", exits_with(7), "--console", f"file:{tmp('console')}")
with open(tmp("console")) as f:
    check(r.returncode == 7 and f.read() == "OK\n", f"console file: {r}")
triple = multiboot("triple.elf", b"\x0f\x01\x1d\x20\x00\x10\x00\xcc" + b"\0" * 32)
r = run(LODGE, "run", "--memory", "16M", "--kernel", triple, "--no-reboot")
check(r.returncode == 1 and "triple fault" in r.stderr, f"triple fault: {r}")
with open(tmp("garbage"), "wb") as f:
    f.write(os.urandom(65536))
r = run(LODGE, "run", "--memory", "16M", "--kernel", tmp("garbage"))
check(r.returncode == 125 and r.stderr.startswith("error: "), f"garbage: {r}")

# Registration, control socket, the sandbox as it says it is.
p = start("one")
guests = json.loads(run(LODGE, "ps", "--json").stdout)
check([g["name"] for g in guests] == ["one"], f"ps: {guests}")
check(run(LODGE, "ps", "--quiet").stdout == "one\n", "ps --quiet")
check(" one " in " " + run(LODGE, "ps").stdout.splitlines()[1], "ps")
check(os.stat(guests[0]["qmp"]).st_mode & 0o777 == 0o600, "the control socket is for others, too")
r = run(LODGE, "run", "--name", "one", "--kernel", exits_with(1))
check(r.returncode == 125 and "is running" in r.stderr, f"name taken: {r}")
q = Qmp(guests[0]["qmp"])
q.do("qmp_capabilities")
check(q.do("query-status")["return"]["status"] == "running", "query-status")
sandbox = q.do("x-inspect")["return"]["sandbox"]
check(sandbox["on"] and "not yet" not in sandbox["layers"].values(), f"{sandbox}")
if "sanitizer" not in sandbox["layers"]["seccomp"]:
    with open(f"/proc/{guests[0]['pid']}/status") as f:
        status = dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)
    check(status["Seccomp"] == "2" and status["NoNewPrivs"] == "1", f"{status}")
    check(all(int(status[c], 16) == 0 for c in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")), f"{status}")
    if os.geteuid() == 0:
        fds = os.listdir(f"/proc/{guests[0]['pid']}/root")
        check(fds == [] or not sandbox["layers"]["private-root"].startswith("on"), f"its root holds {fds}")
q.do("quit")
while (m := q.message()) is not None and m.get("event") != "SHUTDOWN":
    pass
check(m and m["data"] == {"guest": False, "reason": "host-qmp-quit"}, f"quit: {m}")
ended(p, 0, "quit")

# stop presses the button in vain, then ends it; --force does not ask.
p = start("two")
r = run(LODGE, "stop", "--timeout", "0", "two")
check(r.returncode == 0 and "did not power off" in r.stderr, f"stop: {r}")
ended(p, 0, "stop")
p = start("three", "--sandbox", "off")
check(run(LODGE, "stop", "--force", "three").returncode == 0, "stop --force")
ended(p, 0, "stop --force")

for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    p = start("four")
    p.send_signal(sig)
    ended(p, 128 + sig, sig.name)

# Killed: whoever is left ends, and what is left is swept up.
p = start("five")
vmm = json.loads(run(LODGE, "ps", "--json").stdout)[0]["pid"]
p.kill()
p.communicate()
gone(vmm, "the broker was killed")
check(run(LODGE, "ps", "--quiet").stdout == "" and os.listdir(RUNTIME) == [], f"the broker was killed: {os.listdir(RUNTIME)}")
p = start("six", "--qmp", tmp("six.qmp"))
os.kill(json.loads(run(LODGE, "ps", "--json").stdout)[0]["pid"], signal.SIGKILL)
ended(p, 125, "the VMM was killed")
check(not os.path.exists(tmp("six.qmp")), "its socket is left")

# Two side by side.
a, b = start("a"), start("b")
check(run(LODGE, "ps", "--quiet").stdout == "a\nb\n", "two guests")
check(run(LODGE, "stop", "--force", "a", "b").returncode == 0, "stop of two")
ended(a, 0, "a")
ended(b, 0, "b")
sys.exit(1 if failures else 0)
