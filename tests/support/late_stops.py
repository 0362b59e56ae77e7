"""Makes the stops of a birth come in an order of the test's choice.

The kernel lets a new child stop before its parent's event or after it, as it happens, and a
machine shows one order a thousand times and then the other. Here it is chosen: a waitpid(2)
stands before the real one and keeps one side back until the engine has heard of the other,
and has then slept ``PATIENCE`` times without a word. All else is the kernel's: what is kept
back has truly happened, and whoever has not been let go of stands in its stop.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Final

from bpftrace_sys.record.ptrace import own_signals, refusals, requests

PATIENCE: Final = 6
EVENTS: Final = (1, 2, 3)  # PTRACE_EVENT_FORK, _VFORK, _CLONE

ORDERS: Final = {
    "event first": "the child's stop comes late",
    "stop first": "the parent's event comes late",
    "stop and end first": "the child is killed in its first stop before the event comes",
    "end first": "the child is killed before it ever stopped, and the event comes late",
    "no event": "the parent is killed before its event, after the child's stop",
    "no event, stop last": "the parent is killed before its event, and the child stops after that",
    "event lost": "the event never comes, though the parent's process lives on",
}


class LateStops:
    """Stands in for waitpid; one for the process, which :meth:`begin` sets to work."""

    def __init__(self, order: str) -> None:
        assert order in ORDERS
        self.order = order
        self.first: set[int] = set()
        self.known: set[int] = set()  # who has been heard of
        self.kept: list[tuple[int, int]] = []
        self.parents: dict[int, int] = {}  # of the children whose event was seen
        self.came: set[tuple[str, int | None]] = set()  # what the engine has been told: of whom
        self.slept = 0
        self._waitpid = os.waitpid
        self._wait = own_signals.OwnSignals.wait

    def begin(self, first: set[int]) -> None:
        """From now on for the engine; ``first`` are traced already, and their own children
        are those that see to it that a test ends: no event of theirs is lost."""
        self.first = first
        self.known |= first
        os.waitpid = self.poll
        signals: Any = own_signals.OwnSignals
        signals.wait = lambda signals, seconds=None: self.wait(signals, seconds)
        signals.wait_child = lambda signals: self.wait_child(signals)

    def poll(self, pid: int, flags: int) -> tuple[int, int]:
        """As os.waitpid, from which one side of each birth is kept back."""
        if pid != -1:
            return self._waitpid(pid, flags)
        while True:
            try:
                tid, status = self._waitpid(-1, flags | os.WNOHANG)
            except ChildProcessError:
                due = self._due()
                if not due[0]:
                    raise
                return due
            if not tid:
                return self._due()
            if self._keeps(tid, status):
                self.kept.append((tid, status))
                self.slept = 0
                continue
            self._told(tid, status)
            return tid, status

    def wait_child(self, signals: own_signals.OwnSignals) -> tuple[int, int]:
        """As OwnSignals.wait_child."""
        self.wait(signals, None)
        return 0, 0

    def wait(self, signals: own_signals.OwnSignals, seconds: float | None = None) -> None:
        """As OwnSignals.wait, but not for long: what is kept back wakes nobody."""
        self.slept += 1
        if self.kept:
            time.sleep(0.001 if seconds is None else seconds)
            signals.poll()
        else:
            self._wait(signals, 0.05 if seconds is None else seconds)

    # -- which side, and how long ------------------------------------------------

    def _keeps(self, tid: int, status: int) -> bool:
        if status >> 16 in EVENTS and os.WIFSTOPPED(status):
            child = requests.geteventmsg(tid)
            if self.order.startswith(("no event", "event lost")) and (
                tid in self.first or os.path.exists(f"/proc/{tid}/task/{child}")
            ):
                return False
            self.parents[child] = tid
            self.came -= {("end", child), ("event", child)}
            if self.order == "event lost":
                self.came.add(("event", child))
                return True  # for ever
            if self.order == "end first":
                os.kill(child, signal.SIGKILL)
            if self.order == "no event, stop last":
                os.kill(tid, signal.SIGKILL)
            return self.order != "event first"
        if not os.WIFSTOPPED(status) or tid in self.known:
            return False
        if self.order == "end first":
            return True  # it is killed in it: never to be told
        if self.order == "no event, stop last":
            return refusals.status_number(tid, "PPid") not in self.first
        return self.order == "event first"

    def _told(self, tid: int, status: int) -> None:
        if not os.WIFSTOPPED(status):
            self.came.discard(("event", tid))
            self.came.add(("end", tid))
            self.known.discard(tid)
            return
        if status >> 16 in EVENTS:
            child = requests.geteventmsg(tid)
            self.came.discard(("stop", child))
            self.came.add(("event", child))
        elif tid not in self.known:
            self.known.add(tid)
            self.came.add(("stop", tid))
        self.slept = 0

    def _due(self) -> tuple[int, int]:
        """One of those kept back whose time has come."""
        for index, (tid, status) in enumerate(self.kept):
            if self._comes(tid, status):
                del self.kept[index]
                self._told(tid, status)
                return tid, status
        return 0, 0

    def _comes(self, tid: int, status: int) -> bool:
        if status >> 16 not in EVENTS:  # a child's first stop
            if self.order == "end first":
                return False
            if self.order == "no event, stop last":
                return self._patient() and ("end", self.parents.get(tid)) in self.came
            return self._patient() and ("event", tid) in self.came
        if self.order == "event lost":
            return False
        try:
            child = requests.geteventmsg(tid)
        except OSError:
            return False  # killed: nobody would ever hear of it
        if self.order == "end first":
            return self._patient() and ("end", child) in self.came
        if not (self._patient() and ("stop", child) in self.came):
            return False
        if self.order == "no event":
            os.kill(tid, signal.SIGKILL)
            return False
        if self.order == "stop and end first":
            os.kill(child, signal.SIGKILL)
            return ("end", child) in self.came
        return True

    def _patient(self) -> bool:
        return self.slept >= PATIENCE
