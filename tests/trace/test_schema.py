"""The schema against all that we write, and what the format promises."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bpftrace_sys.trace.header import VERSION
from tests.support.needs import needs_tool
from tests.support.running import FIXTURES, LOADERS, run_cli
from tests.support.schema import SCHEMA, check

NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/trace.jsonl.gz"))


def replayed(path: Path, *options: str) -> list[dict[str, Any]]:
    """A trace as this bpfstrace writes it."""
    done = run_cli("replay", "-o", os.devnull, "--json", "-", *options, str(path))
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["$defs"]["trace"]["properties"]["version"]["const"] == VERSION
    # What it says of itself is used, and what it uses is there.
    text = json.dumps(SCHEMA)
    for name in SCHEMA["$defs"]:
        assert f'"#/$defs/{name}"' in text


def test_the_command_prints_it() -> None:
    done = run_cli("schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == SCHEMA
    assert run_cli("schema", "--help").returncode == 0
    assert run_cli("schema", "x").returncode == 2
    assert "  schema  " in run_cli("--help").stdout


@pytest.mark.parametrize("name", NAMES)
def test_recordings_replayed(name: str) -> None:
    check(replayed(FIXTURES / name / "trace.jsonl.gz"))


@pytest.mark.parametrize(
    "loader", ["map_ops", "perf_link", "scm_rights", "struct_ops", "errors", "info", "tun"]
)
def test_fresh_traces(loader: str, needs_bpf: None, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    done = run_cli("-f", "-q", "-o", os.devnull, "--json", str(path), sys.executable,
                   str(LOADERS / f"{loader}.py"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    check([json.loads(line) for line in path.read_text().splitlines()])


def test_traces_that_went_wrong(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    for program in (["/nonexistent"], ["sh", "-c", "kill -9 $$"], ["sh", "-c", "exit 3"]):
        run_cli("-f", "-q", "-o", os.devnull, "--json", str(path), *program)
        check([json.loads(line) for line in path.read_text().splitlines()])


SPOILED: dict[str, Any] = {
    "no type": {"seq": 1},
    "a header of another format": {"type": "trace", "format": "other", "version": 1},
    "a call without raw": {"type": "syscall", "seq": 1},
    "an exit that is no number": {"type": "process", "event": "exit", "time": 1, "pid": 1,
                                  "tid": 1, "code": "1"},
    "a fact without a name": {"type": "fact", "kind": "ksym", "key": 1},
    "an attachment of nothing": {"type": "attachment", "verb": "painted"},
    "an end without status": {"type": "end"},
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILED)
def test_it_is_not_content_with_anything(what: str) -> None:
    assert not Draft202012Validator(SCHEMA).is_valid(SPOILED[what])


def test_fields_of_a_call_matter() -> None:
    lines = replayed(FIXTURES / "eperm" / "trace.jsonl.gz")
    call = next(line for line in lines if line["type"] == "syscall" and "errno" in line)
    validator = Draft202012Validator(SCHEMA)
    assert validator.is_valid(call)
    for name in SCHEMA["$defs"]["syscall"]["required"]:
        assert not validator.is_valid({key: call[key] for key in call if key != name}), name
    assert not validator.is_valid({key: call[key] for key in call if key != "errnum"})
    for path, value in (
        (("raw", "args", 0), "12"), (("raw", "entry", 0, 1), "!"), (("raw", "arch"), "x"),
        (("seq",), 0), (("args",), []), (("pid",), -1),
    ):  # fmt: skip
        spoiled = copy.deepcopy(call)
        inner = spoiled
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        assert not validator.is_valid(spoiled), path


# ------------------------------------------------------------------ compatibility


def additions(lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A trace of a later bpfstrace of the same version: more types, more fields."""
    news = {"nested": [1, {"two": None}]}
    for line in lines:
        line = copy.deepcopy(line)
        line["later"] = news
        if line["type"] == "syscall":
            line["raw"]["later"] = news
            line["args"]["later"] = news
            for known in line["raw"].get("fds", ()):
                known.append(news)
            if "fd" in line:
                line["fd"]["later"] = news
        if line["type"] == "trace":
            line["options"]["later"] = news
        yield line
        if line["type"] != "end":
            yield {"type": "later", "raw": {"entry": [["0x1", "AAAA"]]}, **news}


