"""Whether what a program was attached to still holds it when the trace has ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from bpftrace_sys.story.objects import Object
from bpftrace_sys.trace.facts import Facts

_SLOT: Final = re.compile(r" (?:of|on) map (?:.* )?id=(\d{1,10})$")
"""Targets that are elements of a map, which holds the program: ``tail call 0 of map jumps id=4``.
"""


def lasting(found: Object, linked: set[str], passing: set[str]) -> Iterator[str]:
    """Targets that hold a program or map themselves: no link does it, and no perf event.

    ``linked``: targets of links; ``passing``: those that end with their fds.
    """
    return (target for target in found.attached if target not in linked | passing)


def slot_of(target: str) -> int | None:
    """The id of the map of which a target is an element."""
    slot = _SLOT.search(target)
    return None if slot is None else int(slot[1])


def still_attached(found: Object, target: str, facts: Facts) -> bool:
    """Whether a target was seen to be there at the end of the trace.

    A device or cgroup may be gone, with its namespace; a map with its last user.
    """
    holder = slot_of(target)
    if holder is not None:
        return facts.fact("alive_map", holder) is not None
    return found.kind != "prog" or facts.fact("standing", found.id or 0) is not None
