"""A report as one HTML file: what is there without the script, and the data for the rest."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Final

from bpftrace_sys.render.html.axis import axis
from bpftrace_sys.render.html.graph import graph
from bpftrace_sys.render.html.markup import (
    Child,
    Markup,
    data,
    digest,
    element,
    joined,
    script,
    style,
)
from bpftrace_sys.render.html.records import (
    ATTACHING,
    Blob,
    KernelSide,
    Map,
    Program,
    Report,
    Tie,
)
from bpftrace_sys.render.html.words import count, span, times

SCRIPTS: Final = ("base.js", "timeline.js", "programs.js", "maps.js", "calls.js", "start.js")
"""In this order they are one script."""
OPENED: Final = 100
"""Programs stand open until so many instructions are shown."""
ENTRIES: Final = 300
"""Of each kind; a line says how many more there are."""



def _file(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")


def document(title: str, kind: str, body: Sequence[Child], scripts: Sequence[str]) -> Iterator[str]:
    """The page around a body: policy, style sheet, script."""
    css = _file("page.css")
    js = "".join(['"use strict";\n(() => {\n', *(_file(name) for name in scripts), "})();\n"])
    policy = (
        f"default-src 'none'; style-src '{digest(css)}'; script-src '{digest(js)}'; "
        "base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    head = element(
        "head",
        {},
        element("meta", {"charset": "utf-8"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"name": "color-scheme", "content": "light dark"}),
        element("meta", {"name": "generator", "content": "bpfstrace"}),
        element("meta", {"name": "referrer", "content": "no-referrer"}),
        element("title", {}, title),
        style(css),
    )
    yield f'<!doctype html>\n<html lang="en" class="{kind}">\n'
    yield head.text
    yield "\n<body>\n"
    for child in body:
        if child is not None:
            yield joined(child).text + "\n"
    yield script(js).text
    yield "\n</body>\n</html>\n"


def page(report: Report, styles: Sequence[str]) -> Iterator[str]:
    """The file in pieces.  ``styles`` are the names of the painted text's marks."""
    return document(
        f"bpfstrace: {report.argv[:80]}",
        "report",
        [
            _header(report),
            element(
                "main",
                {},
                _notes(report),
                _section("graph", "What hangs together", graph(report), scroll=True),
                _timeline(report),
                _ties(report),
                _programs(report),
                _maps(report),
                _links(report),
                _blobs(report),
                _remains(report),
                _counts(report),
                _calls(report),
            ),
            element("footer", {}, f"made by bpfstrace {report.version} from a trace of "
                    f"Linux {report.kernel} {report.machine}"),
            *_data(report, styles),
        ],
        SCRIPTS,
    )  # fmt: skip


# ------------------------------------------------------------ the head


def _header(report: Report) -> Markup:
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
            element("h1", {}, report.argv or "(attached to processes)"),
            element("p", {"class": "where"}, " · ".join(where)),
            element("p", {"class": "verdict"}, *verdict(report)),
            _numbers(report),
        ),
    )


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
    whole = not report.things_left_out
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
            words.append(f"Loaded {count(len(loaded), 'program')}; no attachment was seen.")
    elif not refused:
        words.append("Loaded no program.")
    if report.calls == 0:
        words = ["Made no call that was traced."]
    parts: list[Child] = [" ".join(words)]
    for program in refused[:3]:
        parts += [
            " ",
            element("strong", {"class": "bad"}, "Refused"),
            ": ",
            element("a", {"href": f"#{program.anchor}"}, program.name),
            f", {program.said or program.error}.",
        ]
    if len(refused) > 3:
        parts.append(f" {len(refused) - 3} more programs were refused.")
    parts.append(" " + _end(report))
    return parts


def _end(report: Report) -> str:
    status = report.status
    if status is None:
        return "The trace ends before its end."
    if isinstance(status.get("code"), int):
        return f"The program exited with {status['code']}."
    if "signal" in status:
        return f"The program was killed by signal {status['signal']}."
    return ""


def _numbers(report: Report) -> Markup:
    refused = sum(bool(program.error) for program in report.programs)
    loaded = sum(bool(program.seq) and not program.error for program in report.programs)
    links = sum(thing.kind == "link" for thing in report.things)
    more = ("program", "map", "link") if report.things_left_out else ()
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


