"""What is imported when, and that the light stand-ins do as the modules that they stand for."""

from __future__ import annotations

import getopt
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftrace_sys.cli.getopt_long import UsageError, scan
from bpftrace_sys.record.ptrace import requests
from bpftrace_sys.trace.reader import Reader
from decoders.declare import syscalls
from decoders.declare.structs import layout_of
from decoders.raw import ENTRY, EXIT, Chunk, Cred, FdFact, RawCall
from decoders.walk import follow, memory
from decoders.walk.table import WALKS
from tests.support.running import FIXTURES, ROOT

HEAVY = {
    "construct", "ptrace", "typing", "re", "dataclasses", "inspect", "logging", "rich", "json",
    "decoders.declare.fields", "decoders.values", "bpftrace_sys.story.pipeline",
    "bpftrace_sys.story.model",
}  # fmt: skip
"""Each takes longer to import than the whole of a short program takes to run."""
LIGHT = {"signal", "enum", "collections", "functools", "contextlib"}
"""What Python's own modules bring along, and the way to the first stop does without."""
NEVER = {
    "dataclasses", "bdb", "dis", "ast", "tokenize", "_hashlib", "datetime", "textwrap", "glob",
    "shlex", "decoders.declare.perf_calls", "decoders.declare.netlink_calls",
    "decoders.declare.bpf_info", "decoders.declare.bpf_link", "bpftrace_sys.render.insn_paint",
    "bpftrace_sys.render.split", "bpftrace_sys.render.tables",
}  # fmt: skip
"""What a trace with one call can do without. (pdb, inspect, pickle and hashlib are named, but not
loaded: construct imports them.)"""
OWN = ("bpftrace_sys", "decoders")
LOAD = """
import ctypes, platform, struct
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
insns = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
words = ctypes.create_string_buffer(b"GPL")
addresses = ctypes.addressof(insns), ctypes.addressof(words)
attr = ctypes.create_string_buffer(struct.pack("<IIQQ", 1, 2, *addresses), 64)
ctypes.CDLL(None).syscall(number, 5, attr, 64)
"""


def imported(*words: str) -> set[str]:
    """The modules that ``bpfstrace words`` imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bpftrace_sys", *words],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    names = {line.rpartition("|")[2].strip() for line in lines}
    # What site itself brings along (.pth files of an editable install) is not ours.
    site = {
        line.rpartition("|")[2].strip()
        for line in lines[: next(at for at, line in enumerate(lines) if line.endswith("| site"))]
    }
    assert "bpftrace_sys.record.ptrace.engine" in names
    return names - site


def test_a_program_without_bpf_imports_next_to_nothing(tmp_path: Path) -> None:
    found = imported("-f", "-o", str(tmp_path / "out"), "true")
    assert not found & (HEAVY | LIGHT)
    assert len([name for name in found if name.startswith(OWN)]) <= 76
    assert (tmp_path / "out").read_text().endswith("+++ exited with 0 +++\n")


def test_a_trace_with_one_call_imports_what_that_needs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = imported("-f", "-q", "-e", "trace=bpf", "-o", str(out), sys.executable, "-c", LOAD)
    assert "BPF_PROG_LOAD" in out.read_text()
    assert not found & NEVER
    assert len([name for name in found if name.startswith(OWN)]) <= 165


def test_what_is_light_is_not_all(tmp_path: Path) -> None:
    """The list above means something: JSON needs most of it."""
    json = str(tmp_path / "trace.jsonl")
    assert {"construct", "bpftrace_sys.story.pipeline"} <= imported("-f", "--json", json, "true")


def test_requests_are_python_ptrace_s() -> None:
    from ptrace.binding import func

    names = [name for name in dir(requests) if name.startswith("PTRACE_")]
    ours = {name: getattr(requests, name) for name in names}
    shared = {name: number for name, number in ours.items() if hasattr(func, name)}
    assert len(shared) >= 12
    assert {name: getattr(func, name) for name in shared} == shared
    assert func.THREAD_TRACE_FLAGS == requests.WALL


# ---------------------------------------------------------------- the walk of the first stop


def test_walks_are_what_the_declarations_say() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gen_walks.py"), "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


class Watched:
    """A snapshot that notes what is read of it."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self._memory = memory.Snapshot(chunks)
        self.reads: list[tuple[str, int, int]] = []

    def read(self, addr: int, size: int) -> bytes | None:
        self.reads.append(("read", addr, size))
        return self._memory.read(addr, size)

    def cstr(self, addr: int, limit: int) -> tuple[bytes, bool] | None:
        self.reads.append(("cstr", addr, limit))
        return self._memory.cstr(addr, limit)

    def late(self, addr: int, size: int, limit: int) -> int:
        return self._memory.late(addr, size, limit)


