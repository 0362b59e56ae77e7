"""What a BPF instruction looks like in text.

The dialect is the one of the kernel's verifier log and of ``bpftool prog dump
xlated``, kernel/bpf/disasm.c as of Linux 7.1, codes without a meaning
included: docs/instructions.md has the whole of it.  Here it is data: one
wording for each of the 256 codes (``WORDINGS``), and the variants of a code
that another field selects (``VARIANTS``).

``text()`` is that dialect.  What the kernel does not say, such as the
characters that an immediate spells, is for ``comment()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice, zip_longest
from operator import itemgetter
from typing import Any, Final, TypeAlias

from decoders.formats import insn as isa
from decoders.formats.insn import Buffer, Insn, TargetKind
from decoders.formats.insn_wordings import VARIANTS, WORDINGS
from decoders.formats.poison import poison
from decoders.records import NamedTuple, dataclass, field
from decoders.uapi.helpers import bpf_func_id

# ---------------------------------------------------------------------------
# Names that the caller knows


def _nothing(*_: int) -> None:
    return None


@dataclass(frozen=True, slots=True)
class InsnNames:
    """What the caller knows about what the numbers of a program mean.

    All of it is optional.  Names may come from a tracee and hold anything;
    what is not printable is escaped when it is printed.
    """

    maps: Mapping[int, str] = field(default_factory=dict)
    """By fd; by map id where ``xlated``."""
    fd_array: Mapping[int, str] = field(default_factory=dict)
    """Maps by index into fd_array."""
    subprogs: Mapping[int, str] = field(default_factory=dict)
    """By the pc at which they start."""
    kfunc: Callable[[int, int], str | None] = _nothing
    """By BTF id, and by off (0 is vmlinux, another number an index into fd_array)."""
    variable: Callable[[int, int], str | None] = _nothing
    """A kernel variable by BTF id, and by the fd of its BTF (0 is vmlinux)."""
    address: Callable[[int], str | None] = _nothing
    """Where ``xlated``: the function at this distance from __bpf_call_base."""
    symbols: Sequence[str] | None = None
    """Where ``xlated``: what the kernel calls the functions, by the index that a call's imm is;
    empty where they are not compiled, or hidden.  None: they are called as in ``subprogs``."""
    xlated: bool = False
    """The instructions are those that the kernel gives back, not those that it was given:
    maps are ids, a call's imm is a distance, a subprogram's distance is in off.  The wording
    is then the one of ``bpftool prog dump xlated``."""


def _clean(name: str) -> str:
    return name if name.isprintable() else name.encode("unicode_escape").decode("ascii")


# ---------------------------------------------------------------------------
# Wording

_Form: TypeAlias = tuple[str, Callable[[Any], Any]]
"""A wording for the % operator, and what picks its fields from an Insn: a third of
str.format's time."""


def _form(wording: str) -> _Form | None:
    """None where fields stand in a wording that have to be made."""
    head, *pieces = wording.replace("%", "%%").split("{")
    names = []
    for piece in pieces:
        field_, literal = piece.split("}")
        name, _, spec = field_.partition(":")
        names.append(name)
        head += f"%{spec or 'd'}{literal}"
    if not {"dst", "src", "off", "imm", "uimm"}.issuperset(names) or {"imm", "uimm"} <= {*names}:
        return None
    if not names:
        return head, lambda insn: ()
    pick = itemgetter(*(Insn._fields.index(name.removeprefix("u")) for name in names))
    if "uimm" in names:
        return head, lambda insn: pick((*insn[:5], insn[5] & 0xFFFFFFFF))
    return head, pick


_FORMS: Final[list[_Form | None]] = [None] * 256
"""By code, of those that were there before; what has variants is not among them."""
_VARIANT_FORMS: Final[dict[str, _Form | None]] = {}
"""Of the others, by wording."""
_BY: Final = {code: Insn._fields.index(row.by) for code, row in VARIANTS.items()}
"""Where the field that selects a variant stands in an Insn."""


