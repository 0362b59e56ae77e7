"""How C is made to lay a struct out as BTF says: alignment, packing, padding."""

from __future__ import annotations

from typing import Final

from decoders.formats.btf import MAX_DEPTH, POINTER_SIZE, Btf
from decoders.formats.btf_types import COMPOSITES, Kind, Member, Type
from decoders.records import NamedTuple

_MAX_ALIGN: Final = 16  # of a scalar; __int128 has it
_MAX_PADDING: Final = 8  # unnamed bit-fields in one place
_MAX_ALIGNED: Final = 1 << 16  # the largest aligned() that is tried to explain a gap


class Layout(NamedTuple):
    """What C needs to be told so that it lays a struct out as BTF says."""

    align: int
    suffix: str  # attributes behind the closing brace
    before: dict[int, list[str]]  # padding in front of members, by their index
    attributes: dict[int, str]  # of members
    comments: dict[int, str]  # behind members
    end: list[str]  # padding at the end


_NO_LAYOUT: Final = Layout(1, "", {}, {}, {}, [])


class Layouts:
    """The layouts of a BTF's structs, each computed once."""

    def __init__(self, btf: Btf) -> None:
        self.btf = btf
        self._layouts: dict[int, Layout | None] = {}

    def bits_of(self, member: Member) -> tuple[int, int | None]:
        """A member's bit offset, and its bits if it is a bit-field.

        Bit-fields from before kind_flag are INTs of their own, with fewer bits
        than their bytes have.
        """
        if member.bits:
            return member.bit_offset, member.bits
        found = self.btf.resolve(member.type)
        if found and found.kind == Kind.INT and (found.bit_offset or found.bits < found.size * 8):
            return member.bit_offset + found.bit_offset, found.bits
        return member.bit_offset, None

    def _align(self, type_id: int, depth: int) -> int:
        for _ in range(MAX_DEPTH):
            found = self.btf.resolve(type_id)
            if found is None:
                return 1
            if found.kind != Kind.ARRAY:
                break
            type_id = found.type
        else:
            return 1
        if found.kind == Kind.PTR:
            return POINTER_SIZE
        if found.kind in COMPOSITES:
            return self.of(found, depth + 1).align
        size = found.size
        return min(size, _MAX_ALIGN) if size and not size & (size - 1) else 1

    def of(self, found: Type, depth: int) -> Layout:
        if found.id not in self._layouts:
            self._layouts[found.id] = None  # a struct within itself ends here
            if depth <= MAX_DEPTH:
                self._layouts[found.id] = self._lay_out(found, depth)
        return self._layouts[found.id] or _NO_LAYOUT

    def _lay_out(self, found: Type, depth: int) -> Layout:
        rows = []  # bit offset, bits (None: no bit-field), bits of the type, its alignment
        for member in found.members:
            offset, bits = self.bits_of(member)
            size = (self.btf.size_of(member.type) or 0) * 8
            rows.append((offset, bits, size, self._align(member.type, depth)))
        natural = max((align for *_, align in rows), default=1)
        packed = bool(found.size % natural) or any(
            offset % (align * 8) if bits is None else bits and offset % size + bits > size
            for offset, bits, size, align in rows
            if size
        )
        before: dict[int, list[str]] = {}
        attributes: dict[int, str] = {}
        comments: dict[int, str] = {}
        align = 1 if packed else natural
        end = position = 0
        for index, (offset, bits, size, own) in enumerate(rows):
            unit = 8 if packed else own * 8
            if bits is None:
                position = _up(position, unit)
            elif not packed and size and position % size + bits > size:
                position = _up(position, size)
            if offset < position:
                comments[index] = f" /* at bit {offset} */"
            elif offset > position:
                aligned = _aligned_to(position, offset) if bits is None else 0
                # A struct is as long as a multiple of its alignment.
                if aligned and not found.size % aligned:
                    attributes[index] = f"__attribute__((aligned({aligned})))"
                    align = max(align, aligned)
                elif offset - position > _MAX_ALIGNED * 8:
                    comments[index] = f" /* at bit {offset} */"
                else:
                    before[index] = _padding(position, offset)
            position = offset + (size if bits is None else bits)
            end = max(end, position)
            if found.kind == Kind.UNION:
                position = 0
        suffixes = ["__attribute__((packed))"] if packed else []
        tail: list[str] = []
        if _up(end, align * 8) < found.size * 8:
            aligned = _aligned_to(_up(end, 8), found.size * 8)
            if aligned >= align:
                suffixes.append(f"__attribute__((aligned({aligned})))")
                align = aligned
            elif found.kind == Kind.UNION:
                tail = [f"char __pad[{found.size}];"]
            else:
                tail = _padding(end, found.size * 8)
        return Layout(align, " ".join(suffixes), before, attributes, comments, tail)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _aligned_to(position: int, offset: int) -> int:
    """The alignment in bytes that takes C from one bit offset to another, or 0."""
    align = 2
    while align <= _MAX_ALIGNED:
        if _up(position, align * 8) == offset:
            return align
        align *= 2
    return 0


def _padding(position: int, offset: int) -> list[str]:
    """Declarations that fill the bits in between, without members of their own if they are few."""
    texts: list[str] = []
    while position < offset:
        # Unnamed bit-fields may start anywhere in a unit of their type, but not leave it.
        bits = min(offset - position, 64 - position % 64)
        if len(texts) < _MAX_PADDING or bits < 64:
            texts.append(f"long: {bits};")
        else:
            bits = (offset - position) // 64 * 64
            texts.append(f"char __pad_{position // 8}[{bits // 8}];")
        position += bits
    return texts
