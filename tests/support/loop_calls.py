"""Made-up loops over maps, and what is shown of them with the short cut and without."""

from __future__ import annotations

import copy
import io
import random
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from bpftrace_sys.cli.options import parse
from bpftrace_sys.cli.outputs import JSON, TEXT, Outputs
from bpftrace_sys.cli.renderers import renderers
from bpftrace_sys.render.output import Output
from bpftrace_sys.story import objects
from bpftrace_sys.story.pipeline import Pipeline
from bpftrace_sys.story.repeats import Repeats, shape
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.header import Header
from decoders.events import Ending, ProcessEvent
from decoders.loop_calls import Rounds, in_strands, may_repeat, round_of
from decoders.raw import AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, RawCall
from decoders.uapi import const
from tests.support.made_up import Memory, record

if TYPE_CHECKING:
    from decoders.loop_calls import Round


LOOKUP, UPDATE, DELETE, NEXT, TAKE = 1, 2, 3, 4, 21
AT_ATTR, AT_KEY, AT_VALUE = 0x7FFC_0000_1000, 0x7FFC_0000_2000, 0x5555_0000_3000
NUMBER = {AUDIT_ARCH_X86_64: 321, AUDIT_ARCH_I386: 357}

Item = RawCall | ProcessEvent
Map = tuple[str, dict[str, Any]]


def a_map(number: int, kind: int, key: int, value: int, **more: Any) -> Map:
    """A map as its fdinfo shows it."""
    sizes = {"map_type": kind, "key_size": key, "value_size": value, "max_entries": 64}
    return ("map", {"map_id": number, **sizes, "memlock": 4096, "frozen": 0, **more})


def call(
    command: int,
    used: Map,
    key: bytes | None,
    value: bytes,
    *,
    fd: int = 3,
    ret: int = 0,
    flags: int = 0,
    at_key: int = AT_KEY,
    at_value: int = AT_VALUE,
    size: int = 32,
    rest: bytes = b"",
    arch: int = AUDIT_ARCH_X86_64,
    others: dict[int, Map] | None = None,
) -> RawCall:
    """A call on a map's element, as it is recorded."""
    attr = struct.pack("<I4xQQQ", fd, at_key if key is not None else 0, at_value, flags)
    attr = (attr[:size] + rest).ljust(size, b"\0")
    reads = command in (UPDATE,)
    before = {AT_ATTR: attr, at_key: key or b"", at_value: value if reads else bytes(len(value))}
    if at_key == at_value:
        before[at_key] = max(key or b"", before[at_value], key=len)
    after = {**before, at_value: value}
    args = (command, AT_ATTR, len(attr), 0, 0, 0)
    regions = ({at: data for at, data in memory.items() if data} for memory in (before, after))
    return record(
        arch, NUMBER[arch], args, *(Memory(found) for found in regions), ret,
        {fd: used, **(others or {})},
    )  # fmt: skip


class Told(NamedTuple):
    """What came of a trace, and how many of its calls took the short cut."""

    text: str
    json: str
    short: int


def tell(
    monkeypatch: pytest.MonkeyPatch,
    items: Sequence[Item],
    options: Sequence[str],
    allowed: bool,
    facts: Sequence[tuple[str, int, str]] = (),
    json: bool = True,
    as_rounds: bool = False,
) -> Told:
    """Shows a trace with these options; ``allowed``: whether loops may take the short cut.

    ``as_rounds``: calls of loops come as the eBPF engine reads them.
    """
    short = 0
    take = Repeats.take

    def counted(self: Repeats, raw: RawCall) -> bool:
        nonlocal short
        usual = self._pipeline.usual
        went: list[RawCall] = []
        self._pipeline.usual = lambda item: (went.append(item), usual(item))[1]  # type: ignore
        taken = allowed and take(self, raw)
        self._pipeline.usual = usual  # type: ignore[method-assign]
        short += taken and not went
        return taken

    monkeypatch.setattr(Repeats, "take", counted)
    text, lines = io.StringIO(), io.StringIO()
    known = RecordedFacts({}, 4)
    pipeline = Pipeline(known)
    rows = {TEXT: Output(text, "t.txt")}
    if json:
        rows[JSON] = Output(lines, "t.jsonl")
    settings = parse([*options, "t.jsonl"], "replay")
    pipeline.renderers = renderers(settings, pipeline, Outputs(rows))
    pipeline.header(Header(["a.out"], "6.18", "x86_64", 4, {}, 0, {}))
    for kind, key, name in facts:
        known.learn(kind, key, name)
        pipeline.fact(kind, key, name)
    for item in in_rounds(copy.deepcopy(items)) if as_rounds else copy.deepcopy(items):
        pipeline.take(item)
    operations = sorted(
        (number, found.operations)
        for (_, number), found in pipeline.model.objects.items()
        if isinstance(found, objects.Map)
    )
    pipeline.end(Ending(0))
    monkeypatch.setattr(Repeats, "take", take)
    return Told(f"{text.getvalue()}{operations}", lines.getvalue(), short)


