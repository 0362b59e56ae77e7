"""A refused load that comes again is told, byte for byte, as the usual way would tell it."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

import pytest

from bpftrace_sys.story.again import Again
from decoders.events import Exit, ProcessEvent
from decoders.raw import AUDIT_ARCH_X86_64, Cred, RawCall
from tests.support.loop_calls import Item, in_time, tell, updates
from tests.support.made_up import Memory, record

AT_ATTR, AT_INSNS, AT_LICENSE, AT_LOG = 0x1000, 0x2000, 0x3000, 0x4000
LOG = b"0: (bf) r0 = r3\nR3 !read_ok\nprocessed 1 insns (limit 1000000) max_states_per_insn 0\n\0"


def load(
    *, imm: int = 7, ret: int = -13, name: bytes = b"hello", log: bytes = LOG, level: int = 1
) -> RawCall:
    """A PROG_LOAD that the verifier refuses."""
    code = struct.pack("<BBhiBBhiBBhi", 0xB7, 0, 0, imm, 0xBF, 0x30, 0, 0, 0x95, 0, 0, 0)
    attr = struct.pack(
        "<IIQQIIQII16sII", 1, 3, AT_INSNS, AT_LICENSE, level, 256, AT_LOG, 0, 0, name, 0, 0
    ).ljust(128, b"\0")
    before = {AT_ATTR: attr, AT_INSNS: code, AT_LICENSE: b"GPL\0", AT_LOG: bytes(256)}
    after = {**before, AT_LOG: log.ljust(256, b"\0")}
    return record(
        AUDIT_ARCH_X86_64, 321, (5, AT_ATTR, 128, 0, 0, 0), Memory(before), Memory(after), ret, {}
    )


def create(*, key_size: int = 0, ret: int = -22) -> RawCall:
    """A MAP_CREATE that is refused."""
    attr = struct.pack("<5I", 1, key_size, 8, 64, 0).ljust(128, b"\0")
    memory = Memory({AT_ATTR: attr})
    return record(AUDIT_ARCH_X86_64, 321, (0, AT_ATTR, 128, 0, 0, 0), memory, memory, ret, {})


def both(
    monkeypatch: pytest.MonkeyPatch, items: Sequence[Item], options: Sequence[str] = ()
) -> int:
    """Asserts that both ways say the same; returns how many calls were told as again."""
    took = 0
    take = Again.take

    def counted(self: Again, raw: RawCall) -> object:
        nonlocal took
        found = take(self, raw)
        took += found is not None
        return found

    usual, short = [], []
    for json in (True, False):
        monkeypatch.setattr(Again, "take", lambda self, raw: None)
        usual.append(tell(monkeypatch, items, options, True, json=json))
        monkeypatch.setattr(Again, "take", counted)
        took = 0
        short.append(tell(monkeypatch, items, options, True, json=json))
        monkeypatch.setattr(Again, "take", take)
    for one, other in zip(usual, short, strict=True):
        assert one.json == other.json
        assert one.text == other.text
    return took


OPTIONS: list[list[str]] = [
    [], ["-q"], ["-c"], ["-v"], ["-T"], ["-t", "-q"], ["-r"], ["-Y"], ["--style", "strace"], ["-Z"],
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_attempts_from_the_third_on(
    options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = in_time([load() for _ in range(6)] + [create() for _ in range(5)])
    assert both(monkeypatch, items, options) == 4 + 3


@pytest.mark.parametrize("name", [b"\0hole\0", b"%s%d", b'"', b"\x1b[31m"])
def test_hostile_names(name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert both(monkeypatch, in_time([load(name=name) for _ in range(5)])) == 3


DIFFERENT = {
    "an instruction": load(imm=8),
    "the errno": load(ret=-22),
    "what the verifier says": load(log=LOG.replace(b"R3", b"R4")),
    "the name": load(name=b"other"),
    "the log's level": load(level=2),
    "success": load(ret=9),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_the_least_difference_is_told(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    items = in_time([load(), load(), load(), DIFFERENT[what], load(), load(), load()])
    # The third, and of the last three those before which nothing changed.
    assert 1 <= both(monkeypatch, items) <= 3


def test_who_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    items = in_time([load() for _ in range(8)])
    for raw in items[:4]:
        raw.extra = raw.extra._replace(cred=Cred(1000, "0"))
    for raw in items[4:]:
        raw.extra = raw.extra._replace(cred=Cred(0, "ff"))
    assert both(monkeypatch, items) == 2 + 3


@pytest.mark.parametrize("seed", range(12))
def test_anything_in_between(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = random.Random(seed)
    makers = [load, load, load, create, create, lambda: load(imm=8), lambda: load(ret=9)]
    items: list[Item] = []
    for _ in range(30):
        make = choose.choice(makers)
        for _ in range(choose.randrange(1, 6)):
            raw = make()
            raw.tid = raw.pid = choose.choice([100, 100, 100, 101])
            items.append(raw)
        if choose.random() < 0.3:
            items += updates(4)
    in_time([item for item in items if isinstance(item, RawCall)], seed)
    for at in sorted(choose.sample(range(len(items)), 5), reverse=True):
        items.insert(at, ProcessEvent(Exit(0), 1, 100, 100))
    both(monkeypatch, items, choose.choice(OPTIONS))
