# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks and networks with real guests."""
import hashlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
import zlib

from harness import Failure, Guest, check, initrd_with, lodge, nothing_left, tmp

MIB = 1 << 20


def image(name, mib):
    path = tmp(name)
    with open(path, "wb") as f:
        f.truncate(mib * MIB)
    return path


def crc(path, limit):
    value = 0
    with open(path, "rb") as f:
        while limit and (chunk := f.read(min(limit, 1 << 20))):
            value = zlib.crc32(chunk, value)
            limit -= len(chunk)
    return f"{value:08x}"


def a_disk_keeps_200_mb():
    """Written, synced, read back past the cache in the guest; then compared outside."""
    path = image("big.img", 256)
    script = """#!/bin/sh
set -e
dd if=/dev/urandom of=/tmp/seed bs=1048560 count=1 2>/dev/null
i=0
while [ $i -lt 200 ]; do
    printf '%-16s' "block $i"
    cat /tmp/seed
    i=$((i + 1))
done > /tmp/data
crc32 /tmp/data | sed 's/^/wrote: /'
dd if=/tmp/data of=/dev/vda bs=1M conv=fsync 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
dd if=/dev/vda bs=1M count=200 2>/dev/null | crc32 | sed 's/^/read-back: /'
sed 's/^/serial: /' /sys/block/vda/serial
"""
    with Guest("--memory", "768M", "--disk", f"{path},serial=LODGE42", initrd=initrd_with(script, "disk"), append="quiet lodge.mode=test lodge.net=off") as g:
        status = g.wait(900)
        check(status == 0 and "test-status: 0" in g.text, f"status {status}:\n{g.text[-2000:]}")
        wrote = re.search(r"wrote: ([0-9a-f]{8})", g.text).group(1)
        read = re.search(r"read-back: ([0-9a-f]{8})", g.text).group(1)
        check(wrote == read, "the guest read back something else")
        check(crc(path, 200 * MIB) == wrote, "the image outside differs")
        check("serial: LODGE42" in g.text, "serial number")


def synced_blocks_survive_kill_9_of_the_vmm():
    path = image("kill.img", 64)
    script = """#!/bin/sh
i=0
while true; do
    printf 'block %08d ' $i | dd of=/dev/vda bs=512 seek=$i conv=notrunc,sync,fsync 2>/dev/null && echo "synced $i"
    i=$((i + 1))
done
"""
    with Guest("--memory", "256M", "--disk", path, name="k9", initrd=initrd_with(script, "k9"), append="quiet lodge.mode=test lodge.net=off") as g:
        g.expect(r"synced 30\b")
        os.kill(g.status()["pid"], signal.SIGKILL)
        status = g.wait(30)
        check(status == 125, f"status {status}")
        last = int(re.findall(r"synced (\d+)\r", g.text)[-1])
    with open(path, "rb") as f:
        for i in range(last + 1):
            block = f.read(512)
            check(block.startswith(b"block %08d " % i), f"block {i} was acknowledged and is not there: {block[:20]}")
    nothing_left()


def a_readonly_disk_refuses_writes():
    path = image("ro.img", 8)
    script = "#!/bin/sh\ncat /sys/block/vda/ro | sed 's/^/ro: /'\ndd if=/dev/zero of=/dev/vda bs=512 count=1 conv=fsync && echo WROTE\ntrue\n"
    with Guest("--memory", "256M", "--disk", f"{path},readonly=on", initrd=initrd_with(script, "ro"), append="quiet lodge.mode=test lodge.net=off") as g:
        check(g.wait(300) == 0 and "ro: 1" in g.text and "WROTE" not in g.text, g.text[-1500:])


