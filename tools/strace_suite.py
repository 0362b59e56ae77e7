#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Runs strace's own test programs, and ours, under bpfstrace and under strace: every line the same?

    tools/strace_suite.py TREE                 all, against a strace that was built in TREE
    tools/strace_suite.py TREE NAME...         some of them
    tools/strace_suite.py TREE --style strace  as plain strace, which knows more: what differs
    tools/strace_suite.py TREE --lines 20      how much of a difference is shown (5)
    tools/strace_suite.py --list               the names

TREE is a folder of strace's sources at the release that --style strace=RELEASE names (7.2), in
which `./bootstrap && ./configure && make` was run; what is needed of its tests/ is made here, by
`make`. strace's programs print what strace has to print of their calls; with -v and without, under
injection too. Of our own workload (tests/tracees/strace_workload.py) strace itself says it. All of
it takes four minutes. Root is needed.

Exit code: 0 if all lines are equal, 1 if some differ, 2 where something is missing.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
WORKLOAD: Final = ROOT / "tests" / "tracees" / "strace_workload.py"
GROUPS: Final = ("maps", "progs", "files", "events", "noise")
CALLS: Final = "bpf,perf_event_open,ioctl"
LONG: Final = "841540765612359407"
"""What bpf-success-long-y.test injects where longs have 64 bits."""
PERF_IOCTL: Final = re.compile(
    r"ioctl\((fd=)?(0x)?[-\da-f]+(<.*?>)?, (op=)?(TC|TIOC|FIO|0x54|_IOC\(_IOC_NONE, 0x54)"
)
"""Of ioctls we show all that -e trace= names, but decode those on perf events."""
IDS: Final = re.compile(
    r"\b((?:(?:[a-z]+_)?id|load_time|duration|jited_ksyms)=)\d[^,}]*"
    r"|((?:[a-z]+_)?ids=\[)[\d, ]*(?=\])|((?:_ID|0x80082407)[^,]*, (?:argp=)?\[)\d+"
    r"|(jited_prog_insns=)\"[^\"]*\""
)
"""What differs from run to run: ids of the kernel's, times, addresses in native code."""


INJECTIONS: Final = {
    "-failing": "-v -e inject=bpf,perf_event_open:error=EPERM"
    " -e fault=ioctl:error=EBADF:when=50+",
    "-succeeding": "-e inject=bpf,perf_event_open:retval=3"
    " -e inject=ioctl:retval=3:when=50+",
    "-third": "-v -e inject=bpf:error=EFAULT:when=3+3"
    " -e inject=perf_event_open:error=E2BIG:when=2+2 -e inject=ioctl:error=EINTR:when=51+2",
    "-some": "-y -e inject=bpf:retval=0:when=4..500+4 -e fault=perf_event_open:when=2+3"
    " -e fault=ioctl:when=50+3",
    "-large": "-e inject=bpf:retval=0x7fffffffffffffff:when=2+5"
    " -e inject=ioctl:retval=-1:when=52+5"
    " -e inject=perf_event_open:retval=18446744073709551615:when=1+2",
    "-negative": "-yy -e inject=bpf,perf_event_open:retval=-7"
    " -e inject=ioctl:retval=-4096:when=50+",
    "-odd": "-v -e fault=bpf:when=2+2 -e inject=bpf:error=512:when=6+6"
    " -e fault=ioctl:error=4095:when=50+2 -e inject=perf_event_open:error=1:when=3",
}
"""Of a call in so many the result is set: once Python has started, whose ioctls are to succeed."""


class Case(NamedTuple):
    """A program, and how it is traced."""

    program: str
    options: str
    ours: bool = False
    """Of our workload a group, of which strace says how its lines are to be."""
    stdin: str = "/dev/null"


