"""A report as one HTML file: what is there without the script, and the data for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from bpftrace_sys.render.html.document import document
from bpftrace_sys.render.html.entries import blobs, maps, programs
from bpftrace_sys.render.html.graph import graph
from bpftrace_sys.render.html.head import attached_to, header, notes
from bpftrace_sys.render.html.markup import Child, Markup, element
from bpftrace_sys.render.html.parts import ENTRIES, call_link, rest, section, who, with_id
from bpftrace_sys.render.html.payload import payload
from bpftrace_sys.render.html.records import Report, Tie
from bpftrace_sys.render.html.tables import counts, links, remains

SCRIPTS: Final = ("base.js", "timeline.js", "programs.js", "maps.js", "calls.js", "start.js")
"""In this order they are one script."""
HEADS: Final = (("seq", "#"), ("t", "since, ms"), ("w", "thread"), ("c", "call"), ("s", "about"),
                ("x", "result"), ("d", "took"))  # fmt: skip
"""What the columns of calls are, under the classes that calls.js gives their cells."""


def page(report: Report, styles: Sequence[str]) -> Iterator[str]:
    """The file in pieces.  ``styles`` are the names of the painted text's marks."""
    return document(
        f"bpfstrace: {(report.argv or attached_to(report))[:80]}",
        "report",
        [
            header(report),
            element(
                "main",
                {},
                notes(report),
                section("graph", "What hangs together", graph(report), scroll=True),
                _timeline(report),
                _ties(report),
                programs(report),
                maps(report),
                links(report),
                blobs(report),
                remains(report),
                counts(report),
                _calls(report),
            ),
            element("footer", {}, f"made by bpfstrace {report.version} from a trace of "
                    f"Linux {report.kernel} {report.machine}"),
            *payload(report, styles),
        ],
        SCRIPTS,
    )  # fmt: skip


def _timeline(report: Report) -> Markup | None:
    if not report.rows:
        return None
    return element(
        "section",
        {"id": "timeline", "class": "scripted"},
        element("h2", {}, "Timeline"),
        element(
            "div",
            {"class": "tools"},
            element("span", {"class": "hint"}, "drag to zoom, click a call to see it"),
            element("button", {"type": "button", "id": "zoom-in", "title": "closer (+)"}, "+"),
            element("button", {"type": "button", "id": "zoom-out", "title": "farther (-)"}, "−"),
            element("button", {"type": "button", "id": "zoom-all", "title": "all of it (0)"},
                    "all"),
        ),
        element("div", {"id": "lanes", "tabindex": "0", "aria-label": "timeline of calls"}),
    )  # fmt: skip


def _ties(report: Report) -> Markup | None:
    if not report.ties:
        return None
    # The same for each CPU is told once.
    alike: dict[tuple[object, ...], list[int]] = {}
    for at, tie in enumerate(report.ties):
        link = tie.link if tie.verb != "disabled" else None
        key = (tie.verb, tie.prog, tie.who, tie.target, tie.via, link)
        alike.setdefault(key, []).append(at)
    groups = list(alike.values())
    return section(
        "attachments",
        "Attachments",
        element("ol", {"class": "ties"}, *(
            _tie(report, group[0], report.ties[group[0]], len(group))
            for group in groups[:ENTRIES])),
        rest(groups, "attachments"),
    )  # fmt: skip


def _tie(report: Report, at: int, tie: Tie, often: int) -> Markup:
    gone = tie.verb in ("detached", "disabled")
    told: list[Child] = [
        element("span", {"class": f"verb {'gone' if gone else 'on'}"}, tie.verb),
        " ",
        element("b", {}, who(report, tie.prog, tie.who)),
        " ⤫ " if tie.verb == "detached" else " → ",
        element("span", {"class": "target"}, tie.target),
    ]
    if tie.via not in ("", "link", "map"):
        told.append(element("span", {"class": "via"}, f" via {tie.via}"))
    if tie.link is not None:
        told += [" ", who(report, tie.link, with_id(report, tie.link))]
    if often > 1:
        told.append(element("span", {"class": "about"}, f" ×{often:,}, the first:"))
    steps = element(
        "ol",
        {"class": "steps"},
        *(
            element("li", {}, element("i", {}, role), " ", call_link(seq, text))
            for role, text, seq in tie.steps
        ),
    )
    given = None
    if tie.given:
        given = element("div", {"class": "given"}, "given ", element("code", {}, tie.given))
    return element("li", {"id": f"tie-{at + 1}"}, element("div", {}, *told), steps, given)


def _calls(report: Report) -> Markup | None:
    if not report.rows:
        return None
    return element(
        "section",
        {"id": "calls", "class": "scripted"},
        element("h2", {}, "Calls"),
        element(
            "div",
            {"class": "search", "role": "search"},
            element("input", {"id": "q", "type": "search", "autocomplete": "off",
                              "spellcheck": "false", "aria-label": "search calls",
                              "placeholder": "search: words, cmd:prog_load pid:123 obj:NAME "
                              "is:failed"}),
            element("select", {"id": "by-thread", "aria-label": "process"}),
            element("select", {"id": "by-command", "aria-label": "command"}),
            element("select", {"id": "by-thing", "aria-label": "object"}),
            element("label", {}, element("input", {"id": "by-error", "type": "checkbox"}),
                    " errors"),
            element("span", {"id": "found", "aria-live": "polite"}),
        ),
        element("div", {"class": "heads", "aria-hidden": "true"}, *(
            element("span", {"class": kind}, text) for kind, text in HEADS)),
        element("div", {"id": "list"}),
    )  # fmt: skip
