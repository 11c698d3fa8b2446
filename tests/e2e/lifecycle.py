# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting, ending, listing, signals, terminals; several CPUs; many starts."""
import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time

from harness import ENV, KERNEL, INITRD, LODGE, RUNTIME, Failure, Guest, NotRun, bare, check, initrd_with, lodge, nothing_left, our_processes, tmp


def boots(cpus, *args):
    with Guest("--memory", "256M", "--cpus", cpus, "--net", "user", *args, append="quiet lodge.mode=intro") as g:
        status = g.wait(600)
        check(status == 0, f"status {status}:\n{g.text[-2000:]}")
        check(re.search(r"guest: Linux 6\.", g.text), f"no introduction:\n{g.text[-2000:]}")
        check(f"cpus: {cpus.split(',')[0]}\r" in g.text, f"wrong CPU count:\n{g.text[-2000:]}")
        check("address: 10.0.2.15" in g.text, f"no address:\n{g.text[-2000:]}")


def linux_boots_with_1_cpu():
    boots("1")


def linux_boots_with_2_cpus():
    boots("2")


def linux_boots_with_4_cpus_on_micro():
    boots("4,cores=2,threads=2", "--machine", "micro")


def linux_boots_with_8_cpus():
    boots("8")


def linux_boots_by_pvh():
    """The ELF kernel out of the bzImage."""
    with Guest("--memory", "256M", "--log", "info", kernel=os.environ["LODGE_VMLINUX"], append="quiet lodge.mode=intro") as g:
        check(g.wait(600) == 0 and "pvh protocol" in g.text and "guest: Linux 6." in g.text, g.text[-2000:])


def debug_exit_value_becomes_the_status():
    status, out, err = lodge("run", "--memory", "64M", "--kernel", bare("exit"))
    check(status == 7, f"status {status}: {err}")


def triple_fault_with_no_reboot_is_reported():
    status, out, err = lodge("run", "--memory", "64M", "--no-reboot", "--kernel", bare("triple"))
    check(status == 1 and "triple fault" in err, f"status {status}: {err}")


def hundred_starts_leave_nothing():
    for i in range(100):
        status, out, err = lodge("run", "--memory", "64M", "--console", "none", "--kernel", bare("exit"))
        check(status == 7, f"start {i}: status {status}: {err}")
    nothing_left()


def five_linux_starts_leave_nothing():
    for _ in range(5):
        boots("1")
        nothing_left()


def ps_lists_and_stop_powers_off():
    with Guest("--memory", "256M", name="stopme", append="quiet lodge.mode=shell") as g:
        g.expect("You are root")
        status, out, err = lodge("ps", "--json")
        guests = json.loads(out)
        check([x["name"] for x in guests] == ["stopme"], out)
        check(guests[0]["engine"] == "soft" and guests[0]["memory"] == 256 << 20, out)
        status, out, err = lodge("stop", "stopme", timeout=120)
        check(status == 0 and "warning" not in err, f"stop: {status} {err}")
        check(g.wait(10) == 0, "guest status")
    status, out, err = lodge("stop", "stopme")
    check(status == 3 and "lodge ps" in err, f"{status} {err}")


def a_name_is_taken_once():
    with Guest("--memory", "64M", name="twice", kernel=bare("spin"), initrd=None, append=None) as g:
        wait_registered("twice")
        status, out, err = lodge("run", "--name", "twice", "--kernel", bare("exit"))
        check(status == 125 and "twice" in err and "--name" in err, f"{status} {err}")


def wait_registered(name, timeout=20):
    end = time.monotonic() + timeout
    while not os.path.exists(os.path.join(RUNTIME, name, "status")):
        check(time.monotonic() < end, f"{name} did not register")
        time.sleep(0.02)


