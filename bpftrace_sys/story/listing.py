"""A program's listing: instructions with source lines, functions and names.

Joins what a PROG_LOAD passed (instructions, func_info, line_info, fd_array) with
what the model knows (BTF, maps).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.notes import Listing
from bpftrace_sys.story.objects import NotedCall, Object
from decoders.call import Call, inner_value
from decoders.formats import insn as isa
from decoders.formats.insn_text import InsnNames, Line
from decoders.formats.insn_text import listing as insn_lines
from decoders.formats.tag import tags
from decoders.raw import EXIT, FdFact
from decoders.records import NamedTuple
from decoders.values import Array, Fd, Insns, Int, Struct, Value

if TYPE_CHECKING:
    from decoders.formats.btf import Btf

LETTERS: Final = 8 << 20
"""Letters of names that a listing may consist of, if each instruction has one."""
LEAST: Final = 64
"""Letters of a name that stands in listings of any length."""


def records(value: Value | None, *names: str) -> list[tuple[int, ...]]:
    """Fields of each struct of an array behind a pointer."""
    found = inner_value(value)
    rows = []
    for item in found.items if isinstance(found, Array) else ():
        if isinstance(item, Struct):
            fields = dict(item.fields)
            rows.append(
                tuple(
                    part.value if isinstance(part := fields.get(name), Int) else 0
                    for name in names
                )
            )
    return rows


def _map_names(call: Call, model: Model) -> tuple[dict[int, str], dict[int, str]]:
    """Map names by fd, and by index of fd_array."""
    by_fd: dict[int, str] = {}
    for fact in call.raw.fds:
        if fact.stage != EXIT and fact.kind == "map":
            found = model.object(fact, call.raw.pid)
            if found is not None:
                by_fd[fact.fd] = _short(found)
    by_index: dict[int, str] = {}
    array = inner_value(call.attr("attr", "fd_array"))
    for index, item in enumerate(array.items if isinstance(array, Array) else ()):
        if isinstance(item, Fd) and item.value in by_fd:
            by_index[index] = by_fd[item.value]
    return by_fd, by_index


def _short(found: Object) -> str:
    return found.name or f"id={found.id}"


def btf_fd(call: Call) -> FdFact | None:
    """The BTF that a load was given."""
    return call.fact("attr", "prog_btf_fd")


def listing_of(call: NotedCall, model: Model) -> Listing | None:
    """The listing of a PROG_LOAD, or None where no instructions were seen."""
    if call.notes.listing is not None:
        return call.notes.listing
    insns = inner_value(call.attr("attr", "insns"))
    if not isinstance(insns, Insns):
        return None
    call.notes.listing = listing(call, insns, model)
    return call.notes.listing


def listing_for(call: NotedCall, insns: Insns, model: Model) -> Listing | None:
    """The listing of instructions in a call: loaded, or given back by the kernel."""
    command = call.command
    if command.startswith("BPF_PROG_LOAD"):
        return listing_of(call, model)
    return translated(call, insns, model) if command.startswith("BPF_OBJ_GET_INFO") else None


def functions(btf: Btf, found: Iterable[tuple[int, ...]]) -> Iterator[tuple[int, str, str]]:
    """Of each record of func_info: where, the function's name, and its prototype."""
    from decoders.formats import btf_c

    known: dict[int, tuple[str, str]] = {}
    left = btf_c.budget(btf)
    for off, type_id in found:
        if type_id not in known:
            name = btf.name(type_id)
            known[type_id] = (name, btf_c.func_prototype(btf, type_id) or name)
        name, prototype = known[type_id]
        # Many records may name one function, whose prototype may be long.
        left -= len(prototype)
        yield off, name, prototype if left > 0 else name


class _Debug(NamedTuple):
    """What BTF says of a program, by the pc at which it begins."""

    lines: dict[int, tuple[str, str]]
    functions: dict[int, str]
    names: dict[int, str]


def _debug(btf: Btf | None, func_info: Value | None, line_info: Value | None) -> _Debug:
    found = _Debug({}, {}, {})
    if btf is None:
        return found
    for off, name, prototype in functions(btf, records(func_info, "insn_off", "type_id")):
        found.names[off] = name
        found.functions[off] = prototype
    for off, file_off, line_off, line_col in records(
        line_info, "insn_off", "file_name_off", "line_off", "line_col"
    ):
        where = f"{btf.string(file_off)}:{line_col >> 10}:{line_col & 0x3FF}"
        found.lines[off] = (btf.string(line_off).strip(), where)
    return found


