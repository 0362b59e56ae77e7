"""Refused loads that come again, byte for byte: nothing of them is worked out anew.

A loader that is refused tries once more, and one that waits for something tries a hundred times.
From the third such call on, with nothing else between, all that differs is when it was made and
which attempt it is: decoding, objects and reasons are those of the call before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpftrace_sys.story.objects import NotedCall, Notes
from decoders.loop_calls import NUMBERS, TRIED_AGAIN

if TYPE_CHECKING:
    from bpftrace_sys.story.explain.retries import Retries
    from decoders.raw import RawCall


class Again:
    """Remembers the last call, if one like it would be told in the same way."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._last: NotedCall | None = None

    def told(self, call: NotedCall) -> None:
        """A call that went the usual way."""
        notes, raw = call.notes, call.raw
        retry = notes.retry
        self._last = None
        if retry is None or retry.changed or not raw.failed or call.problem is not None:
            return
        if raw.args[0] not in TRIED_AGAIN or (raw.arch, raw.nr) not in NUMBERS:
            return
        if notes.probe is None and not notes.mismatch and not notes.momentary and is_bare(raw):
            self._last = call

    def forget(self) -> None:
        """Something else was seen."""
        self._last = None

    def take(self, raw: RawCall) -> tuple[NotedCall, NotedCall] | None:
        """The call, and the one before it that it equals; None: it has to be looked at."""
        last = self._last
        if last is None or not equal(raw, last.raw):
            return None
        before = last.notes
        notes = Notes(before.objects, explanation=before.explanation)
        call = NotedCall(raw, last.syscall, last.args, last.ret, None, last.command, notes)
        notes.retry = self._retries.again(call)
        self._last = call
        return call, last


def is_bare(raw: RawCall) -> bool:
    """Whether a call has nothing with it but registers, memory and fds."""
    return raw.watched_exit and raw.stack is None and not raw.carried


def equal(raw: RawCall, other: RawCall) -> bool:
    """Whether two calls are the same but for their numbers and times."""
    return (
        raw.tid == other.tid
        and raw.args == other.args
        and raw.ret == other.ret
        and raw.failed == other.failed
        and raw.nr == other.nr
        and raw.arch == other.arch
        and raw.pid == other.pid
        and raw.comm == other.comm
        and (raw.chunks is other.chunks or raw.chunks == other.chunks)
        and raw.fds == other.fds
        and raw.extra == other.extra
        and is_bare(raw)
    )
