"""C declarations out of BTF: types, definitions, function prototypes.

The text is C that a compiler takes, with offsets and sizes as BTF has them:
where the members' natural alignment does not lead there, ``packed``,
``aligned`` or unnamed bit-fields do.  Offsets that no C can express (hostile
BTF) are told in a comment.

Cycles and chains end at `btf.MAX_DEPTH`, and each text at a budget of
characters; ``...`` stands where something was left out.  Names are those of
`Btf.string`: a renderer makes them safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from decoders.formats.btf import (
    COMPOSITES,
    ENUMS,
    MAX_DEPTH,
    MODIFIERS,
    POINTER_SIZE,
    Btf,
    Kind,
    Member,
    Type,
)

TYPE_LIMIT: Final = 1 << 12
"""The most characters of a type or prototype, give or take a name."""
DECLARATION_LIMIT: Final = 4 << 20
"""The same of a definition."""
SUMMARY_NAMES: Final = 8
SUMMARY_OF_KIND: Final = 3

_PROTO_DEPTH: Final = 4
"""What a function type as a parameter counts: some levels of them are too many to read."""
_ELLIPSIS: Final = "..."
_WORDS: Final[dict[int, str]] = {
    Kind.STRUCT: "struct",
    Kind.UNION: "union",
    Kind.ENUM: "enum",
    Kind.ENUM64: "enum",
}
_QUALIFIERS: Final[dict[int, str]] = {
    Kind.CONST: "const",
    Kind.VOLATILE: "volatile",
    Kind.RESTRICT: "restrict",
}
_ENUM_MODES: Final = {1: "byte", 2: "HI", 4: "SI", 8: "DI"}  # GCC's machine modes
_MAX_ALIGN: Final = 16  # of a scalar; __int128 has it
_MAX_PADDING: Final = 64  # unnamed bit-fields in one place
_MAX_ALIGNED: Final = 1 << 16  # the largest aligned() that is tried to explain a gap


class _Layout(NamedTuple):
    """What C needs to be told so that it lays a struct out as BTF says."""

    align: int
    suffix: str  # attributes behind the closing brace
    before: dict[int, list[str]]  # padding in front of members, by their index
    attributes: dict[int, str]  # of members
    comments: dict[int, str]  # behind members
    end: list[str]  # padding at the end


class _Writer:
    """Makes declarations; keeps what alignment needs to be computed once."""

    def __init__(self, btf: Btf, limit: int) -> None:
        self.btf = btf
        self.limit = limit
        self._left = limit
        self._layouts: dict[int, _Layout | None] = {}

    def restart(self) -> None:
        """Give the next declaration a budget of its own."""
        self._left = self.limit

    # -- types ---------------------------------------------------------------------

    def declare(
        self, type_id: int, declarator: str, depth: int = 0, indent: str | None = None
    ) -> str:
        """A declaration of ``declarator`` with that type.

        Anonymous structs, unions and enums are written out if there is an
        ``indent`` (that of the line that the declaration stands in).
        """
        qualifiers: list[str] = []  # of the type that comes next
        tags: list[str] = []
        while True:
            found = self.btf.type(type_id)
            self._left -= 8 + len(found.name if found else "")
            depth += 1
            if self._left < 0 or depth > MAX_DEPTH:
                base = _ELLIPSIS
                break
            if found is None:
                base = f"/* no type {type_id} */ void"
                break
            if found.kind in _QUALIFIERS:
                if _QUALIFIERS[found.kind] not in qualifiers:
                    qualifiers.append(_QUALIFIERS[found.kind])
            elif found.kind == Kind.TYPE_TAG:
                tags.append(_tag("btf_type_tag", found))
            elif found.kind == Kind.PTR:
                words = " ".join(qualifiers + tags)
                declarator = f"*{words} {declarator}".rstrip() if words else f"*{declarator}"
                qualifiers, tags = [], []
            elif found.kind == Kind.ARRAY:
                declarator = f"{_grouped(declarator)}[{found.nelems}]"
            elif found.kind == Kind.FUNC_PROTO:
                declarator = f"{_grouped(declarator)}({self._params(found, depth)})"
                qualifiers, tags = [], []
            elif found.kind in (Kind.FUNC, Kind.VAR):
                declarator = declarator or found.name
            else:
                base = self._base(found, depth, indent)
                break
            type_id = found.type
        base = " ".join([*qualifiers, base, *tags])
        return base + ("" if not declarator or declarator[0] == "[" else " ") + declarator

    def _params(self, proto: Type, depth: int) -> str:
        if not proto.params:
            return "void"
        texts = []
        for index, param in enumerate(proto.params):
            if not param.type and not param.name and index == len(proto.params) - 1:
                texts.append(_ELLIPSIS)
            else:
                texts.append(self.declare(param.type, param.name, depth + _PROTO_DEPTH))
            if self._left < 0:
                texts.append(_ELLIPSIS)
                break
        return ", ".join(texts)

    def _base(self, found: Type, depth: int, indent: str | None) -> str:
        if found.kind == Kind.FWD:
            return f"{'union' if found.kind_flag else 'struct'} {found.name}"
        word = _WORDS.get(found.kind)
        if word is None:
            return found.name or f"/* unnamed type {found.id} */ void"
        if found.name:
            return f"{word} {found.name}"
        if indent is None:
            return f"{word} {{{_ELLIPSIS}}}"
        return self.body(found, indent, depth)

    # -- definitions ---------------------------------------------------------------

    def body(self, found: Type, indent: str, depth: int = 0) -> str:
        """``struct NAME { ... }`` with attributes, without a semicolon."""
        head = f"{_WORDS[found.kind]} {found.name}".rstrip()
        if found.kind in ENUMS:
            lines, suffix = self._enumerators(found, indent), _enum_suffix(found)
        else:
            lines, suffix = self._members(found, indent, depth)
        if len(lines) < max(len(found.members), len(found.enumerators)):
            lines.append(f"{indent}\t/* {_ELLIPSIS} */")
        elif found.vlen > len(found.members) + len(found.enumerators):
            lines.append(f"{indent}\t/* the data ends here; {found.vlen} are claimed */")
        text = "\n".join([f"{head} {{", *lines, f"{indent}}}"]) if lines else f"{head} {{}}"
        return " ".join([text, *([suffix] if suffix else []), *self._decl_tags(found.id)])

    def _enumerators(self, found: Type, indent: str) -> list[str]:
        lines = []
        for each in found.enumerators:
            self._left -= 8 + len(each.name) + len(indent)
            if self._left < 0:
                break
            lines.append(f"{indent}\t{each.name} = {_constant(each.value)},")
        return lines

    def _members(self, found: Type, indent: str, depth: int) -> tuple[list[str], str]:
        layout = self._layout(found, depth)
        inner = f"{indent}\t"
        lines: list[str] = []
        for index, member in enumerate(found.members):
            self._left -= len(member.name) + len(inner)
            if self._left < 0:
                break
            text = self.declare(member.type, member.name, depth, inner)
            bits = self.bits_of(member)[1]
            if bits is not None:
                text += f": {bits}"
            words = [text, layout.attributes.get(index, ""), *self._decl_tags(found.id, index)]
            text = " ".join(filter(None, words)) + ";" + layout.comments.get(index, "")
            lines += [*layout.before.get(index, ()), text]
        lines += layout.end
        return [inner + line for line in lines], layout.suffix

    def _decl_tags(self, type_id: int, component: int = -1) -> list[str]:
        texts = []
        for each in self.btf.tags(type_id, component):
            found = self.btf.type(each)
            if found is None or self._left < 0:
                break
            self._left -= 32 + len(found.name)
            texts.append(_tag("btf_decl_tag", found))
        return texts

    def definition(self, found: Type) -> str:
        """The whole declaration of a type that can be declared."""
        btf = self.btf
        if found.kind not in (*_WORDS, Kind.TYPEDEF, Kind.VAR):
            self._left = min(self._left, TYPE_LIMIT)
        if found.kind == Kind.FWD or (found.kind in ENUMS and not found.vlen):
            return f"{self._base(found, 0, None)};"
        if found.kind in _WORDS:
            return f"{self.body(found, '')};"
        if found.kind == Kind.TYPEDEF:
            text = "typedef " + self.declare(found.type, found.name, 0, "")
        elif found.kind == Kind.FUNC:
            text = ("static ", "", "extern ")[found.linkage] if found.linkage < 3 else ""
            text += self.declare(found.id, "")
        elif found.kind == Kind.VAR:
            text = ("static ", "", "extern ")[found.linkage] if found.linkage < 3 else ""
            text += self.declare(found.type, found.name, 0, "")
        elif found.kind == Kind.DATASEC:
            return f"/* section {found.name}: {found.size} bytes, {found.vlen} variables */"
        elif found.kind == Kind.DECL_TAG:
            where = "" if found.component < 0 else f" component {found.component}"
            return f"/* tag {found.name} of type {found.type} {btf.name(found.type)}{where} */"
        elif found.kind in _KNOWN:
            return self.declare(found.id, "")
        else:
            return f"/* type {found.id} of kind {found.kind}: {found.name} */"
        return " ".join([text, *self._decl_tags(found.id)]) + ";"

    # -- layout --------------------------------------------------------------------

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
            return self._layout(found, depth + 1).align
        size = found.size
        return min(size, _MAX_ALIGN) if size and not size & (size - 1) else 1

    def _layout(self, found: Type, depth: int) -> _Layout:
        if found.id not in self._layouts:
            self._layouts[found.id] = None  # a struct within itself ends here
            if depth <= MAX_DEPTH:
                self._layouts[found.id] = self._lay_out(found, depth)
        return self._layouts[found.id] or _NO_LAYOUT

    def _lay_out(self, found: Type, depth: int) -> _Layout:
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
                if aligned:
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
        return _Layout(align, " ".join(suffixes), before, attributes, comments, tail)


_NO_LAYOUT: Final = _Layout(1, "", {}, {}, {}, [])
_KNOWN: Final = frozenset(Kind)


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


def _grouped(declarator: str) -> str:
    return f"({declarator})" if declarator.startswith("*") else declarator


def _constant(value: int) -> str:
    if -(1 << 31) <= value < 1 << 32:
        return str(value)
    return f"{value}{'ULL' if value >> 63 > 0 else 'LL'}"


def _enum_suffix(found: Type) -> str:
    values = [each.value for each in found.enumerators] or [0]
    natural = 4 if min(values) >= -(1 << 31) and max(values) < 1 << 32 else 8
    if found.size == natural or found.size not in _ENUM_MODES:
        return ""
    return f"__attribute__((mode({_ENUM_MODES[found.size]})))"


def _tag(attribute: str, found: Type) -> str:
    """A tag's attribute; with kind_flag the tag is itself the attribute's text."""
    if found.kind_flag:
        return f"__attribute__(({found.name}))"
    text = found.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'__attribute__(({attribute}("{text}")))'


def c_type(btf: Btf, type_id: int, name: str = "") -> str:
    """A type as C writes it, as the declaration of ``name`` if that is given.

    ``const char *``, ``int (*fn)(void *, int)``, ``struct event[16]``;
    anonymous ones as ``struct {...}``.
    """
    return _Writer(btf, TYPE_LIMIT).declare(type_id, name)


def c_decl(btf: Btf, type_id: int) -> str:
    """A type's full declaration: members, enumerators, a typedef's target.

    Ends with a semicolon for what C declares; pointers, arrays and the like
    yield what `c_type` does.
    """
    found = btf.type(type_id)
    if found is None:
        return f"/* no type {type_id} */"
    return _Writer(btf, DECLARATION_LIMIT).definition(found)


def func_prototype(btf: Btf, func_id: int) -> str | None:
    """``int hello_world(void *ctx)`` of a FUNC; None where the id is no FUNC's."""
    if btf.kind(func_id) != Kind.FUNC:
        return None
    return _Writer(btf, TYPE_LIMIT).declare(func_id, "")


