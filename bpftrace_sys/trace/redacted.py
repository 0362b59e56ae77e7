"""Classes of what a trace can hold stand-ins for (docs/trust.md, What a trace holds)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CLASSES: Final = ("values", "strings", "paths", "argv", "host")
