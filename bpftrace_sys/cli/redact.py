"""``bpfstrace redact``: a trace that can be shown, without values, strings, paths and the like."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.messages import DONE, OWN_FAILURE, TROUBLE
from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.common.progress import Progress, on_terminal
from bpftrace_sys.export.redaction import Redaction
from bpftrace_sys.render.json_lines import JsonLines
from bpftrace_sys.render.output import close, complain, open_json
from bpftrace_sys.story.pipeline import Pipeline
from bpftrace_sys.story.whole_trace import fed
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.items import Fact, Item, TraceError
from bpftrace_sys.trace.reader import Reader
from bpftrace_sys.trace.redacted import NAMES, USUAL


def main(words: list[str]) -> int:
    """``bpfstrace redact`` with what follows it; returns the exit code."""
    found = arguments("redact", words)
    if found is None:
        return DONE
    output, keep, paths = "", frozenset[str](), found[1]
    usual = frozenset(USUAL)
    more = frozenset[str]()
    for flag, value in found[0]:
        if flag == "--keep":
            keep |= frozenset(value.split(","))
        elif flag == "--names":
            more = frozenset({NAMES})
        else:
            output = value
    wrong = sorted(keep - usual)
    if wrong:
        raise UsageError(f"redact: --keep knows {', '.join(USUAL)}, not {wrong[0]!r}")
    if len(paths) != 1 or not output:
        raise UsageError("redact takes one trace and a file: bpfstrace redact TRACE -o FILE")
    if os.path.exists(output) and os.path.exists(paths[0]) and os.path.samefile(output, paths[0]):
        raise UsageError(f"redact: {output} is the trace itself; write to another file")
    try:
        reader = Reader(paths[0])
    except TraceError as error:
        complain(str(error))
        return TROUBLE
    return _write(reader, output, usual - keep | more)


def _learned(items: Iterable[Item], known: RecordedFacts) -> Iterator[Item]:
    """The items of a trace; ``known`` has the facts that came before each."""
    for item in items:
        if isinstance(item, Fact):
            known.learn(item.kind, item.key, item.name)
        yield item


def _write(reader: Reader, output: str, hidden: frozenset[str]) -> int:
    known = RecordedFacts.of(reader.header)
    redaction = Redaction(known, hidden)
    header = redaction.header(reader.header)
    out = open_json(output)
    facts = RecordedFacts.of(header)
    pipeline = Pipeline(facts)
    pipeline.faults.report = complain
    pipeline.renderers = [JsonLines(out, pipeline.model)]
    pipeline.header(header)
    progress = Progress(reader.position, reader.path, on_terminal())
    code = DONE
    try:
        for _ in fed(redaction.items(_learned(reader, known)), pipeline, facts):
            progress.tick()
    except TraceError as error:
        pipeline.cut()
        complain(f"{error}; what stood before is written")
        code = TROUBLE
    finally:
        progress.done()
    return code if close([out]) and not pipeline.faults.count else OWN_FAILURE
