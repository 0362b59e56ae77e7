"""Who is told where nothing can be told any more."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Nobody:
    """A sink that wants nothing, and needs nothing: no import, where memory is what lacks."""

    def entry(self, *_: Any) -> bool:
        return False

    def work(self) -> bool:
        return False

    def nothing(self, *_: Any) -> None:
        pass

    exit = forked = execed = exited = note = nothing
