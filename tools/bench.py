#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of ./bench: medians over runs, Lodge and QEMU in turn so that both see the same machine."""
import argparse
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time


def children_cpu():
    r = resource.getrusage(resource.RUSAGE_CHILDREN)
    return r.ru_utime + r.ru_stime


def run_cpu(argv, env=None, limit=600):
    """Runs to the end: (CPU seconds of it and its children, wall seconds, exit status, output)."""
    cpu, wall = children_cpu(), time.monotonic()
    p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit, env=env)
    return children_cpu() - cpu, time.monotonic() - wall, p.returncode, p.stdout.decode("utf-8", "replace")


def time_to_output(argv, env=None):
    """Milliseconds from the program's start to the first byte of its output."""
    start = time.monotonic()
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env)
    first = os.read(p.stdout.fileno(), 1)
    elapsed = time.monotonic() - start
    p.stdout.read()
    p.wait()
    if first != b"x":
        sys.exit(f"{argv[0]}: the guest said {first!r}")
    return elapsed * 1000


def assemble(root, tmp, name):
    """tests/guest/NAME.S as an ELF32 multiboot kernel."""
    obj, exe = os.path.join(tmp, name + ".o"), os.path.join(tmp, name + ".elf")
    subprocess.run(["as", "--32", "-o", obj, os.path.join(root, f"tests/guest/{name}.S")], check=True)
    subprocess.run(["ld", "--no-warn-rwx-segments", "-m", "elf_i386", "-N", "-Ttext=0x100000", "-o", exe, obj], check=True)
    return exe


class Qmp:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        for _ in range(200):
            try:
                self.sock.connect(path)
                break
            except OSError:
                time.sleep(0.02)
        self.file = self.sock.makefile("rw")
        self.file.readline()
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        self.file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RuntimeError(answer["error"]["desc"])


def smaps(pid):
    """Private KiB outside guest RAM (memfds), and all private KiB."""
    private = ram = 0
    in_ram = False
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
                in_ram = "memfd:guest-ram" in line or "memfd:memory-backend" in line
            elif line.startswith(("Private_Clean:", "Private_Dirty:")):
                kib = int(line.split()[1])
                private += kib
                ram += kib if in_ram else 0
    return private - ram


