"""Which renderers the settings ask for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bpftrace_sys.cli.settings import TRACED
from bpftrace_sys.render.output import Files, Output
from bpftrace_sys.render.split import Split
from bpftrace_sys.render.style import columns_of, painter, plain_painter, wants_colour
from bpftrace_sys.render.tables import LedgerRenderer
from bpftrace_sys.render.text import TextRenderer
from bpftrace_sys.render.text_options import Options
from bpftrace_sys.render.times import stamps
from bpftrace_sys.story.selection import Selected, Selection

if TYPE_CHECKING:
    from bpftrace_sys.cli.settings import Settings
    from bpftrace_sys.story.renderer import Renderer


def renderers(
    settings: Settings,
    pipeline: Any,
    text: Output,
    json: Output | None,
    outputs: list[Output | Files],
    page: Output | None = None,
) -> list[Renderer]:
    """What the settings ask for; what is opened for it is added to ``outputs``."""
    stream: Any = text
    chosen: list[Renderer] = []
    if settings.canonical:
        from bpftrace_sys.render.canonical import CanonicalRenderer

        chosen.append(CanonicalRenderer(stream, pipeline.model, settings.verbose))
    elif not settings.counts:
        stamp = stamps(settings.times, settings.since)
        options = Options(
            verbose=settings.verbose,
            insns=settings.insns,
            width=width_of(text),
            quiet=settings.quiet or settings.style == "strace",
            stamp=stamp,
            spent=settings.spent,
            comms=settings.comms,
            stacks=settings.stacks,
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

        def to(out: Any, paint: Any) -> Renderer:
            if settings.style == "strace":
                from bpftrace_sys.render.strace import StraceRenderer

                return StraceRenderer(
                    out,
                    column=settings.column,
                    string_limit=settings.string_limit,
                    quiet=settings.quiet,
                    stamp=stamp,
                    spent=settings.spent,
                    comms=settings.comms,
                    stacks=settings.stacks,
                )
            return TextRenderer(out, pipeline.model, options, paint)

        if settings.split:
            files = Files(str(settings.output), settings.append)
            outputs.append(files)
            asked = paint if settings.colour == "always" else plain_painter
            chosen.append(Split(lambda tid: to(files.open(tid), asked), files.ended))
        else:
            chosen.append(to(stream, paint))
    if json is not None:
        chosen.append(_lines(settings, json, pipeline))
    selection = Selection(
        settings.statuses, settings.succeeded, settings.progs, settings.paths, *_replayed(settings)
    )
    if selection:
        chosen = [Selected(renderer, selection) for renderer in chosen]
    if not settings.canonical and (
        settings.counts or not (settings.quiet or settings.style == "strace")
    ):
        # After the text and before the JSON's last line.
        ledger = LedgerRenderer(
            stream, text.stream, pipeline.model, settings.counts, settings.colour
        )
        chosen.insert(0 if settings.counts else 1, ledger)
    if settings.events is not None:
        from bpftrace_sys.render.events import Events
        from bpftrace_sys.render.output import created

        stdout = settings.events == "-"
        to_file = (
            Output(sys.stdout, "<stdout>")
            if stdout
            else Output(created(settings.events, append=True), settings.events)
        )
        outputs.append(to_file)
        chosen.append(Events(to_file, pipeline.model))  # type: ignore[arg-type]
    if page is not None:
        chosen.append(_report(page, pipeline))
    if settings.annotate:
        from bpftrace_sys.render.annotations import Annotations

        out = text
        if text.stream is not sys.stderr:
            out = Output(sys.stderr, "<stderr>")
            outputs.append(out)
        chosen.append(Annotations(out, pipeline.model))
    return chosen


def _replayed(settings: Settings) -> tuple[frozenset[str] | None, frozenset[int]]:
    """Calls and bpf commands that are shown of a trace; of what is traced live no others are."""
    if not settings.replayed:
        return None, frozenset()
    calls = frozenset(settings.traced) if settings.traced != TRACED else None
    if not settings.commands:
        return calls, frozenset()
    from bpftrace_sys.cli.expressions import bpf_commands

    return calls, frozenset(bpf_commands(settings.commands))


def _lines(settings: Settings, json: Output, pipeline: Any) -> Renderer:
    """The JSON lines; in files that can be begun anew where it is traced for long."""
    if settings.engine == "bpf" and not json.name.startswith("<"):
        from bpftrace_sys.render.rotated import RotatedLines
        from bpftrace_sys.trace.writer import open_for_writing

        lines = RotatedLines(json, pipeline.model, open_for_writing, *settings.rotate)
        json.reopen = lines.reopen
        return lines
    from bpftrace_sys.render.json_lines import JsonLines

    return JsonLines(json, pipeline.model)  # type: ignore[arg-type]


def _report(out: Output, pipeline: Any) -> Renderer:
    """The page, which is written when the trace has ended; of all that was traced."""
    from bpftrace_sys.render.html.gather import Gather
    from bpftrace_sys.render.html.page import page
    from bpftrace_sys.render.html.records import Report

    def write(report: Report) -> None:
        for piece in page(report, gather.marks.names):
            out.write(piece)

    gather = Gather(pipeline.model, write)
    return gather


def width_of(output: Output) -> int:
    """Columns to fill: a terminal's own, else always the same."""
    return max(columns_of(output.stream) or 100, 40)