def _form_of(insn: Sequence[Any]) -> _Form | None:
    """An instruction's form, made when it comes for the first time: few programs have all."""
    code = insn[1]
    if code not in _BY:
        form = _FORMS[code] = _form(WORDINGS[code])
        return form
    wording = VARIANTS[code].wordings.get(insn[_BY[code]], WORDINGS[code])
    if wording not in _VARIANT_FORMS:
        _VARIANT_FORMS[wording] = _form(wording)
    return _VARIANT_FORMS[wording]


def _unnamed(insn: Sequence[Any]) -> str:
    """The text of an instruction, without names; ``insn`` are the fields of an Insn."""
    form = _FORMS[insn[1]]
    if form is None:
        form = _form_of(insn)
        if form is None:
            return _rare(0, *insn[1:7])
    wording, pick = form
    said: str = wording % pick(insn)
    return said


# What fills a memo comes from a tracee: it is bounded.
@lru_cache(maxsize=1 << 12)
def _rare(*insn: Any) -> str:
    """The text where fields are shown that have to be made: calls of helpers, ld_imm64."""
    _, code, dst, src, off, imm, next_imm = insn
    wording = WORDINGS[code]
    if code in _BY:
        wording = VARIANTS[code].wordings.get(insn[_BY[code]], wording)
    name = ""
    if "{name}" in wording:
        known = bpf_func_id.get(imm)
        name = "unknown" if known is None else f"bpf_{known}"
    unsigned = imm & 0xFFFFFFFF
    said: str = wording.format(
        dst=dst,
        src=src,
        off=off,
        imm=imm,
        uimm=unsigned,
        imm64=((next_imm or 0) & 0xFFFFFFFF) << 32 | unsigned,
        to=unsigned >> 16,
        origin=unsigned & 0xFFFF,
        name=name,
    )
    return said


_CALL_CODES: Final = frozenset(
    kind | isa.CALL | operand for kind in (isa.JMP, isa.JMP32) for operand in (isa.K, isa.X)
)


def _named_call(insn: Insn, names: InsnNames) -> str | None:
    if insn.src == isa.PSEUDO_CALL:
        distance = insn.off if names.xlated else insn.imm
        if names.symbols is None:
            name = names.subprogs.get(insn.pc + 1 + distance)
        else:
            name = names.symbols[insn.imm] if 0 <= insn.imm < len(names.symbols) else None
        suffix = "" if name is None else f"#{_clean(name)}"
        return f"({insn.code:02x}) call pc{distance:+d}{suffix}"
    found = None
    if names.xlated and insn.imm == 0:
        # bpf_insn_prepare_dump() has taken the distance away; there is no helper 0.
        return f"({insn.code:02x}) call hidden#0"
    if insn.src == 0 and insn.imm in bpf_func_id:
        return None
    if names.xlated:
        found = names.address(insn.imm)
    if found is None and insn.src == isa.PSEUDO_KFUNC_CALL:
        # Where the JIT calls as far as it likes, a kfunc's BTF id stays in place.
        found = names.kfunc(insn.imm, insn.off)
    return None if found is None else f"({insn.code:02x}) call {_clean(found)}#{insn.imm}"


# What bpftool prints for an ld_imm64 of each src_reg in a translated program.
_XLATED_IMM: Final[dict[int, str]] = {
    isa.PSEUDO_MAP_FD: "map[id:{imm}]",
    isa.PSEUDO_MAP_VALUE: "map[id:{imm}][0]+{offset}",
    isa.PSEUDO_MAP_IDX_VALUE: "map[idx:{imm}]+{offset}",
    isa.PSEUDO_FUNC: "subprog[{imm:+d}]",
}


def text(insn: Insn, names: InsnNames | None = None) -> str:
    """One instruction in the kernel's dialect, such as ``(b7) r1 = 33``.

    With ``names``, a call of a subprogram is followed by ``#`` and its name,
    as bpftool does it, and a kfunc is named, as the verifier and bpftool do.
    Never raises, whatever the instruction holds.  An ld_imm64 without its
    second slot is printed as if that held zero.
    """
    code = insn.code
    if names is not None:
        special = None
        if code in _CALL_CODES:
            special = _named_call(insn, names)
        elif code == isa.LD_IMM64 and names.xlated and insn.src in _XLATED_IMM:
            value = _XLATED_IMM[insn.src].format(imm=insn.imm, offset=insn.next_imm or 0)
            special = f"({code:02x}) r{insn.dst} = {value}"
        if special is not None:
            return special
    return _unnamed(insn)


