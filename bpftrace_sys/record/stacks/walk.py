"""The walk from a call up to the thread's outermost function, over what was copied."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.record.stacks import cfi
from bpftrace_sys.record.stacks.cfi import Row, Rule
from bpftrace_sys.record.stacks.epilogue import epilogue
from bpftrace_sys.record.stacks.expression import evaluate
from bpftrace_sys.record.stacks.files import Files, MappedFile
from bpftrace_sys.record.stacks.reading import CfiError
from bpftrace_sys.record.stacks.regions import Region
from bpftrace_sys.record.stacks.snapshot import Snapshot
from decoders.stack import Frame, Stack

DEPTH: Final = 256
"""Frames of a stack, as strace -k."""

FRAMES_KNOWN: Final = 1 << 14
"""Frames that a memory map remembers: calls of a program share most of theirs."""
EXPRESSIONS: Final = 2048
"""Expressions that are evaluated in a walk; a signal frame has some twenty."""

KEPT: Final[Rule] = (cfi.SAME, 0)
"""The rule of a register that a row does not name."""

# Why a walk ends before the outermost function.
NO_UNWIND_INFO: Final = "no unwind info"
BAD_UNWIND_INFO: Final = "damaged unwind info"
NOT_COPIED: Final = "stack goes on beyond the copy"
NO_STACK: Final = "no stack at the stack pointer"
UNREADABLE: Final = "unreadable file"
UNLOOKED: Final = "file not looked at"
NOT_MAPPED: Final = "no code there"
GOES_ROUND: Final = "stack does not go on"
TOO_DEEP: Final = f"more than {DEPTH} frames"


class _EndError(Exception):
    """The walk ends here, before its time."""


class Walk:
    """A walk over one snapshot."""

    def __init__(self, snapshot: Snapshot, files: Files, vdso: MappedFile | None) -> None:
        self._machine = snapshot.machine
        self._pieces = snapshot.pieces
        self._base, self._copy = snapshot.pieces[0]
        self._most = len(self._copy)
        self._process = snapshot.process
        self._files = files
        self._vdso = vdso
        self._expressions = 0
        self._registers = snapshot.machine.registers(snapshot.registers)

    # ------------------------------------------------------------ frames

    def stack(self) -> Stack:
        """The frames, innermost first."""
        machine, registers = self._machine, self._registers
        frames: list[Frame] = []
        # The innermost, and whoever a signal interrupted, is at an instruction; the
        # others are behind their call, which may be the last thing in the function.
        exact = True
        try:
            while True:
                ip = registers[machine.ip]
                if not ip:
                    return Stack(tuple(frames))
                if len(frames) == DEPTH:
                    raise _EndError(TOO_DEEP)
                region = self._process.map.at(ip - (not exact))
                file = None if region is None else self._file(region)
                frames.append(self._frame(ip, exact, region, file))
                row = self._row(ip, exact, region, file)
                handled = (row is None or row.signal) and self._is_sigreturn(ip, region, file)
                if handled or (row is not None and row.signal):
                    # The kernel has a handler return to the first instruction of this.
                    exact = True
                    frames[-1] = self._frame(ip, exact, region, file)
                sp = registers[machine.sp]
                # A function that calls nobody may have no frame, where calls use a register.
                leaf = exact and machine.link is not None
                if handled:
                    self._interrupted()
                elif row is None:
                    self._without_cfi(ip, region)
                    exact = False
                else:
                    if not self._step(row):
                        return Stack(tuple(frames))
                    exact = row.signal
                grown = registers[machine.sp] - sp
                if not exact and (grown < 0 or (grown == 0 and not leaf)):
                    raise _EndError(GOES_ROUND)
        except _EndError as end:
            return Stack(tuple(frames), str(end))

    def _file(self, region: Region) -> MappedFile | None:
        if region.path == b"[vdso]":
            return self._vdso
        return self._files.get(self._process.tid, region) if region.is_file else None

    def _frame(self, ip: int, exact: bool, region: Region | None, file: MappedFile | None) -> Frame:
        known = self._process.map.frames
        frame = known.get((ip, exact))
        if frame is None:
            if len(known) >= FRAMES_KNOWN:
                known.clear()
            frame = known[ip, exact] = self._new_frame(ip, exact, region, file)
        return frame

    def _new_frame(
        self, ip: int, exact: bool, region: Region | None, file: MappedFile | None
    ) -> Frame:
        if region is None:
            return Frame(ip)
        path = region.path.decode("utf-8", "backslashreplace")
        offset = ip - region.start + region.offset
        found = None if file is None else file.symbol(offset, not exact)
        symbol, distance = found or ("", 0)
        return Frame(ip, path, offset if path else None, symbol, distance)

    # ------------------------------------------------------------ steps

    def _row(
        self, ip: int, exact: bool, region: Region | None, file: MappedFile | None
    ) -> Row | None:
        """How to go on from here; None: as frame pointers tell."""
        if region is None:
            raise _EndError(NOT_MAPPED)
        if file is None:
            if region.is_file:
                raise _EndError(self._unlooked(region) or UNREADABLE)
            return None
        if file.machine() not in (self._machine.elf, None):
            return None
        try:
            row = file.row(ip - region.start + region.offset, not exact)
        except CfiError:
            raise _EndError(self._unlooked(region) or BAD_UNWIND_INFO) from None
        if row is None and (unlooked := self._unlooked(region)):
            raise _EndError(unlooked)
        return row

    def _unlooked(self, region: Region) -> str:
        """That a file was not looked at, or not to its end."""
        why = self._files.unlooked(region) if region.is_file else None
        return f"{UNLOOKED}: {why}" if why else ""

    def _is_sigreturn(self, ip: int, region: Region | None, file: MappedFile | None) -> bool:
        """Whether this is what a handler returns to, by its instructions.

        aarch64's vdso has no CFI for it, or (before Linux 5.8) one that leads to the caller
        of what was interrupted: arch/arm64/kernel/vdso/sigreturn.S.
        """
        wanted = self._machine.sigreturn
        if not wanted or region is None:
            return False
        if file is None:
            return self._process.code_at(ip).startswith(wanted)
        return file.code(ip - region.start + region.offset, len(wanted)) == wanted

    def _interrupted(self) -> None:
        """To the registers of who was interrupted, out of the signal frame."""
        machine, registers = self._machine, self._registers
        at = registers[machine.sp] + machine.context
        for index, number in enumerate(machine.order):
            if number is not None:
                registers[number] = self._read(at + machine.word * index, machine.word)

    def _step(self, row: Row) -> bool:
        """To the caller's registers.  False: this was the outermost function."""
        machine, old = self._machine, self._registers
        try:
            if isinstance(row.cfa, bytes):
                cfa = self._evaluate(row.cfa, None)
            else:
                cfa = old[row.cfa[0]] + row.cfa[1]
            cfa &= (1 << 8 * machine.word) - 1
            new = dict(old)
            new[machine.sp] = cfa
            for register, rule in row.rules.items():
                value = self._value(rule, cfa, register)
                if value is None:
                    new.pop(register, None)
                else:
                    new[register] = value
        except CfiError:
            raise _EndError(BAD_UNWIND_INFO) from None
        except KeyError:
            # It counts on a register of which a callee's frame says nothing.
            raise _EndError(NO_UNWIND_INFO) from None
        back = new.get(row.ra)
        if back is None:
            return False
        back &= machine.code_bits
        kept = row.ra == machine.link and row.rules.get(row.ra, KEPT)[0] == cfi.SAME
        if kept and old[machine.ip] == back:
            # Who has called has another return address than its callee had.
            raise _EndError(GOES_ROUND)
        new[machine.ip] = back
        self._registers.clear()
        self._registers.update(new)
        return True

    def _evaluate(self, code: bytes, begin: int | None) -> int:
        self._expressions += 1
        if self._expressions > EXPRESSIONS:
            raise _EndError(BAD_UNWIND_INFO)
        return evaluate(code, self._registers, self._read, self._machine.word, begin)

    def _value(self, rule: Rule, cfa: int, register: int) -> int | None:
        """What the caller had in a register; None: it is lost."""
        kind, what = rule
        word = self._machine.word
        if isinstance(what, bytes):
            value = self._evaluate(what, cfa)
            return self._read(value, word) if kind == cfi.AT_EXPRESSION else value
        if kind == cfi.AT_CFA:
            return self._read(cfa + what, word)
        if kind == cfi.IS_CFA:
            return cfa + what & (1 << 8 * word) - 1
        if kind == cfi.REGISTER:
            return self._registers.get(what)
        return self._registers.get(register) if kind == cfi.SAME else None

    def _without_cfi(self, ip: int, region: Region | None) -> None:
        """To the caller of code without CFI, of a JIT mostly.

        By the function's own end, where that can be read; else by the frame pointer.
        Whether the code keeps one is unknown: where it does not lead into the stack
        and on to code, there is nothing to go by.
        """
        machine, registers = self._machine, self._registers
        code = b"" if region is None else self._process.code_at(ip)
        end = epilogue(code, machine) if code else None
        if end is not None:
            popped, size = end
            sp = registers[machine.sp]
            values = {register: self._read(sp + at, machine.word) for register, at in popped}
            back = self._read(sp + size, machine.word)
            if self._process.map.at(back - 1) is not None:
                registers.update(values)
                registers[machine.sp] = sp + size + machine.word
                registers[machine.ip] = back
                return
        frame = registers.get(machine.fp, 0)
        if not any(at <= frame < at + len(data) for at, data in self._pieces):
            raise _EndError(NO_UNWIND_INFO)
        if frame < registers[machine.sp]:
            raise _EndError(NO_UNWIND_INFO)
        outer = self._read(frame, machine.word)
        back = self._read(frame + machine.word, machine.word) & machine.code_bits
        if back and self._process.map.at(back - 1) is None:
            raise _EndError(NO_UNWIND_INFO)
        registers[machine.fp] = outer
        registers[machine.sp] = frame + 2 * machine.word
        registers[machine.ip] = back

    def _read(self, addr: int, size: int) -> int:
        """A number on the stack."""
        at = addr - self._base
        if 0 <= at <= self._most - size:
            return int.from_bytes(self._copy[at : at + size], "little")
        addr &= (1 << 8 * self._machine.word) - 1
        for at, data in self._pieces:
            if at <= addr and addr + size <= at + len(data):
                return int.from_bytes(data[addr - at : addr - at + size], "little")
        raise _EndError(NOT_COPIED if any(data for _, data in self._pieces) else NO_STACK)
