"""Signals on their way to threads, as events of the trace: for --style strace."""

from __future__ import annotations

from bpftrace_sys.record.ptrace import requests as px
from decoders.events import Signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from bpftrace_sys.record.ptrace.tracee import Tracee
    from decoders.events import What

KEPT: Final = 48
"""Bytes of a siginfo_t that mean something."""


class Signals:
    """Told of each by the engine (Engine.tell_signals); tells of those that are wanted."""

    def __init__(self, tell: Callable[[Tracee, What], None], wanted: frozenset[int]) -> None:
        self._tell = tell
        self._wanted = wanted

    def __call__(self, tracee: Tracee, number: int, stopped: bool) -> None:
        if number not in self._wanted:
            return
        info = b""
        if not stopped:
            try:
                info = px.siginfo_bytes(tracee.tid)[:KEPT]
            except OSError:
                return  # it was killed in its stop
        self._tell(tracee, Signal(number, info.hex(), stopped))
