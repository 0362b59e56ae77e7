"""Objects of the trace as entries of the page, each with an anchor."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.common.escape import printable
from bpftrace_sys.render.html import records
from bpftrace_sys.render.html.records import PageObject, Report
from bpftrace_sys.story.objects import Object

SHOWN: Final = frozenset({"prog", "map", "link", "btf", "perf_event"})


class PageObjects:
    """Numbers objects as they turn up."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._numbers: dict[int, int] = {}
        """By id() of an object, which stays its own while ``objects`` holds it."""
        self.objects: list[Object] = []
        self._anchors: set[str] = set()
        self._left_out: set[tuple[str, int | None]] = set()

    def of(self, found: Object) -> int | None:
        """The number of an object's entry; None for what has none."""
        number = self._numbers.get(id(found))
        if number is not None or found.kind not in SHOWN:
            return number
        if found.call is not None and found.call.notes.probe is not None:
            return None  # made for a moment, to see whether it can be
        if len(self.objects) >= records.OBJECTS:
            if len(self._left_out) < records.ROWS:
                self._left_out.add((found.kind, found.id))
                self.report.page_objects_left_out = len(self._left_out)
            return None
        number = self._numbers[id(found)] = len(self.objects)
        self.objects.append(found)
        kind = found.kind.replace("perf_", "")
        anchor = self.anchor(f"{kind}-{number if found.id is None else found.id}")
        self.report.page_objects.append(
            PageObject(
                found.kind,
                anchor,
                printable(found.name)[: records.NAME],
                printable(found.label)[: 2 * records.NAME],
            )
        )
        return number

    def anchor(self, wanted: str) -> str:
        """An anchor that nothing else has; an id may be in use anew in a long trace."""
        anchor, again = wanted, 1
        while anchor in self._anchors:
            again += 1
            anchor = f"{wanted}-{again}"
        self._anchors.add(anchor)
        return anchor

    def finish(self) -> None:
        """Names as they are known at the end."""
        for thing, found in zip(self.report.page_objects, self.objects, strict=True):
            thing.name = printable(found.name)[: records.NAME]
            thing.label = printable(found.label)[: 2 * records.NAME]
