"""The BPF objects of a trace, its calls with what is noted of them, and attachments.

These know each other: a call its objects, an object the call that made it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpftrace_sys.story.notes import Given, Listing, Probe, Retry
from decoders.call import Call, inner_value
from decoders.records import dataclass, field
from decoders.uapi import names
from decoders.values import Text, Value

if TYPE_CHECKING:
    from collections.abc import Iterable

MADE: Final = "made"
FOUND: Final = "found"
"""The trace did not see it being made."""
BEFORE: Final = "before"
"""The trace did not see it being made, and it is older than the trace."""
IDENTIFIED: Final = frozenset({"prog", "map", "btf", "link"})
"""Kinds that have ids and that the kernel lists by id."""
TARGETS: Final = 4_096
"""Targets of a program that are remembered; a loop may put it into a map for ever."""
NAME_LEN: Final = 15
"""What the kernel keeps of a name (BPF_OBJ_NAME_LEN, less the NUL)."""


@dataclass(slots=True, eq=False)
class Object:
    """A kernel object; of some kinds more is known (below)."""

    kind: str
    """prog, map, btf, link, perf_event, token or file."""
    id: int | None = None
    """None where the kernel gives none (perf events), or where it was not seen."""
    name: str = ""
    origin: str = MADE
    """MADE in the trace, FOUND or BEFORE."""
    call: NotedCall | None = None
    """The call that made it."""
    attached: list[str] = field(default_factory=list)
    """Targets, while attached."""
    was_attached: list[str] = field(default_factory=list)
    """Targets that it was detached from, or that another took."""
    pins: list[str] = field(default_factory=list)

    def leave(self, target: str) -> None:
        """It is attached there no longer."""
        self.attached.remove(target)
        if len(self.was_attached) < TARGETS and target not in self.was_attached:
            self.was_attached.append(target)

    @property
    def label(self) -> str:
        """How an fd of it is named in an argument: ``map events id=4``."""
        return " ".join(word for word in self._label_parts() if word)

    def _label_parts(self) -> list[str]:
        return [
            "" if self.kind == "file" else self.kind,
            self.name,
            "" if self.id is None else f"id={self.id}",
            "(from before)" if self.origin == BEFORE else "",
        ]

    @property
    def long_label(self) -> str:
        """How it is named where it is returned: with tag, type and sizes."""
        return self.label


@dataclass(slots=True, eq=False)
class Prog(Object):
    """A program."""

    kind: str = "prog"
    prog_type: int | None = None
    """The number: enum bpf_prog_type."""
    type: str = ""
    """The name, where it is known: ``tracepoint``."""
    tag: str = ""
    """As the kernel says it, in hex."""
    insns: int | None = None
    """Slots that were loaded."""
    verify_ns: int | None = None
    """Nanoseconds that its load took."""
    used: bool = False
    """It was attached, or put where it runs."""
    runs: int = 0
    """How often BPF_PROG_TEST_RUN ran it."""
    refused: Refusal | None = None
    """How the last try to attach it failed."""
    events: list[PerfEvent] = field(default_factory=list)
    """The perf events that it was attached to."""
    key: tuple[str, str] | None = None
    """What tells it from others in every run (program_names.py), where the load was asked."""

    @property
    def type_name(self) -> str:
        """The type's name, or of one that no table knows its number; empty if not seen."""
        if self.type or self.prog_type is None:
            return self.type
        full = names.bpf_prog_type.get(self.prog_type, str(self.prog_type))
        return full.removeprefix("BPF_PROG_TYPE_").lower()

    @property
    def long_label(self) -> str:
        return f"{self.label} tag={self.tag}" if self.tag else self.label


@dataclass(slots=True, eq=False)
class Map(Object):
    """A map.  Numbers are None where they were not seen."""

    kind: str = "map"
    map_type: int | None = None
    """The number: enum bpf_map_type."""
    type: str = ""
    """The name, where the machine was asked for it."""
    key_size: int | None = None
    value_size: int | None = None
    max_entries: int | None = None
    btf_id: int | None = None
    """The BTF in which key_type and value_type count."""
    key_type: int | None = None
    value_type: int | None = None
    operations: int = 0
    """bpf() calls on it."""

    @property
    def type_name(self) -> str:
        """``hash``, or of one that no table knows its number; empty if not seen."""
        if self.map_type is None:
            return self.type
        full = names.bpf_map_type.get(self.map_type, str(self.map_type))
        return full.removeprefix("BPF_MAP_TYPE_").lower()

    @property
    def long_label(self) -> str:
        if self.key_size is None or self.value_size is None:
            return self.label
        known = self.type_name if self.map_type in names.bpf_map_type else ""
        return f"{self.label} {known} {self.key_size}/{self.value_size}"


@dataclass(slots=True, eq=False)
class Link(Object):
    """A link."""

    kind: str = "link"
    type: str = ""
    """``xdp``, as fdinfo says it; or the attach type."""
    target: str = ""
    """What it is on, where that was seen."""
    prog: Object | None = None
    """The program that it attaches, or the struct_ops map."""

    def _label_parts(self) -> list[str]:
        kind, *rest = Object._label_parts(self)
        return [kind, self.type, *rest, f"-> {self.target}" if self.target else ""]


