"""BTF: its header, types and strings.

The format is that of include/uapi/linux/btf.h as libbpf carries it in 2026
(commit f7081a6b): 20 kinds, a vlen of 24 and a kind of 7 bits (older writers
leave the new bits zero), an optional layout section that tells how long types
of kinds unknown to the reader are, and a ``hdr_len`` that may exceed our
header.  Both byte orders are read.

The types are indexed with one pass over 32-bit words, as far as they are asked
for, and `Type` objects made only of those that are: the 126,000 types of a
kernel take some 50 ms, the name of one of the first a few.  BTF comes from the
tracee, so ids, offsets and counts lie; what is wrong is said in `Btf.problem`,
and everything else still works.

C text is made in `decoders.formats.btf_c`, values of data in `decoders.formats.btf_values`.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from decoders.formats.btf_records import (
    BTF_HEADER,
    BTF_LAYOUT,
    ELEMENT_WORDS,
    FIXED_DETAILS,
    FIXED_WORDS,
    FOLLOWING,
    NR_KINDS,
    TYPE_WORDS,
    UNPACKERS,
    WORD,
    Following,
    read_header,
    unpacker,
)
from decoders.formats.btf_search import Search
from decoders.formats.btf_types import (
    TRANSPARENT,
    VOID,
    Enumerator,
    Member,
    Param,
    Type,
    Variable,
)
from decoders.formats.btf_types import BtfError as BtfError
from decoders.formats.btf_types import Kind as Kind

MAX_NAME: Final = 511
"""Bytes of a name that are kept: the kernel's KSYM_NAME_LEN - 1, which it
enforces on types.  Without it, overlapping strings would let a small blob make
gigabytes of names."""
MAX_DEPTH: Final = 32
"""How many references (typedefs, modifiers, arrays) are followed from one type
to another: the kernel's MAX_RESOLVE_DEPTH."""
POINTER_SIZE: Final = 8  # the BPF machine's, and that of every kernel that we run on
_PIECE: Final = 1 << 14
"""Words of types that are indexed at a time."""
_MEMO_TYPES: Final = 1 << 16  # so walking a kernel's types does not keep them all


