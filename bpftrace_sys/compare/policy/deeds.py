"""What a trace does with BPF, as a set: programs, calls, attach points, maps, pins.

Attempts count as much as what succeeded: the kernel that checks a program in CI
may refuse what another one takes.  Feature probes do not count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bpftrace_sys.common import BpfstraceError
from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.compare.canonical.text import stable
from bpftrace_sys.story.attach.rows import ROWS
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Attachment, NotedCall, Object, Prog, text_of
from bpftrace_sys.story.places import Place, place_of
from bpftrace_sys.story.program_names import prog_key
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.story.targets import printable
from bpftrace_sys.trace.header import Header
from decoders.call import inner_value
from decoders.events import Ending
from decoders.records import NamedTuple, dataclass
from decoders.uapi import helpers
from decoders.values import Insns, Name

NEEDED: Final = frozenset({"bpf", "perf_event_open", "ioctl"})
"""Calls without which a trace does not show what a program does with BPF."""
UNKNOWN: Final = "?"
WAITING: Final = 4096
"""Deeds of calls that may be probes, from which on it is looked which of them still may."""


class JudgementError(BpfstraceError):
    """A trace that cannot be judged; says why."""


class Deed(NamedTuple):
    """One thing that a program did or tried.

    ``kind`` is a key of KINDS; ``prog`` is a program's (name, type) or a map's,
    ``value`` what KINDS says.
    """

    kind: str
    prog: tuple[str, str] = ("", "")
    value: tuple[Any, ...] = ()


def _prog(deed: Deed) -> str:
    name, kind = deed.prog
    return f"program {name or '(unnamed)'} ({kind})"


def _map(deed: Deed) -> str:
    name, kind = deed.prog
    return f"map {name or '(unnamed)'} ({kind} {deed.value[0]}/{deed.value[1]})"


KINDS: Final[dict[str, Callable[[Deed], str]]] = {
    "program": _prog,
    "tag": lambda deed: f"{_prog(deed)} has the tag {' or '.join(dict.fromkeys(deed.value))}",
    "helper": lambda deed: f"{_prog(deed)} calls the helper {deed.value[0]}",
    "kfunc": lambda deed: f"{_prog(deed)} calls the kfunc {deed.value[0]}",
    "attach": lambda deed: f"{_prog(deed)} is attached to {deed.value[0]}",
    "map": _map,
    "pin": lambda deed: f"pin at {deed.value[0]}",
    "open": lambda deed: f"opens the pin {deed.value[0]}",
}
"""How a kind of deed is said, in the order in which they are listed."""


def describe(deed: Deed) -> str:
    """A deed as a phrase, fit for a terminal."""
    return printable(KINDS[deed.kind](deed))


def _object_key(prog: Object | None, model: Model) -> tuple[str, str]:
    if prog is None:
        return UNKNOWN, UNKNOWN
    if isinstance(prog, Prog) and prog.key is not None:
        return prog.key  # as it was when it was loaded: of a long trace the call is not kept whole
    if prog.call is not None:
        return prog_key(prog.call, model)
    return prog.name, (isinstance(prog, Prog) and prog.type_name) or UNKNOWN


@dataclass(frozen=True, slots=True)
class Where:
    """The first call that did it."""

    text: str
    """``call #12, insn 4, refused with EPERM``."""
    seq: int
    place: Place | None = None
    """Where in the program's source, if that was asked for and the trace knows."""

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class _Waiting:
    """A deed of a call that may yet turn out to be a feature probe."""

    call: NotedCall
    deed: Deed
    where: Where


