"""Calls of loops, read from the ring by what they have of their own, are what they would be else.

Records that the kernel's programs wrote are read both ways, as they are and with bytes of them
changed.
"""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from bpftrace_sys.record.ebpf.engine import Told, Wanted, Watch
from bpftrace_sys.record.ebpf.loops import HOPELESS, RingLoops
from bpftrace_sys.record.ebpf.records import Records
from bpftrace_sys.record.ebpf.ring import Ring
from decoders.loop_calls import Rounds
from decoders.raw import RawCall
from tests.support.updates import UPDATES

LOOPS = UPDATES + """
def addresses(*buffers): return [ctypes.addressof(one) for one in buffers]
def many():
    table = bpf(0, struct.pack("<4I", 1, 4, 8, 64).ljust(72, b"\\0"))
    one, other, value = (ctypes.create_string_buffer(8) for _ in range(3))
    attrs = [ctypes.create_string_buffer(struct.pack("<IIQQQ", table, 0, *each, 0), 32)
             for each in (addresses(one, value), addresses(one, other), addresses(other, one))]
    put, step, back = attrs
    for number in range(40):
        struct.pack_into("<I", one, 0, number)
        struct.pack_into("<Q", value, 0, number << 30)
        libc.syscall(nr, 2, put, 32)
    for number in range(60):
        libc.syscall(nr, 4, step, 32)
        libc.syscall(nr, 1, put, 32)
        libc.syscall(nr, 4, back, 32)
        if number % 7 == 0: libc.syscall(nr, 3, put, 32)
    os.close(table)
def long():
    table = bpf(0, struct.pack("<4I", 2, 4, 400, 4).ljust(72, b"\\0"))
    key, value = (ctypes.create_string_buffer(400) for _ in range(2))
    attr = struct.pack("<IIQQQ", table, 0, *addresses(key, value), 0)
    for _ in range(20): bpf(1, attr)
long()
threads = [threading.Thread(target=many) for _ in range(2)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
work(100)
"""
"""Values that are records of their own; then two threads go through maps of theirs, with two attrs
in one place; then one updates another."""


@pytest.fixture(scope="module")
def written(needs_bpf: None) -> list[bytes]:
    """The ring's records of LOOPS."""
    engine = Watch(Wanted(everybody=False))
    engine.open()
    found: list[bytes] = []
    try:
        engine.tell(Told(lambda item: None))
        subprocess.run([sys.executable, "-c", LOOPS], check=True)

        def taken(buffer: memoryview, at: int, size: int, room: int) -> int:
            found.append(bytes(buffer[at : at + size]))
            return 1

        while engine._ring.drain(taken, 512):
            pass
    finally:
        engine.close()
    return found


class Filled(Ring):
    """A ring that the kernel has written; its first records lie over its end."""

    def __init__(self, records: list[bytes]) -> None:
        size = 1 << 22
        data = bytearray(size)
        self._consumed, self._produced = (memoryview(bytearray(8)).cast("Q") for _ in range(2))
        at = self._consumed[0] = size - 1500
        for record in records:
            whole = struct.pack("<II", len(record), 0) + record + bytes(-len(record) % 8)
            for number, byte in enumerate(whole):
                data[(at + number) % size] = byte
            at += len(whole)
        self._produced[0] = at
        self._mask = size - 1
        self._data = memoryview(data)
        self._words = self._data.cast("I")


def read(records: list[bytes]) -> tuple[list[Any], int]:
    """What is made of records, and how many calls came as rounds."""
    items: list[Any] = []
    short = 0

    def take(item: Any) -> None:
        nonlocal short
        if isinstance(item, Rounds):
            short += len(item)
            items.extend(item.calls())
        else:
            items.append(item)

    one = Records(take, items.append, items.append, 5)

    def record(buffer: memoryview, at: int, size: int, room: int) -> int:
        try:
            return one.record(buffer, at, size, room)
        except Exception as error:
            one.flush()
            items.append(type(error))
            return 1

    ring = Filled(records)
    while ring.drain(record, 512):
        one.flush()
    return [*items, one.read, one.lost_pieces, one.late], short


def both(monkeypatch: pytest.MonkeyPatch, records: list[bytes]) -> int:
    """Asserts that records are read alike; returns how many calls took the short cut."""
    found, short = read(records)
    with monkeypatch.context() as patch:
        patch.setattr(RingLoops, "rounds", lambda *_: None)
        usual, none = read(records)
    assert none == 0
    assert found == usual
    return short


def test_loops_are_read_alike(monkeypatch: pytest.MonkeyPatch, written: list[bytes]) -> None:
    calls, _ = read(written)
    made = sum(isinstance(call, RawCall) and call.args[0] in (1, 2, 3, 4) for call in calls)
    assert made >= 2 * (40 + 3 * 60) + 100
    assert both(monkeypatch, written) > made * 8 // 10


def changed(records: list[bytes], choose: random.Random) -> Iterator[bytes]:
    """Some of these with another byte, or two."""
    for data in records:
        if choose.random() < 0.2:
            new = bytearray(data)
            for _ in range(choose.randrange(1, 3)):
                other = choose.choice((0, 1, 2, 255, choose.randrange(256)))
                new[choose.randrange(len(new))] = other
            yield bytes(new)
        yield data


@pytest.mark.parametrize("seed", range(12))
def test_records_that_differ_in_a_byte(
    seed: int, monkeypatch: pytest.MonkeyPatch, written: list[bytes]
) -> None:
    assert both(monkeypatch, list(changed(written, random.Random(seed)))) > 100


def test_a_loop_whose_attr_is_new_each_time_is_given_up(
    monkeypatch: pytest.MonkeyPatch, written: list[bytes]
) -> None:
    """Nothing is remembered of calls that never come again, and they are read alike."""
    update = next(data for data in reversed(written) if data[0] == 0 and data[40] == 2)
    attr = 136 + 16
    records = []
    for number in range(HOPELESS * 3):
        new = bytearray(update)
        new[attr + 8 : attr + 16] = number.to_bytes(8, "little")
        records.append(bytes(new))
    assert both(monkeypatch, records) == 0
    loops = RingLoops()
    one = Records(lambda item: None, lambda who: None, lambda pid: None, 0)
    one._loops = loops
    for data in records:
        one.record(memoryview(data), 0, len(data), len(data))
    (loop,) = loops._loops.values()
    assert not loop.models
