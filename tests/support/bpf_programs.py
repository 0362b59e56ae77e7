"""Programs that together use every form of instruction that a kernel takes.

``PROGRAMS`` are written out or generated; each is built with what it refers to
(maps, BTF) at hand.  ``loaded()`` loads one and says what became of it: the
verifier's log at level 2 among it, with the table "Live regs before insn:" that
kernels from 6.16 on print before they judge the first instruction.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import pytest

from tests.support import bpf_asm as asm
from tests.support.bpf_asm import R0, R1, R2, R3, R4, R6, R7, R8, R10

RETURN = asm.mov(R0, 0) + asm.exit_()


@dataclass
class Kit:
    """What programs refer to, made when the first of them asks."""

    stack: ExitStack
    func_info: bytes = b""
    btf_fd: int = 0
    fd_array: list[int] = field(default_factory=list)

    @cached_property
    def array(self) -> int:
        """An array map with one value of 64 bytes."""
        return self._map("array", 4, 64, 1, name=b"numbers")

    @cached_property
    def hash(self) -> int:
        """A hash map."""
        return self._map("hash", 4, 8, 16, name=b"counts")

    @cached_property
    def prog_array(self) -> int:
        """A program array, for tail calls."""
        return self._map("prog_array", 4, 4, 4, name=b"jumps")

    @cached_property
    def arena(self) -> int:
        """An arena of one page."""
        return self._map("arena", 0, 0, 1, flags=1 << 10, name=b"arena", map_extra=1 << 44)

    def _map(self, kind: str, key: int, value: int, entries: int, **more: int | bytes) -> int:
        made = asm.map_create(kind, key, value, entries, **more)  # type: ignore[arg-type]
        self.stack.enter_context(made)
        return made.fd

    def functions(self, **at: tuple[int, tuple[str, ...]]) -> None:
        """Describe functions in BTF: name=(pc, types of the parameters)."""
        blob, ids = asm.functions_btf({name: params for name, (_, params) in at.items()})
        self.btf_fd = self.stack.enter_context(asm.btf_load(blob)).fd
        self.func_info = b"".join(struct.pack("<II", pc, ids[name]) for name, (pc, _) in at.items())


@dataclass(frozen=True)
class Program:
    """A program to load."""

    name: str
    build: Callable[[Kit], bytes]
    prog_type: str = "socket_filter"
    accepted: bool = True
    """Whether the verifier of Linux 6.18 takes it."""


@dataclass(frozen=True)
class Outcome:
    """What the kernel made of a program."""

    insns: bytes
    fd: int
    errno: int
    log: str

    @property
    def live(self) -> dict[int, str]:
        """The table of live registers: pc to the instruction's text; empty where there is none."""
        _, found, rest = self.log.partition("Live regs before insn:\n")
        table: dict[int, str] = {}
        for line in rest.splitlines() if found else ():
            row = re.fullmatch(r" *(?:\d+ +)?(\d+): [.0-9]{10} (.*)", line)
            if row is None:
                break
            table[int(row[1])] = row[2]
        return table

    @property
    def walked(self) -> list[tuple[int, str]]:
        """The instructions that the verifier came by, in its order, with their text."""
        rows = re.finditer(r"^(\d+): (\([0-9a-f]{2}\) .*?|BUG_\w+)(?: +;.*)?$", self.log, re.M)
        return [(int(row[1]), row[2]) for row in rows]


@contextmanager
def loaded(program: Program) -> Iterator[Outcome]:
    """Load a program; its fd, if it got one, is open for the length of the ``with``.

    Skips the test where the kernel has no such maps or functions.
    """
    with ExitStack() as stack:
        kit = Kit(stack)
        try:
            insns = program.build(kit)
        except (OSError, KeyError) as err:
            pytest.skip(f"this kernel lacks what program {program.name} needs: {err!r}")
        result = stack.enter_context(
            asm.prog_load(
                insns,
                program.prog_type,
                log_level=2,
                name=program.name.encode()[:15],
                btf_fd=kit.btf_fd,
                func_info=kit.func_info,
                fd_array=kit.fd_array,
            )
        )
        yield Outcome(insns, result.fd, result.errno, result.log)


