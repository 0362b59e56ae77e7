"""What a row of the ways of attaching says of a call."""

from __future__ import annotations

from collections.abc import Callable

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Link, Object, PerfEvent
from decoders.call import Call
from decoders.records import dataclass


@dataclass(slots=True)
class Way:
    """What a row says: program, target, and how."""

    prog: Object | None
    target: str
    via: str = ""
    verb: str = "attached"
    event: PerfEvent | None = None
    alone: bool = False
    """The target holds one program: it takes the place of what was there."""
    before: Object | None = None
    """The program whose place it takes, where the call names it."""
    link: Link | None = None


Reading = Callable[[Call, Model], Way | None]