def disasm(data: Buffer) -> Iterator[str]:
    """The lines of a listing in the plain dialect: pc, a colon, the text."""
    for insn in isa.slots(data):
        yield f"{insn[0]:4}: {_unnamed(insn)}"


# ---------------------------------------------------------------------------
# Comments: what the kernel does not say

_MOV_K: Final = frozenset((isa.ALU64 | isa.MOV | isa.K, isa.ALU | isa.MOV | isa.K))
_GRAPHIC: Final = frozenset(range(0x21, 0x7F))
_TEXT: Final = _GRAPHIC | frozenset(b" \t\n")
_ESCAPES: Final = str.maketrans({"\t": "\\t", "\n": "\\n"})


def _characters(data: bytes) -> str:
    """The ASCII that bytes spell, up to the NULs at their end; empty where they spell none."""
    spelled = data.rstrip(b"\0")
    if not _TEXT.issuperset(spelled) or _GRAPHIC.isdisjoint(spelled):
        return ""
    # A comment that closed itself would be two.
    return spelled.decode("ascii").translate(_ESCAPES).replace("*/", "*\\/")


def _spelled(insn: Insn, following: Insn | None) -> str | None:
    code, kind = insn.code, insn.code & 7
    stored = 0
    if code in _MOV_K:
        if (
            following is not None
            and following.code & 0xE7 == isa.STX | isa.MEM
            and following.src == insn.dst
        ):
            stored = isa.SIZE_BYTES[following.code & 0x18]
        elif 0 <= insn.imm <= 0xFFFF:
            return None  # two characters that do not go to memory: see below
        data = (insn.imm & 0xFFFFFFFF).to_bytes(4, "little")
    elif code == isa.LD_IMM64:
        if insn.src:
            return None
        data = insn.imm64.to_bytes(8, "little")
    elif kind == isa.ST and code & 0xE0 == isa.MEM:
        stored = isa.SIZE_BYTES[code & 0x18]
        data = (insn.imm & 0xFFFFFFFF).to_bytes(4, "little")[:stored]
    else:
        return None
    characters = _characters(data)
    length = len(data.rstrip(b"\0"))
    # Small numbers spell short texts by chance.  One character is a text where
    # it goes to memory in 1 or 2 bytes, as the end of a string does; two are
    # where they go to memory at all.
    likely = length >= 3 or (length == 2 and stored) or (length == 1 and stored in (1, 2))
    return characters if characters and likely else None


def _pseudo(insn: Insn, names: InsnNames) -> str | None:
    def and_name(what: str, name: str | None) -> str:
        return what if name is None else f"{what} {_clean(name)}"

    imm, second = insn.imm, insn.next_imm or 0
    by = "map id" if names.xlated else "map fd"
    match insn.src:
        case isa.PSEUDO_MAP_FD:
            return and_name(f"{by} {imm}", names.maps.get(imm))
        case isa.PSEUDO_MAP_VALUE:
            return and_name(f"{by} {imm}", names.maps.get(imm)) + f", value {second:+d}"
        case isa.PSEUDO_BTF_ID:
            return and_name(f"BTF id {imm}", names.variable(imm, second))
        case isa.PSEUDO_FUNC:
            target = insn.pc + 1 + imm
            return and_name(f"callback at {target}", names.subprogs.get(target))
        case isa.PSEUDO_MAP_IDX:
            return and_name(f"map fd_array[{imm}]", names.fd_array.get(imm))
        case isa.PSEUDO_MAP_IDX_VALUE:
            what = and_name(f"map fd_array[{imm}]", names.fd_array.get(imm))
            return f"{what}, value {second:+d}"
        case 0:
            return None
        case other:
            return f"src_reg {other} has no meaning"


