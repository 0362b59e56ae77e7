"""The figures as a table, and what they were measured on."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from benchmarks.measuring import Bench
from benchmarks.place import OURS, WAYS

HEAD: Final = ["work", "", *WAYS, "ratio", "target", ""]
VERDICTS: Final = {True: "met", False: "missed", None: ""}
FIGURES: Final = range(2, 2 + len(WAYS))


def shown(value: float, of: str) -> str:
    """A figure with its unit."""
    if of == "peak":
        return f"{value / 1e6:.0f} MB"
    return f"{value:.2f} s" if value >= 0.1 else f"{value * 1e3:.1f} ms"


def table(benches: Iterable[Bench]) -> list[list[str]]:
    """The figures as cells."""
    lines = []
    for bench in benches:
        title = bench.work
        for row in bench.rows:
            found = {
                way: statistics.median(getattr(sample, row.of) for sample in samples)
                for way, samples in bench.samples.items()
            }
            ours = found[OURS]
            met: bool | None
            if row.target is None:
                share = ours / found[row.against] if row.against in found else 0.0
                ratio, target, met = f"{share:.2f} of {str(row.against).split()[0]}", "", None
            elif row.against is None:
                ratio, target, met = "", shown(row.target, row.of), ours <= row.target
            elif row.against in found:
                share = ours / found[row.against]
                ratio = f"{share:.2f} of {row.against.split()[0]}"
                target, met = f"{row.target:g}", share <= row.target
            else:
                ratio, target, met = "", f"{row.target:g}", False
            cells = [shown(found[way], row.of) if way in found else "" for way in WAYS]
            lines.append([title, row.what, *cells, ratio, target, VERDICTS[met]])
            title = ""
    return lines


def write(lines: list[list[str]], markdown: bool) -> str:
    """The cells as text."""
    if markdown:
        rule = ["---"] * 2 + ["--:"] * len(WAYS) + ["---"] * 3
        return "\n".join(f"| {' | '.join(line)} |" for line in [HEAD, rule, *lines])
    widths = [max(len(line[column]) for line in [HEAD, *lines]) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in FIGURES else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [HEAD, *lines]
    )


def machine(rounds: int) -> str:
    """What was measured on, and how."""
    strace = "no strace"
    if shutil.which("strace"):
        said = subprocess.run(["strace", "-V"], capture_output=True, text=True, check=False)
        strace = "strace " + said.stdout.split("\n")[0].split()[-1]
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":")[1].strip() + ", "
            break
    load = os.getloadavg()[0]
    return (
        f"{model}{len(os.sched_getaffinity(0))} CPUs, {platform.system()} {platform.release()}, "
        f"{platform.machine()}, CPython {platform.python_version()}, {strace}; "
        f"{rounds} round{'s' * (rounds > 1)}; load average {load:.1f} at the end"
    )
