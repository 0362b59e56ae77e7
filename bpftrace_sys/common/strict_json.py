"""JSON without what JSON does not have: no key twice, no NaN; compact when written."""

from __future__ import annotations

import json
from typing import Any


def dumps(line: Any) -> str:
    """One line of a trace, or a part of one, ASCII, without its newline."""
    return json.dumps(line, separators=(",", ":"))


def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; ValueError where a key stands twice (which of both would be meant?)."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:40]!r} stands twice in one object")
            seen.add(key)
    return found
