"""What the kernel made of a program: listings of its translated and of its native code.

Of a ``KernelView``, as it was recorded in a trace or asked for a moment ago, and of what is
known besides: BTF, names of maps.  Text is bpftool's; what the kernel kept back is said to be
hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from bpftrace_sys.story.context import AS_IT_IS, Layout, loaded_layout, named, type_of
from bpftrace_sys.story.listing import all_short, functions, listing_of, name_room, short_enough
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.notes import Listing
from bpftrace_sys.story.objects import Object
from bpftrace_sys.trace.kernel_view import KernelView
from decoders.formats import insn as isa
from decoders.formats import prog_symbols
from decoders.formats.insn_text import InsnNames, Line
from decoders.formats.insn_text import listing as insn_lines
from decoders.formats.native import NoDisassemblerError, disassemble
from decoders.records import NamedTuple, dataclass, field

if TYPE_CHECKING:
    from decoders.formats.btf import Btf

MACHINES: Final = {"x86_64": "x86-64", "aarch64": "aarch64"}
LISTED: Final = 8 * isa.LISTED
"""Bytes of native code that are listed: an instruction becomes some four to eight."""
_MASK: Final = (1 << 64) - 1
_AX: Final = 11
"""BPF_REG_AX, which only the kernel uses (include/linux/filter.h)."""


def _nothing(type_id: int, off: int) -> str | None:
    return None


@dataclass(frozen=True)
class Known:
    """What is known of a program besides the kernel's view."""

    btf: Btf | None = None
    """Its BTF, or None."""
    maps: Mapping[int, str] = field(default_factory=dict)
    """Names by id."""
    kfunc: Callable[[int, int], str | None] = _nothing
    """A kernel function by BTF id and by module (0 is vmlinux)."""
    layout: Layout | None = None
    """Of its context, where the verifier leaves accesses to that as they are."""


@dataclass
class Seen:
    """A program's view, with what the trace knows of the program."""

    view: KernelView
    known: Known
    prog: Object | None = None
    loaded: Listing | None = None
    """The listing of what user space passed, where that was seen."""
    probe: bool = False
    """Whether it was loaded only to see whether it can be."""


def seen(view: KernelView, model: Model) -> Seen:
    """A view from a trace, when its load has just been told."""
    info = view.info
    prog = model.objects.get(("prog", info.id)) if info.id else None
    call = None if prog is None else prog.call
    layout = None
    if call is not None and type_of(call) in AS_IT_IS:
        layout = loaded_layout(call, model.facts)
    return Seen(
        view,
        Known(_btf(view, model), _map_names(view, model), _kfuncs(model), layout),
        prog,
        None if call is None else listing_of(call, model),
        call is not None and call.notes.is_probe,
    )


def _btf(view: KernelView, model: Model) -> Btf | None:
    found = model.btf(view.info.btf_id) if view.info.btf_id else None
    if found is None and view.btf:
        from decoders.formats import btf

        try:
            return btf.parse(view.btf)
        except btf.BtfError:
            return None
    return found


def _map_names(view: KernelView, model: Model) -> dict[int, str]:
    names = {}
    for number in view.info.map_ids:
        known = model.objects.get(("map", number))
        name = known.name if known is not None else model.facts.fact("map", number)
        if name:
            names[number] = name
    return names


def _kfuncs(model: Model) -> Callable[[int, int], str | None]:
    return lambda type_id, off: None if off else model.facts.fact("btf_vmlinux", type_id)


class NativeLine(NamedTuple):
    """An instruction of native code in a listing."""

    offset: int
    """Bytes from its function's beginning."""
    text: str
    code: bytes
    target: int | None
    """The address that it calls, jumps to or loads, outside of the function."""
    source: str | None = None
    where: str | None = None


@dataclass(frozen=True)
class NativeFunction:
    """The native code of one function."""

    symbol: str
    addr: int
    """0: hidden."""
    prototype: str
    size: int
    lines: list[NativeLine]
    unlisted: int = 0
    """Bytes of it that have no lines: more than LISTED of all functions."""


# ---------------------------------------------------------------- listings


def _places(view: KernelView, btf: Btf | None) -> list[tuple[int, str, str]]:
    """(slot, source line, where) of each record of line_info, in order."""
    if btf is None:
        return []
    found = []
    for slot, file_off, line_off, line_col in view.info.line_info:
        where = f"{btf.string(file_off)}:{line_col >> 10}:{line_col & 0x3FF}"
        found.append((slot, btf.string(line_off).strip(), where))
    return found


def _prototypes(view: KernelView, btf: Btf | None) -> list[tuple[int, str]]:
    """(slot, prototype) of each function, in order."""
    if btf is None:
        return []
    return [(slot, prototype) for slot, _, prototype in functions(btf, view.info.func_info)]


def names_of(view: KernelView, known: Known) -> InsnNames:
    """How translated instructions name what they call and load."""

    room = name_room(view.info.xlated)

    def address(distance: int) -> str | None:
        where = (view.call_base + distance) & _MASK
        return short_enough(view.symbols.get(where), room) if view.call_base else None

    def kfunc(type_id: int, off: int) -> str | None:
        return short_enough(known.kfunc(type_id, off), room)

    # Without addresses an index says nothing: a call's imm is zeroed with them.
    compiled = bool(view.info.ksyms)
    return InsnNames(
        maps=all_short(known.maps, room),
        symbols=prog_symbols.own(view.info, known.btf) if compiled else (),
        kfunc=kfunc,
        address=address,
        xlated=True,
    )


