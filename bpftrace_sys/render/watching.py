"""What is told of a watch over the machine besides calls: who asks, and what was lost."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.common.escape import printable
from decoders.events import Exec, Lost, Who

WORDS: Final = 12
"""Of a command line, the words that are shown."""
SHORT: Final = 60
"""Characters of one of them."""
CONTAINER: Final = 12
"""Of a container's id, what its tools show."""


def who_line(who: Who) -> str:
    """``is /usr/sbin/bpftool prog list (uid 0, child of 77, container 0123)``."""
    line = _command(who.exe, who.argv, "?" if who.comm is None else who.comm)
    more = [f"uid {who.uid}", f"child of {who.parent}"]
    if who.container is not None:
        more.append(f"container {who.container[:CONTAINER]}")
    elif who.cgroup not in (None, "/"):
        more.append(f"cgroup {who.cgroup}")
    return printable(f"is {line} ({', '.join(more)})")


def exec_line(what: Exec) -> str | None:
    """``runs /usr/sbin/bpftool prog list (uid 0, cgroup /x)``; None where nothing is known."""
    if not what.path and not what.argv:
        return None
    more = [] if what.uid is None else [f"uid {what.uid}"]
    if what.cgroup not in (None, "/"):
        more.append(f"cgroup {what.cgroup}")
    line = f"runs {_command(what.path or None, what.argv, '')}"
    return printable(f"{line} ({', '.join(more)})" if more else line)


def _command(path: str | None, argv: tuple[str, ...] | None, otherwise: str) -> str:
    """A command line, as far as it is known: the program's file, and its arguments."""

    import shlex

    words = list(argv or ())
    shown = (words if path is None else [path, *words[1:]]) or [otherwise]
    line = " ".join(shlex.quote(_short(word)) for word in shown[:WORDS])
    return f"{line} ..." if len(shown) > WORDS else line


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
