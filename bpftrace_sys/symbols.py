"""Functions of ELF files by file offset, for uprobes.

pyelftools reads the files; it is an optional extra (``bpfstrace[symbols]``), and
without it offsets stay numbers.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from typing import Any, Final, NamedTuple

SIZE_LIMIT: Final = 512 << 20
_SECTIONS: Final = (".symtab", ".dynsym")


class Function(NamedTuple):
    """A function's place in its file."""

    offset: int
    size: int
    name: str


def functions(path: str) -> list[Function]:
    """The functions of an ELF file, by file offset; empty where it cannot be read."""
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
    except ImportError:
        return []
    found: list[Function] = []
    trouble = contextlib.suppress(OSError, ELFError, ValueError)
    with trouble, open(path, "rb") as file:
        elf = ELFFile(file)
        loads = [
            (segment["p_vaddr"], segment["p_filesz"], segment["p_offset"])
            for segment in elf.iter_segments("PT_LOAD")
        ]
        for name in _SECTIONS:
            section = elf.get_section_by_name(name)
            if section is not None:
                found += _of_section(section, loads)
    found.sort(key=lambda function: (function.offset, -function.size, function.name))
    return found


def _of_section(section: Any, loads: list[tuple[int, int, int]]) -> list[Function]:
    found = []
    for symbol in section.iter_symbols():
        address = symbol["st_value"]
        if symbol["st_info"]["type"] not in ("STT_FUNC", "STT_GNU_IFUNC") or not address:
            continue
        for vaddr, size, offset in loads:
            if vaddr <= address < vaddr + size:
                found.append(Function(address - vaddr + offset, symbol["st_size"], symbol.name))
                break
    return found


class Symbols:
    """Remembers what files hold."""

    def __init__(self) -> None:
        self._files: dict[str, list[Function]] = {}

    def at(self, path: str, offset: int) -> str | None:
        """``readline`` or ``readline+0x10``; None where no function covers the offset."""
        known = self._files.get(path)
        if known is None:
            known = self._files[path] = functions(path)
        index = bisect_right(known, offset, key=lambda function: function.offset) - 1
        # Names of the same place stand together: the first of them is the longest.
        while index > 0 and known[index - 1].offset == known[index].offset:
            index -= 1
        if index < 0:
            return None
        found = known[index]
        distance = offset - found.offset
        if distance and distance >= found.size:
            return None
        return found.name + (f"+{distance:#x}" if distance else "")
