"""The objects of a trace, and names for them that do not depend on the run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container
from typing import Final

from bpftrace_sys.compare.canonical.text import escaped, ref, stable
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import MADE, Link, Map, Object, Prog
from decoders.records import dataclass

NAME_LIMIT: Final = 200
LINKS_WAITING: Final = 1024
"""Links whose target may still come to be known."""


@dataclass(slots=True)
class Known:
    """An object of a trace, in the order in which they were first spoken of."""

    number: int
    kind: str
    base: str
    """Its name without what tells it from others of that name."""
    found: bool
    """It was there before the trace."""


class Objects:
    """The objects of a trace, numbered as they come and named at the end."""

    def __init__(self, model: Model, pids: Container[int]) -> None:
        self.model = model
        self.pids = pids
        self.all: list[Known] = []
        self._by_key: dict[tuple[str, int | None, int], Known] = {}
        self._links: OrderedDict[int, tuple[Object, Known]] = OrderedDict()
        """Links that may not be tied to their target yet."""

    def known(self, found: Object) -> Known:
        """The number and name of an object."""
        # An id may come again, for another object, in a long trace.
        key = (found.kind, found.id, found.call.raw.seq if found.call is not None else 0)
        held = self._by_key.get(key)
        if held is not None:
            return held
        made = self._by_key[key] = Known(
            len(self.all), found.kind, "", found.origin != MADE
        )
        self.all.append(made)
        if found.kind == "link":
            self._links[made.number] = (found, made)
            if len(self._links) > LINKS_WAITING:
                self._name(*self._links.popitem(last=False)[1])
        else:
            self._name(found, made)
        return made

    def _name(self, found: Object, known: Known) -> None:
        known.base = base_name(found, self.model, self.pids)

    def ref(self, found: Object) -> str:
        """How texts speak of it."""
        if found.kind == "file":
            return f'"{escaped(stable(found.name, self.pids))}"'
        if found.kind == "perf_event" and found.call is None and not found.name:
            return "a perf event"
        if found.id is None and found.call is None:
            return found.kind
        return ref(self.known(found).number)

    def settle(self) -> None:
        """All is known: links have their targets."""
        while self._links:
            self._name(*self._links.popitem(last=False)[1])


def base_name(found: Object, model: Model, pids: Container[int]) -> str:
    """``prog hello_world``, ``map events``, ``link xdp on lo``, ``event kprobe f cpu 0``."""
    words = ["event" if found.kind == "perf_event" else found.kind]
    name = escaped(found.name)[:NAME_LIMIT]
    if found.kind == "btf":
        name = name or _btf_name(found, model)
    elif isinstance(found, Link):
        name = stable(escaped(found.target or found.type or name), pids)
        if found.prog is not None and found.prog.name:
            name = f"{escaped(found.prog.name)} -> {name}"
    elif found.kind == "perf_event":
        name = stable(name, pids)
        cpu = None if found.call is None else found.call.number("cpu")
        if cpu is not None and cpu >= 0:
            name = f"{name} cpu {cpu}"
    elif not name:
        kind = ""
        if isinstance(found, Prog):
            kind = found.type
        elif isinstance(found, Map):
            kind = found.type_name
        name = f"({kind or 'anonymous'})"
    return " ".join(word for word in (*words, name) if word)


def _btf_name(found: Object, model: Model) -> str:
    """BTF has no name; the first function, section or type in it tells it from others."""
    btf = None if found.id is None else model.btf(found.id)
    if btf is None:
        return ""
    from decoders.formats.btf_types import Kind

    for kind in (Kind.FUNC, Kind.DATASEC, Kind.STRUCT, Kind.TYPEDEF, Kind.ENUM):
        for type_id in btf.ids_of(kind)[:1]:
            name = str(btf.name(type_id))
            if name:
                return f"of {escaped(name)}"
    return ""