def translated(view: KernelView, known: Known) -> Listing:
    """The listing of the instructions that the verifier left, in bpftool's words."""
    program = isa.listed(view.info.xlated)
    lines = {slot: (text, where) for slot, text, where in reversed(_places(view, known.btf))}
    functions = dict(_prototypes(view, known.btf))
    about = named(program, known.layout)

    def rows() -> Iterator[Line]:
        for row in insn_lines(program, names_of(view, known)):
            source, where = lines.get(row.pc, (None, None))
            yield row._replace(
                comment=row.comment or about.get(row.pc), source=source, where=where,
                function=functions.get(row.pc),
            )  # fmt: skip

    count = view.info.xlated_len // isa.SLOT
    there = len(view.info.xlated) // isa.SLOT
    starts = sum(1 for insn in program if insn.pc in functions)
    return Listing(
        list(rows()), count, missing=max(count - there, 0), functions=starts,
        unlisted=there - isa.slots_of(program),
    )  # fmt: skip


def native(view: KernelView, known: Known, syntax: str = "att") -> list[NativeFunction]:
    """The listing of the native code, function by function; raises NoDisassemblerError."""
    info = view.info
    own = prog_symbols.own(info, known.btf)
    ksyms = dict(zip(info.ksyms, own, strict=False))
    places = _places(view, known.btf)
    at: dict[int, tuple[str, str]] = {}
    for addr, (_, text, where) in zip(info.jited_line_info, places, strict=False):
        at.setdefault(addr, (text, where))
    prototypes = [text for _, text in _prototypes(view, known.btf)]

    def name(addr: int) -> str | None:
        return ksyms.get(addr) or view.symbols.get(addr)

    found = []
    left = LISTED
    for index, (addr, code) in enumerate(() if of_device(view) else info.functions()):
        listed = code[:left]
        left -= len(listed)
        lines = []
        for insn in disassemble(listed, addr, view.machine, syntax, name):
            source, place = at.get(addr + insn.offset, (None, None))
            text, octets = insn.text, code[insn.offset : insn.offset + insn.size]
            lines.append(NativeLine(insn.offset, text, octets, insn.target, source, place))
        if len(listed) < len(code) and lines:
            listed = listed[: lines.pop().offset]  # it may be the half of an instruction
        found.append(
            NativeFunction(
                own[index] if index < len(own) else f"function {index}",
                addr,
                prototypes[index] if index < len(prototypes) else "",
                len(code),
                lines,
                len(code) - len(listed),
            )
        )
    return found


# ---------------------------------------------------------------- what is missing, and why


def of_device(view: KernelView) -> bool:
    """Whether its native code is that of a device which it is offloaded to: the kernel then has
    no symbols of it (bpf_prog_offload_info_fill() in kernel/bpf/offload.c)."""
    info = view.info
    return bool(info.ifindex) and not info.ksyms and not info.hidden("jited_ksyms")


def blinded(view: KernelView) -> bool:
    """Whether constants were hidden in the code (net.core.bpf_jit_harden).

    bpf_jit_blind_insn() in kernel/bpf/core.c makes each of a random number, moved into BPF_REG_AX,
    and of another, XORed with it.
    """
    before = None
    for insn in isa.insns(view.info.xlated):
        if insn.dst == _AX and before is not None and before.dst == _AX:
            mov, xor = before.code & ~isa.ALU64, insn.code & ~isa.ALU64
            if mov & 0xF8 == isa.MOV and xor & 0xF8 == isa.XOR and insn.code & 7 == before.code & 7:
                return True
        before = insn
    return False


def reasons(view: KernelView) -> Iterator[str]:
    """What the kernel kept back, or changed besides, and why; each a sentence."""
    info = view.info
    if view.problem:
        yield f"the kernel's view is missing: {view.problem}"
        return
    if not info.xlated_len:
        yield "the kernel gives no instructions: this needs CAP_BPF"
        return
    if info.hidden("xlated_prog_insns"):
        yield (
            "its translated instructions are hidden: their constants are blinded "
            "(net.core.bpf_jit_harden), and kernel addresses are not to be seen"
        )
    helpers = any(isa.callees(info.xlated))
    if of_device(view):
        yield f"offloaded to the device with ifindex {info.ifindex}: no native code of this machine"
    elif not info.jited_len:
        yield "not compiled: the kernel interprets it (net.core.bpf_jit_enable)"
    elif info.hidden("jited_prog_insns"):
        yield (
            "its native code is hidden: this needs CAP_SYSLOG, and kernel.kptr_restrict below 2"
        )
    if helpers and not view.call_base:
        yield (
            "names of what it calls are hidden: this needs CAP_SYSLOG, and "
            "kernel.kptr_restrict below 2"
        )
    if blinded(view):
        yield "constants are blinded (net.core.bpf_jit_harden): r11 holds them for a moment"


__all__ = ["Known", "NativeFunction", "NativeLine", "NoDisassemblerError", "native", "translated"]
