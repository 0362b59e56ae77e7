"""What a line of a trace may hold, and what is remembered of it: bounded, whatever it claims."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from bpftrace_sys.record.machine import kallsyms
from bpftrace_sys.record.machine.live_facts import LiveFacts
from bpftrace_sys.render.json_lines import _free
from bpftrace_sys.trace import facts, reader
from bpftrace_sys.trace.facts import Answers, RecordedFacts
from bpftrace_sys.trace.items import Fact, TraceError
from bpftrace_sys.trace.pieces import CALL_LIMIT, PIECE_LIMIT, Pieces, pack
from bpftrace_sys.trace.reader import Reader
from decoders.raw import AUDIT_ARCH_X86_64
from decoders.walk.layouts import READ_LIMIT
from tests.support.running import environment

pytestmark = pytest.mark.offline

PEAK: Final = 300
"""Megabytes that reading a line takes at most; some 25 of them are Python's own."""
HEADER: Final = '{"type":"trace","format":"bpfstrace","version":1}'
END: Final = '{"type":"end","status":{}}'
READ: Final = """
import sys
from bpftrace_sys.trace.items import TraceError
from bpftrace_sys.trace.reader import Reader
try:
    for item in Reader(sys.argv[1]):
        pass
except TraceError as error:
    print(error.why)
print(int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) >> 10)
"""


def written(path: Path, *lines: str | dict[str, Any]) -> Path:
    with gzip.open(path, "wt", compresslevel=1) as file:
        for line in (HEADER, *lines, END):
            file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
    return path


