"""Call frame information: how to get from a function's registers to its caller's.

DWARF 5, section 6.4 (.debug_frame), and for .eh_frame and .eh_frame_hdr the Linux
Standard Base Core 5.0, sections 10.6 and 10.7.  Only the entry that covers an
address is parsed, as the search table of .eh_frame_hdr names it; where there is no
table, the heads of all entries are gone through once.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable
from typing import Final

from bpftrace_sys.record.stacks.elf_image import PT_GNU_EH_FRAME, ElfError, Image
from bpftrace_sys.record.stacks.reading import CfiError, Cursor
from decoders.records import NamedTuple

ENTRY_LIMIT: Final = 1 << 20
"""Bytes of an entry."""
ENTRIES: Final = 1 << 18
"""Entries of a section without a search table."""
STEPS: Final = 1 << 14
"""Instructions of an entry."""
REGISTERS: Final = 128
"""DWARF numbers of registers; no machine of ours has more."""
REMEMBERED: Final = 64
"""States that an entry may remember at once."""
TABLE_LIMIT: Final = 64 << 20
ENTRY_USUAL: Final = 256
"""Most entries are smaller."""

# Pointer encodings (DW_EH_PE_*): the form in the low four bits, what it counts from above.
PE_OMIT: Final = 0xFF
PE_ABSPTR: Final = 0x00
PE_PCREL: Final = 0x10
PE_DATAREL: Final = 0x30
PE_SDATA4_DATAREL: Final = 0x3B
_SIZES: Final = {
    0x00: (0, False),
    0x02: (2, False),
    0x03: (4, False),
    0x04: (8, False),
    0x08: (0, True),
    0x0A: (2, True),
    0x0B: (4, True),
    0x0C: (8, True),
}
_ULEB: Final = 0x01
_SLEB: Final = 0x09

# Rules for a register: what its caller had in it.
UNDEFINED: Final = "undefined"
SAME: Final = "same"
AT_CFA: Final = "at cfa"
IS_CFA: Final = "is cfa"
REGISTER: Final = "register"
AT_EXPRESSION: Final = "at expression"
IS_EXPRESSION: Final = "is expression"

Rule = tuple[str, int | bytes]


class Row(NamedTuple):
    """What holds at an address."""

    cfa: tuple[int, int] | bytes
    """Register and offset, or an expression: where the frame begins, for the CFA."""
    rules: dict[int, Rule]
    """By DWARF number; a register that is not there keeps its value."""
    ra: int
    """The register whose rule gives the return address."""
    signal: bool
    """A signal handler's frame: the caller was interrupted, it did not call."""


class _Cie(NamedTuple):
    code_align: int
    data_align: int
    ra: int
    encoding: int
    augmented: bool
    signal: bool
    instructions: bytes


class _Fde(NamedTuple):
    begin: int
    end: int
    cie: _Cie
    instructions: bytes


class CallFrames:
    """The call frame information of a file.

    .eh_frame first, then .debug_frame, of the file or of its separate debug file.
    """

    def __init__(self, image: Image, debug: Image | None = None) -> None:
        self._image = image
        self._debug = debug
        self._sections: list[_Section] | None = None

    def row(self, vaddr: int) -> Row | None:
        """The row for an address; None where there is none.  Raises CfiError and ElfError."""
        if self._sections is None:
            self._sections = self._find_sections()
        for section in self._sections:
            fde = section.find(vaddr)
            if fde is not None:
                return _run(fde, vaddr, section)
        return None

    def _find_sections(self) -> list[_Section]:
        found: list[_Section] = []
        image = self._image
        header = next((s for s in image.segments if s.type == PT_GNU_EH_FRAME), None)
        table = None if header is None else _search_table(image, header.vaddr, header.filesz)
        if table is not None:
            found.append(table)
        else:
            found += _listed(image, b".eh_frame", eh=True)
        for each in (image, self._debug):
            if each is not None:
                found += _listed(each, b".debug_frame", eh=False)
        return found


