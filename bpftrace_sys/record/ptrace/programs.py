"""The programs that the tracer has started, which are its children: what they were, not how
they are traced."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


class Programs:
    """Their pids, as long as their ends have not been heard of."""

    __slots__ = ("first", "pids", "status")

    def __init__(self) -> None:
        self.pids: Final[set[int]] = set()
        self.first = 0
        """The pid of the first of them, whose status is the tracer's; 0: there is none."""
        self.status: int | None = None
        """Its wait status, once it has ended."""

    def started(self, pid: int) -> None:
        self.pids.add(pid)
        self.first = self.first or pid

    def failed(self, pid: int) -> None:
        """It has never become the program that it was to be."""
        self.pids.discard(pid)
        if self.first == pid:
            self.first = 0

    def forget(self) -> None:
        """They are nobody's that we wait for any more."""
        self.pids.clear()
        self.first = 0

    def reaped(self, tid: int, status: int) -> bool:
        """Whether this was the end of one of them."""
        if tid not in self.pids:
            return False
        self.pids.discard(tid)
        if tid == self.first:
            self.status = status
        return True
