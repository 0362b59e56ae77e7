"""Which renderers the settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bpftrace_sys.cli.outputs import ANNOTATE, EVENTS, JSON, REPORT, ROWS, TEXT, Outputs, Row
from bpftrace_sys.cli.settings import TRACED, silenced
from bpftrace_sys.render.output import Files, Output, complain
from bpftrace_sys.render.style import columns_of, painter, plain_painter, wants_colour
from bpftrace_sys.render.text import TextRenderer
from bpftrace_sys.render.text_options import Options
from bpftrace_sys.render.times import stamps
from bpftrace_sys.story.selection import Selected, Selection
from decoders.records import NamedTuple

if TYPE_CHECKING:
    from bpftrace_sys.cli.call_limit import CallLimit
    from bpftrace_sys.cli.settings import Settings
    from bpftrace_sys.render.output import TextOut
    from bpftrace_sys.render.strace import Manner
    from bpftrace_sys.story.pipeline import Pipeline
    from bpftrace_sys.story.renderer import Renderer


def renderers(
    settings: Settings, pipeline: Pipeline, outputs: Outputs, limit: CallLimit | None = None
) -> list[Renderer]:
    """A renderer for each output, the tables at the end of the text, and what counts calls."""
    chosen: list[Renderer] = []
    selection = Selection(
        settings.statuses, settings.succeeded, settings.progs, settings.paths, *_replayed(settings)
    )
    for row in ROWS:
        output = outputs.at(row)
        if output is None:
            continue
        renderer = RENDERERS[row](Making(settings, pipeline, outputs), output)
        if renderer is not None:
            chosen.append(Selected(renderer, selection) if row.selected and selection else renderer)
    if settings.style == "strace" and (settings.counts or settings.summary):
        from bpftrace_sys.render.strace.summary import StraceSummary

        summary: Renderer = StraceSummary(
            outputs.text,
            settings.summary_columns,
            settings.summary_order,
            wall=settings.wall,
            overhead=settings.overhead,
            say=complain,
        )
        if selection:
            summary = Selected(summary, selection)
        chosen.insert(0 if settings.counts else 1, summary)
    elif not settings.canonical and (
        settings.counts or not (settings.quiet or settings.style == "strace")
    ):
        from bpftrace_sys.render.tables import LedgerRenderer

        # After the text and before the JSON's last line.
        ledger = LedgerRenderer(
            outputs.text,
            outputs.text.stream,
            pipeline.model,
            settings.counts,
            settings.colour,
        )
        chosen.insert(0 if settings.counts else 1, ledger)
    if limit is not None:
        chosen.append(Selected(limit, selection) if selection else limit)
    return chosen


class Making(NamedTuple):
    """What a renderer is made of."""

    settings: Settings
    pipeline: Pipeline
    outputs: Outputs


def _text(making: Making, text: Output) -> Renderer | None:
    """The text, in one of its styles; none where just the tables are wanted (-c)."""
    settings, pipeline, _ = making
    if settings.canonical:
        from bpftrace_sys.render.canonical import CanonicalRenderer

        return CanonicalRenderer(text, pipeline.model, settings.verbose)
    if settings.counts:
        return None
    stamp = stamps(settings.times, settings.since)
    options = Options(
        verbose=settings.verbose,
        insns=settings.insns,
        width=width_of(text),
        columns=width_of(text) if columns_of(text.stream) else 0,
        quiet=settings.quiet or settings.style == "strace",
        stamp=stamp,
        spent=settings.spent,
        comms=settings.comms,
        stacks=settings.stacks,
        frames=settings.frames,
        kernel=settings.kernel,
        syntax=settings.syntax,
        held=not settings.progs,
        # Who names commands wants to see them.
        walks=not settings.commands,
    )
    options.tokens = wants_colour(text.stream, settings.colour)
    if settings.string_limit is not None:
        options.string_limit = settings.string_limit
    paint = painter(text.stream, settings.colour)

    def to(out: TextOut, paint: Any) -> Renderer:
        if settings.style == "strace":
            from bpftrace_sys.render.strace import StraceRenderer

            return StraceRenderer(
                out,
                manner_of(settings),
                say=_say(settings),
                silent=silenced(settings),
                signals=settings.signals,
                stamp=stamp,
                spent=settings.spent,
                comms=settings.comms,
                stacks=settings.stacks,
            )
        return TextRenderer(out, pipeline.model, options, paint)

    if not settings.split:
        return to(text, paint)
    from bpftrace_sys.render.split import Split

    files = Files(str(settings.output), settings.append)
    making.outputs.add(files)
    asked = paint if settings.colour == "always" else plain_painter
    return Split(lambda tid: to(files.open(tid), asked), files.ended)


def _events(making: Making, out: Output) -> Renderer:
    from bpftrace_sys.render.events import Events

    return Events(out, making.pipeline.model)


def _annotations(making: Making, out: Output) -> Renderer:
    from bpftrace_sys.render.annotations import Annotations

    return Annotations(out, making.pipeline.model)


def manner_of(settings: Settings) -> Manner:
    """How --style strace's lines are to be."""
    from bpftrace_sys.render.strace import Manner

    return Manner(
        release=settings.release,
        column=settings.column,
        string_limit=32 if settings.string_limit is None else settings.string_limit,
        verbose=settings.verbose,
        unabbreviated=settings.unabbreviated,
        raw=settings.raw,
        undecoded=settings.undecoded,
        constants=settings.constants,
        arguments=settings.arguments,
        fds=settings.shown_fds,
        frames=settings.frames,
        pids=_pids(settings),
    )


