"""A trace file through the pipeline: whole, or item by item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from bpftrace_sys.common.progress import Progress, on_terminal
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.pipeline import Pipeline
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.header import Header
from bpftrace_sys.trace.items import End, Fact, Flush, Item
from bpftrace_sys.trace.reader import Reader
from decoders.loop_calls import Rounds


def read(path: str, make: Callable[[Model], Renderer]) -> Header:
    """Feeds a trace to the renderer that ``make`` makes of the trace's model.

    ``-`` is stdin.  TraceError where the file is damaged or ends without its end
    line: what was fed until then is not the whole trace.
    """
    reader = Reader(path)
    header = reader.header
    facts = RecordedFacts.of(header)
    pipeline = Pipeline(facts)
    pipeline.faults.fatal = True
    pipeline.renderers = [make(pipeline.model)]
    pipeline.header(header)
    progress = Progress(reader.position, reader.path, on_terminal())
    try:
        for count in fed(reader.together(), pipeline, facts):
            progress.tick(count)
    finally:
        progress.done()
    return header


def fed(items: Iterable[Item | Rounds], pipeline: Pipeline, facts: RecordedFacts) -> Iterator[int]:
    """Feeds the items of a trace one by one, or as they come together; what they led to has
    happened at each yield, which says how many they were."""
    for item in items:
        if isinstance(item, Fact):
            facts.learn(item.kind, item.key, item.name)
            pipeline.fact(item.kind, item.key, item.name)
        elif isinstance(item, Flush) and item.lull:
            pipeline.lull()
        elif isinstance(item, Flush):
            pipeline.flush()
        elif isinstance(item, End):
            pipeline.end(item.ending)
        else:
            pipeline.take(item)
        yield len(item) if isinstance(item, Rounds) else 1
