#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Our ACPI tables through iasl: each disassembles without complaint, and the DSDT compiles again. Usage: test-acpi.py DUMP-PROGRAM"""
import glob
import os
import shutil
import subprocess
import sys
import tempfile

if not shutil.which("iasl"):
    print("iasl is missing: install acpica-tools")
    sys.exit(77)
with tempfile.TemporaryDirectory() as tmp:
    subprocess.run([sys.argv[1], tmp], check=True)
    tables = sorted(glob.glob(os.path.join(tmp, "*.aml")))
    names = {os.path.basename(t) for t in tables}
    for board in ("pc", "micro"):
        for sig in ("XSDT", "FACP", "APIC", "MCFG", "WAET", "DSDT"):
            assert f"{board}-{sig}.aml" in names, f"{board} lacks {sig}: {names}"
    for table in tables:
        r = subprocess.run(["iasl", "-d", table], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        with open(table.replace(".aml", ".dsl")) as f:
            dsl = f.read()
        assert r.returncode == 0 and "Invalid" not in dsl and "**** " not in dsl, f"{table}: {r.stdout}\n{dsl[:3000]}"
        if "DSDT" in table:
            r = subprocess.run(["iasl", "-p", table + ".again", table.replace(".aml", ".dsl")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert r.returncode == 0 and ", 0 Errors, 0 Warnings" in r.stdout.replace("Compilation successful. ", ", ").replace(", , ", ", "), r.stdout
            for word in ("PNP0A08", "_PRT", "_S5", "_OSC", "PNP0501"):
                assert word in dsl, f"{table} lacks {word}"
            assert ("PNP0303" in dsl) == ("pc-" in os.path.basename(table)), "legacy devices"
print(f"{len(tables)} tables")
