"""The data that the script shows, in blocks that are parsed when they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bpftrace_sys.render.html.axis import axis
from bpftrace_sys.render.html.markup import Markup, data
from bpftrace_sys.render.html.parts import ENTRIES
from bpftrace_sys.render.html.programs import trimmed
from bpftrace_sys.render.html.records import CallRow, KernelSide, Program, Report


def payload(report: Report, styles: Sequence[str]) -> Iterator[Markup]:
    """What the script shows, in blocks that are parsed when they are looked at."""
    first = report.first or 0
    spans = [(row.time - first, row.time - first + (row.duration or 0)) for row in report.rows]
    spans += [(event.time - first, event.time - first) for event in report.events]
    yield data(
        "d-trace",
        {
            "styles": list(styles),
            "start": first // 1000,
            "things": [[thing.kind, thing.anchor, thing.name, thing.label]
                       for thing in report.page_objects],
            "threads": [[thread.pid, thread.tid, thread.comm, thread.calls]
                        for thread in report.threads],
            "commands": report.commands,
            "groups": report.groups,
            "events": [(event.time - first, *event[1:]) for event in report.events],
            "axis": axis(spans),
            "loads": {str(program.seq): program.anchor for program in report.programs
                      if program.seq},
        },
    )  # fmt: skip
    yield data("d-calls", [_row(row, first) for row in report.rows])
    for program in report.programs[:ENTRIES]:
        yield data(f"d-{program.anchor}", _program(program))
    for found in report.maps[:ENTRIES]:
        if found.events:
            yield data(f"d-{found.anchor}", {"events": found.events})
    for blob in report.blobs[:ENTRIES]:
        if blob.text:
            yield data(f"d-{blob.anchor}", {"text": blob.text})


def _row(row: CallRow, first: int) -> tuple[object, ...]:
    """A call by the time since the first one; without a stack where there is none."""
    return (row.seq, row.time - first, *(row[2:] if row.stack else row[2:-1]))


def _program(program: Program) -> dict[str, object]:
    """What the script shows of a program, without what lacks."""
    found: dict[str, object] = {
        "rows": list(map(trimmed, program.rows)),
        "maps": program.maps,
        "reads": program.reads,
        "log": program.log,
        "log_cut": program.log_cut,
        "said": program.said,
        "state": program.state,
        "missing": program.missing,
        "unread": program.unread,
        "kernel": None if program.kernel is None else _kernel(program.kernel),
    }
    kept = {name: value for name, value in found.items() if value}
    if program.rejected is not None:
        kept["rejected"] = program.rejected  # 0 is a pc, too
    return kept


def _kernel(side: KernelSide) -> dict[str, object]:
    return {"rows": side.rows, "translated": side.translated, "native": side.native}
