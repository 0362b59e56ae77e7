"""The entries of a report: programs, maps, BTF; the script unfolds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bpftrace_sys.render.html.markup import Child, Markup, element
from bpftrace_sys.render.html.parts import (
    ENTRIES,
    call_link,
    fact,
    listed,
    rest,
    section,
    who,
    with_id,
)
from bpftrace_sys.render.html.quantities import count, span
from bpftrace_sys.render.html.records import (
    ATTACHING,
    BEFORE,
    Blob,
    KernelSide,
    Map,
    Program,
    Report,
)

OPENED: Final = 100
LONG: Final = 400
"""Programs stand open until so many instructions are shown; one that is longer is folded."""


def programs(report: Report) -> Markup | None:
    """An entry a program; the first few stand open, and what was refused."""
    if not report.programs:
        return None
    opened: set[str] = set()
    room = OPENED
    for program in report.programs:
        if program.error or (room > 0 and (program.insns or 0) <= LONG):
            opened.add(program.anchor)
            room -= program.insns or 0
    targets: dict[int, list[str]] = {}
    for tie in report.ties:
        if tie.prog is not None and (tie.verb in ATTACHING or tie.verb == BEFORE):
            targets.setdefault(tie.prog, []).append(tie.target)
    return section(
        "programs",
        "Programs",
        *(_program(report, program, program.anchor in opened, targets)
          for program in report.programs[:ENTRIES]),
        rest(report.programs, "programs"),
    )  # fmt: skip


def _program(
    report: Report, program: Program, opened: bool, targets: dict[int, list[str]]
) -> Markup:
    on = list(dict.fromkeys(targets.get(program.thing, ()) if program.thing is not None else ()))
    told = ", ".join(on[:3]) + (f" and {len(on) - 3} more" if len(on) > 3 else "")
    state = element("span", {"class": "about"}, "not seen attached")
    if program.error:
        state = element("span", {"class": "bad"}, f"refused: {program.error}")
    elif program.fate:
        state = element("span", {"class": "target" if program.stands else "about"},
                        ("→ " if program.stands else "") + program.fate)
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
    made: list[Child] = listed([call_link(seq, f"#{seq}") for seq in calls[-8:]])
    thread = report.threads[program.thread] if program.seq else None
    facts = element(
        "dl",
        {"class": "facts"},
        fact("id", "" if program.id is None else str(program.id)),
        fact("tag", program.tag),
        fact("license", program.license),
        fact("ran", "" if program.runs is None else _runs(*program.runs)),
        fact("loaded by", f"{thread.comm} ({thread.tid}) in call " if thread else "", *made),
        fact("seen", {"before": "made before the trace", "found": "made elsewhere"}.get(
            program.origin, "")),
        fact("maps", *listed([who(report, used, report.page_objects[used].name or "(anonymous)")
                              for used in program.maps[:64]])),
        fact("BTF", None if program.btf is None else who(
            report, program.btf, with_id(report, program.btf))),
        fact("helpers", *listed([_helper(program, name, pcs) for name, pcs in program.helpers])),
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


def maps(report: Report) -> Markup | None:
    """An entry a map."""
    return section(
        "maps",
        "Maps",
        *(_map(report, found) for found in report.maps[:ENTRIES]),
        rest(report.maps, "maps"),
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
            fact("id", "" if found.id is None else str(found.id)),
            fact("key", f"{found.sizes[0]} bytes" if found.sizes[0] is not None else "", " ", key),
            fact("value", f"{found.sizes[1]} bytes" if found.sizes[1] is not None else "",
                  " ", value),
            fact("made by", call_link(found.seq, f"call #{found.seq}") if found.seq else
                  {"before": "before the trace"}.get(found.origin, "not in this trace")),
            fact("used by", *listed(used)),
            fact("pinned at", ", ".join(found.pins)),
        ),
        element("div", {"class": "values"}) if found.events else element(
            "p", {"class": "about"}, "No key was set, read or deleted by a call of this trace."),
        element("p", {"class": "cut"}, f"{found.more:,} more are counted, not shown")
        if found.more else None,
    )  # fmt: skip


def blobs(report: Report) -> Markup | None:
    """An entry a piece of BTF."""
    entries = []
    for blob in report.blobs[:ENTRIES]:
        what = "BTF" if blob.thing is None else report.page_objects[blob.thing].anchor.replace(
            "btf-", "BTF id ", 1)  # fmt: skip
        entries.append(element(
            "details",
            {"class": "entry btf", "id": blob.anchor, "data-load": f"d-{blob.anchor}"},
            element("summary", {}, element("b", {}, what),
                    element("span", {"class": "about number"}, f"{blob.size:,} bytes"),
                    element("span", {"class": "about note"}, blob.note)),
            element("p", {"class": "about"}, "loaded by ", call_link(blob.seq, f"call #{blob.seq}"),
                    ", as C:" if blob.text else "", *_same(blob)),
            element("pre", {"class": "c"}) if blob.text else None,
            element("p", {"class": "cut"}, "the rest is not on this page") if blob.cut else None,
        ))  # fmt: skip
    return section("btf", "BTF", *entries, rest(report.blobs, "BTF blobs"))


def _same(blob: Blob) -> list[Child]:
    if not blob.same:
        return []
    return [", the same as ", element("a", {"href": f"#{blob.same}"}, blob.same)]
