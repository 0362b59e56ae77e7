"""The line of source that stands above the instructions made of it."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.common.escape import printable

LINE_0: Final = "line 0"
"""Said of what stands below a line that it is not made of."""


class Sources:
    """Goes through a listing; a line that stands above the instructions before is not repeated.

    What the compiler made by itself has no line: its record says line 0, without a text. It is
    ``stray``, from that record to the next. Where BTF has a line's number and not its text, that
    is shown.
    """

    def __init__(self) -> None:
        self._last = ""
        self.stray = False

    def above(self, source: str | None, place: str | None) -> str:
        """``; int x = ctx->a;``, or nothing. Both None where there is no record; ``place``: its
        file, line and column."""
        if source is None:
            return ""
        header = f"; {printable(source)}" if source else _numbered(place or "")
        self.stray = not header and bool(self._last)
        if not header or header == self._last:
            return ""
        self._last = header
        return header


def _numbered(place: str) -> str:
    file, _, line = place.rpartition(":")[0].rpartition(":")
    return f"; {printable(file)}:{line}" if file and line != "0" else ""
