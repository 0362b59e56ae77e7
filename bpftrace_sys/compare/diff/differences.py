"""The differences: what a comparison finds and renderers take."""

from __future__ import annotations

from decoders.records import NamedTuple, dataclass, field


class FieldChange(NamedTuple):
    """A field's values; None where a side does not have it."""

    field: str
    a: str | None
    b: str | None


class Instruction(NamedTuple):
    """A line of an instruction diff.  ``op`` is one of ``-+`` or a blank."""

    op: str
    pc_a: int | None
    pc_b: int | None
    text: str
    source: str | None
    """The source line that it belongs to."""
    function: str | None


class TextLine(NamedTuple):
    """A line of a text diff: declarations of BTF, a verifier's log."""

    op: str
    text: str


@dataclass(slots=True)
class ObjectChange:
    """A program, map or BTF that is in one trace only, or not the same in both."""

    kind: str
    change: str
    """added, removed or changed"""
    name: str
    fields: list[FieldChange] = field(default_factory=list)
    hunks: list[list[Instruction]] = field(default_factory=list)
    insns_a: int | None = None
    insns_b: int | None = None
    added: int = 0
    removed: int = 0
    texts: list[tuple[str, list[list[TextLine]]]] = field(default_factory=list)
    """Fields of several lines, and their hunks."""
    tag_a: str = ""
    tag_b: str = ""
    uses: int = 0
    """Calls about it, which are not told one by one, if it is in one trace only."""


class TieChange(NamedTuple):
    """An attachment in one trace only (added, removed), or with another target (changed)."""

    change: str
    verb: str
    prog: str
    target: str
    via: str
    other: str | None
    """The target in the first trace, where that changed."""


class ProbeChange(NamedTuple):
    """A feature that was probed for in one trace only, or with another result."""

    feature: str
    a: str | None
    b: str | None


@dataclass(slots=True)
class CallChange:
    """A call in one trace only, or with other fields, or another number of times."""

    change: str
    process: str
    head: str
    result: str
    subject: str
    fields: list[FieldChange] = field(default_factory=list)
    count_a: int = 0
    count_b: int = 0
    path: str = ""
    """The file that it is about, where the fields that changed do not say it."""


@dataclass(slots=True)
class Differences:
    """All of it.  Empty: the traces do the same."""

    objects: list[ObjectChange] = field(default_factory=list)
    ties: list[TieChange] = field(default_factory=list)
    probes: list[ProbeChange] = field(default_factory=list)
    calls: list[CallChange] = field(default_factory=list)
    compared: frozenset[str] = frozenset()
    """progs, maps, btf, attachments, probes, calls"""

    def __bool__(self) -> bool:
        return bool(self.objects or self.ties or self.probes or self.calls)


def uncounted(what: str, limit: int, head: str) -> CallChange:
    """That the traces differ in what is beyond a limit, and is not held one by one."""
    return CallChange("changed", "", head, "", f"{what} after the first {limit}")