def declarations(btf: Btf, roots: Iterable[int] | None = None) -> Iterator[str]:
    """Declarations of all types of that BTF (or of ``roots`` and what they need), as `ordered`."""
    writer = _Writer(btf, DECLARATION_LIMIT)
    # An honest BTF's text is some times as long as its data; one that says the same again
    # and again could go on for ever.
    left = DECLARATION_LIMIT + 16 * btf.data_size
    for type_id, whole in ordered(btf, roots):
        found = btf.type(type_id)
        if found is None:
            continue
        if left < 0:
            yield f"/* {_ELLIPSIS} */"
            return
        writer.restart()
        text = writer.definition(found) if whole else f"{writer.declare(type_id, '')};"
        left -= len(text)
        yield text


def ordered(btf: Btf, roots: Iterable[int] | None = None) -> Iterator[tuple[int, bool]]:
    """Ids of what can be declared, in an order in which C takes the declarations.

    What a struct holds by value comes before it; with it comes False before
    that for each struct or union which it only points at, if not declared yet.
    """
    left = _Work(DECLARATION_LIMIT + 16 * btf.data_size)
    done: set[int] = set()
    declared: set[int] = set()  # structs and unions whose names are known
    for root in btf.ids if roots is None else roots:
        if root in done or not _is_declared(btf.type(root)):
            continue
        done.add(root)
        stack = [(root, needs := _needs(btf, root, left), iter(needs))]
        while stack:
            type_id, needs, rest = stack[-1]
            for need, complete in rest:
                if complete and need not in done:
                    done.add(need)
                    stack.append((need, deeper := _needs(btf, need, left), iter(deeper)))
                    break
            else:
                stack.pop()
                for need, complete in needs:
                    if not complete and need not in declared and need != type_id:
                        declared.add(need)
                        yield need, False
                declared.add(type_id)
                yield type_id, True


