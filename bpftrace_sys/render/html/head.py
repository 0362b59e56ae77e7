"""The head of a report: what ran, where, what came of it."""

from __future__ import annotations

import time

from bpftrace_sys.compare.diff.side import how_narrowed
from bpftrace_sys.render.html.markup import Child, Markup, element
from bpftrace_sys.render.html.quantities import count, span, times
from bpftrace_sys.render.html.records import ATTACHING, Program, Report


def header(report: Report) -> Markup:
    """Menu, command line, where and when, verdict and numbers."""
    started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(report.start // 10**9))
    where = [f"Linux {report.kernel} {report.machine}", count(report.cpus, "CPU")]
    if report.host:
        where.insert(0, report.host)
    lasted = report.last - (report.first or 0)
    where += [started, f"{count(report.calls, 'call')} in {span(lasted)}"]
    return element(
        "header",
        {},
        element(
            "div",
            {"class": "top"},
            element("a", {"class": "brand", "href": "#"}, "bpfstrace"),
            _menu(report),
            element("button", {"id": "theme", "type": "button", "title": "dark or light (t)"}, "◐"),
            element("button", {"id": "keys", "type": "button", "title": "keys (?)"}, "?"),
        ),
        element(
            "div",
            {"class": "lead"},
            element("h1", {}, report.argv or attached_to(report)),
            element("p", {"class": "where"}, " · ".join(where)),
            element("p", {"class": "verdict"}, *verdict(report)),
            _numbers(report),
        ),
    )


def attached_to(report: Report) -> str:
    """What stands for a command line where there is none (-p)."""
    callers = [f"{thread.comm} ({thread.pid})" for thread in report.threads]
    names = list(dict.fromkeys(report.holders + callers))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    how = "attached to " if report.holders else ""
    return f"{how}{', '.join(names[:3]) or 'no command line'}{more}"


def _menu(report: Report) -> Markup:
    rows = (
        ("graph", "Graph", bool(report.programs)),
        ("timeline", "Timeline", bool(report.rows)),
        ("attachments", "Attachments", bool(report.ties)),
        ("programs", "Programs", bool(report.programs)),
        ("maps", "Maps", bool(report.maps)),
        ("btf", "BTF", bool(report.blobs)),
        ("calls", "Calls", bool(report.rows)),
    )
    return element(
        "nav",
        {"aria-label": "sections"},
        *(element("a", {"href": f"#{name}"}, text) for name, text, there in rows if there),
    )


def verdict(report: Report) -> list[Child]:
    """What came of it, in a sentence or two: only what the trace shows."""
    loaded = [program for program in report.programs if program.seq and not program.error]
    whole = not report.page_objects_left_out
    refused = [program for program in report.programs if program.error]
    on = {tie.prog for tie in report.ties if tie.verb in ATTACHING}
    attached = [program for program in loaded if program.thing in on]
    words: list[str] = []
    if loaded:
        if not whole:
            words.append(f"Loaded at least {count(len(loaded), 'program')}.")
        elif len(attached) == len(loaded):
            which = "it" if len(loaded) == 1 else "both" if len(loaded) == 2 else "all of them"
            words.append(f"Loaded {count(len(loaded), 'program')} and attached {which}.")
        elif attached:
            words.append(
                f"Loaded {count(len(loaded), 'program')}, {len(attached)} of them attached."
            )
        else:
            # Perhaps by calls that were not traced.
            fates = {program.fate for program in loaded}
            what = fates.pop() if len(fates) == 1 else ""
            words.append(
                f"Loaded {count(len(loaded), 'program')}; {what or 'no attachment was seen'}."
            )
    elif not refused:
        words.append("Loaded no program.")
    if report.calls == 0:
        words = ["Made no call that was traced."]
    before = sum(not program.seq for program in report.programs)
    if before:
        was = "was" if before == 1 else "were"
        words.append(f"{count(before, 'program')} {was} there before, or came from elsewhere.")
    parts: list[Child] = [" ".join(words)]
    for program in refused[:3]:
        parts += [
            " ",
            element("strong", {"class": "bad"}, "Refused"),
            ": ",
            element("a", {"href": f"#{program.anchor}"}, program.name),
            f", {_reason(program)}.",
        ]
    if len(refused) > 3:
        parts.append(f" {len(refused) - 3} more programs were refused.")
    parts.append(" " + _end(report))
    return parts


def _reason(program: Program) -> str:
    """The verifier's last words, else the sentence that tells why, else the errno."""
    why = next((line for line in program.why if line.startswith("why: ")), "")
    told = f": {why.removeprefix('why: ')}" if why else ""
    return program.said or program.error + told


def _end(report: Report) -> str:
    ending = report.ending
    if ending is None:
        return "The trace ends before its end."
    if not report.argv:
        return ""
    if ending.code is not None:
        return f"The program exited with {ending.code}."
    if ending.signal is not None:
        return f"The program was killed by signal {ending.signal}."
    return ""


def _numbers(report: Report) -> Markup:
    refused = sum(bool(program.error) for program in report.programs)
    loaded = sum(bool(program.seq) and not program.error for program in report.programs)
    links = sum(thing.kind == "link" for thing in report.page_objects)
    more = ("program", "map", "link") if report.page_objects_left_out else ()
    rows = (
        (loaded, "program", "#programs", ""),
        (report.attached, "attachment", "#attachments", "good"),
        (refused, "program refused", "#programs", "bad"),
        (len(report.maps), "map", "#maps", ""),
        (links, "link", "#links", ""),
        (report.failed, "failed call", "?q=is:failed#calls", "bad"),
        (len(report.remains), "left behind", "#remains", "warn"),
    )
    return element(
        "ul",
        {"class": "numbers"},
        *(
            element(
                "li",
                {"class": kind if number else "none"},
                element(
                    "a",
                    {"href": href if number else None},
                    element("b", {}, f"{number:,}" + ("+" if what in more else "")),
                    " ",
                    times(number, what),
                ),
            )
            for number, what, href, kind in rows
        ),
    )


def notes(report: Report) -> Markup | None:
    """What the page leaves out, and what the trace did not look at."""
    notes: list[Child] = [element("p", {}, f"Cut: {text}.") for text in report.cut]
    if report.cut:
        notes.append(
            element("p", {}, "Pages are bounded; bpfstrace replay prints the whole trace.")
        )
    if report.redacted:
        classes = ", ".join(report.redacted)
        notes.append(
            element("p", {}, f"Redacted ({classes}): stand-ins are in the place of what was there.")
        )
    if report.narrowed:
        how = how_narrowed(report.narrowed)
        notes.append(
            element(
                "p",
                {},
                f"{how[0].upper()}{how[1:]}: what that leaves out was not looked "
                "at, so nothing is said of it.",
            )
        )
    notes += [element("p", {}, f"{text[:1].upper()}{text[1:]}") for text in report.unseen]
    notes.append(
        element(
            "noscript",
            {},
            element("p", {}, "Listings, values and the calls need JavaScript, which is off; "
                    "graph, attachments and tables are here without it."),
        )
    )  # fmt: skip
    return element("div", {"class": "notes"}, *notes)