@pytest.mark.parametrize("name", ["bcc-kprobe-hello", "cgroup-attach", "i386-tracee"])
def test_readers_pass_over_what_they_do_not_know(name: str, tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    lines = replayed(FIXTURES / name / "trace.jsonl.gz")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    later = tmp_path / "later.jsonl"
    more = list(additions(lines))
    assert len(more) > 1.9 * len(lines) - 2
    later.write_text("".join(json.dumps(line) + "\n" for line in more))
    # The schema has room for them, too.
    validator = Draft202012Validator(SCHEMA)
    assert all(validator.is_valid(line) for line in more)
    for options in ([], ["-v"], ["--canonical"], ["--style", "strace"]):
        one, two = run_cli("replay", *options, str(path)), run_cli("replay", *options, str(later))
        assert (two.stdout, two.stderr, two.returncode) == (one.stdout, "", 0)
    done = run_cli("diff", "--strict", str(path), str(later))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.live
def test_writing_a_trace_again_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    once, again = tmp_path / "once.jsonl", tmp_path / "again.jsonl"
    source = FIXTURES / name / "trace.jsonl.gz"
    run_cli("replay", "-o", os.devnull, "--json", str(once), str(source))
    run_cli("replay", "-o", os.devnull, "--json", str(again), str(once))
    assert once.read_bytes() == again.read_bytes()


# ------------------------------------------------------------------ size


def room(line: dict[str, Any]) -> tuple[int, int]:
    """Bytes that a load's line takes, and those of its instructions and their listing."""
    attr = line["args"]["attr"]
    rows = attr["insns"]["value"]
    listing = 0
    for row in rows:
        listing += len(f"{row['pc']:4}: {row['text']}\n")
        for name in ("src", "fn"):
            if name in row:
                listing += len(f"; {row[name]}\n".encode())
        if "comment" in row:
            listing += len(f"  /* {row['comment']} */".encode())
    return len(json.dumps(line, separators=(",", ":"))), 8 * attr["insn_cnt"] + listing


def loads(lines: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Loads of at least so many instructions."""
    return [
        line for line in lines
        if line["type"] == "syscall" and line["args"].get("cmd") == "BPF_PROG_LOAD"
        and line["args"]["attr"]["insn_cnt"] >= count
    ]  # fmt: skip


def test_a_large_load_takes_no_more_than_twice_its_instructions() -> None:
    lines = replayed(FIXTURES / "libbpf-execsnoop" / "trace.jsonl.gz")
    (load,) = loads(lines, 1000)
    took, content = room(load)
    assert took <= 2 * content
    # line_info, of which there are hundreds, is a table, and still all there.
    table = load["args"]["attr"]["line_info"]["value"]
    assert table["fields"] == ["insn_off", "file_name_off", "line_off", "line_col"]
    assert len(table["rows"]) == load["args"]["attr"]["line_info_cnt"]


_SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("socket") int large(struct __sk_buff *skb)
{
    volatile __u64 sum = skb->len;
    %s
    return sum > 7;
}
char _license[] SEC("license") = "GPL";
"""


def test_a_load_of_ten_thousand_instructions(needs_bpf: None, tmp_path: Path) -> None:
    needs_tool("clang", "bpftool", "unshare")
    statements = "\n    ".join(f"sum += {at % 97 + 3};" for at in range(3_400))
    (tmp_path / "large.c").write_text(_SOURCE % statements)
    compiled = run(["clang", "-O2", "-g", "-target", "bpf",
                    f"-I/usr/include/{os.uname().machine}-linux-gnu", "-c", "large.c"], tmp_path)
    assert compiled == 0
    trace = tmp_path / "trace.jsonl"
    script = "mount -t bpf bpf /sys/fs/bpf && bpftool prog load large.o /sys/fs/bpf/large"
    done = run_cli("-f", "-q", "-o", os.devnull, "--json", str(trace), "unshare", "--mount", "sh",
                   "-c", script, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    check(lines)
    (load,) = loads(lines, 10_000)
    assert len(load["args"]["attr"]["line_info"]["value"]["rows"]) > 3000
    took, content = room(load)
    assert took <= 2 * content
    # The whole of the trace, BTF and probes of features and all, is hardly more.
    assert trace.stat().st_size <= 2 * content + 120_000
    packed = tmp_path / "trace.jsonl.gz"
    run_cli("replay", "-o", os.devnull, "--json", str(packed), str(trace))
    assert packed.stat().st_size < content


def run(words: list[str], cwd: Path) -> int:
    """A program's exit code."""
    return subprocess.run(words, cwd=cwd, timeout=60, check=False).returncode