class _Section:
    """Entries, found by address.  ``read``: bytes at an address; ``eh``: as in .eh_frame."""

    def __init__(self, read: Callable[[int, int], bytes], word: int, eh: bool, base: int) -> None:
        self.read = read
        self.word = word
        self.eh = eh
        self.base = base
        """Where the section begins, from which .debug_frame counts."""
        self.data_base = 0
        """What DW_EH_PE_datarel counts from."""
        self._cies: dict[int, _Cie] = {}

    def find(self, vaddr: int) -> _Fde | None:
        """The entry that covers an address."""
        at = self.place(vaddr)
        if at is None:
            return None
        fde = self.fde(at)
        return fde if fde is not None and fde.begin <= vaddr < fde.end else None

    def place(self, vaddr: int) -> int | None:
        """Where the entry for an address would be."""
        raise NotImplementedError

    def _entry(self, at: int) -> tuple[Cursor, int]:
        """An entry behind its length, and where its id stands."""
        head = self.read(at, ENTRY_USUAL)
        cursor = Cursor(head)
        size = cursor.u(4)
        if size == 0xFFFFFFFF:
            size = cursor.u(8)
        if not 4 <= size <= ENTRY_LIMIT:
            raise CfiError("an entry of an impossible size")
        end = cursor.pos + size
        if end > len(head):
            head = self.read(at, end)
        return Cursor(head, cursor.pos, end), cursor.pos

    def fde(self, at: int) -> _Fde | None:
        """The entry at an address; None if it is a CIE."""
        cursor, id_at = self._entry(at)
        wide = 8 if id_at > 4 else 4
        number = cursor.u(4 if self.eh else wide)
        if number == (0 if self.eh else (1 << 8 * wide) - 1):
            return None
        cie = self._cie(at + id_at - number if self.eh else self.base + number)
        begin = self._pointer(cursor, cie.encoding, at)
        size = self._pointer(cursor, cie.encoding & 0x0F, at)
        if cie.augmented:
            cursor.take(cursor.uleb())
        return _Fde(begin, begin + size, cie, cursor.take(cursor.end - cursor.pos))

    def _cie(self, at: int) -> _Cie:
        known = self._cies.get(at)
        if known is not None:
            return known
        cursor, id_at = self._entry(at)
        wide = 8 if id_at > 4 else 4
        if cursor.u(4 if self.eh else wide) != (0 if self.eh else (1 << 8 * wide) - 1):
            raise CfiError("an entry whose CIE is none")
        version = cursor.u(1)
        if version not in (1, 3, 4):
            raise CfiError(f"version {version} of call frame information")
        augmentation = cursor.string()
        if version == 4:
            cursor.take(2)  # sizes of an address and of a segment selector
        code_align = cursor.uleb()
        data_align = cursor.sleb()
        ra = cursor.u(1) if version == 1 else cursor.uleb()
        encoding, signal = PE_ABSPTR, False
        if augmentation.startswith(b"z"):
            after = cursor.uleb()
            after += cursor.pos
            for letter in augmentation[1:]:
                if letter == ord("R"):
                    encoding = cursor.u(1)
                elif letter == ord("P"):
                    self._pointer(cursor, cursor.u(1) & 0x7F, at)
                elif letter == ord("L"):
                    cursor.u(1)
                elif letter == ord("S"):
                    signal = True
                elif letter not in b"BG":  # of aarch64: which key signs; memory is tagged
                    break
            cursor.pos = after
        elif augmentation:
            raise CfiError(f"augmentation {augmentation!r}")
        made = _Cie(
            code_align, data_align, ra, encoding, augmentation.startswith(b"z"), signal,
            cursor.take(cursor.end - cursor.pos),
        )  # fmt: skip
        if len(self._cies) < ENTRIES:
            self._cies[at] = made
        return made

    def _pointer(self, cursor: Cursor, encoding: int, at: int) -> int:
        """A pointer of an entry that begins at ``at``."""
        return _pointer(cursor, encoding, self.word, at, self.data_base)


def _pointer(cursor: Cursor, encoding: int, word: int, at: int, data_base: int) -> int:
    if encoding == PE_OMIT:
        return 0
    place = at + cursor.pos
    form, base = encoding & 0x0F, encoding & 0xF0
    if form == _ULEB:
        value = cursor.uleb()
    elif form == _SLEB:
        value = cursor.sleb()
    else:
        if form not in _SIZES:
            raise CfiError(f"pointer encoding {encoding:#x}")
        size, signed = _SIZES[form]
        value = cursor.s(size or word) if signed else cursor.u(size or word)
    if base == PE_PCREL:
        value += place
    elif base == PE_DATAREL:
        value += data_base
    elif base:
        raise CfiError(f"pointer encoding {encoding:#x}")
    return value & (1 << 8 * word) - 1


# ------------------------------------------------------------------ finding entries