class World:
    """An Env made of what a call recorded; notes what it is asked."""

    cpus = 4

    def __init__(self, raw: RawCall, pmus: dict[int, str]) -> None:
        self.arch = raw.arch
        self.ret: int | None = None
        self.asked: list[tuple[str, int]] = []
        self._raw = raw
        self._pmus = pmus

    def fd(self, fd: int) -> FdFact | None:
        self.asked.append(("fd", fd))
        return next((fact for fact in self._raw.fds if fact.fd == fd), None)

    def fact(self, kind: str, key: int) -> str | None:
        self.asked.append((kind, key))
        return self._pmus.get(key) if kind == "pmu" else None

    def cred(self) -> Cred | None:
        return self._raw.extra.cred

    def newer(self, enum: str, value: int) -> str | None:
        return None


def walked(layout: Any, raw: RawCall, pmus: dict[int, str]) -> tuple[list[Any], list[Any]]:
    """All that a walk of both stages reads and asks."""
    world = World(raw, pmus)
    before = Watched([chunk for chunk in raw.chunks if chunk.stage == ENTRY])
    after = Watched([chunk for chunk in raw.chunks if chunk.stage == EXIT])
    view = follow.args_view(layout, raw.args, world)
    node = follow.follow(view, before, ENTRY)
    world.ret = raw.ret
    follow.follow(view, after, EXIT, raw.failed, node)
    return before.reads + after.reads, world.asked


@pytest.mark.parametrize(
    "trace", sorted(FIXTURES.glob("*/trace.jsonl.gz")), ids=lambda path: path.parent.name
)
def test_both_walks_read_the_same(trace: Path) -> None:
    """Over every recorded call: with the light layouts as with the declared ones."""
    seen = 0
    reader = Reader(str(trace))
    pmus = {number: pmu for pmu, number in reader.header.pmu_types.items()}
    for item in reader:
        if isinstance(item, RawCall):
            row = syscalls.syscall_of(item.arch, item.nr)
            if row.name in WALKS:
                seen += 1
                light, returns = WALKS[row.name]
                assert returns == row.returns
                assert walked(light, item, pmus) == walked(layout_of(row.args), item, pmus)
    assert seen


# ---------------------------------------------------------------- the command line

SHORT = "fo:vs:"
LONG = ["follow", "output=", "out", "verbose", "string="]
TAKES = {
    "-f": False, "-o": True, "-v": False, "-s": True,
    "--follow": False, "--output": True, "--out": False, "--verbose": False, "--string": True,
}  # fmt: skip
WORD = st.sampled_from([
    "-f", "-v", "-fv", "-fofile", "-o", "-s5", "-vs", "-x", "-", "--", "--follow", "--f", "--out",
    "--outp", "--output=x", "--output", "--verbose=1", "--str", "--string=", "--nope", "--v",
    "prog", "", "--=", "-o=", "-so",
])  # fmt: skip


@given(st.lists(WORD, max_size=6), st.booleans())
def test_words_are_split_as_getopt_does(words: list[str], anywhere: bool) -> None:
    take = getopt.gnu_getopt if anywhere else getopt.getopt
    failure, expected = "", None
    try:
        expected = take(words, SHORT, LONG)
    except getopt.GetoptError as error:
        failure = error.msg
    if expected is None:
        with pytest.raises(UsageError, match=re.escape(failure)):
            scan(words, TAKES, anywhere)
    else:
        assert scan(words, TAKES, anywhere) == expected
