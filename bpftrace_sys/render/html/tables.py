"""The tables of a report: links, what is left behind, time in the kernel."""

from __future__ import annotations

from collections.abc import Sequence

from bpftrace_sys.render.html.markup import Child, Markup, element
from bpftrace_sys.render.html.parts import ENTRIES, rest, section, table, who
from bpftrace_sys.render.html.quantities import grouped
from bpftrace_sys.render.html.records import Report


def links(report: Report) -> Markup | None:
    """Links, with what they tie together."""
    rows: list[Sequence[Child]] = []
    anchors = []
    ties = {tie.link: tie for tie in report.ties if tie.link is not None}
    for number, thing in enumerate(report.page_objects):
        if thing.kind != "link":
            continue
        tie = ties.get(number)
        program = "" if tie is None else who(report, tie.prog, tie.who)
        target = tie.target if tie is not None else thing.label.partition(" -> ")[2]
        anchors.append(thing.anchor)
        rows.append((thing.anchor.removeprefix("link-"), thing.name or _kind_of_link(thing.label),
                     program, target))  # fmt: skip
    found = table(("id", "type", "program", "target"), frozenset({"id"}), rows[:ENTRIES], anchors)
    return section("links", "Links", found, rest(rows, "links"))


def _kind_of_link(label: str) -> str:
    words = label.split(" ")
    return words[1] if len(words) > 2 and words[0] == "link" else ""


def remains(report: Report) -> Markup | None:
    """What is still in the kernel when the last process is gone, and why."""
    anchors = {(thing.kind, thing.anchor) for thing in report.page_objects}
    rows: list[Sequence[Child]] = []
    for kind, number, name, why in report.remains:
        anchor = f"{kind}-{number}"
        shown: Child = name or "(anonymous)"
        if (kind, anchor) in anchors:
            shown = element("a", {"href": f"#{anchor}"}, shown)
        rows.append((kind, number, shown, why))
    found = table(("what", "id", "name", "why"), frozenset({"id"}), rows[:ENTRIES])
    return section("remains", "Left behind", found, rest(rows, "objects"))


def counts(report: Report) -> Markup | None:
    """Calls by command: how many, how many failed, how long they took."""
    rows: list[Sequence[Child]] = [
        (syscall, element("a", {"href": f"?q=cmd:{(command or syscall).lower()}#calls"},
                          command or syscall), *map(grouped, (calls, errors, us)))
        for syscall, command, calls, errors, us in report.counts
    ]  # fmt: skip
    right = frozenset({"calls", "errors", "µs"})
    return section(
        "counts", "Time in the kernel", table(("syscall", "command", "calls", "errors", "µs"),
                                               right, rows)
    )  # fmt: skip
