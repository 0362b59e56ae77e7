"""-e inject=: calls that fail on purpose, so that loaders' error paths can be tested.

``inject=bpf(prog_load,name=x):error=EPERM:when=2+``: which calls, what they
return instead of being executed, and which of them, counted for each thread.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bpftrace_sys.common import BpfstraceError
from decoders.records import dataclass, field

if TYPE_CHECKING:
    from decoders.walk.follow import Node

_SPEC: Final = re.compile(r"^(\w+)(?:\(([^)]*)\))?$")
_WHEN: Final = re.compile(r"(\d{1,5})(?:(\.\.)(\d{1,5}))?(?:\+(\d{0,5}))?", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?(?:0x[0-9a-f]+|[0-9]+)", re.ASCII | re.IGNORECASE)
MAX_ERRNO: Final = 4095
MAX_COUNT: Final = 0xFFFF
"""Of when=, as strace has it."""


TAMPERING: Final = {
    "signal": "no signals are sent",
    "syscall": "the call is never replaced by another; retval= alone keeps it from happening",
    "delay_enter": "calls are not delayed",
    "delay_exit": "calls are not delayed",
    "poke_enter": "memory is not changed",
    "poke_exit": "memory is not changed",
}
"""Of -e inject=...:KEY=."""


class InjectError(BpfstraceError, ValueError):
    """A rule that cannot be understood."""


@dataclass(slots=True)
class When:
    """Which of the calls: the first, the last (None: no end), and the step."""

    first: int = 1
    last: int | None = None
    step: int = 1

    def wants(self, count: int) -> bool:
        """Whether the ``count``-th call (from 1) is one of them."""
        if count < self.first or (self.last is not None and count > self.last):
            return False
        return (count - self.first) % self.step == 0


@dataclass(slots=True)
class Rule:
    """One -e inject=."""

    syscall: str
    commands: frozenset[int] | None
    """bpf commands; None: any."""
    name: str | None
    """A pattern for the name of the program or map that is loaded or made."""
    ret: int
    """What the call returns, signed: to fail, a negative errno."""
    when: When
    as_value: bool = False
    """It is meant as a value (retval=), whatever its sign."""
    counts: dict[int, int] = field(default_factory=dict)
    """By thread: how many calls matched so far."""

    def hit(self, tid: int, syscall: str, node: Node) -> bool:
        """Counts a call that is about to be executed; True: inject."""
        if syscall != self.syscall:
            return False
        if self.commands is not None and node.view["cmd"] & 0xFFFF not in self.commands:
            return False
        if self.name is not None and not fnmatch.fnmatchcase(_name(node), self.name):
            return False
        count = self.counts[tid] = self.counts.get(tid, 0) + 1
        return self.when.wants(count)


def _name(node: Node) -> str:
    """prog_name or map_name of a bpf(2) call."""
    from decoders.walk.follow import Node

    for found in node.found.values():
        if isinstance(found.inner, Node):
            index = found.inner.view.layout.index
            for key in ("prog_name", "map_name"):
                if key in index:
                    raw: bytes = found.inner.view.raws[index[key]]
                    return raw.partition(b"\0")[0].decode("utf-8", "backslashreplace")
    return ""


def when(text: str) -> When:
    """``2``, ``2+``, ``2+3``, ``2..5`` or ``2..5+2``, as strace counts. Raises InjectError."""
    match = _WHEN.fullmatch(text)
    if match is None:
        raise InjectError(f"when={text} is not FIRST[..LAST][+[STEP]]")
    first, step = int(match[1]), int(match[4] or 1)
    last = int(match[3]) if match[2] else first if match[4] is None else None
    if not 0 < first <= MAX_COUNT or not 0 < step <= MAX_COUNT:
        raise InjectError(f"when={text}: calls and steps are counted from 1 to {MAX_COUNT}")
    if match[2] and not first <= int(match[3]) < MAX_COUNT:
        raise InjectError(f"when={text} ends before it begins, or beyond {MAX_COUNT - 1}")
    return When(first, last, step)


def parse(text: str, commands: Callable[[tuple[str, ...]], frozenset[int]]) -> Rule:
    """A rule from what follows ``inject=``; InjectError says what is wrong with it."""
    what, *parts = text.split(":")
    match = _SPEC.match(what)
    if match is None:
        raise InjectError(f"{what!r} is not SYSCALL or SYSCALL(COMMANDS,name=NAME)")
    chosen: list[str] = []
    name = None
    for word in (match[2] or "").split(","):
        if word.startswith("name="):
            name = word.removeprefix("name=")
        elif word:
            chosen.append(word)
    if (chosen or name is not None) and match[1] != "bpf":
        raise InjectError("only bpf takes commands and name=")
    ret: int | None = None
    as_value = False
    which = When()
    for part in parts:
        key, _, value = part.partition("=")
        if not part:
            continue
        if key in ("error", "retval"):
            if ret is not None:
                raise InjectError("a call returns one thing: either error= or retval=, and once")
            ret = -_errno(value) if key == "error" else _retval(value)
            as_value = key == "retval" and ret < 0
        elif key == "when":
            which = when(value)
        elif key in TAMPERING:
            raise InjectError(f"{key}= is not supported: {TAMPERING[key]}")
        else:
            raise InjectError(f"{key!r} is none of error=, retval=, when=")
    if ret is None:
        raise InjectError("says neither error= nor retval=")
    picked = commands(tuple(chosen)) if chosen else None
    return Rule(match[1], picked, name, ret, which, as_value)


def _errno(text: str) -> int:
    number = getattr(errno, text.upper(), None) if text[:1] in ("E", "e") else None
    if number is None and text.isascii() and text.isdigit() and len(text) < 6:
        number = int(text)
    if not isinstance(number, int) or not 0 < number <= MAX_ERRNO:
        raise InjectError(f"error={text} is neither the name of an errno nor 1..{MAX_ERRNO}")
    return number


def _retval(text: str) -> int:
    """A register's worth, signed; as C writes numbers, so that 010 is eight."""
    if _NUMBER.fullmatch(text) and len(text) < 32:
        digits = text.lstrip("+-")
        octal = digits.startswith("0") and digits.isdigit()
        with contextlib.suppress(ValueError):  # 08
            number = int(digits, 8) if octal else int(digits, 0)
            if number < 1 << 64:
                number = -number if text.startswith("-") else number
                return (number + (1 << 63)) % (1 << 64) - (1 << 63)
    raise InjectError(f"retval={text} is not a number of 64 bits")
