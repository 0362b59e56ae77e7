"""What happens to processes between their calls."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:
    from decoders.records import NamedTuple


class ProcessEvent(NamedTuple):
    """``what`` is fork, exec or exit; ``details`` holds the child, code or signal."""

    what: str
    time: int
    """Nanoseconds since the epoch."""
    pid: int
    tid: int
    details: dict[str, Any]
