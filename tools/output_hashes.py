#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Hashes of all that bpfstrace prints of every recording: did a change of the code change output?

    tools/output_hashes.py > before        (about 100 s on two CPUs)
    ... move code about ...
    tools/output_hashes.py | diff before -

A line an output: its SHA-256, the recording, and the arguments. --only WORD takes the recordings
whose name contains WORD; --show NAME ARGS... prints one of the outputs instead of its hash.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
REPLAYS = (
    (),
    ("-v",),
    ("-c",),
    ("-q",),
    ("-ttt", "-T", "-Y"),
    ("--no-insns",),
    ("-z",),
    ("-Z",),
    ("-e", "prog=*"),
    ("--canonical",),
    ("--style", "strace"),
    ("--style", "strace", "-v"),
    ("--json", "-"),
)
"""Arguments of `bpfstrace replay`; the trace is put last."""


def run(*words: str, cwd: Path = TOP) -> bytes:
    """What a command of bpfstrace's prints and answers, exit code first."""
    command = [sys.executable, "-m", "bpftrace_sys", *words]
    env = {**os.environ, "PYTHONPATH": str(TOP), "COLUMNS": "100"}
    done = subprocess.run(command, capture_output=True, cwd=cwd, env=env, check=False)
    return b"%d\n%s\n%s" % (done.returncode, done.stdout, done.stderr)


def extracted(trace: str) -> bytes:
    """Every file that `bpfstrace extract` makes of a trace, with its name."""
    with tempfile.TemporaryDirectory() as folder:
        said = run("extract", trace, "-o", "out", cwd=Path(folder))
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return said + b"".join(path.name.encode() + path.read_bytes() for path in files)


def outputs(names: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Every output: the recording's name, and the command (its first word) with arguments."""
    rows: list[tuple[str, tuple[str, ...]]] = []
    for at, name in enumerate(names):
        rows += [(name, ("replay", *words)) for words in REPLAYS]
        rows.append((name, ("extract",)))
        rows.append((name, ("check", "--update")))
        rows.append((name, ("diff", names[at - 1])))
    return rows


def output(name: str, words: tuple[str, ...]) -> bytes:
    """One output's bytes."""
    trace = f"fixtures/{name}/trace.jsonl.gz"
    if words[0] == "extract":
        return extracted(str(TOP / trace))
    if words[0] == "diff":
        return run("diff", f"fixtures/{words[1]}/trace.jsonl.gz", trace)
    if words[0] == "check":
        with tempfile.TemporaryDirectory() as folder:
            lock = Path(folder) / "lock"
            said = run("check", str(TOP / trace), "--lock", "lock", "--update", cwd=Path(folder))
            return said + (lock.read_bytes() if lock.exists() else b"")
    return run(*words, trace)


def main() -> int:
    """Prints a line an output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--show", nargs=argparse.REMAINDER, metavar="NAME ARGS")
    options = parser.parse_args()
    if options.show:
        sys.stdout.buffer.write(output(options.show[0], tuple(options.show[1:])))
        return 0
    names = sorted(path.parent.name for path in TOP.glob("fixtures/*/trace.jsonl.gz"))
    rows = [row for row in outputs(names) if options.only in row[0]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for (name, words), data in zip(rows, pool.map(lambda row: output(*row), rows), strict=True):
            print(hashlib.sha256(data).hexdigest()[:20], name, *words, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
