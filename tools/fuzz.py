#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Looks for inputs that bpfstrace cannot take: fresh seeds, many examples.

    tools/fuzz.py                        ten minutes: properties for half of them, then traces
    tools/fuzz.py --minutes 60
    tools/fuzz.py --only traces          or: --only properties
    tools/fuzz.py --seed 7 --round 123   one spoiled trace again, as it was found

The tests in CI draw the same examples in every run. This draws others:

properties  the tests of the suite that use Hypothesis (``pytest -m hypothesis``), with a fresh
            seed and five times their examples. What fails is printed as Hypothesis prints it;
            write it above the test as ``@example(...)``.
traces      a recording of ``fixtures/`` or a file of ``tests/hostile/`` is spoiled and given to
            a subcommand or the API, in a process of its own under limits of memory and time. Wrong
            is a traceback, an exit code that is not documented, a control character in the output,
            or a cost beyond the limits. The file is kept in ``--finds``; once mended, put it
            into ``tests/hostile/``, where ``tests/cli/test_hostile.py`` runs it for ever.

No root is needed, but for properties that ask the kernel, which skip without it.
Exit code: 0 when nothing was found, 1 when something was, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gzip
import importlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

REPO: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import venv_python  # noqa: E402

venv_python.needs("hypothesis", "construct")

import bpftrace_sys  # noqa: E402 - found through the line above
from bpftrace_sys.cli import main as cli  # noqa: E402
from tests.support.spoiling import spoil  # noqa: E402

HOSTILE: Final = REPO / "tests" / "hostile"
FIXTURES: Final = REPO / "fixtures"
COMMANDS: Final = (
    "replay {trace}",
    "replay -v {trace}",
    "replay -c {trace}",
    "replay --canonical {trace}",
    "replay --style strace {trace}",
    "replay --style strace -v {trace}",
    "replay -k --color=always {trace}",
    "replay -q -o /dev/null --json {out}/again.jsonl {trace}",
    "replay -q -o /dev/null --events {out}/events.jsonl {trace}",
    "diff {trace} {other}",
    "diff {trace} {trace}",
    "check {trace} --lock {out}/lock.toml --update",
    "extract {trace} -o {out}/objects",
    "report {trace} -o {out}/page.html",
    "perfetto {trace} -o {out}/timeline",
    "redact {trace} -o {out}/redacted.jsonl",
    "repro {trace} -o {out}/again.py",
    "api {trace}",
)
"""What a trace is given to; ``{other}`` is the recording that it was made of."""
CODES: Final = (0, 1, 2)
"""Exit codes of subcommands that say what they mean; 1 is a difference or a violation."""
MEMORY: Final = 3 << 30
"""Bytes of address space that a command may take."""
SECONDS: Final = 60
"""Seconds of processor time that a command may take; the recordings take one or two."""
WRITTEN: Final = 256 << 20
"""Bytes that a command may write to a file."""
COLOURS: Final = re.compile("\x1b\\[[0-9;]*m")
"""What ``--color=always`` writes; it moves nothing."""
SMALL: Final = 20_000
"""Bytes of recordings that are worth spoiling: most of what they hold is seen."""
EXAMPLES: Final = 5
"""How many times as many examples a property gets."""


# ---------------------------------------------------------------- one command


@dataclass
class Tried:
    """How ``bpfstrace WORDS`` went."""

    wrong: str | None
    """What is wrong about it; None if it went as it should."""
    code: int
    """Its exit code, or a signal's number below zero."""
    seconds: float
    """Of processor time."""
    peak: int
    """Megabytes that it had at most, beyond what it began with."""
    written: int
    """Bytes that it wrote, to its streams and to files."""


def wrong(words: Sequence[str], folder: Path) -> str | None:
    """What is wrong about how ``bpfstrace WORDS`` goes; None if it goes as it should."""
    return tried(words, folder).wrong


def tried(words: Sequence[str], folder: Path) -> Tried:
    """Runs ``bpfstrace WORDS`` under limits, in a process of its own.

    ``folder`` takes its output, in files ``stdout`` and ``stderr``.  The first word ``api`` is none
    of bpfstrace's: the trace that follows is gone through by the Python API.
    """
    before = _size(folder)
    out, err, peak = folder / "stdout", folder / "stderr", folder / "peak"
    pid = os.fork()
    if pid == 0:
        _command(words, out, err, peak)
    _, status, usage = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    spent = usage.ru_utime + usage.ru_stime
    most = 0
    with contextlib.suppress(FileNotFoundError, ValueError):
        most = int(peak.read_text()) >> 10
        peak.unlink()
    written = _size(folder) - before
    return Tried(_wrong(code, spent, out, err), code, spent, most, written)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _wrong(code: int, spent: float, out: Path, err: Path) -> str | None:
    said = err.read_bytes()
    if b"Traceback (most recent call last)" in said:
        return "a traceback: " + said.decode("utf-8", "replace").splitlines()[-1]
    if code < 0:
        return f"ended by signal {-code} after {spent:.0f} s of processor time"
    if code not in CODES:
        return f"exit code {code}"
    for name, data in (("stdout", out.read_bytes()), ("stderr", said)):
        shown = COLOURS.sub("", data.decode("utf-8", "replace"))
        control = _STEERS.search(shown)
        if control is not None:
            return f"{control[0]!r} in {name}"
    return None


