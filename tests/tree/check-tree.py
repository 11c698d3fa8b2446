#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of the tree that no compiler checks: who may include whom (docs/layout.md), names that are banned in C
(docs/security.md), an SPDX line in every file, a docs page for every module. Usage: check-tree.py ROOT"""
import os
import re
import sys

# Module -> what it may include besides itself and base. A dotted path is a folder inside another.
ALLOWED = {
    "base": "",
    "loop": "",
    "state": "",
    "x86": "state",
    "schema": "state",
    "mem": "loop state",
    "irq": "loop state",
    "block": "loop state",
    "net": "loop state",
    "chr": "loop state",
    "engine": "mem irq x86 loop state",
    "dev": "mem irq loop state block net chr",
    "machine": "schema loop state x86 mem irq block net chr engine dev",
    "qmp": "schema loop state x86 mem irq block net chr engine dev machine",
    "vmm": "schema loop state x86 mem irq block net chr engine dev machine qmp",
    "helpers": "loop net",
    "host": "loop state",
    "cli": "schema host block loop",
}
# Inside engine/soft: who may include whom besides cpu.h and ea.h, which all share.
SOFT = {
    "decode": "",
    "mmu": "decode sys",        # the local APIC's page and raising faults are sys'
    "sys": "decode mmu",
    "native": "decode mmu sys",
    "interp": "decode mmu sys native",
    "run": "decode mmu sys native interp",
}
BANNED = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|gets|alloca|system|popen|mktemp|atoi|atol|strtok)\s*\(")
ALLOC_PRODUCT = re.compile(r"\b(malloc|alloca)\s*\([^()]*\*[^()]*\)")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def module_of(path):
    parts = path.split("/")
    return parts[0]


def soft_part(path):
    parts = path.split("/")
    return parts[2] if parts[:2] == ["engine", "soft"] and len(parts) > 3 else None


def c_files(root):
    for folder, _, names in os.walk(os.path.join(root, "src")):
        for name in sorted(names):
            if name.endswith((".c", ".h", ".inc", ".S")):
                yield os.path.join(folder, name)


def strip_comments(text):
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group(0).count("\n"), text, flags=re.S)
    return re.sub(r'"(?:\\.|[^"\\])*"', '""', text)


def check_includes(path, rel, text, out):
    mine = module_of(rel)
    if mine not in ALLOWED:
        out.append(f"{rel}: folder {mine} is not in the table of {sys.argv[0]}")
        return
    allowed = set(ALLOWED[mine].split()) | {"base", mine}
    for inc in INCLUDE.findall(text):
        if "/" not in inc:
            if not os.path.exists(os.path.join(os.path.dirname(path), inc)):
                out.append(f"{rel}: \"{inc}\": write the path from src/")
            continue
        theirs = module_of(inc)
        if theirs not in allowed:
            out.append(f"{rel}: {mine} may not include {inc}")
        elif theirs != mine and inc.endswith("-int.h"):
            out.append(f"{rel}: {inc} is private to {theirs}")
        a, b = soft_part(rel), soft_part(inc)
        if a and b and a != b and b not in SOFT[a].split():
            out.append(f"{rel}: inside engine/soft, {a} may not include {inc}")
        if mine == "engine" and not rel.startswith("engine/soft/") and b and b != "run":
            out.append(f"{rel}: engine sees run/ of the soft engine only, not {inc}")


def check_cycles(graph, out):
    state = {}

    def visit(node, path):
        if state.get(node) == 1:
            out.append("include cycle: " + " -> ".join(path[path.index(node):] + [node]))
            return
        if state.get(node) == 2:
            return
        state[node] = 1
        for next_node in graph.get(node, ()):
            visit(next_node, path + [node])
        state[node] = 2

    for node in graph:
        visit(node, [])


def main():
    root = os.path.abspath(sys.argv[1])
    out, graph, modules = [], {}, set()
    for path in c_files(root):
        rel = os.path.relpath(path, os.path.join(root, "src"))
        with open(path, encoding="utf-8") as f:
            text = f.read()
        modules.add(module_of(rel))
        check_includes(path, rel, text, out)
        if path.endswith(".h"):
            graph[rel] = [i for i in INCLUDE.findall(text) if "/" in i]
        code = strip_comments(text)
        for n, line in enumerate(code.split("\n"), 1):
            m = BANNED.search(line) or ALLOC_PRODUCT.search(line)
            if m:
                out.append(f"{rel}:{n}: {m.group(1)} is banned")
        if "SPDX-License-Identifier: GPL-2.0-or-later" not in text[:200]:
            out.append(f"{rel}: no SPDX line")
    check_cycles(graph, out)
    for module in sorted(modules):
        if not os.path.exists(os.path.join(root, "docs", module + ".md")):
            out.append(f"docs/{module}.md is missing")
    for line in out:
        print(line)
    print(f"{len(out)} findings")
    return 1 if out else 0


if __name__ == "__main__":
    sys.exit(main())
