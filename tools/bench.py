#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Measures what tracing costs: bpfstrace and strace in turn on the same work.

    tools/bench.py                       every benchmark, five rounds, a table
    tools/bench.py NAME... --rounds N    some of them
    tools/bench.py --markdown            the table as it stands in docs/performance.md
    tools/bench.py --full                a million calls where it is else a hundred thousand
    tools/bench.py --list                the names

In a round each way of running a benchmark's work is run once, one after the other, so that
what else the machine does falls on all of them alike; medians are taken over the rounds.
strace without its filter runs in the first round only where it takes longer than SLOW seconds.

bpfstrace is measured as installed: its packages, compiled to byte code, and its script are put
into a virtual environment of their own below a temporary folder. Root is needed, as for BPF.

A benchmark takes a minute or more; `ebpf-idle` waits 100 seconds a round.

Exit code: 0 however the figures are, 1 when something could not be run, 2 for a wrong name.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import os
import platform
import random
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

REPO: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("bpftrace_sys", "decoders")
NEEDED: Final = ("construct", "ptrace", "rich")
SLOW: Final = 5.0
"""Seconds from which strace without a filter is not run in every round."""
INSNS: Final = 10_000
MODULES: Final = 1000

UNTRACED, FLOOR, OURS = "untraced", "bare filter", "bpfstrace"
STRACE, PLAIN = "strace --seccomp-bpf", "strace"
"""The ways; they are the columns of the table.

FLOOR: no tracer at all, but a seccomp filter of one instruction that allows everything:
what the kernel takes for having any filter.
"""
WAYS: Final = (UNTRACED, FLOOR, OURS, STRACE, PLAIN)

WORK_C: Final = r"""
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static clockid_t watch = CLOCK_MONOTONIC;

static double now(void)
{
    struct timespec t;
    clock_gettime(watch, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static long bpf(int cmd, union bpf_attr *attr) { return syscall(SYS_bpf, cmd, attr, sizeof *attr); }

int main(int argc, char **argv)
{
    if (!strcmp(argv[1], "filter")) {
        struct sock_filter allow = {0x06, 0, 0, SECCOMP_RET_ALLOW};
        struct sock_fprog program = {1, &allow};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program))
            return 1;
        execvp(argv[2], argv + 2);
        return 1;
    }
    int count = atoi(argv[2]), i;
    double began;
    if (argc > 3) watch = CLOCK_PROCESS_CPUTIME_ID; /* "cpu": what it costs us, not how long */
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    if (!strcmp(argv[1], "updates")) {
        unsigned key;
        unsigned long long value;
        attr.map_type = BPF_MAP_TYPE_ARRAY;
        attr.key_size = 4;
        attr.value_size = 8;
        attr.max_entries = 1024;
        int map = bpf(BPF_MAP_CREATE, &attr);
        if (map < 0) return 1;
        memset(&attr, 0, sizeof attr);
        attr.map_fd = map;
        attr.key = (unsigned long)&key;
        attr.value = (unsigned long)&value;
        began = now();
        for (i = 0; i < count; i++) {
            key = i % 1024;
            value = i;
            if (bpf(BPF_MAP_UPDATE_ELEM, &attr)) return 1;
        }
    } else if (!strcmp(argv[1], "load")) {
        struct bpf_insn *insns = calloc(count, sizeof *insns);
        for (i = 0; i < count; i++) {
            insns[i].code = 0xb7; /* r0 = i */
            insns[i].imm = i;
        }
        insns[count - 1] = (struct bpf_insn){.code = 0x95};
        attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
        attr.insns = (unsigned long)insns;
        attr.insn_cnt = count;
        attr.license = (unsigned long)"GPL";
        began = now();
        if (bpf(BPF_PROG_LOAD, &attr) < 0) return 1;
    } else {
        began = now();
        for (i = 0; i < count; i++) {
            if (!fork()) _exit(0);
            wait(0);
        }
    }
    printf("%.9f s\n", now() - began);
    return 0;
}
"""

