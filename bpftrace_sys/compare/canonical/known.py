"""What canonical text knows of a trace as it comes: objects, processes, and equal parts once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final, TypeVar

from bpftrace_sys.compare.canonical.objects import Objects
from bpftrace_sys.compare.canonical.processes import Processes
from bpftrace_sys.story.model import Model

PARTS: Final = 1 << 17
"""Lines, fields and blocks that are remembered, to be held once."""
Part = TypeVar("Part", bound=Hashable)


class Known:
    """Numbers for objects and processes, in the order in which the trace names them."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.processes = Processes()
        self.objects = Objects(model, self.processes.numbers)
        self.kernel: tuple[int, int] | None = None
        self._once: dict[Hashable, Any] = {}

    def once(self, part: Part) -> Part:
        """The same object for equal ones: programs and BTF come again and again."""
        if len(self._once) >= PARTS:
            self._once.clear()
        return self._once.setdefault(part, part)  # type: ignore[no-any-return]
