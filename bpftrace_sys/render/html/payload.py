"""The data that the script shows, in blocks that are parsed when they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from bpftrace_sys.render.html.axis import axis
from bpftrace_sys.render.html.markup import Markup, data
from bpftrace_sys.render.html.parts import ENTRIES
from bpftrace_sys.render.html.records import Report
from decoders.records import asdict


def payload(report: Report, styles: Sequence[str]) -> Iterator[Markup]:
    """What the script shows, in blocks that are parsed when they are looked at."""
    first = report.first or 0
    spans = [(row[1], row[1] + (row[2] or 0)) for row in report.rows]
    spans += [(event[0], event[0]) for event in report.events]
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
            "events": report.events,
            "axis": axis(spans),
            "loads": {str(program.seq): program.anchor for program in report.programs
                      if program.seq},
        },
    )  # fmt: skip
    yield data("d-calls", report.rows)
    for program in report.programs[:ENTRIES]:
        kept = {
            key: value
            for key, value in asdict(program).items()
            if key in PROGRAM_DATA and value not in (None, "", [], {}, 0)
        }
        # 0 is a pc, too.
        if program.rejected is not None:
            kept["rejected"] = program.rejected
        yield data(f"d-{program.anchor}", kept)
    for found in report.maps[:ENTRIES]:
        if found.events:
            yield data(f"d-{found.anchor}", {"events": found.events})
    for blob in report.blobs[:ENTRIES]:
        if blob.text:
            yield data(f"d-{blob.anchor}", {"text": blob.text})


PROGRAM_DATA: Final = frozenset(
    {
        "rows", "maps", "reads", "log", "log_cut", "rejected", "said", "state", "missing", "unread",
        "kernel",
    }
)
"""Fields of a Program that the script shows."""
