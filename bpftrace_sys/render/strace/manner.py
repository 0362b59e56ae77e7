"""How lines are to be: what strace's options say of them."""

from __future__ import annotations

from functools import cache
from typing import Final

from bpftrace_sys.render.strace.constants import Constants
from decoders.records import NamedTuple

RELEASES: Final = ("7.2",)
"""Releases of strace whose lines can be had to the byte."""


class Manner(NamedTuple):
    """How lines are to be."""

    release: str = ""
    """One of RELEASES; empty: as strace, with what we know besides."""
    column: int = 40
    """Where ``=`` and the result stand at the earliest (-a)."""
    string_limit: int = 32
    """The most bytes of a string, and without ``verbose`` the most elements of an array (-s)."""
    verbose: bool = False
    """Nothing abbreviated (-v)."""
    unabbreviated: frozenset[str] = frozenset()
    """Calls of which nothing is abbreviated (those not in -e abbrev=)."""
    raw: frozenset[str] = frozenset()
    """Calls whose arguments are numbers (-e raw=)."""
    undecoded: frozenset[str] = frozenset()
    """Calls whose structures are addresses (those not in -e verbose=)."""
    constants: str = "abbrev"
    """One of constants.STYLES (-X)."""
    arguments: bool = False
    """Arguments have names (-N)."""
    fds: frozenset[str] = frozenset()
    """What is said of fds (-y: path; -yy: path, dev, ...)."""
    frames: int | None = None
    """The most frames of a stack (--stack-trace-frame-limit)."""
    pids: str = ""
    """``all`` where each line says whose it is, ``none`` where none does; else as soon as there
    are several threads."""

    @property
    def names(self) -> Constants:
        """How numbers with names are printed."""
        return _constants(self.constants, bool(self.release))


_constants = cache(Constants)
PLAIN: Final = Manner()
"""Without any of these options."""
