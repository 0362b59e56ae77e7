"""Lines that are read without being parsed say what parsing them says, damaged ones included."""

from __future__ import annotations

import base64
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.trace import pieces
from bpftrace_sys.trace.items import End, TraceError
from bpftrace_sys.trace.reader import Reader
from bpftrace_sys.trace.shapes import LineShapes
from decoders.loop_calls import Rounds
from tests.support.loop_calls import KINDS, in_time, loop, tell, updates


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """A trace of loops with maps of all kinds, in turn."""
    choose = random.Random(3)
    items = [
        raw
        for calls in zip(*(loop(name, choose, 30) for name in KINDS), strict=True)
        for raw in calls
    ]
    with pytest.MonkeyPatch.context() as patch:
        told = tell(patch, in_time(items + updates(60)), ["-q"], True)
    return [line.encode() for line in told.json.splitlines(keepends=True)]


class Read:
    """What reading a trace gives, up to where it fails; and how many lines were not parsed."""

    def __init__(self, path: Path, allowed: bool, patch: pytest.MonkeyPatch) -> None:
        self.items: list[Any] = []
        self.error: str | None = None
        self.short = 0
        read = LineShapes.read

        def counted(shapes: LineShapes, text: bytes) -> Any:
            found = read(shapes, text) if allowed else None
            self.short += found is not None
            return found

        with patch.context() as patched:
            patched.setattr(LineShapes, "read", counted)
            try:
                for item in Reader(str(path)):
                    self.items.append(item)
            except TraceError as error:
                self.error = str(error)


def same(lines: list[bytes], path: Path, patch: pytest.MonkeyPatch) -> Read:
    """Asserts that both ways read the same."""
    path.write_bytes(b"".join(lines))
    short, usual = Read(path, True, patch), Read(path, False, patch)
    assert short.items == usual.items
    assert short.error == usual.error
    assert usual.short == 0
    together, error = read_together(path)
    assert (together, error) == (usual.items, usual.error)
    return short


def read_together(path: Path) -> tuple[list[Any], str | None]:
    """The same, with rounds of loops as calls again."""
    items: list[Any] = []
    try:
        for item in Reader(str(path)).together():
            items += item.calls() if isinstance(item, Rounds) else [item]
    except TraceError as error:
        return items, str(error)
    return items, None


