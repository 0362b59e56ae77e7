"""A whole trace read into one renderer, for the subcommands that make something of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from bpftrace_sys.cli.messages import complain
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.story.whole_trace import read
from bpftrace_sys.trace.items import TraceError

Made = TypeVar("Made", bound=Renderer)


def collected(
    path: str, make: Callable[[Model], Made], left: str
) -> tuple[Made | None, TraceError | None]:
    """What ``make`` makes of a trace's model, fed with the trace; None where it has no header.

    With it, what is wrong with the trace, which is said: ``left`` tells what becomes of what
    stood before the damage.
    """
    made: list[Made] = []

    def making(model: Model) -> Made:
        made.append(make(model))
        return made[0]

    try:
        read(path, making)
    except TraceError as error:
        complain(f"{error}; {left}" if made else str(error))
        return (made[0] if made else None), error
    return made[0], None