def read(path: Path) -> tuple[list[str], int]:
    """What a reader says of a trace, and its peak in megabytes."""
    done = subprocess.run(
        [sys.executable, "-c", READ, path],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    *said, peak = done.stdout.splitlines()
    return said, int(peak)


def call(**raw: Any) -> dict[str, Any]:
    """A bpf(2) call of which nothing is known but its memory."""
    return {
        "type": "syscall", "seq": 1, "time": 1, "pid": 7, "tid": 7, "comm": "x", "ret": -1,
        "raw": {"arch": AUDIT_ARCH_X86_64, "nr": 321, "args": ["0x0"] * 6, **raw},
    }  # fmt: skip


NUMBERS = "1000," * (reader.VALUES + 1)
LINES: Final[dict[str, tuple[str, str]]] = {
    "depth": ('{"type":"x","y":' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
    "lists": ('{"type":"x","y":[' + "[]," * (1 << 20) + "[]]}", "objects and lists"),
    "objects": ('{"type":"x","y":[' + '{"a":1},' * (1 << 20) + "1]}", "objects and lists"),
    "numbers": ('{"type":"x","y":[' + NUMBERS + "1]}", "values"),
    "names": (
        '{"type":"x","y":{' + "".join(f'"{n}":0,' for n in range(300_000)) + '"x":0}}',
        "names of values",
    ),
    "hidden in rows": ('{"type":"x","y":[{"pc":[' + NUMBERS + "1]}]}", "values"),
    "as rows": ('{"type":"x","y":[' + '{"pc":1},' * reader.ROWS + '{"pc":1}]}', "objects"),
    "letters": ('{"type":"x","y":"' + "é" * (12 << 20) + '"}', "that are not ASCII"),
    "text": ('{"type":"x","y":"' + "[{,:" * (16 << 20) + '"}', ""),
    "escapes": ('{"type":"x","y":"' + '\\"[,' * (4 << 20) + '"}', ""),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_a_line_takes_no_more_than_that(name: str, tmp_path: Path) -> None:
    line, why = LINES[name]
    said, peak = read(written(tmp_path / "trace.jsonl.gz", line))
    assert [why in each for each in said] == [True] * bool(why), said
    assert peak < PEAK


def test_listings_do_not_count(tmp_path: Path) -> None:
    """A load of many instructions, as we write it: its listing is passed over."""
    row = '{"pc":1,"text":"(b7) r1 = 33","src":"x, [y] {z}:","fn":"f","comment":"c"}'
    line = json.dumps(call(entry=[["0x10", "QUJD"]]))
    rows = ",".join([row] * 300_000)
    line = f'{line[:-1]},"args":{{"attr":{{"insns":{{"value":[{rows}]}}}}}}}}'
    path = written(tmp_path / "trace.jsonl.gz", line)
    said, peak = read(path)
    assert said == []
    assert peak < PEAK
    first, _ = Reader(str(path))
    assert first.chunks[0].data == b"ABC"  # type: ignore[union-attr]


def test_pieces_of_a_call_are_bounded(tmp_path: Path) -> None:
    """Each packs a thousandfold, and comes again by its number."""
    whole = pack(bytes(READ_LIMIT), Pieces())
    times = CALL_LIMIT // READ_LIMIT
    path = tmp_path / "trace.jsonl.gz"
    entry = [["0x10", whole], *[["0x10", 0]] * (times - 1)]
    assert read(written(path, call(entry=entry))) == ([], pytest.approx(PEAK // 2, abs=PEAK // 2))
    said, peak = read(written(path, call(entry=[*entry, ["0x10", 0]])))
    assert said == [
        f"a damaged line: the raw of one call unpacks to more than {CALL_LIMIT} bytes"
    ]
    assert peak < PEAK
    said, _ = read(written(path, call(entry=[["0x10", pack(bytes(READ_LIMIT + 1), Pieces())]])))
    assert said == [f"a damaged line: a chunk of raw.entry has more than {READ_LIMIT} bytes"]


def test_pieces_of_a_view_are_bounded(tmp_path: Path) -> None:
    whole = pack(bytes(PIECE_LIMIT // 4 * 3), Pieces())
    view = {
        "type": "kernel_view", "seq": 1, "machine": "x86_64", "asked": [],
        "raw": {"arrays": {"xlated_prog_insns": whole, "jited_prog_insns": 0, "of a newer one": 0}},
    }  # fmt: skip
    said, peak = read(written(tmp_path / "trace.jsonl.gz", view))
    assert said == [
        f"a damaged line: the raw of a kernel_view unpacks to more than {CALL_LIMIT} bytes"
    ]
    assert peak < PEAK


# ---------------------------------------------------------------- facts


def test_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first; one that is learned again is new again."""
    monkeypatch.setattr(facts, "KEPT", 10 * (facts.OVERHEAD + len("map") + 5))
    answers = Answers()
    for key in range(10):
        answers.learn(("map", key), "12345")
    answers.learn(("map", 0), "abcde")
    answers.learn(("map", 10), "12345")
    assert ("map", 1) not in answers
    assert answers["map", 0] == "abcde"
    for key in range(1000):
        answers.learn(("map", key), "1234567890" if key % 2 else None)
    assert len(answers) <= 10
    for question in list(answers):
        answers.forget(question)
    assert answers._size == 0


def test_facts_of_a_replay_are_bounded() -> None:
    known = RecordedFacts({}, 1)
    for key in range(200_000):
        known.learn("btf_vmlinux", key, "bpf_kfunc")
    assert 100_000 < len(known.known) < 200_000
    assert known.fact("btf_vmlinux", 199_999) == "bpf_kfunc"
    assert known.fact("btf_vmlinux", 0) is None


def test_what_was_forgotten_is_recorded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a replay, which may have forgotten it, too, hears of it again."""
    monkeypatch.setattr(facts, "KEPT", 4 * facts.OVERHEAD)
    recorded: list[tuple[str, int, str]] = []
    live = LiveFacts()
    live.record = lambda kind, key, name: recorded.append((kind, key, name))
    asked = [1, 1, *range(2, 20), 1]
    said = [live.fact("ksym_of_a_test", key) for key in asked]
    assert said == [None] * len(asked)
    monkeypatch.setitem(
        LiveFacts.fact.__globals__["OF_NUMBERS"], "ksym", lambda _, key: f"function_{key}"
    )
    said = [live.fact("ksym", key) for key in asked]
    assert said == [f"function_{key}" for key in asked]
    assert [key for _, key, _ in recorded] == asked[1:]
    replayed = RecordedFacts({}, 1)
    for fact in recorded:
        replayed.learn(*fact)
    assert replayed.fact("ksym", 1) == "function_1"


@pytest.mark.parametrize(("kind", "limit"), [("map", 4_096), ("usym /x", 4_096),
                                             ("format a:b", 65_536), ("standing", 2 << 20)])
def test_long_answers_are_no_answers(
    kind: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when the machine gives them, nor in a file that somebody made."""
    path = tmp_path / "trace.jsonl.gz"
    fact = {"type": "fact", "kind": kind, "key": 1, "name": "x" * limit}
    assert next(iter(Reader(str(written(path, fact))))) == Fact(kind, 1, "x" * limit)
    with pytest.raises(TraceError, match=r"a damaged line: a fact of \d+ letters"):
        list(Reader(str(written(path, {**fact, "name": "x" * (limit + 1)}))))
    answers = {1: "x" * limit, 2: "x" * (limit + 1)}
    word, _, rest = kind.partition(" ")
    table = LiveFacts.fact.__globals__["ABOUT" if rest else "OF_NUMBERS"]
    monkeypatch.setitem(table, word, lambda _, key, *rest: answers[key])
    live = LiveFacts()
    assert [live.fact(kind, key) for key in (1, 2)] == ["x" * limit, None]


def test_a_long_comm_is_none(tmp_path: Path) -> None:
    path = written(tmp_path / "trace.jsonl.gz", {**call(), "comm": "x" * 65_537})
    with pytest.raises(TraceError, match="a damaged line: a comm of 65537 letters"):
        list(Reader(str(path)))


def test_symbols_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kallsyms, "REMEMBERED", 4)
    symbols = kallsyms.Kallsyms()
    for address in range(100):
        symbols.name(address)
    assert len(symbols._known) <= 4


# ---------------------------------------------------------------- names of one struct


def test_members_of_one_name() -> None:
    """The second has an underscore more; of thousands, none gets a thousand."""
    line: dict[str, Any] = {"a_12": 0}
    times: dict[str, int] = {}
    for _ in range(20_000):
        line[_free("a", line, times)] = 0
    assert len(line) == 20_001
    assert list(line)[:4] == ["a_12", "a", "a_", "a__"]
    assert max(map(len, line)) == len("a________")
