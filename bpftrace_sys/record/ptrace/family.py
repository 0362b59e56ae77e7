"""Who is traced, and whose child it is.

Of a birth the kernel tells twice: the parent stops with the child's id (PTRACE_EVENT_FORK,
_VFORK, _CLONE), and the child stops before its first instruction. Either may come first, and
the child may have been killed by the time that the other is heard of.

A child whose stop comes first is held in it until the parent's event names it. The event
comes, however late, unless the parent is killed between making the child and telling of it
(kernel_clone() in kernel/fork.c). Which thread that was nobody knows: not the child's PPid,
which may be another process (CLONE_PARENT, a new parent) and is a process of many threads.
So a child is adopted when no thread is left that could still name it: see _may_name().
"""

from __future__ import annotations

import os
import time

from bpftrace_sys.common.light import deque
from bpftrace_sys.record.ptrace import requests as px
from bpftrace_sys.record.ptrace.memory import LiveMemory
from bpftrace_sys.record.ptrace.tracee import Tracee
from decoders import arch as arches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bpftrace_sys.record.ptrace.teller import Teller

_FIRST_LOOK: Final = 0.001
_LAST_LOOK: Final = 0.064
"""Seconds between two looks for the parent of a child that waits, at first and at most."""
_TICKS: Final = 5
"""Clock ticks (10 ms each, mostly) of CPU time that no thread spends between making a child
and telling of it."""


class _Early:
    """A child in its first stop, whose parent's event has not come yet."""

    __slots__ = ("cleared", "due", "pause", "status", "used")

    def __init__(self, status: int) -> None:
        self.status = status
        self.pause = _FIRST_LOOK
        self.due = time.monotonic() + self.pause
        self.cleared: set[Tracee] = set()  # those that have not made it
        self.used: dict[Tracee, int] = {}  # their CPU time when they were first looked at


class Family:
    """The tracees, by their ids; children that nobody has announced yet; ends of those
    that nobody knew.

    ``follow`` and ``quiet``: whether children are told of, or traced without a word.
    """

    def __init__(self, teller: Teller, *, follow: bool, quiet: bool) -> None:
        self.tracees: dict[int, Tracee] = {}
        self.early: dict[int, _Early] = {}
        self.stops: deque[tuple[int, int]] = deque()
        """Ids and statuses that are to be handled next, before any is waited for."""
        self.attached = False
        """Whether all began with processes that were attached to."""
        self.letting_go = False
        """Attached tracees are detached from; those that turn up are to be, too."""
        self.strangers: dict[int, int] = {}
        """Wait statuses of children that ended before anybody named them: tracees whose
        parents' events are still to come, or never will, and children of this process that
        were no tracees."""
        self._adopted: set[int] = set()
        self._teller = teller
        self._follow = follow
        self._quiet = quiet

    # -- births -------------------------------------------------------------

    def born(self, parent: Tracee, how: str) -> None:
        """The parent's event: tells of the child, and of its end if that is known already."""
        try:
            tid = px.geteventmsg(parent.tid)
        except OSError:
            return  # killed in this very stop: the child gets adopted
        known = self.tracees.get(tid)
        ended = self.strangers.get(tid)
        if ended is not None and (known is not None or not _lives(tid, parent)):
            # Killed before it ever stopped. The number may be another child's by now.
            del self.strangers[tid]
            child = self._made(parent, tid, tid)
            self._teller.forked(parent, child, how)
            self.ended(child, ended)
            return
        if tid in self._adopted:
            # Where /proc misleads us, we are wrong to think that nobody would name it; unless
            # it has ended, and this is another child of the same number.
            self._adopted.discard(tid)
            if known is not None or not _lives(tid, parent):
                return
        # clone() with CLONE_THREAD and SIGCHLD or CLONE_VFORK is odd, but can be.
        thread = os.path.exists(f"/proc/{parent.pid}/task/{tid}")
        child = self.tracees[tid] = self._made(parent, tid, parent.pid if thread else tid)
        early = self.early.pop(tid, None)
        if early is not None:
            self.stops.appendleft((tid, early.status))
        self._teller.forked(parent, child, how)

    def _made(self, parent: Tracee, tid: int, pid: int) -> Tracee:
        child = Tracee(tid, pid)
        child.arch = parent.arch
        watching = parent.lapsing or parent.also is not None
        child.every_call = parent.unfiltered if watching else parent.every_call
        child.silent = parent.silent or self._quiet
        child.attached = parent.attached
        if parent.memory.careful:
            child.memory.be_careful()
        child.cleared = parent.cleared
        # An attached process's new threads are its own; its children are not.
        child.detach = parent.detach or (
            parent.attached and not self._follow and pid != parent.pid
        )
        return child

    def stranger(self, tid: int, status: int) -> None:
        """A status of somebody that we do not know, or do not know yet."""
        if os.WIFSTOPPED(status):
            self.early[tid] = _Early(status)
        else:
            self.early.pop(tid, None)
            self._adopted.discard(tid)
            self.strangers[tid] = status

    # -- adoption -----------------------------------------------------------

    def patience(self) -> float | None:
        """Seconds until adopt() is to be called; None: there are no such children."""
        if not self.early:
            return None
        return max(0.0, min(early.due for early in self.early.values()) - time.monotonic())

    def adopt(self) -> None:
        """Children that nobody will name any more become tracees, and their first stops are to
        be handled next. To be called when no stop is waiting."""
        for tid, early in list(self.early.items()):
            if self.tracees and (time.monotonic() < early.due or self._may_be_named(early)):
                continue
            del self.early[tid]
            self._adopt(tid, early.status)

    def _may_be_named(self, early: _Early) -> bool:
        """Whether there is a thread that may have made this child, and not told of it yet."""
        left = False
        for tracee in self.tracees.values():
            if tracee not in early.cleared:
                if _may_name(tracee, early.used):
                    left = True
                else:
                    early.cleared.add(tracee)
        if left:
            early.pause = min(2 * early.pause, _LAST_LOOK)
            early.due = time.monotonic() + early.pause
        return left

    def _adopt(self, tid: int, status: int) -> None:
        from bpftrace_sys.record.ptrace.refusals import status_number

        pid = status_number(tid, "Tgid")
        if pid is None:
            return  # killed; its end is still to be heard of
        self._adopted.add(tid)
        of_thread = (tracee for tracee in self.tracees.values() if tracee.pid == pid)
        parent = self.tracees.get(pid) or next(of_thread, None)
        if parent is None:
            parent = self.tracees.get(status_number(tid, "PPid") or 0)
        self.stops.append((tid, status))
        if parent is not None:
            child = self.tracees[tid] = self._made(parent, tid, pid)
            self._teller.forked(parent, child, "fork")
            return
        child = self.tracees[tid] = Tracee(tid, pid)
        child.every_call = True  # which is right with a filter, too
        child.silent = not self._follow
        child.attached = self.attached
        child.detach = self.attached and self.letting_go

    # -- ends and changes -----------------------------------------------------

    def ended(self, tracee: Tracee, status: int | None) -> None:
        """No tracee any more; ``status``: as Teller.ended."""
        if self.tracees.get(tracee.tid) is tracee:
            del self.tracees[tracee.tid]
        tracee.memory.close()
        self._teller.ended(tracee, status)

    def took_over(self, tid: int, former: int) -> Tracee:
        """The execve of a thread with the id ``former``: it has its leader's id now, and the
        leader is gone without a word. Returns whom ``tid`` means now."""
        leader = self.tracees[tid]
        if former == tid or former not in self.tracees:
            return leader
        tracee = self.tracees.pop(former)
        self.ended(leader, None)
        tracee.memory.close()
        tracee.memory = LiveMemory(tid)
        tracee.tid = tid
        tracee.silent = leader.silent
        self.tracees[tid] = tracee
        return tracee

    def vanished(self) -> None:
        """There is nothing to wait for: whatever we still list is not there."""
        for tracee in list(self.tracees.values()):
            self.ended(tracee, None)
        self.early.clear()


