"""A secret in any place of a recorded trace that may hold a text of the program's: redacted, it is
in the file no more. tools/fuzz.py draws other places."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import assume, given
from hypothesis import strategies as st

from bpftrace_sys.cli.redact import main
from bpftrace_sys.export.stand_ins import KERNEL_TREES
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.items import Fact, TraceError
from bpftrace_sys.trace.reader import Reader
from decoders.call import Call
from decoders.decode import decode
from decoders.raw import RawCall
from decoders.values import Array, Bytes, Changed, Pointer, Struct, Text, Value
from tests.support.redacted import found
from tests.support.running import FIXTURES
from tests.support.spoiling import paths

NAMES = sorted(
    path.parent.name for path in FIXTURES.glob("*/trace.jsonl.gz") if path.stat().st_size < 6_000
)
SECRET = b"Zq7secretKx9"
WORDS = frozenset({
    "type", "format", "bpfstrace", "kernel", "machine", "event", "how", "arch",
    "prog_tag", "link_type", "event_type", "attach_type", "fd_type", "map_type", "prog_type",
})  # fmt: skip
"""Fields of a trace that hold words of the kernel's and of ours."""


class Where(NamedTuple):
    """The lines of a recording, and where in them a secret is put."""

    lines: list[dict[str, Any]]
    places: list[tuple[int, tuple[Any, ...]]]
    """Numbers of lines, and the way in them."""
    addresses: set[tuple[int, str]]
    """Of memory: of which calls, at which address."""


def lies_in(trace: Path) -> set[tuple[int, str]]:
    """The memory of calls that holds the secret."""
    try:
        return {(call.raw.seq, hex(chunk.addr)) for call in calls_of(str(trace))
                for chunk in call.raw.chunks if SECRET in chunk.data}  # fmt: skip
    except TraceError:
        return set()  # it ends at that line


@cache
def places_of(name: str) -> Where:
    """The lines of a recording, and where in them a text of the program's may stand."""
    path = FIXTURES / name / "trace.jsonl.gz"
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    texts = texts_of(str(path))
    places = []
    for at, line in enumerate(lines):
        for place in paths(line):
            value: Any = line
            for key in place:
                value = value[key]
            if isinstance(value, str) and may_hold(line, place, texts):
                places.append((at, place))
    return Where(lines, places, texts)


def may_hold(line: dict[str, Any], place: tuple[Any, ...], texts: set[tuple[int, str]]) -> bool:
    """Whether a place is of those in which nothing of the program's may be left."""
    kind = line["type"]
    if place[-1] in WORDS or place[0] == "options":
        return False
    if kind == "fact":
        return line["kind"].split()[0] in ("usym", "device")
    if kind == "syscall" and place[0] != "comm":
        if place[:2] == ("raw", "extra"):
            return True
        if place[:1] != ("raw",) or place[1] not in ("entry", "exit") or place[-1] != 1:
            return False  # made anew, or numbers
        return (line["seq"], line["raw"][place[1]][place[2]][0]) in texts
    return kind in ("trace", "syscall", "process", "end")


def texts_of(path: str) -> set[tuple[int, str]]:
    """Where strings and bytes stand in the memory of calls: of which, at which address."""
    found = set()
    for call in calls_of(path):
        found |= {(call.raw.seq, hex(addr)) for addr in pointed_at(call.args)}
    return found


def calls_of(path: str) -> Iterator[Call]:
    """The calls of a trace."""
    reader = Reader(path)
    facts = RecordedFacts.of(reader.header)
    for item in reader:
        if isinstance(item, Fact):
            facts.learn(item.kind, item.key, item.name)
        elif isinstance(item, RawCall):
            yield decode(item, facts)


def holds_names(value: Value | None, name: str = "") -> Iterator[int]:
    """Addresses of structs, in which names may be left, and of BTF."""
    if isinstance(value, Pointer):
        inner = value.value
        both = (inner.before, inner.after) if isinstance(inner, Changed) else (inner,)
        if name == "btf" or any(isinstance(one, Struct) for one in both):
            yield value.addr
        yield from holds_names(inner)
    elif isinstance(value, Changed):
        yield from holds_names(value.before)
        yield from holds_names(value.after)
    elif isinstance(value, Struct):
        for field, member in value.fields:
            yield from holds_names(member, field)


@cache
def named_places(name: str) -> Where:
    """The lines of a recording, and where in them a name may stand."""
    path = FIXTURES / name / "trace.jsonl.gz"
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    texts = {(call.raw.seq, hex(addr)) for call in calls_of(str(path))
             for addr in holds_names(call.args)}  # fmt: skip
    places = [
        (at, ("raw", stage, number, 1))
        for at, line in enumerate(lines) if line["type"] == "syscall"
        for stage in ("entry", "exit")
        for number, chunk in enumerate(line["raw"].get(stage, ()))
        if (line["seq"], chunk[0]) in texts and isinstance(chunk[1], str)
    ]  # fmt: skip
    return Where(lines, places, texts)


def pointed_at(value: Value | None) -> Iterator[int]:
    """Addresses of strings and bytes."""
    if isinstance(value, Pointer):
        inner = value.value
        both = (inner.before, inner.after) if isinstance(inner, Changed) else (inner,)
        if any(isinstance(one, Text | Bytes) for one in both):
            yield value.addr
        yield from pointed_at(inner)
    elif isinstance(value, Changed):
        yield from pointed_at(value.before)
        yield from pointed_at(value.after)
    elif isinstance(value, Struct):
        for name, member in value.fields:
            if name != "btf":  # its names stay
                yield from pointed_at(member)
    elif isinstance(value, Array):
        for member in value.items:
            yield from pointed_at(member)


def plant(value: str, place: tuple[Any, ...], offset: int) -> str:
    """The secret in the place of a text, or somewhere in memory."""
    if place[0] != "raw" or place[1] == "extra":
        return SECRET.decode() if offset % 2 else f"/home/{SECRET.decode()}/file"
    data = base64.b64decode(value)
    at = offset % (len(data) + 1)
    data = data[:at] + SECRET + data[at + len(SECRET) :]
    assume(not data.startswith(KERNEL_TREES))  # there only the kernel makes names
    return base64.b64encode(data).decode()


@given(st.data())
def test_a_secret_in_any_place(data: st.DataObject) -> None:
    search(data, places_of(data.draw(st.sampled_from(NAMES))))


@given(st.data())
def test_a_name_in_any_struct(data: st.DataObject) -> None:
    """Of an object, of BTF, or left there by an earlier call."""
    search(data, named_places(data.draw(st.sampled_from(NAMES))), "--names")


def search(data: st.DataObject, where: Where, *words: str) -> None:
    """Puts the secret in one of the places, and finds it in the trace, and not in what is left."""
    lines, places, _ = where
    at, place = data.draw(st.sampled_from(places))
    offset = data.draw(st.integers(0, 4096))
    spoilt = list(lines)
    spoilt[at] = copy.deepcopy(lines[at])
    holder: Any = spoilt[at]
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = plant(holder[place[-1]], place, offset)
    with tempfile.TemporaryDirectory() as folder:
        trace, out = Path(folder) / "trace.jsonl", Path(folder) / "out.jsonl"
        trace.write_text("".join(json.dumps(line) + "\n" for line in spoilt))
        # What stands in a trace once may be of several calls; in numbers of a struct it stays.
        assume(lies_in(trace) <= where.addresses)
        # A line that is refused for it ends the trace.
        main([str(trace), "-o", str(out), *words])
        assert found([trace], {"it": SECRET}) == {"it"}
        assert found([out], {"it": SECRET}) == set()
