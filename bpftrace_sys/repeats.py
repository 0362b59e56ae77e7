"""A fast path for loops: calls like an earlier one but for the data in the same places.

A program that fills or dumps a map makes the same bpf(2) call thousands of
times: same thread, same fd, same addresses, same result; only the bytes of keys
and values differ.  Such a call needs no decoding again: its text is the earlier
one's with other bytes in two places.  Whatever is not exactly alike takes the
usual path, and what comes out is the same either way (the tests hold both
against each other).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bpftrace_sys.loops import COMMANDS, NUMBERS
from decoders.raw import Chunk, RawCall

if TYPE_CHECKING:
    from bpftrace_sys.ledger import Count
    from bpftrace_sys.model import Object
    from bpftrace_sys.pipeline import Pipeline
    from bpftrace_sys.render.tables import LedgerRenderer
    from bpftrace_sys.render.text import TextRenderer
    from decoders.call import Call

REMEMBERED: Final = 256
"""Shapes; a program has few loops."""
USUAL: Final = frozenset({"objects"})
"""Notes that a call without anything remarkable has."""


@dataclass(slots=True)
class Template:
    """The text of a shape: what stands between the holes, and how wide these are."""

    parts: list[str]
    widths: list[int]
    used: Object | None
    """The map, whose operations are counted."""
    count: Count | None


def shape(raw: RawCall) -> tuple[Any, ...]:
    """All of a call but the data behind its attr's pointers."""
    # Stages and addresses of the chunks follow from the attr; their lengths do not.
    chunks = raw.chunks
    first, last = chunks[1], chunks[-1]
    return (
        raw.tid,
        raw.args,
        chunks[0].data,
        len(chunks),
        len(first.data),
        first.wanted,
        len(last.data),
        last.wanted,
        raw.fds[0].id,
    )


class Repeats:
    """Stands before the usual path of a pipeline that prints text."""

    def __init__(
        self, pipeline: Pipeline, text: TextRenderer, ledger: LedgerRenderer | None
    ) -> None:
        self._pipeline = pipeline
        self._text = text
        self._ledger = ledger
        self._seen: set[tuple[Any, ...]] = set()
        self._templates: dict[tuple[Any, ...], Template] = {}

    def eligible(self, raw: RawCall) -> bool:
        """Whether a call may be one of a loop."""
        return (
            raw.args[0] in COMMANDS
            and (raw.arch, raw.nr) in NUMBERS
            and not raw.failed
            and raw.ret == 0
            and 2 <= len(raw.chunks) <= 3
            and len(raw.fds) == 1
            and not raw.extra
        )

    def take(self, raw: RawCall) -> bool:
        """True: the call has been printed.  False: it goes the usual way."""
        key = shape(raw)
        template = self._templates.get(key)
        if template is None:
            if key in self._seen:
                self._learn(key, raw)
                return True
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
                self._templates.clear()
            self._seen.add(key)
            return False
        pipeline, text = self._pipeline, self._text
        if text.folds or pipeline.attachments.holds(raw.tid) or _recent(pipeline):
            return False
        words = [template.parts[0]]
        for chunk, width, part in zip(
            raw.chunks[1:], template.widths, template.parts[1:], strict=True
        ):
            word = text.octets(chunk.data)
            if len(word) != width:
                return False  # it may have to be laid out in another way
            words.append(word)
            words.append(part)
        text.out.write("".join(words))
        if template.used is not None:
            template.used.operations += 1
        if template.count is not None:
            template.count.calls += 1
            template.count.nanoseconds += raw.duration or 0
        return True

    def _learn(self, key: tuple[Any, ...], raw: RawCall) -> None:
        """Prints a call in the usual way, and keeps its text as a template if it is plain."""
        text = self._text
        text.holes = []
        text.printed = []
        call = self._pipeline.usual(raw)
        holes, text.holes = text.holes, None
        printed, text.printed = text.printed, None
        made = _template(printed, holes, raw.chunks[1:]) if _plain(call) else None
        if made is not None:
            made.used = self._pipeline.model.by_fd(call, "attr", "map_fd")
            if self._ledger is not None:
                made.count = self._ledger.counts.of(call)
            self._templates[key] = made


def _recent(pipeline: Pipeline) -> bool:
    return pipeline.probes is not None and pipeline.probes.recent


def _plain(call: Call) -> bool:
    return USUAL.issuperset(call.notes) and call.problem is None


def _template(
    printed: list[str] | None, holes: list[tuple[bytes, str]] | None, chunks: list[Chunk]
) -> Template | None:
    """The printed text cut at its holes; None if they are not just the call's chunks."""
    if not printed or len(printed) != 1 or holes is None or len(holes) != len(chunks):
        return None
    rest = printed[0]
    parts = []
    for (data, word), chunk in zip(holes, chunks, strict=True):
        before, found, after = rest.partition(word)
        if data != chunk.data or not found:
            return None
        parts.append(before)
        rest = after
    return Template([*parts, rest], [len(word) for _, word in holes], None, None)
