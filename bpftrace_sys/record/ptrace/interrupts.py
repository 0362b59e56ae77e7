"""What becomes of signals to the tracer itself: passed on to programs, or the end of tracing;
and Ctrl-Z, with which the tracer stops when the program has."""

from __future__ import annotations

import os

from bpftrace_sys.common.light import signal, suppress
from bpftrace_sys.record.ptrace import requests as px
from bpftrace_sys.record.ptrace.forwarding import barrier, comes_by_itself
from bpftrace_sys.record.ptrace.own_signals import OURS, OwnSignals, stop_ourselves

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal

    from bpftrace_sys.record.ptrace.family import Family
    from bpftrace_sys.record.ptrace.programs import Programs
    from bpftrace_sys.record.ptrace.teller import Teller
    from bpftrace_sys.record.ptrace.tracee import Tracee

    What = Literal["wait", "end", "ignore", "ignore-stop"]

_SI_KERNEL: Final = 0x80


class Interrupts:
    """``what``: see Engine's ``on_interrupt``."""

    def __init__(self, teller: Teller, family: Family, programs: Programs, what: What) -> None:
        self.signals = OwnSignals(self._signalled)
        self.last: int | None = None
        """The last signal that asked us to end."""
        self._teller = teller
        self._family = family
        self._programs = programs
        self._what = what
        self._first_stopped = False  # in a group-stop, as far as we know
        self._stop_with = False  # we are to stop as soon as the first program has
        self._killed_for: dict[int, int] = {}  # pids, and the signals that SIGKILL stands for

    # -- what the loop tells -------------------------------------------------

    def stops(self, tracee: Tracee) -> None:
        """A tracee is in a group-stop from now on."""
        if tracee.pid == self._programs.first:
            self._first_stopped = True
            if self._stop_with:
                self._stop_ourselves()

    def goes_on(self, tracee: Tracee, number: int) -> None:
        """A tracee is let go of a stop, with the signal of that number, or 0."""
        if tracee.pid == self._programs.first:
            self._first_stopped = False
        if number in OURS and tracee.pid in self._programs.pids:
            # Ours of the same sender, if it is there, is to find this one before it is gone.
            barrier()
            self.signals.poll()

    def meant(self, tracee: Tracee, status: int) -> int:
        """The wait status of an end, or the one that it stands for."""
        number = self._killed_for.get(tracee.pid)
        return number if number is not None and status == signal.SIGKILL else status

    # -- letting go ------------------------------------------------------------

    def detach_all(self, spawned: bool = False) -> None:
        """Ask every attached process to stop once more, to be detached from there.

        Spawned tracees stay, unless they are meant, too: a filter that they carry needs its tracer.
        """
        self._family.letting_go = True
        self._family.attached = self._family.attached or spawned
        for tracee in self._family.tracees.values():
            if (tracee.attached or spawned) and not tracee.detach:
                tracee.detach = True
                with suppress(OSError):
                    px.interrupt(tracee.tid)

    def abandon(self) -> None:
        """Attached processes are no tracees any more: the kernel detaches them at our end."""
        for tracee in [one for one in self._family.tracees.values() if one.attached]:
            self._family.ended(tracee, None)

    # -- our own signals ----------------------------------------------------

    def _signalled(self, number: int, code: int, sender: int) -> None:
        terminal = code == _SI_KERNEL
        if number == signal.SIGTSTP and self._what == "ignore-stop":
            return
        if number == signal.SIGTSTP:
            # Ctrl-Z: our tracees got it too, and may want to tidy up or to ignore
            # it. We stop when the first of them has.
            runs = self._programs.first in self._family.tracees and not self._first_stopped
            if terminal and runs:
                self._stop_with = True
            else:
                self._stop_ourselves()
            return
        if self._what in ("ignore", "ignore-stop"):
            return
        again = self.last is not None
        self.last = number
        attached = any(tracee.attached for tracee in self._family.tracees.values())
        if attached and again:
            self.abandon()  # somebody is in a hurry
        elif attached:
            self.detach_all()
        from bpftrace_sys.record.ptrace.vforking import is_deaf

        if self._what == "end" and again:
            # Their descendants, too: what carries our filter cannot be detached from.
            for tracee in self._family.tracees.values():
                if not tracee.attached:
                    _kill(tracee.pid, signal.SIGKILL)
            return
        for pid in self._programs.pids:
            ending = self._what == "end"
            if ending or not terminal:  # Ctrl-C is for those that the terminal sends it to
                tids = [tid for tid, tracee in self._family.tracees.items() if tracee.pid == pid]
                if not comes_by_itself(pid, tids, number, sender):
                    _kill(pid, number)
                if ending:
                    _kill(pid, signal.SIGCONT)
            if is_deaf(pid, number):
                self._killed_for[pid] = number
                _kill(pid, signal.SIGKILL)

    def _stop_ourselves(self) -> None:
        self._stop_with = False
        while self._teller.sink.work():
            pass
        stop_ourselves()


def _kill(pid: int, number: int) -> None:
    with suppress(OSError):  # it has ended, or has become another user's
        os.kill(pid, number)