# ---------------------------------------------------------------------------


def _alu(_: Kit) -> bytes:
    """Each ALU operation, on an immediate and on a register, in 64 and in 32 bits."""
    code = asm.mov(R1, 1000) + asm.mov(R2, 3)
    for wide in (True, False):
        for op in asm.ALU_OPS:
            if op in ("end", "neg"):
                continue
            code += asm.alu(op, R1, 5, wide=wide) + asm.alu_reg(op, R1, R2, wide=wide)
            if op not in ("lsh", "rsh", "arsh"):
                code += asm.alu(op, R1, -7, wide=wide)
        code += asm.neg(R1, wide=wide)
    return code + asm.mov(R1, 0x7FFFFFFF) + asm.mov(R1, -0x80000000) + RETURN


def _alu_v4(_: Kit) -> bytes:
    """Signed division, moves with sign extension, and all byte swaps."""
    code = asm.mov(R1, 1000) + asm.mov(R2, 3)
    for wide in (True, False):
        for op in ("div", "mod"):
            code += asm.alu(op, R1, -7, wide=wide, off=1)
            code += asm.alu_reg(op, R1, R2, wide=wide, off=1)
        for bits in (8, 16, 32) if wide else (8, 16):
            code += asm.alu_reg("mov", R3, R2, wide=wide, off=bits)
    for kind in ("le", "be", "bswap"):
        for bits in (16, 32, 64):
            code += asm.endian(R2, kind, bits)
    return code + RETURN


def _jumps(_: Kit) -> bytes:
    """Each conditional jump, on an immediate and on a register, in 64 and in 32 bits."""
    code = asm.load("u32", R1, R1, 0) + asm.mov(R2, 3)
    for wide in (True, False):
        for op in asm.JMP_OPS:
            if op in ("ja", "call", "exit", "jcond"):
                continue
            for imm in (5, -5):
                code += asm.jmp(op, R1, imm, 1, wide=wide) + asm.mov(R3, 0)
            code += asm.jmp_reg(op, R1, R2, 1, wide=wide) + asm.mov(R3, 0)
    return code + RETURN


def _gotos(_: Kit) -> bytes:
    """Unconditional jumps of both lengths, a jump back, and may_goto."""
    return (
        asm.load("u32", R2, R1, 0)
        + asm.jmp("jeq", R2, 1, 1)
        + asm.goto(1)
        + asm.gotol(0)
        + asm.mov(R1, 0)
        + asm.alu("add", R1, 1)
        + asm.jmp("jlt", R1, 4, -2)
        + asm.may_goto(1)
        + asm.goto(-2)
        + RETURN
    )


def _memory(_: Kit) -> bytes:
    """Loads, with and without sign extension, and stores, of every size."""
    code = asm.mov(R1, -1)
    for size in ("u64", "u32", "u16", "u8"):
        code += asm.store(size, R10, -8, R1) + asm.store_imm(size, R10, -16, -3)
        code += asm.load(size, R2, R10, -8)
    code += asm.store("u64", R10, -8, R1)
    for size in ("s32", "s16", "s8"):
        code += asm.load(size, R2, R10, -8)
    return code + RETURN


def _atomics(_: Kit) -> bytes:
    """Every atomic operation, on every size that it takes."""
    code = asm.mov(R0, 0) + asm.mov(R1, 1) + asm.store("u64", R10, -8, R1)
    for size in ("u64", "u32"):
        for op in asm.ATOMIC_OPS:
            if op not in ("load_acquire", "store_release"):
                code += asm.atomic(op, size, R10, -8, R1)
    return code + RETURN


