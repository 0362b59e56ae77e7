"""diff: real recordings against each other, and against themselves with one thing changed."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.cli.diff import whole
from bpftrace_sys.compare.diff import options as limits
from bpftrace_sys.compare.diff.compare import compare
from bpftrace_sys.compare.diff.options import Options
from bpftrace_sys.render.diff import as_json, summary, text
from bpftrace_sys.trace.items import Item
from decoders.raw import RawCall
from tests.support.needs import needs_tool
from tests.support.rewriting import (
    U32,
    as_of_another_day,
    each,
    is_bpf,
    items,
    recording,
    repeated,
    rewritten,
    with_attr,
    with_bytes,
    with_text,
)
from tests.support.running import FIXTURES, LOADERS, environment, run_cli
from tests.support.terminal import on_terminal

MAP_CREATE, UPDATE, PROG_LOAD, OBJ_PIN = 0, 2, 5, 6
PERF_EVENT_OPEN, IOCTL = 298, 16
NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/trace.jsonl.gz"))


def different(a: Path, b: Path, **options: Any) -> dict[str, Any]:
    """What differs, as JSON."""
    chosen = Options(**options)
    found = compare(whole(str(a), chosen.strict), whole(str(b), chosen.strict), chosen)
    assert bool(found) == bool(list(text(found, ("a", "b"), (None, None))))
    return as_json(found, (str(a), str(b)))


def same(a: Path, b: Path, **options: Any) -> bool:
    """Whether nothing differs."""
    return bool(different(a, b, **options)["same"])


def changes(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Kind, change and name of the objects that differ."""
    return [(line["kind"], line["change"], line["name"]) for line in found["objects"]]


# ------------------------------------------------------------------ real recordings


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_is_the_same_as_itself(name: str) -> None:
    assert same(recording(name), recording(name), strict=True)


def test_a_program_compiled_otherwise() -> None:
    # The same source by clang -O1 and -O2: count_packets comes out alike, sum_sizes does not.
    found = different(recording("bpftool-loadall-o1"), recording("bpftool-loadall"))
    assert changes(found) == [("prog", "changed", "sum_sizes")]
    assert found["attachments"] == found["probes"] == found["calls"] == []
    change = found["objects"][0]
    assert change["fields"] == []
    lines = [line for hunk in change["insns"]["hunks"] for line in hunk]
    old = [line for line in lines if line["op"] != "+"]
    new = [line for line in lines if line["op"] != "-"]
    assert len(old) - len(new) == change["insns"]["a"] - change["insns"]["b"]
    assert change["insns"]["removed"] == sum(line["op"] == "-" for line in lines)
    # Both sides are what the recordings hold, at those places.
    for name, side, column in (("bpftool-loadall-o1", old, "a"), ("bpftool-loadall", new, "b")):
        program = listing(name, "sum_sizes")
        for line in side:
            if line["op"] != " ":
                assert program[line[column]] == line["text"]
    # Nothing outside of the hunks differs.
    one, two = (
        [re.sub(r"pc[+-]\d+$", "pc", row) for row in listing(name, "sum_sizes").values()]
        for name in ("bpftool-loadall-o1", "bpftool-loadall")
    )
    assert one[:9] == two[:9]
    assert one[-2:] == two[-2:]


def listing(name: str, program: str) -> dict[int, str]:
    """The text of each instruction as replay tells it, without names of maps."""
    done = run_cli("replay", "-q", "-o", os.devnull, "--json", "-", str(recording(name)))
    for line in map(json.loads, done.stdout.splitlines()):
        attr = line.get("args", {}).get("attr", {})
        if isinstance(attr, dict) and attr.get("prog_name") == program:
            return {row["pc"]: row["text"] for row in attr["insns"]["value"]}
    raise AssertionError(program)


def test_another_kernel() -> None:
    # opensnoop does the same on Linux 6.1 and 6.18: other ids of tracepoints, BTF and types,
    # other tags (SHA-1 and SHA-256), another kern_version; all of that follows from the kernel.
    found = different(recording("libbpf-opensnoop"), recording("libbpf-opensnoop-6.1"))
    assert found["objects"] == []
    assert found["attachments"] == []
    assert found["same"]