def _pids(settings: Settings) -> str:
    """Whose lines begin with a thread's id: ``all``, ``none``, or where there are several."""
    if settings.split:
        return "none"
    many = not settings.replayed and (settings.follow or len(settings.pids) > 1)
    in_file = settings.output not in (None, "-")
    return "all" if settings.show_pid or (many and in_file) else ""


def _say(settings: Settings) -> Callable[[str], None] | None:
    """Where strace's messages about processes go, which are no lines of its output; None where
    there are none."""
    if settings.replayed or "attach" in silenced(settings):
        return None
    return complain


def _replayed(settings: Settings) -> tuple[frozenset[str] | None, frozenset[int]]:
    """Calls and bpf commands that are shown of a trace; of what is traced live no others are."""
    if not settings.replayed:
        return None, frozenset()
    calls = frozenset(settings.traced) if settings.traced != TRACED else None
    if not settings.commands:
        return calls, frozenset()
    from bpftrace_sys.cli.expressions import bpf_commands

    return calls, frozenset(bpf_commands(settings.commands))


def _lines(making: Making, json: Output) -> Renderer:
    """The JSON lines; in files that can be begun anew where it is traced for long."""
    settings, pipeline, _ = making
    if settings.engine == "bpf" and not json.name.startswith("<"):
        from bpftrace_sys.render.rotated import RotatedLines
        from bpftrace_sys.trace.writer import open_for_writing

        lines = RotatedLines(json, pipeline.model, open_for_writing, *settings.rotate)
        json.reopen = lines.reopen
        return lines
    from bpftrace_sys.render.json_lines import JsonLines

    return JsonLines(json, pipeline.model)


def _report(making: Making, out: Output) -> Renderer:
    """The page, which is written when the trace has ended; of all that was traced."""
    from bpftrace_sys.render.html.gather import Gather
    from bpftrace_sys.render.html.page import page
    from bpftrace_sys.render.html.records import Report

    def write(report: Report) -> None:
        for piece in page(report, gather.marks.names):
            out.write(piece)

    gather = Gather(making.pipeline.model, write)
    return gather


RENDERERS: Final[dict[Row, Callable[[Making, Output], Renderer | None]]] = {
    TEXT: _text,
    JSON: _lines,
    EVENTS: _events,
    REPORT: _report,
    ANNOTATE: _annotations,
}
"""What makes the renderer of each output."""


def width_of(output: Output) -> int:
    """Columns to fill: a terminal's own, else always the same."""
    return max(columns_of(output.stream) or 100, 40)
