"""What is told of a watch over the machine besides calls: who asks, and what was lost."""

from __future__ import annotations

import shlex
from typing import Final

from bpftrace_sys.common.escape import printable
from decoders.events import Lost, Who

WORDS: Final = 12
"""Of a command line, the words that are shown."""
SHORT: Final = 60
"""Characters of one of them."""
CONTAINER: Final = 12
"""Of a container's id, what its tools show."""


def who_line(who: Who) -> str:
    """``is /usr/sbin/bpftool prog list (root's, started by 77, in cgroup /x, container 0123)``."""
    words = list(who.argv or ())
    shown = words if who.exe is None else [who.exe, *words[1:]]
    if not shown:
        shown = ["?" if who.comm is None else who.comm]
    line = " ".join(shlex.quote(_short(word)) for word in shown[:WORDS])
    if len(shown) > WORDS:
        line += " ..."
    more = [f"uid {who.uid}", f"child of {who.parent}"]
    if who.container is not None:
        more.append(f"container {who.container[:CONTAINER]}")
    elif who.cgroup not in (None, "/"):
        more.append(f"cgroup {who.cgroup}")
    return printable(f"is {line} ({', '.join(more)})")


def _short(word: str) -> str:
    return word if len(word) <= SHORT else word[: SHORT - 3] + "..."


def lost_line(lost: Lost) -> str:
    """``--- lost: 3 calls, as the ring was full ---``"""
    return f"--- lost: {lost_words(lost)}, as the ring was full ---"


def lost_words(lost: Lost) -> str:
    """``3 calls, 1 piece of memory``."""
    counted = [
        (lost.calls, "call", ""),
        (lost.pieces, "piece", " of memory"),
        (lost.events, "event", " of a process"),
    ]
    words = [
        f"{number} {one}{'' if number == 1 else 's'}{rest}"
        for number, one, rest in counted
        if number
    ]
    return ", ".join(words) or "nothing"
