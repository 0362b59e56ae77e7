"""How much of a trace is held, so that a comparison takes bounded memory."""

from __future__ import annotations

from typing import Final

THINGS: Final = 20_000
"""Programs, maps and BTF of a trace that are held one by one; the rest in a hash."""
DISTINCT: Final = 2_000
"""Different calls about one object that are held one by one; the rest in a hash."""
GROUPS: Final = 50_000
"""Objects and processes whose calls are held apart."""
