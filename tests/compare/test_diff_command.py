"""``bpfstrace diff``: exit codes, output, limits, and traces that are none."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from bpftrace_sys.compare.diff import options as limits
from bpftrace_sys.compare.diff.compare import compare
from bpftrace_sys.compare.diff.options import Options
from bpftrace_sys.compare.diff.whole import whole
from bpftrace_sys.render.diff import summary
from tests.support.differences import MAP_CREATE, different, same
from tests.support.rewriting import (
    U32,
    each,
    is_bpf,
    recording,
    rewritten,
    with_attr,
    with_text,
)
from tests.support.running import environment, run_cli
from tests.support.terminal import on_terminal


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Where a rewritten trace goes."""
    return tmp_path / "other.jsonl"


def test_beyond_what_is_held(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = recording("bpftool-loadall")
    monkeypatch.setattr(limits, "ONE_BY_ONE", 2)
    monkeypatch.setattr(limits, "DISTINCT", 1)
    monkeypatch.setattr(limits, "GROUPS", 1)
    assert same(first, first)
    rewritten(
        first,
        other,
        each(lambda raw: with_attr(raw, 12, U32(99)) if is_bpf(raw, MAP_CREATE) else raw),
    )
    found = different(first, other)
    assert not found["same"]
    assert any("after the first 2" in (line["on"] or "") for line in found["calls"])


def test_many_different_calls_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DISTINCT", 10)
    side = whole(str(recording("bpftool-loadall")), strict=True)
    for group in side.groups.values():
        assert len(group.calls) <= 10


# ------------------------------------------------------------------ the command


def test_exit_codes_and_output(other: Path) -> None:
    a, b = str(recording("bpftool-loadall")), str(recording("bpftool-loadall-o1"))
    done = run_cli("diff", a, a)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = run_cli("diff", a, b)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"--- {a}")
    assert lines[1].startswith(f"+++ {b}")
    assert lines[2].startswith("1 program changed: +10 -8 instructions; same maps; ")
    assert "\x1b" not in done.stdout
    done = run_cli("diff", "-q", a, b)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    done = run_cli("diff", "--json", a, b)
    assert done.returncode == 1
    line = json.loads(done.stdout)
    assert (line["format"], line["version"], line["same"]) == ("bpfstrace-diff", 1, False)
    assert line == different(Path(a), Path(b))
    done = run_cli("diff", "--only", "maps", "--only", "attachments", a, b)
    assert (done.returncode, done.stdout) == (0, "")
    done = run_cli("diff", a, "--ignore", "insns", b)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_ignore_names_in_vain_is_said() -> None:
    a, b = str(recording("bpftool-loadall")), str(recording("bpftool-loadall-o1"))
    done = run_cli("diff", "-q", "--ignore", "insn,nosuch,x*", "--ignore", "via,insns", a, b)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        f"bpfstrace: --ignore {word}: no field of that name was compared{more}"
        for word, more in (("insn", "; did you mean insns?"), ("nosuch", ""), ("x*", ""))
    ]
    done = run_cli("diff", "-q", "--ignore", "lic*,attr.prog_type,insns", a, b)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_of_them_from_stdin() -> None:
    path = recording("bcc-kprobe-hello")
    done = run_cli("diff", "-", str(path), input=None, stdin=path.open("rb"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "words",
    [[], ["one"], ["one", "two", "three"], ["--only", "links", "a", "b"], ["--frob", "a", "b"],
     ["-", "-"]],
)  # fmt: skip
def test_wrong_arguments(words: list[str]) -> None:
    done = run_cli("diff", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("bpfstrace: ")
    assert "Traceback" not in done.stderr


def test_help() -> None:
    done = run_cli("diff", "--help")
    assert done.returncode == 0
    for word in ("--json", "--only", "--ignore", "--strict", "Exit code"):
        assert word in done.stdout
    assert "  diff  " in run_cli("--help").stdout


def test_colours_on_a_terminal() -> None:
    words = [sys.executable, "-m", "bpftrace_sys", "diff", str(recording("bpftool-loadall-o1")),
             str(recording("bpftool-loadall"))]  # fmt: skip
    env = environment(TERM="xterm-256color")
    del env["NO_COLOR"]
    code, shown = on_terminal(words, env=env)
    assert code == 1
    assert "\x1b[31m" in shown
    assert "\x1b[32m" in shown
    code, shown = on_terminal(words, env={**env, "NO_COLOR": "1"})
    assert "\x1b[3" not in shown


def test_text_of_the_tracees_obeys_nobody(other: Path) -> None:
    first = recording("bcc-kprobe-hello")
    evil = b"\x1b]0;x\x07\x9b31m[red]"
    rewritten(
        first, other,
        each(lambda raw: with_text(raw, b"GPL", evil).replace(comm="e\x1b[1m")),
    )  # fmt: skip
    done = run_cli("diff", "--strict", str(first), str(other))
    assert done.returncode == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout)
    assert "[red]" in done.stdout


# ------------------------------------------------------------------ bad input


def plain(name: str, path: Path) -> bytes:
    """A recording as plain JSON lines."""
    run_cli("replay", "-o", os.devnull, "--json", str(path), str(recording(name)))
    return path.read_bytes()


@pytest.mark.parametrize("place", ["first", "second"])
def test_a_damaged_trace_is_not_compared(place: str, tmp_path: Path) -> None:
    good = recording("bcc-kprobe-hello")
    lines = plain("bcc-kprobe-hello", tmp_path / "plain.jsonl").splitlines(keepends=True)
    bad = {
        "empty": (b"", 0),
        "binary": (bytes(range(256)) * 8, 1),
        "foreign": (b'{"hello":"world"}\n', 1),
        "newer": (lines[0].replace(b'"version":1', b'"version":2', 1) + b"".join(lines[1:]), 1),
        "truncated": (b"".join(lines[:-1]), len(lines) - 1),
        "cut in a line": (b"".join(lines[:4])[:-20], 4),
        "not UTF-8": (b"".join(lines[:3]) + b'{"type":"\xff\xfe"}\n' + b"".join(lines[3:]), 4),
        "twice": (b"".join(lines[:3]) + b'{"type":"x","type":"x"}\n' + b"".join(lines[3:]), 4),
        "deep": (b"".join(lines[:3]) + b"[" * 100_000 + b"\n" + b"".join(lines[3:]), 4),
        "not hex": (b"".join(lines).replace(b'"args":["0x', b'"args":["qq', 1), 0),
    }
    for what, (data, line) in bad.items():
        path = tmp_path / "bad.jsonl"
        path.write_bytes(data)
        pair = (path, good) if place == "first" else (good, path)
        done = run_cli("diff", *map(str, pair))
        assert done.returncode == 2, what
        assert done.stdout == "", what
        assert done.stderr.startswith(f"bpfstrace: {path}" + (f":{line}: " if line else ":")), what
        assert "Traceback" not in done.stderr


def test_traces_that_leave_out_different_things(other: Path) -> None:
    path = recording("bcc-kprobe-hello")
    run_cli("replay", "-z", "-o", os.devnull, "--json", str(other), str(path))
    done = run_cli("diff", str(path), str(other))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{other}: copied by replay -z" in done.stderr
    assert run_cli("diff", str(other), str(other)).returncode == 0


def test_system_calls_that_one_of_them_was_not_recorded_with(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    data = plain("bcc-kprobe-hello", one)
    traced = re.search(rb'"traced":\[[^]]*\]', data)
    assert traced is not None
    one.write_bytes(data.replace(traced[0], b'"traced":["bpf","perf_event_open","ioctl"]', 1))
    two.write_bytes(b"".join(
        line for line in data.splitlines(keepends=True) if b"kprobe_events" not in line
    ))  # fmt: skip
    done = run_cli("diff", str(one), str(two))
    assert (done.returncode, done.stdout) == (0, "")
    assert "only the second trace was recorded with openat" in done.stderr


def test_the_summary_counts() -> None:
    found = compare(
        whole(str(recording("bcc-kprobe-hello")), strict=False),
        whole(str(recording("bcc-kretprobe-fentry")), strict=False),
        Options(),
    )
    assert summary(found).startswith("3 new programs; 1 program gone; 1 new map; ")
    assert "3 new attachments; 1 attachment gone" in summary(found)