def _notes(report: Report) -> Markup | None:
    notes: list[Child] = [element("p", {}, f"Cut: {text}.") for text in report.cut]
    if report.cut:
        notes.append(
            element("p", {}, "Pages are bounded; bpfstrace replay prints the whole trace.")
        )
    if report.narrowed:
        notes.append(
            element(
                "p",
                {},
                f"Recorded with {' '.join(report.narrowed)}: what that leaves out was not looked "
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


def _section(name: str, title: str, *children: Child, scroll: bool = False) -> Markup | None:
    if all(child is None for child in children):
        return None
    inside = element("div", {"class": "scroll"}, *children) if scroll else joined(*children)
    return element("section", {"id": name}, element("h2", {}, title), inside)


# ------------------------------------------------------------ timeline and attachments


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


def _who(report: Report, number: int | None, text: str) -> Child:
    """A thing as a link."""
    if number is None:
        return text
    return element("a", {"href": f"#{report.things[number].anchor}"}, text)


def _with_id(report: Report, number: int) -> str:
    """``link id 5``."""
    return report.things[number].anchor.replace("-", " id ", 1)


def _rest(entries: Sequence[object], what: str) -> Markup | None:
    """Says that a section does not show all."""
    left = len(entries) - ENTRIES
    if left <= 0:
        return None
    return element("p", {"class": "cut"}, f"{left:,} more {what} are not on this page")


def _call(seq: int, text: str) -> Markup:
    return element("a", {"class": "seq", "href": f"#call-{seq}"}, text)


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
    return _section(
        "attachments",
        "Attachments",
        element("ol", {"class": "ties"}, *(
            _tie(report, group[0], report.ties[group[0]], len(group))
            for group in groups[:ENTRIES])),
        _rest(groups, "attachments"),
    )  # fmt: skip


def _tie(report: Report, at: int, tie: Tie, often: int) -> Markup:
    gone = tie.verb in ("detached", "disabled")
    told: list[Child] = [
        element("span", {"class": f"verb {'gone' if gone else 'on'}"}, tie.verb),
        " ",
        element("b", {}, _who(report, tie.prog, tie.who)),
        " ⤫ " if tie.verb == "detached" else " → ",
        element("span", {"class": "target"}, tie.target),
    ]
    if tie.via not in ("", "link", "map"):
        told.append(element("span", {"class": "via"}, f" via {tie.via}"))
    if tie.link is not None:
        told += [" ", _who(report, tie.link, _with_id(report, tie.link))]
    if often > 1:
        told.append(element("span", {"class": "about"}, f" ×{often:,}, the first:"))
    steps = element(
        "ol",
        {"class": "steps"},
        *(
            element("li", {}, element("i", {}, role), " ", _call(seq, text))
            for role, text, seq in tie.steps
        ),
    )
    given = None
    if tie.given:
        given = element("div", {"class": "given"}, "given ", element("code", {}, tie.given))
    return element("li", {"id": f"tie-{at + 1}"}, element("div", {}, *told), steps, given)


# ------------------------------------------------------------ programs, maps, BTF


def _programs(report: Report) -> Markup | None:
    if not report.programs:
        return None
    opened: set[str] = set()
    room = OPENED
    for program in report.programs:
        if program.error or room > 0:
            opened.add(program.anchor)
            room -= program.insns or 0
    targets: dict[int, list[str]] = {}
    for tie in report.ties:
        if tie.prog is not None and tie.verb in ATTACHING:
            targets.setdefault(tie.prog, []).append(tie.target)
    return _section(
        "programs",
        "Programs",
        *(_program(report, program, program.anchor in opened, targets)
          for program in report.programs[:ENTRIES]),
        _rest(report.programs, "programs"),
    )  # fmt: skip


def _fact(name: str, *value: Child) -> Markup | None:
    if all(part in (None, "") for part in value):
        return None
    return element("div", {}, element("dt", {}, name), element("dd", {}, *value))


def _list(items: Sequence[Child], between: str = ", ") -> list[Child]:
    """Items with commas between them."""
    found: list[Child] = []
    for item in items:
        found += [between, item] if found else [item]
    return found


def _program(
    report: Report, program: Program, opened: bool, targets: dict[int, list[str]]
) -> Markup:
    on = list(dict.fromkeys(targets.get(program.thing, ()) if program.thing is not None else ()))
    told = ", ".join(on[:3]) + (f" and {len(on) - 3} more" if len(on) > 3 else "")
    state = element("span", {"class": "about"}, "not seen attached")
    if program.error:
        state = element("span", {"class": "bad"}, f"refused: {program.error}")
    elif told:
        state = element("span", {"class": "target"}, f"→ {told}")
    insns = "" if program.insns is None else count(program.insns, "insn")
    summary = element(
        "summary",
        {},
        element("b", {}, program.name),
        element("span", {"class": "about"}, program.kind),
        element("span", {"class": "about number"}, insns),
        element("span", {"class": "about number"}, span(program.duration)),
        state,
    )
    calls = [*program.attempts, program.seq] if program.seq else []
    made: list[Child] = _list([_call(seq, f"#{seq}") for seq in calls[-8:]])
    thread = report.threads[program.thread] if program.seq else None
    facts = element(
        "dl",
        {"class": "facts"},
        _fact("id", "" if program.id is None else str(program.id)),
        _fact("tag", program.tag),
        _fact("license", program.license),
        _fact("ran", "" if program.runs is None else _runs(*program.runs)),
        _fact("loaded by", f"{thread.comm} ({thread.tid}) in call " if thread else "", *made),
        _fact("seen", {"before": "made before the trace", "found": "made elsewhere"}.get(
            program.origin, "")),
        _fact("maps", *_list([_who(report, used, report.things[used].name or "(anonymous)")
                              for used in program.maps[:64]])),
        _fact("BTF", None if program.btf is None else _who(
            report, program.btf, _with_id(report, program.btf))),
        _fact("helpers", *_list([_helper(program, name, pcs) for name, pcs in program.helpers])),
    )  # fmt: skip
    why = None
    if program.error:
        lines = list(program.why) or [f"the kernel said {program.error}"]
        why = element("p", {"class": "why"}, "\n".join(lines))
    note = None
    if program.cut:
        note = element(
            "p", {"class": "cut"}, f"{program.cut:,} more instructions are not on this page"
        )
    return element(
        "details",
        {"class": "entry prog", "id": program.anchor, "open": "" if opened else None,
         "data-load": f"d-{program.anchor}"},
        summary,
        facts,
        why,
        element("div", {"class": "listing"}),
        note,
        element("details", {"class": "log"}, element("summary", {}, "verifier log"),
                element("pre", {})) if program.log else None,
        *_kernel(program.kernel),
    )  # fmt: skip


def _runs(number: int, nanoseconds: int) -> str:
    text = f"{number:,} times"
    return f"{text}, {span(round(nanoseconds / number))} each" if number else text


def _kernel(side: KernelSide | None) -> list[Child]:
    """What is said of the kernel's side, and its listings where they do not stand beside."""
    if side is None:
        return []
    parts: list[Child] = [element("p", {"class": "about"}, f"kernel: {text}") for text in side.said]
    if side.fates:
        words = ", ".join(f"{number} {what}" for what, number in side.fates.items())
        parts.append(element("p", {"class": "about"}, f"what the kernel made of them: {words}"))
    listings = (
        ("translated", f"translated by the verifier: {count(side.count, 'instruction')}",
         bool(side.translated)),
        ("native", f"native code, {side.machine}", bool(side.native)),
    )  # fmt: skip
    parts += [
        element("details", {"class": f"log {name}"}, element("summary", {}, title),
                element("pre", {}))
        for name, title, there in listings if there
    ]  # fmt: skip
    return parts


def _helper(program: Program, name: str, pcs: Sequence[int]) -> Markup:
    often = f" ×{len(pcs)}" if len(pcs) > 1 else ""
    return element(
        "a",
        {"href": f"#{program.anchor}-pc-{pcs[0]}", "class": "helper",
         "title": "at " + ", ".join(map(str, pcs[:16]))},
        name + often,
    )  # fmt: skip


def _maps(report: Report) -> Markup | None:
    return _section(
        "maps",
        "Maps",
        *(_map(report, found) for found in report.maps[:ENTRIES]),
        _rest(report.maps, "maps"),
    )


def _map(report: Report, found: Map) -> Markup:
    key, value = found.types
    types = f"{key or f'{found.sizes[0]} B'} → {value or f'{found.sizes[1]} B'}"
    entries = "" if found.sizes[2] is None else count(found.sizes[2], "entry", "entries")
    used = [
        element("a", {"href": f"#{program.anchor}"}, program.name)
        for program in report.programs[:ENTRIES]
        if found.thing in program.maps
    ]
    return element(
        "details",
        {"class": "entry map", "id": found.anchor, "data-load": f"d-{found.anchor}",
         "open": "" if found.events and len(report.maps) <= 4 else None},
        element(
            "summary",
            {},
            element("b", {}, found.name),
            element("span", {"class": "about"}, found.kind),
            element("span", {"class": "type"}, types),
            element("span", {"class": "about number"}, entries),
            element("span", {"class": "about number"},
                    count(found.operations, "operation") if found.operations else ""),
        ),
        element(
            "dl",
            {"class": "facts"},
            _fact("id", "" if found.id is None else str(found.id)),
            _fact("key", f"{found.sizes[0]} bytes" if found.sizes[0] is not None else "", " ", key),
            _fact("value", f"{found.sizes[1]} bytes" if found.sizes[1] is not None else "",
                  " ", value),
            _fact("made by", _call(found.seq, f"call #{found.seq}") if found.seq else
                  {"before": "before the trace"}.get(found.origin, "not in this trace")),
            _fact("used by", *_list(used)),
            _fact("pinned at", ", ".join(found.pins)),
        ),
        element("div", {"class": "values"}) if found.events else element(
            "p", {"class": "about"}, "No key was set, read or deleted by a call of this trace."),
        element("p", {"class": "cut"}, f"{found.more:,} more are counted, not shown")
        if found.more else None,
    )  # fmt: skip


def _table(columns: Sequence[str], right: frozenset[str], rows: Sequence[Sequence[Child]],
           anchors: Sequence[str] = ()) -> Markup | None:
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


def _links(report: Report) -> Markup | None:
    rows: list[Sequence[Child]] = []
    anchors = []
    ties = {tie.link: tie for tie in report.ties if tie.link is not None}
    for number, thing in enumerate(report.things):
        if thing.kind != "link":
            continue
        tie = ties.get(number)
        program = "" if tie is None else _who(report, tie.prog, tie.who)
        target = tie.target if tie is not None else thing.label.partition(" -> ")[2]
        anchors.append(thing.anchor)
        rows.append((thing.anchor.removeprefix("link-"), thing.name or _kind_of_link(thing.label),
                     program, target))  # fmt: skip
    table = _table(("id", "type", "program", "target"), frozenset({"id"}), rows[:ENTRIES], anchors)
    return _section("links", "Links", table, _rest(rows, "links"))


def _kind_of_link(label: str) -> str:
    words = label.split(" ")
    return words[1] if len(words) > 2 and words[0] == "link" else ""


def _blobs(report: Report) -> Markup | None:
    entries = []
    for blob in report.blobs[:ENTRIES]:
        what = "BTF" if blob.thing is None else report.things[blob.thing].anchor.replace(
            "btf-", "BTF id ", 1)  # fmt: skip
        entries.append(element(
            "details",
            {"class": "entry btf", "id": blob.anchor, "data-load": f"d-{blob.anchor}"},
            element("summary", {}, element("b", {}, what),
                    element("span", {"class": "about number"}, f"{blob.size:,} bytes"),
                    element("span", {"class": "about note"}, blob.note)),
            element("p", {"class": "about"}, "loaded by ", _call(blob.seq, f"call #{blob.seq}"),
                    ", as C:" if blob.text else "", *_same(blob)),
            element("pre", {"class": "c"}) if blob.text else None,
            element("p", {"class": "cut"}, "the rest is not on this page") if blob.cut else None,
        ))  # fmt: skip
    return _section("btf", "BTF", *entries, _rest(report.blobs, "BTF blobs"))


def _same(blob: Blob) -> list[Child]:
    if not blob.same:
        return []
    return [", the same as ", element("a", {"href": f"#{blob.same}"}, blob.same)]


def _remains(report: Report) -> Markup | None:
    anchors = {(thing.kind, thing.anchor) for thing in report.things}
    rows: list[Sequence[Child]] = []
    for kind, number, name, why in report.remains:
        anchor = f"{kind}-{number}"
        shown: Child = name or "(anonymous)"
        if (kind, anchor) in anchors:
            shown = element("a", {"href": f"#{anchor}"}, shown)
        rows.append((kind, number, shown, why))
    table = _table(("what", "id", "name", "why"), frozenset({"id"}), rows[:ENTRIES])
    return _section("remains", "Left behind", table, _rest(rows, "objects"))


def _counts(report: Report) -> Markup | None:
    rows: list[Sequence[Child]] = [
        (syscall, element("a", {"href": f"?q=cmd:{(command or syscall).lower()}#calls"},
                          command or syscall), calls, errors, us)
        for syscall, command, calls, errors, us in report.counts
    ]  # fmt: skip
    right = frozenset({"calls", "errors", "µs"})
    return _section(
        "counts", "Time in the kernel", _table(("syscall", "command", "calls", "errors", "µs"),
                                               right, rows)
    )  # fmt: skip


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
        element("div", {"id": "list"}),
    )  # fmt: skip


# ------------------------------------------------------------ data


def _data(report: Report, styles: Sequence[str]) -> Iterator[Markup]:
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
                       for thing in report.things],
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
    {"rows", "maps", "reads", "log", "log_cut", "rejected", "said", "state", "missing", "kernel"}
)
"""Fields of a Program that the script shows."""
__all__ = ["SCRIPTS", "document", "page", "verdict"]
