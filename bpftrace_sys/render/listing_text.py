"""A listing as text, and which listings were shown before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from bpftrace_sys.render.source_line import LINE_0, Sources
from bpftrace_sys.render.style import Painter
from bpftrace_sys.render.text_options import Options
from bpftrace_sys.story.notes import Listing
from bpftrace_sys.story.objects import NotedCall, Prog
from bpftrace_sys.story.targets import printable

if TYPE_CHECKING:
    from bpftrace_sys.render.insn_paint import InsnPainter

OF_FD: Final = "map fd "
"""Begins what is said of an ld_imm64 that names a map by its fd."""
LISTINGS: Final = 8_192
"""Programs of which is known that their listing was shown."""


class ListingText:
    """Makes lines of listings."""

    def __init__(self, options: Options, paint: Painter) -> None:
        self.options = options
        self.paint = paint
        self._insn: InsnPainter | None = None
        if options.tokens:
            from bpftrace_sys.render.insn_paint import InsnPainter

            self._insn = InsnPainter(paint)
        self._listed: dict[str, tuple[str, int, int, int | None]] = {}
        """By tag: whose listing was shown, its digests with and without fds, in which call."""

    def shown_before(self, call: NotedCall, found: Listing) -> str | None:
        """The program whose listing, already shown, is this one, whatever the fds of its maps are;
        else this one is from now on."""
        made = call.notes.made
        if not isinstance(made, Prog) or not made.tag or found.missing or found.unread:
            return None
        # Programs of one tag may differ in the maps that they name.
        digest = fewer = 0
        for line in found.lines:
            text, said = line.text, line.comment
            digest = hash((digest, text, said))
            if said is not None and said.startswith(OF_FD):
                text, said = text.rpartition("=")[0], said[len(OF_FD) :].lstrip("0123456789")
            fewer = hash((fewer, text, said))
        label, known, known_fewer, seq = self._listed.get(made.tag, ("", 0, 0, None))
        if seq is not None and seq != call.raw.seq and known_fewer == fewer:
            return label if known == digest else f"{label}, its maps by other fds"
        if len(self._listed) < LISTINGS:
            self._listed[made.tag] = (made.label, digest, fewer, call.raw.seq)
        return None

    def lines(self, found: Listing, indent: str) -> Iterator[str]:
        """Functions, source lines, instructions with comments in one column."""
        sources = Sources()
        width = max(2, len(str(found.count - 1)))
        column = min(42, max(24, self.options.width - len(indent) - 20))
        several = found.functions > 1
        for pc, text, said, target, source, place, function in found.lines:
            if function is not None and (several or self.options.verbose):
                yield indent + self.paint("function", printable(function) + ":")
            header = "" if source is None else sources.above(source, place)
            if header:
                where = ""
                if self.options.verbose and place:
                    where = self.paint("comment", f"   ({printable(place)})")
                yield indent + self.paint("source", header) + where
            if sources.stray:
                said = LINE_0 if said is None else f"{said}, {LINE_0}"
            mark = ">" if target is not None and pc else " "
            head = f"{mark}{str(pc).rjust(width)}: "
            # rjust() takes a third of the time of a format with a width in it.
            shown = text if text.isprintable() else printable(text)
            painted = shown if self._insn is None else self._insn(shown)
            if said is None:
                yield f"{indent}{head}{painted}"
            else:
                comment = self.paint("comment", f" /* {printable(said)} */")
                gap = " " * (column - len(head) - len(shown))
                yield f"{indent}{head}{painted}{gap}{comment}"
        if found.unlisted:
            text = f"{found.unlisted} more instruction{_s(found.unlisted)} not listed"
            yield indent + self.paint("comment", text)
        if found.missing:
            yield indent + self.paint("error", f"{found.missing} more instructions unreadable")
        if found.unread:
            text = f"{found.unread} more instruction{_s(found.unread)} not read: {found.why}"
            yield indent + self.paint("comment", text)


def _s(number: int) -> str:
    return "" if number == 1 else "s"
