"""All stops that are no system call's: births, programs, signals, group-stops, ends."""

from __future__ import annotations

import errno
import os

from bpftrace_sys.common.light import signal, suppress
from bpftrace_sys.record.ptrace import requests as px
from bpftrace_sys.record.ptrace.errors import EngineError
from bpftrace_sys.record.ptrace.memory import LiveMemory
from decoders import arch as arches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bpftrace_sys.record.ptrace.family import Family
    from bpftrace_sys.record.ptrace.interrupts import Interrupts
    from bpftrace_sys.record.ptrace.programs import Programs
    from bpftrace_sys.record.ptrace.teller import Teller
    from bpftrace_sys.record.ptrace.tracee import Tracee

_STOP_SIGNALS: Final = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_FORKS: Final = {1: "fork", 2: "vfork", 3: "clone"}  # PTRACE_EVENT_*


class OtherStops:
    """Handles them: the tracee is let go of at the end, or has gone."""

    __slots__ = ("_family", "_interrupts", "_programs", "_teller")

    def __init__(
        self, teller: Teller, family: Family, programs: Programs, interrupts: Interrupts
    ) -> None:
        self._teller = teller
        self._family = family
        self._programs = programs
        self._interrupts = interrupts

    def handle(self, tracee: Tracee, status: int) -> None:
        """``status``: as waitpid has it."""
        tid = tracee.tid
        if not os.WIFSTOPPED(status):
            status = self._interrupts.meant(tracee, status)
            self._programs.reaped(tid, status)
            self._family.ended(tracee, status)
            return
        event = status >> 16
        if event in _FORKS:
            self._family.born(tracee, _FORKS[event])
        elif event == px.PTRACE_EVENT_STOP and tracee.cleared is not None:
            if tracee.watched != "clone":  # it is the child, in its first stop
                tracee.cleared.put_back(tid, child=True)
                tracee.cleared = None
        elif event == px.PTRACE_EVENT_EXEC:
            tracee = self._execed(tid)
        elif event == px.PTRACE_EVENT_EXIT:
            self._teller.leaves(tracee)
        if tracee.detach:
            self._detach(tracee, status)
            return
        self.let_go(tracee, status)

    def stranger(self, tid: int, status: int) -> None:
        """A status of somebody that is no tracee, or not yet."""
        if os.WIFSTOPPED(status) or not self._programs.reaped(tid, status):
            self._family.stranger(tid, status)

    def vanished(self) -> None:
        """There is nobody to wait for."""
        self._family.vanished()
        self._programs.pids.clear()

    def let_go(self, tracee: Tracee, status: int) -> None:
        """Let go of a stop: with its signal, in its group-stop, or just so."""
        event = status >> 16
        number = status >> 8 & 0xFF
        if event == px.PTRACE_EVENT_STOP and number in _STOP_SIGNALS:
            # A group-stop: it stays stopped until SIGCONT, which we hear of.
            tracee.listening = True
            px.resume(px.PTRACE_LISTEN, tracee.tid)
            self._interrupts.stops(tracee)
            self._teller.signal(tracee, number, True)
            return
        tracee.listening = False
        if event or number == (signal.SIGTRAP | 0x80):
            number = 0
        self._teller.signal(tracee, number, False)
        self._interrupts.goes_on(tracee, number)
        step = tracee.every_call or tracee.entered or tracee.watched
        # The kernel keeps the signal's siginfo as long as the number is the same.
        px.resume(px.PTRACE_SYSCALL if step else px.PTRACE_CONT, tracee.tid, number)

    def _execed(self, tid: int) -> Tracee:
        try:
            former = px.geteventmsg(tid)
            info: tuple[int, ...] | None = px.syscall_info(tid)
        except OSError as error:
            if error.errno == errno.EIO:
                raise EngineError(
                    f"Linux {os.uname().release} lacks PTRACE_GET_SYSCALL_INFO (of Linux 5.3),"
                    " without which bpfstrace cannot tell what a program calls"
                ) from None
            former, info = tid, None
        tracee = self._family.took_over(tid, former)
        tracee.former_tid = former
        tracee.memory.close()
        if tracee.memory.careful:  # the memory is another
            tracee.memory = LiveMemory(tid)
        tracee._comm = None
        if info is not None:
            _, tracee.arch, tracee.ip, tracee.sp, *_ = info
        if not tracee.silent:
            if tracee.arch and tracee.arch not in arches.NAMES:
                self._teller.note(
                    tracee,
                    f"{tracee.comm} is a program of an architecture that bpfstrace does not"
                    f" know (AUDIT_ARCH {tracee.arch:#x}): its calls are not shown",
                )
            self._teller.execed(tracee)
        return tracee

    def _detach(self, tracee: Tracee, status: int) -> None:
        number = status >> 8 & 0xFF
        if status >> 16 or number == (signal.SIGTRAP | 0x80):
            number = 0  # not a signal on its way; a group-stop goes on by itself
        with suppress(OSError):
            px.detach(tracee.tid, number)
        self._family.ended(tracee, None)
