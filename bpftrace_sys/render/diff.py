"""Differences as text for people and as JSON for machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bpftrace_sys.compare.diff.differences import (
    CallChange,
    Differences,
    FieldChange,
    Instruction,
    ObjectChange,
    TextLine,
)
from bpftrace_sys.render.style import Painter, plain_painter
from bpftrace_sys.story.targets import printable
from bpftrace_sys.trace.header import Header

FORMAT: Final = "bpfstrace-diff"
VERSION: Final = 1
KINDS: Final = {"prog": "program", "map": "map", "btf": "BTF"}
PARTS: Final = (
    ("prog", "progs", "program", "programs"),
    ("map", "maps", "map", "maps"),
    ("btf", "btf", "BTF", "BTF"),
)
STYLES: Final = {"-": "gone", "+": "new", " ": "insn"}
CHANGES: Final = {"added": "new", "removed": "gone", "changed": "changed"}


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def summary(found: Differences) -> str:
    """``3 programs changed: +12 -4 instructions; 1 new map; same attachments``"""
    words = []
    for kind, part, one, many in PARTS:
        if part not in found.compared:
            continue
        changes = [change for change in found.objects if change.kind == kind]
        if not changes:
            words.append(f"same {many}")
            continue
        changed = [change for change in changes if change.change == "changed"]
        if changed:
            text = f"{_count(len(changed), one, many)} changed"
            added = sum(change.added for change in changed)
            removed = sum(change.removed for change in changed)
            if added or removed:
                text += f": +{added} -{removed} instructions"
            words.append(text)
        for which, word in (("added", "new"), ("removed", "gone")):
            number = sum(change.change == which for change in changes)
            if number:
                name = one if number == 1 else many
                words.append(
                    f"{number} new {name}" if word == "new" else f"{number} {name} gone"
                )
    if "attachments" in found.compared:
        words += _ties(found) or ["same attachments"]
    if found.probes:
        words.append(f"{_count(len(found.probes), 'feature probe', 'feature probes')} different")
    if found.calls:
        words.append(f"{_count(len(found.calls), 'other call', 'other calls')} different")
    return "; ".join(words)


def _ties(found: Differences) -> list[str]:
    words = []
    for change, text in (("changed", "changed"), ("added", "new"), ("removed", "gone")):
        number = sum(tie.change == change for tie in found.ties)
        if number:
            name = "attachment" if number == 1 else "attachments"
            words.append(f"{number} new {name}" if text == "new" else f"{number} {name} {text}")
    return words


def text(
    found: Differences,
    paths: tuple[str, str],
    headers: tuple[Header | None, Header | None],
    paint: Painter = plain_painter,
) -> Iterator[str]:
    """The lines of a text; none if nothing differs."""
    if not found:
        return
    for mark, style, path, header in zip(
        ("---", "+++"), ("gone", "new"), paths, headers, strict=True
    ):
        about = ""
        if header is not None:
            about = f"   Linux {printable(header.kernel)}: {printable(' '.join(header.argv)[:80])}"
        yield paint(style, f"{mark} {printable(path)}") + paint("comment", about)
    yield paint("syscall", summary(found))
    for change in found.objects:
        yield ""
        yield from _object(change, paint)
    if found.ties:
        yield ""
    for tie in found.ties:
        arrow = "-x" if tie.verb == "detached" else "->"
        line = f"{CHANGES[tie.change]:<9} {tie.verb} {tie.prog} {arrow} "
        line += f"{tie.other} => {tie.target}" if tie.other is not None else tie.target
        yield paint(_style(tie.change), line)
    if found.probes:
        yield ""
    for probe in found.probes:
        if probe.b is None:
            yield paint("gone", f"gone      probe {probe.feature}: {probe.a}")
        elif probe.a is None:
            yield paint("new", f"new       probe {probe.feature}: {probe.b}")
        else:
            yield f"changed   probe {probe.feature}: {probe.a} => {probe.b}"
    if found.calls:
        yield ""
    process = None
    for call in found.calls:
        if call.process != process:
            process = call.process
            if process:
                yield paint("note", f"process {process}")
        yield from _call(call, paint)


def _style(change: str) -> str:
    return {"added": "new", "removed": "gone"}.get(change, "name")


def _fields(fields: list[FieldChange], paint: Painter, indent: str = "  ") -> Iterator[str]:
    for name, a, b in fields:
        if a is None:
            yield paint("new", f"{indent}+ {name}: {b}")
        elif b is None:
            yield paint("gone", f"{indent}- {name}: {a}")
        else:
            yield f"{indent}{name}: {paint('gone', a)} => {paint('new', b)}"


def _object(change: ObjectChange, paint: Painter) -> Iterator[str]:
    head = f"{CHANGES[change.change]:<9} {KINDS[change.kind]} {_bare(change)}"
    words = []
    if change.insns_a is not None and change.insns_b is not None:
        if change.hunks:
            words.append(
                f"{change.insns_a} => {change.insns_b} instructions "
                f"(+{change.added} -{change.removed})"
            )
    elif change.insns_a is not None or change.insns_b is not None:
        words.append(f"{change.insns_a or change.insns_b} instructions")
    if change.tag_a and change.tag_b:
        if change.tag_a != change.tag_b and change.hunks:
            words.append(f"tag {change.tag_a} => {change.tag_b}")
    elif change.tag_a or change.tag_b:
        words.append(f"tag {change.tag_a or change.tag_b}")
    if change.uses:
        words.append(f"with {_count(change.uses, 'call', 'calls')} about it")
    yield paint(_style(change.change), head) + (f": {', '.join(words)}" if words else "")
    yield from _fields(change.fields, paint)
    for name, hunks in change.texts:
        yield f"  {name}:"
        for at, hunk in enumerate(hunks):
            if at:
                yield paint("comment", "    ...")
            for op, line in hunk:
                yield paint(STYLES[op], f"    {op} {line}".rstrip())
    for instructions in change.hunks:
        yield from _hunk(instructions, paint)


def _bare(change: ObjectChange) -> str:
    """``prog hello`` as ``hello``."""
    return change.name.removeprefix(f"{change.kind} ")


def _hunk(lines: list[Instruction], paint: Painter) -> Iterator[str]:
    first = lines[0]
    place = [str(pc) for pc in (first.pc_a, first.pc_b) if pc is not None]
    yield paint("comment", f"  @@ {' '.join(dict.fromkeys(place))} @@")
    shown = told = None
    for op, pc_a, pc_b, instruction, source, function in lines:
        if function is not None and function != told:
            told = function
            yield "  " + paint("function", f"        {function}:")
        if source is not None and source != shown:
            shown = source
            yield "  " + paint("source", f"        ; {source}")
        pc = pc_a if pc_b is None else pc_b
        yield paint(STYLES[op], f"  {op} {pc:>5}: {instruction}")


def _call(call: CallChange, paint: Painter) -> Iterator[str]:
    head = call.head + (f" = {call.result}" if call.result else "")
    about = f" on {call.subject}" if call.subject and call.subject != call.result else ""
    if call.path:
        about += f" {call.path}"
    times = ""
    if call.change == "count":
        times = f": {call.count_a} => {call.count_b} times"
    elif max(call.count_a, call.count_b) > 1:
        times = f" ({call.count_a or call.count_b} times)"
    word = CHANGES.get(call.change, "changed")
    yield paint(_style(call.change), f"{word:<9} {head}{about}") + times
    yield from _fields(call.fields, paint)


# ------------------------------------------------------------------ JSON


def _json_fields(fields: list[FieldChange]) -> list[dict[str, object]]:
    return [{"field": name, "a": a, "b": b} for name, a, b in fields]


def _json_object(change: ObjectChange) -> dict[str, object]:
    line: dict[str, object] = {
        "kind": change.kind,
        "change": change.change,
        "name": _bare(change),
        "fields": _json_fields(change.fields),
    }
    if change.insns_a is not None or change.insns_b is not None:
        line["insns"] = {
            "a": change.insns_a,
            "b": change.insns_b,
            "added": change.added,
            "removed": change.removed,
            "hunks": [[_json_insn(row) for row in hunk] for hunk in change.hunks],
        }
        line["tag"] = {"a": change.tag_a or None, "b": change.tag_b or None}
    if change.texts:
        line["texts"] = [
            {"field": name, "hunks": [[_json_text(row) for row in hunk] for hunk in hunks]}
            for name, hunks in change.texts
        ]
    if change.uses:
        line["calls"] = change.uses
    return line


def _json_insn(row: Instruction) -> dict[str, object]:
    line: dict[str, object] = {"op": row.op, "a": row.pc_a, "b": row.pc_b, "text": row.text}
    if row.source is not None:
        line["src"] = row.source
    return line


def _json_text(row: TextLine) -> dict[str, object]:
    return {"op": row.op, "text": row.text}


def as_json(found: Differences, paths: tuple[str, str]) -> dict[str, object]:
    """One object; docs/diff.md describes it."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "a": paths[0],
        "b": paths[1],
        "same": not found,
        "summary": summary(found),
        "compared": sorted(found.compared),
        "objects": [_json_object(change) for change in found.objects],
        "attachments": [
            {
                "change": tie.change,
                "verb": tie.verb,
                "prog": tie.prog,
                "via": tie.via or None,
                "a": tie.other if tie.change == "changed"
                else tie.target if tie.change == "removed" else None,
                "b": None if tie.change == "removed" else tie.target,
            }
            for tie in found.ties
        ],
        "probes": [
            {"feature": probe.feature, "a": probe.a, "b": probe.b} for probe in found.probes
        ],
        "calls": [
            {
                "change": call.change,
                "process": call.process,
                "call": call.head,
                "result": call.result or None,
                "on": call.subject or None,
                "count": {"a": call.count_a, "b": call.count_b},
                "fields": _json_fields(call.fields),
            }
            for call in found.calls
        ],
    }


__all__ = ["FORMAT", "as_json", "summary", "text"]
