"""The benchmarks of the ptrace engine, of replay and of the start."""

from __future__ import annotations

import compileall
import random
import struct
import subprocess
from typing import Final

from benchmarks.measuring import Bench, Row
from benchmarks.place import FLOOR, OURS, PLAIN, STRACE, UNTRACED, Place

INSNS: Final = 10_000
MODULES: Final = 1000
BPF: Final = ["-e", "trace=bpf"]


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
