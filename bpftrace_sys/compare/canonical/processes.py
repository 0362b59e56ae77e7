"""Processes by their place in the tree instead of their pids."""

from __future__ import annotations

from decoders.events import Exit, Fork, ProcessEvent
from decoders.records import dataclass


@dataclass(slots=True, eq=False)
class Process:
    """A process by its place in the tree: (1,) the first, (1, 2) its second child."""

    path: tuple[int, ...]
    comm: str = ""
    children: int = 0
    exit: str = ""

    @property
    def label(self) -> str:
        """``1.2 bpftool``"""
        return f"{'.'.join(map(str, self.path))} {self.comm}".rstrip()


class Processes:
    """The tree of processes, from forks and exits."""

    def __init__(self) -> None:
        self.by_pid: dict[int, Process] = {}
        self.numbers: set[int] = set()
        """pids and tids that a text may hold."""
        self.roots = 0

    def get(self, pid: int) -> Process:
        """The process of a pid."""
        known = self.by_pid.get(pid)
        if known is None:
            self.roots += 1
            known = self.by_pid[pid] = Process((self.roots,))
            self.numbers.add(pid)
        return known

    def event(self, event: ProcessEvent) -> None:
        """A fork, exec or exit."""
        what = event.what
        if isinstance(what, Fork):
            self.numbers.update((what.child, what.child_tid))
            if what.how == "thread":
                return
            parent = self.get(event.pid)
            parent.children += 1
            self.by_pid[what.child] = Process((*parent.path, parent.children), parent.comm)
        elif isinstance(what, Exit) and event.ends_process:
            known = self.get(event.pid)
            if what.code is not None:
                known.exit = f"exited with {what.code}"
            elif what.signal is not None:
                known.exit = f"killed by signal {what.signal}"

    def name(self, pid: int) -> str:
        """How texts speak of a pid."""
        known = self.by_pid.get(pid)
        return "some process" if known is None else f"process {'.'.join(map(str, known.path))}"
