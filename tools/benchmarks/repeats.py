"""The benchmarks of calls that fail and repeat: CPU time on one CPU, beside strace's."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measuring import Bench, Row
from benchmarks.place import OURS, STRACE, UNTRACED, Place
from benchmarks.ptrace import BPF


def on_one_cpu(place: Place, name: str, title: str, work: Sequence[str], target: float) -> Bench:
    """All on one CPU: what counts then is what each takes of it, the start included."""
    ways = place.four(BPF, BPF, work)
    ways = {
        way: ["taskset", "-c", "0", *ways[way]] for way in (UNTRACED, OURS, STRACE) if way in ways
    }
    return Bench(
        name,
        f"{title}, all on one CPU",
        ways,
        [Row("CPU time", "cpu", STRACE, target), Row("whole", "wall", STRACE, None)],
    )


def updates(place: Place) -> Bench:
    work = place.work("updates", "100000")
    return on_one_cpu(place, "repeat-updates", "100,000 map updates", work, 2.0)


def lookups(place: Place) -> Bench:
    work = place.work("missing", "100000")
    return on_one_cpu(place, "repeat-missing", "100,000 lookups of what is not there", work, 2.0)


def idle_lookups(place: Place) -> Bench:
    return Bench(
        "missing",
        "100,000 lookups of what is not there, all printed",
        place.four(BPF, BPF, place.work("missing", "100000")),
        [Row("whole", "wall", STRACE, 0.4)],
    )


def creates(place: Place) -> Bench:
    work = place.work("creates", "20000")
    return on_one_cpu(place, "repeat-creates", "20,000 refused MAP_CREATE", work, 5.0)


def probes(place: Place) -> Bench:
    work = ["bpftool", "feature", "probe", "kernel"]
    return on_one_cpu(place, "probes", "bpftool feature probe kernel", work, 4.0)


def first_failure(place: Place) -> Bench:
    return Bench(
        "first-failure",
        "one refused MAP_CREATE, explained",
        {OURS: ["taskset", "-c", "0", *place.ours(BPF, place.work("creates", "1"))]},
        [Row("CPU time", "cpu", None, 0.2)],
    )


def kernel_view(place: Place) -> Bench:
    """What -e kernel= adds to each PROG_LOAD; the column of strace is bpfstrace without it."""
    work = place.work("loads", "200")
    return Bench(
        "kernel-view",
        "200 PROG_LOAD, 10 ms apart, -e kernel=xlated,jited; strace's column: bpfstrace without",
        {
            UNTRACED: work,
            OURS: place.ours([*BPF, "-e", "kernel=xlated,jited"], work),
            STRACE: place.ours(BPF, work),
        },
        [Row("the median call, as the caller sees it", "own", STRACE, 1.1)],
    )
