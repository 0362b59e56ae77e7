#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Measures what tracing costs: bpfstrace and strace in turn on the same work.

    tools/bench.py                       every benchmark, five rounds, a table
    tools/bench.py NAME... --rounds N    some of them
    tools/bench.py --markdown            the table as it stands in docs/performance.md
    tools/bench.py --quick               one round of those that are soon done: two minutes
    tools/bench.py --busy NAME           beside a busy loop on each CPU
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
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks import ebpf, ptrace, repeats
from benchmarks.measuring import Bench, busy_machine, run
from benchmarks.place import Place
from benchmarks.table import machine, table, write

BENCHES: Final[dict[str, Callable[[Place], Bench]]] = {
    "dd": ptrace.other_calls,
    "dd-long": ptrace.other_calls_for_long,
    "updates": ptrace.updates,
    "one-cpu": ptrace.one_cpu,
    "filtered": ptrace.not_ours,
    "imports": ptrace.many_imports,
    "find": ptrace.find,
    "load": ptrace.load,
    "disasm": ptrace.disasm,
    "start": ptrace.start,
    "memory": ptrace.memory,
    "replay": ptrace.replay,
    "forks": ptrace.forks,
    "repeat-updates": repeats.updates,
    "repeat-missing": repeats.lookups,
    "missing": repeats.idle_lookups,
    "repeat-creates": repeats.creates,
    "probes": repeats.probes,
    "first-failure": repeats.first_failure,
    "kernel-view": repeats.kernel_view,
    "ebpf-cpu": ebpf.ebpf_cpu,
    "ebpf-one-cpu": ebpf.ebpf_one_cpu,
    "ebpf-dd": ebpf.ebpf_other_calls,
    "ebpf-load": ebpf.ebpf_load,
    "ebpf-reader": ebpf.ebpf_reader,
    "ebpf-idle": ebpf.ebpf_idle,
    "ebpf-memory": ebpf.ebpf_memory,
}

QUICK: Final = (
    "updates", "one-cpu", "missing", "repeat-creates", "first-failure", "load", "start", "replay",
    "kernel-view", "ebpf-cpu",
)  # fmt: skip
"""Those of --quick."""


def main(argv: Sequence[str]) -> int:
    """Returns the exit code of the module docstring."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--full", action="store_true", help="a million calls for memory")
    parser.add_argument("--quick", action="store_true", help="one round of the short ones")
    parser.add_argument("--busy", action="store_true", help="beside a busy loop on each CPU")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args(argv)
    unknown = set(options.names) - BENCHES.keys()
    if unknown or options.list:
        for name in sorted(unknown):
            print(f"bench: no benchmark {name}", file=sys.stderr)
        print("\n".join(BENCHES))
        return 2 if unknown else 0
    if options.quick:
        options.rounds = 1
        options.names = options.names or list(QUICK)
    environment = {**os.environ, "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory(prefix="bpfstrace-bench-") as folder:
        place = Place(Path(folder), options.full)
        benches = []
        for name in options.names or BENCHES:
            bench = BENCHES[name](place)
            with busy_machine(options.busy):
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
