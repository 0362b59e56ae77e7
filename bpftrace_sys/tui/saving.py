"""Calls of a trace as a trace of their own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from bpftrace_sys.render.json_lines import JsonLines
from bpftrace_sys.render.output import open_json
from bpftrace_sys.story.pipeline import Pipeline
from bpftrace_sys.story.whole_trace import fed
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.items import End, Flush, Item, TraceError
from bpftrace_sys.trace.kernel_view import KernelView
from bpftrace_sys.trace.reader import Reader
from bpftrace_sys.trace.running import Running
from decoders.events import Ending
from decoders.raw import RawCall

NARROWED: Final = "tui selection"
"""What the header says of it: it is not the whole trace."""


class Chosen:
    """The items of a trace, of its calls only those that were chosen."""

    def __init__(self, items: Iterable[Item], seqs: Collection[int]) -> None:
        self._items = items
        self._seqs = seqs
        self.calls = 0
        """Those that have passed."""

    def __iter__(self) -> Iterator[Item]:
        """Marks of what was held back go: the attachments of other calls are not told."""
        last = False
        for item in self._items:
            if isinstance(item, RawCall):
                last = item.seq in self._seqs
                self.calls += last
                if not last:
                    continue
            if isinstance(item, KernelView) and not last:
                continue
            if isinstance(item, Running) and item.call.seq not in self._seqs:
                continue
            if isinstance(item, Flush) and not item.lull:
                continue
            yield item


def save(path: str, seqs: Collection[int], output: str) -> int:
    """Writes the calls with these numbers to another file; returns how many.

    Facts, what processes held and their ends stay.  Raises OutputError where the file cannot be
    made, TraceError where nothing can be read; a trace that ends in the middle gives what stood
    before, and an end line that says why.
    """
    reader = Reader(path)
    header = reader.header
    before = header.options.get("narrowed")
    header.options["narrowed"] = [*(before if isinstance(before, list) else ()), NARROWED]
    out = open_json(output)
    facts = RecordedFacts.of(header)
    pipeline = Pipeline(facts)
    pipeline.renderers = [JsonLines(out, pipeline.model)]
    pipeline.header(header)
    chosen = Chosen(reader, seqs)
    try:
        for _ in fed(chosen, pipeline, facts):
            pass
    except TraceError as error:
        for _ in fed([End(Ending(error=error.why))], pipeline, facts):
            pass
    out.close()
    if out.lost is not None:
        from bpftrace_sys.render.output import OutputError

        raise OutputError(f"output to {output} was lost: {out.lost}")
    return chosen.calls
