"""Two programs' instructions, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from bpftrace_sys.common.edits import Edit, edits, hunks
from bpftrace_sys.compare.canonical.entries import Entry, Line
from bpftrace_sys.compare.diff.differences import Instruction, ObjectChange
from bpftrace_sys.compare.diff.names import Both
from bpftrace_sys.compare.diff.texts import CONTEXT, text_hunks


def instructions(change: ObjectChange, one: Entry, two: Entry, both: Both) -> None:
    """Puts into ``change`` how a's program differs from b's."""
    a, b = one.insns or (), two.insns or ()
    texts_a = [both.a.text(line.text) for line in a]
    texts_b = [both.b.text(line.text) for line in b]
    script = _moved(edits(_masked(a, texts_a), _masked(b, texts_b)), a, b)
    change.insns_a, change.insns_b = one.count, two.count
    change.tag_a, change.tag_b = one.tag, two.tag
    if both.options.ignores("insns"):
        return
    source_a, source_b = _sources(a), _sources(b)
    for edit in script:
        change.removed += edit.b is None
        change.added += edit.a is None
    if not change.removed and not change.added:
        # Where compilers put their instructions is not what the program does.
        if not both.options.ignores("source") and source_a != source_b:
            found = text_hunks(_runs(source_a), _runs(source_b))
            if found:
                change.texts.append(("source", found))
        return
    for hunk in hunks(script, CONTEXT):
        lines = []
        for edit in hunk:
            if edit.b is None:
                assert edit.a is not None
                at, line, text, sources, op = edit.a, a[edit.a], texts_a[edit.a], source_a, "-"
            else:
                at, line, text, sources = edit.b, b[edit.b], texts_b[edit.b], source_b
                op = "+" if edit.a is None else " "
            lines.append(
                Instruction(
                    op,
                    None if edit.a is None else a[edit.a].pc,
                    None if edit.b is None else b[edit.b].pc,
                    _shown(line, text),
                    sources[at],
                    line.function,
                )
            )
        change.hunks.append(lines)


def _masked(lines: Sequence[Line], texts: list[str]) -> list[tuple[str, bool]]:
    """What instructions are compared by: a jump's target is not part of it."""
    return [(text, line.jump is not None) for line, text in zip(lines, texts, strict=True)]


def _moved(script: list[Edit], a: Sequence[Line], b: Sequence[Line]) -> list[Edit]:
    """Splits pairs of jumps that do not lead to the same place any more."""
    place_a: dict[int, int] = {}
    place_b: dict[int, int] = {}
    pairs = 0
    for edit in script:
        if edit.a is not None and edit.b is not None:
            # A place is a pair, or what lies between two pairs.
            place_a[a[edit.a].pc] = place_b[b[edit.b].pc] = 2 * pairs + 1
            pairs += 1
        elif edit.a is not None:
            place_a[a[edit.a].pc] = 2 * pairs
        elif edit.b is not None:
            place_b[b[edit.b].pc] = 2 * pairs
    found: list[Edit] = []
    for edit in script:
        if edit.a is None or edit.b is None:
            found.append(edit)
            continue
        to_a, to_b = a[edit.a].jump, b[edit.b].jump
        if to_a is None or to_b is None or _same_place(place_a.get(to_a), place_b.get(to_b)):
            found.append(edit)
        else:
            found += [Edit(edit.a, None), Edit(None, edit.b)]
    return found


def _same_place(a: int | None, b: int | None) -> bool:
    """Instructions were put in or taken away where a jump leads to: it is the same jump."""
    if a is None or b is None:
        return a == b
    return a == b or (abs(a - b) == 1 and min(a, b) % 2 == 0)


def _sources(lines: Sequence[Line]) -> list[str | None]:
    """The source line that each instruction belongs to."""
    current: str | None = None
    found = []
    for line in lines:
        if line.source:
            current = line.source
        found.append(current)
    return found


def _runs(sources: list[str | None]) -> list[str]:
    """Source lines as they follow each other."""
    found: list[str] = []
    for source in sources:
        if source is not None and (not found or found[-1] != source):
            found.append(source)
    return found


def _shown(line: Line, text: str) -> str:
    return text if line.jump is None else f"{text} pc{line.jump - line.pc - 1:+d}"
