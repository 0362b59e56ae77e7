"""How tracing fails."""

from __future__ import annotations

from bpftrace_sys.common import BpfstraceError


class EngineError(BpfstraceError):
    """Tracing is not possible here; the text says why and what helps."""


class AttachError(EngineError):
    """A process could not be attached to. ``pid`` and ``errno`` (0: not an error
    of the kernel's) say which and why, the text says it in words."""

    def __init__(self, pid: int, error: int, text: str) -> None:
        super().__init__(text)
        self.pid = pid
        self.errno = error
