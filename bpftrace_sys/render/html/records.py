"""What a page is made of, gathered call by call and bounded by the limits here.

Strings in these records are printable already; those called *painted* also hold the
marks of :mod:`~bpftrace_sys.render.html.painting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from decoders.events import Ending
from decoders.records import NamedTuple, dataclass, field

ROWS: Final = 20_000
"""Calls that are listed one by one; of later ones only those that failed or made something."""
ROWS_BEYOND: Final = 5_000
"""How many of those."""
TEXT: Final = 8 << 20
"""Characters of all calls together."""
SUBJECT: Final = 160
"""Characters of what a call is about, where it stands in its row."""
CALL: Final = 32 << 10
"""Characters of one call."""
LISTINGS: Final = 8 << 20
"""Characters of all listings."""
INSNS: Final = 20_000
"""Instructions of one program."""
LOGS: Final = 2 << 20
"""Characters of all verifier logs; of each the end is kept."""
LOG: Final = 256 << 10
OBJECTS: Final = 2_000
"""Objects with an entry of their own."""
EVENTS: Final = 256
"""Values of a map over time."""
ALL_EVENTS: Final = 20_000
BTF_TEXT: Final = 2 << 20
"""Characters of all BTF as C."""
BTF_ONE: Final = 256 << 10
READS: Final = 4_096
"""Instructions of a program of which it is told what they read of the context."""
FATE: Final = 1024
"""Characters that say where a program is attached, or why it is not."""
NAME: Final = 200
"""Characters of a name where it stands as a title; the calls have it whole."""


class CallRow(NamedTuple):
    """What is shown of a call."""

    seq: int
    time: int
    """Nanoseconds since the epoch."""
    duration: int | None
    thread: int
    """A number of ``Report.threads``; likewise ``command``, ``things`` and, from 1, ``group``."""
    command: int
    flags: int
    """Bits: FAILED and those below it."""
    result: str
    subject: str
    things: list[int]
    text: str
    """Painted."""
    why: list[str] | int
    """0: nothing is said of it."""
    group: int = 0
    """0: it is no feature probe."""
    stack: str = ""


class Happening(NamedTuple):
    """A fork, exec or exit."""

    time: int
    """Nanoseconds since the epoch."""
    thread: int
    text: str


class InsnRow(NamedTuple):
    """An instruction of a listing."""

    pc: int
    text: str
    comment: str | None = None
    target: int | None = None
    """The pc that a jump, a call or a callback leads to."""
    source: str | None = None
    place: str | None = None
    """``file:line:column``"""
    function: str | None = None
    """Whose first one it is."""


class MapEvent(NamedTuple):
    """What happened to a key."""

    seq: int
    what: str
    key: str
    """Painted, as the value."""
    value: str
    number: int | None
    """The value, if it is one."""


@dataclass(slots=True)
class PageObject:
    """A program, map, link, BTF or perf event, by its anchor on the page."""

    kind: str
    anchor: str
    name: str
    label: str
    """How calls call it; a longer one begins with it."""


class NativeRow(NamedTuple):
    """An instruction of native code."""

    offset: str
    """From the function's begin, in hexadecimal."""
    text: str
    """Painted."""
    source: str | None = None
    """Where it is another line than before."""


class NativeRows(NamedTuple):
    """A function's native code."""

    name: str
    lines: list[NativeRow]


class KernelRow(NamedTuple):
    """What became of an instruction."""

    pc: int | None
    """As it was loaded; None: it is the kernel's own."""
    fate: str
    translated: list[str]
    """Painted; none where it is unchanged."""
    native: list[NativeRow]


@dataclass(slots=True)
class KernelSide:
    """What the kernel made of a program (-e kernel=)."""

    said: list[str] = field(default_factory=list)
    """What was kept back, and why."""
    machine: str = ""
    fates: dict[str, int] = field(default_factory=dict)
    """How many instructions stayed, changed, grew, were removed or added."""
    rows: list[KernelRow] = field(default_factory=list)
    """Where it is known which became which."""
    translated: list[str] = field(default_factory=list)
    """Else the listings one by one, painted."""
    count: int = 0
    native: list[NativeRows] = field(default_factory=list)


