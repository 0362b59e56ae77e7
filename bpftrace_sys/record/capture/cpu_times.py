"""CPU time that calls cost: for -c of --style strace."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from decoders.raw import RawCall


class CpuTimes:
    """``used``: nanoseconds at the last stop of each thread (ptrace/usage.py)."""

    def __init__(self, used: Mapping[int, int]) -> None:
        self._used = used
        self._began: dict[int, int] = {}

    def begins(self, tid: int) -> None:
        """In the stop of a call's entry."""
        self._began[tid] = self._used.get(tid, 0)

    def ended(self, raw: RawCall) -> None:
        """In that of its exit."""
        began = self._began.pop(raw.tid, None)
        if began is not None:
            raw.extra = raw.extra._replace(cpu=max(0, self._used.get(raw.tid, began) - began))