def _command(words: Sequence[str], out: Path, err: Path, peak: Path) -> None:
    """Runs a command in this process, which it ends."""
    code = 70
    faulthandler.disable()  # a test run's
    try:
        for path, fd in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), fd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # Streams of our own: those of a test run are pytest's.
        sys.stdin = os.fdopen(0)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace")
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
        # "5": the peak is what there is now (proc_pid_clear_refs(5)).
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        began = _kilobytes("VmRSS")
        for name, limit in (
            (resource.RLIMIT_AS, MEMORY),
            (resource.RLIMIT_CPU, SECONDS),
            (resource.RLIMIT_FSIZE, WRITTEN),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(name, (limit, limit))
        code = _api(words[1]) if words[:1] == ["api"] else cli.main(list(words))
        peak.write_text(str(_kilobytes("VmHWM") - began))
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _kilobytes(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0])


def _api(path: str) -> int:
    """Asks the Python API for all that it has of a trace."""
    try:
        trace = bpftrace_sys.open_trace(path)
        for call in trace.calls():
            str((call.args, call.explanation))
        for program in trace.programs:
            list(program.instructions or ())
        str((trace.refusals, trace.maps, trace.attachments))
    except bpftrace_sys.TraceError:
        return 2
    return 0


_STEERS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that may steer a terminal."""


def commands(trace: Path, other: Path, out: Path) -> Iterator[list[str]]:
    """The words of every command for a trace."""
    for command in COMMANDS:
        yield [word.format(trace=trace, other=other, out=out) for word in command.split()]


# ---------------------------------------------------------------- spoiled traces


def seeds() -> list[Path]:
    """Traces to start from."""
    small = [path for path in FIXTURES.glob("*/trace.jsonl.gz") if path.stat().st_size < SMALL]
    return sorted(small) + sorted(HOSTILE.rglob("*.jsonl*"))


def lines_of(path: Path) -> list[str]:
    """A trace's lines."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()


def spoiled(lines: list[str], dice: random.Random) -> list[str]:
    """The lines with a few things changed: values, whole lines, or letters."""
    found: list[Any] = list(lines)
    for _ in range(dice.choice((1, 1, 2, 4))):
        at = dice.randrange(len(found))
        way = dice.random()
        if way < 0.75:
            with contextlib.suppress(ValueError, IndexError):
                line = json.loads(found[at])
                spoil(line, dice)
                found[at] = json.dumps(line)
        elif way < 0.8 and len(found) > 1:
            del found[at]
        elif way < 0.85:
            found.insert(dice.randrange(len(found)), found[at])
        elif way < 0.9:
            found[at:at] = [found[at]] * dice.choice((10, 300))
        else:
            text = found[at]
            place = dice.randrange(max(len(text), 1))
            other = dice.choice(("", '"', "}", "\0", "9" * 30))
            found[at] = text[:place] + other + text[place + 1 :]
    return found


def one_round(seed: int, number: int, finds: Path) -> str | None:
    """Spoils a trace and tries it; what is wrong, with where the file is."""
    dice = random.Random(f"{seed} {number}")
    source = dice.choice(seeds())
    with tempfile.TemporaryDirectory(prefix="bpfstrace-fuzz-") as name:
        folder = Path(name)
        trace = folder / "trace.jsonl"
        trace.write_text("".join(f"{line}\n" for line in spoiled(lines_of(source), dice)))
        words = dice.choice(list(commands(trace, source, folder)))
        found = wrong(words, folder)
        if found is None:
            return None
        finds.mkdir(parents=True, exist_ok=True)
        kept = finds / f"{seed}-{number}.jsonl"
        shutil.copyfile(trace, kept)
    told = " ".join(words).replace(str(trace), str(kept)).replace(str(folder), "DIR")
    return f"round {number}, from {source.relative_to(REPO)}: {found}\n  bpfstrace {told}"


def traces(seed: int, seconds: float, finds: Path) -> int:
    """Spoils traces for a time; returns in how many something was wrong."""
    for command in cli.COMMANDS:
        importlib.import_module(f"bpftrace_sys.cli.{command}")
    until = time.monotonic() + seconds
    number = bad = 0
    while time.monotonic() < until:
        found = one_round(seed, number, finds)
        if found is not None:
            bad += 1
            print(f"fuzz: {found}", flush=True)
        number += 1
    print(f"fuzz: {number} spoiled traces, {bad} of them badly taken (seed {seed})")
    return bad


# ---------------------------------------------------------------- properties


def properties(seed: int, seconds: float) -> int:
    """Runs the tests that use Hypothesis on fresh examples; 1 if one failed, else 0.

    As often as the time allows, with another seed each time, and at least once.
    """
    until = time.monotonic() + seconds
    environment = {**os.environ, "BPFSTRACE_EXAMPLES": str(EXAMPLES)}
    failed = turns = 0
    while not turns or time.monotonic() < until:
        words = f"-q -m hypothesis --hypothesis-profile=fresh --hypothesis-seed={seed + turns}"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words.split()]
        done = subprocess.run(command, cwd=REPO, env=environment, check=False)
        failed += done.returncode != 0
        turns += 1
    print(f"fuzz: properties, {turns} times from seed {seed}, {failed} of them with failures")
    return int(failed > 0)


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--seed", type=int, help="else one that is drawn, and printed")
    parser.add_argument("--round", type=int, help="only this spoiled trace; needs --seed")
    parser.add_argument("--only", choices=("properties", "traces"))
    parser.add_argument("--finds", type=Path, default=Path("fuzz-finds"), help="where files go")
    options = parser.parse_args()
    if options.round is not None:
        if options.seed is None:
            parser.error("--round needs --seed")
        found = one_round(options.seed, options.round, options.finds)
        print(f"fuzz: {found or 'nothing is wrong'}")
        return int(found is not None)
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"fuzz: seed {seed}, {options.minutes:g} minutes", flush=True)
    seconds = options.minutes * 60 / (1 if options.only else 2)
    bad = 0
    if options.only != "traces":
        bad += properties(seed, seconds)
    if options.only != "properties":
        bad += traces(seed, seconds, options.finds)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
