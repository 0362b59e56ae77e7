"""diff: real recordings against each other, and against themselves with one thing changed."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.trace.items import Item
from decoders.events import Exit, ProcessEvent
from decoders.raw import RawCall
from tests.support.differences import MAP_CREATE, OBJ_PIN, PROG_LOAD, UPDATE, different, same
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
from tests.support.running import FIXTURES, LOADERS, run_cli

PERF_EVENT_OPEN, IOCTL = 298, 16
NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/trace.jsonl.gz"))


def changes(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Kind, change and name of the objects that differ."""
    return [(line["kind"], line["change"], line["name"]) for line in found["objects"]]


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


LOGGED = "log_level 0 -> 1, log_size 0 -> 16777215"
WHY = "verifier: R0 invalid mem access 'map_value_or_null'; at 7: "


def refused(item: Item) -> bool:
    return is_bpf(item, PROG_LOAD) and item.ret == -errno.EACCES  # type: ignore[union-attr]


def test_attempts_at_a_load_are_one_program(tmp_path: Path) -> None:
    """libbpf tries a refused program again with a log (fixtures/verifier-reject)."""
    once = rewritten(
        recording("verifier-reject"), tmp_path / "once",
        lambda found: [item for at, item in enumerate(found)
                       if not refused(item) or not any(map(refused, found[:at]))],
    )  # fmt: skip
    found = different(once, recording("verifier-reject"))
    assert changes(found) == [("prog", "changed", "forgetful")]
    assert found["calls"] == found["attachments"] == []
    attempts, reason = found["objects"][0]["fields"]
    assert attempts == {
        "field": "attempts", "a": "EACCES", "b": f"EACCES, then EACCES ({LOGGED})"
    }  # fmt: skip
    assert (reason["field"], reason["a"]) == ("reason", None)
    assert reason["b"].startswith(WHY)
    assert same(once, recording("verifier-reject"), ignore=("attempts", "reason", "log_buf"))


def test_the_old_reason_stands_beside_the_new(tmp_path: Path) -> None:
    def change(raw: RawCall) -> RawCall:
        return raw.replace(ret=-errno.EINVAL) if refused(raw) else raw

    other = rewritten(recording("verifier-reject"), tmp_path / "other", each(change))
    other = rewritten(
        other, tmp_path / "reworded",
        each(lambda raw: with_text_in(raw, b"invalid mem access", b"expected pointer of")),
    )  # fmt: skip
    (line,) = different(recording("verifier-reject"), other)["objects"]
    said = {field["field"]: (field["a"], field["b"]) for field in line["fields"]}
    assert said["result"] == ("EACCES", "EINVAL")
    assert said["attempts"] == (
        f"EACCES, then EACCES ({LOGGED})", f"EINVAL, then EINVAL ({LOGGED})"
    )  # fmt: skip
    old, new = said["reason"]
    assert old.startswith(WHY)
    assert new.startswith("verifier: R0 expected pointer of 'map_value_or_null'")


def with_text_in(raw: RawCall, old: bytes, new: bytes) -> RawCall:
    """With a part of a log in other words."""
    chunks = [
        chunk._replace(data=chunk.data.replace(old, new.ljust(len(old)))) for chunk in raw.chunks
    ]
    return raw.replace(chunks=chunks)


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
            if isinstance(item, ProcessEvent) and isinstance(item.what, Exit):
                item = item._replace(what=Exit(code=3))
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
