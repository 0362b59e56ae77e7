# SPDX-License-Identifier: GPL-2.0-only
"""What a trace says, by its JSON and its text: objects, calls, attachments, tables, sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Line = dict[str, Any]
KINDS: Final = ("prog", "map", "link", "btf")
TITLES: Final = ("programs", "refused programs", "maps", "links", "left behind", "calls")
LABEL: Final = re.compile(
    r"<(?P<kind>prog|map|link|btf) (?:(?P<name>[^<>]*?) )?id=(?P<id>\d+)(?P<rest>(?: [^<>]*)?)>"
)
FATE: Final = re.compile(
    r"^(?P<verb>not attached|not seen attached|attachment not traced)  (?P<rest>.*)$", re.MULTILINE
)
NEVER: Final = 1 << 63


@dataclass(frozen=True)
class Standing:
    """A program on a target, from one call to another."""

    prog: int
    target: str
    via: str
    since: int
    """Nanoseconds: when the call had returned that attached it."""
    begun: int
    """When that call had begun."""
    until: int
    """When the call had begun that ended it; NEVER if none did. What is only disabled, bpftool
    shows still."""
    link: int | None
    pid: int
    line: Line = field(compare=False, hash=False, default_factory=dict)


@dataclass
class Said:
    """A trace that has ended."""

    lines: list[Line]
    text: str

    def __post_init__(self) -> None:
        self.by_seq = {line["seq"]: line for line in self.lines if line["type"] == "syscall"}
        self.tables = tables(self.text)
        self.standings = list(self._standings())

    def calls(self, command: str) -> Iterator[Line]:
        """The calls of one command that succeeded."""
        for line in self.by_seq.values():
            if line["args"].get("cmd") == command and line["ret"] >= 0:
                yield line

    def objects(self) -> Iterator[tuple[str, Line]]:
        """(where, what is said) of every object that a line names with its id."""
        for line in self.lines:
            where = f"seq {line['seq']}" if "seq" in line else line["type"]
            yield from ((where, each) for each in _named(line))

    def labels(self) -> Iterator[re.Match[str]]:
        """``<map events id=4 hash 4/8>`` in the text."""
        return LABEL.finditer(re.sub(r"\n +", " ", self.text))

    def began(self, seq: int) -> int:
        return int(self.by_seq[seq]["time"])

    def ended(self, seq: int) -> int:
        line = self.by_seq[seq]
        return int(line["time"]) + int(line.get("duration", 0))

    def _standings(self) -> Iterator[Standing]:
        """Attachments as intervals: each from its last step until what took it away."""
        lines = [line for line in self.lines if line["type"] == "attachment"]
        for at, line in enumerate(lines):
            prog = line.get("prog") or {}
            if line["verb"] not in ("attached", "replaced", "enabled") or "id" not in prog:
                continue
            attach = [step["seq"] for step in line["steps"] if step["role"] in ("attach", "enable")]
            if not attach:
                continue
            until = NEVER
            for later in lines[at + 1 :]:
                other = later.get("prog") or {}
                same = later["target"] == line["target"]
                if same and (
                    (later["verb"] == "detached" and other.get("id") == prog["id"])
                    or (later["verb"] in ("detached", "replaced") and not _distinct(later, line))
                ):
                    until = self.began(later["steps"][-1]["seq"])
                    break
            link = (line.get("link") or {}).get("id")
            yield Standing(
                prog["id"], line["target"], line.get("via", ""), self.ended(attach[-1]),
                self.began(attach[0]), until, link, line["pid"], line,
            )  # fmt: skip

    def loaded(self) -> dict[int, Line]:
        """The loads of programs, by id."""
        return {
            line["fd"]["id"]: line
            for line in self.calls("BPF_PROG_LOAD")
            if "id" in line.get("fd", {})
        }


def _distinct(later: Line, line: Line) -> bool:
    """Whether these are of two links."""
    one, other = later.get("link") or {}, line.get("link") or {}
    return one.get("id") != other.get("id")


def _named(value: Any) -> Iterator[Line]:
    if isinstance(value, dict):
        if value.get("kind") in KINDS and "id" in value:
            yield value
        for key, part in value.items():
            if key != "raw":
                yield from _named(part)
    elif isinstance(value, list):
        for part in value:
            yield from _named(part)


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """The ledger's plain tables: by title, the rows by column."""
    found: dict[str, list[dict[str, str]]] = {}
    for block in text.split("\n\n"):
        lines = block.strip("\n").split("\n")
        title = lines[0].partition(" (")[0]
        if len(lines) < 3 or title not in TITLES:
            continue
        spans = _columns(lines[1:])
        heads = [lines[1][start:end].strip() for start, end in spans]
        found[title] = [
            dict(zip(heads, (row[start:end].strip() for start, end in spans), strict=True))
            for row in lines[2:]
        ]
    return found


def _columns(lines: Sequence[str]) -> list[tuple[int, int]]:
    """Where the columns stand: apart by two columns of blanks in every line."""
    width = max(map(len, lines))
    padded = [line.ljust(width) for line in lines]
    blank = [all(line[at] == " " for line in padded) for at in range(width)]
    spans = []
    start = None
    for at in range(width + 1):
        gap = at == width or (blank[at] and (at + 1 == width or blank[at + 1]))
        if not gap and start is None:
            start = at
        if gap and start is not None:
            spans.append((start, at))
            start = None
    return spans