WORK_PY: Final = """
import ctypes, os, struct, sys, time
what, count = sys.argv[1], int(sys.argv[2])
libc = ctypes.CDLL(None)
number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
def bpf(command, attr):
    result = libc.syscall(number, command, attr, len(attr))
    if result < 0: sys.exit(1)
    return result
if what == "updates":
    made = bpf(0, ctypes.create_string_buffer(struct.pack("IIII", 2, 4, 8, 1024), 48))
    key, value = ctypes.c_uint(), ctypes.c_ulonglong()
    attr = ctypes.create_string_buffer(
        struct.pack("I4xQQ", made, ctypes.addressof(key), ctypes.addressof(value)), 48)
    began = time.perf_counter()
    for i in range(count):
        key.value, value.value = i % 1024, i
        bpf(2, attr)
elif what == "load":
    insns = b"".join(struct.pack("BBhi", 0xB7, 0, 0, i) for i in range(count - 1))
    insns = ctypes.create_string_buffer(insns + struct.pack("BBhi", 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    attr = ctypes.create_string_buffer(
        struct.pack("IIQQ", 1, count, ctypes.addressof(insns), ctypes.addressof(licence)), 128)
    began = time.perf_counter()
    bpf(5, attr)
else:
    began = time.perf_counter()
    for i in range(count):
        if not os.fork(): os._exit(0)
        os.wait()
print("%.9f s" % (time.perf_counter() - began))
"""


class Sample(NamedTuple):
    """One run.

    Seconds of the whole process; seconds that the work itself says; bytes at most; seconds of
    user CPU time, the tracee's included.
    """

    wall: float
    own: float
    peak: float
    user: float


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


class Place:
    """The temporary folder: bpfstrace installed, and what the work needs, made when asked for."""

    def __init__(self, folder: Path, full: bool) -> None:
        self.folder = folder
        self.full = full
        self.text = str(folder / "out")
        self.python, self.script = install(folder / "installed")
        self._work: list[str] | None = None

    def work(self, *words: str) -> list[str]:
        """The tiny program, in C if it can be compiled."""
        if self._work is None:
            compiler = shutil.which("cc") or shutil.which("clang")
            source = self.folder / ("work.c" if compiler else "work.py")
            source.write_text(WORK_C if compiler else WORK_PY)
            if compiler is None:
                self._work = [self.python, str(source)]
            else:
                self._work = [str(self.folder / "work")]
                subprocess.run([compiler, "-O2", "-o", self._work[0], str(source)], check=True)
        return [*self._work, *words]

    def floor(self, work: Sequence[str]) -> dict[str, Sequence[str]]:
        """Under a filter that allows everything; nothing where there is no compiler."""
        filtered = self.work("filter", *work)
        return {} if filtered[0] == self.python else {FLOOR: filtered}

    def ours(self, options: Sequence[str], work: Sequence[str]) -> list[str]:
        """Traced by bpfstrace, text to a file."""
        return [self.script, "-f", "-q", "-o", self.text, *options, *work]

    def strace(self, options: Sequence[str], work: Sequence[str], seccomp: bool) -> list[str]:
        """Traced by strace, text to a file."""
        return [
            "strace", "-f", *(["--seccomp-bpf"] if seccomp else []), "-o", self.text,
            *options, *work,
        ]  # fmt: skip

    def four(
        self, ours: Sequence[str], theirs: Sequence[str], work: Sequence[str]
    ) -> dict[str, Sequence[str]]:
        """The usual ways, with options for each tracer."""
        ways: dict[str, Sequence[str]] = {UNTRACED: work, OURS: self.ours(ours, work)}
        if shutil.which("strace"):
            ways[STRACE] = self.strace(theirs, work, True)
            ways[PLAIN] = self.strace(theirs, work, False)
        return ways


