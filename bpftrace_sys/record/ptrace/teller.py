"""What the sink is told besides calls; who is silent is not told of."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bpftrace_sys.record.ptrace.tracee import Sink, Tracee


class Teller:
    """One for all that tell. The loop tells of calls itself, for speed."""

    __slots__ = ("leaving", "signalled", "sink", "working")

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.working = True
        """The sink may have work queued: to be set by whoever tells it something."""
        self.leaving: Callable[[Tracee], None] | None = None
        """See Engine.tell_leaving."""
        self.signalled: Callable[[Tracee, int, bool], None] | None = None
        """See Engine.tell_signals."""

    def forked(self, parent: Tracee, child: Tracee, how: str) -> None:
        """``how``: fork, vfork or clone; a child in its parent's process is a thread."""
        if not child.silent and not child.detach:
            self.working = True
            self.sink.forked(
                parent, child.tid, child.pid, "thread" if child.pid == parent.pid else how
            )

    def leaves(self, tracee: Tracee) -> None:
        """A thread is about to end."""
        if self.leaving is not None and not tracee.silent:
            self.leaving(tracee)

    def signal(self, tracee: Tracee, number: int, stopped: bool) -> None:
        """A signal is about to be delivered to a thread, or it is ``stopped`` by it."""
        if self.signalled is not None and number and not tracee.silent:
            self.working = True
            self.signalled(tracee, number, stopped)

    def execed(self, tracee: Tracee) -> None:
        self.working = True
        self.sink.execed(tracee)

    def ended(self, tracee: Tracee, status: int | None) -> None:
        """``status``: the wait status; None: it is gone, and nobody reported its end."""
        if tracee.silent:
            return
        self.working = True
        if status is None:
            self.sink.exited(tracee, None, None, False)
        elif os.WIFSIGNALED(status):
            self.sink.exited(tracee, None, os.WTERMSIG(status), os.WCOREDUMP(status))
        else:
            self.sink.exited(tracee, os.WEXITSTATUS(status), None, False)

    def note(self, tracee: Tracee | None, text: str) -> None:
        self.sink.note(tracee, text)
