"""The short cut of loops writes, byte for byte, what the usual way writes.

The same recorded calls go through a pipeline twice, with the short cut and without.
"""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from bpftrace_sys.story.repeats import Repeats
from bpftrace_sys.trace import pieces
from bpftrace_sys.trace.reader import Reader
from decoders.raw import AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, Chunk, RawCall
from decoders.stack import Frame, Stack
from decoders.uapi import const
from tests.support.loop_calls import (
    AT_ATTR,
    AT_KEY,
    AT_VALUE,
    KINDS,
    LOOKUP,
    UPDATE,
    Item,
    a_map,
    call,
    in_time,
    loop,
    tell,
    updates,
)
from tests.support.made_up import Memory, record

if TYPE_CHECKING:
    from decoders.loop_calls import Rounds


def same(
    monkeypatch: pytest.MonkeyPatch,
    items: Sequence[Item],
    options: Sequence[str] = (),
    facts: Sequence[tuple[str, int, str]] = (),
) -> int:
    """Asserts that both ways say the same; returns how many calls took the short cut."""
    short = tell(monkeypatch, items, options, True, facts)
    usual = tell(monkeypatch, items, options, False, facts)
    assert usual.short == 0
    assert short.json == usual.json
    assert short.text == usual.text
    assert tell(monkeypatch, items, options, True, facts, as_rounds=True)[:2] == usual[:2]
    alone = tell(monkeypatch, items, options, True, facts, json=False)
    assert alone.text == usual.text
    assert alone.short >= short.short
    return short.short