_NO_NAMES: Final = InsnNames()


def comment(
    insn: Insn, names: InsnNames | None = None, following: Insn | None = None
) -> str | None:
    """What is worth saying about an instruction that its text does not say; else None.

    The characters that an immediate spells, in the order in which they lie in
    memory; what the number in an ld_imm64 stands for; and what is wrong with
    its second slot.  ``following`` is the next instruction: a text of one or
    two characters is taken for one only if that stores it.
    """
    if insn.code == isa.LD_IMM64:
        if insn.next_imm is None:
            return "its second slot is missing"
        if insn.next_rest:
            return f"its second slot is not empty: {insn.next_rest:#010x}"
        if insn.src:
            return _pseudo(insn, names or _NO_NAMES)
    return poison(insn) or _spelled(insn, following)


# ---------------------------------------------------------------------------
# Listings


class Line(NamedTuple):
    """One instruction of a listing."""

    pc: int
    text: str
    comment: str | None
    target: TargetKind | None
    """How it is reached, if not only from the line before."""
    source: str | None = None
    """The source line that begins here, for who knows it; so the rest."""
    where: str | None = None
    """File, line and column of the source line."""
    function: str | None = None
    """The prototype of the function that starts here."""


_TAIL_CALL: Final = 12  # BPF_FUNC_tail_call
_NAMED: Final = _CALL_CODES | {isa.LD_IMM64}
"""Codes in whose text or comment names may stand."""
_SPELLING: Final = _MOV_K | {isa.ST | isa.MEM | size for size in isa.SIZE_BYTES}
"""Others whose immediate may spell something."""


def _tail_call(known: Mapping[int, Insn], names: InsnNames) -> str | None:
    """Which entry of which map a tail call takes, from what last set r2 and r3."""
    table, index = known.get(2), known.get(3)
    if table is None or table.code != isa.LD_IMM64 or not table.src:
        return None
    what = _pseudo(table, names)
    if index is not None and index.code in _MOV_K:
        return f"{what}, index {index.imm & 0xFFFFFFFF}"
    return what


def _tail_calls(
    program: Iterable[Insn], reached: Mapping[int, TargetKind], names: InsnNames
) -> dict[int, str | None]:
    """What :func:`_tail_call` says of each tail call, by pc."""
    said: dict[int, str | None] = {}
    if _TAIL_CALL not in {insn.imm for insn in program if insn.code == isa.CALL_K}:
        return said
    constants: dict[int, Insn] = {}
    for insn in program:
        if insn.pc in reached:
            constants.clear()
        if insn.code == isa.CALL_K and insn.src == 0 and insn.imm == _TAIL_CALL:
            said[insn.pc] = _tail_call(constants, names)
        for register in isa.written(insn):
            constants.pop(register, None)
        if insn.code == isa.LD_IMM64 or insn.code in _MOV_K:
            constants[insn.dst] = insn
    return said


def listing(program: Iterable[Insn], names: InsnNames | None = None) -> Iterator[Line]:
    """Yield the lines of a listing: text, comment, and the marks of targets.

    A tail call's comment says into which map it goes, and at which index, where
    the instructions before it set both to constants.
    """
    again = list(program) if isinstance(program, Iterator) else program
    return map(partial(tuple.__new__, Line), _rows(again, names))  # as in isa.insns()


def _rows(program: Iterable[Insn], names: InsnNames | None) -> Iterator[tuple[Any, ...]]:
    """The fields of each Line."""
    known_names = names or _NO_NAMES
    reached = isa.targets(program, xlated=known_names.xlated)
    tails = _tail_calls(program, reached, known_names)
    for insn, following in zip_longest(program, islice(program, 1, None)):
        pc, code = insn.pc, insn.code
        if code in _NAMED:
            said = tails[pc] if pc in tails else comment(insn, names, following)
            shown = text(insn, names)
        else:
            said = _spelled(insn, following) if code in _SPELLING else None
            shown = _unnamed(insn)
        yield pc, shown, said, reached.get(pc), None, None, None