@dataclass(slots=True)
class Program:
    """A load, or attempts at one; or a program from elsewhere (``seq`` 0)."""

    anchor: str
    thing: int | None
    """None: refused, so there is no object."""
    name: str
    kind: str = ""
    id: int | None = None
    tag: str = ""
    insns: int | None = None
    seq: int = 0
    attempts: list[int] = field(default_factory=list)
    """The calls that were refused before this one."""
    thread: int = 0
    duration: int | None = None
    error: str = ""
    """Of a refused one."""
    why: Sequence[str] = ()
    origin: str = ""
    license: str = ""
    maps: list[int] = field(default_factory=list)
    """Objects of the page, by their numbers."""
    btf: int | None = None
    helpers: list[tuple[str, list[int]]] = field(default_factory=list)
    """Names, and the pcs of the calls."""
    rows: list[InsnRow] = field(default_factory=list)
    cut: int = 0
    """Instructions that are not in ``rows``, because the page is bounded."""
    missing: int = 0
    """Those that could not be read when the call was made."""
    unread: str = ""
    """How many nobody tried to read, and why."""
    log: str = ""
    log_cut: bool = False
    rejected: int | None = None
    """The pc at which the verifier gave up."""
    said: str = ""
    """Its last words."""
    state: str = ""
    reads: dict[int, str] = field(default_factory=dict)
    """What is read of the context, by pc."""
    fate: str = ""
    """What became of it, where the trace is whole: as in the text's tables."""
    stands: bool = False
    """It is attached at the end."""
    runs: tuple[int, int] | None = None
    """How often it ran, and nanoseconds of all runs (--stats)."""
    kernel: KernelSide | None = None
    """Where the trace has it."""


@dataclass(slots=True)
class Map:
    """A map and what was done with it."""

    anchor: str
    thing: int
    name: str
    kind: str = ""
    id: int | None = None
    sizes: tuple[int | None, int | None, int | None] = (None, None, None)
    """Key, value, entries."""
    types: tuple[str, str] = ("", "")
    """Key and value as C, where BTF says."""
    seq: int = 0
    origin: str = ""
    operations: int = 0
    pins: list[str] = field(default_factory=list)
    events: list[MapEvent] = field(default_factory=list)
    more: int = 0
    """Events that are not told."""


@dataclass(slots=True)
class Blob:
    """BTF that was loaded."""

    anchor: str
    thing: int | None
    seq: int
    size: int
    note: str
    text: str = ""
    same: str = ""
    """The anchor of an earlier one that is the same, byte for byte."""
    cut: bool = False


@dataclass(slots=True)
class Tie:
    """An attachment, or its end."""

    verb: str
    prog: int | None
    """A thing."""
    who: str
    target: str
    via: str
    link: int | None
    pid: int
    steps: list[tuple[str, str, int]] = field(default_factory=list)
    """Role, call in short, seq."""
    given: str = ""
    """What the program is given there."""


@dataclass(slots=True)
class Thread:
    """Who makes calls."""

    pid: int
    tid: int
    comm: str
    calls: int = 0


@dataclass(slots=True)
class Report:
    """All that a page shows."""

    argv: str = ""
    kernel: str = ""
    machine: str = ""
    host: str = ""
    version: str = ""
    cpus: int = 0
    start: int = 0
    """Nanoseconds since the epoch."""
    first: int | None = None
    """Of the first call or event; what the page counts from."""
    last: int = 0
    narrowed: list[str] = field(default_factory=list)
    redacted: list[str] = field(default_factory=list)
    """Classes of what has stand-ins."""
    ending: Ending | None = None
    """None: the trace ends without its end."""
    page_objects: list[PageObject] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)
    maps: list[Map] = field(default_factory=list)
    blobs: list[Blob] = field(default_factory=list)
    ties: list[Tie] = field(default_factory=list)
    threads: list[Thread] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    rows: list[CallRow] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    """What is said of a run of feature probes; rows name them by number from 1."""
    events: list[Happening] = field(default_factory=list)
    calls: int = 0
    failed: int = 0
    probes: int = 0
    unlisted: int = 0
    page_objects_left_out: int = 0
    holders: list[str] = field(default_factory=list)
    """The processes that were attached to and held something (-p)."""
    attached: int = 0
    """Attachments, those too that are not in ``ties``."""
    unseen: list[str] = field(default_factory=list)
    """What could not be looked at when processes were attached to."""
    cut: list[str] = field(default_factory=list)
    """What the page does not show for want of room."""
    counts: list[tuple[str, ...]] = field(default_factory=list)
    remains: list[tuple[str, ...]] = field(default_factory=list)


ATTACHING: Final = frozenset({"attached", "enabled", "replaced"})
BEFORE: Final = "attached before"
"""Verbs of a Tie after which the program is on its target; and of one that was there before."""
FAILED: Final = 1
UNFINISHED: Final = 2
INJECTED: Final = 4
RETRIED: Final = 8
MADE: Final = 16
"""Bits of a row's flags."""