_NAMED: Final = frozenset({*_WORDS, Kind.FWD})
_DECLARED: Final = frozenset({*_NAMED, Kind.TYPEDEF, Kind.FUNC, Kind.VAR, Kind.DATASEC})


def _is_declared(found: Type | None) -> bool:
    """Whether a type is declared on its own, not within others."""
    if found is None or found.kind not in _DECLARED:
        return False
    return bool(found.name) or found.kind in ENUMS


class _Work:
    """How many more steps may be taken; without it, many types that all hold one large
    anonymous one would take for ever.  What comes after is in the order of the ids."""

    def __init__(self, left: int) -> None:
        self.left = left


def _needs(btf: Btf, type_id: int, work: _Work) -> list[tuple[int, bool]]:
    """What a declaration needs declared before it: (type id, whether completely)."""
    found = btf.type(type_id)
    if found is None or work.left < 0:
        return []
    todo = [(member.type, True) for member in found.members]
    if found.kind == Kind.TYPEDEF or found.kind == Kind.FUNC:
        todo.append((found.type, False))
    elif found.kind == Kind.VAR:
        todo.append((found.type, True))
    elif found.kind == Kind.DATASEC:
        todo += [(variable.type, True) for variable in found.variables]
    todo.reverse()
    seen: set[tuple[int, bool]] = set()
    needs = []
    while todo:
        item = todo.pop()
        if item in seen:
            continue
        seen.add(item)
        work.left -= 1
        each, complete = item
        found = btf.type(each)
        if found is None:
            continue
        if found.kind == Kind.PTR:
            todo.append((found.type, False))
        elif found.kind in MODIFIERS:
            todo.append((found.type, complete))
        elif found.kind == Kind.ARRAY:
            todo.append((found.type, True))
        elif found.kind == Kind.FUNC_PROTO:
            todo += [(param.type, False) for param in found.params]
            todo.append((found.type, False))
        elif found.kind == Kind.VAR:
            needs.append((each, True))
        elif found.kind in (*ENUMS, Kind.TYPEDEF) and found.name:
            needs.append((each, True))
            if complete and found.kind == Kind.TYPEDEF:
                todo.append((found.type, True))
        elif found.kind in _NAMED and found.name:
            needs.append((each, complete))
        elif found.kind in COMPOSITES:
            todo += [(member.type, True) for member in reversed(found.members)]
    return needs


