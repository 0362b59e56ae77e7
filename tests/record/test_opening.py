"""-p PID: what the process held when it was attached to, before its first call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import bpftrace_sys
from tests.support.running import LOADERS, environment, run_cli

pytestmark = pytest.mark.usefixtures("needs_bpf")

HOLDS = f"""
import json, os, sys
from fcntl import ioctl
sys.path.insert(0, {str(LOADERS)!r})
from _common import *
kit = Kit()
array = kit.map("ARRAY", 4, 8, 1, "calls")
prog = kit.prog("KPROBE", counting(array), "on_getppid")
path, offset = libc_function("getppid")
event = perf_event(pmu("uprobe"), text=path.encode(), config2=offset)
ioctl(event, PERF_EVENT_IOC_SET_BPF, prog)
ioctl(event, PERF_EVENT_IOC_ENABLE, 0)
kept = os.dup(array)
print(json.dumps({{"facts": kit.facts, "event": event, "kept": kept, "path": path}}), flush=True)
sys.stdin.readline()
call("MAP_UPDATE_ELEM", map_fd=kept, key=u32s(0), value=bytes(8))
ioctl(event, PERF_EVENT_IOC_DISABLE, 0)
"""


class Attached:
    """A process that holds a program, a map twice and an event, attached to; then it uses them."""

    def __init__(self, folder: Path, *options: str) -> None:
        text, trace = folder / "trace.txt", folder / "trace.jsonl"
        with subprocess.Popen(
            [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=environment(),
        ) as process:  # fmt: skip
            assert process.stdout is not None
            self.said = json.loads(process.stdout.readline())
            self.pid = process.pid
            with subprocess.Popen(
                [sys.executable, "-m", "bpftrace_sys", "-f", "-o", str(text), "--json", str(trace),
                 *options, "-p", str(process.pid)],
                stderr=subprocess.PIPE, text=True, env=environment(),
            ) as tracer:  # fmt: skip
                deadline = time.monotonic() + 60
                while "TracerPid:\t0\n" in Path(f"/proc/{self.pid}/status").read_text():
                    assert tracer.poll() is None, tracer.communicate()
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                process.communicate("go\n", 60)
                self.stderr = tracer.communicate(timeout=60)[1]
        self.code = tracer.returncode
        self.trace = trace
        self.text = text.read_text()
        self.lines: list[dict[str, Any]] = [
            json.loads(line) for line in trace.read_text().splitlines()
        ]


@pytest.fixture(scope="module")
def attached(needs_bpf: None, tmp_path_factory: pytest.TempPathFactory) -> Attached:
    found = Attached(tmp_path_factory.mktemp("opening"))
    assert (found.code, found.stderr) == (0, "")
    return found


def test_text_begins_with_what_is_held(attached: Attached) -> None:
    said, pid = attached.said, attached.pid
    (prog,), (array,) = said["facts"]["progs"], said["facts"]["maps"]
    target = f"uprobe {said['path']}:getppid"
    assert attached.text.splitlines()[:3] == [
        f"[{pid}] holds {prog['fd']}<prog on_getppid id={prog['id']} tag={prog['tag']}>, "
        f"attached to {target}",
        f"[{pid}] holds {array['fd']}, {said['kept']}<map calls id={array['id']} array 4/8>",
        f"[{pid}] holds {said['event']}<{target}>, of prog on_getppid id={prog['id']}",
    ]


def test_programs_know_what_was_held(attached: Attached) -> None:
    """By the Python API: an object from before, and where it is attached."""
    trace = bpftrace_sys.open_trace(attached.trace)
    prog, array = trace.programs["on_getppid"], trace.maps["calls"]
    (fact,) = attached.said["facts"]["progs"]
    assert (prog.id, prog.tag, prog.origin) == (fact["id"], fact["tag"], "before")
    assert prog.attached_to == [f"uprobe {attached.said['path']}:getppid"]
    assert (array.key_size, array.value_size, array.origin) == (4, 8, "before")


def test_calls_name_what_was_held(attached: Attached) -> None:
    said = attached.said
    (array,) = said["facts"]["maps"]
    assert f"map_fd={said['kept']}<map calls id={array['id']} (from before)>" in attached.text
    event = f"{said['event']}<uprobe {said['path']}:getppid (from before)>"
    said_in_a_line = " ".join(attached.text.split())  # long calls are broken
    assert f"ioctl({event}, PERF_EVENT_IOC_DISABLE, 0) = 0" in said_in_a_line
    (told,) = (line for line in attached.lines if line["type"] == "attachment")
    assert (told["verb"], told["prog"]["name"]) == ("disabled", "on_getppid")
    assert told["target"] == f"uprobe {said['path']}:getppid"


def test_lines_stand_before_the_first_call(attached: Attached) -> None:
    kinds = [line["type"] for line in attached.lines]
    first = kinds.index("syscall")
    objects = [line for line in attached.lines[:first] if line["type"] == "object"]
    assert "object" not in kinds[first:]
    (prog,) = (line for line in objects if line["object"]["kind"] == "prog")
    assert prog["object"]["origin"] == "before"
    assert prog["holders"][0]["pid"] == attached.pid
    assert prog["holders"][0]["exe"] == os.path.realpath(sys.executable)
    (place,) = prog["attached"]
    assert place["target"] == f"uprobe {attached.said['path']}:getppid"
    assert (place["way"], place["info"]["fds"]) == ("perf_event", [attached.said["event"]])


def test_replay_says_the_same(attached: Attached, tmp_path: Path) -> None:
    again = tmp_path / "again.jsonl"
    done = run_cli("replay", "--json", str(again), "-o", str(tmp_path / "text"), attached.trace)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "text").read_text() == attached.text
    assert again.read_text() == attached.trace.read_text()


def test_quietly_and_in_another_style(attached: Attached) -> None:
    for options in (["-q"], ["--style", "strace"], ["--canonical"]):
        done = run_cli("replay", *options, str(attached.trace))
        assert done.returncode == 0, done.stderr
        assert "holds" not in done.stdout


def test_what_holds_nothing_says_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    with subprocess.Popen(["sleep", "1"]) as process:
        done = run_cli("-o", str(tmp_path / "text"), "--json", str(trace), "-p", str(process.pid))
    assert done.returncode == 0, done.stderr
    assert "holds" not in (tmp_path / "text").read_text()
    assert "object" not in {json.loads(line)["type"] for line in trace.read_text().splitlines()}


def test_a_crowd_is_counted(attached: Attached, tmp_path: Path) -> None:
    """Of more than 20 of a kind the number is told; -v shows all."""
    lines = [attached.lines[0]]
    for kind, count in (("prog", 2), ("map", 300), ("link", 21)):
        lines += [
            {"type": "object", "object": {"kind": kind, "id": number, "name": f"{kind}{number}"},
             "info": {"type": 1}, "attached": [], "pins": [],
             "holders": [{"pid": 7, "comm": "x", "fds": [number]}]}
            for number in range(1, count + 1)
        ]  # fmt: skip
    lines.append({"type": "end", "status": {"code": 0}})
    crowd = tmp_path / "crowd.jsonl"
    crowd.write_text("\n".join(map(json.dumps, lines)) + "\n")
    said = run_cli("replay", str(crowd)).stdout.splitlines()
    assert len([line for line in said if "holds" in line]) == 2 + 21 + 21
    assert said[22] == "[7] holds 280 more maps (-v shows them)"
    assert said[43] == "[7] holds 1 more link (-v shows them)"
    whole = run_cli("replay", "-v", str(crowd)).stdout
    assert whole.count("] holds ") == 323


@pytest.mark.parametrize(
    "line",
    [
        {"type": "object"},
        {"type": "object", "object": {"kind": "file"}},
        {"type": "object", "object": {"kind": "prog", "id": "7"}},
        {"type": "object", "object": {"kind": "prog", "id": 7}, "info": {"type": {}}},
        {"type": "object", "object": {"kind": "prog", "id": 7}, "attached": [{"way": 1}]},
        {"type": "object", "object": {"kind": "prog", "id": 1 << 70}},
        {"type": "object", "object": {"kind": "prog", "id": 7}, "holders": [{"pid": "x"}]},
        {"type": "unseen", "what": 1, "why": ""},
    ],
)
def test_damaged_lines(line: dict[str, Any], attached: Attached, tmp_path: Path) -> None:
    spoiled = tmp_path / "spoiled.jsonl"
    spoiled.write_text("\n".join(map(json.dumps, [attached.lines[0], line])) + "\n")
    done = run_cli("replay", str(spoiled))
    assert done.returncode == 2
    assert "spoiled.jsonl:2: a damaged line" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("value", [0, 1, (1 << 63) + 5])
def test_odd_values_are_told(value: int, attached: Attached, tmp_path: Path) -> None:
    """Hostile infos of every way: no traceback, nothing that steers a terminal."""
    from bpftrace_sys.story.standing import ROWS
    from bpftrace_sys.trace.inventory import LISTS, NUMBERS, TEXTS

    odd: dict[str, Any] = {
        **dict.fromkeys(NUMBERS, value),
        **dict.fromkeys(TEXTS, "\x1b[31m"),
        **dict.fromkeys(LISTS, [value] * 5),
        "tag": "0123456789abcdef",
        "type": value,
        "of a newer version": {"a": ["b"]},
    }
    lines = [attached.lines[0]]
    for at, way in enumerate([*ROWS, "nowhere"]):
        for kind in ("prog", "link", "map", "perf_event", "btf", "token"):
            for fd_type in ("uprobe", "tracepoint", "kprobe", "event", "\x1b[4m"):
                info = {**odd, "fd_type": fd_type}
                lines.append(
                    {"type": "object", "object": {"kind": kind, "id": at + 1, "name": "\x1b[1m"},
                     "info": info, "attached": [{"way": way, "info": info}], "pins": ["\x1b[2m"],
                     "holders": [{"pid": 1, "comm": "\x1b[3m", "fds": [3]}]}
                )  # fmt: skip
    lines.append({"type": "unseen", "what": "\x1b[1m", "why": "\x1b[1m"})
    lines.append({"type": "end", "status": {}})
    spoiled = tmp_path / "odd.jsonl"
    spoiled.write_text("\n".join(map(json.dumps, lines)) + "\n")
    for options in ([], ["-c"], ["-v"]):
        done = run_cli("replay", *options, str(spoiled))
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
    assert "not seen" in run_cli("replay", str(spoiled)).stdout


@pytest.mark.parametrize("name", ["priority", "addrs", "tag", "ifindex"])
@pytest.mark.parametrize("value", [1.5, None, {}, [[1]], "\x1b" * (1 << 17)])
def test_values_of_another_type_are_damage(
    name: str, value: Any, attached: Attached, tmp_path: Path
) -> None:
    line = {"type": "object", "object": {"kind": "prog", "id": 7}, "info": {name: value}}
    spoiled = tmp_path / "spoiled.jsonl"
    spoiled.write_text("\n".join(map(json.dumps, [attached.lines[0], line])) + "\n")
    done = run_cli("replay", str(spoiled))
    assert done.returncode == 2
    assert "a damaged line" in done.stderr