class _Searched(_Section):
    """.eh_frame with the search table of .eh_frame_hdr: pairs of address and entry."""

    PAIR: Final = struct.Struct("<ii")

    def __init__(self, image: Image, header: int, table: bytes) -> None:
        super().__init__(image.at_vaddr, image.word, True, 0)
        self.data_base = header
        self._mask = (1 << 8 * image.word) - 1
        self._table = table

    def place(self, vaddr: int) -> int | None:
        low, high = 0, len(self._table) // 8
        while low < high:
            middle = (low + high) // 2
            begin = self.PAIR.unpack_from(self._table, 8 * middle)[0] + self.data_base
            if begin & self._mask <= vaddr:
                low = middle + 1
            else:
                high = middle
        if not low:
            return None
        found: int = self.PAIR.unpack_from(self._table, 8 * (low - 1))[1]
        return found + self.data_base & self._mask


def _search_table(image: Image, header: int, size: int) -> _Searched | None:
    """The search table at an address; None where there is none that we know."""
    try:
        cursor = Cursor(image.at_vaddr(header, min(size, TABLE_LIMIT)))
        version, frame, count, table = cursor.take(4)
        if version != 1 or table != PE_SDATA4_DATAREL or count == PE_OMIT:
            return None
        _pointer(cursor, frame, image.word, header, header)
        pairs = _pointer(cursor, count, image.word, header, header)
        size = min(8 * pairs, cursor.end - cursor.pos) & -8
        return _Searched(image, header, cursor.take(size)) if pairs else None
    except CfiError:
        return None


class _Listed(_Section):
    """A section that was gone through once: the addresses of all its entries."""

    def __init__(self, data: bytes, base: int, word: int, eh: bool) -> None:
        super().__init__(self._bytes, word, eh, base)
        self._data = data
        places: list[tuple[int, int]] = []
        at = base
        for _ in range(ENTRIES):
            if at + 4 > base + len(data):
                break
            size = int.from_bytes(data[at - base : at - base + 4], "little")
            head = 4
            if size == 0xFFFFFFFF:
                size = int.from_bytes(data[at - base + 4 : at - base + 12], "little")
                head = 12
            elif not size:
                break  # the terminator of .eh_frame
            try:
                fde = self.fde(at)
            except CfiError:
                fde = None
            if fde is not None and fde.begin < fde.end:
                places.append((fde.begin, at))
            at += head + size
        places.sort()
        self._begins = [begin for begin, _ in places]
        self._places = [place for _, place in places]

    def _bytes(self, at: int, size: int) -> bytes:
        begin = at - self.base
        return self._data[begin : begin + size] if begin >= 0 else b""

    def place(self, vaddr: int) -> int | None:
        index = bisect_right(self._begins, vaddr) - 1
        return None if index < 0 else self._places[index]


def _listed(image: Image, name: bytes, eh: bool) -> list[_Section]:
    found = image.section(name)
    if found is None:
        return []
    try:
        return [_Listed(image.content(found), found.addr, image.word, eh)]
    except ElfError:
        return []


# ------------------------------------------------------------------ what an entry says

# By the two high bits: DW_CFA_advance_loc, _offset, _restore; else by the whole byte.
CFA_ADVANCE_LOC: Final = 1
CFA_OFFSET: Final = 2
CFA_RESTORE: Final = 3
CFA_NOP: Final = 0x00
CFA_SET_LOC: Final = 0x01
CFA_ADVANCE_LOC_N: Final = {0x02: 1, 0x03: 2, 0x04: 4}
"""Bytes of the distance."""
CFA_RESTORE_EXTENDED: Final = 0x06
CFA_REMEMBER_STATE: Final = 0x0A
CFA_RESTORE_STATE: Final = 0x0B
CFA_DEF_CFA: Final = 0x0C
CFA_DEF_CFA_REGISTER: Final = 0x0D
CFA_DEF_CFA_OFFSET: Final = 0x0E
CFA_DEF_CFA_EXPRESSION: Final = 0x0F
CFA_DEF_CFA_SF: Final = 0x12
CFA_DEF_CFA_OFFSET_SF: Final = 0x13
CFA_AARCH64_NEGATE_RA_STATE: Final = 0x2D
CFA_GNU_ARGS_SIZE: Final = 0x2E

_Operand = Callable[[Cursor, int], int | bytes]
CFA_RULES: Final[dict[int, tuple[str, _Operand]]] = {
    0x05: (AT_CFA, lambda at, align: at.uleb() * align),  # DW_CFA_offset_extended
    0x07: (UNDEFINED, lambda at, align: 0),
    0x08: (SAME, lambda at, align: 0),
    0x09: (REGISTER, lambda at, align: at.uleb()),
    0x10: (AT_EXPRESSION, lambda at, align: at.take(at.uleb())),
    0x11: (AT_CFA, lambda at, align: at.sleb() * align),  # DW_CFA_offset_extended_sf
    0x14: (IS_CFA, lambda at, align: at.uleb() * align),
    0x15: (IS_CFA, lambda at, align: at.sleb() * align),
    0x16: (IS_EXPRESSION, lambda at, align: at.take(at.uleb())),
    0x2F: (AT_CFA, lambda at, align: -at.uleb() * align),  # DW_CFA_GNU_negative_offset_extended
}
"""Instructions that take a register, and what follows makes its rule."""