def install(folder: Path) -> tuple[str, str]:
    """bpfstrace in a virtual environment; the paths of its Python and its script."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    for package in PACKAGES:
        shutil.copytree(
            REPO / package, site / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    specs = [importlib.util.find_spec(name) for name in NEEDED]
    origins = {Path(spec.origin).parent.parent for spec in specs if spec and spec.origin}
    # A line of a .pth adds a folder, whose own .pth files are not read.
    (site / "needed.pth").write_text("".join(f"{origin}\n" for origin in sorted(origins)))
    compileall.compile_dir(str(site), quiet=2, workers=1)
    python, script = folder / "bin" / "python", folder / "bin" / "bpfstrace"
    script.write_text(
        f"#!{python}\nfrom bpftrace_sys.cli.main import run\nrun()\n"
    )
    script.chmod(0o755)
    return str(python), str(script)


# -- the benchmarks ------------------------------------------------------------------


def imports(place: Place) -> list[str]:
    """A Python that imports a thousand modules."""
    folder = place.folder / "modules"
    folder.mkdir(exist_ok=True)
    names = [f"module{number}" for number in range(MODULES)]
    for name in names:
        (folder / f"{name}.py").write_text("value = 1\n")
    compileall.compile_dir(str(folder), quiet=2, workers=1)
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import {', '.join(names)}"
    return [place.python, "-S", "-E", "-c", code]


def instructions(place: Place, count: int) -> str:
    """A file of random instructions that a compiler could have made; its path."""
    choose = random.Random(1)
    codes = (0xB7, 0xBF, 0x07, 0x0F, 0x61, 0x79, 0x7B, 0x63, 0x15, 0x55, 0x85, 0x67, 0x57)
    path = place.folder / "insns"
    with open(path, "wb") as file:
        for _ in range(count):
            code, regs = choose.choice(codes), choose.randrange(10)
            off, imm = choose.randrange(-256, 256), choose.randrange(212)
            file.write(struct.pack("<BBhi", code, regs, off, imm))
    return str(path)


BPF: Final = ["-e", "trace=bpf"]


def other_calls(place: Place) -> Bench:
    work = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=200000"]
    return Bench(
        "dd",
        "dd bs=1, 200,000 reads and writes",
        place.floor(work) | place.four([], BPF, work),
        [Row("its own time", "own", UNTRACED, 1.05), Row("whole", "wall", STRACE, 1.0)],
    )


def other_calls_for_long(place: Place) -> Bench:
    """So long that neither tracer's start counts: what is left is the seccomp filter."""
    work = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=3000000"]
    ways = place.floor(work) | place.four([], BPF, work)
    ways.pop(PLAIN, None)  # takes minutes
    return Bench(
        "dd-long",
        "dd bs=1, 3,000,000 reads and writes",
        ways,
        [Row("its own time", "own", UNTRACED, 1.05), Row("its own time", "own", FLOOR, 1.0)],
    )


def updates(place: Place) -> Bench:
    return Bench(
        "updates",
        "100,000 map updates, all printed",
        place.four(BPF, BPF, place.work("updates", "100000")),
        [Row("whole", "wall", STRACE, 1.0)],
    )


def one_cpu(place: Place) -> Bench:
    """Tracer and tracee on one CPU: nobody is woken on another one."""
    work = place.work("updates", "100000")
    ways = place.four(["--same-cpu", *BPF], BPF, work)
    ways = {way: ways[way] for way in (UNTRACED, OURS, STRACE) if way in ways}
    if STRACE in ways:
        ways[STRACE] = ["taskset", "-c", "0", *ways[STRACE]]
    return Bench(
        "one-cpu",
        "100,000 map updates, all on one CPU",
        ways,
        [Row("whole", "wall", STRACE, None)],
    )


def not_ours(place: Place) -> Bench:
    work = place.work("updates", "100000")
    return Bench(
        "filtered",
        "100,000 map updates, -e bpf=prog_load",
        {UNTRACED: work, **place.floor(work), OURS: place.ours(["-e", "bpf=prog_load"], work)},
        [Row("its own time", "own", UNTRACED, 1.05), Row("whole", "wall", None, 1.0)],
    )


