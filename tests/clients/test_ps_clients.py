"""bpfstrace ps and -p on clients that people use; bpftool and /proc say the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.bpftool_view import bpftool
from tests.support.needs import needs_tool
from tests.support.running import FIXTURES, environment, run_cli

Line = dict[str, Any]


def holds(pid: int, kind: str) -> bool:
    """Whether a process has an fd of a kind, by a plain look at /proc."""
    folder = f"/proc/{pid}/fd"
    try:
        return any(kind in os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder))
    except OSError:
        return False


class Clients:
    """Three clients at work, as ps and bpftool show them."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        work = shutil.copytree(FIXTURES / "bcc-uprobe", folder / "work")
        commands = {
            "opensnoop": ["opensnoop"],
            "bpftrace": ["bpftrace", "-e", "tracepoint:syscalls:sys_enter_openat { @ = count(); }"],
            "bcc": ["/usr/bin/python3", "hello.py"],
        }
        self.pids: dict[str, int] = {}
        for name, words in commands.items():
            process = stack.enter_context(
                subprocess.Popen(
                    words, cwd=work, env=environment(), stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )
            )  # fmt: skip
            stack.callback(process.kill)
            self.pids[name] = process.pid
        deadline = time.monotonic() + 120
        while not all(map(self.attached, self.pids.values())):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        self.before = {kind: bpftool(kind, "show") for kind in ("prog", "map", "link")}
        done = run_cli("ps", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        self.lines: list[Line] = [json.loads(line) for line in done.stdout.splitlines()]
        self.after = {kind: bpftool(kind, "show") for kind in ("prog", "map", "link")}
        self.perf = bpftool("perf", "show")

    @staticmethod
    def attached(pid: int) -> bool:
        """As bpftool perf sees it, which needs a program on the event."""
        return sum(entry["pid"] == pid for entry in bpftool("perf", "show")) >= 1 and holds(
            pid, "bpf-prog"
        )

    def of(self, kind: str) -> dict[int, Line]:
        return {
            line["object"]["id"]: line
            for line in self.lines
            if line["type"] == "object" and line["object"]["kind"] == kind
        }


@pytest.fixture(scope="module")
def clients(tracefs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    needs_tool("bpftool", "opensnoop", "bpftrace")
    if subprocess.run(["/usr/bin/python3", "-c", "import bcc"], capture_output=True).returncode:
        pytest.skip("python3-bpfcc is not installed")
    if not os.path.isdir(f"/lib/modules/{os.uname().release}/build"):
        pytest.skip("BCC needs kernel headers")
    with ExitStack() as stack:
        yield Clients(stack, tmp_path_factory.mktemp("clients"))


@pytest.mark.parametrize("kind", ["prog", "map", "link"])
def test_no_id_is_missing(kind: str, clients: Clients) -> None:
    later = {entry["id"] for entry in clients.after[kind]}
    stable = {entry["id"] for entry in clients.before[kind]} & later
    assert stable
    assert stable <= clients.of(kind).keys()


def test_owners_are_those_whose_fds_they_are(clients: Clients) -> None:
    """By a plain reading of /proc/PID/fdinfo."""
    keys = {"prog": "prog_id", "map": "map_id", "link": "link_id"}
    checked = 0
    for pid in clients.pids.values():
        for fd in os.listdir(f"/proc/{pid}/fd"):
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            name = link.replace("_", "-")
            kind = next((kind for kind in keys if f"bpf-{kind}" in name), "")
            if not kind:
                continue
            text = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
            fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            line = clients.of(kind)[int(fields[keys[kind]])]
            (holder,) = [each for each in line["holders"] if each["pid"] == pid]
            assert int(fd) in holder["fds"]
            assert holder["exe"] == os.readlink(f"/proc/{pid}/exe")
            checked += 1
    assert checked >= 6


def test_perf_events_are_bpftools(clients: Clients) -> None:
    checked = set()
    for entry in clients.perf:
        name = next((name for name, pid in clients.pids.items() if pid == entry["pid"]), None)
        if name is None or entry["fd_type"] == "raw_tracepoint":
            continue
        places = clients.of("prog")[entry["prog_id"]]["attached"]
        (key,) = (key for key in ("tracepoint", "filename", "func") if key in entry)
        assert any(
            place["info"].get("fd_type") == entry["fd_type"]
            and place["info"].get("probe") == entry[key]
            and place["info"].get("probe_offset", 0) == entry.get("offset", 0)
            for place in places
        ), (entry, places)
        checked.add(name)
    assert checked == set(clients.pids)


def test_targets_as_a_trace_words_them(clients: Clients) -> None:
    said = {
        name: {
            place["target"]
            for line in clients.of("prog").values()
            if any(holder["pid"] == pid for holder in line["holders"])
            for place in line["attached"]
        }
        for name, pid in clients.pids.items()
    }
    assert "tracepoint syscalls:sys_enter_openat" in said["opensnoop"]
    assert said["bpftrace"] == {"tracepoint syscalls:sys_enter_openat"}
    assert {target.split()[0] for target in said["bcc"]} == {"uprobe", "uretprobe"}
    assert all(target.endswith("libc.so.6:getppid") for target in said["bcc"])


def test_attaching_to_them_begins_with_the_same(clients: Clients, tmp_path: Path) -> None:
    pid = clients.pids["bpftrace"]
    text = tmp_path / "text"
    with subprocess.Popen(
        ["timeout", "-s", "INT", "3", sys.executable, "-m", "bpftrace_sys", "-o", str(text),
         "-p", str(pid)], env=environment(),
    ) as tracer:  # fmt: skip
        tracer.wait(60)
    held = [line for line in text.read_text().splitlines() if " holds " in line]
    progs = {
        number
        for number, line in clients.of("prog").items()
        if any(holder["pid"] == pid for holder in line["holders"])
    }
    shown = {
        int(line.split("id=")[1].split()[0].rstrip(">")) for line in held if "<prog " in line
    }
    assert shown == progs
    assert any("attached to tracepoint syscalls:sys_enter_openat" in line for line in held)
