"""Perfetto files: parsed by Perfetto's own protos, and held against the recording's JSON."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos

from bpftrace_sys.cli.perfetto import main
from bpftrace_sys.export import perfetto
from bpftrace_sys.export.protobuf import fixed64, integer, message, string, varint
from tests.support.hostile import hostile, looped
from tests.support.needs import needs_tool
from tests.support.rewriting import recording
from tests.support.running import FIXTURES, run_cli

NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/trace.jsonl.gz"))


def written(path: Path, out: Path) -> Any:
    """The file of a trace as Perfetto reads it."""
    assert main([str(path), "-o", str(out)]) == 0
    return parsed(out)


def parsed(path: Path) -> Any:
    """A file, parsed by Perfetto's protos; nothing in it is unknown to them."""
    trace = protos.Trace()
    trace.ParseFromString(path.read_bytes())
    assert trace.SerializeToString() == protos.Trace.FromString(
        trace.SerializeToString()
    ).SerializeToString()
    before = trace.ByteSize()
    trace.DiscardUnknownFields()
    assert trace.ByteSize() == before
    return trace


def slices(trace: Any) -> dict[int, dict[str, Any]]:
    """Slices by seq: name, begin, end, track, annotations, flows."""
    made: dict[int, dict[str, Any]] = {}
    opened: dict[int, dict[str, Any]] = {}
    events = [packet for packet in trace.packet if packet.HasField("track_event")]
    for packet in sorted(events, key=lambda one: one.timestamp):
        event = packet.track_event
        if event.type == protos.TrackEvent.TYPE_SLICE_BEGIN:
            assert event.track_uuid not in opened
            notes = {note.name: note for note in event.debug_annotations}
            made[notes["seq"].int_value] = opened[event.track_uuid] = {
                "name": event.name, "begin": packet.timestamp, "end": None, "notes": notes,
                "track": event.track_uuid, "flows": set(event.flow_ids),
                "last": set(event.terminating_flow_ids), "categories": set(event.categories),
            }  # fmt: skip
        elif event.type == protos.TrackEvent.TYPE_SLICE_END:
            opened.pop(event.track_uuid)["end"] = packet.timestamp
    return made


@pytest.mark.parametrize("name", NAMES)
def test_every_recording(name: str, tmp_path: Path) -> None:
    with gzip.open(recording(name), "rt") as file:
        lines = [json.loads(line) for line in file]
    calls = [line for line in lines if line["type"] == "syscall"]
    trace = written(recording(name), tmp_path / "t.pftrace")
    made = slices(trace)
    assert list(made) == [line["seq"] for line in sorted(calls, key=lambda one: one["time"])]
    threads, processes = {}, {}
    for packet in trace.packet:
        assert packet.trusted_packet_sequence_id == 1
        track = packet.track_descriptor
        if track.HasField("thread"):
            threads[track.uuid] = (track.thread.pid, track.thread.tid, track.thread.thread_name)
            assert track.parent_uuid in processes
        elif track.HasField("process"):
            processes[track.uuid] = track.process.pid
    for line in calls:
        one = made[line["seq"]]
        assert one["begin"] == line["time"]
        assert one["end"] == (
            None if line["duration"] is None else line["time"] + line["duration"]
        )
        assert threads[one["track"]][:2] == (line["pid"], line["tid"])
        assert ("failed" in one["categories"]) == (line["ret"] == -1 and "errno" in line)
        command = line["args"].get("cmd") or line["args"].get("request") or line["syscall"]
        if isinstance(command, str):
            assert one["name"].startswith(command.partition("|")[0])
    argv = next(
        list(packet.track_descriptor.process.cmdline) for packet in trace.packet
        if packet.track_descriptor.HasField("process")
    )  # fmt: skip
    assert argv == lines[0]["argv"]


def test_flows_from_load_to_attach(tmp_path: Path) -> None:
    made = slices(written(recording("bcc-kprobe-hello"), tmp_path / "t.pftrace"))
    with gzip.open(recording("bcc-kprobe-hello"), "rt") as file:
        told = [json.loads(line) for line in file]
    [steps] = [line["steps"] for line in told
               if line["type"] == "attachment" and line["verb"] == "attached"]  # fmt: skip
    load = steps[0]["seq"]
    assert [step["role"] for step in steps] == ["load", "type", "event", "attach", "enable"]
    assert made[load]["flows"] == {load}
    for step in steps[1:-1]:
        assert made[step["seq"]]["flows"] == {load}
    assert made[steps[-1]["seq"]]["last"] == {load}


