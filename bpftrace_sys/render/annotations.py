"""Workflow commands of GitHub Actions: what it shows as an annotation beside a line of source.

The format is that of docs.github.com, "Workflow commands for GitHub Actions": a line
``::error file=F,line=L,col=C,title=T::MESSAGE``. A message has % as %25, CR as %0D and LF
as %0A; a property has : as %3A and , as %2C besides. GitHub reads both of a step's streams.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal

from bpftrace_sys.common.escape import printable
from bpftrace_sys.story.refusals import Refusal, Refusals
from bpftrace_sys.story.renderer import Renderer, Template
from decoders.events import Ending

if TYPE_CHECKING:

    from bpftrace_sys.compare.policy.verdicts import Verdict
    from bpftrace_sys.render.output import TextOut
    from bpftrace_sys.story.model import Model
    from bpftrace_sys.story.objects import NotedCall
    from bpftrace_sys.story.places import Place

Level = Literal["error", "warning", "notice"]
_DATA: Final = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY: Final = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A", ":": "%3A", ",": "%2C"})
WORKSPACE: Final = "GITHUB_WORKSPACE"
"""The environment variable that says where the repository is checked out."""


def escape_data(text: str) -> str:
    """Text as a message; escapes of ours keep other control characters out of a log."""
    return "\n".join(printable(line) for line in text.split("\n")).translate(_DATA)


def escape_property(text: str) -> str:
    """Text as the value of a property."""
    return printable(text).translate(_PROPERTY)


def command(level: Level, message: str, title: str = "", place: Place | None = None) -> str:
    """A workflow command, without its newline."""
    properties: dict[str, str] = {}
    if place is not None and place.file:
        properties["file"] = in_repository(place.file)
        if place.line:
            properties["line"] = str(place.line)
        if place.line and place.column:
            properties["col"] = str(place.column)
    if title:
        properties["title"] = title
    words = ",".join(f"{name}={escape_property(value)}" for name, value in properties.items())
    return f"::{level}{' ' if words else ''}{words}::{escape_data(message)}"


def in_repository(file: str) -> str:
    """A file's name from the repository's root, where it is below that."""
    root = os.environ.get(WORKSPACE, "").rstrip("/")
    if root and file.startswith(f"{root}/"):
        file = file[len(root) + 1 :]
    while file.startswith("./"):
        file = file[2:]
    return file


def of_refusal(refusal: Refusal, level: Level) -> str:
    """What is said of a refused call."""
    about = refusal.name or refusal.command
    title = f"{about}: {refusal.command if refusal.name else ''} {refusal.errno}".replace("  ", " ")
    lines = [refusal.message, *(line for line in refusal.lines if refusal.message not in line)]
    return command(level, "\n".join(lines), title, refusal.place)


def of_judged(judged: Verdict) -> Iterator[str]:
    """What is said of a trace that was held against a lock file."""
    if judged.trouble:
        yield command("error", judged.trouble, "bpfstrace check: the trace proves nothing")
    for outside in judged.outside:
        message = f"{outside.text} [{outside.where}]\noutside {judged.lock}"
        yield command("error", message, "outside the BPF lock file", outside.where.place)


class Annotations(Renderer):
    """A renderer that tells at the end what was refused."""

    has_templates = True

    def __init__(self, out: TextOut, model: Model) -> None:
        """``out`` has a write()."""
        self.out = out
        self.refusals = Refusals(model)

    def call(self, call: NotedCall) -> None:
        """Keeps it if it was refused."""
        self.refusals.call(call)

    def template(self, call: NotedCall) -> Template | None:
        """Calls that succeed are of no interest."""
        return None if call.raw.failed else Template()

    def cut(self) -> None:
        """The trace ends in the middle."""
        self.end(Ending())

    def end(self, ending: Ending) -> None:
        """Errors, or warnings where the program ended well all the same."""
        level: Level = "warning" if ending.code == 0 else "error"
        for refusal in self.refusals.found():
            self.out.write(of_refusal(refusal, level) + "\n")
        if self.refusals.more:
            self.out.write(command(level, f"and {self.refusals.more} more refusals") + "\n")
