"""The instructions of a program, with objects and names for fds, ids and addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bpftrace_sys.compare.canonical.entries import Line
from bpftrace_sys.compare.canonical.text import digest, escaped
from bpftrace_sys.story.listing import btf_fd, functions, name_room, records, short_enough
from bpftrace_sys.story.objects import NotedCall
from decoders.call import inner_value
from decoders.formats import insn as isa
from decoders.formats import insn_text
from decoders.raw import ENTRY, EXIT
from decoders.values import Array, Fd, Insns

if TYPE_CHECKING:
    from bpftrace_sys.compare.canonical.known import Known


def nameless(data: bytes, start: int) -> bytes:
    """Instructions from a slot on, without the numbers by which they name maps and types, which
    are others in another run."""
    found = bytearray(data[start * isa.SLOT :])
    for insn in isa.naming(bytes(found)):
        if insn.wide or insn.src == isa.PSEUDO_KFUNC_CALL:
            at = insn.pc * isa.SLOT + 4
            found[at : at + 4] = bytes(4)
    return bytes(found)


class Instructions:
    """The instructions of one PROG_LOAD."""

    def __init__(self, known: Known, call: NotedCall) -> None:
        self.known = known
        self.call = call
        self.objects = call.notes.objects
        self.sources: dict[int, str] = {}
        """Source lines by the pc at which they begin."""
        self.functions: dict[int, str] = {}
        """Prototypes by the pc of the first instruction."""
        self.subprogs: dict[int, str] = {}
        """Names by the same."""
        self.rest = 0
        """Once the lines were gone through: slots that the last one stands for."""
        insns = inner_value(call.attr("attr", "insns"))
        self.room = name_room(insns.data if isinstance(insns, Insns) else b"")
        btf = known.model.btf_of(btf_fd(call))
        if btf is None:
            return
        found = records(call.attr("attr", "func_info"), "insn_off", "type_id")
        for off, name, prototype in functions(btf, found):
            if short_enough(name, self.room):
                self.subprogs[off] = escaped(name)
            self.functions[off] = escaped(prototype)
        for off, line_off in records(call.attr("attr", "line_info"), "insn_off", "line_off"):
            self.sources[off] = escaped(btf.string(line_off).strip())

    def lines(self, data: bytes) -> Iterator[Line]:
        """A line for each instruction that is shown, and one for the rest."""
        shown = isa.listed(data)
        end, total = isa.slots_of(shown), len(data) // isa.SLOT
        self.rest = total - end
        for insn in shown:
            text, jump = self.insn(insn)
            if jump is not None and end < jump < total:
                text, jump = f"{text} {jump - insn.pc:+d} slots", None
            yield self.known.once(
                Line(insn.pc, text, jump, self.sources.get(insn.pc), self.functions.get(insn.pc))
            )
        if self.rest:
            text = f"{self.rest} more instructions, {digest(nameless(data, end))}"
            yield Line(end, text, None, None, None)

    def insn(self, insn: isa.Insn) -> tuple[str, int | None]:
        """The text, with objects and names for fds and ids; where it leads to."""
        if insn.code == isa.LD_IMM64 and insn.src:
            return self.wide(insn)
        if insn.code == isa.CALL_K and insn.src:
            target = isa.call_target(insn)
            if target is not None:
                name = self.subprogs.get(target)
                if name:
                    return f"({insn.code:02x}) call {name}", None
                return f"({insn.code:02x}) call a subprogram", target
            if insn.src == isa.PSEUDO_KFUNC_CALL and insn.off == 0:
                name = self.vmlinux(insn.imm)
                if name:
                    return f"({insn.code:02x}) call {escaped(name)}", None
        text = insn_text.text(insn)
        distance = isa.jump_distance(insn)
        if distance is not None:
            cut = text.rfind(" pc")
            if cut >= 0:
                return text[:cut], insn.pc + 1 + distance
        return text, None

    def wide(self, insn: isa.Insn) -> tuple[str, int | None]:
        head = f"({insn.code:02x}) r{insn.dst} = "
        second = insn.next_imm or 0
        jump = None
        if insn.src in (isa.PSEUDO_MAP_FD, isa.PSEUDO_MAP_VALUE):
            text = self.map_of(insn.imm)
        elif insn.src in (isa.PSEUDO_MAP_IDX, isa.PSEUDO_MAP_IDX_VALUE):
            array = inner_value(self.call.attr("attr", "fd_array"))
            items = array.items if isinstance(array, Array) else ()
            item = items[insn.imm] if 0 <= insn.imm < len(items) else None
            text = self.map_of(item.value) if isinstance(item, Fd) else f"map fd_array[{insn.imm}]"
        elif insn.src == isa.PSEUDO_BTF_ID:
            name = self.vmlinux(insn.imm) if not second else None
            text = f"&{escaped(name)}" if name else f"variable of BTF id {insn.imm}"
        elif insn.src == isa.PSEUDO_FUNC:
            jump = insn.pc + 1 + insn.imm
            name = self.subprogs.get(jump)
            text = f"callback {name}" if name else "a callback"
            jump = None if name else jump
        else:
            text = f"{insn.imm64:#x} /* src_reg {insn.src} */"
        if insn.src in (isa.PSEUDO_MAP_VALUE, isa.PSEUDO_MAP_IDX_VALUE):
            text += f"[{second}]"
        return head + text, jump

    def vmlinux(self, type_id: int) -> str | None:
        return short_enough(self.known.model.facts.fact("btf_vmlinux", type_id), self.room)

    def map_of(self, fd: int) -> str:
        found = self.objects.get((fd, ENTRY)) or self.objects.get((fd, EXIT))
        return "map" if found is None else self.known.objects.ref(found)