def scope(cpus: Iterable[int], task: int | None) -> str:
    """``, CPUs 0-3``, ``, pid 12``: CPUs and thread that perf events are bound to."""
    known = sorted(set(cpus))
    words = f", CPU{'s' if len(known) > 1 else ''} {spans(known)}" if known else ""
    return words + (f", pid {task}" if task is not None else "")


def spans(numbers: Iterable[int]) -> str:
    """``0-3,6`` of numbers in order, as the kernel writes CPUs (lib/vsprintf.c, %pbl)."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][-1] == number - 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ",".join("-".join(map(str, span)) for span in found)


@dataclass(slots=True, eq=False)
class PerfEvent(Object):
    """A perf event; ``name`` says what it counts or probes."""

    kind: str = "perf_event"
    via: str = ""
    """How it came to be: ``perf_event_open kprobe``, ``tracefs``."""
    defined: NotedCall | None = None
    """The write to tracefs that defined its probe."""
    prog: Object | None = None
    """What is attached to it."""
    cpu: int | None = None
    """The CPU that it is bound to; None: none, or its kind runs programs on all."""
    task: int | None = None
    """The thread that it is bound to, likewise."""
    disabled: bool = False
    """By an ioctl, and not enabled since."""
    attachment: Attachment | None = None
    """How, where it was by ioctl."""

    def _label_parts(self) -> list[str]:
        _, name, *rest = Object._label_parts(self)
        return [name + self.scope if name else "perf event ?", *rest]

    @property
    def scope(self) -> str:
        """Where it counts, as it stands behind what it counts: ``, CPU 0``."""
        return scope([] if self.cpu is None else [self.cpu], self.task)


KINDS: Final[dict[str, type[Object]]] = {
    "prog": Prog, "map": Map, "link": Link, "perf_event": PerfEvent,
}  # fmt: skip


def new_object(
    kind: str,
    id: int | None = None,
    name: str = "",
    origin: str = MADE,
    call: NotedCall | None = None,
) -> Object:
    """An object of any kind."""
    return KINDS.get(kind, Object)(kind, id, name, origin, call)


@dataclass(slots=True)
class Refusal:
    """A call that was to lead to an attachment, and failed."""

    what: str
    """``BPF_LINK_CREATE``, ``openat /sys/...``"""
    errno: int
    notes: Notes
    """The call's, which get to know why."""
    seq: int
    reason: str = ""
    """Why, where that is known besides."""


@dataclass(slots=True, eq=False)
class Notes:
    """What the story adds to a call: each stage its own, in the order in which they stand here."""

    objects: dict[tuple[int, int], Object] = field(default_factory=dict)
    """The model's: what the fds are, by (fd, stage)."""
    made: Object | None = None
    """The model's: what the call returned an fd of."""
    mismatch: list[str] = field(default_factory=list)
    """The model's: where the kernel made something else than was seen to be asked for."""
    probe: Probe | None = None
    """The probes': that it is a feature probe, or may be one."""
    retry: Retry | None = None
    """The retries': that it is another attempt."""
    explanation: list[str] = field(default_factory=list)
    """Why the call was refused, in lines; empty where nothing proves it."""
    differs: list[str] = field(default_factory=list)
    """In what a pinned map is another one than the caller's object declares."""
    momentary: bool = False
    """The explanation rests on what may be otherwise at the next call."""
    listing: Listing | None = None
    """Of the instructions that it loads, once a renderer has asked."""
    translated: Listing | None = None
    """Of the instructions that the kernel gives back, likewise."""

    @property
    def usual(self) -> bool:
        """Nothing is remarkable about the call, but that it may have been refused."""
        return (
            self.made is None
            and self.probe is None
            and self.retry is None
            and self.listing is None
            and self.translated is None
            and not self.mismatch
        )

    @property
    def is_probe(self) -> bool:
        """It is a feature probe, for all that is known so far."""
        return self.probe is not None and self.probe.certain


@dataclass(slots=True, eq=False)
class NotedCall(Call):
    """A decoded call with the story's notes."""

    notes: Notes = field(default_factory=Notes)


@dataclass(slots=True, eq=False)
class Step:
    """A call on the way to an attachment; ``role`` is load, type, event, attach or enable."""

    role: str
    call: NotedCall


@dataclass(slots=True, eq=False)
class Attachment:
    """A program attached to a target, or detached from one."""

    verb: str
    """attached, enabled, disabled, detached or replaced."""
    prog: Object | None
    """The program, or the struct_ops map."""
    target: str
    steps: list[Step] = field(default_factory=list)
    via: str = ""
    event: PerfEvent | None = None
    """The perf event, where there is one: an ENABLE may follow."""
    pid: int = 0
    tid: int = 0
    link: Link | None = None
    given: Given | None = None
    """What the program is given there, where that is known."""

    @property
    def scope(self) -> str:
        """CPU and thread of its perf event: ``, CPU 0``; empty where there is none."""
        return "" if self.event is None else self.event.scope


def text_of(value: Value | None) -> str:
    """A Text as str; bytes that are not UTF-8 stay visible."""
    value = inner_value(value)
    if isinstance(value, Text):
        return value.data.decode("utf-8", "backslashreplace")
    return ""


SIZES: Final = ("map_type", "key_size", "value_size", "max_entries")