def two_guests_run_side_by_side():
    with Guest("--memory", "256M", "--net", "user", name="left", append="quiet lodge.mode=shell") as a, \
         Guest("--memory", "256M", "--net", "user", name="right", append="quiet lodge.mode=shell") as b:
        a.expect("You are root")
        b.expect("You are root")
        for g, word in ((a, "one"), (b, "two")):
            g.send(f"echo this-is-{word}-$((40+2))\n")
            g.expect(f"this-is-{word}-42", 60)
        b.p.kill()
        b.p.wait()
        end = time.monotonic() + 15
        while "right" in lodge("ps", "--quiet")[1].split():
            check(time.monotonic() < end, "a killed guest is still listed")
            time.sleep(0.1)
        a.send("echo still-$((1+1))\n")
        a.expect("still-2", 60)
        a.send("exit\n")
        check(a.wait(60) == 0, "status of the survivor")


def signals_end_the_guest_cleanly():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with Guest("--memory", "64M", name="sig", kernel=bare("spin"), initrd=None, append=None) as g:
            wait_registered("sig")
            g.p.send_signal(number)
            status = g.wait(30)
            check(status == 128 + number, f"{number}: status {status}")
        nothing_left()


def a_reader_that_stalls_does_not_make_lodge_deaf():
    with Guest("--memory", "256M", name="stall", append="quiet lodge.mode=shell") as g:
        g.expect("You are root")
        g.send("yes\n")
        time.sleep(2)                           # nobody reads: the pipe is full
        os.read(g.p.stdout.fileno(), 4096)      # room for a page, not for more
        time.sleep(1)
        g.p.send_signal(signal.SIGTERM)
        try:
            check(g.p.wait(30) == 128 + signal.SIGTERM, "status")
        except subprocess.TimeoutExpired:
            raise Failure("lodge does not end while its reader stalls")


def closed_standard_descriptors_do_no_harm():
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        p = subprocess.run(["bash", "-c", f'exec "$0" "$@" {closed}', LODGE, "run", "--memory", "64M", "--kernel", bare("exit")], env=ENV, timeout=60)
        check(p.returncode == 7, f"{closed}: status {p.returncode}")


def a_background_job_leaves_the_terminal_to_its_shell():
    pid, fd = pty.fork()
    if pid == 0:
        os.execve("/bin/bash", ["bash", "--norc", "-i"], dict(ENV, PS1="$ "))
    os.write(fd, f"{LODGE} run --name bg --memory 64M --kernel {bare('spin')} &\n".encode())
    wait_registered("bg")
    time.sleep(1.5)
    os.write(fd, b"echo alive-$((1+1)); stty -a; sleep 1; stty -a\n")
    text = read_until(fd, "alive-2", 20)
    time.sleep(2)
    check(termios.tcgetattr(fd)[3] & termios.ISIG, "the shell's terminal lost its modes")
    status, _, err = lodge("stop", "--force", "bg")
    check(status == 0, f"stop --force: {status} {err}\n{text}")
    os.write(fd, b"exit\n")
    time.sleep(0.5)
    os.close(fd)
    os.waitpid(pid, 0)


def kill_9_of_the_vmm_leaves_nothing():
    with Guest("--memory", "64M", "--net", "user", name="killed", kernel=bare("spin"), initrd=None, append=None) as g:
        wait_registered("killed")
        os.kill(g.status()["pid"], signal.SIGKILL)
        status = g.wait(30)
        check(status == 125 and "signal 9" in g.text, f"status {status}: {g.text}")
    nothing_left()


def kill_9_of_the_broker_leaves_nothing():
    with Guest("--memory", "64M", "--net", "user", name="orphan", kernel=bare("spin"), initrd=None, append=None) as g:
        wait_registered("orphan")
        g.p.kill()
        g.p.wait()
    nothing_left(sweep=True)


def run_on_terminal(argv):
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(LODGE, [LODGE, *argv], ENV)
    return pid, fd


def read_until(fd, pattern, timeout):
    text, end = "", time.monotonic() + timeout
    while not re.search(pattern, text):
        left = end - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            raise Failure(f"no {pattern!r} on the terminal:\n{text[-1500:]}")
        try:
            chunk = os.read(fd, 4096)
        except OSError:
            chunk = b""
        if not chunk:
            raise Failure(f"terminal closed before {pattern!r}:\n{text[-1500:]}")
        text += chunk.decode("utf-8", "replace")
    return text


