"""Long and absurd traces: memory has bounds, and what is waited for shows how far it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bpftrace_sys.common import progress
from bpftrace_sys.story import retention
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.story.whole_trace import read
from bpftrace_sys.trace import facts, reader
from bpftrace_sys.trace import pieces as pieces_module
from bpftrace_sys.trace.items import TraceError
from bpftrace_sys.trace.pieces import Pieces
from bpftrace_sys.trace.reader import Reader
from decoders.raw import RawCall
from tests.support.rewriting import items, recording, repeated
from tests.support.running import environment, run_cli
from tests.support.terminal import on_terminal

LOADS = {0, 5, 18}
"""MAP_CREATE, PROG_LOAD, BTF_LOAD."""


def model_of(path: Path) -> Model:
    """The model at the end of a trace."""
    kept: list[Model] = []

    def make(model: Model) -> Renderer:
        kept.append(model)
        return Renderer()

    read(str(path), make)
    return kept[0]


def test_objects_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = repeated(
        recording("bpftool-loadall"), tmp_path / "long.jsonl", LOADS, 20, fresh=True
    )
    everything = model_of(path)
    assert len(everything.objects) > 250
    monkeypatch.setattr(retention, "OBJECTS", 40)
    monkeypatch.setattr(retention, "SITES", 10)
    some = model_of(path)
    assert len(some.objects) <= 41
    assert len(some.btfs) <= 10
    # The last ones are there, whole, and are the same.
    for key, found in list(some.objects.items())[-10:]:
        assert found.call is not None
        assert found.label == everything.objects[key].label


def test_calls_of_objects_become_slim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = repeated(
        recording("bpftool-loadall"), tmp_path / "long.jsonl", LOADS, 5, fresh=True
    )
    monkeypatch.setattr(retention, "KEPT", 40 * retention.COUNTED)
    model = model_of(path)
    calls = [found.call for found in model.objects.values() if found.call is not None]
    slim = [call for call in calls if not call.raw.chunks]
    assert len(calls) - len(slim) <= 40
    # Name and type are still to be had, instructions are not.
    load = next(call for call in slim if call.command == "BPF_PROG_LOAD")
    assert load.attr("attr", "prog_type") is not None
    assert not hasattr(load.attr("attr", "insns"), "data")


def test_an_object_in_use_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # packets is made first, and used in between by each load of count_packets.
    path = repeated(recording("bpftool-loadall"), tmp_path / "long.jsonl", {5}, 20, fresh=True)
    monkeypatch.setattr(retention, "OBJECTS", 20)
    model = model_of(path)
    assert any(found.name == "packets" for found in model.objects.values())
    assert not any(found.name == "libbpf_nametest" for found in list(model.objects.values())[:1])


def test_facts_about_single_calls_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "PASSING", 3)
    recorded = facts.RecordedFacts({}, 1)
    for seq in range(1, 10):
        recorded.learn("why path /x", seq, "dir")
    recorded.learn("why sysctl x", 0, "2")
    recorded.learn("ksym", 7, "f")
    assert [recorded.fact("why path /x", seq) for seq in (1, 6, 7, 9)] == [None, None, "dir", "dir"]
    assert recorded.fact("why sysctl x", 0) == "2"
    assert recorded.fact("ksym", 7) == "f"


# ------------------------------------------------------------------ absurd files


def test_the_same_piece_as_text_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # A writer would not do that; a reader must live with it.
    monkeypatch.setattr(pieces_module, "REMEMBERED", 1000)
    pieces = Pieces()
    for _ in range(50):
        pieces.add(bytes(100), keep=True)
    assert pieces.piece(49) == bytes(100)
    with pytest.raises(KeyError):
        pieces.piece(0)


def test_more_objects_than_a_line_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "BRACKETS", 1000)
    monkeypatch.setattr(reader, "SMALL", 1000)
    header, _ = items(recording("eperm"))
    path = tmp_path / "many.jsonl"
    path.write_text(json.dumps(header.line()) + '\n{"type":"x","y":[' + "[]," * 1000 + "[]]}\n")
    with pytest.raises(TraceError, match="more than 1000 objects and lists") as raised:
        list(Reader(str(path)))
    assert raised.value.line == 2


@pytest.mark.parametrize("command", [["replay"], ["replay", "--canonical"], ["diff"]])
def test_counts_that_lie(command: list[str], tmp_path: Path) -> None:
    # Four billion of everything, in attr and in what was wanted.
    path = tmp_path / "liar.jsonl"
    lines = []
    done = run_cli("replay", "-o", "/dev/null", "--json", "-", str(recording("bcc-uprobe")))
    for line in map(json.loads, done.stdout.splitlines()):
        if line["type"] == "trace":
            line["cpus"] = 1 << 60
        for stage in ("entry", "exit"):
            for chunk in line.get("raw", {}).get(stage, ()):
                chunk[2:] = [1 << 60]
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + "\n")
    done = run_cli(*command, str(path), *([str(path)] if command == ["diff"] else []))
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------ progress


@pytest.fixture
def long_trace(tmp_path: Path) -> Path:
    """Enough to look at the clock."""
    path = repeated(recording("bpftool-loadall"), tmp_path / "long.jsonl", {1, 4}, 300)
    assert sum(isinstance(item, RawCall) for item in items(path)[1]) > 2 * progress.EVERY
    return path


_AT_ONCE = (
    "import sys\n"
    "from bpftrace_sys.common import progress\n"
    "progress.PATIENCE = 0\n"
    "from bpftrace_sys.cli.main import main\n"
    "sys.exit(main(sys.argv[1:]))\n"
)


def test_a_bar_on_a_terminal(long_trace: Path, tmp_path: Path) -> None:
    env = environment(TERM="xterm-256color")
    words = [sys.executable, "-c", _AT_ONCE]
    code, shown = on_terminal([*words, "diff", str(long_trace), str(long_trace)], env=env)
    assert code == 0
    assert "%" in shown
    assert "long.jsonl" in shown
    out = str(tmp_path / "out.txt")
    code, shown = on_terminal([*words, "replay", "-o", out, str(long_trace)], env=env)
    assert code == 0
    assert "%" in shown
    # Between lines of text there is none.
    code, shown = on_terminal([*words, "replay", "-q", str(long_trace)], env=env)
    assert code == 0
    assert "\x1b[2K" not in shown


def test_no_bar_in_less_than_a_second_or_without_a_terminal(long_trace: Path) -> None:
    words = [sys.executable, "-m", "bpftrace_sys"]
    short = str(recording("bcc-kprobe-hello"))
    code, shown = on_terminal([*words, "diff", short, short], env=environment(TERM="xterm"))
    assert (code, shown) == (0, "")
    done = run_cli("diff", str(long_trace), str(long_trace))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
