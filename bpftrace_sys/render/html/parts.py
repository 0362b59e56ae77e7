"""What all parts of a page are put together from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bpftrace_sys.render.html.markup import Child, Markup, element, joined
from bpftrace_sys.render.html.records import Report

ENTRIES: Final = 300
"""Of each kind; a line says how many more there are."""


def section(name: str, title: str, *children: Child, scroll: bool = False) -> Markup | None:
    """A section with a title; None where nothing is in it."""
    if all(child is None for child in children):
        return None
    inside = element("div", {"class": "scroll"}, *children) if scroll else joined(*children)
    return element("section", {"id": name}, element("h2", {}, title), inside)


def who(report: Report, number: int | None, text: str) -> Child:
    """A thing as a link."""
    if number is None:
        return text
    return element("a", {"href": f"#{report.page_objects[number].anchor}"}, text)


def with_id(report: Report, number: int) -> str:
    """``link id 5``."""
    return report.page_objects[number].anchor.replace("-", " id ", 1)


def rest(entries: Sequence[object], what: str) -> Markup | None:
    """Says that a section does not show all."""
    left = len(entries) - ENTRIES
    if left <= 0:
        return None
    return element("p", {"class": "cut"}, f"{left:,} more {what} are not on this page")


def call_link(seq: int, text: str) -> Markup:
    """A link to a call."""
    return element("a", {"class": "seq", "href": f"#call-{seq}"}, text)


def fact(name: str, *value: Child) -> Markup | None:
    """A name and a value in a list of facts; None where there is no value."""
    if all(part in (None, "") for part in value):
        return None
    return element("div", {}, element("dt", {}, name), element("dd", {}, *value))


def listed(items: Sequence[Child], between: str = ", ") -> list[Child]:
    """Items with commas between them."""
    found: list[Child] = []
    for item in items:
        found += [between, item] if found else [item]
    return found


def table(columns: Sequence[str], right: frozenset[str], rows: Sequence[Sequence[Child]],
           anchors: Sequence[str] = ()) -> Markup | None:
    """A table; None without rows.  ``right`` are the columns of numbers."""
    if not rows:
        return None
    heads = [
        element("th", {"class": "number" if column in right else None}, column)
        for column in columns
    ]
    lines = [
        element(
            "tr",
            {"id": anchors[at] if at < len(anchors) else None},
            *(
                element("td", {"class": "number" if column in right else None}, cell)
                for column, cell in zip(columns, row, strict=True)
            ),
        )
        for at, row in enumerate(rows)
    ]
    return element("div", {"class": "scroll"}, element(
        "table", {}, element("thead", {}, element("tr", {}, *heads)),
        element("tbody", {}, *lines)))  # fmt: skip
