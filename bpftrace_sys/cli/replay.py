"""Printing a saved trace again: the live path, with a file for its source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bpftrace_sys.cli.config import configured
from bpftrace_sys.cli.help import said
from bpftrace_sys.cli.messages import OWN_FAILURE, TROUBLE
from bpftrace_sys.cli.options import UsageError, parse
from bpftrace_sys.cli.outputs import Outputs
from bpftrace_sys.cli.renderers import renderers
from bpftrace_sys.cli.settings import Settings, narrowed
from bpftrace_sys.common.progress import Progress, is_file, on_terminal
from bpftrace_sys.render.output import OutputError, complain
from bpftrace_sys.story.pipeline import Pipeline
from bpftrace_sys.story.whole_trace import fed
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.items import Item, TraceError
from bpftrace_sys.trace.kernel_view import KernelView
from bpftrace_sys.trace.reader import Reader
from decoders.raw import RawCall
from decoders.records import replace

if TYPE_CHECKING:
    from decoders.loop_calls import Rounds


def main(words: list[str]) -> int:
    """``bpfstrace replay``; returns the exit code."""
    settings = parse(words, "replay")
    if said(settings, "replay"):
        return 0
    settings = configured(settings, words, "replay")
    try:
        return replay(settings)
    except OutputError as error:
        complain(str(error))
        return OWN_FAILURE


class Held:
    """What a trace holds of that which is recorded on request."""

    stacks = views = False

    def noted(self, items: Iterable[Item | Rounds]) -> Iterator[Item | Rounds]:
        """The items, looked at as they pass."""
        for item in items:
            if isinstance(item, RawCall):
                self.stacks = self.stacks or item.stack is not None
            elif isinstance(item, KernelView):
                self.views = True
            yield item


def replay(settings: Settings) -> int:
    """Replays the file that the settings name."""
    if len(settings.args) != 1:
        raise UsageError("replay takes one trace file" + (" (- is stdin)" * (not settings.args)))
    if settings.injections:
        raise UsageError("-e inject= makes calls fail as they are made; those of a trace are done")
    settings.replayed = True
    try:
        reader = Reader(settings.args[0])
    except TraceError as error:
        complain(str(error))
        return TROUBLE
    outputs = Outputs.asked(settings)
    header = reader.header
    facts = RecordedFacts.of(header)
    pipeline = Pipeline(facts)
    pipeline.faults.report = complain
    pipeline.faults.debug = settings.debug
    pipeline.renderers = renderers(settings, pipeline, outputs)
    left_out = [f"replay {word}" for word in narrowed(settings)]
    copied = header
    if left_out:
        earlier = header.options.get("narrowed")
        words = [*(earlier if isinstance(earlier, list) else ()), *left_out]
        copied = replace(header, options={**header.options, "narrowed": words})
    # What is copied leaves something out; what is read does, as far as its own header says.
    pipeline.header(header, copied)
    code = 0
    held = Held()
    # Between lines of text on the same terminal a bar would be in the way.
    seen = on_terminal() and all(is_file(output.stream) for output in outputs)
    progress = Progress(reader.position, reader.path, seen)
    try:
        for count in fed(held.noted(reader.together()), pipeline, facts):
            progress.tick(count)
    except TraceError as error:
        progress.done()
        pipeline.cut()
        outputs.flush()
        complain(f"{error}; what stood before was replayed")
        code = TROUBLE
    progress.done()
    if settings.stacks and not held.stacks:
        complain(f"{reader.path} holds no stacks: they are recorded with -k, and only then")
    if settings.kernel and not held.views:
        complain(
            f"{reader.path} does not hold what the kernel made of programs: "
            "it is recorded with -e kernel=, and only then"
        )
    whole = outputs.close(pipes=False)
    if pipeline.faults.count:
        return OWN_FAILURE
    return code if whole else OWN_FAILURE
