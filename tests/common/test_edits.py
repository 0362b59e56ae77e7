"""Edit scripts: they make the one of the other, and are as short as can be."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftrace_sys.common import edits as module
from bpftrace_sys.common.edits import Edit, edits, hunks

WORDS = st.lists(st.sampled_from("abcd"), max_size=14)


def common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, by the book."""
    row = [0] * (len(b) + 1)
    for x in a:
        new = [0]
        for at, y in enumerate(b):
            new.append(row[at] + 1 if x == y else max(row[at + 1], new[-1]))
        row = new
    return row[-1]


def check(a: list[str], b: list[str]) -> int:
    """A script of all of both, in order; how much it keeps."""
    script = edits(a, b)
    assert [edit.a for edit in script if edit.a is not None] == list(range(len(a)))
    assert [edit.b for edit in script if edit.b is not None] == list(range(len(b)))
    kept = [edit for edit in script if edit.a is not None and edit.b is not None]
    assert all(a[edit.a] == b[edit.b] for edit in kept if edit.a is not None and edit.b is not None)
    return len(kept)


@given(WORDS, WORDS)
def test_the_script_is_right_and_shortest(a: list[str], b: list[str]) -> None:
    assert check(a, b) == common(a, b)


@pytest.mark.parametrize("limit", [0, 3])
def test_beyond_the_limit_it_is_still_right(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EDITS", limit)
    chance = random.Random(7)
    for _ in range(100):
        check(chance.choices("abcd", k=30), chance.choices("abcd", k=30))
    monkeypatch.setattr(module, "LONG", 10)
    check(chance.choices("abcd", k=30), chance.choices("abcd", k=30))


def test_what_repeats_does_not_take_for_ever() -> None:
    a = ["(b7) r0 = 0"] * 20_000
    b = ["(b7) r0 = 0"] * 19_000 + ["(95) exit"]
    start = time.process_time()
    check(a, b)
    check(a, list(reversed(b)))
    check([str(at % 50) for at in range(10_000)], [str(at % 49) for at in range(10_000)])
    assert time.process_time() - start < 30


def test_hunks_have_what_is_around_them() -> None:
    a = list("0123456789")
    b = list("01X345678Y")
    found = list(hunks(edits(a, b), 1))
    assert [len(hunk) for hunk in found] == [4, 3]
    assert found[0][0] == Edit(1, 1)
    assert list(hunks(edits(a, a), 3)) == []
