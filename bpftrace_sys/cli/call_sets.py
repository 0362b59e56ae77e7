"""Sets of system calls, as strace writes them: names, %classes, /patterns, all, none."""

from __future__ import annotations

from bpftrace_sys.cli.getopt_long import UsageError, words_of
from bpftrace_sys.cli.settings import NETLINK, TRACED
from bpftrace_sys.cli.suggest import meant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

KNOWN: Final = (*TRACED, NETLINK)
CLASSES: Final = {
    "desc": frozenset({"bpf", "perf_event_open", "ioctl", "openat"}),
    "file": frozenset({"openat"}),
    "net": frozenset({"setsockopt", NETLINK}),
    "network": frozenset({"setsockopt", NETLINK}),
}
"""strace's classes (strace 7.2, linux/64/syscallent.h), as far as the calls are followed here."""
OTHERS: Final = (
    "clock", "creds", "fstat", "fstatfs", "ipc", "lstat", "memory", "process", "pure", "signal",
    "stat", "%stat", "statfs", "%statfs",
)  # fmt: skip
"""Those of which none is."""
BARE: Final = frozenset({"desc", "file", "network", "memory", "process", "signal", "ipc"})
"""Classes that strace takes without the %."""


def call_set(flag: str, text: str) -> tuple[bool, frozenset[str]]:
    """Whether all others are meant (``!``), and the calls of KNOWN that ``text`` names.

    ``none`` and ``all`` are no calls, and all others than none. Raises UsageError.
    """
    names = text.lstrip("!")
    negated = (len(text) - len(names)) % 2 == 1
    if names == "none":
        return negated, frozenset()
    if names == "all":
        return not negated, frozenset()
    words = words_of(names)
    if not words:
        raise UsageError(f"{flag}: names no system call; take any of {', '.join(KNOWN)}")
    found: frozenset[str] = frozenset()
    for word in words:
        found |= _calls(flag, word)
    if not found:
        raise UsageError(f"{flag}: bpfstrace follows none of these: take any of {', '.join(KNOWN)}")
    return negated, found


def _calls(flag: str, word: str) -> frozenset[str]:
    name = word.lstrip("?")
    if "@" in name:
        raise UsageError(f"{flag}: {word!r}: calls are traced of all architectures, or not at all")
    if name.startswith("/"):
        return _matching(flag, name[1:])
    kind = name.removeprefix("%").lower()
    if name != kind or kind in BARE:
        if kind in CLASSES:
            return CLASSES[kind]
        if kind in OTHERS:
            return frozenset()
    if name == "all":
        return frozenset(KNOWN)
    if name in KNOWN:
        return frozenset({name})
    if name != word:
        return frozenset()
    raise UsageError(f"{flag}: {word!r} is none of {', '.join(KNOWN)}{meant(word, KNOWN)}")


def _matching(flag: str, pattern: str) -> frozenset[str]:
    import re

    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{flag}: /{pattern}: {error}") from None
    return frozenset(name for name in KNOWN if wanted.search(name))
