"""The JSON lines: their shape, types and paths, against what the tracee did and the kernel says."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys import __version__
from decoders.formats.tag import tags
from tests.support.running import LOADERS, environment, run_cli

pytestmark = pytest.mark.live

PYTHON = sys.executable


def trace(path: Path, *words: str) -> list[dict[str, Any]]:
    """A traced program's lines."""
    done = run_cli("-f", "-o", os.devnull, "--json", str(path), *words)
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def hello(
    needs_bpf: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """bpftrace_sys.hello, traced."""
    path = tmp_path_factory.mktemp("hello") / "trace.jsonl"
    return path, trace(path, PYTHON, "-m", "bpftrace_sys.hello")


@pytest.fixture(scope="module")
def linked(needs_bpf: None, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """A link over a perf event, traced."""
    path = tmp_path_factory.mktemp("linked") / "trace.jsonl"
    return trace(path, PYTHON, str(LOADERS / "perf_link.py"), "--strict")


@pytest.fixture(params=["hello", "linked"])
def lines(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Each of the two."""
    found = request.getfixturevalue(request.param)
    return found[1] if isinstance(found, tuple) else found


def calls(lines: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    """The calls of one syscall, command or request."""
    return [
        line
        for line in lines
        if line["type"] == "syscall"
        and what in (line["syscall"], line["args"].get("cmd"), line["args"].get("request"))
    ]


# ------------------------------------------------------------------ the file


def test_it_is_ascii_and_a_whole_object_a_line(hello: tuple[Path, Any]) -> None:
    data = hello[0].read_bytes()
    data.decode("ascii")
    assert data.endswith(b"\n")
    assert all(isinstance(json.loads(line), dict) for line in data.splitlines())
    assert not any(byte < 32 and byte != 10 for byte in data)


def test_the_header_says_who_where_and_when(lines: list[dict[str, Any]]) -> None:
    header = lines[0]
    assert header["type"] == "trace"
    assert (header["format"], header["version"]) == ("bpfstrace", 1)
    assert header["bpfstrace"] == __version__
    assert header["argv"][0] == PYTHON
    assert header["kernel"] == os.uname().release
    assert header["machine"] == os.uname().machine
    assert abs(header["start"] / 1e9 - time.time()) < 600
    for name, number in header["pmu_types"].items():
        assert int(Path(f"/sys/bus/event_source/devices/{name}/type").read_text()) == number
    assert len(header["pmu_types"]) == len(os.listdir("/sys/bus/event_source/devices"))


def test_the_end_line_is_the_last_and_the_only_one(lines: list[dict[str, Any]]) -> None:
    assert lines[-1] == {"type": "end", "status": {"code": 0}}
    assert [line["type"] for line in lines].count("end") == 1
    assert [line["type"] for line in lines].count("trace") == 1


def test_every_call_has_its_fields(lines: list[dict[str, Any]]) -> None:
    found = [line for line in lines if line["type"] == "syscall"]
    assert [line["seq"] for line in found] == list(range(1, len(found) + 1))
    assert len({line["pid"] for line in found}) == 1
    for line in found:
        assert line["tid"] == line["pid"]
        assert line["comm"].startswith("python")
        assert line["time"] >= lines[0]["start"]
        assert line["duration"] > 0
        assert list(line)[:8] == [
            "type", "seq", "time", "duration", "pid", "tid", "comm", "syscall",
        ]  # fmt: skip
        assert isinstance(line["ret"], int)
        assert ("errno" in line) == (line["ret"] == -1)
    assert [line["time"] for line in found] == sorted(line["time"] for line in found)


def addresses(value: Any) -> Iterator[dict[str, Any]]:
    """All pointers in a value."""
    if isinstance(value, dict):
        if "addr" in value:
            yield value
        for member in value.values():
            yield from addresses(member)
    elif isinstance(value, list):
        for member in value:
            yield from addresses(member)


def test_pointers_are_an_address_in_hex_and_a_value(lines: list[dict[str, Any]]) -> None:
    found = list(addresses([line["args"] for line in lines if line["type"] == "syscall"]))
    assert len(found) >= 5
    for pointer in found:
        assert re.fullmatch("0x[0-9a-f]+", pointer["addr"])
        assert ("value" in pointer) != ("absent" in pointer)


# ------------------------------------------------------------------ a load, field by field


def test_a_load_is_as_the_issue_describes_it(hello: tuple[Path, Any]) -> None:
    (load,) = calls(hello[1], "BPF_PROG_LOAD")
    attr = load["args"]["attr"]
    assert load["args"]["cmd"] == "BPF_PROG_LOAD"
    assert re.fullmatch("BPF_PROG_TYPE_[A-Z]+", attr["prog_type"])
    assert attr["insn_cnt"] == 13
    assert attr["license"]["value"] == "GPL"
    assert attr["prog_name"] == "hello_world"
    assert isinstance(attr["prog_btf_fd"], int)
    assert load["args"]["size"] >= 128
    insns = attr["insns"]["value"]
    assert [insn["pc"] for insn in insns] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]
    assert insns[0]["text"] == "(b7) r1 = 33"
    assert insns[0]["src"] == "int hello_world(void *ctx)"
    assert insns[1]["text"] == "(6b) *(u16 *)(r10 -4) = r1"
    assert insns[9]["text"] == "(85) call bpf_trace_printk#6"
    assert insns[-1]["text"] == "(95) exit"
    made = load["fd"]
    assert (made["kind"], made["name"]) == ("prog", "hello_world")
    assert load["ret"] >= 3
    # The kernel's own tag, from fdinfo, is one of the two that we compute.
    assert made["tag"] in load["tag"].values()
    assert load["tag"]["sha1"] == "38dd440716c4900f"
    assert load["fds"][str(attr["prog_btf_fd"])]["kind"] == "btf"


def test_raw_holds_the_bytes_of_the_load(hello: tuple[Path, Any]) -> None:
    (load,) = calls(hello[1], "BPF_PROG_LOAD")
    address = load["args"]["attr"]["insns"]["addr"]
    (chunk,) = (chunk for chunk in load["raw"]["entry"] if chunk[0] == address)
    data = base64.b64decode(chunk[1])
    assert len(data) == 13 * 8
    assert tags(data).sha1 == "38dd440716c4900f"
    assert [int(arg, 16) for arg in load["raw"]["args"]][2] == load["args"]["size"]


def test_flags_are_lists(hello: tuple[Path, Any]) -> None:
    opened = calls(hello[1], "openat")
    assert opened
    for line in opened:
        assert line["args"]["dirfd"] == "AT_FDCWD"
        assert "O_CLOEXEC" in line["args"]["flags"]
    (event,) = calls(hello[1], "perf_event_open")
    assert event["args"]["flags"] == ["PERF_FLAG_FD_CLOEXEC"]


def test_an_attachment_names_program_target_and_steps(hello: tuple[Path, Any]) -> None:
    _, lines = hello
    (attached,) = (line for line in lines if line["type"] == "attachment")
    assert attached["verb"] == "attached"
    assert attached["prog"]["name"] == "hello_world"
    assert attached["prog"]["id"] == calls(lines, "BPF_PROG_LOAD")[0]["fd"]["id"]
    by_seq = {line["seq"]: line for line in lines if line["type"] == "syscall"}
    roles = {step["role"]: by_seq[step["seq"]] for step in attached["steps"]}
    assert roles["load"]["args"]["cmd"] == "BPF_PROG_LOAD"
    assert roles["event"]["syscall"] == "perf_event_open"
    assert roles["attach"]["args"]["request"] == "PERF_EVENT_IOC_SET_BPF"
    assert roles["enable"]["args"]["request"] == "PERF_EVENT_IOC_ENABLE"
    seqs = [step["seq"] for step in attached["steps"]]
    assert seqs == sorted(seqs)
    # It stands right after the call that completed it.
    place = lines.index(attached)
    assert lines[place - 1].get("seq") == roles["enable"]["seq"]


# ------------------------------------------------------------------ unions, links


def test_members_of_named_unions_nest(linked: list[dict[str, Any]]) -> None:
    (link,) = calls(linked, "BPF_LINK_CREATE")
    create = link["args"]["attr"]["link_create"]
    (load,) = calls(linked, "BPF_PROG_LOAD")
    (event,) = calls(linked, "perf_event_open")
    assert create["prog_fd"] == load["ret"]
    assert create["target_fd"] == event["ret"]
    assert create["attach_type"] == "BPF_PERF_EVENT"
    assert int(str(create["perf_event"]["bpf_cookie"]), 0) == 0xC00C1E
    assert link["fd"]["kind"] == "link"
    assert link["fds"][str(load["ret"])]["name"] == "on_getpgrp"


def test_a_uprobes_attr_has_path_and_offset(linked: list[dict[str, Any]]) -> None:
    (event,) = calls(linked, "perf_event_open")
    attr = event["args"]["attr"]
    assert attr["type"]["name"] == "uprobe"
    assert attr["type"]["value"] == linked[0]["pmu_types"]["uprobe"]
    path = attr["uprobe_path"]["value"]
    assert os.path.exists(path)
    offset = int(str(attr["probe_offset"]), 0)
    symbols = subprocess.run(
        ["readelf", "-W", "--dyn-syms", path], capture_output=True, text=True, check=False
    ).stdout
    if symbols:
        assert re.search(rf"{offset:016x} .* getpgrp@", symbols)


def test_map_elements_are_there(linked: list[dict[str, Any]]) -> None:
    (made,) = calls(linked, "BPF_MAP_CREATE")
    assert made["args"]["attr"]["map_type"] == "BPF_MAP_TYPE_ARRAY"
    assert made["fd"]["map_type"] in (2, "BPF_MAP_TYPE_ARRAY")
    looked_up = calls(linked, "BPF_MAP_LOOKUP_ELEM")
    assert looked_up
    attr = looked_up[-1]["args"]["attr"]
    assert looked_up[-1]["fds"][str(attr["map_fd"])]["name"] == "calls"
    assert {"key", "value"} <= attr.keys()


# ------------------------------------------------------------------ failures, unknown values

FAILING = """\
import ctypes, platform, struct
libc = ctypes.CDLL(None)
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
def bpf(cmd, data, size=None):
    attr = ctypes.create_string_buffer(data, max(len(data), 1))
    libc.syscall(number, cmd, attr, len(data) if size is None else size)
bpf(0, struct.pack("<IIIII", 0x7777, 4, 4, 1, 0x80000001))   # an unknown map type, a flag
bpf(999, bytes(16))                                          # an unknown command
bpf(1, struct.pack("<IxxxxQQQ", 12345, 1, 2, 0))             # a bad fd, bad pointers
libc.syscall(number, 0, 8, 20)                               # an attr that cannot be read
"""


def test_failures_and_unknown_values(tmp_path: Path) -> None:
    lines = trace(tmp_path / "t.jsonl", PYTHON, "-S", "-c", FAILING)
    create, unknown, lookup, unreadable = calls(lines, "bpf")
    assert create["ret"] == -1
    assert create["errno"] in ("EINVAL", "EPERM", "E2BIG")
    assert "fd" not in create
    attr = create["args"]["attr"]
    assert attr["map_type"] == 0x7777
    assert attr["map_flags"] == ["BPF_F_NO_PREALLOC", 0x80000000]
    assert unknown["args"]["cmd"] == 999
    assert unknown["errno"] in ("EINVAL", "EPERM")
    assert lookup["args"]["attr"]["map_fd"] == 12345
    assert lookup["errno"] in ("EBADF", "EPERM")
    assert unreadable["errno"] == "EFAULT"
    assert unreadable["args"]["attr"] == {"addr": "0x8", "absent": "unreadable address"}


def test_errors_have_the_kernels_names() -> None:
    from bpftrace_sys.common.errnos import errno_name

    header = Path("/usr/include/asm-generic/errno.h")
    if not header.exists():
        pytest.skip("linux-libc-dev is not installed")
    text = header.read_text() + header.with_name("errno-base.h").read_text()
    named = re.findall(r"#define\s+(E\w+)\s+(\d+)", text)
    assert len(named) > 120
    for name, number in named:
        assert errno_name(int(number)) == name
    assert errno_name(524) == "ENOTSUPP"
    assert errno_name(4000) == "4000"


# ------------------------------------------------------------------ a tracer that is killed

LONG = """\
import ctypes, platform, sys
from tests.support.running import LOADERS
libc = ctypes.CDLL(None)
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
attr = ctypes.create_string_buffer(64)
print("go", flush=True)
while True:
    libc.syscall(number, 11, attr, 16)
"""


@pytest.mark.parametrize("delay", [0.0, 0.07, 0.23])
def test_a_killed_tracer_leaves_whole_lines(delay: float, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    words = [PYTHON, "-m", "bpftrace_sys", "-o", os.devnull, "--json", str(path),
             PYTHON, "-S", "-c", LONG]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment()) as traced:
        assert traced.stdout is not None
        assert traced.stdout.readline() == b"go\n"
        for _ in itertools.count():
            if path.stat().st_size > 2000:
                break
            time.sleep(0.01)
        time.sleep(delay)
        traced.send_signal(signal.SIGKILL)
        traced.wait()
    data = path.read_bytes()
    assert data.endswith(b"\n")
    lines = [json.loads(line) for line in data.splitlines()]
    assert lines[0]["type"] == "trace"
    assert lines[-1]["type"] != "end"
    done = run_cli("replay", "-v", str(path))
    assert done.returncode == 2
    assert done.stdout.count("bpf(BPF_PROG_GET_NEXT_ID") == len(calls(lines, "bpf")) > 1
    assert done.stderr == (
        f"bpfstrace: {path}:{len(lines)}: the trace ends without its end line: truncated, "
        "or still being written; what stood before was replayed\n"
    )


def test_lines_are_there_while_the_program_still_runs(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    program = LONG.replace("while True:", "for _ in range(3):")
    program += "print('done', flush=True)\ninput()"
    words = [PYTHON, "-m", "bpftrace_sys", "-o", os.devnull, "--json", str(path),
             PYTHON, "-S", "-c", program]  # fmt: skip
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as traced:
        assert traced.stdout is not None
        assert traced.stdout.readline() == b"go\n"
        assert traced.stdout.readline() == b"done\n"
        deadline = time.monotonic() + 10
        while path.read_bytes().count(b'"syscall":"bpf"') < 3:
            assert time.monotonic() < deadline, "the calls are not in the file yet"
            time.sleep(0.02)
        traced.communicate(b"\n")
    assert json.loads(path.read_text().splitlines()[-1]) == {"type": "end", "status": {"code": 0}}
