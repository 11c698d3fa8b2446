#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Options: parsing, suggestions, --help, completion and the man pages say the same; a definition survives its round trip."""
import json
import os
import re
import subprocess
import sys

from common import TMP, check, failures, run, tmp

LODGE, MAN = sys.argv[1:3]
COMMANDS = ["run", "ps", "stop", "host", "completion"]


def options_of(command):
    r = run(LODGE, command, "--help")
    check(r.returncode == 0 and not r.stderr, f"{command} --help: {r}")
    return set(re.findall(r"^  --([a-z-]+)", r.stdout, re.M))


def fails(args, status, *texts):
    r = run(LODGE, *args)
    check(r.returncode == status, f"{args}: status {r.returncode}, not {status}: {r.stderr}")
    check(r.stderr.startswith(("error: ", "usage: ")) and r.stderr.count("\n") == 1 or r.stderr.startswith("usage"), f"{args}: {r.stderr!r}")
    for text in texts:
        check(text in r.stderr, f"{args}: {text!r} is not in {r.stderr!r}")
    check(not r.stdout, f"{args}: stdout {r.stdout!r}")


# The commands are those that --help names, each documented with all of its options and no other.
listed = re.findall(r"^  (\w+) ", run(LODGE, "--help").stdout, re.M)
check(listed == COMMANDS, f"commands: {listed}")
with open(os.path.join(MAN, "lodge.1.scd")) as f:
    overview = f.read()
completion = run(LODGE, "completion").stdout
check(subprocess.run(["bash", "-n"], input=completion, text=True).returncode == 0, "the completion script is no bash")
for command in COMMANDS:
    options = options_of(command)
    with open(os.path.join(MAN, f"lodge-{command}.1.scd")) as f:
        documented = set(re.findall(r"^\*--([a-z-]+)\*", f.read(), re.M)) - {"help"}
    check(options == documented, f"{command}: options {options ^ documented} are only in one of --help and man page")
    check(f"*{command}*" in overview, f"lodge.1 does not name {command}")
    script = completion + f'\nCOMP_WORDS=(lodge {command} --)\nCOMP_CWORD=2\n_lodge\nprintf "%s\\n" "${{COMPREPLY[@]}}"\n'
    got = subprocess.run(["bash"], input=script, capture_output=True, text=True).stdout.split()
    check(set(got) == {"--" + o for o in options | {"help"}}, f"{command}: completion offers {got}")
    check(run(LODGE, command, "-h").returncode == 0, f"{command} -h")
for page in os.listdir(MAN):
    if page.endswith(".scd") and subprocess.run(["which", "scdoc"], capture_output=True).returncode == 0:
        with open(os.path.join(MAN, page)) as f:
            r = subprocess.run(["scdoc"], stdin=f, capture_output=True, text=True)
        check(r.returncode == 0, f"{page}: {r.stderr}")

# What is wrong is named, with what may have been meant.
check(run(LODGE).returncode == 2, "no command")
check(run(LODGE, "--version").stdout.startswith("lodge "), "--version")
fails(["rnu"], 2, "did you mean 'run'")
fails(["xyzzy"], 2, "'lodge --help' lists them")
fails(["run", "--memroy", "1G"], 2, "did you mean '--memory'")
fails(["run", "--zzzzzzzzzz"], 2, "lists them")
fails(["run", "-m", "1G"], 2, "two dashes")
fails(["run", "--memory"], 2, "needs a value")
fails(["run", "--rng=on"], 2, "takes no value")
fails(["run", "operand"], 2, "operand")
fails(["run", "--memory", "12Q"], 2, "--memory")
fails(["run", "--memory", "99999999999T"], 2, "--memory")
fails(["run", "--memory", "100K"], 2, "too small")
fails(["run", "--cpus", "0"], 2, "--cpus")
fails(["run", "--cpus", "9"], 2, "at most 8")
fails(["run", "--cpus", "6,cores=4"], 2, "is not 6 CPUs")
fails(["run", "--cpus", "2,coers=2"], 2, "did you mean 'cores'")
fails(["run", "--engine", "sotf"], 2, "did you mean 'soft'")
fails(["run", "--machine", "pcc"], 2, "did you mean 'pc'")
fails(["run", "--console", "unix"], 2, "needs a path")
fails(["run", "--console", "none:x"], 2, "takes no path")
fails(["run", "--net", "tap"], 2, "network 'tap'")
fails(["run", "--net", "user,mac=52:54:00:12:34"], 2, "MAC")
fails(["run", "--net", "user,mac=01:54:00:12:34:56"], 2, "multicast")
fails(["run", "--net", "none,restrict=on"], 2, "takes no forward")
fails(["run", "--disk", "x,fromat=raw"], 2, "did you mean 'format'")
fails(["run", "--disk", "x,format=qcow2"], 2, "only raw")
fails(["run", "--disk", ",readonly=on"], 2, "file name")
fails(["run", "--disk", "x,serial=123456789012345678901"], 2, "20 bytes")
fails(["run", *["--disk", "x"] * 17], 2, "at most 16")
fails(["run", "--name", "../x"], 2, "name '../x'")
fails(["run", "--name", "-x"], 2, "name '-x'")
fails(["run", "--uuid", "1234"], 2, "UUID")
fails(["run", "--sandbox", "maybe"], 2, "'on' or 'off'")
fails(["run", "--append", "x"], 2, "--append needs --kernel")
fails(["run"], 125, "nothing to boot")
fails(["run", "--engine", "kvm", "--kernel", "/dev/null"], 125, "no kvm engine")
fails(["run", "--kernel", "/nonexistent"], 125, "/nonexistent", "No such file")
fails(["run", "--kernel", TMP], 125, "not a regular file")
os.mkfifo(tmp("fifo"))
fails(["run", "--kernel", tmp("fifo")], 125, "not a regular file")
fails(["stop"], 2, "which guest")
fails(["stop", "nobody"], 3, "no guest named 'nobody'")
fails(["stop", "../x"], 2, "not a guest's name")
fails(["stop", "--timeout", "x", "a"], 2, "--timeout")
fails(["ps", "x"], 2, "no operand")
fails(["host", "x"], 2, "no operand")
check(run(LODGE, "ps", "--json").stdout.strip() == "[ ]" or json.loads(run(LODGE, "ps", "--json").stdout) == [], "ps of nothing")

