#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The same conversation with QEMU and with Lodge: members, types, error classes, error texts and events must be alike."""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from common import ENV, Qmp, check, failures, sleeps, tmp

LODGE = sys.argv[1]
QEMU = shutil.which("qemu-system-x86_64")
if not QEMU:
    print("no qemu-system-x86_64")
    sys.exit(77)

TALK = [
    '{"execute":"query-status"}', '{"execute":"qmp_capabilities"}', '{"execute":"qmp_capabilities"}', '{"execute":"query-version"}',
    '{"execute":"query-status","id":{"a":1}}', '{"execute":"query-status","id":null}', '{"execute":"nope"}', '{"execute":"query-status","arguments":{"x":1}}',
    '{"execute":"getfd"}', '{"execute":"getfd","arguments":{"fdname":"x"}}', '{"execute":"getfd","arguments":{"fdname":5}}',
    '{"execute":"closefd","arguments":{"fdname":"x"}}', '{"execute":"add-fd"}', '{"execute":"remove-fd","arguments":{"fdset-id":1}}', '{"execute":"query-fdsets"}',
    '{"execute":"query-cpus-fast"}', '{"execute":"query-name"}', '{"execute":"query-uuid"}', '{"execute":"query-kvm"}', '{"execute":"query-memory-size-summary"}',
    '{"foo":1}', '{}', '{"execute":1}', '{"execute":"stop","arguments":[]}', '{"execute":"stop","zzz":1}', '[1]\n', '12\n',
    '{"execute":"cont"}', '{"execute":"query-status"}', '{"execute":"stop"}', '{"execute":"stop"}', '{"execute":"system_reset"}', '{"execute":"system_powerdown"}',
    '{"execute":"query-commands"}', '{"execute":"quit"}',
]
# Values that tell who it is; only their types are compared.
OWN = {"micro", "package", "thread-id", "qom-path", "present", "seconds", "microseconds", "fd"}


def shape(v, key=None):
    if isinstance(v, dict):
        return {k: shape(x, k) for k, x in v.items()}
    if isinstance(v, list):
        return [shape(x) for x in v]
    return type(v).__name__ if key in OWN else v


def converse(path, p):
    q = Qmp(path)
    answers = {"greeting": {k: v for k, v in shape(q.greeting)["QMP"].items() if k != "capabilities"}}
    for i, text in enumerate(TALK):
        answers[f"{i}: {text.strip()}"] = q.raw(text)
    while (m := q.message()) is not None:
        q.events.append(m)
    p.wait(30)
    events = [shape(e) for e in q.events]
    return answers, events


def lodge():
    path = tmp("lodge.qmp")
    p = subprocess.Popen([LODGE, "run", "--paused", "--memory", "32M", "--cpus", "2", "--name", "same", "--uuid", "00000000-0000-4000-8000-000000000001", "--kernel",
                          sleeps(), "--qmp", path, "--console", "none"], env=ENV, stdin=subprocess.DEVNULL)
    return converse(path, p)


def qemu():
    path = tmp("qemu.qmp")
    p = subprocess.Popen([QEMU, "-S", "-display", "none", "-nodefaults", "-accel", "tcg", "-m", "32", "-smp", "2", "-name", "same", "-uuid",
                          "00000000-0000-4000-8000-000000000001", "-qmp", f"unix:{path},server=on,wait=off"], stdin=subprocess.DEVNULL)
    return converse(path, p)


(ours, our_events), (theirs, their_events) = lodge(), qemu()
for text in theirs:
    a, b = shape(ours[text]), shape(theirs[text])
    if "query-commands" in text:
        names = {c["name"] for c in b["return"]}
        unknown = {c["name"] for c in a["return"]} - names - {"x-inspect"}
        check(not unknown, f"commands that QEMU does not have: {unknown}")
    else:
        check(a == b, f"{text}\n  lodge {a}\n  QEMU  {b}")
check(our_events == their_events, f"events\n  lodge {our_events}\n  QEMU  {their_events}")
sys.exit(1 if failures else 0)
