#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Records workloads by both engines at once, and tells every call that they tell differently.

    tools/compare_engines.py                    every fixture of this machine
    tools/compare_engines.py xdp-link kcm       some of them
    tools/compare_engines.py --here kprobe-hello   whatever the manifest says of where
    tools/compare_engines.py -- python3 hello.py   another command

bpfstrace --engine bpf watches bpfstrace --engine ptrace and the workload under it. Of what it
records the calls of the workload's processes are kept. Both traces are of the same calls then, with
the same ids and addresses, so their lines are compared as they stand: names, results, decoded
arguments. What may differ is in NAMED. As root. A workload takes some ten seconds.

Exit code: 0, 1 (calls differ), 2 (bad arguments, or a workload that failed).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

REPO: Final = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "tools")]

import record  # noqa: E402
import venv_python  # noqa: E402

SHOWN: Final = 5
"""Differences of a workload that are printed."""
NAMED: Final = {
    "comm": "ptrace reads it once a program, the kernel at each call",
    "duration": "stops take time",
    "time": "taken by either engine itself",
}
"""Fields of a call that may differ, and why."""
COMPARED: Final = ("syscall", "ret", "errno", "args", "explanation")
TIME_LIMIT: Final = 600


def calls(path: Path) -> dict[int, list[dict[str, Any]]]:
    """The calls of a trace, by thread, in their order."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    with path.open(encoding="utf-8") as file:
        for line in file:
            item = json.loads(line)
            if item["type"] == "syscall":
                found[item["tid"]].append(item)
    for lines in found.values():
        lines.sort(key=lambda item: int(item["seq"]))
    return found


def differences(ptrace: Path, bpf: Path) -> Iterator[str]:
    """What the second trace tells otherwise than the first of the same threads."""
    ours = calls(bpf)
    for tid, lines in calls(ptrace).items():
        theirs = ours.get(tid, [])
        if len(theirs) != len(lines):
            yield f"thread {tid}: {len(lines)} calls by ptrace, {len(theirs)} by eBPF"
        for one, other in zip(lines, theirs, strict=False):
            for name in COMPARED:
                if one.get(name) != other.get(name):
                    yield (
                        f"{one['syscall']} (seq {one['seq']}) {name}: "
                        f"{_apart(one.get(name), other.get(name))}"
                    )


def _apart(one: Any, other: Any, path: str = "") -> str:
    """Where two values first differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            if one.get(key) != other.get(key):
                return _apart(one.get(key), other.get(key), f"{path}.{key}")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            if left != right:
                return _apart(left, right, f"{path}[{index}]")
    return f"{path} {str(one)[:150]} by ptrace, {str(other)[:150]} by eBPF"


def run(command: Sequence[str], cwd: Path, out: Path, options: Sequence[str]) -> int:
    """Runs a command under both; returns its exit code."""
    tracer = [sys.executable, "-m", "bpftrace_sys"]
    done = subprocess.run(
        [
            *tracer, "--engine", "bpf", "-f", "-q", "-o", "/dev/null",
            "--json", str(out / "bpf.jsonl"), *options, "--",
            *tracer, "-f", "-q", "-o", "/dev/null",
            "--json", str(out / "ptrace.jsonl"), *options, "--", *command,
        ],
        cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=TIME_LIMIT,
        check=False, env={**os.environ, "PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    return done.returncode


def compare(name: str, command: Sequence[str], cwd: Path, expected: int, most: int) -> bool:
    """One workload; whether both engines told the same."""
    with tempfile.TemporaryDirectory(prefix="bpfstrace-engines-") as scratch:
        out = Path(scratch)
        code = run(command, cwd, out, ())
        if code != expected:
            print(f"{name}: ended with {code}, expected {expected}")
            return False
        count = sum(len(lines) for lines in calls(out / "ptrace.jsonl").values())
        found = list(differences(out / "ptrace.jsonl", out / "bpf.jsonl"))
    print(f"{name}: {count} calls, {len(found)} differences", flush=True)
    for text in found[:most]:
        print(f"    {text}")
    return not found


def main(argv: Sequence[str]) -> int:
    """Compares what is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--here", action="store_true", help="whatever the manifest says of where")
    parser.add_argument("--most", type=int, default=SHOWN, help="differences that are printed")
    at = argv.index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:at])
    venv_python.needs("construct", "ptrace")
    if at < len(argv):
        return int(not compare(argv[at + 1], argv[at + 1 :], Path.cwd(), 0, options.most))
    fixtures = [record.load(name) for name in (options.names or record.all_names())]
    same = True
    for fixture in fixtures:
        if fixture.guest is not None and not options.here:
            continue
        try:
            work = record.prepare(fixture)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{fixture.name}: cannot be made ready here: {error}", flush=True)
            same = False
            continue
        try:
            same &= compare(
                fixture.name, fixture.command, work, fixture.exit_code, options.most
            )
        finally:
            shutil.rmtree(record.WORK / fixture.name, ignore_errors=True)
    return int(not same)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