def _lives(tid: int, parent: Tracee) -> bool:
    """Whether there is a tracee with that id whose end we have not been told, and which may be
    that parent's child."""
    from bpftrace_sys.record.ptrace.refusals import status_number

    # A zombie of whose end we were told is traced no more, though its parent has not waited.
    if not status_number(tid, "TracerPid"):
        return False
    if status_number(tid, "Tgid") == parent.pid:
        return True
    by = status_number(tid, "PPid")
    return by in (parent.pid, status_number(parent.pid, "PPid"))  # the latter: CLONE_PARENT


def _may_name(tracee: Tracee, used: dict[Tracee, int]) -> bool:
    """Whether a thread may stand between making a child that there is, and its stop to tell
    of it: a short way in the kernel, on which it does not sleep; but it may wait for a CPU,
    as long as the machine likes. ``used``: what it had used of one when it was first asked.
    """
    if tracee.listening:
        return False  # in a group-stop, of which we know
    try:
        with open(f"/proc/{tracee.tid}/syscall", "rb", buffering=0) as file:
            word = file.read(64).split(None, 1)[0]
    except (OSError, IndexError):
        word = b"running"  # we may not know, or it is gone, and its end is to be heard of
    if word != b"running":
        # Asleep, or stopped: in the call of this number, -1 outside of any.
        return int(word) & ~arches.X32_BIT in _births(tracee.arch)
    now = _ticks(tracee.tid)
    return now - used.setdefault(tracee, now) < _TICKS


def _births(arch: int) -> set[int]:
    """The calls that make children; of all architectures where none is known."""
    return {
        numbers[name]
        for known, numbers in arches.NUMBERS.items()
        if arch in (0, known)
        for name in ("fork", "vfork", "clone", "clone3")
        if name in numbers
    }


def _ticks(tid: int) -> int:
    """CPU time that a thread has used; 0 where that cannot be read."""
    try:
        with open(f"/proc/{tid}/stat", "rb", buffering=0) as file:
            # proc(5): the 14th and the 15th; the second's parenthesis may hold anything.
            words = file.read(4096).rpartition(b")")[2].split()
        return int(words[11]) + int(words[12])
    except (OSError, IndexError, ValueError):
        return 0
