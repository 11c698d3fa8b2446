# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests and helpers for the end-to-end tests. A test is a function in a suite list; it raises to fail."""
import atexit
import glob
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

ROOT = os.environ["LODGE_ROOT"]
KERNEL = os.environ["LODGE_KERNEL"]
INITRD = os.environ["LODGE_INITRD"]
CACHE = os.environ["LODGE_CACHE"]
BUILD = os.environ.get("LODGE_BUILD", os.path.join(ROOT, "build"))
LODGE = os.path.join(BUILD, "lodge")
TMP = tempfile.mkdtemp(prefix="lodge-e2e-")
RUNTIME = os.path.join(TMP, "run")
os.mkdir(RUNTIME, 0o700)
os.chmod(TMP, 0o755)
ENV = dict(os.environ, LODGE_RUNTIME_DIR=RUNTIME)
atexit.register(lambda: shutil.rmtree(TMP, ignore_errors=True))


class Failure(Exception):
    pass


class NotRun(Exception):
    """The host forbids what the rest of the test is about; said, and not counted as passed."""


def check(ok, what):
    if not ok:
        raise Failure(what)


def tmp(name):
    return os.path.join(TMP, name)


def lodge(*args, timeout=60, env=None, stdin=subprocess.DEVNULL):
    """Runs lodge to its end: (status, stdout, stderr)."""
    p = subprocess.run([LODGE, *args], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, env=env or ENV)
    return p.returncode, p.stdout.decode("utf-8", "replace"), p.stderr.decode("utf-8", "replace")


def initrd_with(script, name="test"):
    """The small guest's initramfs with /test added: a second archive behind the first, as the kernel allows."""
    out = tmp(f"initrd-{name}.img")
    data = script.encode()

    def entry(path, mode, body):
        fields = [0, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(path) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % f for f in fields) + path.encode() + b"\0"
        return head + b"\0" * (-len(head) % 4) + body + b"\0" * (-len(body) % 4)

    archive = entry("test", 0o100755, data) + entry("TRAILER!!!", 0, b"")
    with open(INITRD, "rb") as f:
        base = f.read()
    with open(out, "wb") as f:
        f.write(base + b"\0" * (-len(base) % 4) + archive)
    return out


class Guest:
    """lodge run with its output collected; end with wait() or close()."""

    def __init__(self, *args, kernel=KERNEL, initrd=INITRD, append="", name=None, env=None, prefix=(), console=True):
        argv = [*prefix, LODGE, "run"]
        if name:
            argv += ["--name", name]
        if kernel:
            argv += ["--kernel", kernel]
        if initrd:
            argv += ["--initrd", initrd]
        if append is not None and kernel:
            argv += ["--append", "console=ttyS0 " + append]
        self.name = name
        self.text = ""
        self.p = subprocess.Popen(argv + list(args), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env or ENV)

    def expect(self, pattern, timeout=300):
        """Waits until the output matches; returns the match."""
        end = time.monotonic() + timeout
        while True:
            m = re.search(pattern, self.text)
            if m:
                return m
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.p.stdout], [], [], left)[0]:
                self.close()
                raise Failure(f"no {pattern!r} within {timeout} s; the output ends:\n{self.text[-3000:]}")
            chunk = os.read(self.p.stdout.fileno(), 65536)
            if not chunk:
                raise Failure(f"the guest ended (status {self.p.wait()}) before {pattern!r}; the output ends:\n{self.text[-3000:]}")
            self.text += chunk.decode("utf-8", "replace")

    def send(self, text):
        self.p.stdin.write(text.encode())
        self.p.stdin.flush()

    def wait(self, timeout=300):
        end = time.monotonic() + timeout
        while True:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.p.stdout], [], [], left)[0]:
                self.close()
                raise Failure(f"the guest did not end within {timeout} s; the output ends:\n{self.text[-3000:]}")
            chunk = os.read(self.p.stdout.fileno(), 65536)
            if not chunk:
                return self.p.wait(30)
            self.text += chunk.decode("utf-8", "replace")

    def status(self):
        with open(os.path.join(RUNTIME, self.name, "status")) as f:
            return json.load(f)

    def qmp(self):
        return Qmp(os.path.join(RUNTIME, self.name, "qmp"))

    def close(self):
        if self.p.poll() is None:
            self.p.terminate()
            try:
                self.p.wait(20)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
        self.p.stdout.close()


class Qmp:
    def __init__(self, path, timeout=30):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        self.sock.connect(path)
        self.file = self.sock.makefile("rw")
        self.greeting = json.loads(self.file.readline())
        self.events = []
        self.command("qmp_capabilities")

    def raw(self, text):
        self.file.write(text + "\n")
        self.file.flush()
        while True:
            line = self.file.readline()
            if not line:
                raise Failure("the control socket was closed")
            answer = json.loads(line)
            if "event" in answer:
                self.events.append(answer)
            else:
                return answer

    def command(self, name, **arguments):
        answer = self.raw(json.dumps({"execute": name, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}))
        if "error" in answer:
            raise Failure(f"{name}: {answer['error']['desc']}")
        return answer["return"]

    def event(self, name, timeout=60):
        """Waits for an event; those before it are kept."""
        end = time.monotonic() + timeout
        while True:
            for e in self.events:
                if e["event"] == name:
                    self.events.remove(e)
                    return e
            self.sock.settimeout(max(0.1, end - time.monotonic()))
            line = self.file.readline()
            if not line:
                raise Failure(f"the control socket was closed before {name}")
            self.events.append(json.loads(line))


_built = {}


def bare(name):
    """tests/guest/NAME.S as an ELF32 multiboot kernel."""
    if name not in _built:
        obj, exe = tmp(name + ".o"), tmp(name + ".elf")
        subprocess.run(["as", "--32", "-o", obj, os.path.join(ROOT, "tests/guest", name + ".S")], check=True)
        subprocess.run(["ld", "--no-warn-rwx-segments", "-m", "elf_i386", "-N", "-Ttext=0x100000", "-o", exe, obj], check=True)
        _built[name] = exe
    return _built[name]


def our_processes():
    """Command lines of live lodge programs that belong to this run (by its runtime directory)."""
    found = []
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as f:
                environ = f.read()
            with open(path.replace("environ", "cmdline"), "rb") as f:
                cmd = f.read().split(b"\0")
        except OSError:
            continue
        if RUNTIME.encode() in environ and b"lodge" in os.path.basename(cmd[0]):
            found.append(b" ".join(cmd).decode())
    return found


def nothing_left(timeout=15, sweep=False):
    """No process, no registration remains. sweep: the broker itself was killed, and `lodge ps` cleans up after it."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if sweep:
            lodge("ps")
        if not our_processes() and not os.listdir(RUNTIME):
            return
        time.sleep(0.1)
    raise Failure(f"left behind: {our_processes()} {os.listdir(RUNTIME)}")
