"""Calls that have begun and not returned, and which of them are told of before they have."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bpftrace_sys.record.capture import loops
    from bpftrace_sys.record.capture.families import Family
    from bpftrace_sys.record.capture.loops import Plan
    from bpftrace_sys.trace.running import Running
    from decoders.raw import RawCall

    Copied = tuple[RawCall, Plan | Family | None, Any]
    """A call, what it was copied by, and else the walk that goes on at its end."""
    Pending = Copied | loops.Begun


def raw_of(pending: Pending) -> RawCall:
    """A call that has begun."""
    return pending[0].call(*pending[1:]) if len(pending) == 4 else pending[0]


class Begun:
    """The calls of a Capture that have not returned; ``put`` takes what is to be told of them."""

    def __init__(self, put: Callable[[Running], None]) -> None:
        self.calls: dict[int, Pending] = {}
        """By thread; who began first stands first."""
        self.apart = False
        """A call is told of as it begins, too, where another's beginning or end comes between
        (--style strace)."""
        self._put = put
        self._latest: RawCall | None = None
        """Then: the call that began last, if nothing came between yet."""
        self._told: set[int] = set()
        """Numbers of those that were told of."""

    def begins(self, raw: RawCall, pending: Pending) -> None:
        """In the entry stop."""
        self.calls[raw.tid] = pending
        if self.apart:
            self.between()
            self._latest = raw

    def returned(self, raw: RawCall) -> None:
        """A call that is over is about to be told."""
        if self._latest is not None:
            self.between(raw)
        if self._told:
            self._told.discard(raw.seq)

    def between(self, whose: RawCall | None = None) -> None:
        """Something comes that is of another thread than the call that began last, unless it is
        this call's own end: so that call is told of first."""
        latest, self._latest = self._latest, None
        if latest is not None and latest is not whose:
            self._tell(latest)

    def since(self) -> int | None:
        """When the one began that began first, in nanoseconds; None: there is none."""
        for pending in self.calls.values():
            return pending[2] if len(pending) == 4 else pending[0].time
        return None

    def oldest(self) -> RawCall | None:
        """The one that began first."""
        for tid in self.calls:
            return self._by_itself(tid)
        return None

    def _by_itself(self, tid: int) -> RawCall:
        """A call of which more is told than that it was one more round."""
        pending = self.calls[tid]
        if len(pending) == 4:
            pending = self.calls[tid] = (raw_of(pending), pending[0], None)
        return pending[0]

    def tell_slow(self, before: int) -> None:
        """Tells of those that began before this time, in nanoseconds."""
        for tid in self.calls:
            raw = self._by_itself(tid)
            if raw.time > before:
                return
            self._tell(raw)
            if raw is self._latest:
                self._latest = None

    def _tell(self, raw: RawCall) -> None:
        from bpftrace_sys.trace.running import Running

        if raw.seq not in self._told:
            self._told.add(raw.seq)
            self._put(Running.of(raw))