def a_terminal_is_raw_and_restored():
    pid, fd = run_on_terminal(["run", "--memory", "256M", "--kernel", KERNEL, "--initrd", INITRD, "--append", "console=ttyS0 quiet lodge.mode=shell"])
    before = None
    read_until(fd, "You are root", 300)
    raw = termios.tcgetattr(fd)
    check(not raw[3] & termios.ICANON, "the terminal is not raw while the guest runs")
    os.write(fd, b"sleep 100\n")
    time.sleep(1)
    os.write(fd, b"\x03")                      # Ctrl-C goes to the guest
    os.write(fd, b"echo back-$((2+3))\n")
    read_until(fd, "back-5", 60)
    os.write(fd, b"\x01h")
    read_until(fd, "end the guest at once", 20)
    os.write(fd, b"\x01x")
    end = time.monotonic() + 30
    status = None
    while time.monotonic() < end and status is None:
        done, st = os.waitpid(pid, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(st)
        elif select.select([fd], [], [], 0.1)[0]:
            try:
                os.read(fd, 4096)
            except OSError:
                pass
    check(status == 0, f"status {status} after Ctrl-A X")
    after = termios.tcgetattr(fd)
    check(after[3] & termios.ICANON and after[3] & termios.ECHO, "the terminal was not restored")
    os.close(fd)


def a_closed_terminal_ends_the_guest():
    pid, fd = run_on_terminal(["run", "--name", "hup", "--memory", "64M", "--kernel", bare("spin")])
    wait_registered("hup")
    os.close(fd)
    end = time.monotonic() + 30
    while True:
        done, _ = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        check(time.monotonic() < end, "lodge did not notice the closed terminal")
        time.sleep(0.05)
    nothing_left()


def runs_unprivileged_in_a_container_like_namespace():
    """As nobody, in user, mount and PID namespaces of its own: no capability on the host."""
    run = tmp("nobody")
    os.makedirs(run, exist_ok=True)
    os.chmod(run, 0o700)
    prefix = []
    if os.getuid() == 0:
        os.chown(run, 65534, 65534)
        prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    own_namespaces = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]
    may_unshare = subprocess.run([*prefix, *own_namespaces, "true"], stderr=subprocess.DEVNULL).returncode == 0
    for namespaces in ([], own_namespaces) if may_unshare else ([],):
        with Guest("--memory", "256M", "--net", "user", append="quiet lodge.mode=intro", prefix=prefix + namespaces,
                   kernel=public(KERNEL), initrd=public(INITRD), env=dict(ENV, LODGE_RUNTIME_DIR=run, HOME="/")) as g:
            status = g.wait(600)
            check(status == 0 and "address: 10.0.2.15" in g.text, f"{namespaces}: status {status}:\n{g.text[-2000:]}")
    if not may_unshare:
        raise NotRun("this host forbids user namespaces; the plain unprivileged run passed")


def public(path):
    """A copy that anybody may read."""
    copy = tmp("public-" + os.path.basename(path))
    if not os.path.exists(copy):
        with open(path, "rb") as a, open(copy, "wb") as b:
            b.write(a.read())
        os.chmod(copy, 0o644)
    return copy


CHECK = [
    linux_boots_with_1_cpu, linux_boots_with_2_cpus, linux_boots_with_4_cpus_on_micro, linux_boots_with_8_cpus, linux_boots_by_pvh,
    debug_exit_value_becomes_the_status, triple_fault_with_no_reboot_is_reported, hundred_starts_leave_nothing, five_linux_starts_leave_nothing,
    ps_lists_and_stop_powers_off, a_name_is_taken_once, two_guests_run_side_by_side, signals_end_the_guest_cleanly,
    a_reader_that_stalls_does_not_make_lodge_deaf, closed_standard_descriptors_do_no_harm, a_background_job_leaves_the_terminal_to_its_shell,
    kill_9_of_the_vmm_leaves_nothing, kill_9_of_the_broker_leaves_nothing, a_terminal_is_raw_and_restored, a_closed_terminal_ends_the_guest,
    runs_unprivileged_in_a_container_like_namespace,
]