class Btf:
    """Parsed BTF; made by `parse`.

    ``header`` is as in the data, ``byteorder`` "little" or "big", ``base`` the
    BTF that this one adds to (split BTF), ``start_id`` the first id of its own.
    """

    def __init__(self, data: bytes, base: Btf | None = None) -> None:
        self.byteorder, self.header = read_header(data)
        self.base = base
        self.start_id = base.end_id if base else 1
        self._problems: list[str] = []
        self._check_header(data)
        header = self.header
        self._types = self._section(data, "type", header.type_off, header.type_len)
        self._strings = self._section(data, "string", header.str_off, header.str_len)
        self._strings_start = base._strings_end if base else 0
        self._strings_end: int = self._strings_start + len(self._strings)
        layout = self._section(data, "layout", header.layout_off, header.layout_len)
        unpack = unpacker(BTF_LAYOUT, self.byteorder)
        self._layout = tuple(unpack.iter_unpack(layout[: len(layout) // unpack.size * unpack.size]))
        self._check_strings()
        self._words = array("I", bytes(self._types[: len(self._types) // WORD * WORD]))
        if self.byteorder != sys.byteorder:
            self._words.byteswap()
        self._positions = array("I")  # of types in _words; the first is of start_id
        self._next = 0  # the word at which indexing goes on
        self._indexed = False
        self._memo: dict[int, Type] = {}
        self._sizes: dict[int, int | None] = {}
        self._ids_of: dict[int, array[int]] | None = None
        self._ids_by_name: dict[int, dict[int, list[int]]] = {}
        self._search = Search(self._strings, self._types, self.byteorder)
        self._tags: dict[tuple[int, int], list[int]] | None = None

    # -- the whole -----------------------------------------------------------------

    @property
    def problem(self) -> str | None:
        """What is wrong with the data and where, or None."""
        self._index_all()
        return "; ".join(self._problems) or None

    @property
    def end_id(self) -> int:
        """One past the highest type id."""
        return self.start_id + len(self._index_all())

    @property
    def ids(self) -> range:
        """The ids of this BTF's own types, without its base's and without void."""
        return range(self.start_id, self.end_id)

    @property
    def data_size(self) -> int:
        """Bytes of its types and strings."""
        return len(self._types) + len(self._strings)

    @property
    def nr_strings(self) -> int:
        """How many strings its own section holds, the leading empty one included."""
        return self._strings.count(b"\0")

    def __iter__(self) -> Iterator[Type]:
        for type_id in self.ids:
            found = self.type(type_id)
            if found is not None:
                yield found

    # -- single things -------------------------------------------------------------

    def string(self, offset: int) -> str:
        """The string at an offset of the string section(s).

        Hostile text: UTF-8, with bytes that are none written as ``\\xff``;
        control characters are left in for renderers to make safe.  At most
        `MAX_NAME` bytes.  An offset outside yields ``(bad string N)``.
        """
        if offset < self._strings_start and self.base:
            return self.base.string(offset)
        start = offset - self._strings_start
        if not 0 <= start < len(self._strings):
            return f"(bad string {offset})" if offset else ""
        end = self._strings.find(b"\0", start, start + MAX_NAME)
        text = self._strings[start : end if end >= 0 else start + MAX_NAME]
        return text.decode("utf-8", "backslashreplace")

    def kind(self, type_id: int) -> int | None:
        """A type's kind without making the type; None where there is no such type."""
        if type_id < self.start_id:
            if type_id <= 0:
                return Kind.VOID if type_id == 0 else None
            return self.base.kind(type_id) if self.base else None
        position = self._position(type_id)
        return None if position is None else self._words[position + 1] >> 24 & 0x7F

    def offset_of(self, type_id: int) -> int | None:
        """Where a type of this BTF's own begins, in bytes from the start of the types."""
        position = self._position(type_id)
        return None if position is None else position * WORD

    def type(self, type_id: int) -> Type | None:
        """The type of that id (0 is `VOID`); None where there is none."""
        found = self._memo.get(type_id)
        if found is not None:
            return found
        if type_id < self.start_id:
            if type_id <= 0:
                return VOID if type_id == 0 else None
            return self.base.type(type_id) if self.base else None
        position = self._position(type_id)
        if position is None:
            return None
        if len(self._memo) >= _MEMO_TYPES:
            self._memo.clear()
        found = self._memo[type_id] = self._make(type_id, position)
        return found

    def name(self, type_id: int) -> str:
        """A type's name without making the type; empty where it has none."""
        if type_id < self.start_id:
            return self.base.name(type_id) if self.base and type_id > 0 else ""
        position = self._position(type_id)
        return "" if position is None else self.string(self._words[position])

    def ids_of(self, kind: int) -> Sequence[int]:
        """The ids of this BTF's own types of a kind, lowest first."""
        return self._by_kind().get(kind, ())

    def find_all(self, name: str, kind: int | None = None) -> list[int]:
        """Ids of all types of that name (and kind), lowest first, base included."""
        found = self.base.find_all(name, kind) if self.base else []
        if not name:
            return found
        words = self._words_with(name)
        if words is not None:
            if kind is not None:
                # If a type begins there, it is of that kind: others need no index up to them.
                words = [at for at in words if self._kind_at(at) == kind]
            return [one for one, begins in self._around(words) if begins and self.name(one) == name]
        for each in self._by_kind() if kind is None else (kind,):
            ids = self._names_of(each).get(hash(name), ())
            found += [type_id for type_id in ids if self.name(type_id) == name]
        found.sort()
        return found

    def find(self, name: str, kind: int | None = None) -> Type | None:
        """The first type of that name (and kind), or None."""
        found = self.find_all(name, kind)
        return self.type(found[0]) if found else None

    def mentions(self, name: str) -> list[int] | None:
        """Ids of this BTF's own types that hold a name, their own or a part's, and maybe a few
        more, lowest first; None where that takes an index."""
        words = self._words_with(name)
        return None if words is None else sorted({one for one, _ in self._around(words)})

    def _words_with(self, name: str) -> list[int] | None:
        """The words that may hold a name, lowest first; None where it takes an index."""
        return None if self.base or len(name) >= MAX_NAME else self._search.words(name)

    def _kind_at(self, word: int) -> int | None:
        """The kind of a type, if one begins at a word."""
        return self._words[word + 1] >> 24 & 0x7F if word + 1 < len(self._words) else None

    def _around(self, words: list[int]) -> Iterator[tuple[int, bool]]:
        """The types in which words are, and whether they begin there; ``words``: lowest first."""
        if words and not self._indexed and self._next <= words[-1]:
            self._index(words[-1] + 1)
        starts = self._positions
        for word in words:
            number = bisect(starts, word)
            if number:
                yield self.start_id + number - 1, starts[number - 1] == word

    def resolve(self, type_id: int) -> Type | None:
        """The type behind typedefs, modifiers and a VAR or FUNC.

        None where a reference dangles, or where there are more than
        `MAX_DEPTH` of them.
        """
        for _ in range(MAX_DEPTH):
            found = self.type(type_id)
            if found is None or found.kind not in TRANSPARENT:
                return found
            type_id = found.type
        return None

    def size_of(self, type_id: int) -> int | None:
        """Bytes of a value of that type; None where it has no size (or is endless)."""
        if type_id not in self._sizes:
            if len(self._sizes) >= _MEMO_TYPES:
                self._sizes.clear()
            self._sizes[type_id] = self._size_of(type_id)
        return self._sizes[type_id]

    def tags(self, type_id: int, component: int = -1) -> list[int]:
        """Ids of the DECL_TAGs put on a type, or on that member or parameter of it."""
        if self._tags is None:
            self._tags = {}
            for each in self.ids_of(Kind.DECL_TAG):
                position = self._positions[each - self.start_id]
                where = self._words[position + 2], self._words[position + TYPE_WORDS]
                self._tags.setdefault(where, []).append(each)
        found = self.base.tags(type_id, component) if self.base and type_id < self.start_id else []
        return found + self._tags.get((type_id, component & 0xFFFFFFFF), [])

    # -- parsing -------------------------------------------------------------------

    def _check_header(self, data: bytes) -> None:
        header = self.header
        known = BTF_HEADER.sizeof()
        for wrong, text in (
            (header.version != 1, f"version {header.version} is not 1"),
            (header.flags != 0, f"unknown header flags {header.flags:#x}"),
            (
                header.hdr_len > known and any(data[known : header.hdr_len]),
                f"unknown header fields after byte {known}",
            ),
        ):
            if wrong:
                self._problems.append(text)

    def _section(self, data: bytes, what: str, offset: int, length: int) -> bytes:
        """The readable part of a section."""
        start = self.header.hdr_len + offset
        found = data[start : start + length]
        if len(found) < length:
            self._problems.append(
                f"the {what} section ({length} bytes at {start}) ends after {len(found)} bytes"
            )
        return found

    def _check_strings(self) -> None:
        strings = self._strings
        if strings and strings[0] and not self.base:
            self._problems.append(
                "the string section starts with no NUL: split BTF without its base?"
            )
        if strings and strings[-1]:
            self._problems.append("the string section ends with no NUL")

    def _position(self, type_id: int) -> int | None:
        """Where a type of this BTF's own begins, in words; None where there is none of that id."""
        number = type_id - self.start_id
        while number >= len(self._positions) and not self._indexed:
            self._index(self._next + _PIECE)
        return self._positions[number] if 0 <= number < len(self._positions) else None

    def _index_all(self) -> array[int]:
        """Where each type begins, in words."""
        if not self._indexed:
            self._index(len(self._words))
        return self._positions

    def _index(self, until: int) -> None:
        """Goes on finding where types begin: of those that begin before a word."""
        words, positions = self._words, self._positions
        fixed, element = FIXED_WORDS, ELEMENT_WORDS
        layout = self._layout or (self.base._layout if self.base else ())
        if len(layout) > Kind.ENUM64 + 1:
            fixed, element = self._with_layout(layout)
        add = positions.append
        position, end = self._next, len(words)
        last = min(until, end - TYPE_WORDS + 1)
        while position < last:
            info = words[position + 1]
            kind = info >> 24 & 0x7F
            words_fixed = fixed[kind]
            if words_fixed < 0:
                unknown = f"has the unknown kind {kind}; it and what follows cannot be read"
                return self._end(len(positions), position, unknown)
            after = position + TYPE_WORDS + words_fixed
            if after > end:
                until = end
                break
            add(position)
            after += element[kind] * (info & 0xFFFFFF)
            if after > end:
                many = f"claims {info & 0xFFFFFF} elements, more than there are"
                return self._end(len(positions) - 1, position, many)
            position = after
        self._next = position
        if until < end and position + TYPE_WORDS <= end:
            return None
        left = len(self._types) - position * WORD
        return self._end(len(positions), position, f"is cut off after {left} bytes" if left else "")

    def _end(self, number: int, position: int, problem: str) -> None:
        """There are no more types; and what is wrong with the last."""
        self._indexed = True
        if problem:
            where = f"type {self.start_id + number} at byte {position * WORD} of the type section"
            self._problems.append(f"{where} {problem}")

    def _with_layout(self, layout: tuple[tuple[int, ...], ...]) -> tuple[list[int], list[int]]:
        """The word counts, with those of kinds that only the layout section knows."""
        fixed, element = list(FIXED_WORDS), list(ELEMENT_WORDS)
        for kind, (info_size, element_size, _flags) in enumerate(layout[:NR_KINDS]):
            if kind > Kind.ENUM64 and not (info_size % WORD or element_size % WORD):
                fixed[kind], element[kind] = info_size // WORD, element_size // WORD
        return fixed, element

    def _make(self, type_id: int, position: int) -> Type:
        name_off, info, size_or_type = self._words[position : position + TYPE_WORDS]
        kind = info >> 24 & 0x7F
        vlen = info & 0xFFFFFF
        row = FOLLOWING.get(kind, Following())
        start = (position + TYPE_WORDS) * WORD
        details: dict[str, Any] = {}
        if row.fixed is not None:
            fixed = UNPACKERS[self.byteorder, row.fixed].unpack_from(self._types, start)
            details = FIXED_DETAILS[kind](*fixed)
        elif row.element is not None:
            unpack = UNPACKERS[self.byteorder, row.element]
            # The count is the tracee's: only what the section holds is read.
            end = min(start + vlen * unpack.size, len(self._types))
            end -= (end - start) % unpack.size
            elements = unpack.iter_unpack(memoryview(self._types)[start:end])
            field, make = _ELEMENT_DETAILS[kind]
            details = {field: tuple(make(self, bool(info >> 31), *each) for each in elements)}
        elif kind == Kind.FUNC:
            details = {"linkage": vlen}
            vlen = 0
        size, refers = (size_or_type, 0) if row.sized else (0, size_or_type)
        return Type(
            type_id,
            Kind(kind) if kind in FOLLOWING else kind,
            self.string(name_off),
            bool(info >> 31),
            vlen,
            size,
            **{"type": refers, **details},
        )

    def _size_of(self, type_id: int) -> int | None:
        count = 1
        for _ in range(MAX_DEPTH):
            found = self.resolve(type_id)
            if found is None:
                return None
            if found.kind == Kind.PTR:
                return count * POINTER_SIZE
            if found.kind != Kind.ARRAY:
                row = FOLLOWING.get(found.kind)
                return count * found.size if row and row.sized else None
            count *= found.nelems
            type_id = found.type
        return None

    def _by_kind(self) -> dict[int, array[int]]:
        if self._ids_of is None:
            self._ids_of = {}
            words = self._words
            for type_id, position in enumerate(self._index_all(), self.start_id):
                kind = words[position + 1] >> 24 & 0x7F
                ids = self._ids_of.get(kind)
                if ids is None:
                    ids = self._ids_of[kind] = array("I")
                ids.append(type_id)
        return self._ids_of

    def _names_of(self, kind: int) -> dict[int, list[int]]:
        """Ids by the hash of their names: the names themselves could be large."""
        names = self._ids_by_name.get(kind)
        if names is None:
            names = self._ids_by_name[kind] = {}
            for type_id in self.ids_of(kind):
                offset = self._words[self._positions[type_id - self.start_id]]
                if offset:
                    names.setdefault(hash(self.string(offset)), []).append(type_id)
        return names


def _member(btf: Btf, kind_flag: bool, name_off: int, type_id: int, offset: int) -> Member:
    if kind_flag:
        return Member(btf.string(name_off), type_id, offset & 0xFFFFFF, offset >> 24)
    return Member(btf.string(name_off), type_id, offset, 0)


def _enumerator(btf: Btf, signed: bool, name_off: int, value: int) -> Enumerator:
    if signed and value >> 31:
        value -= 1 << 32
    return Enumerator(btf.string(name_off), value)


def _enumerator64(btf: Btf, signed: bool, name_off: int, low: int, high: int) -> Enumerator:
    value = high << 32 | low
    if signed and value >> 63:
        value -= 1 << 64
    return Enumerator(btf.string(name_off), value)


def _param(btf: Btf, _kind_flag: bool, name_off: int, type_id: int) -> Param:
    return Param(btf.string(name_off), type_id)


def _variable(_btf: Btf, _kind_flag: bool, type_id: int, offset: int, size: int) -> Variable:
    return Variable(type_id, offset, size)


_ELEMENT_DETAILS: Final[dict[int, tuple[str, Callable[..., Any]]]] = {
    Kind.STRUCT: ("members", _member),
    Kind.UNION: ("members", _member),
    Kind.ENUM: ("enumerators", _enumerator),
    Kind.ENUM64: ("enumerators", _enumerator64),
    Kind.FUNC_PROTO: ("params", _param),
    Kind.DATASEC: ("variables", _variable),
}


def parse(data: bytes, base: Btf | None = None) -> Btf:
    """Parse BTF as BPF_BTF_LOAD takes it and /sys/kernel/btf/* holds it.

    ``base`` is the BTF whose types and strings this one (split BTF: a kernel
    module's) goes on from.  Truncated or corrupt data yields what can be read,
    and says so in `Btf.problem`.  Raises BtfError where there is no BTF at all.
    """
    return Btf(data, base)
