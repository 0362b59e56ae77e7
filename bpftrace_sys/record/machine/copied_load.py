"""Which instruction became which: asked of the kernel by loading a copy of the program.

The copy has one line_info record for each instruction, whose line number is the instruction's
place.  The kernel moves these records as it rewrites, deletes and compiles instructions
(bpf_adj_linfo(), bpf_remove_insns() in kernel/bpf/verifier.c; bpf_prog_fill_jited_linfo()), so what
it gives back says where each one went.  A guess by content would be wrong for some of them.

It is done after the stop, with the maps and the BTF that the program names, by their ids; the copy
is closed at once.  It costs an id of a program, and as much time as the load itself.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

from bpftrace_sys.record.machine import bpf, prog_info
from bpftrace_sys.trace.kernel_view import Mapping
from decoders.formats import insn as isa
from decoders.formats.prog_info import ProgInfo
from decoders.raw import ENTRY, EXIT, RawCall
from decoders.uapi import const
from decoders.uapi.layouts import LAYOUTS

_AT: Final = {member.path: (member.offset, member.size) for member in LAYOUTS["bpf_attr.PROG_LOAD"]}
_ATTR_SIZE: Final = max(at + size for at, size in _AT.values())
_MAPS: Final = frozenset({isa.PSEUDO_MAP_FD, isa.PSEUDO_MAP_VALUE})
_LINE: Final = struct.Struct("<4I")
_AX: Final = 11
"""BPF_REG_AX, which the kernel uses to blind constants, among other things."""
_LINES: Final = 1 << 22
"""Instructions that line numbers can count: line_col has 22 bits for them."""
_TOKEN_FD: Final = 1 << 16
"""BPF_F_TOKEN_FD"""

# A BTF that says nothing but int, for programs without one: line_info needs some.
_INT_BTF: Final = struct.pack(
    "<HBBIIIII4I5s", 0xEB9F, 1, 0, 24, 0, 16, 16, 5, 1, 1 << 24, 4, 1 << 24 | 32, b"\0int\0"
)


class CannotCopyError(Exception):
    """Why there is no copy."""


def mapping(raw: RawCall, info: ProgInfo) -> Mapping:
    """What became of each instruction of a load; ``info`` is what the kernel made of it.

    Never raises: what stands in the way is the result's ``problem``.
    """
    try:
        with ExitStack() as stack:
            attr, program = _attr(raw, stack)
            began = time.perf_counter_ns()
            try:
                fd = bpf.bpf(const.BPF_PROG_LOAD, attr)
            except OSError as error:
                raise CannotCopyError(f"the copy was refused: {error.strerror}") from None
            took = time.perf_counter_ns() - began
            try:
                copy = prog_info.fetch(fd)
            finally:
                os.close(fd)
        return _compared(program, info, copy, took)
    except (CannotCopyError, OSError, ValueError, struct.error) as error:
        return Mapping(str(error) or type(error).__name__)


# ---------------------------------------------------------------- the copy


def _attr(raw: RawCall, stack: ExitStack) -> tuple[Any, list[isa.Insn]]:
    """The attr of the copy's load, and the instructions as user space passed them."""
    chunks = {chunk.addr: chunk for chunk in raw.chunks if chunk.stage == ENTRY}

    def memory(name: str, size: int) -> bytes:
        chunk = chunks.get(fields[name])
        if not size:
            return b""
        if chunk is None or len(chunk.data) < size:
            raise CannotCopyError(f"its {name} were not seen whole")
        return chunk.data[:size]

    attr = chunks.get(raw.args[1])
    if attr is None:
        raise CannotCopyError("its attr was not seen")
    given = bytearray(attr.data[:_ATTR_SIZE].ljust(_ATTR_SIZE, b"\0"))
    fields = {
        name: int.from_bytes(given[at : at + size], "little") for name, (at, size) in _AT.items()
    }
    if fields["prog_ifindex"]:
        raise CannotCopyError("it is bound to a device")
    count = fields["insn_cnt"]
    if not 0 < count < _LINES:
        raise CannotCopyError(f"it has {count} instructions")
    code = bytearray(memory("insns", 8 * count))
    program = list(isa.insns(code))
    license_ = chunks.get(fields["license"])
    fds = _Fds(raw, stack)
    room = _Room(stack)
    _name_maps(code, program, fds)
    lines = b"".join(_LINE.pack(insn.pc, 0, 0, (insn.pc + 1) << 10) for insn in program)
    functions = memory("func_info", fields["func_info_rec_size"] * fields["func_info_cnt"])
    relos = memory("core_relos", fields["core_relo_rec_size"] * fields["core_relo_cnt"])
    changed = {
        "insns": room.of(code),
        "license": room.of((b"" if license_ is None else license_.data) + b"\0"),
        "log_level": 0, "log_size": 0, "log_buf": 0, "log_true_size": 0,
        "prog_btf_fd": fds.own("btf", fields["prog_btf_fd"], stack),
        "func_info": room.of(functions) if functions else 0,
        "line_info_rec_size": _LINE.size, "line_info": room.of(lines),
        "line_info_cnt": len(program), "core_relos": room.of(relos) if relos else 0,
        "attach_btf_obj_fd": fds.attached(fields["attach_btf_obj_fd"]),
        "fd_array": room.of(fds.array(memory, fields, program)) if fields["fd_array"] else 0,
        "prog_token_fd": 0, "prog_flags": fields["prog_flags"] & ~_TOKEN_FD,
        "signature": 0, "signature_size": 0, "keyring_id": 0,
    }  # fmt: skip
    for name, value in changed.items():
        if name in _AT:
            at, size = _AT[name]
            given[at : at + size] = value.to_bytes(size, "little")
    return ctypes.create_string_buffer(bytes(given), len(given)), program