def test_arguments(tmp_path: Path) -> None:
    made = slices(written(recording("bcc-kprobe-hello"), tmp_path / "t.pftrace"))
    [load] = [one for one in made.values() if one["name"] == "BPF_PROG_LOAD hello_world"]
    [attr] = [one for one in load["notes"]["args"].dict_entries if one.name == "attr"]
    fields = {one.name: one for one in attr.dict_entries}
    assert fields["prog_type"].string_value == "BPF_PROG_TYPE_KPROBE"
    assert fields["insn_cnt"].int_value == 13
    assert fields["license"].string_value == "GPL"
    assert fields["prog_btf_fd"].string_value == "3 <btf id=17>"
    assert load["notes"]["result"].int_value == 4
    made = slices(written(recording("verifier-reject"), tmp_path / "t.pftrace"))
    assert made[17]["notes"]["result"].string_value == "EACCES"
    assert "invalid mem access" in made[17]["notes"]["said"].string_value


def test_counters(tmp_path: Path) -> None:
    trace = written(recording("bpftool-loadall"), tmp_path / "t.pftrace")
    names = {
        packet.track_descriptor.uuid: packet.track_descriptor.name
        for packet in trace.packet
        if packet.track_descriptor.HasField("counter")
    }
    values: dict[str, list[int]] = {}
    for packet in trace.packet:
        if packet.track_event.type == protos.TrackEvent.TYPE_COUNTER:
            name = names[packet.track_event.track_uuid]
            values.setdefault(name, []).append(packet.track_event.counter_value)
    assert values[perfetto.COUNTERS["prog"]][:2] == [1, 2]
    # What was pinned stays, as replay says.
    done = run_cli("replay", "-c", str(recording("bpftool-loadall")))
    left = Counter(
        line.split()[0] for line in done.stdout.partition("left behind")[2].splitlines()
        if line.startswith("  ") and line.split()[:1] in (["prog"], ["map"])
    )  # fmt: skip
    assert values[perfetto.COUNTERS["prog"]][-1] == left["prog"]
    assert values[perfetto.COUNTERS["map"]][-1] == left["map"]


def test_hostile_and_long(tmp_path: Path) -> None:
    trace = written(hostile(tmp_path / "hostile.jsonl"), tmp_path / "t.pftrace")
    assert len(slices(trace)) == 17
    assert "\u202e" not in str(trace)
    path = looped(tmp_path / "loop.jsonl", 1500)
    assert len(slices(written(path, tmp_path / "t.pftrace"))) == 1500


def test_protoc_reads_it(tmp_path: Path) -> None:
    # Protocol buffers' own compiler, which knows nothing of the messages.
    needs_tool("protoc")
    out = tmp_path / "t.pftrace"
    written(recording("bcc-kprobe-hello"), out)
    with out.open("rb") as file:
        told = subprocess.run(
            ["protoc", "--decode_raw"], stdin=file, capture_output=True, text=True, check=True
        ).stdout
    assert '"BPF_PROG_LOAD hello_world"' in told
    assert told.count("\n1 {") + told.startswith("1 {") == len(parsed(out).packet)


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "t.pftrace"
    done = run_cli("perfetto", str(recording("kcm")), "-o", str(out))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert out.stat().st_mode & 0o777 == 0o600
    assert len(slices(parsed(out))) > 2


def test_the_wire_format() -> None:
    # https://protobuf.dev/programming-guides/encoding: its own examples.
    assert varint(150) == bytes.fromhex("9601")
    assert integer(1, 150) == bytes.fromhex("089601")
    assert string(2, "testing") == bytes.fromhex("120774657374696e67")
    assert message(3, integer(1, 150)) == bytes.fromhex("1a03089601")
    assert varint(-2) == bytes.fromhex("feffffffffffffffff01")
    assert fixed64(1, 5) == bytes.fromhex("090500000000000000")


def test_a_trace_without_its_end(tmp_path: Path) -> None:
    cut, out = tmp_path / "cut.jsonl", tmp_path / "t.pftrace"
    with gzip.open(recording("bcc-kprobe-hello"), "rt") as file:
        cut.write_text("".join(list(file)[:-3]))
    done = run_cli("perfetto", str(cut), "-o", str(out))
    assert done.returncode == 2
    assert "what stood before is written" in done.stderr
    assert len(slices(parsed(out))) == 11


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "perfetto takes one trace file"),
        (["/nowhere", "-o", "x"], "/nowhere"),
        (["--what", "x"], "option --what not recognized"),
        (["x", "-o", "no/where"], "cannot write no/where"),
    ],
)
def test_wrong_arguments(words: list[str], said: str, tmp_path: Path) -> None:
    done = run_cli("perfetto", *words, cwd=tmp_path)
    assert done.returncode == (125 if said.startswith("cannot write") else 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_package_is_no_dependency() -> None:
    # It is Apache-2.0: these tests import it, and nothing of ours does.
    root = FIXTURES.parent
    for path in [*root.glob("bpftrace_sys/**/*.py"), *root.glob("decoders/**/*.py")]:
        source = path.read_text()
        assert "import perfetto" not in source.replace("bpftrace_sys.export.perfetto import", "")
        assert "google.protobuf" not in source, path
    assert sys.modules.get("perfetto") is not None