def test_another_tool() -> None:
    found = different(recording("libbpf-opensnoop"), recording("libbpf-execsnoop"))
    gone = {line["a"] for line in found["attachments"] if line["change"] == "removed"}
    new = {line["b"] for line in found["attachments"] if line["change"] == "added"}
    assert "tracepoint syscalls:sys_enter_openat" in gone
    assert "tracepoint syscalls:sys_enter_execve" in new
    # libbpf asks the kernel the same whoever loads.
    assert found["probes"] == []


@pytest.mark.parametrize(
    "program",
    [
        ["bpftrace", "-e",
         "tracepoint:syscalls:sys_enter_openat { @[comm] = count(); } interval:s:1 { exit(); }"],
        ["opensnoop", "-d", "1"],
        [sys.executable, str(LOADERS / "uprobe_perf.py")],
    ],
    ids=["bpftrace", "opensnoop", "uprobe"],
)  # fmt: skip
def test_the_same_tool_twice(program: list[str], needs_bpf: None, tmp_path: Path) -> None:
    needs_tool(program[0])
    paths = [tmp_path / "first.jsonl.gz", tmp_path / "second.jsonl"]
    for path in paths:
        run_cli("-f", "-q", "-o", os.devnull, "--json", str(path), *program)
    done = run_cli("diff", *map(str, paths))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert any(isinstance(item, RawCall) for item in items(paths[0])[1])