def test_loops_are_read_without_being_parsed(
    lines: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = same(lines, tmp_path / "t.jsonl", monkeypatch)
    assert found.error is None
    # The loop at the end, but for its first two and for lines without a duration.
    assert found.short >= 45
    rounds = [item for item in Reader(str(tmp_path / "t.jsonl")).together()
              if isinstance(item, Rounds)]  # fmt: skip
    assert sum(len(item) for item in rounds) >= 45
    assert max(len(item) for item in rounds) > 5


def test_a_pipe_keeps_nothing_back(lines: list[bytes], tmp_path: Path) -> None:
    """What follows a line may be long in coming."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = os.open(pipe, os.O_RDWR)  # which waits for nobody
    *start, end = lines[:1] + lines[-40:]
    os.write(writing, b"".join(start))
    reader = Reader(str(pipe))
    items = reader.together()
    for _ in start[1:]:
        assert not isinstance(next(items), Rounds)
    os.write(writing, end)
    assert isinstance(next(items), End)
    os.close(writing)


def after(lines: list[bytes], change: Any) -> list[bytes]:
    """The trace with one of its last lines changed, and more like the one before behind it."""
    *start, one, two, three, end = lines
    return [*start, one, change(two), three, one, end]


CHANGES = {
    "data with escapes": lambda line: line.replace(b'"AAAA', b'"\\u0041AAA'),
    "data that is none": lambda line: re.sub(rb'"[A-Za-z0-9+/]+=+"', b'"!"', line),
    "shorter data": lambda line: re.sub(rb'"[A-Za-z0-9+/]+=+"', b'"AA=="', line),
    "a shorter value": lambda line: re.sub(
        rb'"[A-Za-z0-9+/]+=+"(?!.*"[A-Za-z0-9+/]+=+")', b'"AA=="', line
    ),
    "another attr": lambda line: re.sub(
        rb'(?<=")[A-Za-z0-9+/](?=[A-Za-z0-9+/]+=+")', b"B", line, count=1
    ),
    "longer data": lambda line: re.sub(rb'"[A-Za-z0-9+/]+=+"', b'"' + b"A" * 400 + b'"', line),
    "a piece": lambda line: re.sub(rb'"[A-Za-z0-9+/]+=+"', b"0", line),
    "no such piece": lambda line: re.sub(rb'"[A-Za-z0-9+/]+=+"', b"99999", line),
    "packed data": lambda line: re.sub(rb'"[A-Za-z0-9+/]+=+"', b'{"z":"eJwDAAAAAAE="}', line),
    "no hex": lambda line: re.sub(rb'"hex":"[0-9a-f]+', b'"hex":"', line),
    "a line end in a text": lambda line: line.replace(b'"hex":"', b'"hex":"\\n'),
    "a control character": lambda line: line.replace(b'"hex":"', b'"hex":"\x01'),
    "not UTF-8": lambda line: line.replace(b'"hex":"', b'"hex":"\xff'),
    "other letters": lambda line: line.replace(b'"hex":"', '"hex":"\u00e9'.encode()),
    "more behind hex": lambda line: line.replace(b'"hex":"', b'"hex":"","hex":"'),
    "a zero before a number": lambda line: line.replace(b'"seq":', b'"seq":0'),
    "a number below zero": lambda line: line.replace(b'"time":', b'"time":-'),
    "a long number": lambda line: line.replace(b'"time":', b'"time":999999999999999999'),
    "no duration": lambda line: re.sub(rb'"duration":[0-9]+', b'"duration":null', line),
    "blanks": lambda line: line.replace(b",", b", "),
    "another result": lambda line: line.replace(b'"ret":0', b'"ret":1'),
    "a failure": lambda line: line.replace(b'"ret":0', b'"ret":-1,"errno":"ENOENT","errnum":2'),
    "another thread": lambda line: line.replace(b'"tid":100', b'"tid":101'),
    "a key twice": lambda line: line.replace(b'"ret":0', b'"ret":0,"ret":0'),
    "no end": lambda line: line[:-3] + b"\n",
    "no line end": lambda line: line[:-1],
    "something behind it": lambda line: line[:-1] + b" \n",
    "raw twice": lambda line: line[:-2] + b',"raw":{}}\n',
    "raw within": lambda line: line.replace(b'"ret":0', b'"ret":0,"x":{"raw":{}}'),
    "something in it": lambda line: line.replace(b'"nr":', b'"new":[1],"nr":'),
    "a stack": lambda line: line.replace(b'"args":{', b'"stack":[{"addr":"0x1"}],"args":{', 1),
    "no stack": lambda line: line.replace(b'"args":{', b'"stack":null,"args":{', 1),
    "something that was seen": lambda line: line.replace(b'"nr":', b'"extra":{"a":1},"nr":'),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_line(
    name: str, lines: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = after(lines, CHANGES[name])
    assert changed[-4] != lines[-3] or name in ("data with escapes", "no hex", "packed data")
    same(changed, tmp_path / "t.jsonl", monkeypatch)
    # Changed lines alone, so that they are learned from.
    again = [lines[0], *[CHANGES[name](line) for line in lines[-30:-1]], lines[-1]]
    same(again, tmp_path / "t.jsonl", monkeypatch)


def plain_lines(count: int, data: Any) -> list[bytes]:
    """A loop whose chunks are written as ``data(number)`` says."""
    head = b'{"type":"trace","format":"bpfstrace","version":1}\n'
    lines = [
        b'{"type":"syscall","seq":%d,"time":5,"duration":1,"pid":1,"tid":1,"args":{},"ret":0,'
        b'"raw":{"arch":3221225534,"nr":321,'
        b'"args":["0x2","0x0","0x0","0x0","0x0","0x0"],"entry":[%b]}}\n'
        % (number, b",".join(b'["0x%d000",%b]' % pair for pair in enumerate(data(number), 1)))
        for number in range(count)
    ]
    return [head, *lines, b'{"type":"end","status":{}}\n']


def test_pieces_are_counted_as_when_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def numbered(number: int) -> bytes:
        return b'"%b"' % base64.b64encode(number.to_bytes(4, "little") * 20)

    def data(number: int) -> list[bytes]:
        if number == 9:  # the first chunk must not be counted twice
            return [b'"AAAA"', numbered(number), b'"\\u0041AAA"']
        if number > 10:
            return [b'"AAAA"', b"%d" % (number - 1), b'"AAA%c"' % (65 + number)]
        return [b'"AAAA"', numbered(number), b'"AAA%c"' % (65 + number)]

    found = same(plain_lines(12, data), tmp_path / "t.jsonl", monkeypatch)
    assert found.error is None
    assert found.short == 8
    later = [item.chunks[1].data for item in found.items if hasattr(item, "chunks")]
    assert later[11] == later[10]


def test_a_piece_that_was_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "REMEMBERED", 2000)
    piece = b'"%b"' % base64.b64encode(bytes(80))

    def data(number: int) -> list[bytes]:
        if number < 6:
            return [b"0" if number else piece, b'"AAA%c"' % (65 + number)]
        if number < 20:
            return [b'"%b"' % base64.b64encode(bytes([number]) * 80), b'"AAAA"']
        return [b"0", b'"AAAA"']

    found = same(plain_lines(22, data), tmp_path / "t.jsonl", monkeypatch)
    assert "piece 0" in str(found.error)
    assert found.short > 2


@pytest.mark.parametrize("seed", range(60))
def test_damaged_lines(
    seed: int, lines: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = random.Random(seed)
    damaged = list(lines[:3] + lines[-64:])
    for _ in range(3):
        at = choose.randrange(40, len(damaged) - 1)
        line = bytearray(damaged[at])
        where = choose.randrange(len(line))
        what = choose.randrange(4)
        if what == 0:
            line[where] = choose.choice(b'"\\,:{}[]0123456789abcdefAZ=+/ \n\x00\xff')
        elif what == 1:
            del line[where : where + choose.randrange(1, 9)]
        elif what == 2:
            line[where:where] = line[choose.randrange(len(line)) :][: choose.randrange(1, 40)]
        else:
            digits = [m.start() for m in re.finditer(rb"[0-9]", bytes(line))]
            line[choose.choice(digits)] = choose.choice(b"0123456789")
        damaged[at] = bytes(line)
    same(damaged, tmp_path / "t.jsonl", monkeypatch)