# What a summary names, most telling first.
_TELLING: Final = (
    Kind.FUNC,
    Kind.STRUCT,
    Kind.UNION,
    Kind.ENUM,
    Kind.ENUM64,
    Kind.DATASEC,
    Kind.VAR,
    Kind.TYPEDEF,
    Kind.INT,
    Kind.FLOAT,
)


def summary(btf: Btf) -> str:
    """One line: ``37 types, 412 strings: int, struct event, hello_world()``.

    Names the `SUMMARY_NAMES` most telling types, in their order in the BTF.
    """
    chosen: dict[int, list[int]] = {kind: [] for kind in _TELLING}
    for type_id in btf.ids:
        ids = chosen.get(btf.kind(type_id) or 0)
        if ids is not None and len(ids) <= SUMMARY_NAMES and btf.name(type_id):
            ids.append(type_id)
    # A few of each kind first, so that many functions do not hide all structs.
    ids = [type_id for each in chosen.values() for type_id in each[:SUMMARY_OF_KIND]]
    ids += [type_id for each in chosen.values() for type_id in each[SUMMARY_OF_KIND:]]
    names = []
    for type_id in sorted(ids[:SUMMARY_NAMES]):
        found = btf.type(type_id)
        if found is not None:
            names.append(f"{found.name}()" if found.kind == Kind.FUNC else c_type(btf, type_id))
    if len(ids) > SUMMARY_NAMES:
        names.append(_ELLIPSIS)
    text = f"{len(btf.ids)} types, {btf.nr_strings} strings"
    text += f": {', '.join(names)}" if names else ""
    return f"{text} ({btf.problem})" if btf.problem else text
