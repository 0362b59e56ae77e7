"""Rounds of loops, of which only data and times are copied, are what a walk would have copied."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.running import ROOT, environment, run_cli

LOOKUP, UPDATE, DELETE, NEXT = 1, 2, 3, 4
"""Commands on a map's elements."""

pytestmark = pytest.mark.usefixtures("needs_bpf")

TWICE = """
import json, sys
from collections import Counter
from types import SimpleNamespace
from bpftrace_sys.record.capture.loops import Loops
from bpftrace_sys.record.capture.sink import Capture
from bpftrace_sys.record.ptrace import memory
from bpftrace_sys.record.ptrace.engine import Engine, StopFilter
from decoders.loop_calls import call_of
from decoders.raw import RawCall

class Walked(Capture):
    # Without plans.
    def _row(self, arch, nr):
        row = super()._row(arch, nr)
        self._rounds = None
        self._loops.enter = lambda raw, memory: None
        return row

class Both:
    # Each stop is shown to both.
    def __init__(self, *sinks):
        self.sinks = sinks
    def entry(self, *what):
        wanted = [sink.entry(*what) for sink in self.sinks]
        assert wanted[0] == wanted[1]
        return wanted[0]
    def exit(self, *what):
        for sink in self.sinks:
            sink.exit(*what)
    def work(self):
        return False
    def __getattr__(self, name):
        def tell(*what):
            for sink in self.sinks:
                getattr(sink, name)(*what)
        return tell

def calls(sink):
    for item in sink._queue:
        if type(item) is tuple:
            yield True, call_of(item)
        elif isinstance(item, RawCall):
            yield False, item

short, long = Capture(), Walked()
how = sys.argv.pop(1)
if how == "watched":
    short.watchers.append(SimpleNamespace(returned=lambda raw, lookup: None, soon=lambda: False))
elif how == "without files":
    memory._KEPT_OPEN = 0
for sink in (short, long):
    sink.waiting = 1 << 30
engine = Engine(Both(short, long), follow=True, stops=StopFilter({"bpf": None}))
engine.spawn(sys.argv[1:], meanwhile=Capture.get_ready)
status = engine.run()
assert status == 0, status
one, other = list(calls(short)), list(calls(long))
assert len(one) == len(other)
for (_, raw), (_, walked) in zip(one, other):
    for call in (raw, walked):
        call.carried = ()  # what a refused call's reason is looked for in: objects of their own
    assert raw == walked, f"{raw}\\n{walked}"
found = Counter((raw.args[0], raw.ret) for is_round, raw in one if is_round)
assert not any(is_round for is_round, _ in other)
print(json.dumps(list(found.items())))
"""
"""Captures a program by plan and by the walk at the same time, and compares."""


@pytest.mark.parametrize("how", ["usual", "watched", "without files"])
def test_all_that_may_change_between_two_rounds(how: str) -> None:
    program = str(ROOT / "tests/tracees/map_loops.py")
    done = subprocess.run(
        [sys.executable, "-c", TWICE, how, sys.executable, program],
        capture_output=True, text=True, check=False, env=environment(), cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {tuple(key): count for key, count in json.loads(done.stdout)}
    commands = {command for command, result in found if not result}
    # Those that succeed, and those that find nothing, or find no room.
    assert commands == {LOOKUP, UPDATE, DELETE, NEXT}
    assert {(LOOKUP, -errno.ENOENT), (UPDATE, -errno.E2BIG)} <= found.keys()
    assert sum(found.values()) > 150


def test_memory_is_another_after_an_execve(tmp_path: Path) -> None:
    """A child by vfork looks at its parent's until then, which lives on, in the same places."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    program, trace = str(tmp_path / "program"), tmp_path / "t.jsonl"
    source = ROOT / "tests/tracees/vfork_loops.c"
    subprocess.run([compiler, "-O1", "-no-pie", "-o", program, source], check=True)
    done = run_cli("-f", "-q", "-e", "trace=bpf", "--json", str(trace), program)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    calls = [line["args"] for line in lines if line["type"] == "syscall"]
    keys = [
        int.from_bytes(bytes.fromhex(args["attr"]["key"]["value"]["hex"]), "little")
        for args in calls
        if args["cmd"] == "BPF_MAP_UPDATE_ELEM"
    ]
    assert keys == [first + number for first in (100, 200, 300) for number in range(8)]