# ------------------------------------------------------------------ one thing changed


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Where a rewritten trace goes."""
    return tmp_path / "other.jsonl"


@pytest.mark.parametrize("name", ["bcc-kprobe-hello", "bcc-uprobe", "bpftrace-uprobe", "xdp-link"])
def test_pids_ids_addresses_and_times_are_no_difference(name: str, other: Path) -> None:
    assert same(recording(name), rewritten(recording(name), other, as_of_another_day), strict=True)


def test_a_field_of_a_map(other: Path) -> None:
    first = recording("bpftool-loadall")
    rewritten(
        first,
        other,
        each(
            lambda raw: with_attr(raw, 12, U32(32))
            if is_bpf(raw, MAP_CREATE) and b"packets" in raw.chunks[0].data
            else raw
        ),
    )
    found = different(first, other)
    assert found["objects"][0] == {
        "kind": "map", "change": "changed", "name": "packets",
        "fields": [{"field": "max_entries", "a": "16", "b": "32"}],
    }  # fmt: skip
    assert len(found["objects"]) == 1
    assert found["attachments"] == found["calls"] == []
    assert found["summary"] == "same programs; 1 map changed; same BTF; same attachments"
    assert same(first, other, ignore=("max_entries",))
    assert same(first, other, ignore=("attr.max_*",))
    assert same(first, other, only=frozenset({"progs"}))
    assert not same(first, other, only=frozenset({"maps"}))


def test_a_licence(other: Path) -> None:
    first = recording("bcc-uprobe")
    rewritten(
        first,
        other,
        each(
            lambda raw: with_text(raw, b"GPL", b"Dual MIT/GPL") if is_bpf(raw, PROG_LOAD) else raw
        ),
    )
    found = different(first, other, ignore=("probe",))
    progs = [line for line in found["objects"] if line["kind"] == "prog"]
    assert progs
    for line in progs:
        assert line["fields"] == [{"field": "license", "a": '"GPL"', "b": '"Dual MIT/GPL"'}]
        assert line["insns"]["hunks"] == []


def test_an_instruction_and_its_source_line(other: Path) -> None:
    first = recording("bcc-kprobe-hello")

    def change(raw: RawCall) -> RawCall:
        if is_bpf(raw, PROG_LOAD) and b"hello_world" in raw.chunks[0].data:
            insns = max(raw.chunks, key=lambda chunk: chunk.data.startswith(b"\xb7\x01"))
            return with_bytes(raw, insns.addr, 4, U32(63))
        return raw

    found = different(first, rewritten(first, other, each(change)))
    assert changes(found) == [("prog", "changed", "hello_world")]
    (hunk,) = found["objects"][0]["insns"]["hunks"]
    assert hunk[:2] == [
        {"op": "-", "a": 0, "b": None, "text": "(b7) r1 = 33", "src": "int hello_world(void *ctx)"},
        {"op": "+", "a": None, "b": 0, "text": "(b7) r1 = 63", "src": "int hello_world(void *ctx)"},
    ]
    assert found["summary"].startswith("1 program changed: +1 -1 instructions; ")
    shown = run_cli("diff", str(first), str(other)).stdout
    assert "  -     0: (b7) r1 = 33\n  +     0: (b7) r1 = 63\n" in shown


def test_a_load_that_is_refused_elsewhere(other: Path) -> None:
    first = recording("bcc-kprobe-hello")

    def change(found: list[Item]) -> Iterable[Item]:
        for item in found:
            if is_bpf(item, PROG_LOAD) and b"hello_world" in item.chunks[0].data:  # type: ignore[union-attr]
                assert isinstance(item, RawCall)
                fds = [fact for fact in item.fds if not fact.stage]
                yield item.replace(ret=-22, failed=True, fds=fds)
            elif not isinstance(item, RawCall) or item.nr not in (PERF_EVENT_OPEN, IOCTL):
                yield item

    found = different(first, rewritten(first, other, change))
    assert changes(found) == [("prog", "changed", "hello_world")]
    assert found["objects"][0]["fields"] == [{"field": "result", "a": "ok", "b": "EINVAL"}]
    assert [(line["change"], line["a"]) for line in found["attachments"]] == [
        ("removed", "kprobe do_sys_openat2")
    ]


def test_another_target(other: Path) -> None:
    first = recording("bcc-kprobe-hello")
    rewritten(first, other, each(lambda raw: with_text(raw, b"do_sys_openat2", b"do_nanosleep")))
    found = different(first, other)
    assert found["objects"] == []
    assert found["attachments"] == [
        {"change": "changed", "verb": "attached", "prog": "prog hello_world",
         "via": "the kprobe PMU", "a": "kprobe do_sys_openat2", "b": "kprobe do_nanosleep"}
    ]  # fmt: skip
    assert "1 attachment changed" in found["summary"]
    assert same(first, other, only=frozenset({"progs", "maps"}))


def test_a_program_more(other: Path) -> None:
    first = recording("bpftool-loadall")

    def without(raw: RawCall) -> RawCall | None:
        about = any(fact.kind == "prog" and fact.info.get("prog_id") == victim for fact in raw.fds)
        return None if about else raw

    victim = next(
        fact.info["prog_id"]
        for item in items(first)[1]
        if is_bpf(item, PROG_LOAD) and b"count_packets" in item.chunks[0].data  # type: ignore[union-attr]
        for fact in item.fds  # type: ignore[union-attr]
        if fact.kind == "prog"
    )
    rewritten(first, other, each(without))
    found = different(other, first)
    assert changes(found) == [("prog", "added", "count_packets")]
    assert found["objects"][0]["calls"] == 1  # its pin is told with it
    assert found["calls"] == []
    assert changes(different(first, other)) == [("prog", "removed", "count_packets")]


def test_the_order_of_independent_calls(other: Path) -> None:
    first = recording("bpftool-loadall")

    def turned(found: list[Item]) -> Iterable[Item]:
        pins = [item for item in found if is_bpf(item, OBJ_PIN)]
        queue = list(reversed(pins))
        for item in found:
            yield queue.pop(0) if item in pins else item

    assert len([item for item in items(first)[1] if is_bpf(item, OBJ_PIN)]) == 4
    assert same(first, rewritten(first, other, turned), strict=True)


def test_the_order_of_calls_about_one_object(other: Path) -> None:
    first = recording("bcc-kprobe-hello")

    def turned(found: list[Item]) -> Iterable[Item]:
        calls = [item for item in found if isinstance(item, RawCall) and item.nr == IOCTL]
        queue = [calls[1], calls[0], *calls[2:]]  # ENABLE before SET_BPF
        for item in found:
            yield queue.pop(0) if item in calls else item

    found = different(first, rewritten(first, other, turned))
    (change,) = (line for line in found["calls"] if line["change"] == "order")
    (field,) = change["fields"]
    for side, order in (("a", ["SET_BPF", "ENABLE"]), ("b", ["ENABLE", "SET_BPF"])):
        assert re.findall("SET_BPF|ENABLE", field[side]) == order
    assert same(first, other, ignore=("order", "target"))


def test_a_call_more_and_less(other: Path) -> None:
    first = recording("bpftool-loadall")
    dropped = [item for item in items(first)[1] if is_bpf(item, OBJ_PIN)][1]
    rewritten(first, other, lambda found: [item for item in found if item != dropped])
    found = different(first, other)
    assert found["objects"] == []
    assert [(line["change"], line["call"], line["on"]) for line in found["calls"]] == [
        ("removed", "bpf OBJ_PIN", "prog sum_sizes")
    ]


def test_how_often(other: Path) -> None:
    first = recording("bcc-kprobe-hello")

    def again(found: list[Item]) -> Iterable[Item]:
        for item in found:
            yield item
            if isinstance(item, RawCall) and item.nr == IOCTL:
                yield item.replace(seq=item.seq + 1000)

    rewritten(first, other, again)
    counts = [line for line in different(first, other)["calls"] if line["change"] == "count"]
    assert counts
    assert all(line["count"] == {"a": 1, "b": 2} for line in counts)
    assert same(first, other, ignore=("count", "target"))


def test_reading_maps_again_and_again(other: Path) -> None:
    first = recording("bpftool-loadall")
    repeated(first, other, {1, 2, 4}, 20)
    assert same(first, other)
    assert not same(first, other, strict=True)


def test_what_was_read_from_maps(other: Path) -> None:
    first = recording("bpftool-loadall")

    def change(raw: RawCall) -> RawCall:
        if not is_bpf(raw, 1):
            return raw
        chunks = [
            chunk._replace(data=b"\x77" * len(chunk.data)) if chunk.stage else chunk
            for chunk in raw.chunks
        ]
        return raw.replace(chunks=chunks)

    rewritten(first, other, each(change))
    assert same(first, other)
    assert not same(first, other, strict=True)


def test_an_element_set_otherwise(other: Path) -> None:
    first = recording("bpftool-loadall")

    def change(raw: RawCall) -> RawCall:
        if not is_bpf(raw, UPDATE):
            return raw
        value = int.from_bytes(raw.chunks[0].data[16:24], "little")
        return with_bytes(raw, value, 0, b"\x07")

    found = different(first, rewritten(first, other, each(change)))
    assert [line["call"] for line in found["calls"]] == ["bpf MAP_UPDATE_ELEM"]
    assert found["calls"][0]["fields"] == [{"field": "value", "a": "2", "b": "7"}]


def test_exit_codes_of_the_program(other: Path) -> None:
    first = recording("bcc-kprobe-hello")

    def change(found: list[Item]) -> Iterable[Item]:
        for item in found:
            if getattr(item, "what", "") == "exit":
                item = item._replace(details={"code": 3})  # type: ignore[union-attr]
            yield item

    rewritten(first, other, change)
    assert same(first, other)
    assert not same(first, other, strict=True)


def test_feature_probes_are_a_set(other: Path) -> None:
    first = recording("bpftool-loadall")

    def change(found: list[Item]) -> Iterable[Item]:
        done = False
        for item in found:
            if is_bpf(item, 18) and not done:
                assert isinstance(item, RawCall)
                done = True
                fds = [fact for fact in item.fds if not fact.stage]
                yield item.replace(ret=-22, failed=True, fds=fds)
            else:
                yield item

    found = different(first, rewritten(first, other, change))
    assert found["objects"] == []
    (probe,) = found["probes"]
    assert (probe["a"], probe["b"]) == ("ok", "EINVAL")
    assert "1 feature probe different" in found["summary"]


# ------------------------------------------------------------------ limits


def test_beyond_what_is_held(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = recording("bpftool-loadall")
    monkeypatch.setattr(limits, "THINGS", 2)
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
    assert "bpfstrace diff" in run_cli("--help").stdout


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
        "cut in a line": (b"".join(lines[:5])[:-20], 5),
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
    assert f"{other}: recorded with -z" in done.stderr
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