def _ordered(_: Kit) -> bytes:
    """load_acquire and store_release, on every size."""
    code = asm.mov(R1, 1) + asm.store("u64", R10, -8, R1)
    for size in asm.SIZES:
        code += asm.atomic("store_release", size, R10, -8, R1)
        code += asm.atomic("load_acquire", size, R2, -8, R10)
    return code + RETURN


def _constants(_: Kit) -> bytes:
    """ld_imm64 with plain values."""
    values = (0, 1, 0x57202C6F6C6C6548, 0xFFFFFFFFFFFFFFFF, 0x80000000, 1 << 63)
    return b"".join(asm.ld_imm64(R1, value) for value in values) + RETURN


def _map_fd(kit: Kit) -> bytes:
    return (
        asm.store_imm("u32", R10, -4, 1)
        + asm.ld_imm64(R1, kit.hash, asm.MAP_FD)
        + asm.mov_reg(R2, R10)
        + asm.alu("add", R2, -4)
        + asm.call(1)
        + RETURN
    )


def _map_value(kit: Kit) -> bytes:
    return asm.ld_imm64(R1, kit.array, asm.MAP_VALUE, 16) + asm.load("u64", R0, R1, 8) + RETURN


def _map_idx(kit: Kit) -> bytes:
    kit.fd_array += [kit.hash, kit.array]
    return (
        asm.store_imm("u32", R10, -4, 1)
        + asm.ld_imm64(R1, 0, asm.MAP_IDX)
        + asm.mov_reg(R2, R10)
        + asm.alu("add", R2, -4)
        + asm.call(1)
        + asm.ld_imm64(R1, 1, asm.MAP_IDX_VALUE, 24)
        + asm.load("u64", R0, R1, 8)
        + RETURN
    )


def _btf_id(_: Kit) -> bytes:
    """The address of something in the kernel: a function, since not every kernel knows
    the addresses of its variables."""
    return asm.ld_imm64(R1, asm.vmlinux_ids("func")["bpf_rcu_read_lock"], asm.BTF_ID) + RETURN


def _callback(kit: Kit) -> bytes:
    """bpf_loop, with a callback that ld_imm64 names."""
    main = (
        asm.mov(R1, 3)
        + asm.ld_imm64(R2, 6, asm.FUNC, 0)
        + asm.mov(R3, 0)
        + asm.mov(R4, 0)
        + asm.call(181)
        + RETURN
    )
    kit.functions(main=(0, ("ptr",)), each=(8, ("u32", "ptr")))
    return main + RETURN


def _subprogs(_: Kit) -> bytes:
    """Subprograms, called forwards and backwards."""
    return (
        asm.call(2, asm.CALL_SUBPROG)
        + asm.call(3, asm.CALL_SUBPROG)
        + asm.exit_()
        + asm.mov(R0, 1)
        + asm.exit_()
        + asm.call(-3, asm.CALL_SUBPROG)
        + asm.exit_()
    )


def _subprog_jump(_: Kit) -> bytes:
    """A load of a map inside a subprogram that is jumped about in."""
    return (
        asm.call(1, asm.CALL_SUBPROG)
        + asm.exit_()
        + asm.mov(R0, 0)
        + asm.jmp("jeq", R0, 0, 1)
        + asm.mov(R0, 1)
        + asm.exit_()
    )


def _helpers(_: Kit) -> bytes:
    """Helpers without arguments."""
    return b"".join(asm.call(number) for number in (5, 7, 8, 14, 15, 125)) + RETURN


def _tail_call(kit: Kit) -> bytes:
    return asm.ld_imm64(R2, kit.prog_array, asm.MAP_FD) + asm.mov(R3, 3) + asm.call(12) + RETURN


def _kfuncs(_: Kit) -> bytes:
    ids = asm.vmlinux_ids("func")
    return (
        asm.call(ids["bpf_rcu_read_lock"], asm.CALL_KFUNC)
        + asm.call(ids["bpf_rcu_read_unlock"], asm.CALL_KFUNC)
        + RETURN
    )