def name_room(insns: bytes) -> int:
    """Letters of a name in a listing: each instruction may name the same one."""
    return max(LEAST, LETTERS // (len(insns) // isa.SLOT + 1))


def short_enough(name: str | None, room: int) -> str | None:
    """A name, if it is not longer than that."""
    return name if name is not None and len(name) <= room else None


def all_short(names: Mapping[int, str], room: int) -> Mapping[int, str]:
    """The names that are not longer than that."""
    return {number: name for number, name in names.items() if len(name) <= room}


def translated(call: NotedCall, insns: Insns, model: Model) -> Listing:
    """The xlated_prog_insns of an OBJ_GET_INFO_BY_FD, in the words of bpftool."""
    if call.notes.translated is not None:
        return call.notes.translated
    info = ("attr", "info", "info")
    btf_id = call.number(*info, "btf_id")
    debug = _debug(
        model.btf(btf_id) if btf_id else None,
        call.attr(*info, "func_info"),
        call.attr(*info, "line_info"),
    )
    maps: dict[int, str] = {}
    ids = inner_value(call.attr(*info, "map_ids"))
    for item in ids.items if isinstance(ids, Array) else ():
        if isinstance(item, Int):
            known_map = model.objects.get(("map", item.value))
            name = known_map.name if known_map else model.facts.fact("map", item.value)
            if name:
                maps[item.value] = name
    room = name_room(insns.data)
    names = InsnNames(
        maps=all_short(maps, room),
        subprogs=all_short(debug.names, room),
        address=lambda distance: short_enough(model.facts.fact("bpf_call", distance), room),
        xlated=True,
    )
    call.notes.translated = _listing(insns, names, debug, isa.listed(insns.data), {})
    return call.notes.translated


def listing(call: Call, insns: Insns, model: Model) -> Listing:
    """Joins instructions with the BTF, lines and functions of their load."""
    debug = _debug(
        model.btf_of(btf_fd(call)),
        call.attr("attr", "func_info"),
        call.attr("attr", "line_info"),
    )
    maps, by_index = _map_names(call, model)

    room = name_room(insns.data)

    def kfunc(type_id: int, off: int) -> str | None:
        return short_enough(model.facts.fact("btf_vmlinux", type_id) if off == 0 else None, room)

    def variable(type_id: int, fd: int) -> str | None:
        return short_enough(model.facts.fact("btf_vmlinux", type_id) if fd == 0 else None, room)

    names = InsnNames(
        maps=all_short(maps, room),
        fd_array=all_short(by_index, room),
        subprogs=all_short(debug.names, room),
        kfunc=kfunc,
        variable=variable,
    )
    program = isa.listed(insns.data)
    found = _listing(insns, names, debug, program, _accesses(program, call, model))
    if not insns.missing and not insns.unread:
        computed = tags(insns.data)
        found.sha1, found.sha256 = computed.sha1, computed.sha256
    sites = isa.callees(insns.data)
    found.helpers = sorted({site.id for site in sites if site.kind == "helper"})
    return found


def _accesses(program: Sequence[isa.Insn], call: Call, model: Model) -> dict[int, str]:
    """What the program reads of its context, as comments, by pc."""
    from bpftrace_sys.story.context import loaded_layout, named

    return named(program, loaded_layout(call, model.facts))


def _listing(
    insns: Insns,
    names: InsnNames,
    debug: _Debug,
    program: Sequence[isa.Insn],
    about: Mapping[int, str],
) -> Listing:
    lines, functions = debug.lines, debug.functions

    def rows() -> Iterator[Line]:
        for row in insn_lines(program, names):
            pc = row.pc
            if pc in lines or pc in functions:
                source, where = lines.get(pc, (None, None))
                row = row._replace(source=source, where=where, function=functions.get(pc))
            yield row if row.comment is not None or pc not in about else (
                row._replace(comment=about[pc])
            )

    found = list(rows() if lines or functions or about else insn_lines(program, names))
    starts = sum(1 for insn in program if insn.pc in functions) if functions else 0
    return Listing(
        found, insns.total, missing=insns.missing, unread=insns.unread, why=insns.why,
        functions=starts, unlisted=len(insns.data) // isa.SLOT - isa.slots_of(program),
    )  # fmt: skip
