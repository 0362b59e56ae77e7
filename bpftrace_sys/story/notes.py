"""What is noted of calls and attachments: listings, attempts, probes, what programs are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from decoders.records import dataclass, field

if TYPE_CHECKING:
    from decoders.call import Call
    from decoders.formats.insn_text import Line


@dataclass(slots=True)
class Listing:
    """A program's listing: the lines, and what is said of the program as a whole."""

    lines: list[Line]
    count: int
    """Slots that the loader claimed."""
    sha1: str = ""
    """The tags, of instructions as they were loaded."""
    sha256: str = ""
    missing: int = 0
    """Slots that could not be read."""
    unread: int = 0
    """Slots, the last ones, that nobody tried to read."""
    why: str = ""
    """Why not."""
    unlisted: int = 0
    """Slots that were read, but have no lines: more than insn.LISTED."""
    helpers: list[int] = field(default_factory=list)
    functions: int = 0
    """How many functions begin in it, as far as BTF says."""


@dataclass(slots=True)
class Retry:
    """A load that is another attempt at one that had failed."""

    attempt: int
    """2, 3, ..."""
    first: int
    """The number (seq) of the first attempt."""
    after: int
    """The number of the attempt before this one."""
    errno: str
    """How that one failed: ``EINVAL``."""
    changed: dict[str, tuple[str, str]]
    """By field: what stood there, and what stands there now."""


@dataclass(slots=True)
class Probe:
    """A call that is a feature probe, or looks like one."""

    name: str
    """The feature."""
    by: str
    """Who sends such a call, as far as its shape tells."""
    verdict: Callable[[Call], bool | None]
    """Whether a call found its feature supported; None if it could not tell."""
    weak: bool
    """The call may as well be a program's own."""
    alone: bool
    part: bool
    within: str
    """As Found has them (verdicts.py)."""
    certain: bool
    """It is a probe, for all that is known so far; what follows may still show that a
    weak one is, or is none."""


@dataclass(frozen=True)
class Given:
    """What a program is given where it is attached."""

    what: str
    """``int do_sys_openat2(int dfd, ...)``, or the fields of a tracepoint."""
    reads: list[tuple[int, str]]
    """(pc, what is read or written there) of the program's instructions."""