def a_disk_is_open_once():
    path = image("once.img", 8)
    with Guest("--memory", "256M", "--disk", path, append="quiet lodge.mode=shell") as g:
        g.expect("You are root")
        status, out, err = lodge("run", "--memory", "256M", "--kernel", os.environ["LODGE_KERNEL"], "--disk", path)
        check(status == 125 and "once.img" in err and re.search("in use|lock", err), f"{status} {err}")
        r = subprocess.run(["qemu-img", "resize", "-f", "raw", path, "16M"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        check(r.returncode != 0 and b"lock" in r.stdout, f"qemu-img took our image: {r.stdout}")
    p = subprocess.Popen(["qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-S", "-drive", f"file={path},format=raw,if=virtio"],
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(2)
        status, out, err = lodge("run", "--memory", "256M", "--kernel", os.environ["LODGE_KERNEL"], "--disk", path)
        check(status == 125 and re.search("in use|lock", err), f"{status} {err}")
    finally:
        p.kill()
        p.wait()


class Server(threading.Thread):
    """Takes one connection: sends `size` patterned bytes, or counts and hashes what comes."""

    def __init__(self, send=0):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(300)
        self.port = self.listener.getsockname()[1]
        self.send_size, self.hash, self.size = send, hashlib.sha256(), 0
        self.start()

    def run(self):
        conn, _ = self.listener.accept()
        with conn:
            block = bytes(range(256)) * 256
            left = self.send_size
            while left:
                part = block[: min(left, len(block))]
                conn.sendall(part)
                self.hash.update(part)
                left -= len(part)
            if self.send_size:
                conn.shutdown(socket.SHUT_WR)
            else:
                while chunk := conn.recv(1 << 16):
                    self.hash.update(chunk)
                    self.size += len(chunk)


def bulk_transfer_works_both_ways():
    down, up = Server(send=64 * MIB), Server()
    script = f"""#!/bin/sh
nc 10.0.2.2 {down.port} < /dev/null | sha256sum | sed 's/^/down: /'
head -c 33554432 /dev/urandom > /tmp/up
sha256sum /tmp/up | sed 's/^/up: /'
nc 10.0.2.2 {up.port} < /tmp/up
"""
    with Guest("--memory", "512M", "--net", "user", initrd=initrd_with(script, "bulk"), append="quiet lodge.mode=test") as g:
        check(g.wait(900) == 0, g.text[-2000:])
        check(f"down: {down.hash.hexdigest()}" in g.text, f"download differs:\n{g.text[-800:]}")
        up.join(30)
        check(f"up: {up.hash.hexdigest()}" in g.text and up.size == 32 * MIB, f"upload differs ({up.size} bytes):\n{g.text[-800:]}")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def a_forwarded_port_reaches_the_guest():
    port = free_port()
    script = "#!/bin/sh\necho ready-to-listen\necho from-the-guest | nc -l -p 7777\n"
    with Guest("--memory", "256M", "--net", f"user,forward=tcp:127.0.0.1:{port}:7777", initrd=initrd_with(script, "fwd"), append="quiet lodge.mode=test") as g:
        g.expect("ready-to-listen")
        end, data = time.monotonic() + 60, b""
        while b"from-the-guest" not in data:
            check(time.monotonic() < end, "nothing came through the forwarded port")
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as s:
                    s.settimeout(5)
                    data += s.recv(100)
            except OSError:
                time.sleep(0.3)
        g.wait(60)


def restrict_keeps_the_guest_inside():
    server = Server()
    script = f"#!/bin/sh\necho hello | nc -w 5 10.0.2.2 {server.port} && echo REACHED\ntrue\n"
    with Guest("--memory", "256M", "--net", "user,restrict=on", initrd=initrd_with(script, "restrict"), append="quiet lodge.mode=test") as g:
        g.wait(300)
        check(server.size == 0, "a restricted guest reached the host")


def a_taken_port_is_refused_before_the_start():
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        status, out, err = lodge("run", "--kernel", os.environ["LODGE_KERNEL"], "--net", f"user,forward=tcp:127.0.0.1:{port}:22")
        check(status == 125 and str(port) in err, f"{status} {err}")


CHECK = [
    a_disk_keeps_200_mb, synced_blocks_survive_kill_9_of_the_vmm, a_readonly_disk_refuses_writes, a_disk_is_open_once,
    bulk_transfer_works_both_ways, a_forwarded_port_reaches_the_guest, restrict_keeps_the_guest_inside, a_taken_port_is_refused_before_the_start,
]
