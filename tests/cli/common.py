# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command line's tests share: a program to run, a place of their own, guests of a few bytes."""
import atexit
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time

TMP = tempfile.mkdtemp(prefix="lodge-cli-")
atexit.register(lambda: shutil.rmtree(TMP, ignore_errors=True))
ENV = dict(os.environ, LODGE_RUNTIME_DIR=os.path.join(TMP, "run"))
failures = []


def tmp(name):
    return os.path.join(TMP, name)


def check(ok, what):
    if not ok:
        failures.append(what)
        print(f"FAILED: {what}")


def run(*argv, timeout=30, **kw):
    kw.setdefault("stdin", subprocess.DEVNULL)
    kw.setdefault("env", ENV)
    return subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=timeout, **kw)


def multiboot(name, code):
    """An ELF multiboot 1 kernel of 32-bit machine code at 1 MiB."""
    base, magic, flags = 0x100000, 0x1BADB002, 0
    body = struct.pack("<III", magic, flags, -(magic + flags) & 0xFFFFFFFF) + b"\0\0\0\0" + code
    head = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 3, 1, base + 16, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    phdr = struct.pack("<IIIIIIII", 1, 0x1000, base, base, len(body), len(body), 7, 0x1000)
    path = tmp(name)
    with open(path, "wb") as f:
        f.write((head + phdr).ljust(0x1000, b"\0") + body)
    return path


def exits_with(value):
    """Prints OK and a newline, then writes `value` to the debug-exit port."""
    out = b"".join(b"\xb0" + bytes([c]) + b"\x66\xba\xf8\x03\xee" for c in b"OK\n")
    return multiboot(f"exit-{value}.elf", out + b"\xb0" + bytes([value]) + b"\xe6\xf4\xf4\xeb\xfd")


def sleeps():
    """Prints UP and halts for ever."""
    out = b"".join(b"\xb0" + bytes([c]) + b"\x66\xba\xf8\x03\xee" for c in b"UP\n")
    return multiboot("sleep.elf", out + b"\xfa\xf4\xeb\xfd")


class Qmp:
    def __init__(self, path, timeout=20):
        end = time.monotonic() + timeout
        while True:
            self.s = socket.socket(socket.AF_UNIX)
            try:
                self.s.connect(path)
                break
            except OSError:
                self.s.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        self.s.settimeout(timeout)
        self.f = self.s.makefile("rb")
        self.events = []
        self.greeting = self.message()

    def message(self):
        line = self.f.readline()
        return json.loads(line) if line else None

    def raw(self, text):
        """Sends text; the next answer (events are kept aside)."""
        self.s.sendall(text.encode())
        while True:
            m = self.message()
            if m is None or "event" not in m:
                return m
            self.events.append(m)

    def do(self, command, **arguments):
        return self.raw(json.dumps({"execute": command, "arguments": arguments} if arguments else {"execute": command}))