def many_imports(place: Place) -> Bench:
    return Bench(
        "imports",
        f"Python importing {MODULES:,} modules",
        place.four([], ["-e", "trace=openat"], imports(place)),
        [Row("whole", "wall", STRACE, 1.0)],
    )


def find(place: Place) -> Bench:
    return Bench(
        "find",
        "find /usr",
        place.four([], ["-e", "trace=openat"], ["find", "/usr", "-name", "no such name"]),
        [Row("whole", "wall", STRACE, 1.0)],
    )


def load(place: Place) -> Bench:
    return Bench(
        "load",
        f"PROG_LOAD of {INSNS:,} instructions, strace with -v",
        place.four(BPF, ["-v", *BPF], place.work("load", str(INSNS))),
        [Row("the call, as the caller sees it", "own", STRACE, 1.0),
         Row("whole", "wall", STRACE, 2.0)],
    )  # fmt: skip


def disasm(place: Place) -> Bench:
    return Bench(
        "disasm",
        "bpfstrace disasm of a million instructions",
        {OURS: [place.script, "disasm", instructions(place, 1_000_000)]},
        [Row("whole", "wall", None, 5.0), Row("memory", "peak", None, 100e6)],
    )


def start(place: Place) -> Bench:
    return Bench(
        "start",
        "true; untraced is python3 -c pass",
        {
            UNTRACED: [place.python, "-c", "pass"],
            OURS: [place.script, "-o", place.text, "true"],
            STRACE: place.strace(BPF, ["true"], True),
        },
        [Row("whole", "wall", UNTRACED, 3.0)],
    )


def memory(place: Place) -> Bench:
    count = 1_000_000 if place.full else 100_000
    work = place.work("updates", str(count))
    return Bench(
        "memory",
        f"{count:,} calls, text and JSON to files",
        {OURS: place.ours([*BPF, "--json", str(place.folder / "trace.jsonl")], work)},
        [
            Row("memory", "peak", None, 100e6),
            Row("whole", "wall", None, count * 100e-6),
            Row("user CPU", "user", None, count * 45e-6),
        ],
    )


def replay(place: Place) -> Bench:
    count = 1_000_000 if place.full else 100_000
    trace = str(place.folder / "replayed.jsonl")
    work = place.ours([*BPF, "--json", trace], place.work("updates", str(count)))
    subprocess.run(work, check=True, stdout=subprocess.DEVNULL)
    return Bench(
        "replay",
        f"replay of {count:,} calls",
        {OURS: [place.script, "replay", "-o", place.text, trace]},
        [Row("memory", "peak", None, 100e6), Row("user CPU", "user", None, count * 20e-6)],
    )


def forks(place: Place) -> Bench:
    return Bench(
        "forks",
        "1,000 forks",
        place.four([], BPF, place.work("forks", "1000")),
        [Row("whole", "wall", STRACE, 1.2)],
    )


EBPF: Final = ("--engine", "bpf", "-e", "trace=bpf")
"""Options of the eBPF engine; its bpfstrace stands in the column of OURS."""


def ebpf_cpu(place: Place) -> Bench:
    return Bench(
        "ebpf-cpu",
        "by eBPF: 100,000 map updates",
        place.four(EBPF, BPF, place.work("updates", "100000", "cpu")),
        [
            Row("its own CPU time", "own", STRACE, 0.4),
            Row("its own CPU time", "own", UNTRACED, 5.0),
            Row("whole, all printed", "wall", STRACE, 0.4),
        ],
    )


def ebpf_one_cpu(place: Place) -> Bench:
    ways = place.four(EBPF, BPF, place.work("updates", "100000"))
    ways = {
        way: ["taskset", "-c", "0", *ways[way]] for way in (UNTRACED, OURS, STRACE) if way in ways
    }
    return Bench(
        "ebpf-one-cpu",
        "by eBPF: 100,000 map updates, all on one CPU",
        ways,
        [Row("whole, all printed", "wall", STRACE, 1.0)],
    )


