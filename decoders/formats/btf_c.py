"""C declarations out of BTF: types, definitions, function prototypes.

The text is C that a compiler takes, with offsets and sizes as BTF has them:
where the members' natural alignment does not lead there, ``packed``,
``aligned`` or unnamed bit-fields do.  Offsets that no C can express (hostile
BTF) are told in a comment.

Cycles and chains end at `btf.MAX_DEPTH`. Every character that is written counts against
a budget, which grows with the data (`budget`); ``...`` stands where something was left out.
Names are those of `Btf.string`: a renderer makes them safe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from decoders.formats.btf import MAX_DEPTH, Btf
from decoders.formats.btf_layout import Layouts
from decoders.formats.btf_types import COMPOSITES, ENUMS, MODIFIERS, Kind, Type

TYPE_LIMIT: Final = 1 << 12
"""The most characters of a type or prototype, give or take a name."""
BASE: Final = 1 << 16
FACTOR: Final = 64
"""An honest BTF's text is some times as long as its data; one that says the same again and again
could go on for ever."""
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
_INTEGERS: Final = {1: "char", 2: "short", 4: "int", 8: "long long"}
_ENUM_MODES: Final = {1: "byte", 2: "HI", 4: "SI", 8: "DI"}  # GCC's machine modes


def budget(btf: Btf) -> int:
    """The most characters of all declarations of a BTF, and the most steps on the way there."""
    return BASE + FACTOR * btf.data_size


class Writer:
    """Makes declarations, of ``limit`` characters at most in all.

    Keeps what alignment needs to be computed once.
    """

    def __init__(self, btf: Btf, limit: int) -> None:
        self.btf = btf
        self._left = limit
        self.layouts = Layouts(btf)
        self._enums: set[int] = set()
        """Those without a name that are written out: their enumerators are defined once."""

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return self._left < 0

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
        if len(proto.params) == 1 and not proto.params[0].type and not proto.params[0].name:
            return ""  # a function without a prototype; C has no (...) before C23
        texts = []
        for index, param in enumerate(proto.params):
            if not param.type and not param.name and index == len(proto.params) - 1:
                texts.append(_ELLIPSIS)
            else:
                texts.append(self.declare(param.type, param.name, depth + _PROTO_DEPTH))
                self._left -= 2 + len(param.name)
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
        if found.kind in ENUMS:
            if found.id in self._enums:
                word = _INTEGERS.get(found.size, "int")
                signed = any(each.value < 0 for each in found.enumerators)
                return word if signed else f"unsigned {word}"
            self._enums.add(found.id)
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
        layout = self.layouts.of(found, depth)
        inner = f"{indent}\t"
        lines: list[str] = []
        for index, member in enumerate(found.members):
            padding = layout.before.get(index, ())
            self._left -= len(member.name) + sum(len(inner) + len(line) for line in padding)
            self._left -= len(inner) + len(layout.attributes.get(index, ""))
            if self._left < 0:
                break
            text = self.declare(member.type, member.name, depth, inner)
            bits = self.layouts.bits_of(member)[1]
            if bits is not None:
                text += f": {bits}"
            words = [text, layout.attributes.get(index, ""), *self._decl_tags(found.id, index)]
            text = " ".join(filter(None, words)) + ";" + layout.comments.get(index, "")
            lines += [*padding, text]
        self._left -= sum(len(inner) + len(line) for line in layout.end)
        if self._left >= 0:
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
        if found.kind in (*_WORDS, Kind.TYPEDEF, Kind.VAR):
            return self._definition(found)
        before = self._left
        short = self._left = min(before, TYPE_LIMIT)
        text = self._definition(found)
        self._left += before - short
        return text

    def _definition(self, found: Type) -> str:
        btf = self.btf
        if found.kind == Kind.FWD or (found.kind in ENUMS and not found.vlen):
            return f"{self._base(found, 0, None)};"
        if found.kind in _WORDS:
            self._enums.add(found.id)
            return f"{self.body(found, '')};"
        if found.kind == Kind.TYPEDEF:
            text = "typedef " + self.declare(found.type, found.name, 0, "")
        elif found.kind == Kind.FUNC:
            text = ("static ", "", "extern ")[found.linkage] if found.linkage < 3 else ""
            text += self.declare(found.type, _identifier(found.name))
        elif found.kind == Kind.VAR:
            text = ("static ", "", "extern ")[found.linkage] if found.linkage < 3 else ""
            text += self.declare(found.type, _identifier(found.name), 0, "")
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


_KNOWN: Final = frozenset(Kind)


def _grouped(declarator: str) -> str:
    return f"({declarator})" if declarator.startswith("*") else declarator


def _identifier(name: str) -> str:
    """A name as C takes one: Clang calls the statics of functions ``f.x``."""
    if name.isidentifier() or not name:
        return name
    return f"{re.sub(r'[^0-9A-Za-z_]', '_', name)} /* {name.replace('*/', '* /')} */"


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
    return Writer(btf, TYPE_LIMIT).declare(type_id, name)


def func_prototype(btf: Btf, func_id: int) -> str | None:
    """``int hello_world(void *ctx)`` of a FUNC; None where the id is no FUNC's."""
    if btf.kind(func_id) != Kind.FUNC:
        return None
    return Writer(btf, TYPE_LIMIT).declare(func_id, "")


def declarations(btf: Btf, roots: Iterable[int] | None = None) -> Iterator[str]:
    """Declarations of all types of that BTF (or of ``roots`` and what they need), as `ordered`."""
    writer = Writer(btf, budget(btf))
    for type_id, whole in ordered(btf, roots):
        found = btf.type(type_id)
        if found is None:
            continue
        if writer.spent:
            yield f"/* {_ELLIPSIS} */"
            return
        yield writer.definition(found) if whole else f"{writer.declare(type_id, '')};"


def ordered(btf: Btf, roots: Iterable[int] | None = None) -> Iterator[tuple[int, bool]]:
    """Ids of what can be declared, in an order in which C takes the declarations.

    What a struct holds by value comes before it; with it comes False before
    that for each struct or union which it only points at, if not declared yet.
    """
    left = _Work(budget(btf))
    inner = _written_within(btf) if roots is None else frozenset()
    done: set[int] = set()
    declared: set[int] = set()  # structs and unions whose names are known
    for root in btf.ids if roots is None else roots:
        if root in done or root in inner or not _is_declared(btf.type(root)):
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


def _written_within(btf: Btf) -> frozenset[int]:
    """Enums without a name that another type holds, which writes them out."""
    nameless = {
        each for each in btf.ids if btf.kind(each) in ENUMS and not btf.name(each)
    }
    held: set[int] = set()
    for each in btf.ids if nameless else ():
        found = btf.type(each)
        if found is None or found.kind in ENUMS or found.kind == Kind.DECL_TAG:
            continue
        held.update(member.type for member in found.members)
        held.add(found.type)
    return frozenset(nameless & held)


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
