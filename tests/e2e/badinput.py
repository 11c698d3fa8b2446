# SPDX-License-Identifier: GPL-2.0-or-later
"""What users get wrong and strangers get up to: a clear message and the right exit status, never a crash."""
import json
import os
import random
import signal
import time

from harness import INITRD, KERNEL, Guest, bare, check, lodge, nothing_left, tmp


def refused(status, words, *args):
    got, out, err = lodge("run", *args, timeout=60)
    lines = [l for l in err.splitlines() if l.startswith("error: ")]
    check(got == status and len(lines) == 1 and all(w in err for w in words), f"{args}: status {got}, wanted {status} and {words}:\n{err}")
    check("Sanitizer" not in err and "signal" not in err, err)
    nothing_left()


def make(name, data):
    with open(tmp(name), "wb") as f:
        f.write(data)
    return tmp(name)


def bad_kernels_are_refused():
    with open(KERNEL, "rb") as f:
        kernel = f.read()
    rnd = random.Random(42)
    refused(125, ["/nonexistent", "No such file"], "--kernel", "/nonexistent")
    refused(125, ["empty"], "--kernel", make("empty", b""))
    refused(125, ["none of"], "--kernel", make("random", rnd.randbytes(100000)))
    refused(125, ["not a regular file"], "--kernel", "/tmp")
    for cut in (600, 0x260, 5000, 20000):
        refused(125, ["kernel"], "--kernel", make("cut", kernel[:cut]), "--memory", "64M")
    refused(125, ["--memory"], "--kernel", KERNEL, "--memory", "32M")
    refused(125, ["command line"], "--kernel", KERNEL, "--append", "x" * 5000)
    for i in range(10):                        # a damaged header is refused, or the guest crashes: never the VMM
        broken = bytearray(kernel[:200000])
        for _ in range(8):
            broken[rnd.randrange(0x1f1, 0x26c)] = rnd.randrange(256)
        with Guest("--memory", "128M", "--no-reboot", "--console", "none", name="broken", kernel=make("broken", bytes(broken)), initrd=None) as g:
            end = time.monotonic() + 2
            while g.p.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            g.p.send_signal(signal.SIGTERM)
            status = g.wait(30)
            check(status in (0, 1, 125, 143) and "signal 11" not in g.text and "signal 6" not in g.text, f"seed {i}: {status}\n{g.text}")
    elf = bytearray(open(bare("exit"), "rb").read())
    for offset in (28, 42, 44, 52 + 8, 52 + 12, 52 + 16, 52 + 20):
        hurt = bytearray(elf)
        hurt[offset:offset + 2] = b"\xff\xff"
        hurt[offset + 2:offset + 4] = b"\xff\xff"
        status, out, err = lodge("run", "--kernel", make("elf", bytes(hurt)), "--memory", "64M", "--no-reboot")
        check(status in (7, 1, 125) and "signal" not in err, f"offset {offset}: {status} {err}")


def bad_initrds_are_refused():
    refused(125, ["/nonexistent"], "--kernel", KERNEL, "--initrd", "/nonexistent")
    refused(125, ["initrd is empty"], "--kernel", KERNEL, "--initrd", make("empty", b""))
    big = tmp("big-initrd")
    with open(big, "wb") as f:
        f.truncate(600 << 20)
    refused(125, ["initrd", "--memory"], "--kernel", KERNEL, "--initrd", big, "--memory", "256M")


def bad_disks_are_refused():
    refused(125, ["/nonexistent"], "--kernel", KERNEL, "--disk", "/nonexistent")
    refused(125, ["disk /tmp"], "--kernel", KERNEL, "--disk", "/tmp")
    refused(125, ["not a regular file"], "--kernel", KERNEL, "--disk", "/dev/null")
    refused(2, ["qcow2"], "--kernel", KERNEL, "--disk", make("d.img", b"\0" * 512) + ",format=qcow2")
    os.mkfifo(tmp("fifo"))
    refused(125, ["fifo"], "--kernel", KERNEL, "--disk", tmp("fifo") + ",readonly=on")


def bad_configs_are_refused():
    refused(2, ["/nonexistent"], "--config", "/nonexistent")
    refused(2, ["c.json"], "--config", make("c.json", b""))
    refused(2, ["c.json"], "--config", make("c.json", b"{"))
    refused(2, ["memroy", "memory"], "--config", make("c.json", b'{"memroy": 1}'))
    refused(2, ["memory"], "--config", make("c.json", b'{"memory": "lots"}'))
    refused(2, ["c.json"], "--config", make("c.json", b'{"name": "a", "name": "b"}'))
    refused(2, ["c.json"], "--config", make("c.json", b"[" * 100000))
    refused(2, ["c.json"], "--config", make("c.json", random.Random(1).randbytes(4096)))
    refused(2, ["cannot be set"], "--config", make("c.json", b'{"kernel-fd": 0}'))


def bad_options_are_refused():
    refused(2, ["--kernel"], "--kernle", "x")
    refused(2, ["needs a value"], "--kernel")
    refused(2, ["--paused", "no value"], "--paused=yes")
    refused(2, ["soft"], "--engine", "sofft")
    refused(2, ["memory"], "--memory", "12Q")
    refused(2, ["too small"], "--memory", "0")
    refused(2, ["8 CPUs"], "--cpus", "9")
    refused(2, ["is not 4"], "--cpus", "4,sockets=3")
    refused(2, ["name"], "--name", "../x")
    refused(2, ["UUID"], "--uuid", "123")
    refused(2, ["MAC"], "--kernel", KERNEL, "--net", "user,mac=zz")
    refused(2, ["readonly"], "--disk", "x,readonli=on")
    refused(125, ["--kernel"], "--memory", "64M")
    refused(125, ["kvm"], "--engine", "kvm", "--kernel", KERNEL)
    refused(125, ["memory"], "--kernel", KERNEL, "--memory", "100T")
    refused(125, ["CPU"], "--kernel", KERNEL, "--cpu", "maxx")
    refused(2, ["rtc"], "--kernel", KERNEL, "--rtc", "yesterday")


def a_definition_survives_a_round_trip():
    status, out, err = lodge("run", "--dry-run", "--name", "rt", "--kernel", KERNEL, "--initrd", INITRD, "--append", "a b", "--cpus", "4,cores=2", "--memory", "1G",
                             "--disk", "/x,,y,serial=s", "--net", "user,forward=tcp:1:2,forward=udp:3:4", "--net", "none", "--rng", "--balloon", "--no-reboot",
                             "--console", "unix:/tmp/c", "--machine", "micro")
    check(status == 0, err)
    with open(tmp("rt.json"), "w") as f:
        f.write(out)
    status, again, err = lodge("run", "--dry-run", "--config", tmp("rt.json"))
    check(status == 0 and json.loads(again) == json.loads(out), f"{err}\n{out}\n{again}")


CHECK = [
    bad_kernels_are_refused, bad_initrds_are_refused, bad_disks_are_refused, bad_configs_are_refused, bad_options_are_refused,
    a_definition_survives_a_round_trip,
]
