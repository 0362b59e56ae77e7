"""Nothing that bpfstrace says of programs at work is contradicted by bpftool.

tools/compare_bpftool.py asks so of all tools that are installed, which takes long; here are the
loaders of tests/tracees, which wait while they are looked at, and some tools.
"""

from __future__ import annotations

import copy
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bpftool_compare.compare import Comparison
from bpftool_compare.rows import rows
from bpftool_compare.said import Said
from bpftool_compare.view import View, look

from tests.support.bpftool_view import Traced, trace_of
from tests.support.loaders import NAMES
from tests.support.needs import needs_tool
from tests.support.running import environment

pytestmark = pytest.mark.usefixtures("needs_bpf")


@pytest.mark.parametrize("name", NAMES)
def test_loaders(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    needs_tool("bpftool")
    traced = trace_of(name, tmp_path_factory)
    comparison = Comparison(traced.said, [traced.view])
    assert comparison.contradictions() == []
    if traced.facts.get("progs") or traced.facts.get("maps"):
        assert comparison.checked > 0


TOOLS = {
    "opensnoop": (("opensnoop",), 4),
    "bpftrace": (("bpftrace", "-e", "tracepoint:sched:sched_switch { @ = count(); } "
                  "uprobe:/bin/bash:readline { @ = count(); } profile:hz:1 { @ = count(); }"), 3),
}  # fmt: skip
"""Commands, and how many attachments there are when all is attached."""


@pytest.mark.parametrize("name", TOOLS)
def test_tools(name: str, tmp_path: Path, tracefs: Path) -> None:
    command, count = TOOLS[name]
    needs_tool("bpftool", command[0])
    text, trace = tmp_path / "text", tmp_path / "trace"
    with subprocess.Popen(
        [sys.executable, "-m", "bpftrace_sys", "-f", "-o", str(text), "--json", str(trace),
         *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment(), start_new_session=True,
    ) as tracer:  # fmt: skip
        try:
            while _attachments(trace) < count:
                assert tracer.poll() is None
                time.sleep(0.05)
            view = look()
            pid = json.loads(trace.read_text().splitlines()[1])["pid"]
            subprocess.run(["kill", "-INT", str(pid)], check=True)
            assert tracer.wait(120) in (0, -signal.SIGINT)
        finally:
            tracer.kill()
    after = look()
    said = Said([json.loads(line) for line in trace.read_text().splitlines()], text.read_text())
    comparison = Comparison(said, [view], after)
    assert comparison.contradictions() == []
    assert comparison.checked > 50


def _attachments(trace: Path) -> int:
    return trace.read_text().count('"verb":"attached"') if trace.exists() else 0


def test_every_tool_has_a_name_of_its_own() -> None:
    names = [row.name for row in rows()]
    assert len(names) == len(set(names))


# ---------------------------------------------------------------- what is false is found


def _line(said: Said, kind: str) -> dict[str, Any]:
    return next(line for line in said.lines if line.get("args", {}).get("cmd") == kind)


def _fd(said: Said, command: str, **change: Any) -> None:
    _line(said, command)["fd"].update(change)


def _target(said: Said, target: str) -> None:
    line = next(line for line in said.lines if line["type"] == "attachment")
    line["target"] = target


def _text(said: Said, pattern: str, by: str) -> None:
    said.text, count = re.subn(pattern, by, said.text, flags=re.MULTILINE)
    assert count


def _no_attachments(said: Said) -> None:
    said.lines[:] = [line for line in said.lines if line["type"] != "attachment"]


def _no_map(said: Said) -> None:
    fds = _line(said, "BPF_PROG_LOAD")["fds"]
    for fd in [fd for fd, each in fds.items() if each["kind"] == "map"]:
        del fds[fd]


FALSE: dict[str, Callable[[Said], None]] = {
    "a program's tag": lambda said: _fd(said, "BPF_PROG_LOAD", tag="0" * 16),
    "a program's type": lambda said: _fd(said, "BPF_PROG_LOAD", type="xdp"),
    "a map's name": lambda said: _fd(said, "BPF_MAP_CREATE", name="other"),
    "a map's size": lambda said: _line(said, "BPF_MAP_CREATE")["args"]["attr"].update(key_size=9),
    "the maps of a program": _no_map,
    "a target": lambda said: _target(said, "uprobe /bin/true:main"),
    "no attachment": _no_attachments,
    "a name in the text": lambda said: _text(said, r"<map calls id", "<map calls_ id"),
    "sizes in the text": lambda said: _text(said, r"array 4/8>", "array 4/9>"),
    "a tag in the table": lambda said: _text(
        said, r"^(  on_\w+ +kprobe +\d+  )[0-9a-f]{16}", r"\g<1>0123456789abcdef"
    ),
    "a fate": lambda said: _text(said, r"  uprobe /.*$", "  not attached"),
    "entries in the table": lambda said: _text(said, r"^(  calls +array .*4 +8 +)1", r"\g<1>2"),
}


@pytest.fixture(scope="module")
def uprobes(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    needs_tool("bpftool")
    return trace_of("uprobe_perf", tmp_path_factory)


@pytest.mark.parametrize("what", FALSE)
def test_what_is_false_is_found(what: str, uprobes: Traced) -> None:
    said = copy.deepcopy(uprobes.said)
    FALSE[what](said)
    again = Said(said.lines, said.text)
    assert Comparison(again, [uprobes.view]).contradictions() != []


def test_what_is_gone_is_not_left_behind(uprobes: Traced) -> None:
    said = uprobes.said
    number = next(iter(said.loaded()))
    rows = f"  what  {'id':>9}  name  why\n  prog  {number:9}  x     pinned at /x\n"
    table = f"left behind\n{rows}\n"
    again = Said(said.lines, said.text.replace("calls\n  syscall", f"{table}calls\n  syscall"))
    found = Comparison(again, [uprobes.view], View()).contradictions()
    assert found == [f"left behind: prog {number} x, and bpftool shows it no more"]
