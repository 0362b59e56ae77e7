"""A benchmark, and how it is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from benchmarks.place import PLAIN

SLOW: Final = 5.0
"""Seconds from which strace without a filter is not run in every round."""


class Sample(NamedTuple):
    """One run.

    Seconds of the whole process; seconds that the work itself says; bytes at most; seconds of
    user CPU time, and of all CPU time, the tracee's included.
    """

    wall: float
    own: float
    peak: float
    user: float
    cpu: float


@dataclass
class Bench:
    """A benchmark: its work, how it is run, and what is asked of the figures.

    ``ways``: what runs it, by column. ``rows``: one line of the table each.
    """

    name: str
    work: str
    ways: dict[str, Sequence[str]]
    rows: Sequence[Row]
    samples: dict[str, list[Sample]] = field(default_factory=dict)


class Row(NamedTuple):
    """A line of the table.

    ``of``: a field of Sample. ``against``: the way that bpfstrace is held against; with none
    ``target`` is in the field's own unit, else a ratio. No ``target``: for information.
    """

    what: str
    of: str
    against: str | None
    target: float | None


SAID: Final = re.compile(r"([0-9.e-]+) s\b")
"""What the work says of its own time; dd's last line has it as well."""


def measure(argv: Sequence[str], environment: dict[str, str]) -> Sample:
    """Runs a command once; SystemExit with what it said if it fails."""
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        # A disassembly is long; what the work says is short and comes last.
        out.seek(max(0, out.seek(0, os.SEEK_END) - 4096))
        text = out.read().decode("utf-8", "replace")
    if process.returncode:
        sys.exit(f"bench: {' '.join(argv)[:300]}: exit code {process.returncode}\n{text}")
    said = SAID.findall(text)
    own = float(said[-1]) if said else float("nan")
    return Sample(
        wall, own, usage.ru_maxrss * 1024.0, usage.ru_utime, usage.ru_utime + usage.ru_stime
    )


def run(bench: Bench, rounds: int, environment: dict[str, str]) -> None:
    """All the rounds of a benchmark."""
    for number in range(rounds):
        for way, argv in bench.ways.items():
            samples = bench.samples.setdefault(way, [])
            if number and samples[0].wall > SLOW and way == PLAIN:
                continue
            samples.append(measure(argv, environment))
        print(f"  {bench.name}: {number + 1} of {rounds}", end="\r", file=sys.stderr, flush=True)
    print(" " * 40, end="\r", file=sys.stderr)


@contextmanager
def busy_machine(busy: bool) -> Iterator[None]:
    """With a busy loop on each CPU, where that is asked for."""
    loops = [
        subprocess.Popen(["taskset", "-c", str(cpu), sys.executable, "-c", "while True: pass"])
        for cpu in (os.sched_getaffinity(0) if busy else ())
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
