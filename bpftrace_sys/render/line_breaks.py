"""Long lines in several: broken between arguments, else between words, and never in a string.

Text may be painted: a style that is broken ends with its line and begins anew on the next, since
less -R forgets it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from bpftrace_sys.render.style import visible

RESET: Final = "\x1b[0m"
_STYLE: Final = "\x1b\\[[0-9;]*m"
_WORD: Final = r"""(?x)(?P<before>[ ]*)
    (?P<word>(?:"(?:[^"\\]|\\.)*"   # a string holds together
    |\|(?![A-Z\x1b])                # flags may be broken apart
    |[^ |]
    )+\|?|\|)"""


def filled(units: Iterable[str], width: int, hanging: str) -> str:
    """Units with blanks between them, in lines of a width.

    ``hanging`` stands before all lines but the first.  A unit that no line has room for is
    broken between its words; a word that is too long runs over.
    """
    lines: list[str] = []
    line = ""
    room = width - len(hanging)
    empty = True
    for unit in units:
        wide = visible(unit)
        if not empty and wide <= room and visible(line) + 1 + wide > width:
            lines.append(line)
            line, empty = hanging, True
        blank = "" if empty else " "
        if visible(line) + len(blank) + wide <= width:
            line, empty = f"{line}{blank}{unit}", False
            continue
        for before, word in _words(unit):
            before = blank or before
            blank = ""
            if not empty and visible(line) + len(before) + visible(word) > width:
                lines.append(line)
                line, empty, before = hanging, True, ""
            line, empty = f"{line}{before}{word}", False
    lines.append(line)
    if any("\x1b" in one for one in lines):
        lines = list(_styled(lines, hanging))
    return "\n".join(lines)


def _words(unit: str) -> Iterator[tuple[str, str]]:
    """Words, each with the blanks before it."""
    for found in re.finditer(_WORD, unit):
        yield found["before"], found["word"]


def _styled(lines: Iterable[str], hanging: str) -> Iterator[str]:
    style = ""
    for line in lines:
        if style:
            line = f"{hanging}{style}{line[len(hanging):]}"
        found = re.findall(_STYLE, line)
        style = found[-1] if found and found[-1] != RESET else ""
        yield line + RESET if style else line