class Deeds(Renderer):
    """A renderer that collects what a trace does.

    ``found`` tells for each deed the first call that did it; ``trouble`` says
    what of the trace cannot be judged.
    """

    def __init__(self, model: Model, places: bool = False) -> None:
        """``places``: places in the source are looked up, which takes the programs' listings."""
        self.model = model
        self.places = places
        self.found: dict[Deed, Where] = {}
        self.trouble: list[str] = []
        self._waiting: list[_Waiting] = []

    # -- what a Renderer takes

    def header(self, header: Header) -> None:
        """Says whether the trace can show all at all."""
        options = header.options
        traced = options.get("traced")
        if isinstance(traced, list) and not NEEDED.issubset(map(str, traced)):
            missing = ", ".join(sorted(NEEDED - set(map(str, traced))))
            self.trouble.append(f"the trace was recorded without {missing} (-e)")
        narrowed = options.get("narrowed")
        if isinstance(narrowed, list) and narrowed:
            words = printable(" ".join(map(str, narrowed)))
            self.trouble.append(f"the trace was recorded or saved with {words}, so it is not whole")

    def call(self, call: NotedCall) -> None:
        """Takes what a call did."""
        if call.problem is not None:
            self.trouble.append(f"call #{call.raw.seq} could not be decoded: {call.problem}")
        collect = COLLECTORS.get(call.command.partition("|")[0])
        if collect is not None:
            collect(self, call)
        if call.raw.failed and call.command in ROWS:
            way = ROWS[call.command](call, self.model)
            if way is not None and way.verb != "detached":
                self._attach(call, way.prog, way.target)

    def attachment(self, told: Attachment) -> None:
        """Takes where a program was attached."""
        if told.verb == "detached" or not told.steps:
            return
        last = next((step for step in told.steps if step.role == "attach"), told.steps[-1])
        self._attach(last.call, told.prog, told.target)

    def end(self, ending: Ending) -> None:
        """Settles which calls were feature probes."""
        if ending.error:
            self.trouble.append(f"tracing itself failed: {printable(ending.error)}")
        self._settle()
        for waiting in self._waiting:
            self.found.setdefault(waiting.deed, waiting.where)
        self._waiting.clear()

    def _settle(self) -> None:
        """Takes the deeds of calls that turned out to be probes, or none, off the list."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            probe = each.call.notes.probe
            if probe is None:
                self.found.setdefault(each.deed, each.where)
            elif not probe.certain:
                self._waiting.append(each)

    # -- what calls do

    def _add(
        self, call: NotedCall, deed: Deed, pc: int | None = None, used: bool = False
    ) -> None:
        text = f"call #{call.raw.seq}" + ("" if pc is None else f", insn {pc}")
        if call.raw.ret is None:
            text += ", which never returned"
        elif call.raw.failed:
            text += f", refused with {errno_name(-call.raw.ret)}"
        place = None
        if self.places and deed not in self.found and deed.kind in LOADED:
            place = place_of(call, self.model, pc or 0)
        where = Where(text, call.raw.seq, place)
        probe = call.notes.probe
        if used or probe is None:
            self.found.setdefault(deed, where)
        elif probe.weak and deed not in self.found:
            # May turn out to be no probe.
            self._waiting.append(_Waiting(call, deed, where))
            if len(self._waiting) % WAITING == 0:
                self._settle()

    def _attach(self, call: NotedCall, prog: Object | None, target: str) -> None:
        if call.notes.is_probe:
            return
        key = _object_key(prog, self.model)
        if prog is not None and prog.call is None:
            # From before the trace: all that is known is what fdinfo said.
            self._add(call, Deed("program", key))
            if isinstance(prog, Prog) and prog.tag:
                self._add(call, Deed("tag", key, (prog.tag, prog.tag)))
        elif prog is not None and prog.call is not None and prog.call.notes.is_probe:
            # It looked like a probe, but a probe is not attached.
            self.prog_load(prog.call, used=True)
        self._add(call, Deed("attach", key, (stable(printable(target)),)), used=True)

    def prog_load(self, call: NotedCall, used: bool = False) -> None:
        """PROG_LOAD: the program and all that it calls.  ``used``: no mere probe."""
        key = prog_key(call, self.model)
        if isinstance(call.notes.made, Prog):
            call.notes.made.key = key
        self._add(call, Deed("program", key), used=used)
        insns = inner_value(call.attr("attr", "insns"))
        whole = isinstance(insns, Insns) and len(insns.data) == insns.total * 8
        if not whole and not call.raw.failed:
            self.trouble.append(
                f"call #{call.raw.seq} loads {describe(Deed('program', key))}, but the trace "
                "lacks its instructions"
            )
        if not isinstance(insns, Insns):
            return
        from decoders.formats import insn as isa
        from decoders.formats.tag import tags

        if whole:
            self._add(call, Deed("tag", key, tuple(tags(insns.data))), used=used)
        for site in isa.callees(insns.data):
            if site.kind == "helper":
                name = helpers.bpf_func_id.get(site.id) or self.model.facts.newer(
                    "bpf_func_id", site.id
                )
                value = f"bpf_{name.removeprefix('bpf_')}" if name else f"#{site.id}"
            elif site.kind == "kfunc":
                value = self._kfunc(call, site.id, site.off)
            else:
                continue
            self._add(call, Deed(site.kind, key, (value,)), site.pc, used)

    def _kfunc(self, call: NotedCall, type_id: int, off: int) -> str:
        name = self.model.facts.fact("btf_vmlinux", type_id) if off == 0 else None
        module = " of a module" if off else ""
        return printable(name) if name else f"BTF id {type_id}{module}"

    def map_create(self, call: NotedCall) -> None:
        """MAP_CREATE."""
        kind = inner_value(call.attr("attr", "map_type"))
        number = kind.value if isinstance(kind, Name) else None
        name = kind.name if isinstance(kind, Name) else None
        shown = (name or str(number)).removeprefix("BPF_MAP_TYPE_").lower()
        sizes = (call.number("attr", "key_size") or 0, call.number("attr", "value_size") or 0)
        self._add(call, Deed("map", (text_of(call.attr("attr", "map_name")), shown), sizes))

    def obj_pin(self, call: NotedCall) -> None:
        """OBJ_PIN."""
        self._add(call, Deed("pin", value=(_path(call),)))

    def obj_get(self, call: NotedCall) -> None:
        """OBJ_GET."""
        self._add(call, Deed("open", value=(_path(call),)))


def _path(call: NotedCall) -> str:
    return stable(printable(text_of(call.attr("attr", "pathname"))))


LOADED: Final = frozenset({"program", "tag", "helper", "kfunc"})
"""Kinds of deeds that a PROG_LOAD does."""
COLLECTORS: Final[dict[str, Callable[[Deeds, NotedCall], None]]] = {
    "BPF_PROG_LOAD": Deeds.prog_load,
    "BPF_MAP_CREATE": Deeds.map_create,
    "BPF_OBJ_PIN": Deeds.obj_pin,
    "BPF_OBJ_GET": Deeds.obj_get,
}
"""By command."""


def deeds_of(path: str, places: bool = False) -> dict[Deed, Where]:
    """What a trace does, and where.  JudgementError where that cannot be said for certain."""
    from bpftrace_sys.story.whole_trace import read
    from bpftrace_sys.trace.items import TraceError

    collectors: list[Deeds] = []

    def make(model: Model) -> Deeds:
        collectors.append(Deeds(model, places))
        return collectors[0]

    try:
        read(path, make)
    except TraceError as error:
        raise JudgementError(f"{error}; a damaged trace proves nothing") from None
    found = collectors[0]
    if found.trouble:
        more = f" (and {len(found.trouble) - 1} more)" if len(found.trouble) > 1 else ""
        raise JudgementError(f"{path}: cannot be judged: {found.trouble[0]}{more}")
    return found.found
