"""What happens to processes between their calls."""

from __future__ import annotations

from typing import Any, NamedTuple


class ProcessEvent(NamedTuple):
    """``what`` is fork, exec or exit; ``details`` holds the child, code or signal."""

    what: str
    time: int
    """Nanoseconds since the epoch."""
    pid: int
    tid: int
    details: dict[str, Any]