class _State:
    """The rules while instructions are gone through."""

    def __init__(self, fde: _Fde, section: _Section) -> None:
        self.cfa: tuple[int, int] | bytes | None = None
        self.rules: dict[int, Rule] = {}
        self.initial: dict[int, Rule] = {}
        self.location = fde.begin
        self._remembered: list[tuple[tuple[int, int] | bytes | None, dict[int, Rule]]] = []
        self._cie = fde.cie
        self._section = section

    def run(self, code: bytes, target: int) -> None:
        """Goes through instructions as far as they concern an address."""
        cie = self._cie
        at = Cursor(code)
        for _ in range(STEPS):
            if at.pos >= at.end or self.location > target:
                return
            op = at.u(1)
            high, low = op >> 6, op & 0x3F
            if high == CFA_ADVANCE_LOC:
                self.location += low * cie.code_align
            elif high == CFA_OFFSET:
                self.rules[low] = (AT_CFA, at.uleb() * cie.data_align)
            elif high == CFA_RESTORE:
                self._restore(low)
            elif op in CFA_ADVANCE_LOC_N:
                self.location += at.u(CFA_ADVANCE_LOC_N[op]) * cie.code_align
            else:
                self._other(op, at)
        raise CfiError("an entry of too many instructions")

    def _restore(self, register: int) -> None:
        if register in self.initial:
            self.rules[register] = self.initial[register]
        else:
            self.rules.pop(register, None)

    def _offset_of(self, offset: int) -> None:
        if not isinstance(self.cfa, tuple):
            raise CfiError("an offset without a register")
        self.cfa = (self.cfa[0], offset)

    def _other(self, op: int, at: Cursor) -> None:
        align = self._cie.data_align
        if op in CFA_RULES:
            register = at.uleb()
            kind, operand = CFA_RULES[op]
            rule = operand(at, align)
            if register < REGISTERS:
                self.rules[register] = (kind, rule)
        elif op == CFA_DEF_CFA:
            self.cfa = (at.uleb(), at.uleb())
        elif op == CFA_DEF_CFA_SF:
            self.cfa = (at.uleb(), at.sleb() * align)
        elif op == CFA_DEF_CFA_OFFSET:
            self._offset_of(at.uleb())
        elif op == CFA_DEF_CFA_OFFSET_SF:
            self._offset_of(at.sleb() * align)
        elif op == CFA_DEF_CFA_REGISTER:
            if not isinstance(self.cfa, tuple):
                raise CfiError("a register without an offset")
            self.cfa = (at.uleb(), self.cfa[1])
        elif op == CFA_DEF_CFA_EXPRESSION:
            self.cfa = at.take(at.uleb())
        elif op == CFA_RESTORE_EXTENDED:
            self._restore(at.uleb())
        elif op == CFA_REMEMBER_STATE:
            if len(self._remembered) >= REMEMBERED:
                raise CfiError("too many states to remember")
            self._remembered.append((self.cfa, dict(self.rules)))
        elif op == CFA_RESTORE_STATE:
            if not self._remembered:
                raise CfiError("a state that was not remembered")
            self.cfa, self.rules = self._remembered.pop()
        elif op == CFA_SET_LOC:
            encoding = self._cie.encoding
            if encoding & 0xF0 == PE_PCREL:
                raise CfiError("a location relative to a place that is not known here")
            self.location = _pointer(at, encoding, self._section.word, 0, self._section.data_base)
        elif op == CFA_GNU_ARGS_SIZE:
            at.uleb()
        elif op not in (CFA_NOP, CFA_AARCH64_NEGATE_RA_STATE):
            # The signature of a return address is taken off in any case.
            raise CfiError(f"instruction {op:#x}")


def _run(fde: _Fde, vaddr: int, section: _Section) -> Row:
    """The row that holds at an address."""
    state = _State(fde, section)
    state.run(fde.cie.instructions, vaddr)
    state.initial = dict(state.rules)
    state.location = fde.begin
    state.run(fde.instructions, vaddr)
    if state.cfa is None:
        raise CfiError("an entry that says nothing of the frame")
    return Row(state.cfa, state.rules, fde.cie.ra, fde.cie.signal)
