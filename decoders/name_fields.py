"""Where the names of programs and maps stand in a call's memory: fields of a fixed length."""

from __future__ import annotations

from collections.abc import Iterator

from decoders.declare.fields import Chars
from decoders.declare.structs import Layout, layout_of
from decoders.declare.syscalls import syscall_of
from decoders.decode import Facts, walked
from decoders.raw import RawCall
from decoders.records import NamedTuple
from decoders.walk.follow import Node, View


class NameField(NamedTuple):
    """An address, and how many bytes stand there."""

    addr: int
    size: int


def name_fields(raw: RawCall, facts: Facts) -> set[NameField]:
    """Those of structs that the call's pointers lead to; none where it cannot be decoded."""
    try:
        found = walked(raw, syscall_of(raw.arch, raw.nr), facts)
        nodes = [found.entry] if found.leave is None else [found.entry, found.leave]
        return {field for node in nodes for field in _pointed(node)}
    except Exception:  # as in decode(): such a call is shown by its registers
        return set()


def _pointed(node: Node) -> Iterator[NameField]:
    """Those of the structs behind a struct's pointers."""
    for found in node.found.values():
        if isinstance(found.inner, Node):
            yield from _of(found.inner.view, found.addr)
            yield from _pointed(found.inner)
    for inner in node.inner.values():
        yield from _pointed(inner)


def _of(view: View, addr: int) -> Iterator[NameField]:
    """Those of a struct that stands at an address, and of the structs and unions in it."""
    layout: Layout = view.layout
    for slot in layout.slots:
        if isinstance(slot.field, Chars):
            yield NameField(addr + slot.offset, slot.size)
            continue
        inner = slot.layout
        if slot.kind == "pick":
            chosen = slot.field.chosen(view)
            inner = None if chosen is None else layout_of(chosen)
        if inner is not None:
            size = slot.size if slot.kind == "pick" else inner.size
            data = view.data[slot.offset : slot.offset + size]
            yield from _of(View(inner, data, size, view, view.env), addr + slot.offset)
