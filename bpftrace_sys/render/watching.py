"""What is told of a watch over the machine besides calls: who asks, and what was lost."""

from __future__ import annotations

import shlex
from typing import Any, Final

from bpftrace_sys.common.escape import printable
from decoders.events import ProcessEvent

WORDS: Final = 12
"""Of a command line, the words that are shown."""
SHORT: Final = 60
"""Characters of one of them."""
CONTAINER: Final = 12
"""Of a container's id, what its tools show."""
KINDS: Final = {"calls": "call", "pieces": "piece of memory", "events": "event of a process"}


def who_line(event: ProcessEvent) -> str:
    """``is /usr/sbin/bpftool prog list (root's, started by 77, in cgroup /x, container 0123)``."""
    details = event.details
    argv = details.get("argv")
    words = [str(word) for word in argv] if isinstance(argv, list) else []
    exe = details.get("exe")
    shown = [str(exe), *words[1:]] if isinstance(exe, str) else words
    if not shown:
        shown = [str(details.get("comm", "?"))]
    line = " ".join(shlex.quote(_short(word)) for word in shown[:WORDS])
    if len(shown) > WORDS:
        line += " ..."
    more = [f"uid {details.get('uid')}", f"child of {details.get('parent')}"]
    if isinstance(details.get("container"), str):
        more.append(f"container {details['container'][:CONTAINER]}")
    elif isinstance(details.get("cgroup"), str) and details["cgroup"] != "/":
        more.append(f"cgroup {details['cgroup']}")
    return printable(f"is {line} ({', '.join(more)})")


def _short(word: str) -> str:
    return word if len(word) <= SHORT else word[: SHORT - 3] + "..."


def lost_line(event: ProcessEvent) -> str:
    """``--- lost: 3 calls, as the ring was full ---``"""
    return f"--- lost: {lost_words(event.details)}, as the ring was full ---"


def lost_words(details: dict[str, Any]) -> str:
    """``3 calls, 1 piece of memory``."""
    words = []
    for name, one in KINDS.items():
        number = details.get(name)
        if isinstance(number, int) and number:
            head, _, tail = one.partition(" ")
            plural = "" if number == 1 else "s"
            words.append(f"{number} {head}{plural}{' ' if tail else ''}{tail}")
    return ", ".join(words) or "nothing"
