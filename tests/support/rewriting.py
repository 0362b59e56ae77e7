"""Traces made from recordings: the same calls with something changed in what was recorded."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from bpftrace_sys.render.json_lines import JsonLines
from bpftrace_sys.story.pipeline import Pipeline
from bpftrace_sys.story.whole_trace import fed
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.header import Header
from bpftrace_sys.trace.items import Fact, Item
from bpftrace_sys.trace.reader import Reader
from decoders.events import Exec, Fork, ProcessEvent
from decoders.raw import ENTRY, Chunk, FdFact, RawCall
from decoders.records import replace
from tests.support.running import FIXTURES

Change = Callable[[list[Item]], Iterable[Item]]
IDS = ("prog_id", "map_id", "btf_id", "link_id")
BPF = 321
"""bpf(2) on x86-64."""


def recording(name: str) -> Path:
    """A fixture's trace."""
    return FIXTURES / name / "trace.jsonl.gz"


def items(path: Path) -> tuple[Header, list[Item]]:
    """A whole trace."""
    reader = Reader(str(path))
    return reader.header, list(reader)


def save(path: Path, header: Header, found: Iterable[Item]) -> Path:
    """Writes items as a trace, decoded as bpfstrace does it."""
    facts = RecordedFacts.of(header)
    pipeline = Pipeline(facts)
    with path.open("w", encoding="ascii") as file:
        pipeline.renderers = [JsonLines(file, pipeline.model)]
        pipeline.header(header)
        for _ in fed(found, pipeline, facts):
            pass
    return path


def rewritten(source: Path, path: Path, change: Change) -> Path:
    """A trace with its items changed."""
    header, found = items(source)
    return save(path, header, change(found))


def is_bpf(item: Item, cmd: int) -> bool:
    """Whether an item is that bpf command."""
    return isinstance(item, RawCall) and item.nr == BPF and item.args[0] == cmd


def each(change: Callable[[RawCall], RawCall | None]) -> Change:
    """Changes calls one by one; None drops a call."""

    def run(found: list[Item]) -> Iterable[Item]:
        for item in found:
            if not isinstance(item, RawCall):
                yield item
            elif (changed := change(item)) is not None:
                yield changed

    return run


def with_bytes(raw: RawCall, addr: int, offset: int, data: bytes) -> RawCall:
    """The call with some of the memory at an address replaced."""
    chunks = []
    for chunk in raw.chunks:
        if chunk.addr == addr and chunk.stage == ENTRY:
            old = chunk.data
            chunk = chunk._replace(data=old[:offset] + data + old[offset + len(data) :])
        chunks.append(chunk)
    return raw.replace(chunks=chunks)


def with_attr(raw: RawCall, offset: int, data: bytes) -> RawCall:
    """The bpf call with some of its attr replaced."""
    return with_bytes(raw, raw.args[1], offset, data)


def with_text(raw: RawCall, old: bytes, new: bytes) -> RawCall:
    """The call with a text in its memory replaced by one of another length."""
    chunks = []
    for chunk in raw.chunks:
        if chunk.data == old + b"\0":
            chunk = chunk._replace(data=new + b"\0", wanted=len(new) + 1)
        chunks.append(chunk)
    return raw.replace(chunks=chunks)


def as_of_another_day(found: list[Item]) -> Iterable[Item]:
    """Other pids, ids, addresses and times; all else the same."""
    shift = 0x11000

    def fact(known: FdFact) -> FdFact:
        info = {
            name: value + 5000 if name in IDS and isinstance(value, int) else value
            for name, value in known.info.items()
        }
        return known._replace(info=info)

    for item in found:
        if isinstance(item, ProcessEvent):
            what = item.what
            if isinstance(what, Fork):
                what = what._replace(child=what.child + 3000, child_tid=what.child_tid + 3000)
            elif isinstance(what, Exec) and what.former_tid is not None:
                what = what._replace(former_tid=what.former_tid + 3000)
            yield item._replace(
                what=what, time=item.time + 10**12, pid=item.pid + 3000, tid=item.tid + 3000
            )
        elif isinstance(item, Fact) and item.kind.startswith("alive_"):
            yield replace(item, key=item.key + 5000)
        elif isinstance(item, RawCall):
            # Only the attr moves: pointers in it are part of its bytes.
            args = list(item.args)
            chunks = item.chunks
            if item.nr == BPF:
                chunks = [
                    chunk._replace(addr=chunk.addr + shift) if chunk.addr == args[1] else chunk
                    for chunk in chunks
                ]
                args[1] += shift
            yield item.replace(
                time=item.time + 10**12,
                duration=None if item.duration is None else item.duration + 777,
                pid=item.pid + 3000,
                tid=item.tid + 3000,
                args=tuple(args),
                chunks=chunks,
                fds=[fact(known) for known in item.fds],
            )
        else:
            yield item


def repeated(source: Path, path: Path, cmds: set[int], times: int, fresh: bool = False) -> Path:
    """A long trace: a recording whose calls of some commands come again and again.

    ``fresh``: each time they make other objects.
    """
    header, found = items(source)
    calls = [item for item in found if any(is_bpf(item, cmd) for cmd in cmds)]

    def all_items() -> Iterable[Item]:
        yield from found[:-1]
        seq = 10_000
        for at in range(times):
            for item in calls:
                assert isinstance(item, RawCall)
                seq += 1
                fds = item.fds
                if fresh:
                    fds = [
                        known._replace(
                            info={
                                name: value + 10_000 * (at + 1)
                                if name in IDS and known.stage and isinstance(value, int)
                                else value
                                for name, value in known.info.items()
                            }
                        )
                        for known in fds
                    ]
                yield item.replace(seq=seq, fds=fds)
        yield found[-1]

    return save(path, header, all_items())


U32 = struct.Struct("<I").pack
__all__ = ["U32", "Chunk", "as_of_another_day", "each", "is_bpf", "items", "recording", "repeated",
           "rewritten", "save", "with_attr", "with_bytes", "with_text"]