def _packet(_: Kit) -> bytes:
    """LD_ABS and LD_IND."""
    code = asm.mov_reg(R6, R1) + asm.mov(R7, 2)
    for size in ("u8", "u16", "u32"):
        code += asm.ld_abs(size, 12) + asm.ld_ind(size, R7, 3) + asm.ld_ind(size, R7, -3)
    return code + asm.ld_abs("u8", -0x1000) + RETURN


def _arena(kit: Kit) -> bytes:
    cast = asm.alu_reg("mov", R2, R1, off=1, imm=1)
    back = asm.alu_reg("mov", R3, R2, off=1, imm=1 << 16)
    return (
        asm.ld_imm64(R8, kit.arena, asm.MAP_FD)
        + asm.mov(R1, 0)
        + cast
        + asm.load("u64", R4, R2, 8)
        + back
        + RETURN
    )


def _refused_tail(_: Kit) -> bytes:
    """Forms that reach the listing but not the judgement: reserved fields, unknown operations."""
    code = asm.mov(R1, 1) + asm.mov(R2, 1)
    code += asm.alu_reg("mov", R1, R2, off=-1)  # the verifier's own per-cpu form
    code += asm.alu_reg("mov", R1, R2, off=24)
    code += asm.alu_reg("mov", R1, R2, off=32, wide=False)
    code += asm.alu_reg("mov", R1, R2, off=1, imm=0x00050007)
    code += asm.alu("div", R1, 3, off=2)
    code += asm.endian(R1, "be", 17) + asm.endian(R1, "bswap", -3)
    for imm in (0x02, 0x10, 0xB0, 0xE0, 0xF0, 0x101, -1):
        code += asm.raw(asm.STX | asm.ATOMIC | asm.DW, R10, R1, -8, imm)
        code += asm.raw(asm.STX | asm.ATOMIC | asm.W, R10, R1, -8, imm)
    for size in (asm.B, asm.H):
        code += asm.raw(asm.STX | asm.ATOMIC | size, R10, R1, -8, 0)
        code += asm.raw(asm.STX | asm.ATOMIC | size, R10, R1, -8, 0xF1)
    code += asm.call(0) + asm.call(100000) + asm.call(-1)
    return code + RETURN


def _stack_string(_: Kit) -> bytes:
    """ "Hello, World!" as a compiler puts it onto the stack."""
    return (
        asm.mov(R1, 33)
        + asm.store("u16", R10, -4, R1)
        + asm.mov(R1, 0x646C726F)
        + asm.store("u32", R10, -8, R1)
        + asm.ld_imm64(R1, 0x57202C6F6C6C6548)
        + asm.store("u64", R10, -16, R1)
        + asm.mov_reg(R1, R10)
        + asm.alu("add", R1, -16)
        + asm.mov(R2, 14)
        + asm.call(6)
        + RETURN
    )


PROGRAMS = (
    Program("alu", _alu),
    Program("alu_v4", _alu_v4),
    Program("jumps", _jumps),
    Program("gotos", _gotos),
    Program("memory", _memory),
    Program("atomics", _atomics),
    Program("ordered", _ordered),
    Program("constants", _constants),
    Program("map_fd", _map_fd),
    Program("map_value", _map_value),
    Program("map_idx", _map_idx),
    Program("btf_id", _btf_id, "kprobe"),
    Program("callback", _callback, "tracepoint"),
    Program("subprogs", _subprogs),
    Program("subprog_jump", _subprog_jump),
    Program("helpers", _helpers, "tracepoint"),
    Program("tail_call", _tail_call),
    Program("kfuncs", _kfuncs, "tracepoint"),
    Program("packet", _packet),
    Program("arena", _arena, "tracepoint"),
    Program("stack_string", _stack_string, "kprobe"),
    Program("refused", _refused_tail, accepted=False),
)