# A definition printed is a definition read.
every = ["--name", "web-1", "--uuid", "01234567-89ab-cdef-0123-456789abcdef", "--memory", "2G", "--cpus", "4,sockets=1,cores=2,threads=2", "--cpu", "max,-avx2",
         "--kernel", "/k e\"r\\n", "--initrd", "/i", "--append", "console=ttyS0 \u00fc", "--disk", "/a,,b.img,readonly=on,serial=S1", "--disk", "/c", "--net",
         "user,forward=tcp:2222:22,forward=tcp:127.0.0.1:80:8080,restrict=on", "--net", "none", "--console", "file:/tmp/c", "--rng", "--balloon", "--no-reboot",
         "--sandbox", "off", "--paused", "--testdev", "--rtc", "2026-01-31T12:00:00", "--qmp", "/q", "--log", "info", "--machine", "micro", "--code-size", "64M"]
for options in (every, [], ["--kernel", "/k"]):
    one = run(LODGE, "run", *options, "--dry-run")
    check(one.returncode == 0, f"{options}: {one.stderr}")
    with open(tmp("config.json"), "w") as f:
        f.write(one.stdout)
    two = run(LODGE, "run", "--config", tmp("config.json"), "--dry-run")
    check(one.stdout == two.stdout, f"{options}: {one.stdout} became {two.stdout} {two.stderr}")
    config = json.loads(one.stdout)
    check(not any(key.endswith("fd") for key in config), f"descriptors in {list(config)}")
config = json.loads(run(LODGE, "run", *every, "--dry-run").stdout)
check(config["disks"][0]["file"] == "/a,b.img" and config["memory"] == 2 << 30 and config["machine"] == "micro-1", f"{config}")
check(config["nets"][0]["mac"] == "52:54:00:ab:cd:ef" and config["nets"][1]["mac"] == "52:54:00:ab:cd:f0", f"{config['nets']}")
late = json.loads(run(LODGE, "run", "--config", tmp("config.json"), "--memory", "64M", "--dry-run").stdout)
check(late["memory"] == 64 << 20, "a later option changes the file's definition")


def config_fails(text, *wanted):
    with open(tmp("bad.json"), "wb") as f:
        f.write(text if isinstance(text, bytes) else text.encode())
    fails(["run", "--config", tmp("bad.json"), "--dry-run"], 2, "--config", *wanted)


config_fails("", "JSON")
config_fails("[]", "expected an object")
config_fails("{", "JSON")
config_fails('{"memroy":1}', "did you mean 'memory'")
config_fails('{"memory":"1G"}', "memory")
config_fails('{"memory":-1}', "memory")
config_fails('{"kernel-fd":3}', "cannot be set")
config_fails('{"disks":[{"file":"x","fd":0}]}', "cannot be set")
config_fails('{"disks":{}}', "disks")
config_fails('{"name":1}', "name")
config_fails('{"engine":"kvmm"}', "did you mean 'kvm'")
config_fails('{"rng":1}', "rng")
config_fails('{"cpu":{"count":1,"count":2}}', "twice")
config_fails(b'{"name":"\xff"}', "JSON")
config_fails('{"a":' * 100 + "1" + "}" * 100, "JSON")
config_fails(" " * ((1 << 20) + 1), "at most")
r = run(LODGE, "run", "--config", "/nonexistent", "--dry-run")
check(r.returncode == 2 and "/nonexistent" in r.stderr, f"missing config: {r}")
sys.exit(1 if failures else 0)
