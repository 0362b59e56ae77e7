"""Traces whose every name is hostile to a page: markup, handlers, bidi, long."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bpftrace_sys.trace.items import Fact, Item
from decoders.raw import FdFact, RawCall
from decoders.records import replace
from tests.support.rewriting import items, recording, save

MARKUP = "<script>window.pwned=1</script><img src=x onerror='window.pwned=2'>"
BIDI = "\u202egnp.exe\u2066\u200f"
LONG = "\"><svg onload=window.pwned=3>&lt;b&gt;]]>--><!--" * 90
"""Over 4 KB."""
SHORT = {
    b"forgetful": b"<b x='\">&",
    b"counts": b"</sc\">",
    b"zero": b"<u>'",
    b"return XDP_PASS;": b"<script>x</script>"[:16],
    b"reject.c": b"<i a=b>'",
    b"R0 invalid mem": b"</pre><script>"[:14],
    b"GPL": b"<p>",
}
"""What stands in memory, and what shall stand there instead, as long."""


def hostile(path: Path) -> Path:
    """The refused program's recording with hostile names in everything that is a string."""
    header, found = items(recording("verifier-reject"))
    header = replace(
        header,
        argv=[MARKUP, BIDI, LONG, "</script><script>window.pwned=4</script>"],
        host=f"host{MARKUP}{BIDI}",
        kernel=f"6.18{MARKUP}",
    )
    return save(path, header, map(_hostile, found))


def _hostile(item: Item) -> Item:
    if isinstance(item, Fact):
        return Fact(item.kind, item.key, f"{item.name}{MARKUP}{BIDI}")
    if not isinstance(item, RawCall):
        return item
    chunks = []
    for chunk in item.chunks:
        data = chunk.data
        for old, new in SHORT.items():
            assert len(old) == len(new)
            data = data.replace(old, new)
        chunks.append(chunk._replace(data=data))
    return item.replace(
        chunks=chunks, comm=f"c{MARKUP}{BIDI}", fds=[_fact(fact) for fact in item.fds]
    )


def _fact(fact: FdFact) -> FdFact:
    info = {
        name: f"{value}{MARKUP}{LONG}" if name in ("path", "iff", "tp_name") else value
        for name, value in fact.info.items()
    }
    return fact._replace(info=info)


def looped(path: Path, calls: int, kinds: int = 99) -> Path:
    """A recording in which maps are updated again and again, with other values.

    ``kinds``: so many of the recording's own updates take turns.
    """
    header, found = items(recording("libbpf-tcpconnect"))
    return save(path, header, _more(found, calls, kinds))


def _more(found: list[Item], calls: int, kinds: int) -> Iterable[Item]:
    raw = [item for item in found if isinstance(item, RawCall)]
    updates = [item for item in raw if item.nr == 321 and item.args[0] in (1, 2, 3)][:kinds]
    assert updates
    last = max(item.seq for item in raw)
    time = max(item.time + (item.duration or 0) for item in raw) + 1000
    yield from found[:-1]
    for at in range(calls - len(raw)):
        item = updates[at % len(updates)]
        chunks = [
            chunk._replace(data=at.to_bytes(8, "little")[: len(chunk.data)])
            if number == 2 and len(chunk.data) <= 8 else chunk
            for number, chunk in enumerate(item.chunks)
        ]
        yield item.replace(
            seq=last + at + 1, time=time + at * 50_000, duration=4_000 + at % 7, chunks=chunks
        )
    yield found[-1]
