#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Hashes of all that bpfstrace prints of every recording: did a change of the code change output?

    tools/output_hashes.py > before
    ... move code about ...
    tools/output_hashes.py | diff before -

A line an output: its SHA-256, the recording, and the arguments. --only WORD takes the recordings
whose name contains WORD; --show NAME ARGS... prints one of the outputs instead of its hash.
All of them take some ten seconds.

Everything is imported once; each recording has a process forked from there, as starting Python for
each output would take ten times as long. tests/project/test_output_hashes.py holds what is hashed
here against what the command itself prints.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))  # this checkout's modules, whatever is installed

import venv_python  # noqa: E402

venv_python.needs("construct")

from bpftrace_sys.cli import main as cli  # noqa: E402

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
COLUMNS = "100"
WARM = "eperm"
"""The recording that is replayed before the first fork: the smallest with a load."""


def names_of_all() -> list[str]:
    """The recordings' names, in order."""
    return sorted(path.parent.name for path in TOP.glob("fixtures/*/trace.jsonl.gz"))


def outputs(name: str, other: str) -> list[tuple[str, ...]]:
    """A recording's outputs: command (its first word) and arguments. diff is with ``other``."""
    return [
        *(("replay", *words) for words in REPLAYS),
        ("extract",),
        ("check", "--update"),
        ("diff", other),
    ]


def trace_of(name: str) -> str:
    """A recording's file, below TOP."""
    return f"fixtures/{name}/trace.jsonl.gz"


def run(*words: str, cwd: Path = TOP) -> bytes:
    """What a command of bpfstrace's prints and answers, exit code first: in this process."""
    os.chdir(cwd)
    kept = sys.stdout, sys.stderr
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout, sys.stderr = _stream(out), _stream(err)
        try:
            code = cli.main(list(words))
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 1
        except Exception:
            traceback.print_exc()
            code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = kept
        out.seek(0)
        err.seek(0)
        return b"%d\n%s\n%s" % (code, out.read(), err.read())


def _stream(file: IO[bytes]) -> IO[str]:
    return open(file.fileno(), "w", encoding="utf-8", closefd=False)


def extracted(trace: Path) -> bytes:
    """Every file that `bpfstrace extract` makes of a trace, with its name."""
    with tempfile.TemporaryDirectory() as folder:
        said = run("extract", str(trace), "-o", "out", cwd=Path(folder))
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return said + b"".join(path.name.encode() + path.read_bytes() for path in files)


def output(name: str, words: tuple[str, ...]) -> bytes:
    """One output's bytes."""
    trace = trace_of(name)
    if words[0] == "extract":
        return extracted(TOP / trace)
    if words[0] == "diff":
        return run("diff", trace_of(words[1]), trace)
    if words[0] == "check":
        with tempfile.TemporaryDirectory() as folder:
            lock = Path(folder) / "lock"
            said = run("check", str(TOP / trace), "--lock", "lock", "--update", cwd=Path(folder))
            return said + (lock.read_bytes() if lock.exists() else b"")
    return run(*words, trace)


def hashes(name: str, other: str) -> str:
    """A line for each output of a recording."""
    return "".join(
        " ".join((hashlib.sha256(output(name, words)).hexdigest()[:20], name, *words)) + "\n"
        for words in outputs(name, other)
    )


def warm_up() -> None:
    """Imports what the commands import, and makes what they make once."""
    for command in cli.COMMANDS:
        import_module(f"bpftrace_sys.cli.{command}")
    hashes(WARM, WARM)
    gc.freeze()


def all_hashes(jobs: list[tuple[str, str]]) -> Iterator[str]:
    """Each job's lines in order, from as many processes at once as there are CPUs."""
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in jobs]
        running = 0
        for job, file in zip(jobs, files, strict=True):
            if running == (os.cpu_count() or 1):
                _wait_for_one()
                running -= 1
            if os.fork() == 0:
                _end(job, file)
            running += 1
        for _ in range(running):
            _wait_for_one()
        for file in files:
            file.seek(0)
            yield file.read()


def _wait_for_one() -> None:
    pid, status = os.wait()
    if status:
        raise SystemExit(f"output_hashes: process {pid} ended with {status:#x}")


def _end(job: tuple[str, str], file: IO[str]) -> NoReturn:
    """A job, and the end of this process."""
    code = 1
    try:
        file.write(hashes(*job))
        file.flush()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> int:
    """Prints a line an output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--show", nargs=argparse.REMAINDER, metavar="NAME ARGS")
    options = parser.parse_args()
    os.environ["COLUMNS"] = COLUMNS
    gc.set_threshold(cli.GARBAGE)
    if options.show:
        sys.stdout.buffer.write(output(options.show[0], tuple(options.show[1:])))
        return 0
    names = names_of_all()
    warm_up()
    jobs = [(name, names[at - 1]) for at, name in enumerate(names) if options.only in name]
    for lines in all_hashes(jobs):
        print(lines, end="", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
