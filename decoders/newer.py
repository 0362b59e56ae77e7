"""What a running kernel knows and our tables do not.

A kernel's own BTF (/sys/kernel/btf/vmlinux) names the values of its enums and
the members of its structs.  Where it is newer than decoders.uapi, these names
fill the gaps; #defines are not in BTF, so flags that are no enum stay unknown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, Protocol

from decoders.btf import COMPOSITES, ENUMS, MAX_DEPTH, Btf, Kind, Type
from decoders.btf_c import c_type


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
            beside = level.prefix + inner.members[0].name
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