def ebpf_other_calls(place: Place) -> Bench:
    work = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=3000000"]
    return Bench(
        "ebpf-dd",
        "by eBPF: dd bs=1, 3,000,000 reads and writes",
        {UNTRACED: work, OURS: place.ours(["--engine", "bpf"], work)},
        [Row("its own time", "own", UNTRACED, 1.3)],
    )


def ebpf_load(place: Place) -> Bench:
    work = place.work("load", str(INSNS))
    return Bench(
        "ebpf-load",
        f"by eBPF: PROG_LOAD of {INSNS:,} instructions, strace with -v",
        place.four(EBPF, ["-v", *BPF], work),
        [Row("the call, as the caller sees it", "own", STRACE, None)],
    )


def ebpf_reader(place: Place) -> Bench:
    script = [place.python, str(REPO / "tools" / "bench_reader.py"), *place.work()]
    return Bench(
        "ebpf-reader",
        "by eBPF: reading the ring of 100,000 calls",
        {OURS: [*script, "read"]},
        [Row("CPU time", "own", None, 1.0)],
    )


def ebpf_idle(place: Place) -> Bench:
    script = [place.python, str(REPO / "tools" / "bench_reader.py"), *place.work()]
    return Bench(
        "ebpf-idle",
        "by eBPF: 100 seconds in which nobody calls",
        {OURS: [*script, "idle"]},
        [Row("CPU time", "own", None, 0.05)],
    )


def ebpf_memory(place: Place) -> Bench:
    """So many as the ring holds: telling them takes longer than making them."""
    count, ring = (2_500_000, 1 << 30) if place.full else (150_000, 64 << 20)
    work = place.work("updates", str(count))
    return Bench(
        "ebpf-memory",
        f"by eBPF: {count:,} calls, a ring of {ring >> 20} MB",
        {OURS: place.ours([*EBPF, "--ring", str(ring)], work)},
        [Row("memory", "peak", None, 100e6 + ring)],
    )


BENCHES: Final[dict[str, Callable[[Place], Bench]]] = {
    "dd": other_calls,
    "dd-long": other_calls_for_long,
    "updates": updates,
    "one-cpu": one_cpu,
    "filtered": not_ours,
    "imports": many_imports,
    "find": find,
    "load": load,
    "disasm": disasm,
    "start": start,
    "memory": memory,
    "replay": replay,
    "forks": forks,
    "ebpf-cpu": ebpf_cpu,
    "ebpf-one-cpu": ebpf_one_cpu,
    "ebpf-dd": ebpf_other_calls,
    "ebpf-load": ebpf_load,
    "ebpf-reader": ebpf_reader,
    "ebpf-idle": ebpf_idle,
    "ebpf-memory": ebpf_memory,
}

# -- measuring ---------------------------------------------------------------------

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
    return Sample(wall, own, usage.ru_maxrss * 1024.0, usage.ru_utime)


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


# -- the table ---------------------------------------------------------------------

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


def main(argv: Sequence[str]) -> int:
    """Returns the exit code of the module docstring."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--full", action="store_true", help="a million calls for memory")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args(argv)
    unknown = set(options.names) - BENCHES.keys()
    if unknown or options.list:
        for name in sorted(unknown):
            print(f"bench: no benchmark {name}", file=sys.stderr)
        print("\n".join(BENCHES))
        return 2 if unknown else 0
    environment = {**os.environ, "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory(prefix="bpfstrace-bench-") as folder:
        place = Place(Path(folder), options.full)
        benches = []
        for name in options.names or BENCHES:
            bench = BENCHES[name](place)
            run(bench, max(options.rounds, 1), environment)
            benches.append(bench)
            if not options.markdown:
                print(write(table([bench]), False), end="\n\n", flush=True)
    if options.markdown or len(benches) > 1:
        print(write(table(benches), options.markdown))
    print(f"\n{machine(max(options.rounds, 1))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
