"""Lines of a trace, spoiled: values that lie, that are something else, or that are gone."""

from __future__ import annotations

import base64
import contextlib
import random
from collections.abc import Iterator
from typing import Any

HOSTILE = ["\x1b]0;owned\x07", "[red]x[/red]", "\x9b31m", "\u202eabc", "a\nb\rc", "\ud800",
           "x" * 5000, "", "0x10", "-1", "BPF_PROG_LOAD"]  # fmt: skip
NUMBERS = [0, -1, 1, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**30, 5, 17, 255, 65535, 1 << 20]
OTHERS: list[Any] = [None, True, 1.5, float("inf"), [], {}, [[]], {"a": 1}, [1, 2, 3]]


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value can be changed; what a reader does not read back is left out."""
    if isinstance(value, dict):
        for key, member in value.items():
            if path or key not in ("args", "fds", "fd", "tag"):
                yield (*path, key)
                yield from paths(member, (*path, key))
    elif isinstance(value, list):
        for at, member in enumerate(value):
            yield (*path, at)
            yield from paths(member, (*path, at))


def spoil(line: dict[str, Any], source: random.Random) -> None:
    """Changes one thing in a line: deletes it, puts something else there, or flips bytes."""
    *path, last = source.choice(list(paths(line)))
    place: Any = line
    for key in path:
        place = place[key]
    old = place[last]
    if isinstance(old, str) and path[:1] == ["raw"] and len(path) > 2 and source.random() < 0.7:
        with contextlib.suppress(ValueError):
            data = bytearray(base64.b64decode(old, validate=True))
            for _ in range(min(len(data), 3)):
                data[source.randrange(len(data))] = source.choice([0, 1, 0x1B, 0x7F, 0x80, 0xFF])
            place[last] = base64.b64encode(data).decode()
            return
    if source.random() < 0.1:
        del place[last]
    else:
        place[last] = source.choice([source.choice(part) for part in (HOSTILE, NUMBERS, OTHERS)])