TYPED = {"devmap", "cpumap", "programs", "maps", "sockets", "struct_ops"}
"""Maps whose calls take the usual way: their values lead to objects."""
SEEDS = range(3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", KINDS)
def test_all_kinds_of_maps(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    items = in_time(loop(name, random.Random(f"{name} {seed}")), seed)
    same(monkeypatch, items, ["-q"])
    # Of calls that only look the text alone may wait to be told in a line.
    short = same(monkeypatch, items, ["-q", "-v"])
    assert (short > 0) is (name not in TYPED)


OPTIONS = {
    "the ledger": [],
    "the ledger alone": ["-c"],
    "everything": ["-v", "-q"],
    "short strings": ["-s", "3", "-q"],
    "time spent": ["-T", "-q"],
    "names of threads": ["-Y", "-q"],
    "time spent and names": ["-TY"],
}
USUAL_OPTIONS = {
    "seconds": ["-t", "-q"],
    "microseconds": ["-tt", "-q"],
    "since 1970": ["-ttt", "-q"],
    "since the call before": ["-r", "-q"],
    "successes": ["-z", "-q"],
    "strace's style": ["--style", "strace"],
    "a program's": ["-e", "prog=x", "-q"],
}
"""Options with which a renderer offers no template."""


@pytest.mark.parametrize("name", [*OPTIONS, *USUAL_OPTIONS])
def test_all_options(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = random.Random(name)
    items = [
        raw
        for pair in zip(loop("hash", choose), loop("numbered", choose), strict=True)
        for raw in pair
    ]
    short = same(monkeypatch, in_time(items), {**OPTIONS, **USUAL_OPTIONS}[name])
    assert (short > 0) is (name in OPTIONS)


def changed(items: list[RawCall], change: Callable[[RawCall], None]) -> list[RawCall]:
    """Calls with something changed in each."""
    for raw in items:
        change(raw)
    return items


def test_a_plain_loop_takes_the_short_cut_from_its_third_call_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert same(monkeypatch, in_time(updates(10))) == 8


def test_a_closed_map_s_number_in_use_again(monkeypatch: pytest.MonkeyPatch) -> None:
    other = a_map(77, const.BPF_MAP_TYPE_HASH, 4, 8)
    meant = a_map(78, const.BPF_MAP_TYPE_SOCKMAP, 4, 8)
    items = updates() + updates(used=other) + updates(used=meant) + updates()
    names = [("map", 77, "other"), ("map", 1, "first"), ("before map", 1, "yes")]
    # Both loops' first two; the third's all; the first one is known.
    assert same(monkeypatch, in_time(items), facts=names) == 4 + 4 + 0 + 6


def test_what_comes_as_rounds_is_written_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the third on, and in one go."""
    gone: list[int] = []
    some = Repeats.some

    def counted(self: Repeats, rounds: Rounds) -> int:
        gone.append(some(self, rounds))
        return gone[-1]

    monkeypatch.setattr(Repeats, "some", counted)
    tell(monkeypatch, in_time(updates(50)), [], True, as_rounds=True)
    assert gone == [0, 48]


def test_a_walk_that_lookups_come_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of a program that a walk came by is a part of it only right after that."""
    def asked(command: int, attr: bytes, ret: int = 0) -> RawCall:
        memory = Memory({AT_ATTR: attr})
        args = (command, AT_ATTR, len(attr), 0, 0, 0)
        return record(AUDIT_ARCH_X86_64, 321, args, memory, memory, ret, {3: KINDS["hash"]})

    ids = [asked(const.BPF_MAP_GET_NEXT_ID, struct.pack("<III", 1, 2, 0))]
    info = [asked(const.BPF_OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", 3, 0, 0))]
    reads = [
        call(LOOKUP, KINDS["hash"], bytes([number, 0, 0, 0]), bytes(8)) for number in range(20)
    ]
    for some in (reads[:5], reads):
        for options in ([], ["-v"]):
            items = in_time([*reads, *ids, *info, *ids, *some, *info, *updates(), *some])
            assert same(monkeypatch, items, options) > 4


def test_loops_that_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map is read and written in turns, by one thread, and by two at once."""
    def turns(read: int, write: int, tid: int, rounds: int) -> list[RawCall]:
        found = []
        for at in range(rounds):
            for number in range(read):
                key = struct.pack("<I", at * 10 + number)
                found.append(call(LOOKUP, KINDS["hash"], key, struct.pack("<Q", at << 20)))
            for number in range(write):
                key = b"\xff%3d" % number
                found.append(call(UPDATE, KINDS["hash"], key, struct.pack("<Q", at), size=120))
        return changed(found, lambda raw: setattr(raw, "tid", tid))

    for read, write in ((1, 1), (7, 2), (8, 1), (9, 1), (20, 3)):
        one, other = turns(read, write, 100, 12), turns(read, write, 101, 12)
        both = [raw for pair in zip(one, other, strict=True) for raw in pair]
        for items in (one, both):
            assert same(monkeypatch, in_time(copy.deepcopy(items)), ["-q"]) > len(items) // 2


def test_another_process_and_thread_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    items = updates()
    for pid, tid, comm in ((100, 101, "a.out"), (200, 101, "a.out"), (200, 101, "b%s\0\n")):
        def change(raw: RawCall, who: tuple[int, int, str] = (pid, tid, comm)) -> None:
            raw.pid, raw.tid, raw.comm = who

        items += changed(updates(), change)
    assert same(monkeypatch, in_time(items), ["-Y"]) == 4 * 4


def test_another_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    items = updates() + updates(arch=AUDIT_ARCH_I386)
    assert same(monkeypatch, in_time(items)) == 4 * 2


def test_a_map_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [
        call(UPDATE, a_map(1, 1, 4, 8, memlock=4096 + 64 * number), bytes(4), bytes([number] * 8))
        for number in range(10)
    ]
    assert same(monkeypatch, in_time(items)) == 8


def test_a_map_that_is_frozen_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    items = updates() + updates(used=a_map(1, 1, 4, 8, frozen=1))
    assert same(monkeypatch, in_time(items)) == 4 + 4


@pytest.mark.parametrize("named", ["\0", "\0\0\0", "[00 00 00 00]", "\0hole\0", "%s", '"hex":"'])
def test_a_name_that_looks_like_data(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    same(monkeypatch, in_time(updates()), facts=[("map", 1, named)])


def test_a_map_with_types(monkeypatch: pytest.MonkeyPatch) -> None:
    attr = struct.pack("<5I8x16sIIII", 1, 4, 8, 64, 0, b"typed", 0, 6, 1, 1)
    create = record(
        AUDIT_ARCH_X86_64, 321, (0, AT_ATTR, len(attr), 0, 0, 0),
        Memory({AT_ATTR: attr}), Memory({AT_ATTR: attr}), 3,
        {6: ("btf", {"btf_id": 9}), 3: KINDS["hash"]},
    )  # fmt: skip
    assert same(monkeypatch, in_time([create, *updates()])) == 0


@pytest.mark.parametrize(
    ("at_key", "at_value"),
    [(AT_KEY, AT_KEY), (AT_KEY, AT_KEY + 2), (AT_ATTR + 8, AT_VALUE), (AT_KEY, AT_ATTR + 24)],
)
def test_chunks_that_overlap(
    at_key: int, at_value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may have written between the two reads: what is decoded is one of both."""
    items = updates(8)
    choose = random.Random(at_key ^ at_value)
    for raw in items:
        attr = bytearray(raw.chunks[0].data)
        attr[8:24] = struct.pack("<QQ", at_key, at_value)
        raw.chunks = [
            Chunk(0, AT_ATTR, bytes(attr), len(attr)),
            Chunk(0, at_key, choose.randbytes(4), 4),
            Chunk(0, at_value, choose.randbytes(8), 8),
        ]
    assert same(monkeypatch, in_time(items)) == 0


def test_memory_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(raw: RawCall) -> None:
        raw.chunks[2] = raw.chunks[2]._replace(data=raw.chunks[2].data[:5])

    items = updates() + changed(updates(), cut) + updates()
    assert same(monkeypatch, in_time(items)) == 4 + 6
    assert same(monkeypatch, in_time(items), ["-c"]) == 4 + 6


def test_a_longer_attr_with_something_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert same(monkeypatch, in_time(updates(size=48, rest=b"\1\2\3"))) == 0
    assert same(monkeypatch, in_time(updates(size=120))) == 4


def test_a_call_that_was_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def injected(raw: RawCall) -> None:
        raw.extra = raw.extra._replace(injected=True)

    items = updates() + changed(updates(), injected)
    assert same(monkeypatch, in_time(items)) == 4


def test_calls_with_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def stacked(raw: RawCall) -> None:
        raw.stack = Stack((Frame(raw.chunks[1].data[0] + 1, "/bin/x", 5, "main", 3),), "cut")

    items = updates() + changed(updates(), stacked) + updates()
    assert same(monkeypatch, in_time(items), ["-k"]) == 4 + 0 + 6
    assert same(monkeypatch, in_time(items)) == 4 + 0 + 6


def test_pieces_that_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attr is a piece, and so are the values: those of later calls push it out."""
    monkeypatch.setattr(pieces, "REMEMBERED", 2000)
    items = [
        call(UPDATE, KINDS["numbered"], bytes([number] * 64), bytes([number] * 100), size=120)
        for number in range(30)
    ]
    assert same(monkeypatch, in_time(items)) == 28


def test_values_that_fill_several_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Octets are broken between two of them, and a string of the same width is not."""
    data = [bytes([number] * 64) for number in range(6)]
    data += [(b"%37d" % 7).ljust(64, b"\0"), *data[:4]]
    for size in (1, 30, 40, 64):
        items = [
            call(UPDATE, a_map(1, 1, 4, size), bytes([number] * 4), value[:size], size=120)
            for number, value in enumerate(data)
        ]
        for options in ([], ["-q", "-T"]):
            assert same(monkeypatch, in_time(items), options) > 3


def test_many_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are remembered."""
    items = []
    for turn in range(3):
        for number in range(200):
            items += updates(1 + turn % 2, fd=3 + number)
    same(monkeypatch, in_time(items), ["-q"])


def test_replay_says_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    choose = random.Random(5)
    items = [
        raw
        for calls in zip(*(loop(name, choose, 40) for name in KINDS), strict=True)
        for raw in calls
    ]
    told = tell(monkeypatch, in_time(items), ["-q"], True)
    path = tmp_path / "t.jsonl"
    path.write_text(told.json)
    again = [item for item in Reader(str(path)) if isinstance(item, Item)]
    assert again == items
    assert tell(monkeypatch, again, ["-q"], True) == told


def test_one_renderer_without_a_template_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    from bpftrace_sys.render.json_lines import JsonLines

    monkeypatch.setattr(JsonLines, "template", lambda self, call: None)
    items = in_time(updates())
    assert tell(monkeypatch, items, [], True).short == 0
    assert tell(monkeypatch, items, [], True, json=False).short == 4
    monkeypatch.setattr(JsonLines, "has_templates", False)
    assert tell(monkeypatch, items, [], True).short == 0