def in_rounds(items: Sequence[Item]) -> Iterator[Item | Rounds]:
    """The same items, with calls that are like an earlier one as rounds of that one."""
    models: dict[Any, RawCall] = {}
    rounds: list[Round] = []
    for item in items:
        if isinstance(item, RawCall) and may_repeat(item):
            info = tuple(item.fds[0].info.items())
            model = models.setdefault((shape(item), info), item)
            if model is not item:
                rounds.append((model, *round_of(item)[1:]))
                continue
        if rounds:
            yield in_strands(rounds)
            rounds = []
        yield item
    if rounds:
        yield in_strands(rounds)


def in_time(items: Sequence[RawCall], seed: int = 1) -> list[RawCall]:
    """Calls with the numbers and times that a trace would have."""
    choose = random.Random(seed)
    now = 1_700_000_000_000_000_000
    for seq, raw in enumerate(items, 1):
        now += choose.randrange(1, 3_000_000_000)
        raw.seq, raw.time = seq, now
        raw.duration = choose.choice((None, *[choose.randrange(1 << 36)] * 9))
    return list(items)


def filled(choose: random.Random, size: int) -> bytes:
    """Data of all sorts: text, small numbers, noise."""
    kind = choose.randrange(4)
    if kind == 0:
        return b"some text, 100% \"quoted\"\\"[: max(size - 1, 0)].ljust(size, b"\0")
    if kind == 1:
        return choose.randrange(1000).to_bytes(max(size, 2), "little")[:size]
    if kind == 2:
        return bytes(size)
    return choose.randbytes(size)


KINDS = {
    "hash": a_map(1, const.BPF_MAP_TYPE_HASH, 4, 8),
    "array": a_map(2, const.BPF_MAP_TYPE_ARRAY, 4, 1),
    "byte key": a_map(3, const.BPF_MAP_TYPE_HASH, 1, 2),
    "numbered": a_map(4, const.BPF_MAP_TYPE_HASH, 64, 100),
    "compressed": a_map(5, const.BPF_MAP_TYPE_ARRAY, 4, 400),
    "long": a_map(6, const.BPF_MAP_TYPE_ARRAY, 4, 4096),
    "too long": a_map(7, const.BPF_MAP_TYPE_ARRAY, 4, 4097),
    "per CPU": a_map(8, const.BPF_MAP_TYPE_PERCPU_HASH, 4, 12),
    "trie": a_map(9, const.BPF_MAP_TYPE_LPM_TRIE, 8, 4),
    "unknown": a_map(10, 99, 4, 4),
    "devmap": a_map(11, const.BPF_MAP_TYPE_DEVMAP, 4, 8),
    "cpumap": a_map(12, const.BPF_MAP_TYPE_CPUMAP, 4, 8),
    "programs": a_map(13, const.BPF_MAP_TYPE_PROG_ARRAY, 4, 4),
    "maps": a_map(14, const.BPF_MAP_TYPE_HASH_OF_MAPS, 4, 4),
    "sockets": a_map(15, const.BPF_MAP_TYPE_SOCKHASH, 4, 8),
    "struct_ops": a_map(16, const.BPF_MAP_TYPE_STRUCT_OPS, 4, 64),
    "queue": a_map(17, const.BPF_MAP_TYPE_QUEUE, 0, 8),
}


def loop(name: str, choose: random.Random, count: int = 150) -> list[RawCall]:
    """Calls of a program that works with a map: some fail, some return what others put in."""
    used = KINDS[name]
    info = used[1]
    keyed, value = info["key_size"], info["value_size"]
    if info["map_type"] == const.BPF_MAP_TYPE_PERCPU_HASH:
        value = (value + 7 & ~7) * 4
    found = []
    for _ in range(count):
        command = choose.choice((UPDATE, UPDATE, LOOKUP, LOOKUP, DELETE, NEXT, TAKE))
        key = None if not keyed or (command == NEXT and not choose.randrange(4)) else (
            filled(choose, keyed)
        )
        data = filled(choose, keyed or 8 if command == NEXT else value)
        ret = choose.choice((0, 0, 0, 0, 0, 0, -2, -17))
        flags = choose.choice((0, 0, 0, 1))
        size = choose.choice((32, 32, 32, 120))
        found.append(
            call(command, used, key, data, ret=ret, flags=flags, size=size, others={
                0: ("file", {"path": "/dev/null"}), 5: ("prog", {"prog_id": 7, "prog_tag": "a"}),
            })
        )  # fmt: skip
    return found


def updates(count: int = 6, used: Map = KINDS["hash"], **more: Any) -> list[RawCall]:
    """A plain loop."""
    return [
        call(UPDATE, used, struct.pack("<I", number), struct.pack("<Q", number * 7), **more)
        for number in range(count)
    ]
