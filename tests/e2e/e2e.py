#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs suites of end-to-end tests: e2e.py check | full | debian | list | NAME..."""
import sys
import time
import traceback

import badinput
import debian
import harness
import kernels
import lifecycle
import machine
import storage

SUITES = {
    "check": lifecycle.CHECK + storage.CHECK + machine.CHECK + badinput.CHECK,
    "full": kernels.FULL,
    "debian": debian.ALL,
}


def main():
    everything = {t.__name__: t for s in SUITES.values() for t in s}
    wanted = []
    for word in sys.argv[1:] or ["check"]:
        if word == "list":
            print("\n".join(everything))
            return 0
        if word not in SUITES and word not in everything:
            sys.exit(f"no test '{word}'")
        wanted += SUITES.get(word) or [everything[word]]
    failed, not_run = [], []
    for test in wanted:
        start = time.monotonic()
        try:
            test()
            harness.nothing_left()
            verdict = "ok"
        except harness.NotRun as why:
            verdict = f"NOT RUN: {why}"
            not_run.append(test.__name__)
        except (Exception, SystemExit):
            verdict = "FAILED\n" + traceback.format_exc()
            failed.append(test.__name__)
        print(f"{time.monotonic() - start:7.1f} s  {test.__name__}  {verdict}", flush=True)
    print(f"{len(wanted) - len(failed) - len(not_run)} of {len(wanted)} passed" + (": failed " + " ".join(failed) if failed else "") +
          (", not run " + " ".join(not_run) if not_run else ""))
    return 1 if failed else 0


sys.exit(main())