CASES: Final[dict[str, Case]] = {
    # tests/gen_tests.in, tests/bpf-success-long-y.test of strace 7.2.
    "bpf": Case("bpf", "-e trace=bpf -a20"),
    "bpf-v": Case("bpf-v", "-a20 -v -e trace=bpf"),
    "bpf-success": Case("bpf-success", "-einject=bpf:retval=42 -etrace=bpf -a20"),
    "bpf-success-v": Case("bpf-success-v", "-einject=bpf:retval=42 -etrace=bpf -a20 -v"),
    "bpf-success-long-y": Case(
        "bpf-success-long-y",
        f"-a20 -y -e trace=bpf -e inject=bpf:retval={LONG}",
        stdin="/dev/full",
    ),
    "bpf-obj_get_info_by_fd": Case("bpf-obj_get_info_by_fd", "-a20 -y -e trace=bpf"),
    "bpf-obj_get_info_by_fd-v": Case("bpf-obj_get_info_by_fd-v", "-a20 -y -v -e trace=bpf"),
    "bpf-obj_get_info_by_fd-prog": Case("bpf-obj_get_info_by_fd-prog", "-a20 -y -e trace=bpf"),
    "bpf-obj_get_info_by_fd-prog-v": Case(
        "bpf-obj_get_info_by_fd-prog-v", "-a20 -y -v -e trace=bpf"
    ),
    "ioctl_perf": Case("ioctl_perf", "-a0 -e trace=ioctl"),
    "ioctl_perf-success": Case(
        "ioctl_perf-success 1 42", "-a35 -e trace=ioctl -e inject=ioctl:retval=42"
    ),
    "perf_event_open": Case("perf_event_open", "-a1 -e trace=perf_event_open"),
    "perf_event_open_nonverbose": Case(
        "perf_event_open_nonverbose", "-a34 -e verbose=none -e trace=perf_event_open"
    ),
    "perf_event_open_unabbrev": Case(
        "perf_event_open_unabbrev", "-a1 -v -e trace=perf_event_open"
    ),
    **{
        f"own-{group}{name}": Case(group, f"{options} -e trace={CALLS}", True)
        for group in GROUPS
        for name, options in {
            "": "",
            "-v": "-v",
            "-y": "-y",
            "-yy": "-yy -v",
            "-raw": "-e raw=bpf",
            "-X": "-X raw",
            "-XX": "-X verbose -v",
            "-N": "-N",
            "-s300": "-s 300 -v",
            "-abbrev": "-e abbrev=perf_event_open",
            **INJECTIONS,
        }.items()
    },
}


def built(tree: Path, names: list[str]) -> str | None:
    """Makes the test programs; what is missing, in words."""
    if not (tree / "src" / "strace").exists():
        return f"{tree}/src/strace is not there: run ./bootstrap && ./configure && make in {tree}"
    programs = sorted({CASES[name].program.split()[0] for name in names if not CASES[name].ours})
    if programs:
        command = ["make", "-s", "-C", str(tree / "tests"), *programs]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            return f"{' '.join(command)} has failed"
    return None


def translated(options: str) -> list[str]:
    """strace's options as bpfstrace has them: -a is another one."""
    return [re.sub(r"^-a(\d+)$", r"--columns=\1", word) for word in options.split()]


def lines_of(case: Case, tree: Path, style: str, folder: Path) -> tuple[list[str], list[str]]:
    """Our lines, and those that are to be."""
    log, other = folder / "ours", folder / "theirs"
    us = [sys.executable, "-m", "bpftrace_sys", "--no-config", "--style", style, "-o", str(log)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    if case.ours:
        program = [sys.executable, str(WORKLOAD), case.program]
        them = [str(tree / "src" / "strace"), "-o", str(other), *case.options.split()]
        for command in (us + translated(case.options), them):
            subprocess.run(
                [*command, *program],
                env=env,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        expected = other.read_text("ascii", "backslashreplace")
    else:
        words = case.program.split()
        program = [str(tree / "tests" / words[0]), *words[1:]]
        command = [*us, *translated(case.options), *program]
        with open(case.stdin, "rb") as stdin:
            done = subprocess.run(
                command, env=env, cwd=folder, stdin=stdin, capture_output=True, check=False
            )
        if done.returncode == 77:
            return [], []
        expected = done.stdout.decode("ascii", "backslashreplace")
    ours = log.read_text("ascii", "backslashreplace")
    if not ours and expected:
        raise SystemExit(f"strace_suite: {shlex.join(us)} has written nothing: see why, by hand")
    return compared(ours, case.ours), compared(expected, case.ours)


def compared(text: str, own: bool) -> list[str]:
    """The lines that are compared; of two runs without what differs each time."""
    lines = text.splitlines()
    if not own:
        return lines
    return [IDS.sub(r"\1\2\3\4...", line) for line in lines if not PERF_IOCTL.match(line)]


def shown(ours: list[str], theirs: list[str], limit: int) -> tuple[int, list[str]]:
    """How many lines differ, and the first of them."""
    if len(ours) == len(theirs):
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
        return len(pairs), [
            f"{mark} {line}" for a, b in pairs[:limit] for mark, line in (("+", a), ("-", b))
        ]
    found = list(difflib.unified_diff(theirs, ours, lineterm="", n=0))[2:]
    return sum(line[0] in "+-" for line in found), found[: 2 * limit]


def main() -> int:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tree", nargs="?", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--style", default="strace=7.2")
    parser.add_argument("--lines", type=int, default=5)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_intermixed_args()
    if given.list or given.tree is None:
        print("\n".join(CASES))
        return 0 if given.list else 2
    names = given.names or list(CASES)
    unknown = [name for name in names if name not in CASES]
    trouble = f"no such case: {unknown[0]}" if unknown else built(given.tree.resolve(), names)
    if trouble:
        print(f"strace_suite: {trouble}", file=sys.stderr)
        return 2
    differing = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = lines_of(CASES[name], given.tree.resolve(), given.style, Path(folder))
        count, text = shown(ours, theirs, given.lines)
        differing += bool(count)
        print(f"{name}: {count or 'none'} of {len(theirs)} lines differ", *text, sep="\n")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
