"""Definitions of maps in .maps, as BTF types: the way that libbpf reads them."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.export.btf_writer import BtfWriter
from bpftrace_sys.story.objects import Map
from decoders.uapi import const


def map_attr(found: Map, name: str) -> int:
    """A number of the map's MAP_CREATE, where that was seen."""
    return 0 if found.call is None else found.call.number("attr", name) or 0


def u32(number: int | None) -> int:
    """A number that the model noted of a map, as wide as the kernel's."""
    return 0 if number is None else number & 0xFFFFFFFF


def map_flags(found: Map) -> int:
    return map_attr(found, "map_flags")


class MapTypes:
    """Definitions of maps as BTF types, the way that libbpf's __uint and __type make them."""

    EACH: Final = 8  # a member is a pointer

    def __init__(self, writer: BtfWriter) -> None:
        self.writer = writer
        self.index = writer.integer("int", 4)
        # Of one byte, so that no count makes an array too large for the kernel.
        self.element = writer.integer("char", 1)
        self._numbers: dict[int, int] = {}

    def _number(self, value: int) -> int:
        if value not in self._numbers:
            if value < 1 << 32:
                array = self.writer.array(self.element, self.index, value)
                self._numbers[value] = self.writer.pointer(array)
            else:
                self._numbers[value] = self.writer.enum64("value", value)
        return self._numbers[value]

    def define(self, found: Map, inner: Map | None, typed: bool) -> tuple[int, int]:
        """The type of a map's definition, and its size."""
        members = [("type", self._number(u32(found.map_type)))]
        sizes = {"key": u32(found.key_size), "value": u32(found.value_size)}
        types = {"key": u32(found.key_type), "value": u32(found.value_type)}
        read = self.writer.read
        fits = (
            typed
            and read is not None
            and all(types[name] and read.size_of(types[name]) == sizes[name] for name in sizes)
        )
        for name, size in sizes.items():
            if fits:
                members.append((name, self.writer.pointer(types[name])))
            elif size:
                members.append((f"{name}_size", self._number(size)))
        flags = map_flags(found)
        for name, number in (
            ("max_entries", u32(found.max_entries)),
            ("map_flags", flags),
            ("numa_node", map_attr(found, "numa_node") if flags & const.BPF_F_NUMA_NODE else 0),
            ("map_extra", map_attr(found, "map_extra")),
        ):
            if number:
                members.append((name, self._number(number)))
        if inner is not None and inner.map_type is not None:
            struct, _ = self.define(inner, None, False)
            members.append(
                ("values", self.writer.array(self.writer.pointer(struct), self.index, 0))
            )
            return self.writer.struct(members, self.EACH), len(members) * self.EACH
        return self.writer.struct(members, self.EACH), len(members) * self.EACH