class Bench:
    def __init__(self, o, tmp):
        self.o, self.tmp = o, tmp
        self.lodge = os.path.join(o.root, "build/lodge")
        self.env = dict(os.environ, LODGE_RUNTIME_DIR=os.path.join(tmp, "run"))
        self.rows = []

    def both(self, name, unit, lodge_fn, qemu_fn, runs, note=""):
        l, q = [], []
        for _ in range(runs):
            l.append(lodge_fn())
            if qemu_fn:
                q.append(qemu_fn())
        row = {"figure": name, "unit": unit, "lodge": statistics.median(l), "lodge-min": min(l), "lodge-max": max(l)}
        if q:
            row.update({"qemu": statistics.median(q), "qemu-min": min(q), "qemu-max": max(q), "lodge/qemu": statistics.median(l) / statistics.median(q)})
        row["note"] = note
        self.rows.append(row)
        qemu = f"{row['qemu']:10.3f} {row['lodge/qemu']:8.2f}" if q else f"{'-':>10} {'-':>8}"
        print(f"{name:44} {row['lodge']:10.3f} {qemu}  {unit}  [{min(l):.3f}-{max(l):.3f}] {note}", flush=True)

    def kernel_args(self):
        return ["--kernel", self.o.kernel, "--initrd", self.o.initrd]

    def lodge_boot(self):
        cpu, _, status, out = run_cpu([self.lodge, "run", "--memory", "1G", *self.kernel_args(), "--append", "console=ttyS0 quiet lodge.mode=intro"], self.env)
        if status != 0 or "guest: Linux" not in out:
            sys.exit(f"lodge did not boot (status {status}):\n{out}")
        return cpu

    def qemu_boot(self):
        cpu, _, status, out = run_cpu(["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1024", "-nographic", "-no-reboot", "-nic", "none",
                                       "-kernel", self.o.kernel, "-initrd", self.o.initrd, "-append", "console=ttyS0 quiet lodge.mode=intro"])
        if "guest: Linux" not in out:
            sys.exit(f"QEMU did not boot (status {status}):\n{out}")
        return cpu

    def lodge_first(self):
        return time_to_output([self.lodge, "run", "--memory", "128M", "--kernel", self.first_elf], self.env)

    def qemu_first(self):
        return time_to_output(["qemu-system-x86_64", "-accel", "tcg", "-m", "128", "-display", "none", "-nodefaults", "-serial", "stdio", "-kernel", self.first_elf,
                               "-device", "isa-debug-exit,iobase=0xf4,iosize=4"])

    def lodge_exit(self):
        _, wall, status, out = run_cpu([self.lodge, "run", "--memory", "128M", "--console", "none", "--kernel", self.exit_elf], self.env)
        if status != 7:
            sys.exit(f"lodge exit guest gave status {status}:\n{out}")
        return wall * 1000

    def qemu_exit(self):
        _, wall, status, out = run_cpu(["qemu-system-x86_64", "-accel", "tcg", "-m", "128", "-display", "none", "-nodefaults", "-kernel", self.exit_elf,
                                        "-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        if status != 15:
            sys.exit(f"QEMU exit guest gave status {status}:\n{out}")
        return wall * 1000

    def idle(self):
        """A guest that waits at its shell: speed so far, private memory, CPU use while idle."""
        p = subprocess.Popen([self.lodge, "run", "--name", "bench", "--memory", "1G", *self.kernel_args(), "--append", "console=ttyS0 quiet lodge.mode=shell"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.env)
        text = b""
        while b"You are root" not in text:
            chunk = os.read(p.stdout.fileno(), 4096)
            if not chunk:
                sys.exit("lodge ended early:\n" + text.decode("utf-8", "replace"))
            text += chunk
        with open(os.path.join(self.tmp, "run/bench/status")) as f:
            pid = json.load(f)["pid"]

        def cpu():
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        qmp = Qmp(os.path.join(self.tmp, "run/bench/qmp"))
        counters = qmp.command("x-inspect")["engine"]
        used = cpu()
        time.sleep(1)
        start, t = cpu(), time.monotonic()
        time.sleep(10)
        idle = (cpu() - start) / (time.monotonic() - t) * 100
        memory = smaps(pid) / 1024
        qmp.command("quit")
        p.wait(30)
        return sum(c["insns"] for c in counters["cpus"]) / used / 1e6, memory, idle

    def run(self):
        self.exit_elf = assemble(self.o.root, self.tmp, "exit")
        self.first_elf = assemble(self.o.root, self.tmp, "first")
        print(f"{'figure':44} {'lodge':>10} {'qemu':>10} {'ratio':>8}  unit  [lodge min-max]")
        self.both("process start to first guest instruction", "ms", self.lodge_first, self.qemu_first, 4 * self.o.runs, "goal <= 15")
        self.both("start a bare-metal guest to its exit", "ms", self.lodge_exit, self.qemu_exit, 4 * self.o.runs)
        self.both("boot Debian's cloud kernel to init and off", "CPU s", self.lodge_boot, self.qemu_boot, self.o.runs, "goal <= 20")
        samples = [self.idle() for _ in range(max(1, self.o.runs // 2))]
        for name, unit, i, note in (("instructions while booting", "M/s", 0, "goal >= 80"), ("VMM private memory beside guest RAM", "MiB", 1, "goal <= 24"),
                                    ("idle guest", "% of a core", 2, "goal < 2")):
            it = iter([s[i] for s in samples])
            self.both(name, unit, lambda it=it: next(it), None, len(samples), note)


def main():
    a = argparse.ArgumentParser()
    for name in ("root", "kernel", "initrd", "cache"):
        a.add_argument("--" + name, required=True)
    a.add_argument("--runs", type=int, default=5)
    a.add_argument("--json")
    o = a.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        b = Bench(o, tmp)
        b.run()
        if o.json:
            with open(o.json, "w") as f:
                json.dump(b.rows, f, indent=2)


main()
