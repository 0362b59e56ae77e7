"""Faults of our own: each costs a call its meaning or an output its rest, never the program."""

from __future__ import annotations

from collections.abc import Callable

from bpftrace_sys.common.shortage import shortage

REPORTED = 8
"""Faults that are told as they come; then only their number, at the end."""


class Faults:
    """What went wrong in us. ``report`` is told; with ``debug`` tracebacks too."""

    def __init__(self) -> None:
        self.report: Callable[[str], None] | None = None
        self.debug = False
        self.fatal = False
        """For whom half an answer is none (diff, check): a fault is raised."""
        self.count = 0
        self._told: set[str] = set()

    def found(self, where: str, error: Exception, result: str) -> str:
        """Notes a fault; returns it in words. ``result``: what it costs."""
        if self.fatal:
            raise error
        self.count += 1
        words = f"{where}: {type(error).__name__}: {error}".rstrip(": ")
        if self.report is not None and words not in self._told and len(self._told) < REPORTED:
            self._told.add(words)
            lacking = shortage(error)
            if lacking is not None:
                self.report(f"{where}: {lacking}; {result}")
                return words
            hint = "" if self.debug else "; --debug shows where"
            self.report(f"a fault of bpfstrace's own: {words}; {result}{hint}")
            if self.debug:
                import traceback

                self.report("".join(traceback.format_exception(error)).rstrip("\n"))
        return words
