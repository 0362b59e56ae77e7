"""A call that has begun, and has not returned yet."""

from __future__ import annotations

from decoders.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from decoders.raw import Chunk, Extra, FdFact, RawCall


class Running(NamedTuple):
    """A call, told of before it is over; the call itself follows when it is."""

    call: RawCall
    """It may have returned by the time that this is told."""
    chunks: list[Chunk]
    """What was copied of its memory until now."""
    fds: list[FdFact]
    extra: Extra

    @classmethod
    def of(cls, raw: RawCall) -> Running:
        """What is known of a call at this moment: short enough for a stop."""
        return cls(raw, raw.chunks[:], raw.fds[:], raw.extra)

    def as_begun(self) -> RawCall:
        """The call as it was then."""
        return self.call.replace(
            ret=None, failed=False, duration=None, chunks=self.chunks, fds=self.fds,
            extra=self.extra, stack=None, carried=(),
        )  # fmt: skip
