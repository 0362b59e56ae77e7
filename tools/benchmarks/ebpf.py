"""The benchmarks of the eBPF engine; its bpfstrace stands in the column of OURS."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.measuring import Bench, Row
from benchmarks.place import OURS, STRACE, UNTRACED, Place
from benchmarks.ptrace import BPF, INSNS

EBPF: Final = ("--engine", "bpf", "-e", "trace=bpf")
"""Options of the eBPF engine."""
READER: Final = ("-P", str(Path(__file__).with_name("reader.py")))
"""What reads the ring alone; with -P, as modules beside it have names of others."""


def ebpf_cpu(place: Place) -> Bench:
    return Bench(
        "ebpf-cpu",
        "by eBPF: 100,000 map updates",
        place.four(EBPF, BPF, place.work("updates", "100000", "cpu")),
        [
            Row("its own CPU time", "own", STRACE, 0.4),
            Row("its own CPU time", "own", UNTRACED, 5.0),
            Row("whole, all printed", "wall", STRACE, 0.4),
            Row("whole, CPU time", "cpu", STRACE, None),
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
    script = [place.python, *READER, *place.work()]
    return Bench(
        "ebpf-reader",
        "by eBPF: reading the ring of 100,000 calls",
        {OURS: [*script, "read"]},
        [Row("CPU time", "own", None, 1.0)],
    )


def ebpf_idle(place: Place) -> Bench:
    script = [place.python, *READER, *place.work()]
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
