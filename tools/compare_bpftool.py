#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Runs real tools under bpfstrace, asks bpftool meanwhile, and tells what contradicts it.

    tools/compare_bpftool.py                     all that is installed (--list names them)
    tools/compare_bpftool.py libbpf bcc/trace    those whose names begin so
    tools/compare_bpftool.py --keep DIR bpftrace with traces, texts and views in DIR
    tools/compare_bpftool.py --again DIR         compares once more what stands there
    tools/compare_bpftool.py -- COMMAND          another one

Each tool is traced (bpfstrace -f, text and JSON). When it neither works nor calls any more, and
again a second later, bpftool is asked for programs, maps, links, BTF, perf events, network devices
and cgroups, and once more when the tool has ended, which SIGINT makes it do. Held against that is
what bpfstrace said: ids, names, types, tags, sizes, maps of programs, frozen maps, attachments and
their targets, targets of links, pins, the summary's tables, "not attached". BPFTOOL=PATH names
another bpftool: 7.1 tells little of links, 7.5 much.

As root. A tool takes five to ten seconds, BCC's up to twenty; all of them some forty minutes.

Exit code: 0, 1 (something was contradicted, or no tool ran), 2 (bad arguments).
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

REPO: Final = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "tools")]

from bpftool_compare.compare import Comparison  # noqa: E402
from bpftool_compare.rows import Row, rows  # noqa: E402
from bpftool_compare.said import KINDS, Said  # noqa: E402
from bpftool_compare.view import View, look  # noqa: E402

QUIET: Final = 0.7
"""Seconds without a line, and without work, until the tool is taken to have started."""
FEW: Final = 5
"""Ticks of processor time (10 ms each) that are no work."""
STARTING: Final = 45.0
"""Seconds that it may take for that."""
LOOKS: Final = 2
BETWEEN: Final = 1.0
ENDING: Final = 8.0
"""Seconds until SIGINT is followed by SIGTERM, and that by SIGKILL."""


class Traced:
    """A tool under bpfstrace."""

    def __init__(self, row: Row, folder: Path, engine: str) -> None:
        self.text, self.trace = folder / "trace.txt", folder / "trace.jsonl"
        self.said = folder / "output"
        with self.said.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "bpftrace_sys", "--engine", engine, "-f",
                    "-o", str(self.text), "--json", str(self.trace), *row.options, "--",
                    *row.command,
                ],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(REPO), "NO_COLOR": "1", "LC_ALL": "C.UTF-8"},
            )  # fmt: skip

    def quiet(self) -> bool:
        """Waits until nothing comes any more, and nobody computes; False if it ended before."""
        known, since = (-1, -1), time.monotonic()
        deadline = since + STARTING
        while time.monotonic() < deadline and self.process.poll() is None:
            size = self.trace.stat().st_size if self.trace.exists() else 0
            now = (size, self._ticks() // FEW)
            if now != known:
                known, since = now, time.monotonic()
            elif time.monotonic() - since > QUIET and self._made():
                return True
            time.sleep(0.05)
        return self.process.poll() is None

    def _ticks(self) -> int:
        """Processor time of all processes of the session, in ticks."""
        total = 0
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                fields = Path(path).read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid:
                total += int(fields[11]) + int(fields[12])
        return total

    def _made(self) -> bool:
        """Whether it has done something that stays: made an object, or named one."""
        return b'"fd":{"kind":' in self._written()

    def _written(self) -> bytes:
        """What there is of the trace; its file is opened with the first line."""
        try:
            return self.trace.read_bytes()
        except FileNotFoundError:
            return b""

    def pid(self) -> int | None:
        """Of the program itself: its network namespace is the one that counts."""
        found = re.search(rb'"pid":(\d+)', self._written())
        return int(found[1]) if found else None

    def end(self) -> int:
        """By Ctrl-C, as a person does."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                return self.process.wait(ENDING)
            except subprocess.TimeoutExpired:
                continue
        return self.process.wait()


def run(row: Row, folder: Path, engine: str) -> tuple[list[View], View]:
    """Traces one; returns the views that were taken while it ran, and the one after it."""
    traced = Traced(row, folder, engine)
    views = []
    try:
        if traced.quiet():
            for at in range(LOOKS):
                if at:
                    time.sleep(BETWEEN)
                view = look(traced.pid())
                if traced.process.poll() is not None:
                    break
                views.append(view)
    finally:
        traced.end()
    after = look()
    (folder / "views.json").write_text(
        json.dumps({"views": [asdict(view) for view in views], "after": asdict(after)})
    )
    return views, after


def read_view(facts: dict[str, Any]) -> View:
    """A view that was kept: JSON has no numbers as keys."""
    view = View(**facts)
    for kind in KINDS:
        shown = view.of(kind)
        numbered = {int(number): entry for number, entry in shown.items()}
        shown.clear()
        shown.update(numbered)
    return view


def compared(folder: Path) -> Comparison:
    """What stands in a folder."""
    kept = json.loads((folder / "views.json").read_text())
    lines = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
    said = Said(lines, (folder / "trace.txt").read_text())
    return Comparison(
        said, [read_view(facts) for facts in kept["views"]], read_view(kept["after"])
    )


def tell(name: str, comparison: Comparison) -> int:
    """Prints what there is to say of one; how many contradictions."""
    found = comparison.contradictions()
    progs = len(comparison.said.loaded())
    print(
        f"{name}: {progs} programs, {len(comparison.said.standings)} attachments, "
        f"{len(comparison.views)} looks, {comparison.checked} facts, {len(found)} contradicted",
        flush=True,
    )
    for text in found:
        print(f"    {text}", flush=True)
    return len(found)


def main(argv: Sequence[str]) -> int:
    """Runs what is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="the names, and nothing else")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where traces and views stay")
    parser.add_argument("--again", type=Path, metavar="DIR", help="compare what was kept")
    parser.add_argument("--engine", choices=("ptrace", "bpf"), default="ptrace")
    at = argv.index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:at])
    chosen = list(rows())
    if at < len(argv):
        chosen = [Row("command", tuple(argv[at + 1 :]))]
    elif options.names:
        chosen = [row for row in chosen if row.name.startswith(tuple(options.names))]
    if options.list:
        print("\n".join(row.name for row in chosen))
        return 0
    totals: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="bpfstrace-bpftool-") as scratch:
        for row in chosen:
            folder = (options.again or options.keep or Path(scratch)) / row.name.replace("/", "-")
            if options.again is None:
                folder.mkdir(parents=True, exist_ok=True)
                run(row, folder, options.engine)
            elif not (folder / "views.json").exists():
                continue
            comparison = compared(folder)
            totals["contradictions"] += tell(row.name, comparison)
            totals["tools"] += 1
            totals["facts"] += comparison.checked
    print(", ".join(f"{count} {what}" for what, count in totals.items()))
    return int(bool(totals["contradictions"]) or not totals["tools"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
