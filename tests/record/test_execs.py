"""Who runs: an exec's program, arguments, user and cgroup, as the program itself finds them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.trace.events import event_of
from tests.support.running import run_cli

SAYS = r"""
import ctypes, json, os, platform, sys
with open(sys.argv[1], "w") as out:
    lines = [line.rstrip("\n").split(":", 2) for line in open("/proc/self/cgroup")]
    json.dump({
        "path": os.readlink("/proc/self/exe"),
        "argv": open("/proc/self/cmdline").read().split("\0")[:-1],
        "uid": os.getuid(),
        "cgroups": [line[2] for line in lines],
        "pid": os.getpid(),
    }, out)
nr = {"x86_64": 321, "aarch64": 280}[platform.machine()]
ctypes.CDLL(None).syscall(nr, 999, None, 0)
"""


def lines_of(trace: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trace.read_text().splitlines()]


@pytest.mark.usefixtures("needs_bpf")
@pytest.mark.parametrize("engine", ["ptrace", "bpf"])
def test_an_exec_says_what_runs(engine: str, tmp_path: Path) -> None:
    script, said, trace = tmp_path / "says.py", tmp_path / "said", tmp_path / "t.jsonl"
    script.write_text(SAYS)
    odd = "a b\tc\x1b[31m 'q' \"d\" \u00e4"
    text = tmp_path / "text"
    words = ["sh", "-c", '"$@"; true', "sh", sys.executable, "-S", str(script), str(said), odd]
    done = run_cli("--engine", engine, "-f", "--json", str(trace), "-o", str(text), *words)
    assert done.returncode == 0
    own = json.loads(said.read_text())
    execs = [line for line in lines_of(trace) if line.get("event") == "exec"]
    (mine,) = [line for line in execs if line["pid"] == own["pid"]]
    assert {name: mine[name] for name in ("path", "argv", "uid")} == {
        "path": own["path"], "argv": own["argv"], "uid": own["uid"],
    }  # fmt: skip
    assert mine["cgroup"] in own["cgroups"]
    # It stands before the first call; of the shell, which asked nothing of BPF, nothing is said.
    shown = text.read_text().splitlines()
    runs = [number for number, line in enumerate(shown) if "] runs " in line]
    assert len(runs) == 1
    line = shown[runs[0]]
    assert line.startswith(f"[{own['pid']}] runs {own['path']} -S /")
    assert f"(uid {own['uid']}" in line
    assert "\x1b" not in line
    assert "bpf(0x3e7" in shown[runs[0] + 1]
    again = run_cli("replay", str(trace))
    assert again.stdout == text.read_text()


@pytest.mark.live
def test_one_program_alone_is_not_introduced(tmp_path: Path) -> None:
    script = tmp_path / "says.py"
    script.write_text(SAYS)
    done = run_cli("-f", sys.executable, "-S", str(script), os.devnull)
    assert "bpf(0x3e7" in done.stderr
    assert "] runs " not in done.stderr


THREAD = SAYS.partition("with open")[0] + r"""
import threading
nr = {"x86_64": 321, "aarch64": 280}[platform.machine()]
ctypes.CDLL(None).syscall(nr, 999, None, 0)
thread = threading.Thread(target=lambda: None)
thread.start()
thread.join()
"""


@pytest.mark.live
def test_a_thread_after_the_last_call_takes_no_end_away() -> None:
    done = run_cli("-f", "sh", "-c", '"$@"; true', "sh", sys.executable, "-S", "-c", THREAD)
    (call,) = [line for line in done.stderr.splitlines() if "bpf(0x3e7" in line]
    assert f"{call.split()[0]} +++ exited with 0 +++" in done.stderr.splitlines()


@pytest.mark.parametrize(
    "wrong", [{"path": 5}, {"argv": "text"}, {"argv": [5]}, {"uid": "0"}, {"cgroup": []}]
)
def test_an_exec_that_is_not_well_formed(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        event_of({"event": "exec", "time": 1, "pid": 2, "tid": 2, **wrong})


def test_execs_of_older_traces_say_nothing() -> None:
    old = event_of({"event": "exec", "time": 1, "pid": 2, "tid": 2})
    from bpftrace_sys.render.watching import exec_line
    from decoders.events import Exec

    assert old.what == Exec()
    assert exec_line(Exec()) is None
