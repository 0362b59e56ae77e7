"""What a running kernel knows and our tables do not.

A kernel's own BTF (/sys/kernel/btf/vmlinux) names the values of its enums and
the members of its structs.  Where it is newer than decoders.uapi, these names
fill the gaps; #defines are not in BTF, so flags that are no enum stay unknown.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

from decoders.formats.btf import MAX_DEPTH, Btf
from decoders.formats.btf_c import c_type
from decoders.formats.btf_types import COMPOSITES, ENUMS, Kind, Type
from decoders.records import NamedTuple
from decoders.uapi.layouts import BASES
from decoders.values import NAMELESS, Bytes, Int, Name, Struct, Text, Value


class Layout(Protocol):
    """A member as decoders.uapi.layouts has it."""

    @property
    def path(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def bit_offset(self) -> int | None: ...
    @property
    def bit_size(self) -> int | None: ...


class NewerField(NamedTuple):
    """A member of a kernel's struct that our layout of it lacks.

    ``path``, ``offset`` and the others are those of decoders.uapi.layouts'
    Member, from the start of the outermost struct.  ``beside`` is the first
    member of the unnamed struct in a union (a command's in union bpf_attr)
    that it belongs to: ``map_type``, say; empty elsewhere.
    """

    path: str
    offset: int
    size: int
    bit_offset: int | None
    bit_size: int | None
    ctype: str
    beside: str


# Names of counters that end an enum; a newer kernel's has the value of our newest.
_SENTINEL: Final = re.compile(r"^_?_?MAX_|^__|^NR_|_MAX(_ID)?$")
# Names of our tables that leave out what all names of the enum begin with.
_PREFIXES: Final = {"bpf_func_id": "BPF_FUNC_"}
# Members that hold the place of later ones.
_RESERVED: Final = re.compile(r"(^|\.)_*(reserved|pad)")


def newer_names(btf: Btf, tables: Mapping[str, Mapping[int, str]]) -> dict[str, dict[int, str]]:
    """The names of enum values that no table has: {table: {value: name}}.

    A table goes by the name of the kernel's enum.  One that no enum is named
    for (``map_flags``) gets the newer names of those unnamed enums that have
    more names in common with it than with any other table.  Tables without
    newer names are left out.
    """
    known = {name for table, names in tables.items() for name in _whole(table, names)}
    found: dict[str, dict[int, str]] = {}
    unnamed: dict[str, dict[str, int]] = {}
    for table, names in tables.items():
        enums = [type_id for kind in ENUMS for type_id in btf.find_all(table, kind)]
        for type_id in enums:
            _add_newer(found, table, names, btf.type(type_id), known)
        if not enums:
            unnamed[table] = _whole(table, names)
    owners: dict[str, list[str]] = {}
    for table, whole in unnamed.items():
        for name in whole:
            owners.setdefault(name, []).append(table)
    for enum in _unnamed_enums(btf) if owners else ():
        shared = Counter(table for each in enum.enumerators for table in owners.get(each.name, ()))
        if shared:
            table = shared.most_common(1)[0][0]
            _add_newer(found, table, tables[table], enum, known)
    return found


def _whole(table: str, names: Mapping[int, str]) -> dict[str, int]:
    """Values by the kernel's full names."""
    prefix = _PREFIXES.get(table, "")
    return {prefix + name: value for value, name in names.items()}


def _add_newer(
    found: dict[str, dict[int, str]],
    table: str,
    names: Mapping[int, str],
    enum: Type | None,
    known: Container[str],
) -> None:
    prefix = _PREFIXES.get(table, "")
    for name, value in enum.enumerators if enum is not None else ():
        if value in names or name in known or not name or _SENTINEL.search(name):
            continue
        found.setdefault(table, {}).setdefault(value, name.removeprefix(prefix))


def _unnamed_enums(btf: Btf) -> Iterator[Type]:
    for kind in sorted(ENUMS):
        for type_id in btf.ids_of(kind):
            enum = btf.type(type_id)
            if enum is not None and not enum.name:
                yield enum


def newer_fields(
    btf: Btf, layouts: Mapping[str, Iterable[Layout]]
) -> dict[str, tuple[NewerField, ...]]:
    """The members that ``layouts`` (of structs and unions, by name) lack.

    Such are members past what our layout covers, in place of its reserved
    ones, and new structs within a union (new commands' in union bpf_attr).
    New names for covered bytes are none.  Layouts of structs within others
    (``bpf_attr.query``) are passed over: their members have paths in the
    outer one.  Structs without newer members are left out.
    """
    found = {}
    for name, members in layouts.items():
        for kind in COMPOSITES:
            struct = btf.find(name, kind) if "." not in name else None
            if struct is None:
                continue
            newer = tuple(_missing(btf, struct, _Level("", 0, "", 0), list(members)))
            if newer:
                found[name] = newer
    return found


class _Level(NamedTuple):
    """Where a struct lies within the outermost one."""

    prefix: str
    start: int  # in bits
    beside: str
    depth: int


def _leaf(btf: Btf, type_id: int, name: str, bit: int, bits: int, level: _Level) -> NewerField:
    size = btf.size_of(type_id) or 0
    unit = size * 8 if bits and size else 8
    return NewerField(
        level.prefix + name,
        bit // unit * unit // 8,
        size,
        bit % unit if bits else None,
        bits or None,
        c_type(btf, type_id),
        level.beside,
    )


def _span(field: Layout) -> tuple[int, int]:
    """First bit of a member, and the one past its last."""
    start = field.offset * 8 + (field.bit_offset or 0)
    return start, start + (field.size * 8 if field.bit_size is None else field.bit_size)


def _inner(btf: Btf, type_id: int) -> Type | None:
    """The unnamed struct or union behind a member's type, or None: a leaf."""
    found = btf.resolve(type_id)
    direct = btf.type(type_id)
    if found is None or found.kind not in COMPOSITES or found.name:
        return None
    return None if direct is not None and direct.kind == Kind.TYPEDEF else found


def _flat(btf: Btf, struct: Type, level: _Level) -> Iterator[NewerField]:
    """All members of a struct, those of structs within it by their paths."""
    if level.depth > MAX_DEPTH:
        return
    for member in struct.members:
        bit = level.start + member.bit_offset
        inner = _inner(btf, member.type)
        if inner is None:
            yield _leaf(btf, member.type, member.name, bit, member.bits, level)
            continue
        prefix = f"{level.prefix}{member.name}." if member.name else level.prefix
        yield from _flat(btf, inner, _Level(prefix, bit, level.beside, level.depth + 1))


def _missing(btf: Btf, struct: Type, level: _Level, ours: list[Layout]) -> Iterator[NewerField]:
    """Those members of a struct that ``ours``, our members of it, lack."""
    if level.depth > MAX_DEPTH:
        return
    in_union = struct.kind == Kind.UNION
    solid = [_span(each) for each in ours if not _RESERVED.search(each.path)]
    for member in struct.members:
        bit = level.start + member.bit_offset
        inner = _inner(btf, member.type)
        if inner is None:
            leaf = _leaf(btf, member.type, member.name, bit, member.bits, level)
            start, end = _span(leaf)
            known = any(each.path == leaf.path for each in ours)
            covered = any(first < end and start < last for first, last in solid)
            if leaf.path and not (known or covered or _RESERVED.search(leaf.path)):
                yield leaf
            continue
        prefix = f"{level.prefix}{member.name}." if member.name else level.prefix
        beside = level.beside
        if in_union and not member.name and inner.kind == Kind.STRUCT and inner.members:
            first = next(_flat(btf, inner, _Level("", 0, "", level.depth + 1)), None)
            beside = level.prefix + ("" if first is None else first.path)
        deeper = _Level(prefix, bit, beside, level.depth + 1)
        if member.name:
            same = [each for each in ours if each.path.startswith(prefix)]
        else:
            there = {(each.path, _span(each)[0]) for each in _flat(btf, inner, deeper)}
            same = [each for each in ours if (each.path, _span(each)[0]) in there]
        if same:
            yield from _missing(btf, inner, deeper, same)
            continue
        for leaf in _flat(btf, inner, deeper):
            start, end = _span(leaf)
            covered = any(first < end and start < last for first, last in solid)
            if in_union or not covered:
                yield leaf


# ---------------------------------------------------------------- in a trace

SAID: Final = "from this kernel"
"""What is noted on a value whose name only the running kernel's BTF has."""
MOST: Final = 4096
"""The most fields that a fact may name, and the size in bytes that they may lie in."""

DEEPEST: Final = 8
"""How deep structs within structs may go in a fact."""

_Fields = list[tuple[str, Value]]


def packed(fields: Iterable[NewerField]) -> str:
    """Fields as the text of a fact."""
    return json.dumps([list(field) for field in fields], separators=(",", ":"))


@lru_cache(maxsize=64)
def unpacked(text: str) -> tuple[NewerField, ...]:
    """The fields of a fact; what is malformed in it is left out."""
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    found = []
    for row in rows[:MOST] if isinstance(rows, list) else ():
        if not isinstance(row, list) or len(row) != len(NewerField._fields):
            continue
        path, offset, size, bit_offset, bit_size, ctype, beside = row
        if not all(isinstance(each, str) for each in (path, ctype, beside)):
            continue
        if not path or path.count(".") > DEEPEST:
            continue
        if not all(_small(each) for each in (offset, size)):
            continue
        if (bit_offset is None) != (bit_size is None):
            continue
        if bit_size is not None and not (_small(bit_offset) and _small(bit_size)):
            continue
        found.append(NewerField(path, offset, size, bit_offset, bit_size, ctype, beside))
    return tuple(found)


def _small(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


def read(
    field: NewerField, data: bytes, base: int = 0, said: str | None = SAID
) -> Value | None:
    """The value of a field in ``data``, which starts ``base`` bytes into the outermost struct.

    None where ``data`` does not reach so far. ``said`` is noted on a number.
    """
    start = field.offset - base
    part = data[start : start + field.size] if start >= 0 else b""
    if not part or len(part) < field.size:
        return None
    if field.bit_size is not None:
        whole = int.from_bytes(part, "little")
        shift = field.bit_offset or 0
        return Int(whole >> shift & ((1 << field.bit_size) - 1), 10, said)
    if field.ctype.startswith("char["):
        return Text(part.partition(b"\0")[0], b"\0" in part)
    if field.size not in (1, 2, 4, 8):
        return Bytes(part, field.size)
    signed = field.ctype.startswith(("__s", "int", "long", "short", "s8", "s16", "s32", "s64"))
    return Int(
        int.from_bytes(part, "little", signed=signed), 16 if field.size == 8 else 10, said
    )


def _nothing(value: Value) -> bool:
    if isinstance(value, Int):
        return value.value == 0
    return isinstance(value, Bytes | Text) and not value.data.strip(b"\0")


def _graft(fields: _Fields, path: list[str], value: Value, words: list[str]) -> bool:
    """Puts a value at a path below ``fields``; False where that path means nothing here.

    A struct that is not there yet must be named by one of ``words``: the names of
    enum values that are new themselves.
    """
    if len(path) == 1:
        fields.append((path[0], value))
        return True
    for index, (name, known) in enumerate(fields):
        if name == path[0] and isinstance(known, Struct):
            inner = list(known.fields)
            if not _graft(inner, path[1:], value, words):
                return False
            fields[index] = (name, known._replace(fields=tuple(inner)))
            return True
    if not any(path[0].upper() in word for word in words):
        return False
    inner = []
    _graft(inner, path[1:], value, [part.upper() for part in path])
    fields.append((path[0], Struct(tuple(inner))))
    return True


def _first_names(layout: Any) -> set[str]:
    """What the first member is called; several where it is a union."""
    first = layout.slots[0]
    rows = [*first.field.rows.values(), first.field.default] if first.kind == "pick" else []
    return {first.name, *(row.subcons[0].name for row in rows if row is not None)}


def explained(fields: _Fields, layout: Any, data: bytes, known: str) -> _Fields:
    """``fields`` of a struct, with what is set of the members in ``known`` (a fact's text).

    Bytes and reserved bits that these members account for are no longer shown as such.
    """
    struct, _, path = layout.ctype.partition(".")
    anonymous = any(char.isupper() or char == "*" for char in path)
    prefix = "" if anonymous or not path else f"{path}."
    base = BASES.get(layout.ctype, 0)
    words = [value.name for _, value in fields if isinstance(value, Name) and value.newer]
    first = _first_names(layout)
    own = []
    for field in unpacked(known):
        if not field.path.startswith(prefix) or (anonymous and field.beside not in first):
            continue
        own_path = field.path[len(prefix) :]
        if "." not in own_path and struct == "bpf_attr" and not path:
            continue  # a member of some command's unnamed struct
        own.append(field._replace(path=own_path, offset=field.offset - base))
    return grafted(fields, layout, data, own, [word for word in words if word], SAID)


def grafted(
    fields: _Fields,
    layout: Any,
    data: bytes,
    own: Iterable[NewerField],
    words: list[str],
    said: str | None,
) -> _Fields:
    """``fields`` with what is set of a struct's ``own`` members, whose offsets begin with it.

    ``words``: the names of enum values that a member struct may be named by; ``said``: as read's.
    """
    result = list(fields)
    covered = bytearray(len(data))
    for field in own:
        value = read(field, data, 0, said)
        if value is None or _nothing(value):
            continue
        if _graft(result, field.path.split("."), value, words):
            shift = field.bit_offset or 0
            bits = ((1 << (field.bit_size or field.size * 8)) - 1) << shift
            for index in range(field.size):
                covered[field.offset + index] |= bits >> index * 8 & 0xFF
    if not any(covered):
        return fields
    return _without(result, layout, data, covered)


def _without(fields: _Fields, layout: Any, data: bytes, covered: bytearray) -> _Fields:
    """``fields`` without those bits of nameless bytes that are ``covered``."""
    reserved = {
        name: (slot.offset, slot.size, shift)
        for slot in layout.slots
        if slot.kind == "bits"
        for name, shift, _, _ in slot.field.members
    }
    kept: _Fields = []
    for name, value in fields:
        if isinstance(value, Bytes) and name in NAMELESS:
            place = place_of(value, layout, data)
            if place is not None:
                start = place.start
                mask = covered[start : start + len(value.data)].ljust(len(value.data), b"\0")
                rest = bytes(byte & ~bit for byte, bit in zip(value.data, mask, strict=True))
                value = value._replace(data=rest)
            if not value.data.strip(b"\0"):
                continue
        elif name.startswith("__reserved") and isinstance(value, Int) and name in reserved:
            offset, size, shift = reserved[name]
            mask = int.from_bytes(covered[offset : offset + size], "little") >> shift
            value = value._replace(value=value.value & ~mask)
        kept.append((name, value))
    return kept


class Place(NamedTuple):
    """Where bytes without a name stand in a struct."""

    start: int
    end: int
    in_union: bool


def place_of(nameless: Bytes, layout: Any, data: bytes) -> Place | None:
    """Where such bytes stand: behind the struct's end, in a gap, or in a union; or None.

    What ``data`` does not reach to is zero.
    """
    size = len(nameless.data)
    places = [(layout.size, False)] + [
        (slot.offset, slot.kind == "pick") for slot in layout.slots if slot.kind in ("pad", "pick")
    ]
    for start, in_union in places:
        if data[start : start + size].ljust(size, b"\0") == nameless.data:
            return Place(start, start + size, in_union)
    return None


def struct_for(
    word: str, data: bytes, fields_of: Iterable[NewerField], said: str | None = SAID
) -> Struct | None:
    """The struct in a union that a new enum value selects (a new command's), or None.

    It is the one whose name is part of the value's; failing that, the only new one.
    """
    groups: dict[str, list[NewerField]] = {}
    for field in fields_of:
        head, dot, _ = field.path.partition(".")
        if dot:
            groups.setdefault(head, []).append(field)
    fitting = sorted((head for head in groups if head.upper() in word), key=len)
    if not fitting and len(groups) == 1:
        fitting = list(groups)
    if not fitting:
        return None
    fields: _Fields = []
    end = 0
    for field in groups[fitting[-1]]:
        value = read(field, data, 0, said)
        if value is not None:
            _graft(fields, field.path.split("."), value, [word, fitting[-1].upper()])
            end = max(end, field.offset + field.size)
    if data[end:].strip(b"\0"):
        fields.append(("extra_data", Bytes(data[end:], len(data) - end)))
    return Struct(tuple(fields))
