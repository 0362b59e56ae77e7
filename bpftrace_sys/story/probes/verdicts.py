"""What a probe asks for, and what the kernel's answer says of it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from decoders.call import Call, inner_value
from decoders.records import NamedTuple
from decoders.values import Text, Value

ENOTSUPP: Final = 524
"""The kernel's own, which errno(3) does not know."""

Verdict = Callable[[Call], "bool | None"]


ANY_FD: Final = -1
"""An fd that nobody has."""
NOBODY: Final = 0xFFFFFFFF
"""-1 in an unsigned field: a pid that nobody has, an ifindex that no device has."""


def name_of(value: Value | None) -> str:
    """The name of an enum's value; empty where it has none."""
    return getattr(inner_value(value), "name", None) or ""


def string_of(value: Value | None) -> str:
    """A string; empty where there is none."""
    found = inner_value(value)
    return found.data.decode("utf-8", "replace") if isinstance(found, Text) else ""


def _says_nothing(call: Call) -> bool:
    """No answer, a refusal for want of privilege, or a call to be made again (a signal came)."""
    return call.raw.ret in (None, -errno.EPERM, -errno.EAGAIN)


def succeeded(call: Call) -> bool | None:
    """Supported if the call succeeds."""
    return None if _says_nothing(call) else not call.raw.failed


def fails_with(*numbers: int) -> Verdict:
    """Supported if the call fails with one of these, or not at all."""

    def verdict(call: Call) -> bool | None:
        ret = call.raw.ret
        if ret is None or _says_nothing(call):
            return None
        return not call.raw.failed or -ret in numbers

    return verdict


def log_of(call: Call) -> str:
    """The verifier's log of a PROG_LOAD."""
    return string_of(call.attr("attr", "log_buf"))


_UNKNOWN_HELPER: Final = (
    "invalid func ",
    "unknown func ",
    "program of this type cannot use helper ",
)


def knows_helper(call: Call) -> bool | None:
    """Supported unless the verifier says that it does not know the helper."""
    if succeeded(call):
        return True
    log = log_of(call)
    if _says_nothing(call) or not log:
        return None
    return not any(phrase in log for phrase in _UNKNOWN_HELPER)


def log_says(*phrases: str) -> Verdict:
    """Supported if the load fails and the log holds one of these."""

    def verdict(call: Call) -> bool | None:
        if _says_nothing(call):
            return None
        log = log_of(call)
        return any(phrase in log for phrase in phrases)

    return verdict


def knows_command(call: Call) -> bool | None:
    """Supported unless there is no such system call."""
    return None if call.raw.ret is None else call.raw.ret != -errno.ENOSYS


class Found(NamedTuple):
    """A call that has the shape of a probe."""

    name: str
    by: str
    """Who sends it, as far as its shape tells."""
    verdict: Verdict = succeeded
    weak: bool = False
    """It may as well be a program's own, unless it is closed unused or there is company."""
    alone: bool = False
    """A weak one that nobody would load for its own sake: it needs no company."""
    part: bool = False
    """A weak one on which others rest: the first of them that is no part decides."""
    within: str = ""
    """Of a helper, the program type in which it was tried."""
