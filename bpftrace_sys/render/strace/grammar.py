"""Compiles the rows: words with their fields, formats and tests resolved."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from bpftrace_sys.render.strace.formats import FORMATS
from bpftrace_sys.render.strace.item import Item
from bpftrace_sys.render.strace.places import Place, places_of
from bpftrace_sys.render.strace.rows import LINK_ROWS, ROWS
from decoders.declare.fields import (
    Bits,
    Chars,
    FactField,
    FdField,
    FlagSet,
    Named,
    NotedField,
    Num,
    Raw,
)
from decoders.declare.structs import Ptr
from decoders.records import NamedTuple
from decoders.uapi import const
from decoders.walk.measures import ATTACH_BY_IFINDEX


class Word(NamedTuple):
    """A word of a row, its names resolved.

    ``kind`` is field, open, close, stop, again or link.
    """

    kind: str
    name: str = ""
    """Of a field, with the structs in the struct: ``test.retval``."""
    place: Place | None = None
    mark: str = ""
    format: Callable[[Item], str] | None = None
    length: tuple[Place | None, int] | None = None
    """The field that counts, None for the call's result; and what to divide it by."""
    test: Callable[[bytes, int], bool] | None = None
    bound: int = 0
    """Of a stop: the size that the caller's struct must exceed."""


class Row(NamedTuple):
    """A row, compiled."""

    words: tuple[Word, ...]
    end: int
    """Where strace's idea of the struct ends: what follows is extra_data."""
    places: Mapping[str, Place]


_WORD: Final = re.compile(
    r"(?P<name>\w+)(?P<mark>[@>+~]?)(?::(?P<format>\w+))?"
    r"(?:\((?P<length>\w+)(?:/(?P<by>\d+))?\))?(?:\?(?P<test>\S+))?"
)


@cache
def row_of(name: str, inner: str = "", prefix: str = "") -> Row:
    """The row of a struct (or of a link's variant inside it), compiled."""
    text = LINK_ROWS[inner] if inner else ROWS[name]
    if text.startswith("="):
        return row_of(text[1:])
    places = places_of(name)

    def full(field: str) -> str:
        scope = path
        while scope + field not in places:
            if not scope:
                raise KeyError(field)
            scope = scope[: scope.rfind(".", 0, -1) + 1]
        return scope + field

    def place(field: str) -> Place:
        return places[full(field)]

    path = prefix
    words: list[Word] = []
    pieces = text.replace("}", " }").split()
    for index, piece in enumerate(pieces):
        if piece == "}":
            path = path[: path.rfind(".", 0, -1) + 1]
            words.append(Word("close"))
        elif piece.endswith("{"):
            path += piece[:-1] + "."
            words.append(Word("open", piece[:-1]))
        elif piece.startswith("|"):
            whole = piece.startswith("|+")
            match = _WORD.match(piece[1:].lstrip("+") or pieces[index + 1])
            assert match is not None
            limit = place(match["name"])
            words.append(Word("stop", bound=limit.end - 1 if whole else limit.offset))
        elif piece.startswith("=>"):
            words.append(Word("again", piece[2:], places[piece[2:]]))
        elif piece.startswith("*"):
            words.append(Word("link", path))
        else:
            match = _WORD.fullmatch(piece)
            assert match is not None, piece
            here = place(match["name"])
            length: tuple[Place | None, int] | None = None
            if match["length"]:
                counted = None if match["length"] == "ret" else place(match["length"])
                length = counted, int(match["by"] or 1)
            words.append(
                Word(
                    "field",
                    full(match["name"]),
                    here,
                    match["mark"],
                    FORMATS[match["format"]] if match["format"] else _format_of(here),
                    length,
                    _test(match["test"], place) if match["test"] else None,
                )
            )
    end = max((word.place.end for word in words if word.place is not None), default=0)
    return Row(tuple(words), end, places)


def _test(text: str, place: Callable[[str], Place]) -> Callable[[bytes, int], bool]:
    """A condition of a row, over the bytes and the size of a struct."""
    if text.startswith("!"):
        inner = _test(text[1:], place)
        return lambda data, size: not inner(data, size)
    if text.startswith("#"):
        bound = place(text[1:]).offset
        return lambda _, size: size > bound
    if text == "by_ifindex":
        attach_type = place("attach_type")
        return lambda data, _: attach_type.number(data) in ATTACH_BY_IFINDEX
    name, operator, operand = re.fullmatch(r"(\w+)([&=]?)(\w*)", text).groups()  # type: ignore[union-attr]
    field = place(name)
    if operator == "=":
        wanted = int(operand)
        return lambda data, _: field.number(data) == wanted
    mask = getattr(const, operand) if operator else -1
    return lambda data, _: bool(field.number(data) & mask)


def _format_of(place: Place) -> Callable[[Item], str]:
    """How a field is printed unless its row says otherwise."""
    field = place.field
    for kind, name in (
        (Ptr, "addr"),
        (Named, "xval"),
        (FlagSet, "flags"),
        (FdField, "fd"),
        (Chars, "chars"),
        (FactField, "ifindex" if getattr(field, "kind", "") == "ifindex" else "u"),
        (NotedField, "kernel_version"),
        (Raw, "raw"),
        (Bits, "u"),
        (Num, "x" if getattr(field, "base", 10) == 16 else "d" if _signed(field) else "u"),
    ):
        if isinstance(field, kind):
            return FORMATS[name]
    raise AssertionError(f"nothing prints {field}")


def _signed(field: Any) -> bool:
    return str(getattr(field.subcon, "fmtstr", ""))[-1:].islower()
