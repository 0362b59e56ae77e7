"""The header of a trace: its first line."""

from __future__ import annotations

from typing import Final

from bpftrace_sys import __version__
from decoders.records import dataclass, field

FORMAT: Final = "bpfstrace"
VERSION: Final = 1
"""Raised when a reader of the old version would misread a trace; additions keep it."""


@dataclass(slots=True)
class Header:
    """Who was traced, where, and what the machine was like."""

    argv: list[str]
    kernel: str
    machine: str
    cpus: int
    pmu_types: dict[str, int]
    start: int
    """Nanoseconds since the epoch."""
    options: dict[str, object] = field(default_factory=dict)
    """What decides what was recorded: syscalls, all paths or not."""
    host: str = ""
    """The machine's name (uname's nodename); empty in traces from before it was noted."""
    version: str = __version__
    extra: dict[str, object] = field(default_factory=dict)
    """Fields that we do not know, kept for writing the trace again."""

    def line(self) -> dict[str, object]:
        """As it stands in the file."""
        host = {"host": self.host} if self.host else {}
        return {
            "type": "trace",
            "format": FORMAT,
            "version": VERSION,
            "bpfstrace": self.version,
            "argv": self.argv,
            **host,
            "kernel": self.kernel,
            "machine": self.machine,
            "cpus": self.cpus,
            "start": self.start,
            "pmu_types": self.pmu_types,
            "options": self.options,
            **self.extra,
        }
