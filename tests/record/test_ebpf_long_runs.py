"""Runs that last: files that are begun anew, events for collectors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.render.events import FIELDS
from bpftrace_sys.render.rotated import numbered, shift
from tests.support.running import LOADERS, environment, run_cli
from tests.support.schema import check


def whole(path: Path) -> list[dict[str, Any]]:
    """The lines of a trace that is replayed to its end, by itself."""
    ran = run_cli("replay", "-q", str(path))
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["type"] == "trace"
    assert lines[-1]["type"] == "end"
    check([line for line in lines if line["type"] != "object"])  # what pytest holds itself
    return lines


def test_where_old_files_go(tmp_path: Path) -> None:
    assert numbered("/var/log/trace.jsonl.gz", 2) == "/var/log/trace.2.jsonl.gz"
    assert numbered("trace", 1) == "trace.1"
    assert numbered("a.d/.trace.jsonl", 1) == "a.d/.trace.1.jsonl"
    path = tmp_path / "t.jsonl"
    for number in range(5):
        path.write_text(str(number))
        shift(str(path), 3)
    found = {one.name: one.read_text() for one in tmp_path.iterdir()}
    assert found == {"t.1.jsonl": "4", "t.2.jsonl": "3", "t.3.jsonl": "2"}


def test_each_file_is_a_trace_of_its_own(needs_bpf: None, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    ran = run_cli(
        "--engine", "bpf", "-f", "-q", "-o", "/dev/null", "-e", "trace=bpf",
        "--json", str(trace), "--rotate", "30K,20", sys.executable, str(LOADERS / "map_ops.py"),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    files = sorted(tmp_path.iterdir())
    assert len(files) > 1
    lines = [whole(path) for path in files]
    numbers = sorted(
        line["seq"] for one in lines for line in one if line["type"] == "syscall"
    )
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "none is in no file"
    ends = [one[-1]["status"] for one in lines]
    assert ends.count({"rotated": True}) == len(files) - 1
    assert {"code": 0} in ends


def test_sighup_begins_another_file(needs_bpf: None, tmp_path: Path) -> None:
    """As logrotate does it: the file is moved, then the signal comes."""
    trace, text = tmp_path / "trace.jsonl", tmp_path / "out.txt"
    watching = subprocess.Popen(
        [
            sys.executable, "-m", "bpftrace_sys", "--engine", "bpf", "-f", "-p", str(os.getpid()),
            "-o", str(text), "--json", str(trace),
        ],
        env=environment(), stdin=subprocess.DEVNULL,
    )  # fmt: skip

    def until(condition: Any) -> None:
        deadline = time.monotonic() + 180
        while not condition():
            assert time.monotonic() < deadline, "that did not come"
            subprocess.run([sys.executable, str(LOADERS / "map_in_map.py")], check=True,
                           stdout=subprocess.DEVNULL)  # fmt: skip

    try:
        until(lambda: trace.exists() and trace.stat().st_size > 4_000)
        for path in (trace, text):
            os.rename(path, f"{path}.old")
        watching.send_signal(signal.SIGHUP)
        until(lambda: trace.exists() and trace.stat().st_size > 4_000)
    finally:
        watching.send_signal(signal.SIGINT)
        watching.wait(60)
    assert watching.returncode == -signal.SIGINT
    old = Path(f"{trace}.old").rename(tmp_path / "old.jsonl")
    assert whole(old)[-1]["status"] == {"rotated": True}
    assert whole(trace)[-1]["status"] == {}
    assert "BPF_MAP_CREATE" in Path(f"{text}.old").read_text()
    assert "BPF_MAP_CREATE" in text.read_text()


# ---------------------------------------------------------------- events


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of a loader that loads, attaches, pins; and of one that is refused."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = tmp_path_factory.mktemp("events")
    path = folder / "events.jsonl"
    for name in ("cgroup_attach", "pin", "errors"):
        run_cli(
            "--engine", "bpf", "-f", "-q", "-o", "/dev/null", "--events", str(path),
            sys.executable, str(LOADERS / f"{name}.py"),
        )  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o600
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_fields_are_flat_and_of_one_type(events: list[dict[str, Any]]) -> None:
    assert events
    for line in events:
        for name, value in line.items():
            assert type(value) is FIELDS[name], (name, value)


def test_what_is_told(events: list[dict[str, Any]]) -> None:
    told = {line["event"] for line in events}
    assert {"load", "attach", "detach", "pin", "refused"} <= told
    loads = [line for line in events if line["event"] == "load"]
    assert all(line["prog_id"] and line["prog_type"] and line["prog_tag"] for line in loads)
    assert all(line["command_line"] and line["exe"] for line in loads)
    attach = next(line for line in events if line["event"] == "attach")
    assert attach["target"].startswith("cgroup")
    assert attach["prog_id"] in {line["prog_id"] for line in loads}
    refused = [line for line in events if line["event"] == "refused"]
    assert all(line["errno"] for line in refused)
    assert any(line.get("why") for line in refused)
    pins = [line["path"] for line in events if line["event"] == "pin"]
    assert all(path.startswith("/") for path in pins)


def test_duckdb_reads_them(events: list[dict[str, Any]], tmp_path: Path) -> None:
    """A database finds one type for each field."""
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in events))
    shown = duckdb.sql(
        f"select event, count(*), any_value(prog_type) from read_json_auto('{path}') group by 1"
    ).fetchall()
    assert {row[0] for row in shown} == {line["event"] for line in events}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-a", "--rotate", "100M,3"), "--rotate needs --json FILE"),
        (("-a", "--json", "x", "--rotate", "100M"), "takes SIZE,N"),
        (("-a", "--json", "x", "--rotate", "100M,0"), "takes SIZE,N"),
        (("--json", "x", "--rotate", "1M,3", "true"), "--rotate is for --engine bpf"),
        (("-a", "--events", "/no/such/folder/x"), "cannot write /no/such/folder/x"),
    ],
)
def test_what_is_wrong_is_said(words: tuple[str, ...], said: str) -> None:
    ran = run_cli(*words, timeout=30)
    assert ran.returncode in (2, 125)
    assert said in ran.stderr
