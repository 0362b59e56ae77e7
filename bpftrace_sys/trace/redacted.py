"""Classes of what a trace can hold stand-ins for (docs/trust.md, What a trace holds)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

USUAL: Final = ("values", "strings", "paths", "argv", "host")
"""What is hidden if nothing else is said."""
NAMES: Final = "names"
CLASSES: Final = (*USUAL, NAMES)