class _Room:
    """Memory that the kernel reads, for as long as the stack lives."""

    def __init__(self, stack: ExitStack) -> None:
        self._kept: list[ctypes.Array[ctypes.c_char]] = []
        stack.callback(self._kept.clear)

    def of(self, data: bytes | bytearray) -> int:
        self._kept.append(ctypes.create_string_buffer(bytes(data), max(len(data), 1)))
        return ctypes.addressof(self._kept[-1])


class _Fds:
    """Our own fds of the objects that the tracee's fds were."""

    def __init__(self, raw: RawCall, stack: ExitStack) -> None:
        self._facts = {fact.fd: fact for fact in raw.fds if fact.stage != EXIT}
        self._stack = stack
        self._opened: dict[tuple[str, int], int] = {}

    def of(self, fd: int, *kinds: str) -> int:
        """Ours of a tracee's fd; CannotCopyError where its object is unknown or gone."""
        fact = self._facts.get(fd)
        if fact is None or fact.id is None or (kinds and fact.kind not in kinds):
            raise CannotCopyError(f"what its fd {fd} was is not known")
        key = (fact.kind, fact.id)
        if key not in self._opened:
            try:
                ours = bpf.fd_by_id(*key)
            except OSError as error:
                raise CannotCopyError(
                    f"its {fact.kind} id={fact.id} cannot be opened: {error.strerror}"
                ) from None
            self._stack.callback(os.close, ours)
            self._opened[key] = ours
        return self._opened[key]

    def own(self, kind: str, fd: int, stack: ExitStack) -> int:
        """The program's BTF, or one that says nothing."""
        if fd:
            return self.of(fd, kind)
        blob = ctypes.create_string_buffer(_INT_BTF, len(_INT_BTF))
        request = struct.pack("<QQ6I", ctypes.addressof(blob), 0, len(_INT_BTF), 0, 0, 0, 0, 0)
        made = bpf.bpf(const.BPF_BTF_LOAD, ctypes.create_string_buffer(request, len(request)))
        stack.callback(os.close, made)
        return made

    def attached(self, fd: int) -> int:
        """attach_prog_fd or attach_btf_obj_fd, which share their place."""
        return self.of(fd, "prog", "btf") if fd else 0

    def array(self, memory: Any, fields: dict[str, int], program: list[isa.Insn]) -> bytes:
        """fd_array, with our fds.  Its length is what the program uses of it, or what it says."""
        used = [fields.get("fd_array_cnt", 0)]
        for insn in program:
            if insn.code == isa.LD_IMM64 and insn.src in (
                isa.PSEUDO_MAP_IDX, isa.PSEUDO_MAP_IDX_VALUE,
            ):  # fmt: skip
                used.append(insn.imm + 1)
            elif insn.code == isa.CALL_K and insn.src == isa.PSEUDO_KFUNC_CALL:
                used.append(insn.off + 1 if insn.off else 0)
        count = max(used)
        if not 0 <= count <= 1 << 12:
            raise CannotCopyError("its fd_array is too long")
        theirs = struct.unpack(f"<{count}i", memory("fd_array", 4 * count))
        # A place that nothing names may hold anything.
        return struct.pack(
            f"<{count}i", *(self.of(fd) if fd in self._facts else 0 for fd in theirs)
        )


def _name_maps(code: bytearray, program: list[isa.Insn], fds: _Fds) -> None:
    """Puts our fds into instructions that name maps, and BTF of modules, by fd."""
    for insn in program:
        if insn.code != isa.LD_IMM64:
            continue
        at = 8 * insn.pc + 4
        if insn.src in _MAPS:
            code[at : at + 4] = fds.of(insn.imm, "map").to_bytes(4, "little")
        elif insn.src == isa.PSEUDO_BTF_ID and insn.next_imm:
            code[at + 8 : at + 12] = fds.of(insn.next_imm, "btf").to_bytes(4, "little")


# ---------------------------------------------------------------- what it tells


def _compared(program: list[isa.Insn], info: ProgInfo, copy: ProgInfo, took: int) -> Mapping:
    """The mapping, if the copy became what the program became."""
    why = next(_differences(info, copy), "")
    if why:
        return Mapping(f"the copy became another program: {why}")
    pcs = {insn.pc for insn in program}
    records = [(line[0], (line[3] >> 10) - 1) for line in copy.line_info]
    images = {pc: image for image, pc in reversed(records) if pc in pcs}
    native: dict[int, tuple[int, int]] = {}
    if copy.ksyms and copy.func_lens == info.func_lens:
        starts = list(zip(copy.ksyms, copy.func_lens, strict=False))
        for (_, pc), addr in zip(records, copy.jited_line_info, strict=False):
            for index, (start, size) in enumerate(starts):
                if start <= addr < start + size and pc in pcs:
                    native.setdefault(pc, (index, addr - start))
    return Mapping("", images, native, took)


def _differences(info: ProgInfo, copy: ProgInfo) -> Iterator[str]:
    ours, theirs = list(isa.insns(copy.xlated)), list(isa.insns(info.xlated))
    if not theirs:
        yield "what the program became is hidden"
    elif len(ours) != len(theirs):
        yield f"{len(ours)} instructions, not {len(theirs)}"
    # Blinded constants are random: there only what is done with them is compared.
    blinded = any(insn.dst == _AX or insn.src == _AX for insn in theirs)
    for one, other in zip(ours, theirs, strict=False):
        if one[:5] != other[:5] or (one[5:7] != other[5:7] and not blinded):
            yield f"instruction {other.pc} is another"
            return
